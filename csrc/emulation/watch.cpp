// A program that runs launches of kernels and watches each access: it counts requests to memory and finds races, accesses
// out of bounds, misaligned accesses and reads of uninitialised memory.
//
// The kernels' files are compiled with -fsanitize=thread, which calls __tsan_read4(address) and the like before each access.
// -fsanitize-coverage=trace-pc calls __sanitizer_cov_trace_pc() at the begin of each basic block, which shows branches and
// loops.  This file defines those functions, so that ThreadSanitizer's own library is not linked.  watcher.h reports what is no
// plain access.  minires/kernels/build.py compiles the program, and minires/kernels/watch.py runs it:
//
//   watch JOB      in the folder of the arrays.  Writes report.json, and the arrays after the launches.
//
// JOB has a line each for `seed NUMBER`, `shared NAME ADDRESS BYTES` (a variable in shared memory),
// `array NAME BYTES FILLED` (1: read from the file NAME.in; 0: uninitialised), and
// `launch KERNEL GRID×3 BLOCK×3 SHARED COUNT ARGUMENTS`, an argument being `p ARRAY OFFSET`, `i VALUE`, `f VALUE` or `n` (null).
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <tuple>
#include <unordered_map>

#include "launch.h"
#include "requests.h"

extern "C" char __start_cuda_shared[] __attribute__((weak)), __stop_cuda_shared[] __attribute__((weak));
extern "C" char __executable_start[], _end[];

namespace emulation::watcher {

namespace {

enum Kind { global_load, global_store, global_atomic, shared_load, shared_store, shared_atomic, copy_load, copy_store,
            matrix_load, multiplication, barrier_wait };
const char* const KINDS[] = {"global load", "global store", "global atomic", "shared load", "shared store", "shared atomic",
                             "cp.async load", "cp.async store", "ldmatrix", "mma", "barrier"};

enum Fault { race, out_of_bounds, misaligned, uninitialised };
const char* const FAULTS[] = {"race", "out-of-bounds", "misaligned", "uninitialised"};

constexpr bool writes(Kind kind) { return kind == global_store || kind == shared_store || kind == copy_store; }
constexpr bool is_global(Kind kind) { return kind <= global_atomic || kind == copy_load; }
constexpr bool is_atomic(Kind kind) { return kind == global_atomic || kind == shared_atomic; }

// An instruction of the kernel: its address, or its place in the source.
struct Site {
    uintptr_t pc;
    Place place;
    Kind kind;
    uint64_t requests = 0, lanes = 0, bytes = 0, sectors = 0, ideal_sectors = 0, wavefronts = 0, ideal_wavefronts = 0;
};

// An access that other threads' accesses are compared with.  block 0: none.
struct Access {
    uint32_t block = 0, interval = 0, turn = 0;  // the barriers of the block before it, the exchanges of the lane before it
    uint16_t thread = 0, site = 0;
};

// What is remembered of a byte of shared memory, or of four bytes of global memory.
struct Cell {
    Access writer, readers[3];  // two of the block that read last, one of an earlier block
    bool written = false, in_flight = false, atomic = false, read = false;
};

struct Array {
    std::string name;
    char* begin;
    size_t bytes;
    std::vector<Cell> cells;
    uint64_t requested = 0;  // bytes, by loads
};

struct Variable {
    std::string name;
    uintptr_t begin, bytes;
};

struct Finding {
    const char* kind;
    unsigned site, other_site;     // of a race: the later and the earlier access
    std::string text, other_text;  // "thread (1,0) reads"
    std::string block;
    std::string name, element;     // of an array
    unsigned bytes;                // that the access has
    std::string note;              // of a race: "flight" for an asynchronous copy, "blocks" or ""
    bool later_after_other, other_after_later;  // of a race: whether a thread used the other's instruction before, too
    uint64_t times = 1;
};

constexpr int TIME_LIMIT = 10;       // seconds of the processor
constexpr size_t GUARD = 64 << 20;   // bytes on both sides of each array, readable and writable

std::vector<Site> sites(1);  // number 0 is unused
std::unordered_map<uint64_t, unsigned> site_numbers;
std::vector<Array> arrays;
std::vector<Variable> variables;
std::vector<Cell> shared_cells, dynamic_cells;
std::map<std::tuple<Fault, unsigned, unsigned>, Finding> findings;

bool running = false;
unsigned self, threads, dynamic_bytes, last_site;
uint32_t blocks = 0, first_block_of_launch = 0, interval;
uint32_t turns[1024];  // of each thread: the number of its warp's last exchange that it took part in
uint32_t warp_turns[32];

// For each thread and site: when the thread first used the site since the last barrier.  It shows rounds of a loop.
struct Use {
    uint32_t block = 0, interval = 0;
    uint64_t time = 0;
};
std::vector<Use> uses[1024];
uint64_t now_used = 0;

void use(unsigned site) {
    auto& mine = uses[self];
    if (mine.size() <= site) mine.resize(site + 64);
    if (Use& first = mine[site]; first.block != blocks || first.interval != interval) first = {blocks, interval, ++now_used};
}

// Whether the thread used `earlier` before `later` since the last barrier.
bool used_before(unsigned thread, unsigned earlier, unsigned later) {
    const auto& all = uses[thread];
    if (all.size() <= std::max(earlier, later)) return false;
    const Use &a = all[earlier], &b = all[later];
    return a.block == blocks && a.interval == interval && b.block == blocks && b.interval == interval && a.time < b.time;
}

// A step of a lane: the begin of a basic block (site 0) or an access.
struct Step {
    uint32_t pc, depth;  // the place in the code; the number of calls around it
    uintptr_t address;
    uint16_t site, bytes;
};

// The steps of each lane of a warp since its lanes last met.
struct Pending {
    std::vector<Step> steps[32];
} pending[32];
constexpr size_t MOST_STEPS = 1 << 20;

uint32_t depths[1024];  // of each thread: the calls of functions around it

unsigned site_of(uintptr_t pc, Place place, Kind kind) {
    const uint64_t of_place = uint64_t{1} << 63 | (reinterpret_cast<uintptr_t>(place.file) << 20 ^ uint64_t(place.line) << 4);
    const uint64_t key = (pc ? pc << 4 : of_place) | kind;
    static struct {
        uint64_t key;
        unsigned number;
    } recent[1024];
    auto& entry = recent[(key ^ key >> 10) % 1024];
    if (entry.key != key) {
        auto [found, is_new] = site_numbers.try_emplace(key, unsigned(sites.size()));
        if (is_new) sites.push_back({pc, place, kind});
        entry = {key, found->second};
    }
    return entry.number;
}

void count(unsigned number, const Request& request) {
    Site& site = sites[number];
    const unsigned lanes = __builtin_popcount(request.lanes);
    site.requests++;
    site.lanes += lanes;
    site.bytes += lanes * request.bytes;
    if (site.kind >= multiplication) return;
    if (is_global(site.kind)) {
        const Sectors sectors = sectors_of(request);
        site.sectors += sectors.count;
        site.ideal_sectors += sectors.ideal;
    } else {
        const Wavefronts wavefronts = wavefronts_of(request, site.kind == shared_load);
        site.wavefronts += wavefronts.count;
        site.ideal_wavefronts += wavefronts.ideal;
    }
}

// Replays the lanes' steps as a GPU would run them together: the lanes at the innermost call and, there, at the lowest place
// in the code take the next step.  Lanes that skip an access wait at the place where the branches join.
void flush(unsigned number) {
    Pending& warp = pending[number];
    size_t next[32] = {};
    for (;;) {
        const Step* first = nullptr;
        for (unsigned lane = 0; lane < 32; lane++) {
            if (next[lane] == warp.steps[lane].size()) continue;
            const Step& step = warp.steps[lane][next[lane]];
            const auto order = [](const Step& s) { return std::tuple(~s.depth, s.pc, s.site != 0); };
            if (!first || order(step) < order(*first)) first = &step;
        }
        if (!first) break;
        Request request;
        for (unsigned lane = 0; lane < 32; lane++) {
            if (next[lane] == warp.steps[lane].size()) continue;
            const Step& step = warp.steps[lane][next[lane]];
            if (step.depth != first->depth || step.pc != first->pc || step.site != first->site) continue;
            next[lane]++;
            request.bytes = std::max<unsigned>(request.bytes, step.bytes);
            request.lanes |= 1u << lane;
            request.address[lane] = step.address;
        }
        if (first->site) count(first->site, request);
    }
    for (auto& steps : warp.steps) steps.clear();
}

void take_step(const Step& step) {
    auto& steps = pending[self / 32].steps[self % 32];
    steps.push_back(step);
    if (steps.size() == MOST_STEPS) flush(self / 32);  // without it, an endless loop would fill the memory
}

void record_request(unsigned site, uintptr_t address, unsigned bytes) {
    use(site);
    // Accesses that are reported by watcher.h have no place of their own: they follow their basic block.
    const auto& steps = pending[self / 32].steps[self % 32];
    const uint32_t pc = sites[site].pc ? uint32_t(sites[site].pc) : steps.empty() ? 0 : steps.back().pc;
    take_step({pc, depths[self], address, uint16_t(site), uint16_t(bytes)});
}

std::string thread_name(unsigned number) {
    const unsigned x = number % blockDim.x, y = number / blockDim.x % blockDim.y, z = number / blockDim.x / blockDim.y;
    std::string name = "thread (" + std::to_string(x);
    if (blockDim.y * blockDim.z > 1) name += "," + std::to_string(y);
    if (blockDim.z > 1) name += "," + std::to_string(z);
    return name + ")";
}

std::string verb_of(unsigned site) {
    const Kind kind = sites[site].kind;
    if (kind == copy_store) return "copies (cp.async) to";
    return is_atomic(kind) ? "atomically updates" : writes(kind) ? "writes" : "reads";
}

std::string block_name() {
    std::string name = "block (" + std::to_string(blockIdx.x) + "," + std::to_string(blockIdx.y);
    return name + (gridDim.z > 1 ? "," + std::to_string(blockIdx.z) : "") + ")";
}

// An element of an array: its name and index.
struct Element {
    std::string name, index;
};

Element element_of(const std::string& name, uintptr_t begin, uintptr_t address, unsigned bytes) {
    return {name, std::to_string(intptr_t(address - begin) / intptr_t(bytes))};
}

// Keeps the first finding of each kind at each pair of instructions, and counts the others.
template <class Name>
void find(Fault fault, unsigned site, unsigned bytes, Name name_of, const Access& other = {}, const char* note = "") {
    const std::tuple<Fault, unsigned, unsigned> key{fault, site, other.site};
    if (auto found = findings.find(key); found != findings.end()) {
        found->second.times++;
        return;
    }
    std::string other_text;
    if (other.block) {
        const char* where = other.block == blocks ? " " : " of another block ";
        other_text = thread_name(other.thread) + where + verb_of(other.site);
    }
    const Element element = name_of();
    findings[key] = {FAULTS[fault], site, other.site, thread_name(self) + " " + verb_of(site), other_text, block_name(),
                     element.name, element.index, bytes, note, used_before(self, other.site, site),
                     other.block == blocks && used_before(other.thread, site, other.site)};
}

// Whether `earlier` happens before what the running thread does now.
bool ordered(const Access& earlier, uint32_t first_block) {
    if (earlier.block < first_block) return true;  // another launch, or another block's use of shared memory
    if (earlier.block != blocks) return false;
    return earlier.thread == self || earlier.interval < interval ||
           (earlier.thread / 32 == self / 32 && earlier.turn < turns[self]);
}

// Compares one access with the earlier ones of the same cell, and remembers it.  name_of: the element, for messages.
template <class Name>
void visit(Cell& cell, unsigned site, unsigned bytes, uint32_t first_block, Name name_of) {
    const Kind kind = sites[site].kind;
    const bool atomic = is_atomic(kind), store = writes(kind) || atomic;
    const bool live = cell.writer.block >= first_block && cell.writer.block;
    if (live && cell.in_flight) {
        find(race, site, bytes, name_of, cell.writer, "flight");
        cell.in_flight = false;  // one report
    } else if (live && !(atomic && cell.atomic) && !ordered(cell.writer, first_block)) {
        find(race, site, bytes, name_of, cell.writer, cell.writer.block == blocks ? "" : "blocks");
    }
    const Access now{blocks, interval, turns[self], uint16_t(self), uint16_t(site)};
    if (atomic && !cell.written) find(uninitialised, site, bytes, name_of);
    if (store) {
        for (const Access& reader : cell.readers)
            if (reader.block && !ordered(reader, first_block)) {
                find(race, site, bytes, name_of, reader, reader.block == blocks ? "" : "blocks");
                break;
            }
        cell.writer = now;
        for (Access& reader : cell.readers) reader = {};
        cell.written = true;
        cell.atomic = atomic;
        cell.in_flight = kind == copy_store;
        return;
    }
    cell.read = true;
    if (!cell.written) find(uninitialised, site, bytes, name_of);
    // Two different threads are kept, of different warps if possible: a writer differs from one of them.
    Access &a = cell.readers[0], &b = cell.readers[1];
    if (a.block != blocks && a.block >= first_block) cell.readers[2] = a;
    if (a.block != blocks || a.thread == self || a.interval != interval) a = now;
    else if (b.block != blocks || b.thread == self || b.interval != interval || b.thread / 32 == a.thread / 32) b = now;
}

[[noreturn]] void finish(const char* error, unsigned crash_site);

bool in_shared_section(uintptr_t address) {
    return address >= uintptr_t(__start_cuda_shared) && address < uintptr_t(__stop_cuda_shared);
}

// The variable of shared memory that holds the address, or the nearest one.
const Variable* variable_at(uintptr_t address) {
    const Variable* nearest = nullptr;
    uintptr_t least = UINTPTR_MAX;
    for (const Variable& variable : variables) {
        const uintptr_t end = variable.begin + variable.bytes;
        const uintptr_t distance = address < variable.begin ? variable.begin - address : address < end ? 0 : address - end + 1;
        if (distance < least) least = distance, nearest = &variable;
    }
    return nearest;
}

void access_shared(unsigned site, uintptr_t address, unsigned bytes, bool dynamic) {
    const uintptr_t base = dynamic ? uintptr_t(dynamic_shared) : uintptr_t(__start_cuda_shared);
    const Variable* variable = dynamic ? nullptr : variable_at(address);
    const auto name = [&] {
        return variable ? element_of(variable->name, variable->begin, address, bytes)
                        : element_of(dynamic ? "dynamic shared memory" : "shared memory", base, address, bytes);
    };
    if (address % bytes) find(misaligned, site, bytes, name);
    const uintptr_t end = dynamic ? base + dynamic_bytes : variable ? variable->begin + variable->bytes : base;
    if (address + bytes > end || (variable && address < variable->begin)) return find(out_of_bounds, site, bytes, name);
    record_request(site, address, bytes);
    for (unsigned i = 0; i < bytes; i++) {
        Cell& cell = (dynamic ? dynamic_cells : shared_cells)[address - base + i];
        if (cell.writer.block != blocks) cell.written = cell.in_flight = false;
        if (i >= 4 && !writes(sites[site].kind)) cell.written = true;  // a struct's padding is read, but never written
        visit(cell, site, bytes, blocks, name);
    }
}

bool access_global(unsigned site, uintptr_t address, unsigned bytes) {
    for (Array& array : arrays) {
        const uintptr_t begin = uintptr_t(array.begin), end = begin + array.bytes;
        if (address + GUARD / 2 < begin || address >= end + GUARD / 2) continue;
        const auto name = [&] { return element_of(array.name, begin, address, 4); };
        if (address % bytes) find(misaligned, site, bytes, name);
        if (address < begin || address + bytes > end) {
            find(out_of_bounds, site, bytes, name);
            return true;
        }
        record_request(site, address, bytes);
        if (!writes(sites[site].kind)) array.requested += bytes;
        for (uintptr_t word = (address - begin) / 4; word <= (address - begin + bytes - 1) / 4; word++)
            visit(array.cells[word], site, bytes, first_block_of_launch, name);
        return true;
    }
    return false;
}

// Every access of a kernel comes here.  kind: global_load, global_store, global_atomic or copy_load for any memory.
void access(uintptr_t address, unsigned bytes, Kind kind, uintptr_t pc, Place place) {
    if (!running) return;
    const char here = 0;
    if (const intptr_t distance = intptr_t(address) - intptr_t(&here); distance > -(256 << 10) && distance < 256 << 10)
        return;  // a local variable
    const bool dynamic = address >= uintptr_t(dynamic_shared) && address < uintptr_t(dynamic_shared) + sizeof dynamic_shared;
    running = false;  // the functions below may be compiled with reports, too
    if (dynamic || in_shared_section(address)) {
        const Kind in_shared = kind == copy_load ? shared_load : kind <= global_atomic ? Kind(kind + shared_load) : kind;
        last_site = site_of(pc, place, in_shared);
        access_shared(last_site, address, bytes, dynamic);
    } else if (address < uintptr_t(__executable_start) || address >= uintptr_t(_end)) {  // else a constant, or threadIdx
        last_site = site_of(pc, place, kind);
        if (!access_global(last_site, address, bytes)) {
            char text[32];
            std::snprintf(text, sizeof text, "%#zx", size_t(address));
            find(out_of_bounds, last_site, bytes, [&] { return Element{"", text}; });
            finish("", 0);
        }
    }
    running = true;
}

// A struct: as many instructions as its size and alignment need.
void access_all(void* p, size_t bytes, Kind kind, void* pc) {
    for (uintptr_t address = uintptr_t(p), end = address + bytes; address < end;) {
        unsigned part = 16;
        while (address % part || address + part > end) part /= 2;
        access(address, part, kind, uintptr_t(pc), {});
        address += part;
    }
}

std::string quoted(const std::string& text) {
    std::string result = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') result += '\\';
        result += c < ' ' && c >= 0 ? ' ' : c;
    }
    return result + "\"";
}

void write_report(const std::string& error, unsigned crash_site) {
    std::ostringstream out;
    out << "{\"error\": " << quoted(error) << ", \"crash\": " << crash_site << ", \"sites\": [";
    for (size_t i = 0; i < sites.size(); i++) {
        const Site& s = sites[i];
        out << (i ? ",\n" : "\n") << "{\"pc\": " << s.pc << ", \"file\": " << quoted(s.place.file ? s.place.file : "")
            << ", \"line\": " << s.place.line << ", \"kind\": " << quoted(KINDS[s.kind]) << ", \"requests\": " << s.requests
            << ", \"lanes\": " << s.lanes << ", \"bytes\": " << s.bytes << ", \"sectors\": " << s.sectors
            << ", \"ideal_sectors\": " << s.ideal_sectors << ", \"wavefronts\": " << s.wavefronts
            << ", \"ideal_wavefronts\": " << s.ideal_wavefronts << "}";
    }
    out << "], \"findings\": [";
    const char* comma = "\n";
    for (const auto& [key, f] : findings) {
        out << comma << "{\"kind\": " << quoted(f.kind) << ", \"site\": " << f.site << ", \"other_site\": " << f.other_site
            << ", \"text\": " << quoted(f.text) << ", \"other_text\": " << quoted(f.other_text) << ", \"block\": "
            << quoted(f.block) << ", \"name\": " << quoted(f.name) << ", \"element\": " << quoted(f.element)
            << ", \"bytes\": " << f.bytes << ", \"later_after_other\": " << f.later_after_other
            << ", \"other_after_later\": " << f.other_after_later << ", \"note\": " << quoted(f.note) << ", \"times\": " << f.times << "}";
        comma = ",\n";
    }
    out << "], \"arrays\": [";
    comma = "\n";
    for (const Array& a : arrays) {
        size_t unwritten = 0, first = 0, read = 0;
        for (size_t i = a.cells.size(); i-- > 0;) {
            read += a.cells[i].read;
            if (!a.cells[i].written) unwritten++, first = i;
        }
        out << comma << "{\"name\": " << quoted(a.name) << ", \"unwritten\": " << unwritten << ", \"first_unwritten\": " << first
            << ", \"requested_bytes\": " << a.requested << ", \"unique_bytes\": " << 4 * read << "}";
        comma = ",\n";
    }
    out << "]}\n";
    std::ofstream("report.json") << out.str();
}

void finish(const char* error, unsigned crash_site) {
    running = false;
    write_report(error, crash_site);
    _exit(0);
}

// A GPU would report an illegal address; here the process ends, after its report.
void crashed(int signal, siginfo_t*, void* context) {
    [[maybe_unused]] const auto& machine = static_cast<ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
    const uintptr_t pc = uintptr_t(machine.gregs[REG_RIP]);
#elif defined(__aarch64__)
    const uintptr_t pc = uintptr_t(machine.pc);
#else
    const uintptr_t pc = 0;
#endif
    if (signal != SIGVTALRM && pc >= uintptr_t(__executable_start) && pc < uintptr_t(_end)) last_site = site_of(pc + 1, {}, global_load);
    const char* name = signal == SIGVTALRM ? "time limit" : signal == SIGFPE ? "division by zero" : signal == SIGILL ? "invalid instruction" : "invalid address";
    finish(name, last_site);
}

}  // namespace

void block_begins(unsigned count) {
    blocks++;
    threads = count;
    interval = 0;
    std::fill(std::begin(turns), std::end(turns), 0);
    std::fill(std::begin(depths), std::end(depths), 0);
    std::fill(std::begin(warp_turns), std::end(warp_turns), 0);
}

void block_ends() {
    for (unsigned warp = 0; 32 * warp < threads; warp++) flush(warp);
}

void thread_resumes(unsigned number) {
    self = number;
    running = true;
}

void thread_suspends() { running = false; }

void barrier_passed(Place place) {
    interval++;
    block_ends();
    const unsigned site = site_of(0, place, barrier_wait);
    sites[site].requests += (threads + 31) / 32;
    sites[site].lanes += threads;
}

void lanes_met(unsigned warp, unsigned lanes, bool orders_memory) {
    flush(warp);
    if (!orders_memory) return;
    warp_turns[warp]++;
    for (unsigned lane = 0; lane < 32; lane++)
        if (lanes >> lane & 1) turns[32 * warp + lane] = warp_turns[warp];
}

void copy_issued(void* shared, const void* global, unsigned bytes, unsigned size, Place place) {
    if (size) access(uintptr_t(global), size, copy_load, 0, place);
    access(uintptr_t(shared), bytes, copy_store, 0, place);
}

void copy_waited_for(void* shared, unsigned bytes) {
    const uintptr_t address = uintptr_t(shared), base = uintptr_t(__start_cuda_shared), dynamic = uintptr_t(dynamic_shared);
    const bool is_static = in_shared_section(address);
    if (!is_static && (address < dynamic || address + bytes > dynamic + dynamic_bytes)) return;  // reported when issued
    auto& cells = is_static ? shared_cells : dynamic_cells;
    for (unsigned i = 0; i < bytes; i++) {
        Cell& cell = cells[address - (is_static ? base : dynamic) + i];
        if (cell.writer.thread != self || cell.writer.block != blocks) continue;
        cell.in_flight = false;
        cell.writer.interval = interval;
        cell.writer.turn = turns[self];
    }
}

void matrix_row(const void* row, Place place) { access(uintptr_t(row), 16, matrix_load, 0, place); }

void multiplied(Place place) {
    running = false;
    record_request(site_of(0, place, multiplication), 0, 0);
    running = true;
}

void updated(void* address, unsigned bytes, Place place) { access(uintptr_t(address), bytes, global_atomic, 0, place); }

}  // namespace emulation::watcher

// The functions that -fsanitize=thread calls.
using namespace emulation::watcher;

#define REPORT(name, bytes, kind) \
    void __tsan_##name##bytes(void* p) { access(uintptr_t(p), bytes, kind, uintptr_t(__builtin_return_address(0)), {}); }
#define ACCESSES(bytes)                                                                          \
    REPORT(read, bytes, global_load) REPORT(unaligned_read, bytes, global_load)                  \
    REPORT(write, bytes, global_store) REPORT(unaligned_write, bytes, global_store)

extern "C" {
ACCESSES(1) ACCESSES(2) ACCESSES(4) ACCESSES(8) ACCESSES(16)
void __tsan_read_range(void* p, size_t bytes) { access_all(p, bytes, global_load, __builtin_return_address(0)); }
void __tsan_write_range(void* p, size_t bytes) { access_all(p, bytes, global_store, __builtin_return_address(0)); }
void __tsan_init() {}
void __tsan_func_entry(void*) {
    if (running) depths[self]++;
}
void __tsan_func_exit() {
    if (running) depths[self]--;
}
void __sanitizer_cov_trace_pc() {
    if (running) take_step({uint32_t(uintptr_t(__builtin_return_address(0))), depths[self], 0, 0, 0});
}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}
}

namespace {

struct Value {
    union {
        void* pointer;
        int integer;
        float real;
    };
};

// Static, because accesses to the program's own variables are not reported.
emulation::Kernel kernel;
Value values[64];
void* addresses[64];

// The array, between two guard zones, with its contents.
void add_array(const std::string& name, size_t bytes, bool filled) {
    const size_t length = (bytes + 4095) / 4096 * 4096 + 2 * GUARD;
    void* memory = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    char* begin = static_cast<char*>(memory) + GUARD;
    std::memset(begin - 65536, '\xff', bytes + 2 * 65536);  // NaN, also in what a kernel should not read
    arrays.push_back({name, begin, bytes, std::vector<Cell>((bytes + 3) / 4)});
    if (filled && !std::ifstream(name + ".in").read(begin, std::streamsize(bytes)))
        throw std::runtime_error(name + ".in cannot be read");
    for (Cell& cell : arrays.back().cells) cell.written = filled;
}

void run_launch(std::istream& job, unsigned seed) {
    std::string name, kind;
    dim3 grid, block;
    size_t count;
    job >> name >> grid.x >> grid.y >> grid.z >> block.x >> block.y >> block.z >> dynamic_bytes >> count;
    const emulation::Kernel* found = nullptr;
    for (const emulation::Kernel& one : emulation::kernels())
        if (one.name == name) found = &one;
    if (!found || count != found->signature.size() || count > 64) throw std::runtime_error("no kernel " + name);
    for (size_t i = 0; i < count; i++) {
        values[i].pointer = nullptr;
        addresses[i] = &values[i];
        size_t array, offset;
        job >> kind;
        if (kind == "p" && job >> array >> offset) values[i].pointer = arrays.at(array).begin + offset;
        if (kind == "i") job >> values[i].integer;
        if (kind == "f") {
            std::string text;  // "inf" too
            job >> text;
            values[i].real = std::strtof(text.c_str(), nullptr);
        }
    }
    kernel = *found;
    first_block_of_launch = blocks + 1;
    emulation::launch(kernel, grid, block, addresses, seed, dynamic_bytes);
}

}  // namespace

int main(int count, char** words) {
    if (count != 2) return std::fprintf(stderr, "usage: %s JOB\n", words[0]), 2;
    const stack_t stack{std::malloc(1 << 20), 0, 1 << 20};  // a kernel's own stack may be full
    sigaltstack(&stack, nullptr);
    for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGVTALRM}) {
        struct sigaction action {};
        action.sa_sigaction = crashed;
        action.sa_flags = SA_ONSTACK | SA_SIGINFO;
        sigaction(signal, &action, nullptr);
    }
    const itimerval limit{{}, {TIME_LIMIT, 0}};
    setitimer(ITIMER_VIRTUAL, &limit, nullptr);
    shared_cells.resize(__stop_cuda_shared - __start_cuda_shared);
    dynamic_cells.resize(sizeof emulation::dynamic_shared);
    std::string error;
    try {
        std::ifstream job(words[1]);
        std::string word, name;
        unsigned seed = 0;
        size_t address, bytes;
        bool filled;
        while (job >> word) {
            if (word == "seed") job >> seed;
            if (word == "shared" && job >> name >> address >> bytes) variables.push_back({name, address, bytes});
            if (word == "array" && job >> name >> bytes >> filled) add_array(name, bytes, filled);
            if (word == "launch") run_launch(job, seed);
        }
    } catch (const std::exception& problem) {
        error = problem.what();
    }
    running = false;
    write_report(error, 0);
    for (const Array& array : arrays) std::ofstream(array.name + ".out").write(array.begin, std::streamsize(array.bytes));
}
