// Tensors as Python passes them: an address, a type code (csrc/core/elements.h) and strides in elements.
#pragma once

#include <cstdint>
#include <vector>

#include "core/elements.h"

namespace ciss {

using Strides = std::vector<int64_t>;

inline LogitsView logits_view(uintptr_t address, int type, const Strides& s) {
  return {reinterpret_cast<const void*>(address), FloatType(type), s[0], s[1], s[2], s[3]};
}

inline LabelView label_view(uintptr_t address, int type, const Strides& s) {
  return {reinterpret_cast<const void*>(address), LabelType(type), s[0], s[1], s[2]};
}

// Address 0: no gradient is wanted.
inline GradientView gradient_view(uintptr_t address, const Strides& s) {
  if (!address) return {};
  return {reinterpret_cast<void*>(address), s[0], s[1], s[2], s[3]};
}

}  // namespace ciss
