#include "threads.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

#include "buffer.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace minires::threads {
namespace {

// Polls for the next job before a thread sleeps: 0.2 to 1 ms, depending on the processor's `pause`.  Waking a thread takes
// longer than many operations.
constexpr int SPINS = 20000;

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

class Pool {
  public:
    explicit Pool(int workers) {
        try {
            for (int i = 0; i < workers; i++) workers_.emplace_back([this] { work(); });
        } catch (const std::system_error&) {
            // The system allows no more threads.  Fewer threads compute the same results.
        }
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

    // Rethrows the first exception of a body after all workers have left `take`.
    void run(long items, void (*body)(void*, long), void* context) {
        body_ = body, context_ = context, items_ = items;
        failure_ = nullptr;
        next_.store(0);
        open_.store(true);  // publishes the job: workers read it only after they have read `open_`
        {
            std::lock_guard<std::mutex> lock(mutex_);
            epoch_.fetch_add(1);
        }
        if (sleepers_.load() > 0) wake_.notify_all();
        take();
        open_.store(false);
        // A worker increments `inside_` before it reads `open_`, so every worker that has joined is counted here.  A
        // worker that the system has not scheduled yet need not join.
        for (long spins = 0; inside_.load() > 0; spins++) spins < SPINS ? relax() : std::this_thread::yield();
        if (failure_) std::rethrow_exception(failure_);
    }

  private:
    void take() {
        try {
            for (long item = next_.fetch_add(1); item < items_; item = next_.fetch_add(1)) body_(context_, item);
        } catch (...) {
            next_.store(items_);  // stops the other threads
            std::lock_guard<std::mutex> lock(mutex_);
            if (!failure_) failure_ = std::current_exception();
        }
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

    // Each has its own cache line: all threads write to `next_`, but workers only read `epoch_`.
    alignas(64) std::atomic<long> next_{0};
    alignas(64) std::atomic<unsigned long> epoch_{0};
    alignas(64) std::atomic<int> inside_{0};
    alignas(64) std::atomic<bool> open_{false};
    void (*body_)(void*, long) = nullptr;
    void* context_ = nullptr;
    long items_ = 0;
    std::exception_ptr failure_;
    std::atomic<bool> stop_{false};
    std::atomic<int> sleepers_{0};
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
};

int count_processors() {  // available to this process
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    unsigned found = std::thread::hardware_concurrency();
    return found > 0 ? static_cast<int>(found) : 1;
}

int available() {
    static const int found = count_processors();
    return found;
}

std::atomic<int> wanted{0};  // 0: one for each processor
std::mutex busy;             // locked while a job runs
Pool* pool = nullptr;        // made by the first job, with wanted − 1 workers
int made = 0;                // its threads, including the caller

void abandon_in_child() {  // a forked child has no workers
    new (&busy) std::mutex;
    pool = nullptr;  // leaks: its destructor would join threads that do not exist
    made = 0;
}

void join_before_exit() {  // waiting workers must not outlive the static objects that they use
    std::lock_guard<std::mutex> lock(busy);
    delete pool;
    pool = nullptr, made = 0;
}

void register_handlers() {
#if defined(__unix__) || defined(__APPLE__)
    pthread_atfork(nullptr, nullptr, abandon_in_child);
#endif
    std::atexit(join_before_exit);
}

}  // namespace

void set_count(int count) { wanted.store(count); }

int count() {
    const int set = wanted.load();
    return set > 0 ? set : available();
}

void run(long items, void (*body)(void*, long), void* context) {
    static thread_local bool inside = false;
    std::unique_lock<std::mutex> lock(busy, std::defer_lock);
    int threads;
    if (items < 2 || inside || (threads = count()) < 2 || !lock.try_lock()) {
        for (long item = 0; item < items; item++) body(context, item);
        return;
    }
    if (made != threads) {
        [[maybe_unused]] static const bool registered = (register_handlers(), true);
        delete pool;
        pool = nullptr, made = 0;
        pool = new Pool(threads - 1);
        made = threads;
    }
    struct Inside {
        Inside() { inside = true; }
        ~Inside() { inside = false; }
    } here;
    pool->run(items, body, context);
}

void* scratch(Scratch slot, unsigned long bytes) {
    static thread_local std::optional<Buffer<char>> buffers[static_cast<int>(Scratch::count)];
    auto& buffer = buffers[static_cast<int>(slot)];
    if (!buffer || buffer->bytes() < bytes) {
        buffer.reset();
        buffer.emplace((bytes + 4095) / 4096 * 4096);
    }
    return *buffer;
}

}  // namespace minires::threads
