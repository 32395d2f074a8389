// Switches stacks: in assembly on x86-64 (the ABI's six callee-saved registers and the floating-point control words), by
// ucontext elsewhere.  Announces each switch to the sanitizers.
#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if !defined(__x86_64__)
#define MINIRES_UCONTEXT  // may be defined on x86-64 too, to test it
#endif
#if defined(MINIRES_UCONTEXT)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(MINIRES_THREAD_SANITIZER)
#include <sanitizer/tsan_interface.h>
#endif

namespace emulation {

namespace {

constexpr size_t STACK = 256 << 10;  // the system allocates only the pages that a kernel uses

#if defined(__SANITIZE_ADDRESS__)
thread_local const void* scheduler_stack;
thread_local size_t scheduler_size;
#endif
#if defined(MINIRES_THREAD_SANITIZER)
thread_local void* scheduler_tsan;
#endif

}  // namespace

#if !defined(MINIRES_UCONTEXT)

struct Fiber::Context {
    void* fiber;      // the suspended fiber's stack pointer
    void* scheduler;  // the stack pointer of the caller of resume()
};

// Pushes the callee-saved state, stores the stack pointer at *from, and continues at `to`.
extern "C" void minires_switch_stack(void** from, void* to);
__asm__(R"(
.text
.globl minires_switch_stack
.hidden minires_switch_stack
.type minires_switch_stack, @function
minires_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    subq $8, %rsp
    stmxcsr (%rsp)
    fnstcw 4(%rsp)
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    ldmxcsr (%rsp)
    fldcw 4(%rsp)
    addq $8, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size minires_switch_stack, .-minires_switch_stack
# The first switch to a fiber returns here, with the fiber in %rbx.
.globl minires_begin_fiber
.hidden minires_begin_fiber
minires_begin_fiber:
    movq %rbx, %rdi
    xorl %ebp, %ebp
    call *%r12
    ud2
)");
extern "C" void minires_begin_fiber();

#else

struct Fiber::Context {
    ucontext_t fiber, scheduler;
};

#endif

Fiber::Fiber() : context_(std::make_unique<Context>()) {
    void* memory = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    stack_ = static_cast<char*>(memory);
    mprotect(stack_, 4096, PROT_NONE);  // a stack overflow faults
#if defined(MINIRES_THREAD_SANITIZER)
    tsan_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
#if defined(MINIRES_THREAD_SANITIZER)
    __tsan_destroy_fiber(tsan_);
#endif
    munmap(stack_, STACK);
}

void Fiber::start(void (*body)(void*), void* argument) {
    body_ = body;
    argument_ = argument;
#if !defined(MINIRES_UCONTEXT)
    auto top = reinterpret_cast<uint64_t*>(stack_ + STACK - 64);
    uint32_t control[2];
    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(control[0]), "=m"(control[1]));
    uint64_t* frame = top - 8;
    frame[0] = uint64_t{control[0]} | uint64_t{control[1] & 0xffff} << 32;
    frame[1] = frame[2] = frame[3] = 0;                // r15 r14 r13
    frame[4] = reinterpret_cast<uint64_t>(&enter);     // r12
    frame[5] = reinterpret_cast<uint64_t>(this);       // rbx
    frame[6] = 0;                                      // rbp: ends a debugger's backtrace
    frame[7] = reinterpret_cast<uint64_t>(&minires_begin_fiber);
    context_->fiber = frame;
#else
    getcontext(&context_->fiber);
    context_->fiber.uc_stack.ss_sp = stack_;
    context_->fiber.uc_stack.ss_size = STACK;
    const auto self = reinterpret_cast<uintptr_t>(this);
    makecontext(&context_->fiber, reinterpret_cast<void (*)()>(+[](unsigned high, unsigned low) {
                    enter(reinterpret_cast<Fiber*>(uintptr_t{high} << 16 << 16 | low));
                }), 2, static_cast<unsigned>(self >> 16 >> 16), static_cast<unsigned>(self));
#endif
}

void Fiber::enter(Fiber* self) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
    self->body_(self->argument_);
    self->suspend();  // until the next start()
}

void Fiber::resume() {
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, stack_, STACK);
#endif
#if defined(MINIRES_THREAD_SANITIZER)
    scheduler_tsan = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(tsan_, __tsan_switch_to_fiber_no_sync);
#endif
#if !defined(MINIRES_UCONTEXT)
    minires_switch_stack(&context_->scheduler, context_->fiber);
#else
    swapcontext(&context_->scheduler, &context_->fiber);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void Fiber::suspend() {
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, scheduler_stack, scheduler_size);
#endif
#if defined(MINIRES_THREAD_SANITIZER)
    __tsan_switch_to_fiber(scheduler_tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if !defined(MINIRES_UCONTEXT)
    minires_switch_stack(&context_->fiber, context_->scheduler);
#else
    swapcontext(&context_->fiber, &context_->scheduler);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_size);
#endif
}

void release([[maybe_unused]] void* meeting_point) {
#if defined(MINIRES_THREAD_SANITIZER)
    __tsan_release(meeting_point);
#endif
}

void acquire([[maybe_unused]] void* meeting_point) {
#if defined(MINIRES_THREAD_SANITIZER)
    __tsan_acquire(meeting_point);
#endif
}

}  // namespace emulation
