// One pool of threads for all kernels.  The caller computes too.  The other threads spin for up to a millisecond before
// they sleep, because operations of a network follow one another faster than the system wakes a thread.
#pragma once

#include <type_traits>

namespace minires::threads {

// The number of threads, including the caller.  0 or less: one for each processor.
void set_count(int count);
int count();

// Calls body(context, i) once for every i in 0 … items − 1, in any order, on all threads.  Returns when all calls have
// returned, and rethrows the first exception.  An item's result must not depend on its thread, so that no result depends
// on the number of threads.
// While a job runs, another caller, or a body that calls `run`, computes its items on its own thread.
void run(long items, void (*body)(void* context, long item), void* context);

// `bytes` of thread-local memory, aligned to 64.  Valid until the thread's next call for the same slot.
enum class Scratch { left, right, count };
void* scratch(Scratch slot, unsigned long bytes);

template <typename Body>
void for_each(long items, Body&& body) {
    using Function = std::remove_reference_t<Body>;
    run(items, [](void* context, long item) { (*static_cast<Function*>(context))(item); }, &body);
}

}  // namespace minires::threads
