// One class of `rotation_loss`, by a block: its two terms and their gradient on its parameters, whatever solves its systems
// (ciss_fast/ops/rotation_loss/README.md derives what is done).
#pragma once

#include "cayley_elimination.cuh"
#include "cayley_krylov.cuh"
#include "rotation_loss.h"

namespace ciss {
namespace cuda {

// Solves by elimination as `CayleySolver` does by iterations. The factors serve both signs; a warp solves while the others
// wait, since groups come one after the other.
class EliminatingSolver {
 public:
  static size_t shared_bytes(int64_t dimension) { return CayleyElimination::shared_bytes(dimension, 1); }

  CISS_DEVICE EliminatingSolver(const CayleyTask& task, int64_t item, double* matrix, unsigned char* memory)
      : elimination(task, item, matrix, memory), finite(elimination.factorise()) {}

  CISS_DEVICE bool solve(int sign, const float* right_side, float* solution) {
    if (!finite) return false;
    __syncthreads();  // the right side's other entries
    if (threadIdx.x < WARP) {
      if (!(elimination.solve(sign < 0, right_side, solution) <= CAYLEY_ACCEPTED)) failed = true;
    }
    __syncthreads();
    return true;
  }

  CISS_DEVICE bool parameters_are_finite() const { return finite; }
  CISS_DEVICE bool accurate() const { return block_sum(failed ? 1. : 0., elimination.scratch) == 0; }

 private:
  CayleyElimination elimination;
  const bool finite;
  bool failed = false;  // known to the first warp
};

class RotationClass {
 public:
  // Of shared memory, which the solver's follows: a multiple of 16.
  CISS_HOST_DEVICE static size_t shared_bytes(const RotationTask& task) {
    const size_t numbers = size_t(5 * task.rotations.dimension + task.outputs) * sizeof(float);
    return (numbers + (CAYLEY_WARPS + 1) * sizeof(double) + 15) / 16 * 16;
  }

  CISS_DEVICE RotationClass(const RotationTask& task, int64_t item, unsigned char* memory)
      : task(task), item(item), size(int(task.rotations.dimension)), outputs(int(task.outputs)),
        thread(int(threadIdx.x)), share(1 / (double(task.rotations.classes) * double(task.rotations.vectors))) {
    scratch = reinterpret_cast<double*>(memory);
    float* next = reinterpret_cast<float*>(scratch + CAYLEY_WARPS + 1);
    for (float** vector : {&right_side, &target, &rotated, &features, &adjoint}) {
      *vector = next;
      next += size;
    }
    logits = next;
  }

  // The products with S that the solutions took; -1 where the solver does not get there: nothing that was written counts.
  template <class Solver>
  CISS_DEVICE int run(Solver& solver) {
    const int64_t groups = task.rotations.vectors;
    int products = 0;
    double fidelity = 0, regulariser = 0;
    for (int64_t g = 0; g < groups; g++) {
      const int64_t place = (item * groups + g) * size;
      const float *previous_mean = task.means + g * size, *mean = previous_mean + groups * size;
      float* const solution = const_cast<float*>(task.rotations.forward_solutions) + place;
      for (int k = thread; k < size; k += CAYLEY_THREADS) {
        right_side[k] = task.previous[place + k] - previous_mean[k];
        target[k] = task.current[place + k] - mean[k];
      }
      if (!solver.solve(1, right_side, solution)) return -1;
      products += products_of(solver);
      for (int k = thread; k < size; k += CAYLEY_THREADS) {
        rotated[k] = 2 * solution[k] - right_side[k];
        features[k] = rotated[k] + mean[k];
      }
      fidelity += start_adjoint();
      regulariser += add_to_adjoint();
      if (!task.rotations.grad_params) continue;
      if (!solver.solve(-1, adjoint, task.rotations.solutions + place)) return -1;
      products += products_of(solver);
    }
    write_terms(fidelity, regulariser);
    if (task.rotations.grad_params) write_cayley_gradient(task.rotations, item, true);
    return products;
  }

  CISS_DEVICE void write_not_a_number() const {
    const double nan = double(not_a_number());
    write_terms(nan, nan);
    if (task.rotations.grad_params) write_cayley_gradient(task.rotations, item, false);
  }

 private:
  const RotationTask& task;
  const int64_t item;
  const int size, outputs, thread;
  const double share;  // of a class and group in the means
  double* scratch;
  float *right_side, *target, *rotated, *features, *adjoint, *logits;

  template <bool SHARED>
  CISS_DEVICE static int products_of(const CayleySolver<SHARED>& solver) {
    return solver.products;
  }
  CISS_DEVICE static int products_of(const EliminatingSolver&) { return 0; }

  CISS_DEVICE void write_terms(double fidelity, double regulariser) const {
    if (thread == 0) {
      task.terms[2 * item] = fidelity;
      task.terms[2 * item + 1] = regulariser;
    }
  }

  // Returns 1 - cos(r, t), r being rotated; its adjoint. Norms below 1e-8 count as 1e-8, as in torch's cosine_similarity.
  CISS_DEVICE double start_adjoint() {
    const double least = 1e-8, weight = task.fidelity_weight * share;
    double squares = 0, of_target = 0, product = 0;
    for (int k = thread; k < size; k += CAYLEY_THREADS) {
      squares += double(rotated[k]) * double(rotated[k]);
      of_target += double(target[k]) * double(target[k]);
      product += double(rotated[k]) * double(target[k]);
    }
    squares = block_sum(squares, scratch);
    of_target = sqrt(block_sum(of_target, scratch));
    product = block_sum(product, scratch);
    const double of_rotated = sqrt(squares);
    const double norms = (of_rotated < least ? least : of_rotated) * (of_target < least ? least : of_target);
    const float on_target = float(-weight / norms);
    const float on_rotated = of_rotated < least ? 0.f : float(weight * product / norms / squares);
    for (int k = thread; k < size; k += CAYLEY_THREADS)
      adjoint[k] = target[k] * on_target + rotated[k] * on_rotated;
    return 1 - product / norms;
  }

  // Returns the cross entropy of the classifier's logits for r + o against the class; adds its adjoint.
  CISS_DEVICE double add_to_adjoint() {
    const int lane = thread % WARP;
    __syncthreads();  // features
    for (int j = thread / WARP; j < outputs; j += CAYLEY_WARPS) {
      const float* const row = task.weight + int64_t(j) * size;
      float sum = 0;
      for (int k = lane; k < size; k += WARP) sum += row[k] * features[k];
      sum = warp_sum(sum);
      if (lane == 0) logits[j] = sum + task.bias[j];
    }
    __syncthreads();
    float largest = logits[0];
    for (int j = thread; j < outputs; j += CAYLEY_THREADS) largest = fmaxf(largest, logits[j]);
    const float own = logits[item];
    largest = block_max(largest, reinterpret_cast<float*>(scratch));
    double sum = 0;
    for (int j = thread; j < outputs; j += CAYLEY_THREADS) {
      const float poison = logits[j] * 0;  // an infinity is as bad as a NaN
      logits[j] = expf(logits[j] - largest);
      sum += double(logits[j] + poison);
    }
    sum = block_sum(sum, scratch);
    const double weight = (1 - task.fidelity_weight) * share;
    const float scale = float(weight / sum);
    const float* const own_row = task.weight + item * size;
    for (int k = thread; k < size; k += CAYLEY_THREADS) {
      float mean = 0, more = 0;
      int j = 0;
      for (; j + 2 <= outputs; j += 2) {
        mean += task.weight[int64_t(j) * size + k] * logits[j];
        more += task.weight[int64_t(j + 1) * size + k] * logits[j + 1];
      }
      if (j < outputs) mean += task.weight[int64_t(j) * size + k] * logits[j];
      adjoint[k] += (mean + more) * scale - own_row[k] * float(weight);
    }
    __syncthreads();  // the adjoint's other entries; the logits may be written again
    return log(sum) - (double(own) - double(largest));
  }
};

}  // namespace cuda
}  // namespace ciss
