// Cross-entropy of scores against a teacher's: a work item, and the kernel table for it.
#pragma once

#include <cstdint>

namespace ciss {

// Neighbouring scores of student and teacher, float or double.
struct ScoreRange {
  void* student = nullptr;  // overwritten with the gradient, if one is wanted
  const void* teacher = nullptr;
  int64_t count = 0;
  bool need_gradient = false;
  double coefficient = 0;  // of the gradient
};

struct ReasoningKernels {
  // Sum of BCE(z, sigmoid(z')); NaN if a score is NaN or infinite. Gradient: coefficient (sigmoid(z) - sigmoid(z')).
  double (*cross_entropy)(const ScoreRange&, bool double_precision);
};

}  // namespace ciss
