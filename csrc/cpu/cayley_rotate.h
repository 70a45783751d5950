// `cayley_rotate` on the CPU: forward and backward pass are the same work (see cayley_task.h).
#pragma once

#include "cayley_task.h"

namespace ciss {

constexpr int32_t SOLVED_DIRECTLY = -1;

struct CayleyFailure {
  int64_t item = -1;  // the first class whose solution is not accurate enough; -1: all are
  double error = 0, accepted = 0;
};

// First: the classes that products suffice for. iterations [classes]: their number, or SOLVED_DIRECTLY; classes that are
// marked so beforehand are left as they are.
void cayley_iterate(const CayleyTask& task, bool double_precision, int32_t* iterations, int threads);

// Bytes of factors that the forward pass, whose iterations are given, leaves to the backward pass.
size_t cayley_factor_bytes(const CayleyTask& task, bool double_precision, const int32_t* forward_iterations);

// Then: the classes that are marked. `forward_iterations`: those of the forward pass, by which factors are found; in the
// forward pass itself the same array.
CayleyFailure cayley_eliminate(const CayleyTask& task, bool double_precision, const int32_t* iterations,
                               const int32_t* forward_iterations, int threads);

}  // namespace ciss
