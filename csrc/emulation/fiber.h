// A fiber: a function that runs on its own stack and can be suspended.
#pragma once

#include <cstddef>
#include <memory>

namespace emulation {

class Fiber {
public:
    Fiber();
    ~Fiber();
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    // The next resume() begins `body`.  Abandons the previous body.
    void start(void (*body)(void*), void* argument);
    // Runs the fiber until it suspends or its body returns.
    void resume();
    // Returns to the caller of resume().  Called on the fiber.
    void suspend();

private:
    static void enter(Fiber* self);

    struct Context;
    char* stack_;
    std::unique_ptr<Context> context_;
    void (*body_)(void*) = nullptr;
    void* argument_ = nullptr;
    void* tsan_ = nullptr;
};

// Tells ThreadSanitizer that everything before release(p) happens before everything after acquire(p).  Does nothing in
// other builds.
void release(void* meeting_point);
void acquire(void* meeting_point);

}  // namespace emulation
