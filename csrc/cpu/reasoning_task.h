// The reasoning loss cut into independent work items, and the table of kernels an instruction set provides for them.
//
// A classifier's weight matrix [C, D] is split into its positive and its negative part. Stacked, they are a matrix
// [rows, D] of which half is 0: every weight is an element of one part only. What is multiplied with it or with its
// transpose reads a list of the others. Row r belongs to class r / terms and to term r % terms.
#pragma once

#include "../core/elements.h"

namespace ciss {

constexpr int REASONING_TERM_COUNT = 2;  // pos, neg

template <class Real>
struct Element {
  Real value = 0;
  int32_t row = 0;  // of the factor it is multiplied with
};

// The elements of a matrix by rows of the product, the rows of the factor being taken a block at a time.
template <class Real>
struct ElementList {
  const Element<Real>* elements = nullptr;
  const int64_t* begin = nullptr;  // [blocks][rows + 1]: where each row's elements of a block begin
  int64_t blocks = 0, rows = 0;
};

template <class Real>
struct ReasoningTask {
  int64_t batch = 0, height = 0, width = 0, channels = 0, channels_old = 0;
  LogitsView feature, feature_old;       // channels as classes
  GradientView gradient;                 // on the feature
  ElementList<Real> parts, parts_old;    // scores from features
  ElementList<Real> columns;             // gradient on the feature from that on the scores
  int terms = 0;
  Real coefficient[REASONING_TERM_COUNT] = {};  // of each term's gradient

  int64_t pixels() const { return batch * height * width; }
};

struct ReasoningSums {
  double value[REASONING_TERM_COUNT] = {};  // of each term, over pixels and classes
};

template <class Real>
struct ReasoningKernelsOf {
  int64_t tile_pixels;
  size_t (*workspace_bytes)(const ReasoningTask<Real>&);
  // Pixels [first, end), numbered through all images; `first` is the beginning of a tile. Adds the gradients on the
  // elements of `parts` to `element_gradients`, unless that is null.
  void (*run)(const ReasoningTask<Real>&, int64_t first, int64_t end, void* workspace, Real* element_gradients,
              ReasoningSums&);
};

struct ReasoningKernels {
  ReasoningKernelsOf<float> single_precision;
  ReasoningKernelsOf<double> double_precision;
};

}  // namespace ciss
