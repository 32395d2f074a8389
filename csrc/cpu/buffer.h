// Memory of one call, from the caching heap.
#pragma once

#include "memory.h"

namespace {

template <typename T>
class Buffer {
  public:
    explicit Buffer(long n) : bytes_(static_cast<unsigned long>(n) * sizeof(T)) {
        start_ = static_cast<T*>(minires::memory::take(bytes_));
    }
    ~Buffer() { minires::memory::give_back(start_, bytes_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    operator T*() const { return start_; }

  private:
    unsigned long bytes_;
    T* start_;
};

}  // namespace
