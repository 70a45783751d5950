// Pieces of one block of scratch memory; compiled once per instruction set (see simd.h).
#pragma once

#include "simd.h"

namespace ciss {
namespace CISS_ISA {

// Hands out pieces of a thread's scratch memory, aligned to a cache line; with no memory it only measures.
struct Scratch {
  char* base;
  size_t used = 0;
  template <class T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(base + used);
    used += (size_t(count) * sizeof(T) + 63) / 64 * 64;
    return piece;
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
