// The sigmoid loss cut into independent work items, and the table of kernels an instruction set provides for them.
//
// No two channels depend on each other, so a vector register holds the same place of as many planes (an image's
// channel) as it has lanes: a group. An item is a group's band: a few consecutive pieces of rows. It writes its own
// rows of the gradient, its own sums, and the part of the gradient that belongs to the next band's first row, so the
// result does not depend on the number of threads.
#pragma once

#include "../core/cells.h"
#include "../core/elements.h"
#include "../core/sigmoid_terms.h"

namespace ciss {

struct SigmoidTask {
  // classes: all channels of the student; old_classes: without the auxiliary one.
  int64_t batch = 0, classes = 0, old_classes = 0, height = 0, width = 0, label_height = 0, label_width = 0;
  LogitsView student, teacher;  // teacher.data is null when no term needs it
  LabelView label;
  GradientView gradient;
  double weight[SIGMOID_TERM_COUNT] = {};
  double positive_weight = 1;
  int64_t ignore_index = 255;

  const void *rows = nullptr, *columns = nullptr;  // PieceView of the kernel's arithmetic
  int64_t row_pieces = 0, column_pieces = 0;
  int32_t* cells = nullptr;     // [batch, row_pieces, column_pieces]
  uint64_t* present = nullptr;  // [batch, row_pieces, column_pieces, present_words]: of a mixed cell, the new classes
                                // it shows, one bit per channel
  int64_t present_words = 0;

  int64_t first_new() const { return 1 + old_classes; }
  bool is_old(int64_t channel) const { return channel >= 1 && channel < first_new(); }
  SigmoidTerm term_of(int64_t channel) const { return channel == 0 ? AC : is_old(channel) ? SIGMOID_KD : MBCE; }
};

enum class GroupKind {
  unused,     // of a term that is not asked for: gradient 0; read because a NaN or infinity has to show
  distilled,  // old classes
  labelled,   // auxiliary channel and new classes
};

struct Plane {
  int32_t image = -1, channel = 0;  // image -1: none
};

struct SigmoidBand {
  GroupKind kind = GroupKind::unused;
  const Plane* planes = nullptr;  // [lanes]
  int64_t first_piece = 0, pieces = 0;
  int64_t first_row = 0, end_row = 0;  // source rows this band answers for, those that no piece reads included
  void* shared_row = nullptr;          // [lanes, width]: gradient of row `end_row`, if the next band starts with it
};

// Per lane: sum over the pixels of the plane's term, in log2 units; NaN where a logit was not finite.
struct SigmoidSums {
  static constexpr int MOST_LANES = 16;
  double value[MOST_LANES] = {};
};

struct InvalidLabels {
  int64_t count = 0;
  int64_t first = 0;  // the first of them: its pixel in the image, numbered along rows
};

struct SigmoidKernels {
  int (*lanes)(bool double_precision);
  // Bytes of scratch memory one thread needs for a band of so many source rows (0 rows: for the other functions).
  size_t (*workspace_bytes)(const SigmoidTask&, int64_t band_rows, bool double_precision);
  // Fills one row of `cells` and of `present`.
  void (*survey)(const SigmoidTask&, int64_t image, int64_t piece, bool double_precision, void* workspace,
                 InvalidLabels&);
  void (*band)(const SigmoidTask&, const SigmoidBand&, bool double_precision, void* workspace, SigmoidSums&);
  // Logits at label size; sums by term.
  void (*full_resolution)(const SigmoidTask&, const PixelRange&, bool double_precision, void* workspace,
                          InvalidLabels&, double sums[SIGMOID_TERM_COUNT]);
};

}  // namespace ciss
