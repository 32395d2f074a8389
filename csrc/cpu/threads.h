// One pool of threads for every kernel.  The caller works too; the others wait for it, spinning for some microseconds
// (operations of a network follow one another faster than the system wakes a sleeper) and then asleep.
#pragma once

#include <type_traits>

namespace minires::threads {

// How many threads compute from now on, the caller included.
void set(int count);
int get();

// body(context, i) once for every i in 0 … items − 1, in any order, on all threads; returns when all have been computed.
// Which thread computes an item must not change its result: then no result depends on the number of threads.  What a
// body throws is thrown here.
// A second caller at the same time, or a body that calls it again, computes alone.
void run(long items, void (*body)(void* context, long item), void* context);

// `bytes` of memory of this thread's own, aligned to 64, valid until it asks for the same slot again.
enum class Scratch { left, right, count };
void* scratch(Scratch slot, unsigned long bytes);

template <typename Body>
void for_each(long items, Body&& body) {
    using Function = std::remove_reference_t<Body>;
    run(items, [](void* context, long item) { (*static_cast<Function*>(context))(item); }, &body);
}

}  // namespace minires::threads
