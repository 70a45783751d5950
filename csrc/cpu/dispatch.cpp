#include "dispatch.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace ciss {

namespace baseline {
extern const SoftmaxKernels softmax_kernels;
extern const LabelMapKernels label_map_kernels;
}
#ifdef CISS_HAVE_AVX2
namespace avx2 {
extern const SoftmaxKernels softmax_kernels;
extern const LabelMapKernels label_map_kernels;
}
#endif
#ifdef CISS_HAVE_AVX512
namespace avx512 {
extern const SoftmaxKernels softmax_kernels;
extern const LabelMapKernels label_map_kernels;
}
#endif

namespace {

struct Candidate {
  InstructionSet set;
  bool runs;
};

InstructionSet choose() {
  const Candidate widest_first[] = {
#ifdef CISS_HAVE_AVX512
      {{"avx512", &avx512::softmax_kernels, &avx512::label_map_kernels},
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma")},
#endif
#ifdef CISS_HAVE_AVX2
      {{"avx2", &avx2::softmax_kernels, &avx2::label_map_kernels}, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
#endif
      {{"baseline", &baseline::softmax_kernels, &baseline::label_map_kernels}, true},
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
