// Versions of CUDA, as 1000 major + 10 minor. Neither call needs a driver or a GPU.
#pragma once

namespace ciss {
namespace cuda {

int runtime_version();  // of the runtime that is linked in
int driver_version();   // the newest that the installed driver supports; 0 without a driver

}  // namespace cuda
}  // namespace ciss
