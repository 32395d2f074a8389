// The instruction sets of this build and of this processor.  This file is compiled without flags for an instruction set,
// because it runs before the processor's instructions are known.
//
// MINIRES_X86   the build has the kernels for AVX-512 and AVX2
#include <cstring>

#include "kernels.h"

namespace minires::cpu {

#if MINIRES_X86
extern const InstructionSet avx512;
extern const InstructionSet avx2;
#endif
extern const InstructionSet portable;

const InstructionSet* const* instruction_sets() {
    static const InstructionSet* const all[] = {
#if MINIRES_X86
        &avx512,
        &avx2,
#endif
        &portable,
        nullptr,
    };
    return all;
}

bool supported(const InstructionSet& set) {
#if MINIRES_X86
    if (std::strcmp(set.name, "avx512") == 0)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (std::strcmp(set.name, "avx2") == 0) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    (void)set;
    return true;
}

}  // namespace minires::cpu
