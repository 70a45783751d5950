// The reasoning loss on the CPU, from score maps that are computed already: values, and the gradient in their place.
#pragma once

#include <vector>

#include "reasoning_task.h"

namespace ciss {

// Each term's cross-entropy over all runs. The same bits for any number of threads.
std::vector<double> score_cross_entropy(const ScoreRuns& task, bool double_precision, int threads);

}  // namespace ciss
