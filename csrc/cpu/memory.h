// A caching allocator for the results of operations.
//
// The system zeroes each page of a new array, which takes longer than writing it.  A training step allocates hundreds of
// arrays, of the same sizes as the step before.  So blocks are cut from large arenas and reused.  Arenas return to the
// system only by `trim`.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <set>
#include <utility>

namespace minires::memory {

struct Usage {
    std::size_t reserved;  // bytes of all arenas
    std::size_t used;      // bytes of allocated blocks
    std::size_t peak;      // maximum of `used`
};

class Heap {
  public:
    // A new arena doubles the heap, within these bounds.
    // replayed: replays write to freed blocks.  So AddressSanitizer ignores the heap, and block sizes are kept elsewhere.
    Heap(std::size_t smallest_arena, std::size_t largest_arena, bool replayed)
        : smallest_(smallest_arena), largest_(largest_arena), replayed_(replayed) {}
    Heap(const Heap&) = delete;
    Heap& operator=(const Heap&) = delete;
    ~Heap();  // frees every arena

    void* allocate(std::size_t bytes);  // aligned to 64; throws std::bad_alloc
    void deallocate(void* start, std::size_t bytes) noexcept;
    bool contains(const void* address);
    void reserve(std::size_t bytes);  // adds an arena
    bool replayed() const { return replayed_; }
    std::size_t size(void* start);  // of an allocated block; only if replayed
    Usage usage();
    // Frees the arenas without allocated blocks.  Returns their bytes.
    std::size_t trim();

    std::mutex mutex;

  private:
    void add_arena(std::size_t bytes);
    void add(char* start, std::size_t bytes);
    void remove(std::map<char*, std::size_t>::iterator block);
    // Blocks of adjacent arenas are not joined, so that `trim` can free each arena.
    bool starts_arena(char* at) const { return arenas_.count(at) > 0; }

    std::map<char*, std::size_t> arenas_;              // start -> bytes
    std::map<char*, std::size_t> free_;                // start -> bytes of free blocks; free neighbours are joined
    std::set<std::pair<std::size_t, char*>> by_size_;  // the same blocks
    std::size_t smallest_, largest_, reserved_ = 0, used_ = 0, peak_ = 0;
    bool replayed_;
    std::map<void*, std::size_t> allocated_;  // start -> bytes; only if replayed
};

// The heap of the process.  It is never destroyed, because arrays may be freed after static objects.
Heap& heap();

// Of heap().  Not inline, because kernels call them (simd.h).
void* allocate(std::size_t bytes);
void deallocate(void* start, std::size_t bytes) noexcept;

}  // namespace minires::memory
