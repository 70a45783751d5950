// Working state of one band: tables of the two source rows around a strip (see lane_table.h), accumulators of their
// gradients, label rows.
#pragma once

#include "lane_table.h"
#include "softmax_exact.h"

namespace ciss {
namespace CISS_ISA {

// Sums of logarithms over a strip, one per term that has one (CCE: over S and over S_old).
template <class Real>
struct StripLogs {
  LogProduct<Real> ce, cce, cce_old, kd, ali, ckd;

  __attribute__((always_inline)) void renormalise() {
    ce.renormalise();
    cce.renormalise();
    cce_old.renormalise();
    kd.renormalise();
    ali.renormalise();
    ckd.renormalise();
  }
  void move_to(double sums[SUM_COUNT]) {
    sums[SUM_LOG_CE] += ce.total();
    sums[SUM_LOG_CCE] += cce.total() - cce_old.total();
    sums[SUM_LOG_KD] += kd.total();
    sums[SUM_LOG_ALI] += ali.total();
    sums[SUM_LOG_CKD] += ckd.total();
    *this = StripLogs();
  }
};

template <class Real>
struct BandState {
  typedef VectorOf<Real> V;
  typedef typename LaneTable<Real>::LaneVector LaneVector;
  static constexpr int L = Simd<Real>::lanes;

  const SoftmaxTask& task;
  const Constants<Real> constants;
  Scratch scratch;
  const LaneTable<Real> lane_table;
  LaneSums<Real> lane_sums;
  StripLogs<Real> logs;
  int64_t image = 0;
  int64_t classes, all_classes;  // the student's; student's and teacher's
  const int lanes, stride, slots;

  // [all_classes][2][stride]: centre and slope; student's classes first.
  Real *top_table, *bottom_table;
  // [classes][2][stride]: sums of the gradient of a row, plain and times the distance from the centre.
  Real *top_sums, *bottom_sums;
  Real *column_largest, *column_poison;     // [width]
  Real* nodes;        // [all_classes][width] of the row being prepared; scratch while folding
  Real* label_sums;   // [classes][lanes][4]: labelled pixels: 1, distance, bottom weight, their product
  Real* focal_sums;   // the same for the focal term's targets, times their gradient factors
  uint8_t* labelled;  // [classes]: the class has labels in this strip
  int32_t* strip_labels;  // [rows][label_width]
  uint8_t* codes;         // [label_width, rounded up] of one label row: its region, and whether the next differs
  uint64_t* bits;         // [4][bits_stride]: the same, a bit per pixel
  int64_t bits_stride;
  uint32_t* words;        // [regions][rows * lanes + L]: a bit per slot
  int64_t words_stride;
  Real* weights;          // [rows * lanes + L]: bottom weight of each lane's row
  V* exact_scratch;       // [all_classes + 3 * classes]
  V* geometric_scratch;   // [all_classes][3]

  BandState(const SoftmaxTask& t, char* memory, size_t* bytes = nullptr)
      : task(t), constants(t), scratch{memory}, lane_table(t.lanes, scratch), classes(t.classes),
        all_classes(t.classes + t.teacher_classes()), lanes(lane_table.lanes), stride(lane_table.stride),
        slots(lane_table.slots()) {
    const int64_t flat = t.longest_strip * lanes + L;
    top_table = scratch.take<Real>(all_classes * 2 * stride);
    bottom_table = scratch.take<Real>(all_classes * 2 * stride);
    top_sums = scratch.take<Real>(classes * 2 * stride);
    bottom_sums = scratch.take<Real>(classes * 2 * stride);
    column_largest = scratch.take<Real>(t.width);
    column_poison = scratch.take<Real>(t.width);
    nodes = scratch.take<Real>(all_classes * t.width);
    label_sums = scratch.take<Real>(classes * lanes * 4);
    focal_sums = constants.focal_used ? scratch.take<Real>(classes * lanes * 4) : nullptr;
    labelled = scratch.take<uint8_t>(classes);
    strip_labels = scratch.take<int32_t>(t.longest_strip * t.label_width);
    codes = scratch.take<uint8_t>(t.label_width + 64);
    bits_stride = t.label_width / 64 + 2;
    bits = scratch.take<uint64_t>(4 * bits_stride);
    words_stride = flat;
    words = scratch.take<uint32_t>(REGION_COUNT * flat);
    weights = scratch.take<Real>(flat);
    exact_scratch = scratch.take<V>(all_classes + 3 * classes);
    geometric_scratch = scratch.take<V>(all_classes * 3);
    if (bytes) *bytes = scratch.used;
  }

  // ---- rows of the source ------------------------------------------------------------------------------------

  // Table of source row i. Student and teacher are shifted by their largest logit at every source column: bilinear
  // mixing keeps the shifted logits at or below 0 everywhere, and the shift cancels in every term.
  CISS_LOOP void prepare_row(int64_t i, Real* table) {
    const double log2e = 1.44269504088896340736;
    shifted_nodes(task.student, i, Real(log2e), nodes, classes);
    if (task.teacher.data)
      shifted_nodes(task.teacher, i, Real(log2e * task.settings.alpha), nodes + classes * task.width,
                    all_classes - classes);
    for (int64_t c = 0; c < all_classes; c++) lane_table.expand(nodes + c * task.width, table + c * 2 * stride);
  }

  CISS_LOOP void shifted_nodes(const LogitsView& view, int64_t i, Real scale, Real* out, int64_t count) {
    const int64_t width = task.width;
    Real *const __restrict largest = column_largest, *const __restrict poison = column_poison;
    for (int64_t c = 0; c < count; c++) {
      Real* const __restrict row = out + c * width;
      // Rows of neighbouring classes lie far apart: the processor cannot guess the next one.
      if (c + 1 < count && view.column_stride == 1) prefetch(view, image, c + 1, i);
      read_logits(row, view, image * view.batch_stride + c * view.class_stride + i * view.row_stride,
                  view.column_stride, width, scale);
      if (c == 0)
        for (int64_t j = 0; j < width; j++) {
          largest[j] = row[j];
          poison[j] = row[j] * 0;
        }
      else
        for (int64_t j = 0; j < width; j++) {
          largest[j] = row[j] > largest[j] ? row[j] : largest[j];
          poison[j] += row[j] * 0;
        }
    }
    for (int64_t c = 0; c < count; c++) {
      Real* const __restrict row = out + c * width;
      for (int64_t j = 0; j < width; j++) row[j] -= largest[j];
    }
    for (int64_t j = 0; j < width; j++) lane_sums.value[SUM_POISON][0] += poison[j];
  }

  void prefetch(const LogitsView& view, int64_t image, int64_t c, int64_t i) const {
    const int64_t bytes = element_bytes(view.type);
    const char* row = static_cast<const char*>(view.data) +
                      (image * view.batch_stride + c * view.class_stride + i * view.row_stride) * bytes;
    for (int64_t j = 0; j < task.width * bytes; j += 64) __builtin_prefetch(row + j);
  }

  // The lanes' sums of a source row, folded onto its columns: one row of the gradient. Clears the sums.
  CISS_LOOP void fold_row(Real* row_sums, Real* out, int64_t class_stride, int64_t column_stride) {
    const bool overwrite = task.every_row_once;
    for (int64_t c = 0; c < classes; c++) {
      for (int64_t j = 0; j < task.width; j++) nodes[j] = 0;
      lane_table.fold(row_sums + c * 2 * stride, nodes);
      Real* target = out + c * class_stride;
      if (overwrite && column_stride == 1)
        memcpy(target, nodes, size_t(task.width) * sizeof(Real));
      else if (overwrite)
        for (int64_t j = 0; j < task.width; j++) target[j * column_stride] = nodes[j];
      else
        for (int64_t j = 0; j < task.width; j++) target[j * column_stride] += nodes[j];
    }
    memset(row_sums, 0, size_t(classes) * 2 * stride * sizeof(Real));
  }

  // ---- label rows of a strip ---------------------------------------------------------------------------------

  void read_strip_labels(const Strip& strip) {
    memset(labelled, 0, size_t(classes));
    for (int64_t r = 0; r < strip.rows; r++) read_label_row(strip.first_row + r, r);
    const int64_t flat = strip.rows * lanes;
    for (int region = 0; region < REGION_COUNT; region++)
      memset(words + region * words_stride + flat, 0, L * sizeof(uint32_t));
    for (int i = 0; i < L; i++) weights[flat + i] = 0;
  }

  CISS_LOOP void read_label_row(int64_t y, int64_t r) {
    const LabelView& view = task.label;
    const int32_t ignore = int32_t(task.settings.ignore_index), width = int32_t(task.label_width);
    const int32_t old_classes = int32_t(task.old_classes), class_count = int32_t(classes);
    int32_t* const __restrict label = strip_labels + r * width;
    uint8_t* const __restrict code = codes;  // local copies: the compiler must see that nothing overlaps
    read_labels(label, view, image * view.batch_stride + y * view.row_stride, width);
    const int32_t unlabelled_below = old_classes > 0 ? 1 : 0;
    for (int32_t x = 0; x < width; x++) {
      const int32_t v = label[x];
      const int32_t labelled_region = v < old_classes ? int32_t(OLD) : int32_t(NEW);
      const int32_t region = v < unlabelled_below ? int32_t(UNLABELLED) : labelled_region;
      code[x] = uint8_t((v == ignore) | (v < 0) | (v >= class_count) ? int32_t(IGNORED) : region);
    }
    for (int32_t x = 0; x < width - 1; x++) code[x] = uint8_t(code[x] | (label[x] != label[x + 1] ? 16 : 0));
    enum { IN_UNLABELLED, IN_OLD, IN_NEW, CHANGES, BITS };  // CHANGES: the next pixel's label differs
    for (int64_t x = 0; x < width; x += 64) {
      bits[IN_UNLABELLED * bits_stride + x / 64] = collect_bits(codes + x, 0);
      bits[IN_OLD * bits_stride + x / 64] = collect_bits(codes + x, 1);
      bits[IN_NEW * bits_stride + x / 64] = collect_bits(codes + x, 2);
      bits[CHANGES * bits_stride + x / 64] = collect_bits(codes + x, 4);
    }
    const Real s = Real(task.bottom_weight[y]);
    const LaneArrays& l = task.lanes;
    for (int j = 0; j < lanes; j++) {
      const int length = l.length[j], slot = l.first_slot[j];
      const uint32_t pixels = (1u << length) - 1;
      uint32_t in[BITS];
      for (int i = 0; i < BITS; i++) {
        uint32_t few;  // 25 bits from the lane's first pixel on; a lane has at most 17 pixels
        memcpy(&few, reinterpret_cast<const char*>(bits + i * bits_stride) + l.first_pixel[j] / 8, 4);
        in[i] = few >> (l.first_pixel[j] % 8) & pixels;
      }
      uint32_t* word = words + r * lanes + j;
      word[0] = in[IN_UNLABELLED] << slot;
      word[words_stride] = in[IN_OLD] << slot;
      word[2 * words_stride] = in[IN_NEW] << slot;
      word[3 * words_stride] = (pixels & ~(in[IN_UNLABELLED] | in[IN_OLD] | in[IN_NEW])) << slot;
      weights[r * lanes + j] = s;
      uint32_t with_label = in[IN_OLD] | in[IN_NEW];
      if (!with_label) continue;
      const int32_t* lane_label = label + l.first_pixel[j];
      const int distance = slot - task.lanes.run;
      if (!(in[CHANGES] & (pixels >> 1))) {  // one label all along
        const Real moment = Real(length * distance + length * (length - 1) / 2);
        add_label(lane_label[0], j, Real(length), moment, s);
      } else {
        for (; with_label; with_label &= with_label - 1) {
          const int x = __builtin_ctz(with_label);
          add_label(lane_label[x], j, 1, Real(distance + x), s);
        }
      }
    }
  }

  void add_label(int32_t label, int lane, Real count, Real moment, Real s) {
    if (!labelled[label]) {
      labelled[label] = 1;
      memset(label_sums + int64_t(label) * lanes * 4, 0, size_t(lanes) * 4 * sizeof(Real));
      if (focal_sums) memset(focal_sums + int64_t(label) * lanes * 4, 0, size_t(lanes) * 4 * sizeof(Real));
    }
    add_point(label_sums + (int64_t(label) * lanes + lane) * 4, count, moment, s);
  }

  static __attribute__((always_inline)) void add_point(Real* sums, Real count, Real moment, Real s) {
    sums[0] += count;
    sums[1] += moment;
    sums[2] += s * count;
    sums[3] += s * moment;
  }

  // The labels' own part of loss and gradient, -z_y: linear in the logits, so it needs no pixels, only their sums.
  CISS_LOOP void finish_labels(double sums[SUM_COUNT]) {
    for (int64_t c = 0; c < classes; c++) {
      if (!labelled[c]) continue;
      const bool old = c < task.old_classes;
      const Real factor = Real(old ? task.coefficients.label_old : task.coefficients.label_new);
      sums[old ? SUM_LABEL_OLD : SUM_LABEL_NEW] += apply_point_sums(c, label_sums, factor);
      if (focal_sums) apply_point_sums(c, focal_sums, Real(1));
    }
  }

  // Subtracts factor times the pixels' sums from the accumulators; returns the sum of z over them.
  double apply_point_sums(int64_t c, const Real* point_sums, Real factor) {
    const Real *top = top_table + c * 2 * stride, *bottom = bottom_table + c * 2 * stride;
    Real *top_out = top_sums + c * 2 * stride, *bottom_out = bottom_sums + c * 2 * stride;
    double z = 0;
    for (int j = 0; j < lanes; j++) {
      const Real* q = point_sums + (c * lanes + j) * 4;
      const Real upper = q[0] - q[2], upper_moment = q[1] - q[3];
      z += double(top[j] * upper + top[stride + j] * upper_moment) +
           double(bottom[j] * q[2] + bottom[stride + j] * q[3]);
      top_out[j] -= factor * upper;
      top_out[stride + j] -= factor * upper_moment;
      bottom_out[j] -= factor * q[2];
      bottom_out[stride + j] -= factor * q[3];
    }
    return z;
  }

  // ---- vectors of lanes --------------------------------------------------------------------------------------

  // Centre and slope of class c (the teacher's follow the student's) for a vector of lanes.
  __attribute__((always_inline)) void interpolate(const LaneVector& v, int64_t c, V& centre, V& slope) const {
    lane_table.interpolate(v, top_table + c * 2 * stride, bottom_table + c * 2 * stride, centre, slope);
  }

  __attribute__((always_inline)) void accumulate(const LaneVector& v, int64_t c, V plain, V moment) {
    Real *top = top_sums + c * 2 * stride + v.offset, *bottom = bottom_sums + c * 2 * stride + v.offset;
    const V lower = v.bottom * plain, lower_moment = v.bottom * moment;
    store(top, load(top) + (plain - lower));
    store(top + stride, load(top + stride) + (moment - lower_moment));
    store(bottom, load(bottom) + lower);
    store(bottom + stride, load(bottom + stride) + lower_moment);
  }

  __attribute__((always_inline)) MaskOf<Real> word_mask(int region, const LaneVector& v, int slot) const {
    MaskOf<Real> m;
    const uint32_t* w = words + region * words_stride + v.flat;
    for (int i = 0; i < L; i++) m[i] = -typename Simd<Real>::Integer(w[i] >> slot & 1);
    return m;
  }

  // Targets of the focal term: -count on class `c` at pixels of a lane, `moment` the same times their distances.
  void add_focal_targets(int64_t c, int lane, Real count, Real moment, Real s) {
    if (!labelled[c]) add_label(int32_t(c), 0, 0, 0, 0);
    add_point(focal_sums + (c * lanes + lane) * 4, count, moment, s);
  }

  // Every slot of a vector of lanes, pixel by pixel.
  CISS_LOOP void exact_lanes(const LaneVector& v) {
    V *z = exact_scratch, *gradient = z + all_classes, *plain = gradient + classes, *moment = plain + classes;
    for (int64_t c = 0; c < classes; c++) plain[c] = moment[c] = splat(Real(0));
    for (int slot = 0; slot < slots; slot++) {
      RegionMasks<Real> region{word_mask(0, v, slot), word_mask(1, v, slot), word_mask(2, v, slot),
                               word_mask(3, v, slot)};
      if (!any(region.in(EVERYWHERE))) continue;
      const Real distance = Real(slot - task.lanes.run);
      for (int64_t c = 0; c < all_classes; c++) {
        V centre, slope;
        interpolate(v, c, centre, slope);
        z[c] = centre + distance * slope;
      }
      MaskOf<Real> label{};
      if (constants.focal_used) {
        const MaskOf<Real> with_label = region.in(LABELLED);
        for (int i = 0; i < L; i++)
          if (with_label[i]) label[i] = strip_labels[lane_table.pixel_of(v, i, slot, task.label_width)];
      }
      exact_pixels<Real>(task, constants, region, label, z, gradient, lane_sums);
      for (int64_t c = 0; c < classes; c++) {
        plain[c] += gradient[c];
        moment[c] += distance * gradient[c];
      }
    }
    if (task.gradient.data)
      for (int64_t c = 0; c < classes; c++) accumulate(v, c, plain[c], moment[c]);
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
