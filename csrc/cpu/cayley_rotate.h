// `cayley_rotate` on the CPU: forward and backward pass are the same work (see cayley_task.h).
#pragma once

#include "cayley_task.h"

namespace ciss {

constexpr int32_t SOLVED_DIRECTLY = -1;

struct CayleyFailure {
  int64_t item = -1;  // the first class whose solution is not accurate enough; -1: all are
  double error = 0, accepted = 0;
};

// iterations [classes]: products with S that the solution took, or SOLVED_DIRECTLY. Classes that are marked so
// beforehand are not iterated.
CayleyFailure cayley_rotate(const CayleyTask& task, bool double_precision, int32_t* iterations, int threads);

}  // namespace ciss
