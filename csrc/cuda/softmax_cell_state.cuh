// What a warp has at hand for a cell of enlarged logits: `softmax_cells.cuh` describes what it does with it.
#pragma once

#include "softmax_task.cuh"

namespace ciss {
namespace cuda {

enum Form { GEOMETRIC, EXACT };

struct SoftmaxCells {
  SoftmaxTask task;
  SoftmaxFlags flags;
  SoftmaxLayout layout;
  Cells cells;
  const DeviceCoefficients* coefficients = nullptr;
  const float* table = nullptr;  // [nodes, positions]: logits in log2 units, less the largest of the node
  float* partial = nullptr;      // [cells, CORNERS, student_positions]; null where no gradient is wanted
  float* sums = nullptr;         // [SUM_POISON, cells]
  int32_t* exact = nullptr;      // [cells]: the cell is left to the exact form; null: all are
};

// A sum below this may lack terms that were flushed or dropped: 2^-60, so that a dropped term (below 2^-120) is at most
// 2^-60 of it. See csrc/cpu/softmax_geometric.h, which has the same guard for vectors of lanes.
constexpr float SMALLEST_SUM = 8.67361737988e-19f;
constexpr float LOWEST_CENTRE = -120.f, DROPPED_BELOW = -122.f, LARGEST_GROWTH = 60.f;

template <int RUN, Form FORM>
class SoftmaxCellState {
 public:
  static constexpr int SLOTS = 2 * RUN + 1, ROWS = 8, GROUPS = WARP / ROWS, OWN = (SLOTS + GROUPS - 1) / GROUPS;
  static constexpr int BLOCK = SLOTS * ROWS;  // a number for every slot and row
  static_assert(SECTION_UNIT % (2 * GROUPS) == 0, "two classes a group at a time");

  // Factors of the exponentials, a BLOCK each.
  enum Weights { W_BACKGROUND, W_OLD, W_NEW, W_UNLABELLED, W_REST, W_BACKGROUND_UNLABELLED, W_BACKGROUND_REST, WEIGHTS };

  static size_t shared_bytes(const SoftmaxLayout& layout) {
    const size_t blocks = SECTIONS * GROUPS + WEIGHTS + (FORM == EXACT ? SECTIONS : 0);
    return size_t(layout.positions()) * sizeof(float4) + size_t(layout.student_positions()) * sizeof(float4) +
           blocks * BLOCK * sizeof(float);
  }

 protected:
  const SoftmaxCells& all;
  const int64_t number;
  const Cell cell;
  const int lane, row, group;
  float4* staged;   // [positions]: centre and slope at the top corners, and their changes towards the bottom ones
  float* gradient;  // [student_positions][4]: sum of the gradient and its moment along the row, for top and bottom
  float *parts, *weights, *maxima;
  float sums[SUM_POISON];
  float bottom = 0;  // weight of the bottom corners in the lane's row
  // Of the pixels the lane owns: slots group, group + GROUPS, ...
  int region[OWN], target[OWN];
  float target_weight[OWN];

  CISS_DEVICE SoftmaxCellState(const SoftmaxCells& all, int64_t number, unsigned char* memory)
      : all(all), number(number), cell(cell_of(all.cells, number)), lane(int(threadIdx.x)), row(lane % ROWS),
        group(lane / ROWS) {
    staged = reinterpret_cast<float4*>(memory);
    gradient = reinterpret_cast<float*>(staged + all.layout.positions());
    parts = gradient + 4 * all.layout.student_positions();
    weights = parts + SECTIONS * GROUPS * BLOCK;
    maxima = weights + WEIGHTS * BLOCK;
    CISS_UNROLL
    for (int i = 0; i < SUM_POISON; i++) sums[i] = 0;
  }

  // Centre and slope of a class in the lane's row.
  CISS_DEVICE float2 line(int position) const {
    const float4 t = staged[position];
    return make_float2(t.x + bottom * t.z, t.y + bottom * t.w);
  }
  CISS_DEVICE float logit(int position, int slot) const {
    const float2 z = line(position);
    return z.x + float(slot - RUN) * z.y;
  }
  CISS_DEVICE float part(int section, int of_group, int slot) const {
    return parts[((section * GROUPS + of_group) * SLOTS + slot) * ROWS + row];
  }
};

}  // namespace cuda
}  // namespace ciss
