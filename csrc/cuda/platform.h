// What kernels and their launches need of CUDA. Compiled by nvcc it is CUDA; compiled by a C++ compiler it is a card
// that exists in the mind only (emulation/), on which tests run every block and thread of the same sources.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#if defined(__CUDACC__)
#include <cuda_runtime.h>

#define CISS_DEVICE __device__ __forceinline__
#define CISS_UNROLL _Pragma("unroll")
#define CISS_KERNEL static __global__ void
// Before a kernel's parameter of a type whose address is taken: it stays where the launch put it.
#define CISS_CONSTANT const __grid_constant__
// Dynamic shared memory, 16-byte aligned.
#define CISS_SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]
#else
#include "emulation/emulated_device.h"
#endif

namespace ciss {
namespace cuda {

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

using Stream = cudaStream_t;

struct Grid {
  int64_t x = 1, y = 1;
};

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Bytes of shared memory that a block may have on the current device.
inline size_t largest_shared_memory() {
  int device = 0, bytes = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
  return size_t(bytes);
}

// Launches `kernel` on the stream and does not wait for it. Nothing is launched for an empty grid.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), Grid grid, int threads, size_t shared_bytes,
            [[maybe_unused]] Stream stream, Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0) return;
  if (grid.x > 2147483647 || grid.y > 65535)
    throw std::runtime_error(std::string(name) + ": expected at most 2147483647 x 65535 blocks, got " +
                             std::to_string(grid.x) + " x " + std::to_string(grid.y));
#if defined(__CUDACC__)
  if (shared_bytes > 48 * 1024)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)), name);
  kernel<<<dim3(unsigned(grid.x), unsigned(grid.y)), threads, shared_bytes, stream>>>(arguments...);
  check(cudaGetLastError(), name);
#else
  emulation::run(name, grid.x, grid.y, threads, shared_bytes, [&] { kernel(arguments...); });
#endif
}

// --- Fast instructions; relative errors of about 2^-22. Numbers below the smallest normal one become 0.
#if defined(__CUDACC__)
CISS_DEVICE float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
CISS_DEVICE float fast_log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
CISS_DEVICE float fast_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
CISS_DEVICE float half_to_float(uint16_t bits) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(bits));
  return y;
}
#else
using emulation::fast_exp2;
using emulation::fast_log2;
using emulation::fast_reciprocal;
using emulation::half_to_float;
#endif

// --- Sums over a warp or a block, in an order that does not change. Every thread of it has to take part.
template <class T>
CISS_DEVICE T warp_sum(T x) {
  for (int lanes = WARP / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(ALL_LANES, x, lanes);
  return x;
}

// `scratch`: a T for each warp, in shared memory. All threads get the sum.
template <class T>
CISS_DEVICE T block_sum(T x, T* scratch) {
  x = warp_sum(x);
  __syncthreads();  // an earlier sum may still be read
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
  __syncthreads();
  T sum = scratch[0];
  for (unsigned warp = 1; warp < blockDim.x / WARP; warp++) sum += scratch[warp];
  return sum;
}

// The largest, NaN apart. `scratch`: a number for each warp, in shared memory.
CISS_DEVICE float block_max(float x, float* scratch) {
  for (int lanes = WARP / 2; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, lanes));
  __syncthreads();  // as above
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
  __syncthreads();
  float largest = scratch[0];
  for (unsigned warp = 1; warp < blockDim.x / WARP; warp++) largest = fmaxf(largest, scratch[warp]);
  return largest;
}

// The largest of non-negative numbers; of a NaN, which counts as larger than all, something that is no number.
CISS_DEVICE float warp_max_of_magnitudes(float x) {
  return __uint_as_float(__reduce_max_sync(ALL_LANES, __float_as_uint(fabsf(x))));
}

}  // namespace cuda
}  // namespace ciss
