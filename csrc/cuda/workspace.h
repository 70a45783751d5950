// Device memory of one call, handed out in pieces.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ciss {
namespace cuda {

// With no memory it only measures.
struct Workspace {
  char* base = nullptr;
  size_t used = 0;

  template <class T>
  T* take(int64_t count) {
    T* const piece = reinterpret_cast<T*>(base + used);
    used += (size_t(count) * sizeof(T) + 255) / 256 * 256;
    return piece;
  }
};

}  // namespace cuda
}  // namespace ciss
