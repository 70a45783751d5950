#include "softmax_loss.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "dispatch.h"
#include "enlargement.h"
#include "gradient_fill.h"
#include "parallel.h"

namespace ciss {
namespace {

constexpr int64_t ITEMS_WANTED = 32;      // work items per call: enough to share out, few enough to stay cheap
constexpr int64_t PIXELS_PER_RANGE = 8192;

// `compact`: see SoftmaxKernels::count_regions; may be null.
RegionCounts count_all(const SoftmaxTask& task, int threads, uint8_t* compact, int64_t& first_invalid_image) {
  const SoftmaxKernels& kernels = *instruction_set().softmax;
  const int64_t rows_per_item = std::max<int64_t>(1, task.batch * task.label_height / ITEMS_WANTED);
  const int64_t per_image = (task.label_height + rows_per_item - 1) / rows_per_item;
  std::vector<RegionCounts> counts(size_t(task.batch * per_image));
  parallel_for(task.batch * per_image, threads, [&](int64_t item) {
    const int64_t first_row = item % per_image * rows_per_item;
    const int64_t rows = std::min(rows_per_item, task.label_height - first_row);
    kernels.count_regions(task, item / per_image, first_row, rows, compact, counts[size_t(item)]);
  });
  RegionCounts sum;
  for (size_t i = 0; i < counts.size(); i++) {
    for (int r = 0; r < REGION_COUNT; r++) sum.pixels[r] += counts[i].pixels[r];
    if (counts[i].invalid && !sum.invalid) {
      sum.first_invalid = counts[i].first_invalid;
      first_invalid_image = int64_t(i) / per_image;
    }
    sum.invalid += counts[i].invalid;
  }
  return sum;
}

struct Band {
  int64_t image, first_strip, strips, shared_row;  // shared_row: number of its buffer, or -1
};

// Sums of one item, each on its own cache lines.
struct alignas(64) ItemSums {
  double value[SUM_COUNT] = {};
};

template <class Real>
void add_shared_rows(const SoftmaxTask& task, const std::vector<Band>& bands, const std::vector<Strip>& strips,
                     const std::vector<Real>& rows, int threads) {
  const GradientView& g = task.gradient;
  parallel_for(int64_t(bands.size()), threads, [&](int64_t item) {
    const Band& band = bands[size_t(item)];
    if (band.shared_row < 0) return;
    const Strip& last = strips[size_t(band.first_strip + band.strips - 1)];
    Real* out = static_cast<Real*>(g.data) + band.image * g.batch_stride + last.bottom * g.row_stride;
    const Real* row = rows.data() + band.shared_row * task.classes * task.width;
    for (int64_t c = 0; c < task.classes; c++)
      for (int64_t j = 0; j < task.width; j++) out[c * g.class_stride + j * g.column_stride] += row[c * task.width + j];
  });
}

GradientShape shape_of(const SoftmaxTask& task) { return {task.batch, task.classes, task.height, task.width}; }

template <class Real>
std::vector<ItemSums> run_bands(SoftmaxTask& task, bool align_corners, int threads) {
  const SoftmaxKernels& kernels = *instruction_set().softmax;
  const bool double_precision = sizeof(Real) == 8;
  const Enlargement enlargement(task, align_corners);
  const std::vector<Strip>& strips = enlargement.strips;
  const int64_t count = int64_t(strips.size());
  // Not where there is a single row (both sides of its strip), nor where shrinking skips rows.
  task.every_row_once = task.height > 1 && count == task.height - 1;
  if (task.gradient.data && !task.every_row_once) fill(task.gradient, shape_of(task), double_precision, 0);

  const int64_t per_band = std::max<int64_t>(1, (count * task.batch + ITEMS_WANTED - 1) / ITEMS_WANTED);
  std::vector<Band> bands;
  int64_t shared_rows = 0;
  for (int64_t image = 0; image < task.batch; image++)
    for (int64_t first = 0; first < count; first += per_band) {
      const int64_t end = std::min(first + per_band, count);
      const bool shared = end < count && strips[size_t(end)].top == strips[size_t(end - 1)].bottom;
      bands.push_back({image, first, end - first, shared && task.gradient.data ? shared_rows++ : -1});
    }
  std::vector<Real> rows(size_t(shared_rows * task.classes * task.width));
  std::vector<ItemSums> sums(bands.size());
  const size_t workspace = kernels.workspace_bytes(task, double_precision);
  parallel_for(int64_t(bands.size()), threads, [&](int64_t item) {
    const Band& band = bands[size_t(item)];
    Real* shared = band.shared_row < 0 ? nullptr : rows.data() + band.shared_row * task.classes * task.width;
    const int64_t end = band.first_strip + band.strips;
    const int64_t first_row = band.first_strip == 0 ? 0 : strips[size_t(band.first_strip)].top;
    const int64_t end_row = end == count ? task.height : strips[size_t(end)].top;
    kernels.band(task, {band.image, strips.data() + band.first_strip, band.strips, first_row, end_row, shared},
                 double_precision, thread_workspace(workspace), sums[size_t(item)].value);
  });
  if (shared_rows) add_shared_rows<Real>(task, bands, strips, rows, threads);
  return sums;
}

std::vector<ItemSums> run_full_resolution(const SoftmaxTask& task, bool double_precision, int threads) {
  ask_for_large_pages(task.gradient, shape_of(task), double_precision);
  const SoftmaxKernels& kernels = *instruction_set().softmax;
  const int64_t pixels = task.height * task.width, per_image = (pixels + PIXELS_PER_RANGE - 1) / PIXELS_PER_RANGE;
  std::vector<ItemSums> sums(size_t(task.batch * per_image));
  const size_t workspace = kernels.workspace_bytes(task, double_precision);
  parallel_for(task.batch * per_image, threads, [&](int64_t item) {
    const int64_t first = item % per_image * PIXELS_PER_RANGE;
    kernels.full_resolution(task, {item / per_image, first, std::min(PIXELS_PER_RANGE, pixels - first)},
                            double_precision, thread_workspace(workspace), sums[size_t(item)].value);
  });
  return sums;
}

}  // namespace

SoftmaxResult softmax_loss(SoftmaxTask task, bool align_corners, bool double_precision, bool check_labels,
                           int threads) {
  SoftmaxResult result;
  int64_t invalid_image = 0;
  // Labels are read twice. The second time from bytes: int64 labels are most of what this function reads.
  std::unique_ptr<uint8_t[]> compact;
  if (task.label.type != LabelType::uint8 && task.classes <= COMPACT_IGNORE)
    compact.reset(new uint8_t[size_t(task.batch * task.label_height * task.label_width)]);
  const RegionCounts counts = count_all(task, threads, compact.get(), invalid_image);
  std::copy(counts.pixels, counts.pixels + REGION_COUNT, result.pixels);
  if (counts.invalid && check_labels) {
    result.invalid_labels = counts.invalid;
    result.first_invalid_image = invalid_image;
    result.first_invalid_row = counts.first_invalid / task.label_width;
    result.first_invalid_column = counts.first_invalid % task.label_width;
    return result;
  }
  double divisor[TERM_COUNT];
  term_divisors(task.settings, counts.pixels, divisor);
  task.coefficients = coefficients(task.settings, divisor, task.old_classes);
  task.has_old_labels = counts.pixels[1] > 0;
  if (compact) {
    task.label = {compact.get(), LabelType::uint8, task.label_height * task.label_width, task.label_width, 1};
    task.settings.ignore_index = COMPACT_IGNORE;
  }

  std::vector<ItemSums> item_sums;
  if (task.batch * task.label_height * task.label_width > 0) {
    if (task.height == task.label_height && task.width == task.label_width)
      item_sums = run_full_resolution(task, double_precision, threads);
    else if (double_precision)
      item_sums = run_bands<double>(task, align_corners, threads);
    else
      item_sums = run_bands<float>(task, align_corners, threads);
  } else if (task.gradient.data) {
    fill(task.gradient, shape_of(task), double_precision, 0);
  }
  double sum[SUM_COUNT] = {};
  for (const ItemSums& item : item_sums)
    for (int i = 0; i < SUM_COUNT; i++) sum[i] += item.value[i];
  term_values(task.settings, sum, divisor, task.old_classes, result.value);
  for (int t = 0; t < TERM_COUNT; t++)
    if (task.settings.active(Term(t))) result.total += task.settings.weight[t] * result.value[t];
  // A loss scaler looks for NaN in the gradient: with a NaN or infinity among the logits all of it is NaN.
  if (sum[SUM_POISON] != 0 && task.gradient.data)
    fill(task.gradient, shape_of(task), double_precision, std::numeric_limits<double>::quiet_NaN());
  return result;
}

}  // namespace ciss
