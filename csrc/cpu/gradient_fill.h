// What the loss ops do with the memory of a gradient.
#pragma once

#include <cstdint>

#include "../core/elements.h"
#include "large_pages.h"

namespace ciss {

struct GradientShape {
  int64_t batch = 0, classes = 0, height = 0, width = 0;
};

template <class Real>
void fill_with(const GradientView& g, const GradientShape& shape, Real value) {
  for (int64_t b = 0; b < shape.batch; b++)
    for (int64_t c = 0; c < shape.classes; c++)
      for (int64_t i = 0; i < shape.height; i++)
        for (int64_t j = 0; j < shape.width; j++)
          static_cast<Real*>(g.data)[b * g.batch_stride + c * g.class_stride + i * g.row_stride + j * g.column_stride] =
              value;
}

inline void fill(const GradientView& g, const GradientShape& shape, bool double_precision, double value) {
  double_precision ? fill_with<double>(g, shape, value) : fill_with<float>(g, shape, float(value));
}

inline void ask_for_large_pages(const GradientView& g, const GradientShape& shape, bool double_precision) {
  const int64_t elements = shape.batch * shape.classes * shape.height * shape.width;
  ask_for_large_pages(g.data, size_t(elements * (double_precision ? 8 : 4)));
}

}  // namespace ciss
