// Scores, softmax and weighted sums of a block of positions; compiled once per instruction set (see simd.h).
#include "prototypes_task.h"

#include "conversion.h"
#include "prototypes_tile.h"
#include "scratch.h"

namespace ciss {
namespace CISS_ISA {

template <class Real>
struct PrototypesState {
  typedef VectorOf<Real> V;
  static constexpr int L = Simd<Real>::lanes;
  static constexpr int ROWS = TileShape::rows;
  static constexpr int64_t PANEL = TileShape::vectors * L;  // positions
  static constexpr int64_t CHUNK = 16 * ROWS;               // vectors of the memory

  const PrototypesTask& task;
  Scratch scratch;
  const int64_t padded;     // dimension, to whole vectors
  Real* panels;             // [block / PANEL][dimension][PANEL]: previous features, see `pack`
  double* inverse_lengths;  // [block], of the panels' positions
  double* scores;           // [group][block]
  Real* weights;            // [group][block]
  Real* chunk;              // [CHUNK][padded]: converted vectors of the memory
  Real* row;                // [padded]: a vector
  Real* sums;               // [group][padded]

  PrototypesState(const PrototypesTask& t, char* memory, size_t* bytes = nullptr)
      : task(t), scratch{memory}, padded((t.dimension + L - 1) / L * L) {
    panels = scratch.take<Real>(t.block_positions * t.dimension);
    inverse_lengths = scratch.take<double>(t.block_positions);
    scores = scratch.take<double>(t.group_classes * t.block_positions);
    weights = scratch.take<Real>(t.group_classes * t.block_positions);
    chunk = scratch.take<Real>(CHUNK * padded);
    row = scratch.take<Real>(padded);
    sums = scratch.take<Real>(t.group_classes * padded);
    if (bytes) *bytes = scratch.used;
  }

  void read(const VectorsView& view, int64_t offset, Real* out) const {
    read_elements(out, view.data, view.type, offset, view.element_stride, task.dimension, Real(1));
  }

  // What a vector is divided by to get its direction: its length, and as in torch.nn.functional.normalize at least
  // 1e-12. NaN if it is not finite, so that an infinity cannot vanish behind ReLU.
  static double length(const Real* row, int64_t dimension) {
    double parts[8] = {};
    int64_t d = 0;
    for (; d + 8 <= dimension; d += 8)
      for (int i = 0; i < 8; i++) parts[i] += double(row[d + i]) * double(row[d + i]);
    for (; d < dimension; d++) parts[0] += double(row[d]) * double(row[d]);
    double square = 0;
    for (double part : parts) square += part;
    if (!(square <= -Simd<double>::lowest)) return __builtin_nan("");
    return square > 1e-24 ? __builtin_sqrt(square) : 1e-12;
  }

  void memory_inverse_lengths(int64_t c, Real* out) const {
    for (int64_t s = 0; s < task.per_class; s++) {
      read(task.memory, c * task.memory_class_stride + s * task.memory.vector_stride, row);
      out[s] = Real(1 / length(row, task.dimension));
    }
  }

  void block(const PositionBlock& b, int64_t first_class, int64_t classes, PrototypePart* parts, Real* out) {
    [[maybe_unused]] const FlushDenormals flush;
    pack(b);
    const int64_t panel_count = (b.count + PANEL - 1) / PANEL;
    for (int64_t g = 0; g < classes; g++) {
      double* class_scores = scores + g * task.block_positions;
      memset(class_scores, 0, size_t(panel_count * PANEL) * sizeof(double));
      score(first_class + g, panel_count, class_scores);
      parts[g] = softmax(class_scores, b.count, weights + g * task.block_positions);
    }
    weighted_sums(task.feature_prev, b, classes, out);
    weighted_sums(task.feature_curr, b, classes, out + task.dimension);
  }

  // Positions side by side, scaled by a power of two to a length of about 1: the exact length is divided by when the
  // scores are complete. Rounded once for all of a score's terms, it would cost more than their own rounding.
  void pack(const PositionBlock& b) const {
    for (int64_t p = 0; p < b.count; p++) {
      read(task.feature_prev, (b.first + p) * task.feature_prev.vector_stride, row);
      const double exact = length(row, task.dimension);
      int exponent = 0;
      if (exact == exact) __builtin_frexp(exact, &exponent);
      const Real scale = Real(__builtin_ldexp(1.0, exponent < 120 ? -exponent : -120));
      inverse_lengths[p] = 1 / (exact * double(scale));
      for (int64_t d = 0; d < padded; d += L) store(row + d, load(row + d) * scale);
      write_column(p, row);
    }
    memset(row, 0, size_t(padded) * sizeof(Real));
    for (int64_t p = b.count; p % PANEL; p++) write_column(p, row);
  }

  void write_column(int64_t p, const Real* values) const {
    Real* column = panels + p / PANEL * PANEL * task.dimension + p % PANEL;
    for (int64_t d = 0; d < task.dimension; d++) column[d * PANEL] = values[d];
  }

  // Adds the scores of all positions of the block with all vectors of class c to `out`. A chunk of the memory passes
  // by a panel at a time, which stays in the first-level cache.
  void score(int64_t c, int64_t panel_count, double* out) const {
    const Real* inverse = static_cast<const Real*>(task.inverse_lengths) + c * task.per_class;
    for (int64_t first = 0; first < task.per_class; first += CHUNK) {
      const int64_t count = task.per_class - first < CHUNK ? task.per_class - first : CHUNK;
      int64_t stride;
      const Real* vectors = memory_vectors(c, first, count, stride);
      for (int64_t i = 0; i < panel_count; i++) {
        const Real* panel = panels + i * PANEL * task.dimension;
        int64_t s = 0;
        for (; s + ROWS <= count; s += ROWS)
          add_scores<ROWS>(panel, vectors + s * stride, stride, task.dimension, inverse + first + s, out + i * PANEL);
        for (; s + 4 <= count; s += 4)
          add_scores<4>(panel, vectors + s * stride, stride, task.dimension, inverse + first + s, out + i * PANEL);
        for (; s < count; s++)
          add_scores<1>(panel, vectors + s * stride, stride, task.dimension, inverse + first + s, out + i * PANEL);
      }
    }
  }

  // Vectors of class c as Real: where they lie if they are that already, else converted.
  const Real* memory_vectors(int64_t c, int64_t first, int64_t count, int64_t& stride) const {
    const VectorsView& view = task.memory;
    const int64_t offset = c * task.memory_class_stride + first * view.vector_stride;
    const FloatType type = sizeof(Real) == 4 ? FloatType::float32 : FloatType::float64;
    if (view.type == type && view.element_stride == 1) {
      stride = view.vector_stride;
      return static_cast<const Real*>(view.data) + offset;
    }
    for (int64_t s = 0; s < count; s++) read(view, offset + s * view.vector_stride, chunk + s * padded);
    stride = padded;
    return chunk;
  }

  // exp(temperature (score - highest)) of the positions of a block.
  PrototypePart softmax(double* score, int64_t count, Real* weight) const {
    PrototypePart part;
    for (int64_t p = 0; p < count; p++) score[p] *= inverse_lengths[p];
    double highest = score[0], not_finite = 0;
    for (int64_t p = 0; p < count; p++) {
      highest = score[p] > highest ? score[p] : highest;
      not_finite += score[p] * 0;
    }
    const double scale = task.temperature * 1.4426950408889634;  // 1 / ln 2
    for (int64_t p = 0; p < count; p++) weight[p] = Real(scale * (score[p] - highest));
    for (int64_t p = count; p % L; p++) weight[p] = 0;
    for (int64_t p = 0; p < count; p += L) store(weight + p, exp2<Real>(load(weight + p)));
    for (int64_t p = 0; p < count; p++) part.weight += double(weight[p]);
    part.highest = task.temperature * highest + not_finite;
    return part;
  }

  // out: [classes][2][dimension]; this writes one of the two.
  void weighted_sums(const VectorsView& view, const PositionBlock& b, int64_t classes, Real* out) const {
    memset(sums, 0, size_t(classes * padded) * sizeof(Real));
    memset(row, 0, size_t(padded) * sizeof(Real));
    for (int64_t p = 0; p < b.count; p++) {
      read(view, (b.first + p) * view.vector_stride, row);
      for (int64_t g = 0; g < classes; g++) {
        const V weight = splat(weights[g * task.block_positions + p]);
        Real* sum = sums + g * padded;
        for (int64_t d = 0; d < padded; d += L) store(sum + d, load(sum + d) + weight * load(row + d));
      }
    }
    for (int64_t g = 0; g < classes; g++)
      memcpy(out + g * 2 * task.dimension, sums + g * padded, size_t(task.dimension) * sizeof(Real));
  }
};

static int64_t panel_positions(bool double_precision) {
  return double_precision ? PrototypesState<double>::PANEL : PrototypesState<float>::PANEL;
}

static size_t workspace_bytes(const PrototypesTask& task, bool double_precision) {
  size_t bytes = 0;
  if (double_precision)
    PrototypesState<double>(task, nullptr, &bytes);
  else
    PrototypesState<float>(task, nullptr, &bytes);
  return bytes;
}

static void inverse_lengths(const PrototypesTask& task, int64_t c, bool double_precision, void* workspace, void* out) {
  if (double_precision)
    PrototypesState<double>(task, static_cast<char*>(workspace)).memory_inverse_lengths(c, static_cast<double*>(out));
  else
    PrototypesState<float>(task, static_cast<char*>(workspace)).memory_inverse_lengths(c, static_cast<float*>(out));
}

static void block(const PrototypesTask& task, const PositionBlock& b, int64_t first_class, int64_t classes,
                  bool double_precision, void* workspace, PrototypePart* parts, void* sums) {
  if (double_precision)
    PrototypesState<double>(task, static_cast<char*>(workspace))
        .block(b, first_class, classes, parts, static_cast<double*>(sums));
  else
    PrototypesState<float>(task, static_cast<char*>(workspace))
        .block(b, first_class, classes, parts, static_cast<float*>(sums));
}

extern const PrototypesKernels prototypes_kernels;
const PrototypesKernels prototypes_kernels = {panel_positions, workspace_bytes, inverse_lengths, block};

}  // namespace CISS_ISA
}  // namespace ciss
