#include "threads.h"

#include "memory.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace minires::threads {
namespace {

constexpr int SPINS = 20000;  // looks at the next job before going to sleep: some 100 µs

inline void relax() {
#if defined(__x86_64__) || defined(_M_X64)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

class Pool {
  public:
    explicit Pool(int workers) {
        for (int i = 0; i < workers; i++) workers_.emplace_back([this] { work(); });
    }

    ~Pool() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
            epoch_.fetch_add(1);
        }
        wake_.notify_all();
        for (auto& worker : workers_) worker.join();
    }

    void run(long items, void (*body)(void*, long), void* context) {
        body_ = body, context_ = context, items_ = items;
        next_.store(0);
        open_.store(true);  // publishes the job: a worker reads it only after it has seen `open_`
        {
            std::lock_guard<std::mutex> lock(mutex_);
            epoch_.fetch_add(1);
        }
        if (sleepers_.load() > 0) wake_.notify_all();
        take();
        open_.store(false);
        // A worker counts itself in before it looks at `open_`: whoever saw it open is counted here.  One that the
        // system has not let run until now is not waited for.
        for (int spins = 0; inside_.load() > 0; spins++) spins < SPINS ? relax() : std::this_thread::yield();
    }

  private:
    void take() {
        for (long item = next_.fetch_add(1); item < items_; item = next_.fetch_add(1)) body_(context_, item);
    }

    void work() {
        unsigned long seen = 0;
        for (;;) {
            for (int spins = 0; epoch_.load() == seen && spins < SPINS; spins++) relax();
            if (epoch_.load() == seen) {
                std::unique_lock<std::mutex> lock(mutex_);
                sleepers_.fetch_add(1);
                wake_.wait(lock, [&] { return epoch_.load() != seen; });
                sleepers_.fetch_sub(1);
            }
            seen = epoch_.load();
            if (stop_.load()) return;
            inside_.fetch_add(1);
            if (open_.load()) take();
            inside_.fetch_sub(1);
        }
    }

    // Each on a cache line of its own: the items are counted by everyone, the epoch is only watched.
    alignas(64) std::atomic<long> next_{0};
    alignas(64) std::atomic<unsigned long> epoch_{0};
    alignas(64) std::atomic<int> inside_{0};
    alignas(64) std::atomic<bool> open_{false};
    void (*body_)(void*, long) = nullptr;
    void* context_ = nullptr;
    long items_ = 0;
    std::atomic<bool> stop_{false};
    std::atomic<int> sleepers_{0};
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
};

int available() {  // processors that this process may use
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    unsigned found = std::thread::hardware_concurrency();
    return found > 0 ? static_cast<int>(found) : 1;
}

std::atomic<int> wanted{0};  // 0: one for each processor
std::mutex busy;             // held while a job runs
Pool* pool = nullptr;        // made when it is first needed, with wanted − 1 workers
int made = 0;

void forget_in_child() {  // of fork: the workers were left behind in the parent
    new (&busy) std::mutex;
    pool = nullptr;  // its memory is lost: there is nobody left who could take it down
    made = 0;
}

void forget_before_exit() {  // threads that still wait would outlive what they wait on
    std::lock_guard<std::mutex> lock(busy);
    delete pool;
    pool = nullptr, made = 0;
}

void look_after() {
#if defined(__unix__) || defined(__APPLE__)
    pthread_atfork(nullptr, nullptr, forget_in_child);
#endif
    std::atexit(forget_before_exit);
}

struct Memory {
    void* start = nullptr;
    unsigned long bytes = 0;
    ~Memory() {
        if (start) memory::give_back(start, bytes);
    }
};

}  // namespace

void set(int count) { wanted.store(count); }

int get() {
    int count = wanted.load();
    return count > 0 ? count : available();
}

void run(long items, void (*body)(void*, long), void* context) {
    int count = get();
    std::unique_lock<std::mutex> lock(busy, std::defer_lock);
    static thread_local bool inside = false;
    if (items < 2 || count < 2 || inside || !lock.try_lock()) {
        for (long item = 0; item < items; item++) body(context, item);
        return;
    }
    if (made != count) {
        static const bool looked_after = (look_after(), true);
        (void)looked_after;
        delete pool;
        pool = nullptr;
        pool = new Pool(count - 1);
        made = count;
    }
    inside = true;
    pool->run(items, body, context);
    inside = false;
}

void* scratch(Scratch slot, unsigned long bytes) {
    static thread_local Memory memory[static_cast<int>(Scratch::count)];
    Memory& found = memory[static_cast<int>(slot)];
    if (found.bytes < bytes) {
        if (found.start) memory::give_back(found.start, found.bytes);
        found.start = nullptr, found.bytes = 0;
        const unsigned long rounded = (bytes + 4095) / 4096 * 4096;
        found.start = memory::take(rounded);
        found.bytes = rounded;
    }
    return found.start;
}

}  // namespace minires::threads
