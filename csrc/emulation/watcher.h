// What the emulator reports when it is compiled with -DMINIRES_WATCHED, for watch.cpp.  Other builds contain no trace of it.
#pragma once

namespace emulation {

struct Place;

namespace watcher {

void block_begins(unsigned threads);
void block_ends();
void thread_resumes(unsigned number);
void thread_suspends();
void barrier_passed(Place place);               // by all threads of the block
// orders_memory: __syncwarp does; shuffles, ldmatrix and mma do not.
void lanes_met(unsigned warp, unsigned lanes, bool orders_memory);
void copy_issued(void* shared, const void* global, unsigned bytes, unsigned size, Place place);
void copy_waited_for(void* shared, unsigned bytes);
void matrix_row(const void* row, Place place);  // ldmatrix: this lane's row of 16 bytes
void multiplied(Place place);                   // mma
void updated(void* address, unsigned bytes, Place place);  // atomically

}  // namespace watcher
}  // namespace emulation

#if defined(MINIRES_WATCHED)
#define EMULATION_WATCH(call) emulation::watcher::call
// Kept out of the watch: code of the emulator itself.
#define EMULATION_UNWATCHED __attribute__((no_sanitize("thread")))
#else
#define EMULATION_WATCH(call) ((void)0)
#define EMULATION_UNWATCHED
#endif
