// Cross-entropy of scores against a teacher's: a work item, and the kernel table for it.
#pragma once

#include <cstdint>

namespace ciss {

constexpr int MOST_REASONING_TERMS = 2;

// Neighbouring scores of student and teacher, float or double: runs of one length that belong to the terms in turn.
// So it is in a map of scores with the classes of all terms along one axis, whichever axis comes last in memory.
struct ScoreRuns {
  void* student = nullptr;  // overwritten with the gradient, if one is wanted
  const void* teacher = nullptr;
  int64_t count = 0, run_length = 0;  // `count` may end within a run
  int first_term = 0, terms = 1;
  bool need_gradient = false;
  double coefficient[MOST_REASONING_TERMS] = {};  // of each term's gradient
};

// All runs of a kernel's item belong to one term, or run_length times terms is at most this.
constexpr int64_t LONGEST_PATTERN = 1024;

struct ReasoningKernels {
  // Adds each term's sum of BCE(z, sigmoid(z')) to `sums`, NaN if a score is NaN or infinite. The gradient is
  // coefficient (sigmoid(z) - sigmoid(z')).
  void (*cross_entropy)(const ScoreRuns&, bool double_precision, double sums[MOST_REASONING_TERMS]);
};

}  // namespace ciss
