// `predict` and `confusion` on the CPU.
#pragma once

#include "label_map_task.h"

namespace ciss {

struct ConfusionResult {
  int64_t invalid_labels = 0;  // labels that are neither below `num_classes` nor `ignore_index`; counted nowhere
  int64_t first_invalid_image = 0, first_invalid_row = 0, first_invalid_column = 0;
};

// The caller fills in sizes and logits of `task`. labels: [batch, label_height, label_width], uint8 or int64.
void predict(LabelMapTask task, int64_t batch, bool align_corners, bool double_precision, void* labels,
             LabelType label_type, int threads);

// Adds to counts [num_classes, num_classes] (rows: label, columns: prediction).
ConfusionResult confusion(LabelMapTask task, int64_t batch, bool align_corners, bool double_precision,
                          const LabelView& label, int64_t ignore_index, int64_t num_classes, int64_t* counts,
                          int threads);

}  // namespace ciss
