#include "memory.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1  // the macro of GCC
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace minires::memory {
namespace {

constexpr std::size_t PAGE = std::size_t{2} << 20;  // arenas consist of huge pages
// Arenas are large, because an array of a fifth of an arena leaves a gap at its end.
constexpr std::size_t SMALLEST_ARENA = std::size_t{32} << 20, LARGEST_ARENA = std::size_t{256} << 20;
constexpr std::size_t GRAIN = 64;  // blocks are multiples of a cache line

// AddressSanitizer reports an access to a poisoned free block, and an overrun into the gap behind each block.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t GAP = GRAIN;
void forbid(char* start, std::size_t bytes) { __asan_poison_memory_region(start, bytes); }
void allow(char* start, std::size_t bytes) { __asan_unpoison_memory_region(start, bytes); }
#else
constexpr std::size_t GAP = 0;
void forbid(char*, std::size_t) {}
void allow(char*, std::size_t) {}
#endif

std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

std::size_t block_of(std::size_t bytes) { return round_up((bytes > 0 ? bytes : 1) + GAP, GRAIN); }

Heap* make_heap() {
#if defined(__unix__) || defined(__APPLE__)
    // Another thread may hold the mutex during a fork.  Without these handlers it would stay locked in the child.
    pthread_atfork([] { heap().mutex.lock(); }, [] { heap().mutex.unlock(); }, [] { heap().mutex.unlock(); });
#endif
    return new Heap(SMALLEST_ARENA, LARGEST_ARENA, false);
}

char* new_arena(std::size_t bytes) {
    auto* start = static_cast<char*>(std::aligned_alloc(PAGE, bytes));
    if (!start) throw std::bad_alloc();
#if defined(__linux__)
    madvise(start, bytes, MADV_HUGEPAGE);  // if the system refuses, small pages work too
#endif
    return start;
}

}  // namespace

Heap& heap() {
    static Heap* one = make_heap();
    return *one;
}

void* allocate(std::size_t bytes) { return heap().allocate(bytes); }
void deallocate(void* start, std::size_t bytes) noexcept { heap().deallocate(start, bytes); }

Heap::~Heap() {
    for (auto [start, bytes] : arenas_) {
        allow(start, bytes);
        std::free(start);
    }
}

void Heap::add_arena(std::size_t bytes) {
    bytes = round_up(bytes, PAGE);
    char* arena = new_arena(bytes);
    arenas_.emplace(arena, bytes);
    reserved_ += bytes;
    add(arena, bytes);
    if (!replayed_) forbid(arena, bytes);
}

void Heap::reserve(std::size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    if (bytes > 0) add_arena(bytes);
}

void Heap::add(char* start, std::size_t bytes) {
    free_.emplace(start, bytes);
    by_size_.emplace(bytes, start);
}

void Heap::remove(std::map<char*, std::size_t>::iterator block) {
    by_size_.erase({block->second, block->first});
    free_.erase(block);
}

void* Heap::allocate(std::size_t wanted) {
    const std::size_t bytes = block_of(wanted);
    std::lock_guard<std::mutex> lock(mutex);
    auto fit = by_size_.lower_bound({bytes, nullptr});  // best fit
    if (fit == by_size_.end()) {
        add_arena(std::max(bytes, std::clamp(reserved_, smallest_, largest_)));
        fit = by_size_.lower_bound({bytes, nullptr});
    }
    auto [size, start] = *fit;
    remove(free_.find(start));
    if (size > bytes) add(start + bytes, size - bytes);
    used_ += bytes;
    peak_ = std::max(peak_, used_);
    if (replayed_) allocated_[start] = wanted;
    allow(start, wanted);
    return start;
}

void Heap::deallocate(void* pointer, std::size_t bytes) noexcept {
    auto* start = static_cast<char*>(pointer);
    bytes = block_of(bytes);
    std::lock_guard<std::mutex> lock(mutex);
    allocated_.erase(pointer);
    if (!replayed_) forbid(start, bytes);
    used_ -= bytes;
    auto after = free_.lower_bound(start);
    if (after != free_.end() && after->first == start + bytes && !starts_arena(after->first)) {
        bytes += after->second;
        auto gone = after++;
        remove(gone);
    }
    if (after != free_.begin() && !starts_arena(start)) {
        auto before = std::prev(after);
        if (before->first + before->second == start) {
            start = before->first;
            bytes += before->second;
            remove(before);
        }
    }
    add(start, bytes);
}

std::size_t Heap::size(void* start) {
    std::lock_guard<std::mutex> lock(mutex);
    return allocated_.at(start);
}

bool Heap::contains(const void* address) {
    auto* at = static_cast<char*>(const_cast<void*>(address));
    std::lock_guard<std::mutex> lock(mutex);
    auto after = arenas_.upper_bound(at);
    return after != arenas_.begin() && at < std::prev(after)->first + std::prev(after)->second;
}

Usage Heap::usage() {
    std::lock_guard<std::mutex> lock(mutex);
    return {reserved_, used_, peak_};
}

std::size_t Heap::trim() {
    std::lock_guard<std::mutex> lock(mutex);
    std::size_t given = 0;
    for (auto arena = arenas_.begin(); arena != arenas_.end();) {
        auto block = free_.find(arena->first);
        if (block != free_.end() && block->second == arena->second) {
            remove(block);
            allow(arena->first, arena->second);
            std::free(arena->first);
            given += arena->second;
            arena = arenas_.erase(arena);
        } else {
            ++arena;
        }
    }
    reserved_ -= given;
    return given;
}

}  // namespace minires::memory
