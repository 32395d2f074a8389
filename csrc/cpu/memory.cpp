#include "memory.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1  // Clang's word for it
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace minires::memory {
namespace {

constexpr std::size_t PAGE = std::size_t{2} << 20;    // a huge page: arenas are aligned to it and ask for such pages
// What is asked of the system, at least: as much again as there is, up to 256 MB, so that arrays of a fifth of an arena,
// which leave a gap at its end, don't have many arenas to leave gaps in.
constexpr std::size_t ARENA = std::size_t{32} << 20, MOST = std::size_t{256} << 20;
constexpr std::size_t GRAIN = 64;                     // blocks are multiples of a cache line

// AddressSanitizer knows what malloc gives out; here it is told, and a gap behind every block lets it see an overrun.
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

struct Heap {
    std::mutex mutex;
    std::map<char*, std::size_t> arenas;                 // start -> bytes
    std::map<char*, std::size_t> free;                   // start -> bytes, of blocks with no free neighbour
    std::set<std::pair<std::size_t, char*>> by_size;     // the same blocks
    std::size_t reserved = 0, used = 0;

    void add(char* start, std::size_t bytes) {
        free.emplace(start, bytes);
        by_size.emplace(bytes, start);
    }
    void remove(std::map<char*, std::size_t>::iterator block) {
        by_size.erase({block->second, block->first});
        free.erase(block);
    }
    // Blocks of two arenas that happen to lie side by side are not joined: each arena must be able to go.
    bool starts_arena(char* at) const { return arenas.count(at) > 0; }
};

std::size_t block_of(std::size_t bytes) { return round_up((bytes > 0 ? bytes : 1) + GAP, GRAIN); }

Heap& heap();

Heap* make_heap() {
#if defined(__unix__) || defined(__APPLE__)
    // A thread may be in here while another forks: the child would wait for it for ever.
    pthread_atfork([] { heap().mutex.lock(); }, [] { heap().mutex.unlock(); }, [] { heap().mutex.unlock(); });
#endif
    return new Heap;
}

Heap& heap() {
    static Heap* one = make_heap();  // never taken down: arrays may be freed after static objects are
    return *one;
}

char* ask_the_system(std::size_t bytes) {
    auto* start = static_cast<char*>(std::aligned_alloc(PAGE, bytes));
    if (!start) throw std::bad_alloc();
#if defined(__linux__)
    madvise(start, bytes, MADV_HUGEPAGE);  // advice: where it is not taken, small pages do
#endif
    return start;
}

}  // namespace

void* take(std::size_t wanted) {
    const std::size_t bytes = block_of(wanted);
    Heap& h = heap();
    std::lock_guard<std::mutex> lock(h.mutex);
    auto fit = h.by_size.lower_bound({bytes, nullptr});  // the smallest that is large enough
    if (fit == h.by_size.end()) {
        std::size_t size = round_up(std::max(bytes, std::clamp(h.reserved, ARENA, MOST)), PAGE);
        char* arena = ask_the_system(size);
        h.arenas.emplace(arena, size);
        h.reserved += size;
        h.add(arena, size);
        forbid(arena, size);
        fit = h.by_size.find({size, arena});
    }
    auto [size, start] = *fit;
    h.remove(h.free.find(start));
    if (size > bytes) h.add(start + bytes, size - bytes);
    h.used += bytes;
    allow(start, wanted);
    return start;
}

void give_back(void* pointer, std::size_t bytes) noexcept {
    auto* start = static_cast<char*>(pointer);
    bytes = block_of(bytes);
    Heap& h = heap();
    std::lock_guard<std::mutex> lock(h.mutex);
    forbid(start, bytes);
    h.used -= bytes;
    auto after = h.free.lower_bound(start);
    if (after != h.free.end() && after->first == start + bytes && !h.starts_arena(after->first)) {
        bytes += after->second;
        auto gone = after++;
        h.remove(gone);
    }
    if (after != h.free.begin() && !h.starts_arena(start)) {
        auto before = std::prev(after);
        if (before->first + before->second == start) {
            start = before->first;
            bytes += before->second;
            h.remove(before);
        }
    }
    h.add(start, bytes);
}

Usage usage() {
    Heap& h = heap();
    std::lock_guard<std::mutex> lock(h.mutex);
    return {h.reserved, h.used};
}

std::size_t trim() {
    Heap& h = heap();
    std::lock_guard<std::mutex> lock(h.mutex);
    std::size_t given = 0;
    for (auto arena = h.arenas.begin(); arena != h.arenas.end();) {
        auto block = h.free.find(arena->first);
        if (block != h.free.end() && block->second == arena->second) {
            h.remove(block);
            allow(arena->first, arena->second);
            std::free(arena->first);
            given += arena->second;
            arena = h.arenas.erase(arena);
        } else {
            ++arena;
        }
    }
    h.reserved -= given;
    return given;
}

}  // namespace minires::memory
