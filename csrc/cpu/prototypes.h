// `prototypes` on the CPU.
#pragma once

#include "prototypes_task.h"

namespace ciss {

// The caller fills in sizes, tensors and temperature of `task`. prototype_prev, prototype_curr: [classes, dimension],
// float or double; log_sum: [classes], the logarithm of what the weights were divided by.
void prototypes(PrototypesTask task, bool double_precision, void* prototype_prev, void* prototype_curr,
                double* log_sum, int threads);

}  // namespace ciss
