// The softmax loss's kernels; compiled once per instruction set (see simd.h).
#include "softmax_geometric.h"
#include "softmax_full_resolution.h"

namespace ciss {
namespace CISS_ISA {

static bool geometric_lanes(BandState<float>& state, const BandState<float>::LaneVector& v) {
  switch (state.task.lanes.run) {
    case 1: return GeometricLanes<1>(state, v).run();
    case 2: return GeometricLanes<2>(state, v).run();
    case 3: return GeometricLanes<3>(state, v).run();
    case 4: return GeometricLanes<4>(state, v).run();
    case 6: return GeometricLanes<6>(state, v).run();
    case 8: return GeometricLanes<8>(state, v).run();
    default: return false;  // one pixel a lane: nothing to gain
  }
}
static bool geometric_lanes(BandState<double>&, const BandState<double>::LaneVector&) { return false; }

template <class Real>
static void process_strip(BandState<Real>& state, const Strip& strip, double sums[SUM_COUNT]) {
  state.read_strip_labels(strip);
  const int L = Simd<Real>::lanes;
  for (int64_t flat = 0; flat < strip.rows * state.lanes; flat += L) {
    const typename BandState<Real>::LaneVector v{flat, int(flat % state.lanes), load(state.weights + flat)};
    if (!geometric_lanes(state, v)) state.exact_lanes(v);
    // Sums per lane are single precision: not too many at a time.
    if (flat / L % 8 == 7) state.lane_sums.move_to(sums);
  }
  state.finish_labels(sums);
  state.lane_sums.move_to(sums);
  state.logs.move_to(sums);
}

template <class Real>
static void band_of(const SoftmaxTask& task, const SoftmaxBand& band, char* workspace, double sums[SUM_COUNT]) {
  [[maybe_unused]] const FlushDenormals flush;
  BandState<Real> state(task, workspace);
  state.image = band.image;
  const size_t sums_bytes = size_t(task.classes) * 2 * state.stride * sizeof(Real);
  memset(state.top_sums, 0, sums_bytes);
  memset(state.bottom_sums, 0, sums_bytes);
  const GradientView& g = task.gradient;
  Real* const gradient = static_cast<Real*>(g.data) + (g.data ? band.image * g.batch_stride : 0);
  // Rows that a shrinking map skips still have to be finite.
  const auto check_rows = [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) state.prepare_row(row, state.top_table);
  };
  check_rows(band.first_row, band.strips[0].top);
  state.prepare_row(band.strips[0].top, state.top_table);
  for (int64_t i = 0; i < band.strip_count; i++) {
    const Strip& strip = band.strips[i];
    state.prepare_row(strip.bottom, state.bottom_table);
    process_strip(state, strip, sums);
    if (g.data) state.fold_row(state.top_sums, gradient + strip.top * g.row_stride, g.class_stride, g.column_stride);
    // The next strip usually starts where this one ends (not when shrinking).
    const bool adjacent = i + 1 < band.strip_count && band.strips[i + 1].top == strip.bottom;
    const bool shared = i + 1 == band.strip_count && band.shared_row;
    if (adjacent) {
      Real* swap = state.top_table;
      state.top_table = state.bottom_table;
      state.bottom_table = swap;
      swap = state.top_sums;
      state.top_sums = state.bottom_sums;
      state.bottom_sums = swap;
      continue;
    }
    if (g.data) {
      if (shared)
        state.fold_row(state.bottom_sums, static_cast<Real*>(band.shared_row), task.width, 1);
      else
        state.fold_row(state.bottom_sums, gradient + strip.bottom * g.row_stride, g.class_stride, g.column_stride);
    }
    const bool last = i + 1 == band.strip_count;
    check_rows(strip.bottom + 1, last ? band.end_row : band.strips[i + 1].top);
    if (!last) state.prepare_row(band.strips[i + 1].top, state.top_table);
  }
  state.lane_sums.move_to(sums);
}

template <class Real>
static size_t workspace_of(const SoftmaxTask& task) {
  size_t bytes = 0;
  if (task.lanes.count)
    BandState<Real>(task, nullptr, &bytes);
  else
    FullResolutionState<Real>(task, nullptr, &bytes);
  return bytes;
}

static size_t workspace_bytes(const SoftmaxTask& task, bool double_precision) {
  return double_precision ? workspace_of<double>(task) : workspace_of<float>(task);
}

static void band(const SoftmaxTask& task, const SoftmaxBand& band, bool double_precision, void* workspace,
                 double sums[SUM_COUNT]) {
  if (double_precision)
    band_of<double>(task, band, static_cast<char*>(workspace), sums);
  else
    band_of<float>(task, band, static_cast<char*>(workspace), sums);
}

static void full_resolution(const SoftmaxTask& task, const PixelRange& range, bool double_precision, void* workspace,
                            double sums[SUM_COUNT]) {
  [[maybe_unused]] const FlushDenormals flush;
  if (double_precision)
    FullResolutionState<double>(task, static_cast<char*>(workspace)).run(range, sums);
  else
    FullResolutionState<float>(task, static_cast<char*>(workspace)).run(range, sums);
  finish_streams();
}

static void count_regions(const SoftmaxTask& task, int64_t image, int64_t first_row, int64_t rows,
                          uint8_t* compact, RegionCounts& counts) {
  constexpr int64_t CHUNK = 512;
  int32_t label[CHUNK];
  const int32_t ignore = int32_t(task.settings.ignore_index), classes = int32_t(task.classes);
  const int32_t unlabelled_below = task.old_classes > 0 ? 1 : 0, old_classes = int32_t(task.old_classes);
  for (int64_t y = first_row; y < first_row + rows; y++) {
    for (int64_t x = 0; x < task.label_width; x += CHUNK) {
      const int64_t count = task.label_width - x < CHUNK ? task.label_width - x : CHUNK;
      const LabelView& view = task.label;
      read_labels(label, view, image * view.batch_stride + y * view.row_stride + x * view.column_stride, count);
      int32_t unlabelled = 0, old = 0, fresh = 0, ignored = 0;
      for (int64_t i = 0; i < count; i++) {
        const int32_t v = label[i];
        const int32_t not_ignored = v != ignore, in_range = not_ignored & (v >= 0) & (v < classes);
        ignored += 1 - not_ignored;
        unlabelled += in_range & (v < unlabelled_below);
        old += in_range & (v >= unlabelled_below) & (v < old_classes);
        fresh += in_range & (v >= unlabelled_below) & (v >= old_classes);
      }
      if (compact) {
        uint8_t* const __restrict out = compact + (image * task.label_height + y) * task.label_width + x;
        for (int64_t i = 0; i < count; i++) {
          const int32_t v = label[i];
          out[i] = uint8_t((v != ignore) & (v >= 0) & (v < classes) ? v : COMPACT_IGNORE);
        }
      }
      const int64_t invalid = count - unlabelled - old - fresh - ignored;
      if (invalid && !counts.invalid) {
        for (int64_t i = 0; i < count; i++)
          if (label[i] != ignore && (label[i] < 0 || label[i] >= classes)) {
            counts.first_invalid = y * task.label_width + x + i;
            break;
          }
      }
      counts.invalid += invalid;
      counts.pixels[0] += unlabelled;
      counts.pixels[1] += old;
      counts.pixels[2] += fresh;
      counts.pixels[3] += ignored + invalid;  // invalid labels, where they are not an error, count as ignored
    }
  }
}

extern const SoftmaxKernels softmax_kernels;
const SoftmaxKernels softmax_kernels = {workspace_bytes, count_regions, band, full_resolution};

}  // namespace CISS_ISA
}  // namespace ciss
