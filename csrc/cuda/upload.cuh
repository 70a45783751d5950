// Numbers of the host written into device memory by kernels that carry them as arguments: in stream order, without
// waiting, and captured by value in a CUDA graph, neither of which a copy from ordinary memory does.
#pragma once

#include <algorithm>

#include "platform.h"

namespace ciss {
namespace cuda {

struct Parcel {
  static constexpr int WORDS = 960;  // of the 4 KB that arguments may have
  uint32_t words[WORDS];
};

CISS_KERNEL unpack_kernel(Parcel parcel, uint32_t* out, int count) {
  for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) out[i] = parcel.words[i];
}

// `bytes`: a multiple of 4.
inline void upload(void* out, const void* data, size_t bytes, Stream stream) {
  uint32_t* to = static_cast<uint32_t*>(out);
  const char* from = static_cast<const char*>(data);
  for (size_t words = bytes / 4; words > 0;) {
    const size_t count = std::min(words, size_t(Parcel::WORDS));
    Parcel parcel;
    std::memcpy(parcel.words, from, count * 4);
    launch("unpack", unpack_kernel, {1, 1}, 256, 0, stream, parcel, to, int(count));
    words -= count;
    to += count;
    from += count * 4;
  }
}

}  // namespace cuda
}  // namespace ciss
