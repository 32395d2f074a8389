// Records kernel calls and replays them without Python: the native half of minires/capture.py.
//
// A binding checks its arguments, makes a closure of addresses and sizes, and passes it to `launch`, which runs it.  While
// the thread records, `launch` also stores the closure, and new arrays come from the recording's own heap (memory.h).
// Replays reuse the memory of freed arrays in the recorded order, so they need no more memory than the recorded call.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "memory.h"

namespace minires::cpu {

namespace py = pybind11;

// Releases Python's global lock while a kernel runs.
//
// While the process ends, a daemon thread cannot acquire the lock again.  Python before 3.14 then unwinds the thread's
// stack, which would free arrays without the lock.  Such a thread sleeps here until the process has ended.
class Released {
  public:
    Released() : state_(PyEval_SaveThread()) {}
    ~Released();
    Released(const Released&) = delete;
    Released& operator=(const Released&) = delete;

  private:
    PyThreadState* state_;
};

class Recording {
  public:
    // constants: arrays from outside do not change between replays.  Launches that read only them, and write to lasting
    // memory, run once, in `run_constants`.
    // bytes: the peak of its arrays, or 0 if unknown.  One arena of this size has the fewest gaps.
    explicit Recording(bool constants, std::size_t bytes);

    ~Recording() { stop(); }
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;

    static Recording* current();  // of this thread, or null
    void start();
    void stop();

    void reads(const py::array& array);
    void writes(const py::array& array);
    void add(std::function<void()> launch);
    bool holds(const py::array& array) const;
    py::object empty(const py::tuple& shape, py::handle dtype, bool lasting) const;

    void run(std::size_t begin, std::size_t end) const;
    void run_constants() const;
    std::size_t size() const { return launches_.size(); }
    std::size_t bytes() const { return passing_.heap->usage().reserved + lasting_.heap->usage().reserved; }
    std::size_t peak() const { return passing_.heap->usage().peak; }

    std::vector<py::array> outside;   // arrays that launches use but that were not allocated while recording
    std::vector<py::array> written;   // outside arrays that launches write
    std::vector<py::array> constant;  // outside arrays that `run_constants` reads

  private:
    struct Launch {
        std::function<void()> run;
        bool constant;
    };
    // The heap of arrays made while recording, and NumPy's allocator for it.  Both live until the last array is freed.
    struct Arena {
        std::shared_ptr<memory::Heap> heap;
        py::object handler;
        bool holds(const py::array& array) const { return heap->contains(array.data()); }
    };
    bool is_outside(const py::array& array) const { return !passing_.holds(array) && !lasting_.holds(array); }

    bool constants_;
    std::vector<Launch> launches_;
    std::vector<py::array> reads_, writes_;  // of the launch that is being checked
    std::vector<py::array> kept_;            // arrays in lasting memory
    Arena passing_, lasting_;  // passing memory is reused; lasting memory belongs to one array until the end
};

py::object empty(const py::object& handler, const py::tuple& shape, py::handle dtype);
py::object handler_of(std::shared_ptr<memory::Heap> heap);

// Runs a kernel call and, while this thread records, stores it.  `call` references no Python objects.
template <typename Call>
void launch(Call&& call) {
    Recording* recording = Recording::current();
    {
        const Released released;
        call();
    }
    if (recording) recording->add(std::forward<Call>(call));
}

void bind_recording(py::module_& module);

}  // namespace minires::cpu
