// Which instruction set's kernels run on this processor.
#pragma once

#include "cayley_task.h"
#include "label_map_task.h"
#include "prototypes_task.h"
#include "reasoning_task.h"
#include "rotation_task.h"
#include "sigmoid_task.h"
#include "softmax_task.h"

namespace ciss {

struct InstructionSet {
  const char* name = nullptr;
  const CayleyKernels* cayley = nullptr;
  const LabelMapKernels* label_map = nullptr;
  const PrototypesKernels* prototypes = nullptr;
  const ReasoningKernels* reasoning = nullptr;
  const RotationKernels* rotation = nullptr;
  const SigmoidKernels* sigmoid = nullptr;
  const SoftmaxKernels* softmax = nullptr;
};

// The widest one that is compiled in and that this processor runs. The environment variable CISS_FAST_ISA
// (baseline, avx2, avx512) asks for a certain one; asking for one that cannot run throws std::runtime_error.
const InstructionSet& instruction_set();

}  // namespace ciss
