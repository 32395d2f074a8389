// A fiber: a stack and the place on it where to go on.  `resume` enters it, `suspend` leaves it.
#pragma once

#include <cstddef>

namespace emulation {

class Fiber {
public:
    Fiber();
    ~Fiber();
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    // Sets the fiber to begin `body` at the next resume; whatever it was doing is forgotten.
    void start(void (*body)(void*), void* argument);
    // From the scheduler: runs the fiber until it suspends or its body returns.
    void resume();
    // From within the fiber: back to the scheduler.
    void suspend();

private:
    static void enter(Fiber* self);

    struct Context;
    char* stack_;
    Context* context_;
    void (*body_)(void*) = nullptr;
    void* argument_ = nullptr;
    void* tsan_ = nullptr;
};

// What ThreadSanitizer must know where threads of a block meet: all that was done before `release` is seen after
// `acquire`.  Nothing in a build without it.
void release(void* meeting_point);
void acquire(void* meeting_point);

}  // namespace emulation
