// One band of a group: logits in, sums and gradient out.
#pragma once

#include "conversion.h"
#include "scratch.h"
#include "sigmoid_cell.h"

namespace ciss {
namespace CISS_ISA {

template <class Real>
struct SigmoidBandState {
  typedef VectorOf<Real> V;
  typedef MaskOf<Real> M;
  static constexpr int L = Simd<Real>::lanes;
  static constexpr int LABEL_COLUMNS = (2 * LONGEST_RUN + L) / L * L;  // longest piece, in whole vectors
  static constexpr Real LOG2E = Real(1.44269504088896340736);

  const SigmoidTask& task;
  const PieceView<Real> rows, columns;
  V *student, *teacher, *gradient;  // [band rows][width]
  Real* row;                        // [width]
  int32_t* labels;                  // [longest piece, LABEL_COLUMNS], see read_cell_labels
  int64_t labels_of[3] = {-1, -1, -1};

  SigmoidBandState(const SigmoidTask& t, int64_t band_rows, char* memory, size_t* bytes = nullptr)
      : task(t), rows(*static_cast<const PieceView<Real>*>(t.rows)),
        columns(*static_cast<const PieceView<Real>*>(t.columns)) {
    Scratch scratch{memory};
    student = scratch.take<V>(band_rows * t.width);
    teacher = scratch.take<V>(t.teacher.data ? band_rows * t.width : 0);
    gradient = scratch.take<V>(band_rows * t.width);
    row = scratch.take<Real>(t.width);
    labels = scratch.take<int32_t>((2 * LONGEST_RUN + 1) * LABEL_COLUMNS);
    if (!bytes) memset(labels, 0, size_t(2 * LONGEST_RUN + 1) * LABEL_COLUMNS * 4);  // also past the cell's columns
    if (bytes) *bytes = scratch.used;
  }

  void run(const SigmoidBand& band, SigmoidSums& sums) {
    const int64_t count = band.end_row - band.first_row + (band.shared_row ? 1 : 0);
    read(task.student, band, count, student, sums);
    if (band.kind != GroupKind::unused) {
      memset(static_cast<void*>(gradient), 0, size_t(count * task.width) * sizeof(V));
      if (band.kind == GroupKind::distilled) {
        read(task.teacher, band, count, teacher, sums);
        distil(band, sums);
      } else {
        follow_labels(band, sums);
      }
    }
    if (task.gradient.data) write(band);
  }

  // Planes into lanes, in log2 units.
  CISS_LOOP void read(const LogitsView& view, const SigmoidBand& band, int64_t count, V* out, SigmoidSums& sums) {
    for (int p = 0; p < L; p++) {
      const Plane plane = band.planes[p];
      Real* lane = reinterpret_cast<Real*>(out) + p;
      Real poison = 0;
      for (int64_t i = 0; i < count; i++, lane += task.width * L) {
        if (plane.image < 0) {
          for (int64_t j = 0; j < task.width; j++) lane[j * L] = 0;
          continue;
        }
        read_logits(row, view, plane.image * view.batch_stride + plane.channel * view.class_stride +
                                   (band.first_row + i) * view.row_stride, view.column_stride, task.width, LOG2E);
        for (int64_t j = 0; j < task.width; j++) {
          lane[j * L] = row[j];
          poison += row[j] * Real(0);
        }
      }
      sums.value[p] += double(poison);
    }
  }

  // Calls body(row piece, column piece, first corner) for every cell of the band; `end_of_row` after each row of them.
  template <class Body, class EndOfRow>
  __attribute__((always_inline)) void for_cells(const SigmoidBand& band, const Body& body, const EndOfRow& end_of_row) {
    for (int64_t i = band.first_piece; i < band.first_piece + band.pieces; i++) {
      for (int64_t j = 0; j < columns.count; j++) body(i, j);
      end_of_row();
    }
  }

  // Places of a cell's corners in the arrays of this band.
  struct Places {
    int64_t top_left, top_right, bottom_left, bottom_right;

    __attribute__((always_inline)) Corners<Real> read(const V* z) const {
      return {z[top_left], z[top_right], z[bottom_left], z[bottom_right]};
    }
    // The way back of the interpolation. One after the other: two places may be the same.
    __attribute__((always_inline)) void add(V* out, const Sums<Real>& sums) const {
      const Corners<Real> gradient = on_corners(sums);
      out[top_left] += gradient.top_left;
      out[top_right] += gradient.top_right;
      out[bottom_left] += gradient.bottom_left;
      out[bottom_right] += gradient.bottom_right;
    }
  };
  __attribute__((always_inline)) Places places(const SigmoidBand& band, int64_t i, int64_t j) const {
    const int64_t top = (rows.left[i] - band.first_row) * task.width;
    const int64_t bottom = (rows.right[i] - band.first_row) * task.width;
    return {top + columns.left[j], top + columns.right[j], bottom + columns.left[j], bottom + columns.right[j]};
  }

  // KD. BCE(z, sigmoid(z')) = BCE(-z, sigmoid(-z')): with the signs turned where the student is above 0, both parts
  // of softplus(z) - sigmoid(z') z are positive, and nothing cancels where student and teacher are sure of a class.
  CISS_LOOP void distil(const SigmoidBand& band, SigmoidSums& sums) {
    V value = splat(Real(0));
    for_cells(band, [&](int64_t i, int64_t j) __attribute__((always_inline)) {
      const Piece<Real> y(rows, i), x(columns, j);
      const Places place = places(band, i, j);
      const Corners<Real> z = place.read(student);
      if (largest_lane(span<Real>(z)) > Real(FAR_APART)) {
        const Sums<Real> cell = distil_pixels(z, place.read(teacher), x, y);
        value += cell.value;
        place.add(gradient, cell);
        return;
      }
      const V centre = (z.top_left + z.bottom_right) + (z.top_right + z.bottom_left);
      const M sign = sign_bit(M(centre > Real(0)));
      const auto turn = [&](V z) __attribute__((always_inline)) { return turned(z, sign); };
      const Corners<Real> turned_z = z.map(turn);
      Sums<Real> cell = sum_cell<true>(turned_z, x, y);
      const Sums<Real> target = sum_cell<false>(place.read(teacher).map(turn), x, y);
      value += cell.value - target.times(turned_z);
      cell.subtract(target);
      cell.map(turn);
      place.add(gradient, cell);
    }, [&] { flush(value, sums); });
  }

  // Every pixel with a sign of its own: in a cell with large logits of both signs, one sign for all of it would leave
  // differences of sums that have few digits.
  __attribute__((always_inline)) Sums<Real> distil_pixels(const Corners<Real>& z, const Corners<Real>& z_teacher,
                                                          const Piece<Real>& x, const Piece<Real>& y) {
    const Nodes<Real> along = x.nodes_at(EVERY_PIXEL), across = y.nodes_at(EVERY_PIXEL);
    Sums<Real> sums;
    for (int j = 0; j < across.count; j++) {
      const CellNode<Real> row = across[j];
      const Line<Real> line(z, row.position), teacher_line(z_teacher, row.position);
      V plain{}, moment{}, value{};
      for (int i = 0; i < along.count; i++) {
        const CellNode<Real> node = along[i];
        const V student_z = line.at(node.position);
        const M sign = sign_bit(M(student_z > Real(0)));
        const V turned_z = turned(student_z, sign);
        V sigmoid, softplus, target, unused;
        sigmoid_parts<Real>(turned_z, sigmoid, softplus);
        sigmoid_parts<Real>(turned(teacher_line.at(node.position), sign), target, unused);
        const V f = node.weight * turned(sigmoid - target, sign);
        plain += f;
        moment += node.position * f;
        value += node.weight * (softplus - target * turned_z);
      }
      sums.add(row.weight, row.position, plain, moment, value);
    }
    return sums;
  }

  // mBCE and AC. A positive pixel's loss is w softplus(-z), another's softplus(z).
  CISS_LOOP void follow_labels(const SigmoidBand& band, SigmoidSums& sums) {
    const Real positive_weight = Real(task.positive_weight);
    int64_t surveyed[L];  // number of the plane's first cell; -1: no pixel can be positive
    for (int p = 0; p < L; p++) {
      const Plane plane = band.planes[p];
      const bool can_be_positive = plane.image >= 0 && plane.channel > 0;
      surveyed[p] = can_be_positive ? (plane.image * rows.count + band.first_piece) * columns.count : -1;
    }
    int64_t cell = 0;
    V value = splat(Real(0));
    for_cells(band, [&](int64_t i, int64_t j) __attribute__((always_inline)) {
      const Piece<Real> y(rows, i), x(columns, j);
      const Places place = places(band, i, j);
      int32_t kinds[L], shown = 0;
      for (int p = 0; p < L; p++) {
        kinds[p] = surveyed[p] < 0 ? 0 : task.cells[surveyed[p] + cell];
        shown |= kinds[p];
      }
      const Corners<Real> z = place.read(student);
      Sums<Real> of_cell;
      if (!shown) {
        of_cell = sum_cell<true>(z, x, y);
      } else {
        V factor = splat(Real(1));
        M sign{};
        for (int p = 0; p < L; p++) {
          if (kinds[p] == band.planes[p].channel && kinds[p] != 0) {
            factor[p] = positive_weight;
            sign[p] = -1;
          } else if (kinds[p] == MIXED && shows(surveyed[p] + cell, band.planes[p].channel)) {
            factor[p] = 0;
            mixed_cell(band.planes[p], i, j, place, p, sums);
          }
        }
        sign = sign_bit(sign);
        of_cell = sum_cell<true>(z.map([&](V z) __attribute__((always_inline)) { return turned(z, sign); }), x, y);
        of_cell.value *= factor;
        of_cell.map([&](V f) __attribute__((always_inline)) { return turned(f * factor, sign); });
      }
      value += of_cell.value;
      place.add(gradient, of_cell);
      cell++;
    }, [&] { flush(value, sums); });
  }

  bool shows(int64_t cell, int32_t channel) const {
    return task.present[cell * task.present_words + channel / 64] >> (channel % 64) & 1;
  }

  static void flush(V& value, SigmoidSums& sums) {
    for (int p = 0; p < L; p++) sums.value[p] += double(value[p]);
    value = splat(Real(0));
  }

  // The labels of a cell into `labels`; the planes of an image come one after the other.
  void read_cell_labels(int64_t image, int64_t i, int64_t j) {
    if (labels_of[0] == image && labels_of[1] == i && labels_of[2] == j) return;
    const LabelView& view = task.label;
    for (int r = 0; r < rows.length[i]; r++)
      read_labels(labels + r * LABEL_COLUMNS, view,
                  image * view.batch_stride + (rows.first_pixel[i] + r) * view.row_stride +
                      columns.first_pixel[j] * view.column_stride, columns.length[j]);
    labels_of[0] = image, labels_of[1] = i, labels_of[2] = j;
  }

  // A plane's cell in which some pixels are positive and some are not, pixels as lanes.
  CISS_LOOP void mixed_cell(Plane plane, int64_t i, int64_t j, const Places& place, int lane, SigmoidSums& sums) {
    const Real* const logits = reinterpret_cast<const Real*>(student) + lane;
    const Real top_left = logits[place.top_left * L], top_right = logits[place.top_right * L];
    const Real left_change = logits[place.bottom_left * L] - top_left;
    const Real right_change = logits[place.bottom_right * L] - top_right;
    const Piece<Real> y(rows, i), x(columns, j);
    const Real *row_fraction = y.fraction + y.nodes[EVERY_PIXEL].offset;
    const Real *fraction = x.fraction + x.nodes[EVERY_PIXEL].offset;
    const Real positive_weight = Real(task.positive_weight);
    const int pixels = x.length;
    read_cell_labels(plane.image, i, j);
    Sums<Real> total;
    for (int first = 0; first < pixels; first += L) {
      M inside;
      for (int k = 0; k < L; k++) inside[k] = first + k < pixels ? -1 : 0;
      const V t = x.step == 0 ? splat(fraction[0]) : load(fraction + first);
      const V one = keep(inside, splat(Real(1))), weight = keep(inside, splat(positive_weight));
      for (int r = 0; r < y.length; r++) {
        const int32_t* const label = labels + r * LABEL_COLUMNS + first;
        M positive;
        for (int k = 0; k < L; k++) positive[k] = label[k] == plane.channel ? -1 : 0;
        const Real s = row_fraction[y.step == 0 ? 0 : r];
        const Real left = top_left + s * left_change, change = top_right + s * right_change - left;
        const M sign = sign_bit(positive);
        V sigmoid, softplus;
        sigmoid_parts<Real>(turned(left + t * change, sign), sigmoid, softplus);
        const V factor = select(positive, weight, one);
        const V f = turned(factor * sigmoid, sign);
        total.add(Real(1), s, f, t * f, factor * softplus);
      }
    }
    M this_lane{};
    this_lane[lane] = -1;
    sums.value[lane] += sum_of_lanes(total.value);
    total.map([&](V v) { return keep(this_lane, splat(Real(sum_of_lanes(v)))); });
    place.add(gradient, total);
  }

  // Lanes back into planes, with the weight of their term.
  CISS_LOOP void write(const SigmoidBand& band) {
    const GradientView& view = task.gradient;
    const double pixels = double(task.batch) * double(task.label_height) * double(task.label_width);
    for (int p = 0; p < L; p++) {
      const Plane plane = band.planes[p];
      if (plane.image < 0) continue;
      const Real scale = Real(task.weight[task.term_of(plane.channel)] / pixels);
      Real* out = static_cast<Real*>(view.data) + plane.image * view.batch_stride + plane.channel * view.class_stride +
                  band.first_row * view.row_stride;
      const Real* lane = reinterpret_cast<const Real*>(gradient) + p;
      for (int64_t i = band.first_row; i < band.end_row; i++, out += view.row_stride, lane += task.width * L)
        for (int64_t j = 0; j < task.width; j++)
          out[j * view.column_stride] = band.kind == GroupKind::unused ? Real(0) : lane[j * L] * scale;
      if (!band.shared_row) continue;
      Real* shared = static_cast<Real*>(band.shared_row) + p * task.width;
      for (int64_t j = 0; j < task.width; j++) shared[j] = band.kind == GroupKind::unused ? Real(0) : lane[j * L] * scale;
    }
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
