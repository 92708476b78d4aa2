#ifndef WARPJAX_KERNEL_H_
#define WARPJAX_KERNEL_H_

// The gradient of a convolution with respect to its kernel: sums over pixels.

#include "geometry.h"
#include "padding.h"
#include "pieces.h"

namespace warpjax {

constexpr Index kPartFlops = 20000000;
constexpr Index kMostParts = 8;
constexpr Index kCacheBytes = 1 << 18;  // of padded images and the result: they stay in a second cache

// The gradient of a panel of the kernel, added to `total`, `[tap, channel, width]`. Number n of the kernel meets cell k
// of the result at `input[numbers[n] + reads[k]]`.
template <typename M>
void KernelPanel(const typename M::Cell* input, const std::vector<Index>& numbers, const std::vector<Index>& reads,
                 Index length, const typename M::Cell* output, Index width, typename M::Number* total) {
  const Index count = numbers.size();
  for (Index number = 0; number < count; number += kRows)
    WithSizes(std::min<Index>(kRows, count - number), width == M::kLanes, [&](auto rows, auto vectors) {
      constexpr int P = rows, V = vectors;
      const typename M::Cell* from[P];
      for (int p = 0; p < P; ++p) from[p] = input + numbers[number + p];
      const Index* places = reads.data();
      typename M::Vector sums[P][V] = {};
      Accumulate<M, P, V>([&](int p, Index k) { return from[p][places[k]]; }, output, length, sums);
      auto* place = total + number * width;
      for (int p = 0; p < P; ++p, place += width)
        for (int v = 0; v < V; ++v) *reinterpret_cast<typename M::Vector*>(place + v * M::kLanes) += sums[p][v];
    });
}

// A panel of the result of images as cells of pixels that follow one another in a row, `[row, cell, width]`.
template <typename M>
void ResultPanel(const Geometry& g, const typename M::Number* y, Index images, Index features, Index width, Index known,
                 typename M::Cell* to) {
  for (Index row = 0; row < images * g.result[0]; ++row, y += g.result[1] * features)
    for (Index j = 0; j < g.result[1]; j += M::kNumbers, to += width) {
      if (j + M::kNumbers <= g.result[1]) {
        M::Make(y + j * features, (M::kNumbers - 1) * features, 1, known, to);
      } else {
        for (Index feature = 0; feature < known; ++feature) to[feature] = M::Make(y[j * features + feature], 0);
      }
      Zeros<M>(width - known, to + known);
    }
}

// The gradient of the kernel, for all tasks.
template <typename M>
void OfKernel(Threads& threads, const Geometry& g, Index tasks, Index images, Index channels, Index features,
              const typename M::Number* x, const typename M::Number* y, typename M::Number* target) {
  using Number = typename M::Number;
  const Panels<M> panels(features);
  const Index taps = g.kernel[0] * g.kernel[1], numbers = taps * channels * panels.padded;
  Index begin[2], size[2];
  for (const int axis : {0, 1}) Extend(Axes(g, axis, false), begin[axis], size[axis]);
  const Index pixels = g.result[0] * g.result[1], padded_size = size[0] * size[1] * channels;
  const Index cells = g.result[0] * ((g.result[1] + M::kNumbers - 1) / M::kNumbers);
  // Parts of a task's images, each with a sum of its own; in a part, as many images at a time as fit in a cache.
  const Index each = std::max<Index>(1, kPartFlops / (2 * pixels * taps * channels * features + 1));
  const Index parts = std::max<Index>(1, std::min<Index>(kMostParts, images / each));
  const Index most = kCacheBytes / static_cast<Index>(sizeof(Number)) / (padded_size + pixels * features + 1);
  const Index group = std::max<Index>(1, std::min(images, most));
  std::vector<Index> kernel, reads;
  for (Index tap = 0; tap < taps; ++tap)
    for (Index channel = 0; channel < channels; ++channel) {
      const Index pixel = tap / g.kernel[1] * g.dilation[0] * size[1] + tap % g.kernel[1] * g.dilation[1];
      kernel.push_back(pixel * channels + channel);
    }
  for (Index image = 0; image < group; ++image)
    for (Index i = 0; i < g.result[0]; ++i)
      for (Index j = 0; j < g.result[1]; j += M::kNumbers)
        reads.push_back(image * padded_size + (i * g.strides[0] * size[1] + j * g.strides[1]) * channels);
  std::unique_ptr<Number[]> sums(new Number[tasks * parts * numbers]);
  Pieces::Run(threads, tasks * parts, [&](Index piece) {
    const Index task = piece / parts, part = piece % parts, end = images * (part + 1) / parts;
    std::fill_n(sums.get() + piece * numbers, numbers, Number(0));
    for (Index start = images * part / parts; start < end; start += group) {
      const Index count = std::min(group, end - start);
      auto* input = Memory<typename M::Cell>(0, count * padded_size);
      for (Index image = 0; image < count; ++image)
        PadPixels<M>(x + (task * images + start + image) * g.image[0] * g.image[1] * channels, g.image, channels, begin,
                     size, M::kNumbers == 1 ? 0 : g.strides[1], input + image * padded_size);
      Number* total = sums.get() + piece * numbers;
      for (Index first = 0; first < panels.padded; first += Panels<M>::kWidth) {
        const Index width = panels.Width(first);
        auto* panel = Memory<typename M::Cell>(1, count * cells * width);
        ResultPanel<M>(g, y + (task * images + start) * pixels * features + first, count, features, width,
                       panels.Known(first), panel);
        KernelPanel<M>(input, kernel, reads, count * cells, panel, width, total);
        total += taps * channels * width;
      }
    }
  });
  for (Index task = 0; task < tasks; ++task) {
    Number* sum = sums.get() + task * parts * numbers;
    for (Index part = 1; part < parts; ++part)
      for (Index number = 0; number < numbers; ++number) sum[number] += sum[part * numbers + number];
    for (Index first = 0; first < panels.padded; first += Panels<M>::kWidth)
      for (Index input = 0; input < taps * channels; ++input, sum += panels.Width(first))
        std::copy_n(sum, panels.Known(first), target + (task * taps * channels + input) * features + first);
  }
}

}  // namespace warpjax

#endif  // WARPJAX_KERNEL_H_
