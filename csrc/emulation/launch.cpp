// The scheduler of a block's threads, with barriers, warp exchanges and asynchronous copies.
#include "launch.h"

#include <pthread.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <random>
#include <stdexcept>

#include "fiber.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// The begin and the end of shared memory, defined by the linker.
extern "C" char __start_cuda_shared[] __attribute__((weak));
extern "C" char __stop_cuda_shared[] __attribute__((weak));

namespace emulation {

alignas(128) char dynamic_shared[MOST_DYNAMIC_SHARED];

namespace {

enum class State { ready, at_barrier, in_exchange, done };

struct Copy {
    void* shared;
    const void* global;
    unsigned bytes, size;
    Place place;
};

struct Thread {
    Fiber fiber;
    uint3 index{};
    State state = State::done;
    Place place{};
    unsigned mask = 0;       // of the exchange that it waits in
    unsigned exchanged = 0;  // bytes of its value there
    std::vector<Copy> open;                // since the last commit
    std::deque<std::vector<Copy>> groups;  // committed, in order
};

struct Warp {
    // Two boards alternate: a lane may write for the next exchange while another lane reads the last one.
    alignas(16) char board[2][32][64];
    unsigned turn = 0;
};

struct Block {
    std::vector<std::unique_ptr<Thread>> threads;
    std::vector<std::unique_ptr<Warp>> warps;
    size_t count = 0;
    size_t current = 0;
    unsigned barrier = 0;  // alternates between 0 and 1
    unsigned dynamic = 0;  // bytes of dynamic shared memory
    bool copies_early = false;
    const Kernel* kernel = nullptr;
    void** arguments = nullptr;

    Thread& self() { return *threads[current]; }
};

Block block;
std::mutex one_launch_at_a_time;

// Another thread may have been launching during the fork.  In the child its mutex would stay locked.
void reset_in_child() {
    new (&one_launch_at_a_time) std::mutex;
    new (&block) Block;  // leaks the old block's memory
}
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, reset_in_child);

// The synchronisation points for ThreadSanitizer.  Two alternate for barriers: a thread that leaves one barrier late must
// not be ordered after what other threads do before the next barrier.
char start_of_block, end_of_block, barriers[2];

std::string name_of(const uint3& index) {
    return "thread (" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

std::string name_of(Place place) { return std::string(place.file) + ":" + std::to_string(place.line); }

bool same(Place a, Place b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

[[noreturn]] void fail(const std::string& what) {
    throw std::runtime_error(std::string(block.kernel->name) + ": " + what + ", in block (" +
                             std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " +
                             std::to_string(blockIdx.z) + ")");
}

// The bytes are a NaN in float and in double, and an invalid index.  Not instrumented, because it writes to red zones too.
__attribute__((no_sanitize("address"))) void poison_shared_memory() {
    for (volatile char* byte = __start_cuda_shared; byte < __stop_cuda_shared; ++byte) *byte = '\xff';
    std::memset(dynamic_shared, '\xff', block.dynamic);
}

void body(void* argument) {
    acquire(&start_of_block);
    (void)argument;
    block.kernel->call(block.arguments);
    block.self().state = State::done;
    release(&end_of_block);
}

void run_thread(size_t number) {
    block.current = number;
    threadIdx = block.threads[number]->index;
    EMULATION_WATCH(thread_resumes(unsigned(number)));
    block.threads[number]->fiber.resume();
    EMULATION_WATCH(thread_suspends());
}

// Suspends the running thread in `state`.
void wait(State state, Place place, void* meeting_point) {
    Thread& self = block.self();
    self.state = state;
    self.place = place;
    release(meeting_point);
    self.fiber.suspend();
    acquire(meeting_point);
}

// Releases these lanes of a warp, which wait in an exchange and must wait at one line.
void release_lanes(size_t warp, unsigned lanes, bool orders_memory) {
    const Thread* one = nullptr;
    for (unsigned number = 0; number < 32; number++) {
        if (!(lanes >> number & 1)) continue;
        Thread& lane = *block.threads[32 * warp + number];
        if (one && !same(one->place, lane.place))
            fail("lanes of one warp exchange at different lines: " + name_of(one->index) + " at " + name_of(one->place) +
                     ", " + name_of(lane.index) + " at " + name_of(lane.place));
        one = &lane;
        lane.state = State::ready;
    }
    EMULATION_WATCH(lanes_met(unsigned(warp), lanes, orders_memory));
}

// Releases the lanes of a warp that wait in an exchange, if all lanes of their masks have arrived or returned.  Lanes that
// exchange values share the warp's board and go on together.  __syncwarp exchanges none: each mask goes on by itself.
bool release_exchange(size_t warp) {
    const size_t first = 32 * warp, last = std::min(first + 32, block.count);
    unsigned running = 0, waiting = 0, with_values = 0, wanted = 0, released = 0;
    for (size_t i = first; i < last; i++) {
        const Thread& thread = *block.threads[i];
        const unsigned bit = 1u << (i - first);
        if (thread.state != State::done) running |= bit;
        if (thread.state != State::in_exchange) continue;
        waiting |= bit;
        if (thread.exchanged) with_values |= bit, wanted |= thread.mask;
    }
    for (size_t i = first; i < last; i++) {
        const unsigned mask = block.threads[i]->mask;
        if (!((waiting & ~with_values & ~released) >> (i - first) & 1)) continue;
        unsigned group = 0;
        for (size_t j = first; j < last; j++)
            if ((waiting & ~with_values) >> (j - first) & 1 && block.threads[j]->mask == mask) group |= 1u << (j - first);
        if (mask & running & ~group) continue;
        release_lanes(warp, group, true);
        released |= group;
    }
    if (with_values && !(wanted & running & ~with_values)) {
        release_lanes(warp, with_values, false);
        released |= with_values;
    }
    // Lanes that still wait with values keep their board.
    if (released && !(with_values & ~released)) block.warps[warp]->turn ^= 1;
    return released;
}

// Called if no thread is ready.  Releases threads from exchanges or from the barrier, or throws the reason of a deadlock.
void synchronise() {
    bool released = false;
    for (size_t warp = 0; 32 * warp < block.count; warp++) released |= release_exchange(warp);
    if (released) return;
    const Thread *at_barrier = nullptr, *elsewhere = nullptr;
    for (size_t i = 0; i < block.count; i++) {
        const Thread& thread = *block.threads[i];
        if (thread.state == State::at_barrier && !at_barrier) at_barrier = &thread;
    }
    for (size_t i = 0; i < block.count; i++) {
        const Thread& thread = *block.threads[i];
        if (thread.state == State::in_exchange)
            fail(name_of(thread.index) + " waits for lanes that do not reach the warp exchange at " +
                     name_of(thread.place));
        if (thread.state == State::done || !same(thread.place, at_barrier->place)) elsewhere = &thread;
    }
    if (elsewhere)
        fail("divergent barrier: " + name_of(at_barrier->index) + " waits at " + name_of(at_barrier->place) + ", " +
                 name_of(elsewhere->index) +
                 (elsewhere->state == State::done ? " has returned" : " at " + name_of(elsewhere->place)));
    EMULATION_WATCH(barrier_passed(at_barrier->place));
    for (size_t i = 0; i < block.count; i++) block.threads[i]->state = State::ready;
    block.barrier ^= 1;
}

// Runs one warp alone up to a barrier or its end.  If a barrier is missing, the warp overwrites what others have not read
// yet, or reads what they have not written yet.
void run_ahead(size_t warp) {
    const size_t first = 32 * warp, last = std::min(first + 32, block.count);
    do {
        for (size_t i = first; i < last; i++)
            if (block.threads[i]->state == State::ready) run_thread(i);
    } while (release_exchange(warp));
}

// An asynchronous copy may arrive at any time between its issue and its wait.  It is carried out at one of the two.
void carry_out(const Copy& copy) {
    if (copy.size) std::memcpy(copy.shared, copy.global, copy.size);
    if (copy.size < copy.bytes) std::memset(static_cast<char*>(copy.shared) + copy.size, 0, copy.bytes - copy.size);
}

void run_block(std::mt19937* shuffle) {
    poison_shared_memory();
    EMULATION_WATCH(block_begins(unsigned(block.count)));
    block.copies_early = shuffle && (*shuffle)() % 2;
    std::vector<size_t> order(block.count);
    std::iota(order.begin(), order.end(), size_t{0});
    for (size_t i = 0; i < block.count; i++) {
        Thread& thread = *block.threads[i];
        thread.fiber.start(&body, nullptr);
        thread.state = State::ready;
        thread.open.clear();
        thread.groups.clear();
    }
    release(&start_of_block);
    for (;;) {
        if (shuffle) {
            std::shuffle(order.begin(), order.end(), *shuffle);
            run_ahead(order.front() / 32);
        }
        bool ran = false, waiting = false;
        for (size_t number : order) {
            Thread& thread = *block.threads[number];
            if (thread.state == State::ready) {
                run_thread(number);
                ran = true;
            }
            waiting |= thread.state != State::done;
        }
        if (!waiting) break;
        if (!ran) synchronise();
    }
    acquire(&end_of_block);
    EMULATION_WATCH(block_ends());
    for (size_t i = 0; i < block.count; i++) {
        const Thread& thread = *block.threads[i];
        const Copy* lost = thread.open.empty() ? nullptr : &thread.open.front();
        for (const auto& group : thread.groups)
            if (!group.empty()) lost = &group.front();
        if (lost) fail("the cp.async at " + name_of(lost->place) + " was never waited for by " + name_of(thread.index));
    }
}

}  // namespace

std::vector<Kernel>& kernels() {
    static std::vector<Kernel> all;
    return all;
}

void barrier(Place place) { wait(State::at_barrier, place, &barriers[block.barrier]); }

const void* exchange(const void* mine, unsigned bytes, unsigned mask, Place place) {
    Warp& warp = *block.warps[block.current / 32];
    const unsigned lane = block.current % 32, turn = warp.turn;
    if (bytes) {
        // An array of the exchanged type: lanes are `bytes` apart.
        std::memcpy(&warp.board[turn][0][0] + lane * bytes, mine, bytes);
    }
    block.self().mask = mask;
    block.self().exchanged = bytes;
    wait(State::in_exchange, place, warp.board[turn]);
    return warp.board[turn];
}

void copy_async(void* shared, const void* global, unsigned bytes, unsigned size, Place place) {
    const Copy copy{shared, global, bytes, size, place};
    EMULATION_WATCH(copy_issued(shared, global, bytes, size, place));
    if (block.copies_early) carry_out(copy);
    block.self().open.push_back(copy);
}

void commit_async() {
    Thread& self = block.self();
    self.groups.push_back(std::move(self.open));
    self.open.clear();
}

// Finishes all groups except the `newest` newest ones.
void wait_async(unsigned newest) {
    Thread& self = block.self();
    while (self.groups.size() > newest) {
        for (const Copy& copy : self.groups.front()) {
            if (!block.copies_early) carry_out(copy);
            EMULATION_WATCH(copy_waited_for(copy.shared, copy.bytes));
        }
        self.groups.pop_front();
    }
}

void launch(const Kernel& kernel, dim3 grid, dim3 threads, void** arguments, unsigned seed, unsigned shared) {
    const size_t count = size_t{threads.x} * threads.y * threads.z;
    if (count < 1 || count > 1024 || threads.z > 64)
        throw std::invalid_argument(std::string(kernel.name) + ": a block has 1 to 1024 threads, got " + std::to_string(count));
    if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffffu)
        throw std::invalid_argument(std::string(kernel.name) + ": a grid is at least 1 and at most 2^31 - 1 × 65535 × 65535");
    if (shared > MOST_DYNAMIC_SHARED)
        throw std::invalid_argument(std::string(kernel.name) + ": a block has at most 227 KiB of shared memory, got " +
                                    std::to_string(shared) + " bytes");
    const std::lock_guard lock(one_launch_at_a_time);
    while (block.threads.size() < count) block.threads.push_back(std::make_unique<Thread>());
    while (block.warps.size() < (count + 31) / 32) block.warps.push_back(std::make_unique<Warp>());
    block.count = count;
    block.dynamic = shared;
    block.kernel = &kernel;
    block.arguments = arguments;
    blockDim = threads;
    gridDim = grid;
    size_t number = 0;
    for (unsigned z = 0; z < threads.z; z++)
        for (unsigned y = 0; y < threads.y; y++)
            for (unsigned x = 0; x < threads.x; x++) block.threads[number++]->index = {x, y, z};
    std::mt19937 shuffle(seed);
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = {x, y, z};
                run_block(seed ? &shuffle : nullptr);
            }
}

}  // namespace emulation
