// A program to step through: runs one kernel once.  `minires kernels step` compiles it with a kernel and opens gdb in it;
// it prints the command line.
//
//   step GRID BLOCK SHARED SEED EXPECTED ARGUMENT...
//
// GRID, BLOCK   x,y,z
// SHARED        bytes of dynamic shared memory
// SEED          of the order of the threads; 0: ascending
// EXPECTED      file of the right output, float32; "-": the output is not checked
// ARGUMENT      one for each of the kernel's: an integer, or the number of elements of an array.  The last array is the
//               output, NaN at first; the others are filled by `fill`
//
// Exit codes: 0 right, 1 wrong, 2 wrong usage or a kernel that failed.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "launch.h"

#include KERNEL_FILE

#define AS_TEXT(name) #name
#define NAME_AS_TEXT(name) AS_TEXT(name)

namespace {

dim3 sizes(const char* text) {
    dim3 found;
    if (std::sscanf(text, "%u,%u,%u", &found.x, &found.y, &found.z) != 3)
        throw std::invalid_argument(std::string("GRID and BLOCK must be x,y,z, got ") + text);
    return found;
}

// Element i of array k: an integer from -3 to 3.  A hash, so that no two rows or columns are equal at any size.
float fill(uint32_t i, uint32_t k) {
    uint32_t bits = (i + 1000003 * k) * 2654435761u;
    bits = (bits ^ bits >> 15) * 2246822519u;
    return float((bits >> 13) % 7) - 3;
}

// The arrays and integers of the command line, as the kernel takes them.
struct Arguments {
    std::vector<std::vector<float>> arrays;
    std::vector<void*> pointers;
    std::vector<int> integers;
    std::vector<void*> addresses;

    Arguments(const std::string& signature, char** words) {
        for (size_t i = 0; i < signature.size(); i++) {
            if (signature[i] == 'p') arrays.emplace_back(std::strtoull(words[i], nullptr, 10), NAN);
            else integers.push_back(std::atoi(words[i]));
        }
        for (size_t k = 0; k + 1 < arrays.size(); k++)
            for (size_t i = 0; i < arrays[k].size(); i++) arrays[k][i] = fill(uint32_t(i), uint32_t(k));
        for (auto& array : arrays) pointers.push_back(array.data());
        size_t pointer = 0, integer = 0;
        for (char letter : signature)
            addresses.push_back(letter == 'p' ? static_cast<void*>(&pointers[pointer++]) : &integers[integer++]);
    }
};

int check(const std::vector<float>& found, const char* file) {
    std::vector<float> expected(found.size());
    std::ifstream(file, std::ios::binary).read(reinterpret_cast<char*>(expected.data()), 4 * found.size());
    for (size_t i = 0; i < found.size(); i++)
        if (!(found[i] == expected[i])) {  // sums of small integers: exact in any order
            std::fprintf(stderr, "element %zu of the output is %g, should be %g\n", i, found[i], expected[i]);
            return 1;
        }
    std::puts("right");
    return 0;
}

}  // namespace

int main(int count, char** words) {
    try {
        const emulation::Kernel kernel = emulation::describe(NAME_AS_TEXT(KERNEL_NAME), &KERNEL_NAME);
        const std::string& signature = kernel.signature;
        if (signature.find_first_not_of("pi") != std::string::npos)
            throw std::invalid_argument("a kernel to step through takes arrays and int");
        if (count != 6 + int(signature.size()))
            throw std::invalid_argument("usage: step GRID BLOCK SHARED SEED EXPECTED ARGUMENT..., " +
                                        std::to_string(signature.size()) + " arguments");
        Arguments arguments(signature, words + 6);
        emulation::launch(kernel, sizes(words[1]), sizes(words[2]), arguments.addresses.data(),
                          unsigned(std::atoi(words[4])), unsigned(std::atoi(words[3])));
        return words[5] == std::string("-") ? 0 : check(arguments.arrays.back(), words[5]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
