// What the two loss ops share around their main kernels: cells, the table of logits they read, the gradient's last step,
// sums in a fixed order.
//
// A cell is a piece of rows times a piece of columns: its pixels lie between the same four logit vectors, its corners.
#pragma once

#include "core/host_device.h"
#include "elements.cuh"
#include "geometry.h"

namespace ciss {
namespace cuda {

enum Corner { TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT, CORNERS };

struct Cells {
  AxisTable rows, columns;
  int64_t batch = 0;

  CISS_HOST_DEVICE int64_t count() const { return batch * rows.pieces * columns.pieces; }
};

// Cell `number`: image, then row piece, then column piece.
struct Cell {
  int64_t image = 0;
  Piece row, column;
  int64_t corner[CORNERS];  // numbers of its nodes: (image * height + i) * width + j
};

CISS_DEVICE Cell cell_of(const Cells& cells, int64_t number) {
  Cell cell;
  const int64_t j = number % cells.columns.pieces, rest = number / cells.columns.pieces;
  cell.image = rest / cells.rows.pieces;
  cell.row = cells.rows.piece[rest % cells.rows.pieces];
  cell.column = cells.columns.piece[j];
  const int64_t width = cells.columns.source, first = cell.image * cells.rows.source;
  const int64_t top = (first + cell.row.left) * width, bottom = (first + cell.row.right) * width;
  cell.corner[TOP_LEFT] = top + cell.column.left;
  cell.corner[TOP_RIGHT] = top + cell.column.right;
  cell.corner[BOTTOM_LEFT] = bottom + cell.column.left;
  cell.corner[BOTTOM_RIGHT] = bottom + cell.column.right;
  return cell;
}

// --- The last step of the gradient. Cells leave [cells, CORNERS, positions]; a logit's gradient is the sum over the
// cells around it, rows before columns. `position(channel)` is where a channel lies, or -1: its gradient is 0.
constexpr int GATHER_TILE = 32, GATHER_ROWS = 8;

// Blocks: x: images x rows x tiles of columns; y: tiles of channels.
template <class Position>
CISS_KERNEL gather_kernel(Cells cells, const float* partial, int64_t positions, Position position, int64_t channels,
                          const int32_t* not_finite, GradientView gradient) {
  CISS_SHARED_MEMORY(memory);
  float* const tile = reinterpret_cast<float*>(memory);  // [columns][GATHER_TILE + 1]
  const int64_t height = cells.rows.source, width = cells.columns.source;
  const int64_t tiles = (width + GATHER_TILE - 1) / GATHER_TILE;
  const int64_t first_column = int64_t(blockIdx.x) % tiles * GATHER_TILE, line = int64_t(blockIdx.x) / tiles;
  const int64_t image = line / height, i = line % height, first_channel = int64_t(blockIdx.y) * GATHER_TILE;
  const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP;
  const Readers rows = cells.rows.readers[i];
  const int64_t channel = first_channel + lane;
  const int64_t place = channel < channels ? position(channel) : -1;
  for (int k = warp; k < GATHER_TILE; k += GATHER_ROWS) {
    const int64_t j = first_column + k;
    float sum = 0;
    if (j < width && place >= 0) {
      const Readers columns = cells.columns.readers[j];
      for (int bottom = 1; bottom >= 0; bottom--)
        for (int p = bottom ? rows.first_right : rows.first_left; p < (bottom ? rows.end_right : rows.end_left); p++)
          for (int right = 1; right >= 0; right--)
            for (int q = right ? columns.first_right : columns.first_left;
                 q < (right ? columns.end_right : columns.end_left); q++) {
              const int64_t cell = (image * cells.rows.pieces + p) * cells.columns.pieces + q;
              sum += partial[(cell * CORNERS + 2 * bottom + right) * positions + place];
            }
    }
    tile[k * (GATHER_TILE + 1) + lane] = sum;
  }
  __syncthreads();
  // A loss scaler looks for NaN in the gradient: with a NaN or infinity among the logits all of it is NaN.
  const float poison = *not_finite ? __uint_as_float(0x7fc00000u) : 0;
  float* const out = static_cast<float*>(gradient.data) + image * gradient.batch_stride + i * gradient.row_stride;
  for (int k = warp; k < GATHER_TILE; k += GATHER_ROWS) {
    const int64_t c = first_channel + k, j = first_column + lane;
    if (c < channels && j < width)
      out[c * gradient.class_stride + j * gradient.column_stride] = tile[lane * (GATHER_TILE + 1) + k] + poison;
  }
}

template <class Position>
void gather(const Cells& cells, const float* partial, int64_t positions, const Position& position, int64_t channels,
            const int32_t* not_finite, const GradientView& gradient, Stream stream) {
  const int64_t tiles = (cells.columns.source + GATHER_TILE - 1) / GATHER_TILE;
  launch("gather", gather_kernel<Position>,
         {cells.batch * cells.rows.source * tiles, (channels + GATHER_TILE - 1) / GATHER_TILE}, WARP * GATHER_ROWS,
         GATHER_TILE * (GATHER_TILE + 1) * sizeof(float), stream, cells, partial, positions, position, channels,
         not_finite, gradient);
}

// Where a logit is not finite the whole gradient becomes NaN: a loss scaler looks for it. Blocks: runs of elements.
CISS_KERNEL poison_kernel(GradientView g, int64_t classes, int64_t height, int64_t width, int64_t count,
                          const int32_t* not_finite) {
  if (!*not_finite) return;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t x = i % width, y = i / width % height, c = i / width / height % classes;
    const int64_t b = i / width / height / classes;
    static_cast<float*>(g.data)[b * g.batch_stride + c * g.class_stride + y * g.row_stride + x * g.column_stride] =
        __uint_as_float(0x7fc00000u);
  }
}

inline void poison(const GradientView& g, int64_t batch, int64_t classes, int64_t height, int64_t width,
                   const int32_t* not_finite, Stream stream) {
  const int64_t count = batch * classes * height * width, blocks = (count + 255) / 256;
  launch("poison", poison_kernel, {blocks < 4096 ? blocks : 4096, 1}, 256, 0, stream, g, classes, height, width, count,
         not_finite);
}

// --- Sums over the cells: of each of `sums` rows of `count` numbers, first of SUM_CHUNKS runs of them.
constexpr int SUM_CHUNKS = 32, SUM_THREADS = 256;

CISS_KERNEL add_chunks_kernel(const float* rows, int64_t count, double* chunks) {
  CISS_SHARED_MEMORY(memory);
  const int64_t size = (count + SUM_CHUNKS - 1) / SUM_CHUNKS, first = int64_t(blockIdx.x) * size;
  const int64_t end = first + size < count ? first + size : count;
  const float* const row = rows + int64_t(blockIdx.y) * count;
  double sum = 0;
  for (int64_t i = first + threadIdx.x; i < end; i += blockDim.x) sum += double(row[i]);
  sum = block_sum(sum, reinterpret_cast<double*>(memory));
  if (threadIdx.x == 0) chunks[int64_t(blockIdx.y) * SUM_CHUNKS + blockIdx.x] = sum;
}

// By a block of all its threads' `sums`: one number of each row. scratch: a float for each warp.
template <int COUNT>
CISS_DEVICE void write_block_sums(const float (&sums)[COUNT], unsigned char* scratch, float* rows, int64_t count) {
  CISS_UNROLL
  for (int i = 0; i < COUNT; i++) {
    const float sum = block_sum(sums[i], reinterpret_cast<float*>(scratch));
    if (threadIdx.x == 0) rows[i * count + blockIdx.x] = sum;
  }
}

// chunks: [sums, SUM_CHUNKS].
inline void add_chunks(const float* rows, int64_t sums, int64_t count, double* chunks, Stream stream) {
  launch("add_chunks", add_chunks_kernel, {SUM_CHUNKS, sums}, SUM_THREADS, SUM_THREADS / WARP * sizeof(double), stream,
         rows, count, chunks);
}

CISS_DEVICE double sum_of_chunks(const double* chunks, int row) {
  double sum = 0;
  for (int i = 0; i < SUM_CHUNKS; i++) sum += chunks[row * SUM_CHUNKS + i];
  return sum;
}

}  // namespace cuda
}  // namespace ciss
