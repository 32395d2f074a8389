// Which instruction sets this build has, the best first.
#include "kernels.h"

namespace minires::cpu {

#if defined(__x86_64__)
extern const InstructionSet avx512;
extern const InstructionSet avx2;
#endif
extern const InstructionSet portable;

const InstructionSet* const* instruction_sets() {
    static const InstructionSet* const all[] = {
#if defined(__x86_64__)
        &avx512,
        &avx2,
#endif
        &portable,
        nullptr,
    };
    return all;
}

}  // namespace minires::cpu
