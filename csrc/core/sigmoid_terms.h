// What a sigmoid-family loss is made of, shared by every compiled backend.
#pragma once

#include <cstdint>

namespace ciss {

enum SigmoidTerm { MBCE, SIGMOID_KD, AC, SIGMOID_TERM_COUNT };

// What the labels of a cell say: a channel if every pixel shows that new class, 0 if none shows a new class, or MIXED.
constexpr int32_t MIXED = -1;

// A cell's logits, in log2 units: where they are farther apart, KD takes every pixel by itself.
constexpr float FAR_APART = 46;

}  // namespace ciss
