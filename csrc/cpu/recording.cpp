#include "recording.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <thread>

namespace minires::cpu {
namespace {

constexpr std::size_t SMALLEST_ARENA = std::size_t{2} << 20, LARGEST_ARENA = std::size_t{256} << 20;

thread_local Recording* recording_here = nullptr;

const char* start_of(const py::array& array) { return static_cast<const char*>(array.data()); }

}  // namespace

Released::~Released() {
    try {
        PyEval_RestoreThread(state_);
    } catch (...) {
        for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
}

Recording::Recording(bool constants, std::size_t bytes) : constants_(constants) {
    const std::size_t largest = bytes > 0 ? std::max(bytes / 16, SMALLEST_ARENA) : LARGEST_ARENA;
    for (Arena* arena : {&passing_, &lasting_}) {
        arena->heap = std::make_shared<memory::Heap>(SMALLEST_ARENA, largest, true);
        arena->handler = handler_of(arena->heap);
    }
    passing_.heap->reserve(bytes);
}

py::object Recording::empty(const py::tuple& shape, py::handle dtype, bool lasting) const {
    return cpu::empty(lasting && constants_ ? lasting_.handler : passing_.handler, shape, dtype);
}

Recording* Recording::current() { return recording_here; }

void Recording::start() {
    if (recording_here) throw py::value_error("this thread is recording already; stop() ends a recording");
    recording_here = this;
}

void Recording::stop() {
    if (recording_here == this) recording_here = nullptr;
    reads_.clear(), writes_.clear();
}

void Recording::reads(const py::array& array) { reads_.push_back(array); }
void Recording::writes(const py::array& array) { writes_.push_back(array); }

bool Recording::holds(const py::array& array) const {
    if (!is_outside(array)) return true;
    for (const py::array& known : outside)
        if (start_of(known) <= start_of(array) && start_of(array) < start_of(known) + known.nbytes()) return true;
    return false;
}

void Recording::add(std::function<void()> run) {
    bool constant = constants_ && !reads_.empty();
    for (const py::array& array : reads_) constant = constant && !passing_.holds(array);
    for (const py::array& array : writes_) constant = constant && lasting_.holds(array);
    const auto add_outside = [&](const py::array& array, std::vector<py::array>& list) {
        if (!is_outside(array)) return;
        for (const py::array& known : list)
            if (known.is(array)) return;
        list.push_back(array);
    };
    for (const py::array& array : reads_) {
        add_outside(array, outside);
        if (constant) add_outside(array, this->constant);
    }
    for (const py::array& array : writes_) {
        add_outside(array, outside), add_outside(array, written);
        if (lasting_.holds(array)) kept_.push_back(array);
    }
    reads_.clear(), writes_.clear();
    launches_.push_back({std::move(run), constant});
}

void Recording::run(std::size_t begin, std::size_t end) const {
    const Released released;
    for (std::size_t i = begin; i < end && i < launches_.size(); i++)
        if (!launches_[i].constant) launches_[i].run();
}

void Recording::run_constants() const {
    const Released released;
    for (const Launch& launch : launches_)
        if (launch.constant) launch.run();
}

namespace {

// A 64-bit checksum of an array's numbers in their logical order, for any strides: FNV-1a, a number at a time.
std::uint64_t checksum(const char* from, std::size_t itemsize, const std::vector<py::ssize_t>& shape,
                       const std::vector<py::ssize_t>& strides, std::size_t axis, std::uint64_t state) {
    if (axis == shape.size()) {
        std::uint64_t word = 0;
        std::memcpy(&word, from, itemsize < 8 ? itemsize : 8);
        return (state ^ word) * 0x100000001B3u;
    }
    for (py::ssize_t i = 0; i < shape[axis]; i++)
        state = checksum(from + i * strides[axis], itemsize, shape, strides, axis + 1, state);
    return state;
}

// An array's address, shape and strides.  Does not own the array; later launches may reuse its memory.
struct Place {
    const char* start;
    std::size_t itemsize;
    std::vector<py::ssize_t> shape, strides;

    explicit Place(const py::array& array)
        : start(start_of(array)),
          itemsize(static_cast<std::size_t>(array.itemsize())),
          shape(array.shape(), array.shape() + array.ndim()),
          strides(array.strides(), array.strides() + array.ndim()) {}

    std::uint64_t sum() const {
        const Released released;
        return checksum(start, itemsize, shape, strides, 0, 0xCBF29CE484222325u);
    }
};

}  // namespace

void bind_recording(py::module_& module) {
    module.def("recording", [] { return Recording::current() != nullptr; }, "Whether this thread records.");
    py::class_<Place>(module, "Place", "An array's address, shape and strides.  Does not keep it alive.")
        .def("checksum", &Place::sum, "A 64-bit checksum of the numbers in that memory now.");
    py::class_<Recording>(module, "Recording", "Kernel calls of one thread, to be replayed.")
        .def(py::init<bool, std::size_t>(), py::arg("constants"), py::arg("bytes") = 0)
        .def("__enter__", [](py::object self) { return self.cast<Recording&>().start(), self; },
             "Records the kernel calls of this thread from now on.")
        .def("__exit__", [](Recording& self, const py::args&) { self.stop(); })
        .def("__len__", &Recording::size)
        .def("holds", &Recording::holds, "Whether the array lies in the recording's memory, or in an array of `outside`.")
        .def("empty", [](const Recording& self, const py::tuple& shape,
                         const py::object& dtype) { return self.empty(shape, dtype, false); })
        .def("place", [](const Recording&, const py::array& array) { return Place(array); })
        .def("mark", [](const Recording& self, const py::array& array) { return py::make_tuple(Place(array), self.size()); },
             "Where an array lies, and how many launches computed it.")
        .def_property_readonly("whole", [](const Recording&) { return true; }, "Marks leave it in one piece.")
        .def_property_readonly("refusals", [](const Recording&) { return py::tuple(); }, "Errors of recording itself.")
        .def_property_readonly("checks", [](const Recording&) { return py::list(); }, "Checks of inputs before a replay.")
        .def("run", &Recording::run, py::arg("begin"), py::arg("end"), "Replays the launches begin … end − 1.")
        .def("run_constants", &Recording::run_constants, "Runs the launches that replays skip, because their results do not change.")
        .def("peak", &Recording::peak, "The peak of its arrays in bytes, without constants.")
        .def("bytes", &Recording::bytes, "The bytes of its memory.")
        .def_readonly("outside", &Recording::outside, "Arrays that launches use but that were not allocated while recording.")
        .def_readonly("written", &Recording::written, "Outside arrays that launches write.")
        .def_readonly("constant", &Recording::constant, "Outside arrays that `run_constants` reads.");
}

}  // namespace minires::cpu
