// Before the main kernels of softmax_loss: regions are counted, coefficients follow, logits go into a table.
#pragma once

#include "softmax_task.cuh"

namespace ciss {
namespace cuda {

enum { COUNT_INVALID = REGION_COUNT, COUNTS };
constexpr int COUNT_THREADS = 128, COEFFICIENT_THREADS = 256;

// counts [rows of labels, COUNTS]; a block a row.
CISS_KERNEL softmax_count_kernel(SoftmaxTask task, int32_t* counts) {
  CISS_SHARED_MEMORY(memory);
  int* const scratch = reinterpret_cast<int*>(memory);
  const int64_t line = blockIdx.x, image = line / task.label_height, y = line % task.label_height;
  int count[COUNTS] = {};
  for (int64_t x = threadIdx.x; x < task.label_width; x += blockDim.x) {
    const int32_t label = read_label(task.label, image, y, x);
    const int region = region_of(task, label);
    CISS_UNROLL
    for (int r = 0; r < REGION_COUNT; r++) count[r] += region == r;
    count[COUNT_INVALID] += region == 3 && label != int32_t(task.settings.ignore_index);
  }
  CISS_UNROLL
  for (int i = 0; i < COUNTS; i++) {
    const int sum = block_sum(count[i], scratch);
    if (threadIdx.x == 0) counts[line * COUNTS + i] = sum;
  }
}

// pixels [COUNTS]: of each region, and of those ignored the ones whose label is wrong.
CISS_KERNEL softmax_coefficients_kernel(SoftmaxTask task, const int32_t* counts, int64_t lines, int64_t* pixels,
                                        DeviceCoefficients* out) {
  CISS_SHARED_MEMORY(memory);
  int64_t* const scratch = reinterpret_cast<int64_t*>(memory);
  int64_t total[COUNTS];
  CISS_UNROLL
  for (int i = 0; i < COUNTS; i++) {
    int64_t sum = 0;
    for (int64_t line = threadIdx.x; line < lines; line += blockDim.x) sum += counts[line * COUNTS + i];
    total[i] = block_sum(sum, scratch);
  }
  if (threadIdx.x != 0) return;
  for (int i = 0; i < COUNTS; i++) pixels[i] = total[i];
  double divisor[TERM_COUNT];
  term_divisors(task.settings, total, divisor);
  const SoftmaxCoefficients c = coefficients(task.settings, divisor, task.old_classes);
  for (int r = 0; r < REGION_COUNT; r++) {
    out->log_all[r] = float(c.log_all[r]);
    out->log_old[r] = float(c.log_old[r]);
    out->linear[r] = float(c.linear[r]);
    out->linear_background[r] = float(c.linear_background[r]);
  }
  out->log_background_new = float(c.log_background_new);
  out->focal = float(c.focal);
  out->label_old = float(c.label_old);
  out->label_new = float(c.label_new);
  for (int t = 0; t < TERM_COUNT; t++) out->divisor[t] = divisor[t];
}

// --- The table of logits [nodes, positions], in log2 units. Student and teacher are shifted by their largest logit of the
// node: bilinear mixing keeps the shifted logits at or below 0 everywhere, and the shift cancels in every term.
constexpr int TABLE_TILE = 32, TABLE_WARPS = 8;

struct SoftmaxTable {
  SoftmaxTask task;
  SoftmaxLayout layout;
  float* table = nullptr;
  int32_t* not_finite = nullptr;  // set to 1 where a logit is not finite; 0 before

  // The channel at a position; -1: padding.
  CISS_DEVICE int channel_at(int position) const {
    for (int section = 0; section < SECTIONS; section++) {
      if (position >= layout.begin[section + 1]) continue;
      const int i = position - layout.begin[section], old = layout.old_classes - layout.background;
      if (section == BACKGROUND || section == TEACHER_BACKGROUND) return i == 0 ? 0 : -1;
      if (section == NEW_CLASSES) return i < layout.classes - layout.old_classes ? layout.old_classes + i : -1;
      return i < old ? layout.background + i : -1;
    }
    return -1;
  }
};

// Blocks: images x rows x tiles of TABLE_TILE columns.
CISS_KERNEL softmax_table_kernel(CISS_CONSTANT SoftmaxTable all) {
  CISS_SHARED_MEMORY(memory);
  float* const tile = reinterpret_cast<float*>(memory);         // [TABLE_TILE][TABLE_TILE + 1]
  float* const largest = tile + TABLE_TILE * (TABLE_TILE + 1);  // [2][TABLE_WARPS][TABLE_TILE]
  const SoftmaxTask& task = all.task;
  const int64_t tiles = (task.width + TABLE_TILE - 1) / TABLE_TILE;
  const int64_t first = int64_t(blockIdx.x) % tiles * TABLE_TILE, line = int64_t(blockIdx.x) / tiles;
  const int64_t image = line / task.height, i = line % task.height;
  const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP;
  const float log2e = 1.44269504f, scale[2] = {log2e, log2e * float(task.settings.alpha)};
  const int64_t j = first + lane;
  bool finite = true;
  for (int who = 0; who < 2; who++) {
    const LogitsView& view = who ? task.teacher : task.student;
    const int64_t channels = !view.data ? 0 : who ? task.old_classes : task.classes;
    float max = -3.4e38f;
    for (int64_t c = warp; c < channels && j < task.width; c += TABLE_WARPS) {
      const float z = read_logit(view, image, c, i, j);
      finite &= z - z == 0;
      max = fmaxf(max, z * scale[who]);
    }
    largest[(who * TABLE_WARPS + warp) * TABLE_TILE + lane] = max;
  }
  if (!finite) *all.not_finite = 1;
  __syncthreads();
  float max[2];
  CISS_UNROLL
  for (int who = 0; who < 2; who++) {
    max[who] = largest[who * TABLE_WARPS * TABLE_TILE + lane];
    for (int w = 1; w < TABLE_WARPS; w++)
      max[who] = fmaxf(max[who], largest[(who * TABLE_WARPS + w) * TABLE_TILE + lane]);
  }
  const int positions = all.layout.positions(), of_student = all.layout.student_positions();
  for (int base = 0; base < positions; base += TABLE_TILE) {
    for (int k = warp; k < TABLE_TILE; k += TABLE_WARPS) {
      const int position = base + k, who = position >= of_student;
      const int channel = position < positions ? all.channel_at(position) : -1;
      float z = PADDING;
      if (channel >= 0 && j < task.width)
        z = read_logit(who ? task.teacher : task.student, image, channel, i, j) * (who ? scale[1] : scale[0]) -
            (who ? max[1] : max[0]);
      tile[k * (TABLE_TILE + 1) + lane] = z;
    }
    __syncthreads();
    for (int k = warp; k < TABLE_TILE; k += TABLE_WARPS)
      if (first + k < task.width && base + lane < positions)
        all.table[(line * task.width + first + k) * positions + base + lane] = tile[lane * (TABLE_TILE + 1) + k];
    __syncthreads();
  }
}

constexpr size_t TABLE_SHARED_BYTES =
    (TABLE_TILE * (TABLE_TILE + 1) + 2 * TABLE_WARPS * TABLE_TILE) * sizeof(float);

// --- After them: values of the terms and the total. chunks: [SUM_POISON, SUM_CHUNKS].
CISS_KERNEL softmax_finish_kernel(SoftmaxTask task, const double* chunks, const DeviceCoefficients* coefficients,
                                  const int32_t* not_finite, float* total, float* values) {
  CISS_SHARED_MEMORY(memory);
  double* const sums = reinterpret_cast<double*>(memory);  // [SUM_COUNT]
  if (threadIdx.x < SUM_POISON) sums[threadIdx.x] = chunks ? sum_of_chunks(chunks, int(threadIdx.x)) : 0;
  if (threadIdx.x == SUM_POISON) sums[SUM_POISON] = *not_finite ? double(__uint_as_float(0x7fc00000u)) : 0;
  __syncthreads();
  if (threadIdx.x != 0) return;
  double value[TERM_COUNT], sum = sums[SUM_POISON];
  term_values(task.settings, sums, coefficients->divisor, task.old_classes, value);
  for (int t = 0; t < TERM_COUNT; t++) {
    values[t] = float(value[t]);
    if (task.settings.active(Term(t))) sum += task.settings.weight[t] * value[t];
  }
  *total = float(sum);
}

}  // namespace cuda
}  // namespace ciss
