// The softmax-family loss on a GPU: everything is launched on a stream, nothing waits.
#pragma once

#include <cstddef>

#include "core/elements.h"
#include "core/softmax_terms.h"

namespace ciss {
namespace cuda {

struct SoftmaxTask {
  int64_t batch = 0, classes = 0, old_classes = 0, height = 0, width = 0, label_height = 0, label_width = 0;
  LogitsView student, teacher;  // not float64; teacher.data is null when no term needs it
  LabelView label;
  GradientView gradient;  // float
  SoftmaxSettings settings;
};

// Where the results go, on the device.
struct SoftmaxResults {
  float* total = nullptr;
  float* values = nullptr;    // [TERM_COUNT], unweighted
  int64_t* pixels = nullptr;  // [REGION_COUNT + 1]: of each region; how many of the ignored have a wrong label
};

// There has to be at least one pixel.
size_t softmax_workspace_bytes(const SoftmaxTask& task, bool align_corners);
void softmax_loss(const SoftmaxTask& task, bool align_corners, const SoftmaxResults& results, void* workspace,
                  void* stream);

}  // namespace cuda
}  // namespace ciss
