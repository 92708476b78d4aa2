#ifndef WARPJAX_GEOMETRY_H_
#define WARPJAX_GEOMETRY_H_

// Which numbers of an image meet which taps of a kernel.

#include <algorithm>
#include <utility>
#include <vector>

#include "products.h"

namespace warpjax {

struct Geometry {
  Index image[2], kernel[2], result[2], strides[2], low[2], dilation[2];
};

inline Index FloorDivide(Index a, Index b) { return a / b - (a % b < 0); }

// Along one axis, what the outputs `phase, phase + step, ...` read: input `begin + stride * i + offset` for each tap.
struct Axis {
  Index phase, step, count, stride, begin, size;
  std::vector<Index> taps, offsets;
};

// All phases of an axis; one for the result, and one for each remainder of the stride for the gradient of images.
inline std::vector<Axis> Axes(const Geometry& g, int axis, bool of_images) {
  std::vector<Axis> axes;
  if (!of_images) {
    Axis one{0, 1, g.result[axis], g.strides[axis], -g.low[axis], 0, {}, {}};
    for (Index tap = 0; tap < g.kernel[axis]; ++tap) {
      one.taps.push_back(tap);
      one.offsets.push_back(tap * g.dilation[axis]);
    }
    one.size = (one.count - 1) * one.stride + one.offsets.back() + 1;
    return {one};
  }
  const Index stride = g.strides[axis];
  for (Index phase = 0; phase < std::min(stride, g.image[axis]); ++phase) {
    Axis one{phase, stride, (g.image[axis] - phase + stride - 1) / stride, 1, 0, 0, {}, {}};
    for (Index tap = g.kernel[axis] - 1; tap >= 0; --tap) {  // in the order of what they read
      const Index reach = phase + g.low[axis] - tap * g.dilation[axis];
      if (reach - FloorDivide(reach, stride) * stride != 0) continue;
      one.taps.push_back(tap);
      one.offsets.push_back(FloorDivide(reach, stride));
    }
    if (!one.offsets.empty()) {
      one.begin = one.offsets.front();
      for (Index& offset : one.offsets) offset -= one.begin;
      one.size = one.count + one.offsets.back();
    }
    axes.push_back(one);
  }
  return axes;
}

// Consecutive numbers of a row of the padded input, and the packed kernel that they meet.
struct Run {
  Index offset, length, kernel;
};

// The outputs of one remainder of the strides: by which runs they read, and for each, where in the padded input it
// begins and where in the output it is.
struct Phase {
  Axis row, column;
  std::vector<Run> runs;
  std::vector<Index> reads, writes;
};

inline std::vector<Phase> Phases(const Geometry& g, bool of_images, Index inputs, Index features) {
  std::vector<Phase> phases;
  const Index out_columns = of_images ? g.image[1] : g.result[1];
  for (const Axis& row : Axes(g, 0, of_images))
    for (const Axis& column : Axes(g, 1, of_images)) {
      Phase phase{row, column, {}, {}, {}};
      for (std::size_t i = 0; i < row.taps.size(); ++i)
        for (std::size_t j = 0; j < column.taps.size(); ++j) {
          const Index tap = of_images ? g.kernel[1] - 1 - column.taps[j] : column.taps[j];
          const Run run{(row.offsets[i] * column.size + column.offsets[j]) * inputs, inputs,
                        (row.taps[i] * g.kernel[1] + tap) * inputs};
          if (!phase.runs.empty() && phase.runs.back().offset + phase.runs.back().length == run.offset &&
              phase.runs.back().kernel + phase.runs.back().length == run.kernel) {
            phase.runs.back().length += inputs;
          } else {
            phase.runs.push_back(run);
          }
        }
      for (Index i = 0; i < row.count; ++i)
        for (Index j = 0; j < column.count; ++j) {
          phase.reads.push_back((i * row.stride * column.size + j * column.stride) * inputs);
          phase.writes.push_back(((row.phase + i * row.step) * out_columns + column.phase + j * column.step) *
                                 features);
        }
      phases.push_back(std::move(phase));
    }
  return phases;
}

}  // namespace warpjax

#endif  // WARPJAX_GEOMETRY_H_
