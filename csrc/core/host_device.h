// Functions that a CUDA compiler makes for the device as well as for the host.
#pragma once

#if defined(__CUDACC__)
#define CISS_HOST_DEVICE __host__ __device__
#else
#define CISS_HOST_DEVICE
#endif
