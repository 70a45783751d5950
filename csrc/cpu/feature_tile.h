// Pixels of a map of features as a tile [channels][pixels], whatever the map's layout and type; compiled once per
// instruction set (see simd.h).
#pragma once

#include "conversion.h"

namespace ciss {
namespace CISS_ISA {

// out[j * out_stride + i] = in[i * in_stride + j] for i, j < SQUARE<Real>: as many vectors as a vector has lanes.
template <class Real>
constexpr int SQUARE = 4;
#if CISS_VECTOR_BYTES == 64 && defined(__AVX512F__)
template <>
constexpr int SQUARE<float> = 16;
CISS_INLINE void transpose_square(const float* in, int64_t in_stride, float* out, int64_t out_stride) {
  for (int c = 0; c < 16; c += 4) {  // four columns
    __m512 r[4], t[4];
    for (int i = 0; i < 4; i++) {  // quarter q: row 4 q + i
      r[i] = _mm512_castps128_ps512(_mm_loadu_ps(in + i * in_stride + c));
      r[i] = _mm512_insertf32x4(r[i], _mm_loadu_ps(in + (i + 4) * in_stride + c), 1);
      r[i] = _mm512_insertf32x4(r[i], _mm_loadu_ps(in + (i + 8) * in_stride + c), 2);
      r[i] = _mm512_insertf32x4(r[i], _mm_loadu_ps(in + (i + 12) * in_stride + c), 3);
    }
    for (int i = 0; i < 4; i += 2) {
      t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
      t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    _mm512_storeu_ps(out + c * out_stride, _mm512_shuffle_ps(t[0], t[2], 0x44));
    _mm512_storeu_ps(out + (c + 1) * out_stride, _mm512_shuffle_ps(t[0], t[2], 0xee));
    _mm512_storeu_ps(out + (c + 2) * out_stride, _mm512_shuffle_ps(t[1], t[3], 0x44));
    _mm512_storeu_ps(out + (c + 3) * out_stride, _mm512_shuffle_ps(t[1], t[3], 0xee));
  }
}
#elif CISS_VECTOR_BYTES == 32 && defined(__AVX2__)
template <>
constexpr int SQUARE<float> = 8;
CISS_INLINE void transpose_square(const float* in, int64_t in_stride, float* out, int64_t out_stride) {
  __m256 r[8], t[8];
  for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(in + i * in_stride);
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {  // half h of r[i + c]: four rows of column 4 h + c
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int c = 0; c < 4; c++) {
    _mm256_storeu_ps(out + c * out_stride, _mm256_permute2f128_ps(r[c], r[c + 4], 0x20));
    _mm256_storeu_ps(out + (c + 4) * out_stride, _mm256_permute2f128_ps(r[c], r[c + 4], 0x31));
  }
}
#elif defined(__SSE2__)
CISS_INLINE void transpose_square(const float* in, int64_t in_stride, float* out, int64_t out_stride) {
  __m128 r[4];
  for (int i = 0; i < 4; i++) r[i] = _mm_loadu_ps(in + i * in_stride);
  _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
  for (int i = 0; i < 4; i++) _mm_storeu_ps(out + i * out_stride, r[i]);
}
#endif
template <class Real>
CISS_INLINE void transpose_square(const Real* in, int64_t in_stride, Real* out, int64_t out_stride) {
  for (int i = 0; i < SQUARE<Real>; i++)
    for (int j = 0; j < SQUARE<Real>; j++) out[j * out_stride + i] = in[i * in_stride + j];
}

// out[j * out_stride + i] = in[i * in_stride + j] for i < rows, j < columns.
template <class Real>
CISS_LOOP void transpose(const Real* in, int64_t in_stride, int64_t rows, int64_t columns, Real* out,
                         int64_t out_stride) {
  constexpr int64_t S = SQUARE<Real>;
  const int64_t whole_rows = rows / S * S, whole_columns = columns / S * S;
  for (int64_t i = 0; i < whole_rows; i += S)
    for (int64_t j = 0; j < whole_columns; j += S)
      transpose_square(in + i * in_stride + j, in_stride, out + j * out_stride + i, out_stride);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; j++)
      out[j * out_stride + i] = in[i * in_stride + j];
}

// The pixels of a batch of maps, numbered through; axes that follow one another in memory are one.
struct PixelAxes {
  int count = 1;
  int64_t size[3] = {1}, stride[3] = {0};  // innermost first

  PixelAxes(int64_t batch, int64_t height, int64_t width, int64_t batch_stride, int64_t row_stride,
            int64_t column_stride) {
    add(width, column_stride);
    add(height, row_stride);
    add(batch, batch_stride);
  }
  void add(int64_t n, int64_t s) {
    int64_t& last_size = size[count - 1];
    int64_t& last_stride = stride[count - 1];
    if (n == 1) return;
    if (last_size == 1) {
      last_size = n;
      last_stride = s;
    } else if (s == last_size * last_stride) {
      last_size *= n;
    } else {
      size[count] = n;
      stride[count++] = s;
    }
  }
  // Calls run(offset, length, position) for runs of pixels `stride[0]` apart that make up [first, first + pixels).
  template <class Run>
  void for_runs(int64_t first, int64_t pixels, const Run& run) const {
    for (int64_t done = 0; done < pixels;) {
      int64_t rest = first + done, offset = 0;
      for (int k = 0; k < count; k++) {
        offset += rest % size[k] * stride[k];
        rest /= size[k];
      }
      const int64_t left = size[0] - (first + done) % size[0], length = left < pixels - done ? left : pixels - done;
      run(offset, length, done);
      done += length;
    }
  }
};

CISS_INLINE void prefetch(const char* begin, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(begin + i);
}

// Pixels whose features are read, and converted, before they are transposed.
constexpr int64_t PIXELS_READ = 16;

// 0, or NaN lanes if a number is NaN or infinite.
template <class Real>
CISS_INLINE VectorOf<Real> poison_of(const Real* numbers, int64_t count) {
  constexpr int L = Simd<Real>::lanes;
  VectorOf<Real> poison = splat(Real(0));
  int64_t i = 0;
  for (; i + L <= count; i += L) poison += load(numbers + i) * Real(0);
  for (; i < count; i++) poison[0] += numbers[i] * Real(0);
  return poison;
}

// Reads `count` pixels from `first` on into tile [channels][tile_pixels], 0 beyond them. `room`: [PIXELS_READ]
// [channels]. Returns NaN lanes if a feature is NaN or infinite, else 0.
template <class Real>
VectorOf<Real> read_tile(const LogitsView& view, const PixelAxes& axes, int64_t channels, int64_t first, int64_t count,
                         Real* tile, int64_t tile_pixels, Real* room) {
  VectorOf<Real> poison = splat(Real(0));
  axes.for_runs(first, count, [&](int64_t offset, int64_t length, int64_t position) {
    if (view.class_stride != 1 || axes.stride[0] == 1) {
      for (int64_t d = 0; d < channels; d++) {
        Real* row = tile + d * tile_pixels + position;
        read_logits(row, view, offset + d * view.class_stride, axes.stride[0], length, Real(1));
        poison += poison_of(row, length);
      }
      return;
    }
    // Channels last. First pixel by pixel in the order of memory, as the processor expects it.
    for (int64_t begin = 0; begin < length; begin += PIXELS_READ) {
      const int64_t pixels = length - begin < PIXELS_READ ? length - begin : PIXELS_READ;
      for (int64_t p = 0; p < pixels; p++)
        read_logits(room + p * channels, view, offset + (begin + p) * axes.stride[0], 1, channels, Real(1));
      poison += poison_of(room, pixels * channels);
      transpose(room, channels, pixels, channels, tile + position + begin, tile_pixels);
    }
  });
  for (int64_t d = 0; count < tile_pixels && d < channels; d++)
    memset(tile + d * tile_pixels + count, 0, size_t(tile_pixels - count) * sizeof(Real));
  return poison;
}

// Writes the first `count` pixels of a tile to a map.
template <class Real>
void write_tile(const GradientView& view, const PixelAxes& axes, int64_t channels, int64_t first, int64_t count,
                const Real* tile, int64_t tile_pixels) {
  axes.for_runs(first, count, [&](int64_t offset, int64_t length, int64_t position) {
    Real* out = static_cast<Real*>(view.data) + offset;
    if (view.class_stride == 1 && axes.stride[0] != 1)
      return transpose(tile + position, tile_pixels, channels, length, out, axes.stride[0]);
    for (int64_t d = 0; d < channels; d++) {
      const Real* row = tile + d * tile_pixels + position;
      Real* target = out + d * view.class_stride;
      if (axes.stride[0] == 1)
        memcpy(target, row, size_t(length) * sizeof(Real));
      else
        for (int64_t p = 0; p < length; p++) target[p * axes.stride[0]] = row[p];
    }
  });
}

}  // namespace CISS_ISA
}  // namespace ciss
