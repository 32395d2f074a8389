// Memory for the results of operations, used again.
//
// The system hands a fresh array of 50 MB out page by page, zeroed, which costs more than writing it; a training step
// asks for hundreds, all of sizes that the step before asked for too.  So nothing is given back: blocks are cut from
// large arenas, and a freed block joins its free neighbours and waits for the next request.
#pragma once

#include <cstddef>

namespace minires::memory {

void* take(std::size_t bytes);  // aligned to 64; throws std::bad_alloc
void give_back(void* start, std::size_t bytes) noexcept;

struct Usage {
    std::size_t reserved;  // bytes of all arenas
    std::size_t used;      // bytes of blocks that are taken
};
Usage usage();

// Arenas of which nothing is taken go back to the system; returns their bytes.
std::size_t trim();

}  // namespace minires::memory
