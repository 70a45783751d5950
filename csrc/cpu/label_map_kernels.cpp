// Enlarge and argmax; compiled once per instruction set (see simd.h).
#include "label_map_task.h"
#include "lane_table.h"

namespace ciss {
namespace CISS_ISA {

template <class Real>
struct LabelMapState {
  typedef VectorOf<Real> V;
  typedef MaskOf<Real> M;
  typedef typename LaneTable<Real>::LaneVector LaneVector;
  static constexpr int L = Simd<Real>::lanes;

  const LabelMapTask& task;
  Scratch scratch;
  const LaneTable<Real> lane_table;
  Real *top_table, *bottom_table;  // [classes][2][stride]
  Real* node;                      // [width]
  Real* weights;                   // [rows * lanes + L]: bottom weight of each lane's row

  LabelMapState(const LabelMapTask& t, char* memory, size_t* bytes = nullptr)
      : task(t), scratch{memory}, lane_table(t.lanes, scratch) {
    top_table = scratch.take<Real>(t.classes * 2 * lane_table.stride);
    bottom_table = scratch.take<Real>(t.classes * 2 * lane_table.stride);
    node = scratch.take<Real>(t.width);
    weights = scratch.take<Real>(t.longest_strip * lane_table.lanes + L);
    if (bytes) *bytes = scratch.used;
  }

  void prepare_row(int64_t image, int64_t i, Real* table) {
    const LogitsView& view = task.logits;
    for (int64_t c = 0; c < task.classes; c++) {
      read_logits(node, view, image * view.batch_stride + c * view.class_stride + i * view.row_stride,
                  view.column_stride, task.width, Real(1));
      lane_table.expand(node, table + c * 2 * lane_table.stride);
    }
  }

  void strip(int64_t image, const Strip& s, int32_t* classes) {
    prepare_row(image, s.top, top_table);
    prepare_row(image, s.bottom, bottom_table);
    const int lanes = lane_table.lanes;
    const int64_t flat_count = s.rows * lanes;
    for (int64_t r = 0; r < s.rows; r++)
      for (int j = 0; j < lanes; j++) weights[r * lanes + j] = Real(task.bottom_weight[s.first_row + r]);
    for (int i = 0; i < L; i++) weights[flat_count + i] = 0;
    int slots = 0;  // the last one of 2 * run + 1 is often unused
    for (int j = 0; j < lanes; j++) {
      const int end = task.lanes.first_slot[j] + task.lanes.length[j];
      slots = end > slots ? end : slots;
    }
    for (int64_t flat = 0; flat < flat_count; flat += L) {
      const LaneVector v{flat, int(flat % lanes), load(weights + flat)};
      int first = 0;
      for (; first + 4 < slots; first += 8) block<8>(v, first, flat_count, classes);
      if (first + 2 < slots)
        block<4>(v, first, flat_count, classes);
      else if (first + 1 < slots)
        block<2>(v, first, flat_count, classes);
      else if (first < slots)
        block<1>(v, first, flat_count, classes);
    }
  }

  // BLOCK: slots whose best class is kept in registers.
  template <int BLOCK>
  void block(const LaneVector& v, int first, int64_t flat_count, int32_t* classes) const {
    M best[BLOCK];
    largest_classes<BLOCK>(v, first, best);
    for (int i = 0; i < L && v.flat + i < flat_count; i++) write_lane<BLOCK>(v, i, first, best, classes);
  }

  template <int BLOCK>
  void largest_classes(const LaneVector& v, int first_slot, M best[BLOCK]) const {
    const bool sigmoid = task.background_is_zero;
    V highest[BLOCK];
    for (int k = 0; k < BLOCK; k++) {
      highest[k] = splat(sigmoid ? Real(0) : -Real(__builtin_inf()));
      best[k] = M{};
    }
    for (int64_t c = sigmoid ? 1 : 0; c < task.classes; c++) {
      V centre, slope;
      lane_table.interpolate(v, top_table + c * 2 * lane_table.stride, bottom_table + c * 2 * lane_table.stride, centre,
                             slope);
      const M channel = M{} + typename Simd<Real>::Integer(c);
#pragma GCC unroll 8
      for (int k = 0; k < BLOCK; k++) {
        const V z = centre + Real(first_slot + k - lane_table.run) * slope;
        const M higher = z > highest[k];
        highest[k] = select(higher, z, highest[k]);
        best[k] = higher ? channel : best[k];
      }
    }
  }

  template <int BLOCK>
  void write_lane(const LaneVector& v, int i, int first_slot, const M best[BLOCK], int32_t* classes) const {
    const int lane = int((v.flat + i) % lane_table.lanes);
    const int begin = task.lanes.first_slot[lane], end = begin + task.lanes.length[lane];
    int32_t* out = classes + lane_table.pixel_of(v, i, first_slot, task.label_width);
    for (int k = 0; k < BLOCK; k++)
      if (first_slot + k >= begin && first_slot + k < end) out[k] = int32_t(best[k][i]);
  }
};

static size_t workspace_bytes(const LabelMapTask& task, bool double_precision) {
  size_t bytes = 0;
  if (double_precision)
    LabelMapState<double>(task, nullptr, &bytes);
  else
    LabelMapState<float>(task, nullptr, &bytes);
  return bytes;
}

static void strip(const LabelMapTask& task, int64_t image, const Strip& s, bool double_precision, void* workspace,
                  int32_t* classes) {
  if (double_precision)
    LabelMapState<double>(task, static_cast<char*>(workspace)).strip(image, s, classes);
  else
    LabelMapState<float>(task, static_cast<char*>(workspace)).strip(image, s, classes);
}

static void read_label_row(const LabelView& view, int64_t offset, int64_t count, int32_t* out) {
  read_labels(out, view, offset, count);
}

extern const LabelMapKernels label_map_kernels;
const LabelMapKernels label_map_kernels = {workspace_bytes, strip, read_label_row};

}  // namespace CISS_ISA
}  // namespace ciss
