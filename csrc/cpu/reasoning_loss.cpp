#include "reasoning_loss.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "dispatch.h"
#include "gradient_fill.h"
#include "parallel.h"

namespace ciss {
namespace {

// Work items: each has gradients on all weights of its own, which are not to take much more than the others' memory.
constexpr int64_t FEWEST_ITEMS = 4, MOST_ITEMS = 16, WEIGHTS_OF_ALL_ITEMS = 1 << 21;
constexpr int64_t BLOCK_BYTES = 32 << 10;  // of the rows of a tile that a block of elements reads (L1 cache)

template <class Real>
const ReasoningKernelsOf<Real>& kernels();
template <>
const ReasoningKernelsOf<float>& kernels<float>() {
  return instruction_set().reasoning->single_precision;
}
template <>
const ReasoningKernelsOf<double>& kernels<double>() {
  return instruction_set().reasoning->double_precision;
}

// Signs of the terms that are asked for, in order.
std::vector<int> active_signs(const double term_weight[2]) {
  std::vector<int> signs;
  if (term_weight[0] != 0) signs.push_back(1);
  if (term_weight[1] != 0) signs.push_back(-1);
  return signs;
}

// Whether a weight is an element of the positive (sign 1) or the negative part. 0 is one of both: it adds nothing to a
// score, but its gradient is the mean of the two; and what is not a number must show in both.
template <class Real>
bool in_part(Real weight, int sign) {
  return sign > 0 ? !(weight < 0) : !(weight > 0);
}

template <class Real>
class OwnedList {
 public:
  // The parts [classes * terms, channels] themselves.
  static OwnedList parts(const Real* weight, int64_t classes, int64_t channels, const std::vector<int>& signs) {
    OwnedList list(classes * int64_t(signs.size()), channels);
    list.for_blocks(channels, 1, [&](int64_t first, int64_t end) {
      for (int64_t c = 0; c < classes; c++)
        for (int sign : signs) {
          for (int64_t d = first; d < end; d++) list.add(weight[c * channels + d], d, sign);
          list.end_row();
        }
    });
    return list;
  }
  // Their transpose [channels, classes * terms].
  static OwnedList columns(const Real* weight, int64_t classes, int64_t channels, const std::vector<int>& signs) {
    const int64_t terms = int64_t(signs.size());
    OwnedList list(channels, classes * terms);
    list.for_blocks(classes, terms, [&](int64_t first, int64_t end) {
      for (int64_t d = 0; d < channels; d++) {
        for (int64_t c = first; c < end; c++)
          for (int64_t t = 0; t < terms; t++) list.add(weight[c * channels + d], c * terms + t, signs[size_t(t)]);
        list.end_row();
      }
    });
    return list;
  }

  ElementList<Real> view() const {
    return {elements_.get(), begin_.data(), int64_t(begin_.size()) / (rows_ + 1), rows_};
  }
  int64_t size() const { return count_; }

 private:
  OwnedList(int64_t rows, int64_t factor_rows)
      : rows_(rows), elements_(new Element<Real>[size_t(rows * factor_rows)]) {}

  template <class Fill>
  void for_blocks(int64_t units, int64_t rows_per_unit, const Fill& fill) {
    const int64_t row_bytes = kernels<Real>().tile_pixels * int64_t(sizeof(Real));
    const int64_t size = std::max<int64_t>(1, BLOCK_BYTES / (row_bytes * rows_per_unit));
    for (int64_t first = 0; first < units; first += size) {
      begin_.push_back(count_);
      fill(first, std::min(first + size, units));
    }
  }
  void add(Real weight, int64_t row, int sign) {
    elements_[size_t(count_)] = {weight, int32_t(row)};
    count_ += in_part(weight, sign);  // no branch: it could not be foreseen
  }
  void end_row() { begin_.push_back(count_); }

  int64_t rows_, count_ = 0;
  std::unique_ptr<Element<Real>[]> elements_;
  std::vector<int64_t> begin_;
};

// From the gradients on the elements, one array of them an item, to that on the weight.
template <class Real>
void fold_element_gradients(const ElementList<Real>& parts, int64_t elements,
                            const std::vector<std::unique_ptr<Real[]>>& items, const ReasoningArguments& a,
                            int64_t terms) {
  std::vector<double> sums(static_cast<size_t>(elements));
  for (const auto& item : items)
    for (int64_t e = 0; e < elements; e++) sums[size_t(e)] += double(item[size_t(e)]);
  const Real* const weight = static_cast<const Real*>(a.weight);
  Real* const gradient = static_cast<Real*>(a.weight_gradient);
  std::fill(gradient, gradient + a.classes * a.channels, Real(0));
  for (int64_t block = 0; block < parts.blocks; block++) {
    const int64_t* begin = parts.begin + block * (parts.rows + 1);
    for (int64_t row = 0; row < parts.rows; row++)
      for (int64_t e = begin[row]; e < begin[row + 1]; e++) {
        const int64_t place = row / terms * a.channels + parts.elements[e].row;
        gradient[place] += Real(weight[place] == 0 ? sums[size_t(e)] / 2 : sums[size_t(e)]);
      }
  }
}

template <class Real>
ReasoningResult run(const ReasoningArguments& a, int threads) {
  const ReasoningKernelsOf<Real>& kernel = kernels<Real>();
  const std::vector<int> signs = active_signs(a.term_weight);
  const auto* weight = static_cast<const Real*>(a.weight);
  const auto* weight_old = static_cast<const Real*>(a.weight_old);
  const OwnedList<Real> parts = OwnedList<Real>::parts(weight, a.classes, a.channels, signs);
  const OwnedList<Real> parts_old = OwnedList<Real>::parts(weight_old, a.classes, a.channels_old, signs);
  const OwnedList<Real> columns = OwnedList<Real>::columns(weight, a.classes, a.gradient.data ? a.channels : 0, signs);

  ReasoningTask<Real> task;
  task.batch = a.batch;
  task.height = a.height;
  task.width = a.width;
  task.channels = a.channels;
  task.channels_old = a.channels_old;
  task.feature = a.feature;
  task.feature_old = a.feature_old;
  task.gradient = a.gradient;
  task.parts = parts.view();
  task.parts_old = parts_old.view();
  task.columns = columns.view();
  task.terms = int(signs.size());
  const double pixels = double(std::max<int64_t>(1, task.pixels()));
  for (size_t t = 0; t < signs.size(); t++)
    task.coefficient[t] = Real(a.term_weight[signs[t] > 0 ? 0 : 1] / pixels);

  // Items are cut by sizes alone: the same for any number of threads.
  const int64_t tiles = (task.pixels() + kernel.tile_pixels - 1) / kernel.tile_pixels;
  const int64_t most = std::clamp(WEIGHTS_OF_ALL_ITEMS / (a.classes * a.channels), FEWEST_ITEMS, MOST_ITEMS);
  const int64_t items = std::min(tiles, most);
  std::vector<ReasoningSums> sums(static_cast<size_t>(items));
  std::vector<std::unique_ptr<Real[]>> element_gradients(a.weight_gradient ? size_t(items) : 0);
  const size_t workspace = kernel.workspace_bytes(task);
  parallel_for(items, threads, [&](int64_t item) {
    const int64_t first = tiles * item / items * kernel.tile_pixels;
    const int64_t end = std::min(tiles * (item + 1) / items * kernel.tile_pixels, task.pixels());
    Real* own = nullptr;
    if (a.weight_gradient) {
      element_gradients[size_t(item)].reset(new Real[size_t(parts.size())]());
      own = element_gradients[size_t(item)].get();
    }
    ReasoningSums item_sums;
    kernel.run(task, first, end, thread_workspace(workspace), own, item_sums);
    sums[size_t(item)] = item_sums;
  });
  if (a.weight_gradient) fold_element_gradients(task.parts, parts.size(), element_gradients, a, task.terms);

  ReasoningResult result;
  for (size_t t = 0; t < signs.size(); t++) {
    const int term = signs[t] > 0 ? 0 : 1;
    for (const ReasoningSums& own : sums) result.value[term] += own.value[t] / pixels;
    result.total += a.term_weight[term] * result.value[term];
  }
  return result;
}

}  // namespace

ReasoningResult reasoning_loss(const ReasoningArguments& a, int threads) {
  const GradientShape shape{a.batch, a.channels, a.height, a.width};
  if (a.gradient.data) ask_for_large_pages(a.gradient, shape, a.double_precision);
  ReasoningResult result = a.double_precision ? run<double>(a, threads) : run<float>(a, threads);
  if (result.total == result.total) return result;
  // A loss scaler looks for NaN in the gradients: where a score is NaN or infinite all of them are.
  const double nan = std::numeric_limits<double>::quiet_NaN();
  if (a.gradient.data) fill(a.gradient, shape, a.double_precision, nan);
  if (a.weight_gradient) {
    const GradientShape matrix{1, 1, a.classes, a.channels};
    fill({a.weight_gradient, 0, 0, a.channels, 1}, matrix, a.double_precision, nan);
  }
  return result;
}

}  // namespace ciss
