#include "reasoning_loss.h"

#include <algorithm>

#include "dispatch.h"
#include "parallel.h"

namespace ciss {
namespace {

constexpr int64_t SCORES_PER_ITEM = 4096;

struct Item {
  size_t range;
  ScoreRange part;
};

}  // namespace

std::vector<double> score_cross_entropy(const std::vector<ScoreRange>& ranges, bool double_precision, int threads) {
  const int64_t bytes = double_precision ? 8 : 4;
  std::vector<Item> items;
  for (size_t r = 0; r < ranges.size(); r++)
    for (int64_t first = 0; first < ranges[r].count; first += SCORES_PER_ITEM) {
      ScoreRange part = ranges[r];
      part.student = static_cast<char*>(part.student) + first * bytes;
      part.teacher = static_cast<const char*>(part.teacher) + first * bytes;
      part.count = std::min(SCORES_PER_ITEM, part.count - first);
      items.push_back({r, part});
    }
  const ReasoningKernels& kernels = *instruction_set().reasoning;
  std::vector<double> parts(items.size()), sums(ranges.size());
  parallel_for(int64_t(items.size()), threads, [&](int64_t item) {
    parts[size_t(item)] = kernels.cross_entropy(items[size_t(item)].part, double_precision);
  });
  for (size_t i = 0; i < items.size(); i++) sums[items[i].range] += parts[i];
  return sums;
}

}  // namespace ciss
