// The reasoning loss on the CPU: values of the terms, gradients on the features and on the classifiers' weights.
#pragma once

#include "../core/elements.h"

namespace ciss {

struct ReasoningArguments {
  int64_t batch = 0, height = 0, width = 0, classes = 0, channels = 0, channels_old = 0;
  LogitsView feature, feature_old;  // [batch, channels, height, width]
  const void* weight = nullptr;     // [classes, channels], dense; float, or double when `double_precision`
  const void* weight_old = nullptr;
  GradientView gradient;            // on the feature, of the weight's type; overwritten
  void* weight_gradient = nullptr;  // [classes, channels], dense; overwritten; null: not wanted
  double term_weight[2] = {};       // of pos and neg
  bool double_precision = false;
};

struct ReasoningResult {
  double total = 0;
  double value[2] = {};
};

ReasoningResult reasoning_loss(const ReasoningArguments& arguments, int threads);

}  // namespace ciss
