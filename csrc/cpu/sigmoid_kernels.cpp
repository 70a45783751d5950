// The sigmoid loss's kernels; compiled once per instruction set (see simd.h).
#include "sigmoid_band.h"
#include "sigmoid_full_resolution.h"
#include "sigmoid_survey.h"

namespace ciss {
namespace CISS_ISA {

static int lanes(bool double_precision) { return double_precision ? Simd<double>::lanes : Simd<float>::lanes; }

template <class Real>
static size_t workspace_of(const SigmoidTask& task, int64_t band_rows) {
  size_t bytes = 0;
  if (band_rows)
    SigmoidBandState<Real>(task, band_rows, nullptr, &bytes);
  else if (task.rows)
    LabelSurvey<Real>(task, nullptr, &bytes);
  else
    SigmoidPixels<Real>(task, nullptr, &bytes);
  return bytes;
}

static size_t workspace_bytes(const SigmoidTask& task, int64_t band_rows, bool double_precision) {
  return double_precision ? workspace_of<double>(task, band_rows) : workspace_of<float>(task, band_rows);
}

static void survey(const SigmoidTask& task, int64_t image, int64_t piece, bool double_precision, void* workspace,
                   InvalidLabels& invalid) {
  char* const memory = static_cast<char*>(workspace);
  double_precision ? LabelSurvey<double>(task, memory).run(image, piece, invalid)
                   : LabelSurvey<float>(task, memory).run(image, piece, invalid);
}

template <class Real>
static void band_of(const SigmoidTask& task, const SigmoidBand& band, void* workspace, SigmoidSums& sums) {
  const int64_t rows = band.end_row - band.first_row + (band.shared_row ? 1 : 0);
  SigmoidBandState<Real>(task, rows, static_cast<char*>(workspace)).run(band, sums);
}

static void band(const SigmoidTask& task, const SigmoidBand& band, bool double_precision, void* workspace,
                 SigmoidSums& sums) {
  [[maybe_unused]] const FlushDenormals flush;
  double_precision ? band_of<double>(task, band, workspace, sums) : band_of<float>(task, band, workspace, sums);
}

static void full_resolution(const SigmoidTask& task, const PixelRange& range, bool double_precision, void* workspace,
                            InvalidLabels& invalid, double sums[SIGMOID_TERM_COUNT]) {
  [[maybe_unused]] const FlushDenormals flush;
  char* const memory = static_cast<char*>(workspace);
  double_precision ? SigmoidPixels<double>(task, memory).run(range, invalid, sums)
                   : SigmoidPixels<float>(task, memory).run(range, invalid, sums);
  finish_streams();
}

extern const SigmoidKernels sigmoid_kernels;
const SigmoidKernels sigmoid_kernels = {lanes, workspace_bytes, survey, band, full_resolution};

}  // namespace CISS_ISA
}  // namespace ciss
