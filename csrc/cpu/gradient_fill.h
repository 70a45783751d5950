// What the loss ops do with the memory of a gradient.
#pragma once

#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "elements.h"

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

// A gradient of many megabytes is fresh memory: in pages of 2 MiB the system hands it over several times faster.
inline void ask_for_large_pages(const GradientView& g, const GradientShape& shape, bool double_precision) {
#ifdef __linux__
  constexpr uintptr_t PAGE = 2 << 20;
  const int64_t bytes = shape.batch * shape.classes * shape.height * shape.width * (double_precision ? 8 : 4);
  const uintptr_t begin = reinterpret_cast<uintptr_t>(g.data), end = begin + uintptr_t(bytes);
  const uintptr_t first = (begin + PAGE - 1) / PAGE * PAGE, last = end / PAGE * PAGE;
  if (begin && last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // only a wish
#else
  (void)g, (void)shape, (void)double_precision;
#endif
}

}  // namespace ciss
