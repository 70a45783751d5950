#include "dispatch.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace ciss {

// The kernels that the sources compiled for `isa` bring along. A new op has one line in each half.
#define CISS_KERNELS_OF(isa)                                  \
  namespace isa {                                             \
  extern const CayleyKernels cayley_kernels;                  \
  extern const LabelMapKernels label_map_kernels;             \
  extern const PrototypesKernels prototypes_kernels;          \
  extern const ReasoningKernels reasoning_kernels;            \
  extern const RotationKernels rotation_kernels;              \
  extern const SigmoidKernels sigmoid_kernels;                \
  extern const SoftmaxKernels softmax_kernels;                \
  static InstructionSet instruction_set() {                   \
    InstructionSet set;                                       \
    set.name = #isa;                                          \
    set.cayley = &cayley_kernels;                             \
    set.label_map = &label_map_kernels;                       \
    set.prototypes = &prototypes_kernels;                     \
    set.reasoning = &reasoning_kernels;                       \
    set.rotation = &rotation_kernels;                         \
    set.sigmoid = &sigmoid_kernels;                           \
    set.softmax = &softmax_kernels;                           \
    return set;                                               \
  }                                                           \
  }

CISS_KERNELS_OF(baseline)
#ifdef CISS_HAVE_AVX2
CISS_KERNELS_OF(avx2)
#endif
#ifdef CISS_HAVE_AVX512
CISS_KERNELS_OF(avx512)
#endif

namespace {

struct Candidate {
  InstructionSet set;
  bool runs;
};

InstructionSet choose() {
  const Candidate widest_first[] = {
#ifdef CISS_HAVE_AVX512
      {avx512::instruction_set(),
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma")},
#endif
#ifdef CISS_HAVE_AVX2
      {avx2::instruction_set(), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
#endif
      {baseline::instruction_set(), true},
  };
  const char* wanted = std::getenv("CISS_FAST_ISA");
  for (const Candidate& candidate : widest_first) {
    if (wanted && *wanted && std::strcmp(wanted, candidate.set.name) != 0) continue;
    if (candidate.runs) return candidate.set;
    if (wanted && *wanted)
      throw std::runtime_error(std::string("CISS_FAST_ISA: this processor does not run ") + wanted);
  }
  throw std::runtime_error(std::string("CISS_FAST_ISA: expected an instruction set that is compiled in, got ") + wanted);
}

}  // namespace

const InstructionSet& instruction_set() {
  static const InstructionSet chosen = choose();
  return chosen;
}

}  // namespace ciss
