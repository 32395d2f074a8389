// Records kernel calls and replays them without Python: the native half of minires/capture.py.
//
// A binding checks its arguments, makes a closure of addresses and sizes, and passes it to `launch`, which runs it and,
// while this thread records, keeps it.  Arrays made meanwhile come from a heap of the recording's own (memory.h), where a
// freed array's memory is used again in the recorded order: replaying needs no more memory than the recorded call did.
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

// Releases Python's lock while a kernel runs.
//
// When the process ends meanwhile, a daemon thread does not get it back: Python before 3.14 takes the thread's stack down
// instead, and the arrays on it would be freed without the lock.  Such a thread waits here for the end.
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
    // constants: arrays from outside are not written between replays.  Launches that read nothing else, and write into
    // lasting memory, run once, in `run_constants`.
    // bytes: how many its arrays will take at a time, if that is known: memory for them in one piece has the fewest gaps.
    explicit Recording(bool constants, std::size_t bytes);

    ~Recording() { stop(); }
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;

    static Recording* current();  // this thread's, or null
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

    std::vector<py::array> outside;      // arrays that were not allocated while recording, but read or written
    std::vector<py::array> written;      // those of them that were written
    std::vector<py::array> constant;     // those of them that only `run_constants` reads

  private:
    struct Launch {
        std::function<void()> run;
        bool constant;
    };
    // Memory of arrays made while recording, and NumPy's allocator that takes it; lives until the last array is freed.
    struct Arena {
        std::shared_ptr<memory::Heap> heap;
        py::object handler;
        bool holds(const py::array& array) const { return heap->holds(array.data()); }
    };
    bool is_outside(const py::array& array) const { return !passing_.holds(array) && !lasting_.holds(array); }

    bool constants_;
    std::vector<Launch> launches_;
    std::vector<py::array> reads_, writes_;  // of the launch that is being checked
    std::vector<py::array> kept_;            // in lasting memory
    Arena passing_, lasting_;  // passing memory is used again; lasting memory belongs to one array until the end
};

py::object empty(const py::object& handler, const py::tuple& shape, py::handle dtype);
py::object handler_of(std::shared_ptr<memory::Heap> heap);

// Runs a kernel call and, while this thread records, keeps it.  `call` holds nothing of Python's.
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
