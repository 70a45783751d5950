// Memory that a call is the first to touch.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace ciss {

// Many megabytes of fresh memory: in pages of 2 MiB the system hands them over several times faster.
inline void ask_for_large_pages(void* data, size_t bytes) {
#ifdef __linux__
  constexpr uintptr_t PAGE = 2 << 20;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data), end = begin + bytes;
  const uintptr_t first = (begin + PAGE - 1) / PAGE * PAGE, last = end / PAGE * PAGE;
  if (begin && last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // only a wish
#else
  (void)data, (void)bytes;
#endif
}

}  // namespace ciss
