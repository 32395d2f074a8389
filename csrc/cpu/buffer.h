// Owns memory of the caching heap.
#pragma once

#include "memory.h"

namespace {

template <typename T>
class Buffer {
  public:
    explicit Buffer(long n) : bytes_(static_cast<unsigned long>(n) * sizeof(T)) {
        start_ = static_cast<T*>(minires::memory::allocate(bytes_));
    }
    ~Buffer() { minires::memory::deallocate(start_, bytes_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    operator T*() const { return start_; }
    unsigned long bytes() const { return bytes_; }

  private:
    unsigned long bytes_;
    T* start_;
};

}  // namespace
