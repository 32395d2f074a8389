// The scheduler of a block's threads, and what threads do together: barriers, warp exchanges, asynchronous copies.
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

// The first and the last byte of shared memory; the linker knows them.
extern "C" char __start_cuda_shared[] __attribute__((weak));
extern "C" char __stop_cuda_shared[] __attribute__((weak));

namespace emulation {

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
    unsigned mask = 0;
    std::vector<Copy> open;               // asked for since the last commit
    std::deque<std::vector<Copy>> groups;  // committed, the oldest first
};

struct Warp {
    // Two boards by turns: a lane may write for the next exchange while another still reads the last one.
    alignas(16) char board[2][32][64];
    unsigned turn = 0;
};

struct Block {
    std::vector<std::unique_ptr<Thread>> threads;
    std::vector<std::unique_ptr<Warp>> warps;
    size_t count = 0;
    size_t current = 0;
    unsigned barrier = 0;  // 0 and 1 by turns
    bool copies_early = false;
    const Kernel* kernel = nullptr;
    void** arguments = nullptr;

    Thread& self() { return *threads[current]; }
};

Block block;
std::mutex one_launch_at_a_time;

// A thread that was launching stayed behind in the parent, with the mutex locked and its block half run.
void start_afresh_in_child() {
    new (&one_launch_at_a_time) std::mutex;
    new (&block) Block;  // the memory of the old one is lost
}
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, start_afresh_in_child);

// Where threads meet, for ThreadSanitizer.  Barriers have two by turns: a thread that is late to leave one must not be
// taken to have seen what others did on their way to the next.
char start_of_block, end_of_block, barriers[2];

std::string told(const uint3& index) {
    return "thread (" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

std::string told(Place place) { return std::string(place.file) + ":" + std::to_string(place.line); }

bool same(Place a, Place b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

[[noreturn]] void complain(const std::string& what) {
    throw std::runtime_error(std::string(block.kernel->name) + ": " + what + ", in block (" +
                             std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " +
                             std::to_string(blockIdx.z) + ")");
}

// A NaN in float and in double, and no plausible index.  Not seen by the sanitizers: it runs over their red zones too.
__attribute__((no_sanitize("address"))) void poison_shared_memory() {
    for (volatile char* byte = __start_cuda_shared; byte < __stop_cuda_shared; ++byte) *byte = '\xff';
}

void body(void* argument) {
    acquire(&start_of_block);
    (void)argument;
    block.kernel->call(block.arguments);
    block.self().state = State::done;
    release(&end_of_block);
}

void go_on(size_t number) {
    block.current = number;
    threadIdx = block.threads[number]->index;
    block.threads[number]->fiber.resume();
}

// Leaves the running thread until `state` is over.
void wait(State state, Place place, void* meeting_point) {
    Thread& self = block.self();
    self.state = state;
    self.place = place;
    release(meeting_point);
    self.fiber.suspend();
    acquire(meeting_point);
}

// The lanes of a warp that wait for one another, if all that are meant have come.
bool release_exchange(size_t warp) {
    const size_t first = 32 * warp, last = std::min(first + 32, block.count);
    unsigned waiting = 0, wanted = 0;
    for (size_t i = first; i < last; i++)
        if (block.threads[i]->state == State::in_exchange) {
            waiting |= 1u << (i - first);
            wanted |= block.threads[i]->mask;
        }
    if (last - first < 32) wanted &= (1u << (last - first)) - 1;
    if (!waiting || (waiting & wanted) != wanted) return false;
    const Thread* one = nullptr;
    for (size_t i = first; i < last; i++) {
        Thread& lane = *block.threads[i];
        if (lane.state != State::in_exchange) continue;
        if (one && !same(one->place, lane.place))
            complain("lanes of a warp exchange at different places: " + told(one->index) + " at " + told(one->place) +
                     ", " + told(lane.index) + " at " + told(lane.place));
        one = &lane;
        lane.state = State::ready;
    }
    block.warps[warp]->turn ^= 1;
    return true;
}

// Called when no thread is ready: releases whoever may go on, or says why nobody can.
void meet() {
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
            complain("not all lanes that " + told(thread.index) + " waits for come to the warp exchange at " +
                     told(thread.place));
        if (thread.state == State::done || !same(thread.place, at_barrier->place)) elsewhere = &thread;
    }
    if (elsewhere)
        complain("divergent barrier: " + told(at_barrier->index) + " waits at " + told(at_barrier->place) + ", " +
                 told(elsewhere->index) +
                 (elsewhere->state == State::done ? " has returned" : " at " + told(elsewhere->place)));
    for (size_t i = 0; i < block.count; i++) block.threads[i]->state = State::ready;
    block.barrier ^= 1;
}

// Runs one warp as far as it gets without the others: to a barrier, or to its end.  Where a barrier is missing it
// overwrites what they have yet to read, or reads what they have yet to write.
void run_ahead(size_t warp) {
    const size_t first = 32 * warp, last = std::min(first + 32, block.count);
    do {
        for (size_t i = first; i < last; i++)
            if (block.threads[i]->state == State::ready) go_on(i);
    } while (release_exchange(warp));
}

// An asynchronous copy may arrive at any time before it is waited for: either at once or only then.
void carry_out(const Copy& copy) {
    if (copy.size) std::memcpy(copy.shared, copy.global, copy.size);
    if (copy.size < copy.bytes) std::memset(static_cast<char*>(copy.shared) + copy.size, 0, copy.bytes - copy.size);
}

void run_block(std::mt19937* shuffle) {
    poison_shared_memory();
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
                go_on(number);
                ran = true;
            }
            waiting |= thread.state != State::done;
        }
        if (!waiting) break;
        if (!ran) meet();
    }
    acquire(&end_of_block);
    for (size_t i = 0; i < block.count; i++) {
        const Thread& thread = *block.threads[i];
        const Copy* lost = thread.open.empty() ? nullptr : &thread.open.front();
        for (const auto& group : thread.groups)
            if (!group.empty()) lost = &group.front();
        if (lost) complain("the cp.async at " + told(lost->place) + " was never waited for by " + told(thread.index));
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
        // Lanes lie `bytes` apart, as in an array of the exchanged type.
        std::memcpy(&warp.board[turn][0][0] + lane * bytes, mine, bytes);
    }
    block.self().mask = mask;
    wait(State::in_exchange, place, warp.board[turn]);
    return warp.board[turn];
}

void copy_async(void* shared, const void* global, unsigned bytes, unsigned size, Place place) {
    const Copy copy{shared, global, bytes, size, place};
    if (block.copies_early) carry_out(copy);
    block.self().open.push_back(copy);
}

void commit_async() {
    Thread& self = block.self();
    self.groups.push_back(std::move(self.open));
    self.open.clear();
}

// Finishes all groups but the `newest` ones.
void wait_async(unsigned newest) {
    Thread& self = block.self();
    while (self.groups.size() > newest) {
        for (const Copy& copy : self.groups.front())
            if (!block.copies_early) carry_out(copy);
        self.groups.pop_front();
    }
}

void launch(const Kernel& kernel, dim3 grid, dim3 threads, void** arguments, unsigned seed) {
    const size_t count = size_t{threads.x} * threads.y * threads.z;
    if (count < 1 || count > 1024 || threads.z > 64)
        throw std::invalid_argument(std::string(kernel.name) + ": a block has 1 to 1024 threads, got " + std::to_string(count));
    if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffffu)
        throw std::invalid_argument(std::string(kernel.name) + ": a grid is at least 1 and at most 2^31 - 1 × 65535 × 65535");
    const std::lock_guard lock(one_launch_at_a_time);
    while (block.threads.size() < count) block.threads.push_back(std::make_unique<Thread>());
    while (block.warps.size() < (count + 31) / 32) block.warps.push_back(std::make_unique<Warp>());
    block.count = count;
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
