// A CUDA device on the CPU, for tests: every thread of a block is a fiber of its own, and blocks run one after the other.
//
// Threads change only at barriers and warp instructions. Between them a block's threads run in ascending or descending
// order (CISS_FAST_EMULATION_ORDER=descending): results that depend on it lack a barrier. Shared memory starts as NaN.
// Threads that wait at different instructions, a warp instruction that some lanes never reach, and a barrier that threads
// of the block have left behind by returning are errors.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>

#define __CUDA_EMULATION__ 1
#define CISS_DEVICE inline
#define CISS_UNROLL
#define CISS_KERNEL static void
#define CISS_CONSTANT const
#define CISS_SHARED_MEMORY(name) unsigned char* const name = ::ciss::cuda::emulation::shared_memory()
#define __launch_bounds__(...)

struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
enum { cudaDevAttrMaxSharedMemoryPerBlockOptin };
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 0; }
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = 0; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0; }
// An H100's, or what CISS_FAST_EMULATION_SHARED says.
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) {
  const char* const bytes = std::getenv("CISS_FAST_EMULATION_SHARED");
  *value = bytes ? std::atoi(bytes) : 232448;
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}

namespace ciss {
namespace cuda {
namespace emulation {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

// The thread that runs.
struct Place {
  Index thread, block, block_size, grid_size;
};
extern Place place;

unsigned char* shared_memory();
void run(const char* name, int64_t grid_x, int64_t grid_y, int threads, size_t shared_bytes,
         const std::function<void()>& kernel);

// Waits for the block (`warp` false) or for the warp. `instruction` has to be the same for all.
void wait(bool warp, const char* instruction);

// The values that the lanes of the warp bring along, by lane.
const uint64_t* exchange(uint64_t value, const char* instruction);

template <class T>
uint64_t to_bits(T x) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof x);
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline float flushed(float x) { return std::fabs(x) < 1.17549435e-38f ? 0 * x : x; }
inline float fast_exp2(float x) { return flushed(std::exp2(x)); }
inline float fast_log2(float x) { return std::log2(flushed(x)); }
inline float fast_reciprocal(float x) { return flushed(1 / flushed(x)); }
float half_to_float(uint16_t bits);

}  // namespace emulation
}  // namespace cuda
}  // namespace ciss

#define threadIdx (::ciss::cuda::emulation::place.thread)
#define blockIdx (::ciss::cuda::emulation::place.block)
#define blockDim (::ciss::cuda::emulation::place.block_size)
#define gridDim (::ciss::cuda::emulation::place.grid_size)

inline void __syncthreads() { ciss::cuda::emulation::wait(false, "__syncthreads"); }
inline void __syncwarp() { ciss::cuda::emulation::wait(true, "__syncwarp"); }

template <class T>
T __shfl_sync(unsigned, T x, int lane) {
  return ciss::cuda::emulation::from_bits<T>(
      ciss::cuda::emulation::exchange(ciss::cuda::emulation::to_bits(x), "__shfl_sync")[lane & 31]);
}
template <class T>
T __shfl_xor_sync(unsigned, T x, int lanes) {
  const unsigned lane = (threadIdx.x & 31) ^ unsigned(lanes);
  return ciss::cuda::emulation::from_bits<T>(
      ciss::cuda::emulation::exchange(ciss::cuda::emulation::to_bits(x), "__shfl_xor_sync")[lane]);
}
inline unsigned __ballot_sync(unsigned, bool x) {
  const uint64_t* const all = ciss::cuda::emulation::exchange(x, "__ballot_sync");
  unsigned bits = 0;
  for (int lane = 0; lane < 32; lane++) bits |= unsigned(all[lane] != 0) << lane;
  return bits;
}
inline bool __any_sync(unsigned lanes, bool x) { return __ballot_sync(lanes, x) != 0; }
inline unsigned __reduce_max_sync(unsigned, unsigned x) {
  const uint64_t* const all = ciss::cuda::emulation::exchange(x, "__reduce_max_sync");
  unsigned largest = 0;
  for (int lane = 0; lane < 32; lane++) largest = all[lane] > largest ? unsigned(all[lane]) : largest;
  return largest;
}
inline unsigned __reduce_or_sync(unsigned, unsigned x) {
  const uint64_t* const all = ciss::cuda::emulation::exchange(x, "__reduce_or_sync");
  unsigned bits = 0;
  for (int lane = 0; lane < 32; lane++) bits |= unsigned(all[lane]);
  return bits;
}
inline int __ffs(unsigned x) { return __builtin_ffs(int(x)); }
inline float __uint_as_float(unsigned x) { return ciss::cuda::emulation::from_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return unsigned(ciss::cuda::emulation::to_bits(x)); }
