#include "sigmoid_loss.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "dispatch.h"
#include "gradient_fill.h"
#include "parallel.h"

namespace ciss {
namespace {

constexpr int64_t ITEMS_WANTED = 32;      // work items per call: enough to share out, few enough to stay cheap
constexpr int64_t BAND_LOGITS = 1024;     // logits of a plane in a band, beyond which bands become smaller (L2 cache)
constexpr int64_t PIXELS_PER_RANGE = 8192;

struct alignas(64) PixelSums {
  double value[SIGMOID_TERM_COUNT] = {};
  InvalidLabels invalid;
};

void note_invalid(SigmoidResult& result, const InvalidLabels& invalid, int64_t image, int64_t label_width) {
  if (invalid.count && !result.invalid_labels) {
    result.first_invalid_image = image;
    result.first_invalid_row = invalid.first / label_width;
    result.first_invalid_column = invalid.first % label_width;
  }
  result.invalid_labels += invalid.count;
}

// Planes of the same kind, `lanes` at a time.
struct Group {
  GroupKind kind;
  std::vector<Plane> planes;
};

std::vector<Group> make_groups(const SigmoidTask& task, int lanes) {
  std::vector<Group> groups;
  // The ones that take longest first.
  for (GroupKind kind : {GroupKind::distilled, GroupKind::labelled, GroupKind::unused}) {
    // An image's planes side by side: their logits change much in the same cells, and they share its labels.
    size_t room = 0;
    for (int64_t image = 0; image < task.batch; image++)
      for (int64_t channel = 0; channel < task.classes; channel++) {
        const bool used = task.weight[task.term_of(channel)] != 0;
        const GroupKind its_kind = !used ? GroupKind::unused
                                   : task.is_old(channel) ? GroupKind::distilled : GroupKind::labelled;
        if (its_kind != kind) continue;
        if (!room) groups.push_back({kind, std::vector<Plane>(size_t(lanes))});
        if (!room) room = size_t(lanes);
        groups.back().planes[size_t(lanes) - room--] = {int32_t(image), int32_t(channel)};
      }
  }
  return groups;
}

// The bands of a group: the same for all of them.
template <class Real>
std::vector<SigmoidBand> make_bands(const PieceView<Real>& rows, int64_t height, int64_t wanted, int64_t width) {
  const int64_t most_rows = std::max<int64_t>(2, BAND_LOGITS / std::max<int64_t>(width, 1));
  const int64_t per_band = std::max<int64_t>(1, (rows.count + wanted - 1) / wanted);
  std::vector<SigmoidBand> bands;
  for (int64_t piece = 0; piece < rows.count; piece++) {
    // A band may end only where the next piece lies further down: then they share one row at most.
    const bool may_end = piece > 0 && rows.left[piece] > rows.left[piece - 1];
    const bool full = bands.empty() || bands.back().pieces >= per_band ||
                      rows.right[piece] - rows.left[bands.back().first_piece] >= most_rows;
    if (bands.empty() || (may_end && full)) {
      bands.emplace_back();
      bands.back().first_piece = piece;
    }
    bands.back().pieces++;
  }
  for (size_t i = 0; i < bands.size(); i++) {
    bands[i].first_row = i == 0 ? 0 : rows.left[bands[i].first_piece];
    bands[i].end_row = i + 1 == bands.size() ? height : rows.left[bands[i + 1].first_piece];
  }
  return bands;
}

// Whether the band's last row is the next one's first.
template <class Real>
bool shares_row(const PieceView<Real>& rows, const SigmoidBand& band, int64_t height) {
  return band.end_row < height && rows.right[band.first_piece + band.pieces - 1] == band.end_row;
}

void survey_labels(const SigmoidTask& task, bool double_precision, int threads, SigmoidResult& result) {
  const SigmoidKernels& kernels = *instruction_set().sigmoid;
  const int64_t items = task.batch * task.row_pieces;
  std::vector<InvalidLabels> invalid{size_t(items)};
  const size_t workspace = kernels.workspace_bytes(task, 0, double_precision);
  parallel_for(items, threads, [&](int64_t item) {
    kernels.survey(task, item / task.row_pieces, item % task.row_pieces, double_precision,
                   thread_workspace(workspace), invalid[size_t(item)]);
  });
  for (int64_t item = 0; item < items; item++)
    note_invalid(result, invalid[size_t(item)], item / task.row_pieces, task.label_width);
}

template <class Real>
void add_shared_row(const SigmoidTask& task, const SigmoidBand& band, int lanes) {
  const GradientView& g = task.gradient;
  const Real* row = static_cast<const Real*>(band.shared_row);
  for (int p = 0; p < lanes; p++, row += task.width) {
    const Plane plane = band.planes[p];
    if (plane.image < 0) continue;
    Real* out = static_cast<Real*>(g.data) + plane.image * g.batch_stride + plane.channel * g.class_stride +
                band.end_row * g.row_stride;
    for (int64_t j = 0; j < task.width; j++) out[j * g.column_stride] += row[j];
  }
}

template <class Real>
void run_bands(SigmoidTask& task, bool align_corners, bool check_labels, int threads, SigmoidResult& result) {
  const SigmoidKernels& kernels = *instruction_set().sigmoid;
  const bool double_precision = sizeof(Real) == 8;
  const int lanes = kernels.lanes(double_precision);
  const Pieces<Real> row_pieces({task.height, task.label_height, align_corners}, lanes);
  const Pieces<Real> column_pieces({task.width, task.label_width, align_corners}, lanes);
  const PieceView<Real> rows = row_pieces.view(), columns = column_pieces.view();
  task.rows = &rows;
  task.columns = &columns;
  task.row_pieces = rows.count;
  task.column_pieces = columns.count;

  const int64_t cells = task.batch * task.row_pieces * task.column_pieces;
  task.present_words = (task.classes + 63) / 64;
  const std::unique_ptr<int32_t[]> kinds(new int32_t[size_t(cells)]);
  const std::unique_ptr<uint64_t[]> present(new uint64_t[size_t(cells * task.present_words)]);
  task.cells = kinds.get();
  task.present = present.get();
  survey_labels(task, double_precision, threads, result);
  if (result.invalid_labels && check_labels) return;

  const std::vector<Group> groups = make_groups(task, lanes);
  const int64_t wanted = (ITEMS_WANTED + int64_t(groups.size()) - 1) / int64_t(groups.size());
  const std::vector<SigmoidBand> bands = make_bands(rows, task.height, wanted, task.width);
  std::vector<SigmoidBand> items;
  std::vector<std::vector<Real>> shared_rows;
  int64_t most_rows = 0;
  for (const Group& group : groups)
    for (SigmoidBand band : bands) {
      band.kind = group.kind;
      band.planes = group.planes.data();
      const bool shared = shares_row(rows, band, task.height);
      most_rows = std::max(most_rows, band.end_row - band.first_row + shared);
      if (shared) {
        shared_rows.emplace_back(size_t(lanes * task.width));
        band.shared_row = shared_rows.back().data();
      }
      items.push_back(band);
    }
  std::vector<SigmoidSums> sums(items.size());
  const size_t workspace = kernels.workspace_bytes(task, most_rows, double_precision);
  parallel_for(int64_t(items.size()), threads, [&](int64_t item) {
    kernels.band(task, items[size_t(item)], double_precision, thread_workspace(workspace), sums[size_t(item)]);
  });
  for (size_t i = 0; i < items.size(); i++) {
    if (items[i].shared_row && task.gradient.data) add_shared_row<Real>(task, items[i], lanes);
    for (int p = 0; p < lanes; p++)
      if (items[i].planes[p].image >= 0)
        result.value[task.term_of(items[i].planes[p].channel)] += sums[i].value[p];
  }
}

void run_full_resolution(const SigmoidTask& task, bool double_precision, int threads, SigmoidResult& result) {
  const SigmoidKernels& kernels = *instruction_set().sigmoid;
  const int64_t pixels = task.height * task.width, per_image = (pixels + PIXELS_PER_RANGE - 1) / PIXELS_PER_RANGE;
  std::vector<PixelSums> sums(size_t(task.batch * per_image));
  const size_t workspace = kernels.workspace_bytes(task, 0, double_precision);
  parallel_for(task.batch * per_image, threads, [&](int64_t item) {
    const int64_t first = item % per_image * PIXELS_PER_RANGE;
    PixelSums& own = sums[size_t(item)];
    kernels.full_resolution(task, {item / per_image, first, std::min(PIXELS_PER_RANGE, pixels - first)},
                            double_precision, thread_workspace(workspace), own.invalid, own.value);
  });
  for (size_t i = 0; i < sums.size(); i++) {
    note_invalid(result, sums[i].invalid, int64_t(i) / per_image, task.label_width);
    for (int t = 0; t < SIGMOID_TERM_COUNT; t++) result.value[t] += sums[i].value[t];
  }
}

}  // namespace

SigmoidResult sigmoid_loss(SigmoidTask task, bool align_corners, bool double_precision, bool check_labels,
                           int threads) {
  SigmoidResult result;
  const int64_t pixels = task.batch * task.label_height * task.label_width;
  const GradientShape shape{task.batch, task.classes, task.height, task.width};
  if (pixels > 0) {
    if (task.height == task.label_height && task.width == task.label_width) {
      if (task.gradient.data) ask_for_large_pages(task.gradient, shape, double_precision);
      run_full_resolution(task, double_precision, threads, result);
    } else if (double_precision) {
      run_bands<double>(task, align_corners, check_labels, threads, result);
    } else {
      run_bands<float>(task, align_corners, check_labels, threads, result);
    }
    if (result.invalid_labels && check_labels) return result;
  } else if (task.gradient.data) {
    fill(task.gradient, shape, double_precision, 0);
  }
  bool finite = true;
  for (int t = 0; t < SIGMOID_TERM_COUNT; t++) {
    finite = finite && result.value[t] == result.value[t];
    result.value[t] *= 0.69314718055994530942 / double(std::max<int64_t>(pixels, 1));
    if (task.weight[t] != 0) result.total += task.weight[t] * result.value[t];
  }
  // A loss scaler looks for NaN in the gradient: with a NaN or infinity among the logits all of it is NaN.
  if (!finite) {
    result.total = std::numeric_limits<double>::quiet_NaN();
    if (task.gradient.data) fill(task.gradient, shape, double_precision, result.total);
  }
  return result;
}

}  // namespace ciss
