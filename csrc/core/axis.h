// How one axis of the label map reads the smaller (or larger) axis of the logits, bilinearly.
//
// The rule is PyTorch's: with align_corners the source position of output pixel x is x (n-1)/(N-1), without it
// (x + 1/2) n/N - 1/2, clamped to [0, n-1]. Positions are kept as exact fractions until the last step.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace ciss {

struct SourcePosition {
  int64_t left = 0, right = 0;  // neighbouring source indices
  double fraction = 0;          // weight of `right`; 0 where the position was clamped
  bool clamped = false;         // before the first or after the last source index: the value is constant there
};

struct Axis {
  int64_t source = 0, output = 0;
  bool align_corners = false;

  SourcePosition at(int64_t x) const {
    const int64_t numerator = align_corners ? x * (source - 1) : (2 * x + 1) * source - output;
    const int64_t denominator = align_corners ? std::max<int64_t>(output - 1, 1) : 2 * output;
    SourcePosition position;
    if (numerator < 0 || source == 1) {
      position.clamped = !align_corners;
      return position;
    }
    position.left = numerator / denominator;
    if (position.left >= source - 1) {  // at or beyond the last source index
      position.clamped = !align_corners;
      position.left = align_corners ? source - 2 : source - 1;
      position.right = source - 1;
      position.fraction = align_corners ? 1 : 0;
      return position;
    }
    position.right = position.left + 1;
    position.fraction = double(numerator - position.left * denominator) / double(denominator);
    return position;
  }

  // Distance between the source positions of neighbouring output pixels.
  double step() const {
    if (align_corners) return output > 1 ? double(source - 1) / double(output - 1) : 0;
    return double(source) / double(output);
  }
};

// The output pixels of a row, cut into lanes: runs of at most 2 * run + 1 neighbouring pixels that lie between the
// same two source columns. A pixel's slot in its lane is its distance from the lane's centre plus `run`.
struct Lanes {
  int run = 0;                           // slots on each side of the centre
  std::vector<int32_t> first_pixel;      // output column of the lane's first pixel
  std::vector<int32_t> first_slot;       // slot of that pixel
  std::vector<int32_t> length;           // pixels in the lane
  std::vector<int32_t> left, right;      // source columns
  std::vector<double> centre;            // weight of `right` at the centre slot
  std::vector<double> step;              // its change from slot to slot; 0 where the axis is clamped

  // Lanes [regular_begin, regular_end): each one source column to the right of the one before.
  int regular_begin = 0, regular_end = 0;

  int count() const { return int(first_pixel.size()); }

  void find_regular() {
    // The first such run; there is one, unless lanes are cut or the map shrinks.
    while (regular_begin < count() && right[size_t(regular_begin)] != left[size_t(regular_begin)] + 1) regular_begin++;
    regular_end = regular_begin;
    while (regular_end < count() && left[size_t(regular_end)] == left[size_t(regular_begin)] + regular_end - regular_begin &&
           right[size_t(regular_end)] == left[size_t(regular_end)] + 1)
      regular_end++;
  }
};

// Half-widths a lane may have, in increasing order.
constexpr int LANE_RUNS[] = {0, 1, 2, 3, 4, 6, 8};
constexpr int LONGEST_RUN = 8;

inline Lanes make_lanes(const Axis& axis) {
  struct Segment {
    int32_t first, length;
    SourcePosition position;
  };
  std::vector<Segment> segments;
  for (int64_t x = 0; x < axis.output; x++) {
    const SourcePosition p = axis.at(x);
    if (!segments.empty() && segments.back().position.left == p.left && segments.back().position.right == p.right &&
        segments.back().position.clamped == p.clamped)
      segments.back().length++;
    else
      segments.push_back({int32_t(x), 1, p});
  }
  int32_t longest = 1;
  const int32_t limit = 2 * LONGEST_RUN + 1;
  for (const Segment& s : segments) {
    const int32_t pieces = (s.length + limit - 1) / limit;
    longest = std::max(longest, (s.length + pieces - 1) / pieces);
  }
  Lanes lanes;
  lanes.run = LONGEST_RUN;
  for (int run : LANE_RUNS)
    if (2 * run + 1 >= longest) {
      lanes.run = run;
      break;
    }
  for (const Segment& s : segments) {
    const int32_t pieces = (s.length + longest - 1) / longest;
    for (int32_t piece = 0, done = 0; piece < pieces; piece++) {
      const int32_t length = (s.length - done) / (pieces - piece);
      const int32_t first = s.first + done, middle = length / 2;
      const SourcePosition p = axis.at(first + middle);
      lanes.first_pixel.push_back(first);
      lanes.first_slot.push_back(lanes.run - middle);
      lanes.length.push_back(length);
      lanes.left.push_back(int32_t(p.left));
      lanes.right.push_back(int32_t(p.right));
      lanes.centre.push_back(p.fraction);
      lanes.step.push_back(p.clamped ? 0 : axis.step());
      done += length;
    }
  }
  lanes.find_regular();
  return lanes;
}

// Consecutive output rows that lie between the same two source rows.
struct Strip {
  int64_t top = 0, bottom = 0;  // source rows
  int64_t first_row = 0, rows = 0;
};

inline std::vector<Strip> make_strips(const Axis& axis) {
  std::vector<Strip> strips;
  for (int64_t y = 0; y < axis.output; y++) {
    SourcePosition p = axis.at(y);
    // A clamped last row belongs to the strip above it, all weight on its bottom.
    if (p.left == axis.source - 1 && axis.source > 1) p.left--;
    const int64_t bottom = std::min(p.left + 1, axis.source - 1);
    if (!strips.empty() && strips.back().top == p.left)
      strips.back().rows++;
    else
      strips.push_back({p.left, bottom, y, 1});
  }
  return strips;
}

// Weight of a strip's bottom source row at output row y.
inline double bottom_weight(const Axis& axis, int64_t y) {
  const SourcePosition p = axis.at(y);
  return p.left == axis.source - 1 && axis.source > 1 ? 1.0 : p.fraction;
}

}  // namespace ciss
