// Functions that a CUDA compiler makes for the device as well as for the host.
#pragma once

#if defined(__CUDACC__)
#define CISS_HOST_DEVICE __host__ __device__
// For arithmetic on numbers of the kernels': vectors on the CPU, where every instruction set needs code of its own, and
// single numbers on the device.
#define CISS_KERNEL_INLINE __device__ __forceinline__
#else
#define CISS_HOST_DEVICE
#define CISS_KERNEL_INLINE inline __attribute__((always_inline))
#endif
