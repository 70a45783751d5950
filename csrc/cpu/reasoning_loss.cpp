#include "reasoning_loss.h"

#include <algorithm>

#include "dispatch.h"
#include "parallel.h"

namespace ciss {
namespace {

constexpr int64_t SCORES_PER_ITEM = 4096;

// Each sum on its own cache line.
struct alignas(64) ItemSums {
  double value[MOST_REASONING_TERMS] = {};
};

// Many short runs make one item, long ones are cut.
std::vector<ScoreRuns> make_items(const ScoreRuns& task, int64_t score_bytes) {
  const int64_t pattern = task.run_length * task.terms;
  const bool mixed = task.terms > 1 && pattern <= LONGEST_PATTERN;
  const int64_t unit = task.terms == 1 ? task.count : mixed ? SCORES_PER_ITEM / pattern * pattern : task.run_length;
  std::vector<ScoreRuns> items;
  for (int64_t begin = 0; begin < task.count; begin += unit) {
    const int64_t end = std::min(begin + unit, task.count);
    for (int64_t first = begin; first < end; first += SCORES_PER_ITEM) {
      ScoreRuns item = task;
      item.student = static_cast<char*>(task.student) + first * score_bytes;
      item.teacher = static_cast<const char*>(task.teacher) + first * score_bytes;
      item.count = std::min(SCORES_PER_ITEM, end - first);
      item.first_term = mixed ? 0 : int(first / task.run_length % task.terms);
      items.push_back(item);
    }
  }
  return items;
}

}  // namespace

std::vector<double> score_cross_entropy(const ScoreRuns& task, bool double_precision, int threads) {
  const std::vector<ScoreRuns> items = make_items(task, double_precision ? 8 : 4);
  const ReasoningKernels& kernels = *instruction_set().reasoning;
  std::vector<ItemSums> sums(items.size());
  parallel_for(int64_t(items.size()), threads, [&](int64_t item) {
    kernels.cross_entropy(items[size_t(item)], double_precision, sums[size_t(item)].value);
  });
  std::vector<double> total(size_t(task.terms));
  for (const ItemSums& own : sums)
    for (size_t t = 0; t < total.size(); t++) total[t] += own.value[t];
  return total;
}

}  // namespace ciss
