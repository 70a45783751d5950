// Cross-entropy of scores against a teacher's; compiled once per instruction set (see simd.h).
#include "reasoning_task.h"
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
  const V student = e * reciprocal(e + one);                                                 // sigmoid(-|z|)
  const V target = select(opposite, one, e_teacher) * reciprocal(e_teacher + one);
  value = e * log2_1p_quotient(e) - minus_x * target + (x + y) * Real(0);  // the last part: NaN for infinities
  gradient = (V)((M)(target - student) ^ sign);
}

template <class Real>
static double cross_entropy_of(const ScoreRange& range) {
  typedef VectorOf<Real> V;
  constexpr int L = Simd<Real>::lanes;
  constexpr int64_t BLOCK = 64 * L;  // sums per lane are single precision: not too many at a time
  [[maybe_unused]] const FlushDenormals flush;
  Real* const student = static_cast<Real*>(range.student);
  const Real* const teacher = static_cast<const Real*>(range.teacher);
  const Real coefficient = Real(range.coefficient);
  const int64_t whole = range.count / L * L;
  double sum = 0;
  V value, gradient;
  for (int64_t first = 0; first < whole; first += BLOCK) {
    const int64_t end = first + BLOCK < whole ? first + BLOCK : whole;
    V block = splat(Real(0));
    for (int64_t i = first; i < end; i += L) {
      binary_cross_entropy<Real>(load(student + i), load(teacher + i), value, gradient);
      block += value;
      if (range.need_gradient) store(student + i, gradient * coefficient);
    }
    sum += sum_of_lanes(block);
  }
  if (const int64_t rest = range.count - whole) {
    Real z[L] = {}, z_teacher[L] = {};
    memcpy(z, student + whole, size_t(rest) * sizeof(Real));
    memcpy(z_teacher, teacher + whole, size_t(rest) * sizeof(Real));
    binary_cross_entropy<Real>(load(z), load(z_teacher), value, gradient);
    for (int64_t i = 0; i < rest; i++) sum += double(value[i]);
    gradient *= coefficient;
    if (range.need_gradient) memcpy(student + whole, &gradient, size_t(rest) * sizeof(Real));
  }
  return sum * 0.69314718055994530942;
}

static double cross_entropy(const ScoreRange& range, bool double_precision) {
  return double_precision ? cross_entropy_of<double>(range) : cross_entropy_of<float>(range);
}

extern const ReasoningKernels reasoning_kernels;
const ReasoningKernels reasoning_kernels = {cross_entropy};

}  // namespace CISS_ISA
}  // namespace ciss
