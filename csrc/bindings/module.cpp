// The Python module ciss_fast._native. It knows nothing of torch: tensors arrive as addresses, sizes and strides.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "cpu/dispatch.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace ciss {
void bind_cayley_rotate(pybind11::module_& module);
void bind_label_map(pybind11::module_& module);
void bind_prototypes(pybind11::module_& module);
void bind_reasoning_loss(pybind11::module_& module);
void bind_rotation_loss(pybind11::module_& module);
void bind_sigmoid_loss(pybind11::module_& module);
void bind_softmax_loss(pybind11::module_& module);
}

namespace {

std::vector<std::string> compiled_instruction_sets() {
    return {
        "baseline",
#ifdef CISS_HAVE_AVX2
        "avx2",
#endif
#ifdef CISS_HAVE_AVX512
        "avx512",
#endif
    };
}

// Threads a kernel would use now; 0: built without OpenMP.
int openmp_threads() {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 0;
#endif
}

}  // namespace

PYBIND11_MODULE(_native, module) {
    module.doc() = "Compiled kernels of ciss_fast";
    module.attr("compiler") = __VERSION__;
    module.def("compiled_instruction_sets", &compiled_instruction_sets);
    module.def("openmp_threads", &openmp_threads);
    module.def("instruction_set", [] { return ciss::instruction_set().name; });
    ciss::bind_cayley_rotate(module);
    ciss::bind_label_map(module);
    ciss::bind_prototypes(module);
    ciss::bind_reasoning_loss(module);
    ciss::bind_rotation_loss(module);
    ciss::bind_sigmoid_loss(module);
    ciss::bind_softmax_loss(module);
}
