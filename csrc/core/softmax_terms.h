// What a softmax-family loss is made of, as plain numbers: terms, pixel regions, sums, and how they combine.
// Shared by every compiled backend. ciss_fast/ops/softmax_loss/README.md derives the formulas.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace ciss {

enum Term { CE = 0, CCE, KD, CKD, ALI, FOCAL, TERM_COUNT };

// Regions of pixels as bits, so that sets of regions are sums.
enum Region : uint32_t { UNLABELLED = 1, OLD = 2, NEW = 4, IGNORED = 8 };
constexpr uint32_t LABELLED = OLD | NEW, REST = OLD | NEW | IGNORED, EVERYWHERE = UNLABELLED | REST;
constexpr int REGION_COUNT = 4;

enum class Average : int32_t { all = 0, valid = 1, region = 2 };

// What the kernels add up over pixels, in units of log 2; z~ are the student's logits times log2(e), shifted by an
// amount per pixel that cancels in every term.
enum Sum {
  SUM_LOG_CE = 0,      // log2 S where labelled
  SUM_LOG_CCE,         // log2 S where not ignored - log2 S_old where unlabelled or old
  SUM_LOG_KD,          // log2 S_old in KD's region
  SUM_LOG_ALI,         // log2 S where unlabelled
  SUM_LOG_CKD,         // log2 S - p'_0 log2(S_background + S_new)
  SUM_FOCAL,           // the focal term itself
  SUM_LABEL_OLD,       // z~_y where labelled with an old class
  SUM_LABEL_NEW,       // z~_y where labelled with a new class
  SUM_LINEAR_UNLABELLED,             // sum over old k >= 1 of p'_k z~_k, unlabelled pixels
  SUM_LINEAR_REST,                   // the same, all other pixels
  SUM_LINEAR_BACKGROUND_UNLABELLED,  // p'_0 z~_0, unlabelled pixels
  SUM_LINEAR_BACKGROUND_REST,        // the same, all other pixels
  SUM_POISON,          // 0 if every logit is finite, else NaN
  SUM_COUNT
};

struct SoftmaxSettings {
  double weight[TERM_COUNT] = {};
  Average average[TERM_COUNT] = {};
  uint32_t kd_region = REST;
  double alpha = 1;
  int64_t ignore_index = 255;

  CISS_HOST_DEVICE bool active(Term t) const { return weight[t] != 0; }
};

// Factors of the per-pixel gradients: weight / number of pixels, by region (index: log2 of the region's bit).
struct SoftmaxCoefficients {
  double log_all[REGION_COUNT] = {};  // of log S
  double log_old[REGION_COUNT] = {};  // of log S_old
  double linear[REGION_COUNT] = {};   // of -sum_k p'_k z_k over old k >= 1
  double linear_background[REGION_COUNT] = {};  // of -p'_0 z_0
  double log_background_new = 0;      // of -p'_0 log(S_background + S_new), everywhere
  double focal = 0;
  double label_old = 0, label_new = 0;  // of -z_y

  CISS_HOST_DEVICE bool uses_log_old() const { return log_old[0] != 0 || log_old[1] != 0 || log_old[2] != 0 || log_old[3] != 0; }
};

// Number of pixels each term's sum is divided by; 1 for an empty region (its sum is 0).
CISS_HOST_DEVICE inline void term_divisors(const SoftmaxSettings& s, const int64_t pixels[REGION_COUNT], double divisor[TERM_COUNT]) {
  const uint32_t valid = UNLABELLED | LABELLED;
  const uint32_t region[TERM_COUNT] = {LABELLED, valid, s.kd_region, EVERYWHERE, UNLABELLED, valid};
  for (int t = 0; t < TERM_COUNT; t++) {
    const uint32_t set = s.average[t] == Average::all ? EVERYWHERE : s.average[t] == Average::valid ? valid : region[t];
    int64_t count = 0;
    for (int r = 0; r < REGION_COUNT; r++)
      if (set >> r & 1) count += pixels[r];
    divisor[t] = double(count > 0 ? count : 1);
  }
}

CISS_HOST_DEVICE inline SoftmaxCoefficients coefficients(const SoftmaxSettings& s, const double divisor[TERM_COUNT],
                                                         int64_t old_classes) {
  double w[TERM_COUNT];
  for (int t = 0; t < TERM_COUNT; t++) w[t] = s.active(Term(t)) ? s.weight[t] / divisor[t] : 0;
  if (old_classes > 0) {
    w[KD] /= double(old_classes);
    w[CKD] /= double(old_classes);
  }
  SoftmaxCoefficients c;
  for (int r = 0; r < REGION_COUNT; r++) {
    const uint32_t region = 1u << r;
    const bool in_kd = s.kd_region & region;
    if (region & LABELLED) c.log_all[r] += w[CE];
    if (!(region & IGNORED)) c.log_all[r] += w[CCE];
    if (region & UNLABELLED) c.log_all[r] += w[ALI];
    c.log_all[r] += w[CKD];
    if (region & (UNLABELLED | OLD)) c.log_old[r] -= w[CCE];
    if (in_kd) c.log_old[r] += w[KD];
    c.linear_background[r] = (region & UNLABELLED ? w[ALI] : 0) + (in_kd ? w[KD] : 0);
    c.linear[r] = c.linear_background[r] + w[CKD];
  }
  c.log_background_new = w[CKD];
  c.focal = w[FOCAL];
  c.label_old = w[CE];
  c.label_new = w[CE] + w[CCE];
  return c;
}

// Unweighted value of each term from the sums.
CISS_HOST_DEVICE inline void term_values(const SoftmaxSettings& s, const double sum[SUM_COUNT],
                                         const double divisor[TERM_COUNT], int64_t old_classes,
                                         double value[TERM_COUNT]) {
  const double ln2 = 0.693147180559945309417, poison = sum[SUM_POISON];
  const double unlabelled = sum[SUM_LINEAR_UNLABELLED] + sum[SUM_LINEAR_BACKGROUND_UNLABELLED];
  const double rest = sum[SUM_LINEAR_REST] + sum[SUM_LINEAR_BACKGROUND_REST];
  const double in_kd = (s.kd_region & UNLABELLED ? unlabelled : 0) + (s.kd_region & NEW ? rest : 0);
  const double classes = old_classes > 0 ? double(old_classes) : 1;
  value[CE] = sum[SUM_LOG_CE] - sum[SUM_LABEL_OLD] - sum[SUM_LABEL_NEW];
  value[CCE] = sum[SUM_LOG_CCE] - sum[SUM_LABEL_NEW];
  value[KD] = (sum[SUM_LOG_KD] - in_kd) / classes;
  value[CKD] = (sum[SUM_LOG_CKD] - sum[SUM_LINEAR_UNLABELLED] - sum[SUM_LINEAR_REST]) / classes;
  value[ALI] = sum[SUM_LOG_ALI] - unlabelled;
  value[FOCAL] = sum[SUM_FOCAL];
  for (int t = 0; t < TERM_COUNT; t++) value[t] = s.active(Term(t)) ? ln2 * value[t] / divisor[t] + poison : 0;
}

}  // namespace ciss
