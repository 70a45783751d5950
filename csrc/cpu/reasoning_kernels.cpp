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

// Which term each of the coming scores belongs to: the pattern of an item's runs, long enough to load a vector anywhere.
template <class Real>
struct TermPattern {
  typedef typename Simd<Real>::Integer Integer;
  static constexpr int L = Simd<Real>::lanes;

  int length = 0;
  Real coefficient[LONGEST_PATTERN + 2 * L];
  Integer first[LONGEST_PATTERN + 2 * L];  // all bits set: the first term

  explicit TermPattern(const ScoreRuns& task) {
    const bool one_term = task.run_length >= task.count || task.terms == 1;
    const int period = one_term ? 1 : int(task.run_length) * task.terms;
    while (length < L) length += period;
    int term = task.first_term;
    for (int i = 0, end; i < length + L; term = (term + 1) % task.terms) {
      end = one_term || i + task.run_length > length + L ? length + L : i + int(task.run_length);
      for (; i < end; i++) {
        coefficient[i] = Real(task.coefficient[term]);
        first[i] = term == 0 ? -1 : 0;
      }
    }
  }
};

template <class Real>
struct TermSums {
  VectorOf<Real> first = splat(Real(0)), second = splat(Real(0));

  __attribute__((always_inline)) void add(MaskOf<Real> of_first, VectorOf<Real> value) {
    first += keep(of_first, value);
    second += keep(~of_first, value);
  }
  void move_to(double sums[MOST_REASONING_TERMS]) {
    sums[0] += 0.69314718055994530942 * sum_of_lanes(first);
    sums[1] += 0.69314718055994530942 * sum_of_lanes(second);
    *this = TermSums();
  }
};

template <class Real>
static void cross_entropy_of(const ScoreRuns& task, double sums[MOST_REASONING_TERMS]) {
  typedef VectorOf<Real> V;
  typedef MaskOf<Real> M;
  constexpr int L = Simd<Real>::lanes;
  [[maybe_unused]] const FlushDenormals flush;
  Real* const student = static_cast<Real*>(task.student);
  const Real* const teacher = static_cast<const Real*>(task.teacher);
  const TermPattern<Real> pattern(task);
  TermSums<Real> own;
  int phase = 0;
  V value, gradient;
  int64_t i = 0;
  for (; i + L <= task.count; i += L) {
    binary_cross_entropy<Real>(load(student + i), load(teacher + i), value, gradient);
    own.add((M)load(reinterpret_cast<const Real*>(pattern.first + phase)), value);
    if (task.need_gradient) store(student + i, gradient * load(pattern.coefficient + phase));
    phase += L;
    phase -= phase >= pattern.length ? pattern.length : 0;
    if (i / L % 64 == 63) own.move_to(sums);  // sums per lane are single precision: not too many at a time
  }
  if (i < task.count) {
    const size_t bytes = size_t(task.count - i) * sizeof(Real);
    V z = splat(Real(0)), z_teacher = z;
    M first{};
    memcpy(&z, student + i, bytes);
    memcpy(&z_teacher, teacher + i, bytes);
    binary_cross_entropy<Real>(z, z_teacher, value, gradient);
    V inside = splat(Real(0));
    memcpy(&inside, &value, bytes);
    memcpy(&first, pattern.first + phase, sizeof first);
    own.add(first, inside);
    gradient *= load(pattern.coefficient + phase);
    if (task.need_gradient) memcpy(student + i, &gradient, bytes);
  }
  own.move_to(sums);
}

static void cross_entropy(const ScoreRuns& task, bool double_precision, double sums[MOST_REASONING_TERMS]) {
  if (double_precision)
    cross_entropy_of<double>(task, sums);
  else
    cross_entropy_of<float>(task, sums);
}

extern const ReasoningKernels reasoning_kernels;
const ReasoningKernels reasoning_kernels = {cross_entropy};

}  // namespace CISS_ISA
}  // namespace ciss
