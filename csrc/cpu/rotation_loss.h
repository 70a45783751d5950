// `rotation_loss` on the CPU: both terms and their gradient in one call.
#pragma once

#include "rotation_task.h"

namespace ciss {

struct RotationResult {
  double fidelity = 0, regulariser = 0;  // means over classes and groups
  int64_t inaccurate = -1;               // the first class whose solution is not accurate enough; -1: all are
  double error = 0, accepted = 0;
};

// Fills in the task's means and terms, its gradient, and products [classes] (see `RotationKernels::run`).
RotationResult rotation_loss(RotationTask task, bool double_precision, int32_t* products, int threads);

}  // namespace ciss
