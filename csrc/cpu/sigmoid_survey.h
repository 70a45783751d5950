// What the labels of every cell say, see SigmoidTask::cells.
#pragma once

#include "conversion.h"
#include "scratch.h"
#include "sigmoid_task.h"

namespace ciss {
namespace CISS_ISA {

// Reads `count` labels of a row; labels that are not the channel of a new class become 0. Notes labels that are
// neither a class nor ignored.
CISS_INLINE void read_new_classes(int32_t* out, const SigmoidTask& task, int64_t image, int64_t y, int64_t x,
                                  int64_t count, InvalidLabels& invalid) {
  const LabelView& view = task.label;
  read_labels(out, view, image * view.batch_stride + y * view.row_stride + x * view.column_stride, count);
  const int32_t ignore = int32_t(task.ignore_index), classes = int32_t(task.classes);
  const int32_t first = int32_t(task.first_new());
  int32_t wrong = 0;
  for (int64_t i = 0; i < count; i++) wrong |= (out[i] != ignore) & ((out[i] < 0) | (out[i] >= classes));
  if (wrong)
    for (int64_t i = 0; i < count; i++)
      if (out[i] != ignore && (out[i] < 0 || out[i] >= classes) && !invalid.count++)
        invalid.first = y * task.label_width + x + i;
  for (int64_t i = 0; i < count; i++)
    out[i] = (out[i] >= first) & (out[i] < classes) & (out[i] != ignore) ? out[i] : 0;
}

template <class Real>
struct LabelSurvey {
  const SigmoidTask& task;
  const PieceView<Real> rows, columns;
  int32_t* labels;      // [longest piece, label_width]
  int32_t *expected, *difference;  // [label_width]

  LabelSurvey(const SigmoidTask& t, char* memory, size_t* bytes = nullptr)
      : task(t), rows(*static_cast<const PieceView<Real>*>(t.rows)),
        columns(*static_cast<const PieceView<Real>*>(t.columns)) {
    Scratch scratch{memory};
    labels = scratch.take<int32_t>((2 * LONGEST_RUN + 1) * t.label_width);
    expected = scratch.take<int32_t>(t.label_width);
    difference = scratch.take<int32_t>(t.label_width);
    if (bytes) *bytes = scratch.used;
  }

  void run(int64_t image, int64_t piece, InvalidLabels& invalid) {
    const int64_t width = task.label_width;
    const int count = rows.length[piece];
    memset(difference, 0, size_t(width) * 4);
    for (int r = 0; r < count; r++) {
      int32_t* const label = labels + r * width;
      read_new_classes(label, task, image, rows.first_pixel[piece] + r, 0, width, invalid);
      if (r == 0)
        for (int64_t j = 0; j < columns.count; j++) {
          const int64_t first = columns.first_pixel[j];
          for (int64_t x = first; x < first + columns.length[j]; x++) expected[x] = label[first];
        }
      for (int64_t x = 0; x < width; x++) difference[x] |= label[x] ^ expected[x];
    }
    const int64_t first_cell = (image * rows.count + piece) * columns.count;
    for (int64_t j = 0; j < columns.count; j++) {
      const int64_t first = columns.first_pixel[j];
      int32_t differs = 0;
      for (int64_t x = first; x < first + columns.length[j]; x++) differs |= difference[x];
      task.cells[first_cell + j] = differs ? MIXED : expected[first];
      if (differs) list_classes(first, columns.length[j], count, task.present + (first_cell + j) * task.present_words);
    }
  }

  // Neighbours mostly show the same class.
  void list_classes(int64_t first, int width, int height, uint64_t* present) const {
    memset(present, 0, size_t(task.present_words) * 8);
    int32_t last = 0;
    for (int r = 0; r < height; r++) {
      const int32_t* const label = labels + r * task.label_width + first;
      for (int k = 0; k < width; k++) {
        if (label[k] == last) continue;
        last = label[k];
        present[last / 64] |= uint64_t(1) << (last % 64);
      }
    }
    present[0] &= ~uint64_t(1);  // 0 is no class
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
