// The reasoning loss's kernels; compiled once per instruction set (see simd.h).
#include "feature_tile.h"
#include "reasoning_products.h"
#include "scratch.h"
#include "softplus.h"

namespace ciss {
namespace CISS_ISA {

// BCE(z, sigmoid(z')) in units of log 2, and its gradient sigmoid(z) - sigmoid(z'). Changing the sign of both changes
// the gradient's sign only, so z is taken to be negative: all parts of the value are then positive, nothing cancels.
template <class Real>
CISS_INLINE void binary_cross_entropy(VectorOf<Real> z, VectorOf<Real> z_teacher, VectorOf<Real>& value,
                                      VectorOf<Real>& gradient) {
  typedef VectorOf<Real> V;
  typedef MaskOf<Real> M;
  const V x = z * Real(1.4426950408889634), y = z_teacher * Real(1.4426950408889634), one = splat(Real(1));
  const V minus_x = minus_magnitude(x);
  const V e = exp2_of_negative(minus_x), e_teacher = exp2_of_negative(minus_magnitude(y));
  const M sign = (M)x & (M)minus_magnitude(splat(Real(0)));
  const M opposite = ((M)x ^ (M)y) < 0;
  const V student = e * reciprocal(e + one);                                        // sigmoid(-|z|)
  const V target = select(opposite, one, e_teacher) * reciprocal(e_teacher + one);  // sigmoid(z') for z < 0
  value = e * log2_1p_quotient(e) - minus_x * target + (x + y) * Real(0);  // the last part: NaN for infinities
  gradient = (V)((M)(target - student) ^ sign);
}

template <class Real>
struct ReasoningState {
  typedef VectorOf<Real> V;
  static constexpr int L = Simd<Real>::lanes;
  static constexpr int64_t N = TileRow<Real>::pixels;

  const ReasoningTask<Real>& task;
  Scratch scratch;
  const PixelAxes axes, axes_old, gradient_axes;
  Real* features;    // [channels][N]: the student's
  Real* others;      // the teacher's features, then the gradient on the student's
  Real* scores;      // [rows][N]: the student's, then the gradient on them
  Real* scores_old;  // [rows][N]: the teacher's
  Real* room;        // see `read_tile`

  ReasoningState(const ReasoningTask<Real>& t, char* memory, size_t* bytes = nullptr)
      : task(t),
        scratch{memory},
        axes(axes_of(t, t.feature)),
        axes_old(axes_of(t, t.feature_old)),
        gradient_axes(axes_of(t, t.gradient)) {
    const int64_t most_channels = t.channels > t.channels_old ? t.channels : t.channels_old;
    features = scratch.take<Real>(t.channels * N);
    others = scratch.take<Real>(most_channels * N);
    scores = scratch.take<Real>(t.parts.rows * N);
    scores_old = scratch.take<Real>(t.parts.rows * N);
    room = scratch.take<Real>(PIXELS_READ * most_channels);
    if (bytes) *bytes = scratch.used;
  }

  template <class View>
  static PixelAxes axes_of(const ReasoningTask<Real>& t, const View& view) {
    return PixelAxes(t.batch, t.height, t.width, view.batch_stride, view.row_stride, view.column_stride);
  }

  void tile(int64_t first, int64_t count, Real* element_gradients, ReasoningSums& sums) {
    V poison = read_tile(task.feature, axes, task.channels, first, count, features, N, room);
    multiply(task.parts, features, scores);
    poison += read_tile(task.feature_old, axes_old, task.channels_old, first, count, others, N, room);
    multiply(task.parts_old, others, scores_old);
    cross_entropies(count, sums);
    for (int t = 0; t < task.terms; t++) sums.value[t] += sum_of_lanes(poison);
    if (task.gradient.data) {
      multiply(task.columns, scores, others);
      write_tile(task.gradient, gradient_axes, task.channels, first, count, others, N);
    }
    if (element_gradients) add_inner_products(task.parts, scores, features, element_gradients);
  }

  // Of all scores of the tile's first `count` pixels; the gradients take the place of the student's scores.
  CISS_LOOP void cross_entropies(int64_t count, ReasoningSums& sums) {
    for (int64_t r = 0; r < task.parts.rows; r++) {
      const int term = int(r % task.terms);
      Real* const row = scores + r * N;
      V sum = splat(Real(0)), value, gradient;  // of a few vectors: single precision will do
      for (int64_t p = 0; p < N; p += L) {
        binary_cross_entropy<Real>(load(row + p), load(scores_old + r * N + p), value, gradient);
        if (p + L > count)
          for (int64_t lane = p < count ? count - p : 0; lane < L; lane++) value[lane] = 0;
        sum += value;
        store(row + p, gradient * task.coefficient[term]);
      }
      sums.value[term] += 0.69314718055994530942 * sum_of_lanes(sum);
    }
  }
};

template <class Real>
static size_t workspace_bytes(const ReasoningTask<Real>& task) {
  size_t bytes = 0;
  ReasoningState<Real>(task, nullptr, &bytes);
  return bytes;
}

template <class Real>
static void run(const ReasoningTask<Real>& task, int64_t first, int64_t end, void* workspace, Real* element_gradients,
                ReasoningSums& sums) {
  [[maybe_unused]] const FlushDenormals flush;
  ReasoningState<Real> state(task, static_cast<char*>(workspace));
  constexpr int64_t N = TileRow<Real>::pixels;
  for (; first < end; first += N) state.tile(first, end - first < N ? end - first : N, element_gradients, sums);
}

extern const ReasoningKernels reasoning_kernels;
const ReasoningKernels reasoning_kernels = {{TileRow<float>::pixels, workspace_bytes<float>, run<float>},
                                            {TileRow<double>::pixels, workspace_bytes<double>, run<double>}};

}  // namespace CISS_ISA
}  // namespace ciss
