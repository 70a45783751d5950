// The reasoning loss on the CPU, from score maps that are computed already: values, and the gradient in their place.
#pragma once

#include <vector>

#include "reasoning_task.h"

namespace ciss {

// Cross-entropy of each range, in order. The same bits for any number of threads.
std::vector<double> score_cross_entropy(const std::vector<ScoreRange>& ranges, bool double_precision, int threads);

}  // namespace ciss
