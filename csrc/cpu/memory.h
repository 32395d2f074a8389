// Memory for the results of operations, used again.
//
// The system hands a fresh array of 50 MB out page by page, zeroed, which costs more than writing it; a training step
// asks for hundreds, all of sizes that the step before asked for too.  So nothing is given back: blocks are cut from
// large arenas, and a freed block joins its free neighbours and waits for the next request.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <set>
#include <utility>

namespace minires::memory {

struct Usage {
    std::size_t reserved;  // bytes of all arenas
    std::size_t used;      // bytes of blocks that are taken
    std::size_t peak;      // the most that were taken at a time
};

class Heap {
  public:
    // The system is asked for as much again as there is, within these bounds.
    // replayed: kernels use freed blocks again by their addresses.  AddressSanitizer does not report that, and nothing
    // about a block is kept in its memory, which they overwrite.
    Heap(std::size_t smallest_arena, std::size_t largest_arena, bool replayed)
        : smallest_(smallest_arena), largest_(largest_arena), replayed_(replayed) {}
    Heap(const Heap&) = delete;
    Heap& operator=(const Heap&) = delete;
    ~Heap();  // frees every arena

    void* take(std::size_t bytes);  // aligned to 64; throws std::bad_alloc
    void give_back(void* start, std::size_t bytes) noexcept;
    bool holds(const void* address);
    void reserve(std::size_t bytes);  // an arena for so many
    bool replayed() const { return replayed_; }
    std::size_t size(void* start);  // of a taken block; of a replayed heap
    Usage usage();
    // Frees the arenas of which nothing is taken; returns their bytes.
    std::size_t trim();

    std::mutex mutex;

  private:
    void add_arena(std::size_t bytes);
    void add(char* start, std::size_t bytes);
    void remove(std::map<char*, std::size_t>::iterator block);
    // Blocks of two arenas that happen to lie side by side are not joined: each arena must be able to go.
    bool starts_arena(char* at) const { return arenas_.count(at) > 0; }

    std::map<char*, std::size_t> arenas_;              // start -> bytes
    std::map<char*, std::size_t> free_;                // start -> bytes, of blocks with no free neighbour
    std::set<std::pair<std::size_t, char*>> by_size_;  // the same blocks
    std::size_t smallest_, largest_, reserved_ = 0, used_ = 0, peak_ = 0;
    bool replayed_;
    std::map<void*, std::size_t> taken_;  // start -> bytes; of a replayed heap
};

// The heap of the process, which is never destroyed: arrays may be freed after static objects are.
Heap& heap();

inline void* take(std::size_t bytes) { return heap().take(bytes); }
inline void give_back(void* start, std::size_t bytes) noexcept { heap().give_back(start, bytes); }

}  // namespace minires::memory
