// NumPy arrays in memory of a caching heap (memory.h).  NumPy allocates and frees it through its handler interface (NEP 49),
// so the arrays own their memory.
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <pybind11/pybind11.h>
// pybind11 comes first: it includes Python.h

#include <numpy/arrayobject.h>

#include <algorithm>
#include <cstring>

#include "bindings.h"
#include "memory.h"
#include "recording.h"

namespace minires::cpu {
namespace {

constexpr std::size_t HEAD = 64;  // bytes before each array, which hold its size; NumPy does not always pass the size

// `context` is the heap.
memory::Heap& heap_of(void* context) { return *static_cast<memory::Heap*>(context); }

void* allocate(void* context, std::size_t bytes) {
    try {
        auto* head = static_cast<char*>(heap_of(context).allocate(bytes + HEAD));
        std::memcpy(head, &bytes, sizeof bytes);
        return head + HEAD;
    } catch (const std::bad_alloc&) {
        return nullptr;  // NumPy raises MemoryError
    }
}

std::size_t size_of(void* context, void* block) {
    if (heap_of(context).replayed()) return heap_of(context).size(static_cast<char*>(block) - HEAD) - HEAD;
    std::size_t bytes;
    std::memcpy(&bytes, static_cast<char*>(block) - HEAD, sizeof bytes);
    return bytes;
}

void deallocate(void* context, void* block, std::size_t) {
    if (block) heap_of(context).deallocate(static_cast<char*>(block) - HEAD, size_of(context, block) + HEAD);
}

void* allocate_zeros(void* context, std::size_t count, std::size_t bytes) {
    void* block = allocate(context, count * bytes);
    if (block) std::memset(block, 0, count * bytes);
    return block;
}

void* reallocate(void* context, void* block, std::size_t bytes) {
    void* moved = allocate(context, bytes);
    if (!moved || !block) return moved;
    const std::size_t before = size_of(context, block);
    std::memcpy(moved, block, std::min(before, bytes));
    deallocate(context, block, before);
    return moved;
}

// Owned by a capsule, which every array of the heap references.
struct Handler {
    PyDataMem_Handler numpy;
    std::shared_ptr<memory::Heap> heap;
};

int import_numpy() {
    import_array1(-1);
    return 0;
}

}  // namespace

py::object handler_of(std::shared_ptr<memory::Heap> heap) {
    auto* handler = new Handler{{"minires", 1, {heap.get(), allocate, allocate_zeros, reallocate, deallocate}}, heap};
    return py::capsule(handler, "mem_handler", [](void* owned) { delete static_cast<Handler*>(owned); });
}

py::object empty(const py::object& handler, const py::tuple& shape, py::handle dtype) {
    npy_intp sizes[NPY_MAXDIMS];
    if (shape.size() > NPY_MAXDIMS) throw py::value_error("shape has too many axes; NumPy allows " + std::to_string(NPY_MAXDIMS));
    for (std::size_t i = 0; i < shape.size(); i++) sizes[i] = shape[i].cast<npy_intp>();
    PyArray_Descr* descr = nullptr;
    if (!PyArray_DescrConverter(dtype.ptr(), &descr)) throw py::error_already_set();
    const auto before = py::reinterpret_steal<py::object>(PyDataMem_SetHandler(handler.ptr()));
    if (!before) throw py::error_already_set();
    PyObject* array = PyArray_Empty(static_cast<int>(shape.size()), sizes, descr, 0);
    const auto back = py::reinterpret_steal<py::object>(PyDataMem_SetHandler(before.ptr()));
    if (!array) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(array);
}

void bind_memory(py::module_& module) {
    if (import_numpy() < 0) throw py::error_already_set();
    // Never freed, like the heap.
    const py::handle process = handler_of({&memory::heap(), [](memory::Heap*) {}}).release();
    module.def("empty",
               [process](const py::tuple& shape, const py::object& dtype, bool lasting) {
                   if (Recording* recording = Recording::current()) return recording->empty(shape, dtype, lasting);
                   return empty(py::reinterpret_borrow<py::object>(process), shape, dtype);
               },
               py::arg("shape"), py::arg("dtype"), py::arg("lasting") = false,
               "Like numpy.empty, in memory of the caching heap.");
    module.def(
        "memory",
        [] {
            const memory::Usage usage = memory::heap().usage();
            py::dict bytes;
            bytes["reserved"] = usage.reserved;
            bytes["used"] = usage.used;
            return bytes;
        },
        "Bytes of the caching heap: reserved from the system, and in use.");
    module.def("trim", [] { return memory::heap().trim(); },
               "Returns unused arenas to the system.  Returns their bytes.");
}

}  // namespace minires::cpu
