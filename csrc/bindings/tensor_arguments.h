// Tensors as Python passes them: an address, a type code (csrc/cpu/elements.h) and strides in elements.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/elements.h"

namespace ciss {

using Strides = std::vector<int64_t>;

inline LogitsView logits_view(uintptr_t address, int type, const Strides& s) {
  return {reinterpret_cast<const void*>(address), FloatType(type), s[0], s[1], s[2], s[3]};
}

inline LabelView label_view(uintptr_t address, int type, const Strides& s) {
  return {reinterpret_cast<const void*>(address), LabelType(type), s[0], s[1], s[2]};
}

}  // namespace ciss
