#include "prototypes.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "dispatch.h"
#include "parallel.h"

namespace ciss {
namespace {

constexpr int64_t PANELS_BYTES = 512 * 1024;  // of a block: they stay in the second-level cache
constexpr int64_t GROUP_CLASSES = 8;          // packing a block is then a hundredth of the work
constexpr int64_t ITEMS = 32;                 // enough for the threads to end at about the same time

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Blocks of about equal size. The partition depends on sizes only, so the result does not depend on the threads.
std::vector<PositionBlock> cut_into_blocks(PrototypesTask& task, int64_t panel, int64_t element) {
  const int64_t most = std::max<int64_t>(1, PANELS_BYTES / (panel * task.dimension * element)) * panel;
  task.block_positions = divide_up(divide_up(task.positions, divide_up(task.positions, most)), panel) * panel;
  std::vector<PositionBlock> blocks;
  for (int64_t first = 0; first < task.positions; first += task.block_positions)
    blocks.push_back({first, std::min(task.block_positions, task.positions - first)});
  return blocks;
}

// Adds up what the blocks contribute to class c, in their order.
template <class Real>
void merge(const PrototypesTask& task, int64_t blocks, int64_t c, const PrototypePart* parts, const Real* sums,
           Real* prototype_prev, Real* prototype_curr, double* log_sum) {
  const int64_t dimension = task.dimension;
  double highest = parts[c].highest, not_finite = 0, weight = 0;
  for (int64_t b = 0; b < blocks; b++) {
    highest = std::max(highest, parts[b * task.classes + c].highest);
    not_finite += parts[b * task.classes + c].highest * 0;
  }
  highest += not_finite;
  std::vector<double> total(size_t(2 * dimension));
  for (int64_t b = 0; b < blocks; b++) {
    const PrototypePart& part = parts[b * task.classes + c];
    const double factor = std::exp(part.highest - highest);
    weight += factor * part.weight;
    const Real* sum = sums + (b * task.classes + c) * 2 * dimension;
    for (int64_t i = 0; i < 2 * dimension; i++) total[size_t(i)] += factor * double(sum[i]);
  }
  for (int64_t d = 0; d < dimension; d++) {
    prototype_prev[c * dimension + d] = Real(total[size_t(d)] / weight);
    prototype_curr[c * dimension + d] = Real(total[size_t(dimension + d)] / weight);
  }
  log_sum[c] = highest + std::log(weight);
}

template <class Real>
void run(PrototypesTask task, Real* prototype_prev, Real* prototype_curr, double* log_sum, int threads) {
  constexpr bool double_precision = sizeof(Real) == 8;
  const PrototypesKernels& kernels = *instruction_set().prototypes;
  const std::vector<PositionBlock> blocks =
      cut_into_blocks(task, kernels.panel_positions(double_precision), sizeof(Real));
  const int64_t count = int64_t(blocks.size());
  task.group_classes = std::min(GROUP_CLASSES, std::max<int64_t>(1, count * task.classes / ITEMS));
  const int64_t groups = divide_up(task.classes, task.group_classes);
  task.group_classes = divide_up(task.classes, groups);
  const size_t workspace = kernels.workspace_bytes(task, double_precision);

  const std::unique_ptr<Real[]> inverse_lengths(new Real[size_t(task.classes * task.per_class)]);
  parallel_for(task.classes, threads, [&](int64_t c) {
    kernels.inverse_lengths(task, c, double_precision, thread_workspace(workspace),
                            inverse_lengths.get() + c * task.per_class);
  });
  task.inverse_lengths = inverse_lengths.get();

  const std::unique_ptr<PrototypePart[]> parts(new PrototypePart[size_t(count * task.classes)]);
  const std::unique_ptr<Real[]> sums(new Real[size_t(count * task.classes * 2 * task.dimension)]);
  parallel_for(count * groups, threads, [&](int64_t item) {
    const int64_t b = item / groups, first_class = item % groups * task.group_classes;
    const int64_t classes = std::min(task.group_classes, task.classes - first_class);
    const int64_t part = b * task.classes + first_class;
    kernels.block(task, blocks[size_t(b)], first_class, classes, double_precision, thread_workspace(workspace),
                  parts.get() + part, sums.get() + part * 2 * task.dimension);
  });
  parallel_for(task.classes, threads, [&](int64_t c) {
    merge(task, count, c, parts.get(), sums.get(), prototype_prev, prototype_curr, log_sum);
  });
}

}  // namespace

void prototypes(PrototypesTask task, bool double_precision, void* prototype_prev, void* prototype_curr,
                double* log_sum, int threads) {
  if (task.classes == 0) return;
  if (double_precision)
    run(task, static_cast<double*>(prototype_prev), static_cast<double*>(prototype_curr), log_sum, threads);
  else
    run(task, static_cast<float*>(prototype_prev), static_cast<float*>(prototype_curr), log_sum, threads);
}

}  // namespace ciss
