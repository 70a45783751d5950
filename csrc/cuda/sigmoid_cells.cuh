// The main kernel of sigmoid_loss where logits are enlarged: a warp a cell and group of channels, a lane a channel.
//
// The cell's geometry is the same for all lanes; nothing is shared between channels but the labels.
#pragma once

#include "sigmoid_loss.h"
#include "sigmoid_sums.cuh"

namespace ciss {
namespace cuda {

constexpr float SIGMOID_PADDING = -1e30f;

// Channels in the order of the table, in groups of a warp's lanes that are alike: old classes, then what follows labels
// (the auxiliary channel and the new classes), then the teacher's old classes. Terms that are not asked for have none.
struct SigmoidLayout {
  int classes = 0, first_new = 0;
  int distilled = 0;  // channels 1 ... first_new - 1, or none
  int auxiliary = 0;  // 1: channel 0 is there
  int fresh = 0;      // channels first_new ..., or none

  SigmoidLayout() = default;
  explicit SigmoidLayout(const SigmoidTask& task)
      : classes(int(task.classes)), first_new(int(task.first_new())),
        distilled(task.active(SIGMOID_KD) ? first_new - 1 : 0), auxiliary(task.active(AC)),
        fresh(task.active(MBCE) ? classes - first_new : 0) {}

  CISS_HOST_DEVICE static int whole_warps(int count) { return (count + WARP - 1) / WARP * WARP; }
  CISS_HOST_DEVICE int distilled_positions() const { return whole_warps(distilled); }
  CISS_HOST_DEVICE int student_positions() const { return distilled_positions() + whole_warps(auxiliary + fresh); }
  CISS_HOST_DEVICE int positions() const { return student_positions() + distilled_positions(); }
  CISS_HOST_DEVICE int groups() const { return student_positions() / WARP; }

  // The channel at a position, of the student or (from student_positions on) of the teacher; -1: padding.
  CISS_HOST_DEVICE int channel_at(int position) const {
    if (position >= student_positions()) position -= student_positions();
    if (position < distilled_positions()) return position < distilled ? 1 + position : -1;
    const int i = position - distilled_positions();
    if (i >= auxiliary + fresh) return -1;
    return i < auxiliary ? 0 : first_new + i - auxiliary;
  }
  // Where the student's channel lies; -1: in no term.
  CISS_HOST_DEVICE int64_t operator()(int64_t channel) const {
    if (channel == 0) return auxiliary ? distilled_positions() : -1;
    if (channel < first_new) return distilled ? channel - 1 : -1;
    return fresh ? distilled_positions() + auxiliary + channel - first_new : -1;
  }
};

struct SigmoidCells {
  SigmoidTask task;
  SigmoidLayout layout;
  Cells cells;
  RuleTable row_rules, column_rules;
  const float* table = nullptr;    // [nodes, positions]: logits in log2 units
  float* partial = nullptr;        // [cells, CORNERS, student_positions]; null where no gradient is wanted
  float* sums = nullptr;           // [groups + 1, cells]: of each group without the auxiliary channel; of that
  const int32_t* shown = nullptr;  // [cells]; null where no new class is asked for
};

// A label as the channel of a new class, or 0.
CISS_DEVICE int32_t new_class_of(const SigmoidTask& task, int32_t label) {
  const bool is_new = label >= task.first_new() && label < task.classes && label != int32_t(task.ignore_index);
  return is_new ? label : 0;
}

constexpr int MOST_PIXELS = 2 * LONGEST_RUN + 1;  // of a piece

class SigmoidCell {
 public:
  static constexpr size_t SHARED_BYTES = 2 * MOST_PIXELS * sizeof(CellNode<float>) + MOST_PIXELS * MOST_PIXELS * sizeof(int32_t);

  CISS_DEVICE SigmoidCell(const SigmoidCells& all, int64_t number, int group, unsigned char* memory)
      : all(all), number(number), group(group), lane(int(threadIdx.x)), position(group * WARP + lane),
        channel(all.layout.channel_at(position)), cell(cell_of(all.cells, number)),
        x(cell.column, all.column_rules, reinterpret_cast<CellNode<float>*>(memory)),
        y(cell.row, all.row_rules, reinterpret_cast<CellNode<float>*>(memory) + MOST_PIXELS),
        labels(reinterpret_cast<int32_t*>(memory + 2 * MOST_PIXELS * sizeof(CellNode<float>))) {}

  CISS_DEVICE void run() {
    const bool distilled = position < all.layout.distilled_positions();
    const Sums sums = distilled ? distil() : follow_labels();
    if (all.partial) write(sums);
    const bool is_auxiliary = channel == 0;
    const float value = warp_sum(is_auxiliary || channel < 0 ? 0.f : sums.value);
    const float of_auxiliary = warp_sum(is_auxiliary ? sums.value : 0.f);
    const int64_t cells = all.cells.count();
    if (lane != 0) return;
    all.sums[group * cells + number] = value;
    if (position == all.layout.distilled_positions()) all.sums[all.layout.groups() * cells + number] = of_auxiliary;
  }

 private:
  const SigmoidCells& all;
  const int64_t number;
  const int group, lane, position, channel;
  const Cell cell;
  const CellAxis x, y;
  int32_t* labels;  // [rows][columns] of a mixed cell, as new classes

  CISS_DEVICE Corners corners(int at) const {
    const int positions = all.layout.positions();
    return {all.table[cell.corner[TOP_LEFT] * positions + at], all.table[cell.corner[TOP_RIGHT] * positions + at],
            all.table[cell.corner[BOTTOM_LEFT] * positions + at], all.table[cell.corner[BOTTOM_RIGHT] * positions + at]};
  }

  // KD. BCE(z, sigmoid(z')) = BCE(-z, sigmoid(-z')): with the signs turned where the student is above 0, both parts of
  // softplus(z) - sigmoid(z') z are positive, and nothing cancels where student and teacher are sure of a class.
  CISS_DEVICE Sums distil() {
    const Corners student = corners(position), teacher = corners(position + all.layout.student_positions());
    if (warp_max_of_magnitudes(span(student)) > FAR_APART) return distil_pixels(student, teacher);
    const bool turn = (student.top_left + student.bottom_right) + (student.top_right + student.bottom_left) > 0;
    const auto turn_one = [&](float x) { return turned(x, turn); };
    const Corners z = student.map(turn_one);
    Sums sums = sum_cell<true>(z, x, y);
    const Sums target = sum_cell<false>(teacher.map(turn_one), x, y);
    sums.value -= target.times(z);
    sums.subtract(target);
    sums.map(turn_one);
    return sums;
  }

  // Every pixel with a sign of its own: in a cell with large logits of both signs, one sign for all of it would leave
  // differences of sums that have few digits.
  CISS_DEVICE Sums distil_pixels(const Corners& z, const Corners& teacher) {
    const Nodes columns = x.stage(EVERY_PIXEL), rows = y.stage(EVERY_PIXEL);
    Sums sums;
    for (int j = 0; j < rows.count; j++) {
      const CellNode<float> across = rows[j];
      const Line line(z, across.position), teacher_line(teacher, across.position);
      float plain = 0, moment = 0, value = 0;
      for (int i = 0; i < columns.count; i++) {
        const CellNode<float> along = columns[i];
        const float student_z = line.at(along.position);
        const bool turn = student_z > 0;
        const float z_turned = turned(student_z, turn);
        const SigmoidParts parts(z_turned), target(turned(teacher_line.at(along.position), turn));
        const float f = along.weight * turned(parts.sigmoid - target.sigmoid, turn);
        plain += f;
        moment += along.position * f;
        value += along.weight * (parts.softplus - target.sigmoid * z_turned);
      }
      sums.add(across.weight, across.position, plain, moment, value);
    }
    return sums;
  }

  // mBCE and AC. A positive pixel's loss is w softplus(-z), another's softplus(z).
  CISS_DEVICE Sums follow_labels() {
    const Corners z = corners(position);
    const int32_t shown = all.shown ? all.shown[number] : 0;
    const bool positive = shown > 0 && shown == channel;
    Sums sums = sum_cell<true>(z.map([&](float x) { return turned(x, positive); }), x, y);
    if (positive) {
      const float w = float(all.task.positive_weight);
      sums.map([&](float f) { return -w * f; });
      sums.value *= w;
    }
    if (shown == MIXED) mixed(z, sums);
    return sums;
  }

  // Some pixels of the cell show new classes, and not all the same: the channels of these one after the other, pixels as
  // lanes.
  CISS_DEVICE void mixed(const Corners& z, Sums& sums) {
    const int pixels = x.length * y.length;
    unsigned present = 0;  // lanes whose channels are shown
    for (int p = lane; p < pixels; p += WARP) {
      const int32_t label = new_class_of(all.task, read_label(all.task.label, cell.image, cell.row.first + p / x.length,
                                                              cell.column.first + p % x.length));
      labels[p] = label;
      const int64_t its_lane = label > 0 ? all.layout(label) - group * WARP : -1;
      if (its_lane >= 0 && its_lane < WARP) present |= 1u << its_lane;
    }
    present = __reduce_or_sync(ALL_LANES, present);
    __syncwarp();
    for (; present; present &= present - 1) {
      const int its_lane = __ffs(present) - 1;
      const Corners its = {
          __shfl_sync(ALL_LANES, z.top_left, its_lane), __shfl_sync(ALL_LANES, z.top_right, its_lane),
          __shfl_sync(ALL_LANES, z.bottom_left, its_lane), __shfl_sync(ALL_LANES, z.bottom_right, its_lane)};
      Sums all_pixels = pixels_of(its, __shfl_sync(ALL_LANES, channel, its_lane));
      all_pixels.map([](float x) { return warp_sum(x); });
      all_pixels.value = warp_sum(all_pixels.value);
      if (lane == its_lane) sums = all_pixels;
    }
  }

  // The lane's part of a channel's pixels.
  CISS_DEVICE Sums pixels_of(const Corners& z, int its_channel) const {
    Sums sums;
    for (int p = lane; p < x.length * y.length; p += WARP) {
      const float s = cell.row.start + float(p / x.length) * y.step, t = x.start + float(p % x.length) * x.step;
      const bool positive = labels[p] == its_channel;
      const SigmoidParts parts(turned(Line(z, s).at(t), positive));
      const float weight = positive ? float(all.task.positive_weight) : 1.f;
      const float f = turned(weight * parts.sigmoid, positive);
      sums.add(1.f, s, f, t * f, weight * parts.softplus);
    }
    return sums;
  }

  CISS_DEVICE void write(const Sums& sums) const {
    if (channel < 0) return;
    const int positions = all.layout.student_positions();
    const float scale = float(all.task.weight[all.task.term_of(channel)] / all.task.pixels());
    float* const out = all.partial + number * CORNERS * positions + position;
    const Corners on = on_corners(sums);
    out[TOP_LEFT * positions] = scale * on.top_left;
    out[TOP_RIGHT * positions] = scale * on.top_right;
    out[BOTTOM_LEFT * positions] = scale * on.bottom_left;
    out[BOTTOM_RIGHT * positions] = scale * on.bottom_right;
  }
};

// Blocks: x: cells; y: groups.
CISS_KERNEL __launch_bounds__(WARP) sigmoid_cells_kernel(CISS_CONSTANT SigmoidCells all) {
  CISS_SHARED_MEMORY(memory);
  SigmoidCell(all, blockIdx.x, int(blockIdx.y), memory).run();
}

// Fills `shown`. A block a cell.
CISS_KERNEL __launch_bounds__(WARP) sigmoid_survey_kernel(SigmoidTask task, Cells cells, int32_t* shown) {
  const Cell cell = cell_of(cells, blockIdx.x);
  const int lane = int(threadIdx.x), width = cell.column.length, pixels = cell.row.length * width;
  int32_t first = 0;
  bool differs = false;
  for (int p = lane; p < pixels; p += WARP) {
    const int32_t label = new_class_of(task, read_label(task.label, cell.image, cell.row.first + p / width,
                                                        cell.column.first + p % width));
    if (p == lane) first = label;
    differs |= label != first;
  }
  const int32_t of_lane_0 = __shfl_sync(ALL_LANES, first, 0);
  differs |= lane < pixels && first != of_lane_0;
  differs = __any_sync(ALL_LANES, differs);
  if (lane == 0) shown[blockIdx.x] = differs ? MIXED : of_lane_0;
}

// The table, and whether all logits are finite. Blocks: x: images x rows x tiles of TILE columns; y: 0: the student, 1: the
// teacher.
constexpr int SIGMOID_TILE = 32, SIGMOID_TILE_WARPS = 8;

CISS_KERNEL sigmoid_table_kernel(SigmoidTask task, SigmoidLayout layout, float* table, int32_t* not_finite) {
  CISS_SHARED_MEMORY(memory);
  float* const tile = reinterpret_cast<float*>(memory);  // [SIGMOID_TILE][SIGMOID_TILE + 1]
  const bool of_teacher = blockIdx.y == 1;
  const LogitsView& view = of_teacher ? task.teacher : task.student;
  const int64_t tiles = (task.width + SIGMOID_TILE - 1) / SIGMOID_TILE;
  const int64_t first = int64_t(blockIdx.x) % tiles * SIGMOID_TILE, line = int64_t(blockIdx.x) / tiles;
  const int64_t image = line / task.height, i = line % task.height;
  const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP;
  const int64_t j = first + lane;
  bool finite = true;
  for (int64_t c = of_teacher + warp; c < (of_teacher ? layout.first_new : layout.classes); c += SIGMOID_TILE_WARPS)
    if (j < task.width) {
      const float z = read_logit(view, image, c, i, j);
      finite &= z - z == 0;
    }
  if (!finite) *not_finite = 1;
  const int begin = of_teacher ? layout.student_positions() : 0;
  const int end = of_teacher ? layout.positions() : layout.student_positions();
  for (int base = begin; base < end; base += SIGMOID_TILE) {
    for (int k = warp; k < SIGMOID_TILE; k += SIGMOID_TILE_WARPS) {
      const int channel = layout.channel_at(base + k);
      float z = SIGMOID_PADDING;
      if (channel >= 0 && j < task.width) z = read_logit(view, image, channel, i, j) * 1.44269504f;
      tile[k * (SIGMOID_TILE + 1) + lane] = z;
    }
    __syncthreads();
    for (int k = warp; k < SIGMOID_TILE; k += SIGMOID_TILE_WARPS)
      if (first + k < task.width)
        table[(line * task.width + first + k) * layout.positions() + base + lane] =
            tile[lane * (SIGMOID_TILE + 1) + k];
    __syncthreads();
  }
}

}  // namespace cuda
}  // namespace ciss
