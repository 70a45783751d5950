// The sigmoid-family loss on a GPU: everything is launched on a stream, nothing waits.
#pragma once

#include <cstddef>

#include "core/elements.h"
#include "core/host_device.h"
#include "core/sigmoid_terms.h"

namespace ciss {
namespace cuda {

struct SigmoidTask {
  // classes: all channels of the student; old_classes: without the auxiliary one.
  int64_t batch = 0, classes = 0, old_classes = 0, height = 0, width = 0, label_height = 0, label_width = 0;
  LogitsView student, teacher;  // not float64; teacher.data is null when no term needs it
  LabelView label;
  GradientView gradient;  // float
  double weight[SIGMOID_TERM_COUNT] = {};
  double positive_weight = 1;
  int64_t ignore_index = 255;

  CISS_HOST_DEVICE int64_t first_new() const { return 1 + old_classes; }
  CISS_HOST_DEVICE SigmoidTerm term_of(int64_t channel) const {
    return channel == 0 ? AC : channel < first_new() ? SIGMOID_KD : MBCE;
  }
  CISS_HOST_DEVICE bool active(int term) const { return weight[term] != 0; }
  CISS_HOST_DEVICE double pixels() const { return double(batch) * double(label_height) * double(label_width); }
};

// Where the results go, on the device.
struct SigmoidResults {
  float* total = nullptr;
  float* values = nullptr;  // [SIGMOID_TERM_COUNT], unweighted
};

// There has to be at least one pixel.
size_t sigmoid_workspace_bytes(const SigmoidTask& task, bool align_corners);
void sigmoid_loss(const SigmoidTask& task, bool align_corners, const SigmoidResults& results, void* workspace,
                  void* stream);

}  // namespace cuda
}  // namespace ciss
