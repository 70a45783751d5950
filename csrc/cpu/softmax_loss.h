// The softmax-family loss on the CPU: values of all terms, counts of the regions, gradient at the logits' resolution.
#pragma once

#include "softmax_task.h"

namespace ciss {

struct SoftmaxResult {
  double total = 0;
  double value[TERM_COUNT] = {};
  int64_t pixels[REGION_COUNT] = {};
  int64_t invalid_labels = 0;
  int64_t first_invalid_image = 0, first_invalid_row = 0, first_invalid_column = 0;
};

// The caller fills in sizes, tensors and settings of `task`; the gradient is float, or double when
// `double_precision`, and is overwritten. With `check_labels`, nothing is computed if a label is invalid: see
// `invalid_labels`; without, such pixels count as ignored.
SoftmaxResult softmax_loss(SoftmaxTask task, bool align_corners, bool double_precision, bool check_labels, int threads);

}  // namespace ciss
