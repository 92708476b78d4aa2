#ifndef WARPJAX_CORRELATE_H_
#define WARPJAX_CORRELATE_H_

// The result of a convolution, and its gradient with respect to the images: sums of runs, a run being consecutive
// numbers of a padded image that meet consecutive rows of a packed kernel.

#include "geometry.h"
#include "padding.h"
#include "pieces.h"

namespace warpjax {

constexpr Index kPieceFlops = 2000000;  // some 20 microseconds

// A task's kernel in panels, `[panel, tap, input, width]`, the taps of a row in the order of what they read.
template <typename M>
void Pack(const typename M::Number* kernel, const Geometry& g, bool of_images, Index inputs, const Panels<M>& panels,
          typename M::Cell* packed) {
  const Index taps = g.kernel[0] * g.kernel[1], features = panels.features;
  const Index to_feature = of_images ? inputs : 1, to_input = of_images ? 1 : features;
  for (Index first = 0; first < panels.padded; first += Panels<M>::kWidth) {
    const Index width = panels.Width(first), known = panels.Known(first);
    for (Index place = 0; place < taps; ++place) {
      const Index j = place % g.kernel[1], tap = of_images ? place - j + g.kernel[1] - 1 - j : place;
      const auto* one = kernel + tap * inputs * features + first * to_feature;
      for (Index input = 0; input < inputs; input += M::kNumbers, packed += width) {
        M::Make(one + input * to_input, (M::kNumbers - 1) * to_input, to_feature, known, packed);
        Zeros<M>(width - known, packed + known);
      }
    }
  }
}

// One panel of features of all outputs of a phase of an image.
template <typename M>
void CorrelatePanel(const Phase& phase, const typename M::Cell* input, const typename M::Cell* panel, Index width,
                    Index known, typename M::Number* out) {
  const Index count = phase.reads.size();
  for (Index pixel = 0; pixel < count; pixel += kRows) {
    WithSizes(std::min<Index>(kRows, count - pixel), width == M::kLanes, [&](auto rows, auto vectors) {
      constexpr int P = rows, V = vectors;
      typename M::Vector total[P][V] = {};
      for (const Run& run : phase.runs) {
        const typename M::Cell* from[P];
        for (int p = 0; p < P; ++p) from[p] = input + phase.reads[pixel + p] + run.offset;
        const auto left = [&](int p, Index k) { return from[p][k]; };
        Accumulate<M, P, V>(left, panel + run.kernel * width, run.length, total);
      }
      for (int p = 0; p < P; ++p) {
        typename M::Number* place = out + phase.writes[pixel + p];
        if (known == V * M::kLanes) {
          for (int v = 0; v < V; ++v) *reinterpret_cast<typename M::Vector*>(place + v * M::kLanes) = total[p][v];
        } else {
          std::memcpy(place, total[p], known * sizeof(typename M::Number));
        }
      }
    });
  }
}

// The result (`of_images` false) or the gradient of images, for all tasks.
template <typename M>
void Correlate(Threads& threads, const Geometry& g, bool of_images, Index tasks, Index images, Index inputs,
               Index features, const typename M::Number* source, const typename M::Number* kernel,
               typename M::Number* target) {
  const Index* from = of_images ? g.result : g.image;
  const Index* to = of_images ? g.image : g.result;
  const Index taps = g.kernel[0] * g.kernel[1], cells = inputs / M::kNumbers;
  const Panels<M> panels(features);
  const auto phases = Phases(g, of_images, cells, features);
  const Index packed_size = taps * cells * panels.padded;
  std::unique_ptr<typename M::Cell[]> packed(new typename M::Cell[tasks * packed_size]);
  for (Index task = 0; task < tasks; ++task)
    Pack<M>(kernel + task * taps * inputs * features, g, of_images, inputs, panels, packed.get() + task * packed_size);
  const Index each = std::max<Index>(1, kPieceFlops / (2 * g.result[0] * g.result[1] * taps * inputs * features + 1));
  Pieces::Run(threads, (tasks * images + each - 1) / each, [&](Index piece) {
    for (Index image = piece * each; image < std::min(tasks * images, (piece + 1) * each); ++image) {
      for (const Phase& phase : phases) {
        const Index size[2] = {phase.row.size, phase.column.size}, begin[2] = {phase.row.begin, phase.column.begin};
        auto* input = Memory<typename M::Cell>(0, size[0] * size[1] * cells);
        if (!phase.runs.empty()) Pad<M>(source + image * from[0] * from[1] * inputs, from, inputs, begin, size, input);
        const auto* panel = packed.get() + image / images * packed_size;
        for (Index first = 0; first < panels.padded; first += Panels<M>::kWidth) {
          CorrelatePanel<M>(phase, input, panel, panels.Width(first), panels.Known(first),
                            target + image * to[0] * to[1] * features + first);
          panel += taps * cells * panels.Width(first);
        }
      }
    }
  });
}

}  // namespace warpjax

#endif  // WARPJAX_CORRELATE_H_
