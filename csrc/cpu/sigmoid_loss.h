// The sigmoid-family loss (DKD) on CPU: total, terms and gradient from logits and labels.
#pragma once

#include "sigmoid_task.h"

namespace ciss {

struct SigmoidResult {
  double total = 0, value[SIGMOID_TERM_COUNT] = {};  // of every term that is asked for, unweighted
  int64_t invalid_labels = 0;  // labels that are neither a class nor ignored; if checked, nothing else is valid then
  int64_t first_invalid_image = 0, first_invalid_row = 0, first_invalid_column = 0;
};

// `task` comes with sizes, views, weights and settings; the rest is made here. The gradient is written (where
// task.gradient has an address) as that of the total.
SigmoidResult sigmoid_loss(SigmoidTask task, bool align_corners, bool double_precision, bool check_labels,
                           int threads);

}  // namespace ciss
