#ifndef WARPJAX_WINOGRAD_H_
#define WARPJAX_WINOGRAD_H_

// Convolutions by 3x3 kernels at stride 1 with 16 products instead of 36 for each tile of 2x2 results, or 36 instead of
// 144 for 4x4.
//
// The trilinear form of images, kernel and result is a sum over points of products of the transformed three. So each
// of the three maps is one matrix product for each point: over channels, over features, or over tiles. The transforms
// of 2x2 results only add and halve numbers, and the rounding is about that of plain sums; those of 4x4 lose some three
// bits. A number that is not finite makes all results of its tiles NaN.

#include <array>

#include "geometry.h"
#include "padding.h"
#include "pieces.h"
#include "tiles.h"

namespace warpjax {

constexpr Index kTileBytes = 3 << 17;   // size of the transformed tiles that are multiplied at a time
constexpr Index kFrameBytes = 1 << 18;  // size of the images and results that are read together
constexpr Index kTilesFlops = 8000000;  // the smallest piece of work
constexpr Index kMostSums = 8;          // parts of a task's images, each with a sum for the gradient of its kernel
constexpr Index kSumBytes = 1 << 25;    // size of the sums of all tasks; at least one part of each

// The tile that takes the least time, or 0 where the products of all taps do.
inline int BestTile(const Geometry& g, bool of_kernel, Index channels, Index features) {
  for (const int axis : {0, 1})
    if (g.kernel[axis] != 3 || g.strides[axis] != 1 || g.dilation[axis] != 1) return 0;
  const Index products = channels * features;
  Index least = 6 * 9 * g.result[0] * g.result[1] * products;
  int best = 0;
  // Measured: the transforms of a channel of a point cost as much as so many products.
  for (const auto [tile, of_map, of_sums] : {std::array<int, 3>{2, 9, 5}, {4, 16, 12}}) {
    const Index tiles = (g.result[0] + tile - 1) / tile * ((g.result[1] + tile - 1) / tile);
    const Index transform = (of_kernel ? of_sums : of_map) * (channels + features);
    const Index cost = 7 * (tile + 2) * (tile + 2) * tiles * (products + transform);
    if (cost < least) least = cost, best = tile;
  }
  return best;
}

// The three maps of one convolution. Arrays of points are `[point, panel, row, width]`: a panel has some channels.
template <typename T, int kTile>
class Winograd {
  using M = Plain<T>;
  using V = typename M::Vector;
  using ImagePoints = typename Transforms<kTile>::ImagePoints;
  using PointsImage = typename Transforms<kTile>::PointsImage;
  using KernelPoints = typename Transforms<kTile>::KernelPoints;
  using PointsKernel = typename Transforms<kTile>::PointsKernel;
  using ResultPoints = typename Transforms<kTile>::ResultPoints;
  using PointsResult = typename Transforms<kTile>::PointsResult;
  static constexpr Index kLanes = M::kLanes;
  static constexpr int kPoints = kTile + 2, kAllPoints = kPoints * kPoints;

 public:
  Winograd(Threads& threads, const Geometry& g, Index tasks, Index images, Index channels, Index features)
      : threads_(threads),
        tasks_(tasks),
        images_(images),
        rows_((g.result[0] + kTile - 1) / kTile),
        columns_((g.result[1] + kTile - 1) / kTile),
        image_(g.image, g.low[0], g.low[1], kTile * rows_ + 2, kTile * columns_ + 2, channels),
        result_(g.result, 0, 0, kTile * rows_, kTile * columns_, features) {
    const Index both = (image_.Numbers() + result_.Numbers()) * sizeof(T);
    group_ = std::max<Index>(1, std::min(images, kFrameBytes / both));
    most_ = std::max<Index>(1, kTileBytes / (kAllPoints * (image_.wide + result_.wide) * sizeof(T) * kRows)) * kRows;
    const Index flops = 2 * kAllPoints * rows_ * columns_ * channels * features;
    each_ = std::max(group_, kTilesFlops / (flops + 1) / group_ * group_);
  }

  // The result, of images and kernel.
  void Result(const T* x, const T* kernel, T* y) {
    Map<ImagePoints, PointsResult>(image_, result_, result_.channels, 1, x, kernel, y);
  }

  // The gradient of images, of result and kernel.
  void Images(const T* y, const T* kernel, T* x) {
    Map<ResultPoints, PointsImage>(result_, image_, 1, result_.channels, y, kernel, x);
  }

  // The gradient of the kernel, of images and result.
  void Kernel(const T* x, const T* y, T* kernel) {
    const Panels<M> panels(result_.channels);
    const Index numbers = kAllPoints * Apart(image_.channels * panels.padded);
    const Index most = std::min(kMostSums, kSumBytes / (numbers * static_cast<Index>(sizeof(T)) * tasks_ + 1));
    const Index parts = std::max<Index>(1, std::min(most, (images_ + each_ - 1) / each_));
    std::unique_ptr<T[]> sums(new T[tasks_ * parts * numbers]);
    Pieces::Run(threads_, tasks_ * parts, [&](Index piece) {
      const Index task = piece / parts, part = piece % parts, last = images_ * (part + 1) / parts;
      T* sum = sums.get() + piece * numbers;
      std::fill_n(sum, numbers, T(0));
      for (Index start = images_ * part / parts; start < last; start += group_) {
        const Index count = std::min(group_, last - start);
        const T* in = Framed(image_, x, task * images_ + start, count, 0);
        const T* out = Framed(result_, y, task * images_ + start, count, 1);
        InBlocks(count, [&](Index tile, Index tiles) {
          T* left = Memory<T>(2, kAllPoints * (Apart(most_ * image_.wide) + Apart(most_ * result_.wide)));
          T* right = left + kAllPoints * Apart(most_ * image_.wide);
          ToPoints<ImagePoints>(image_, in, tile, tiles, image_.wide, left);
          ToPoints<ResultPoints>(result_, out, tile, tiles, Panels<M>::kWidth, right);
          OverTiles(panels, tiles, left, right, sum);
        });
      }
    });
    Pieces::Run(threads_, tasks_, [&](Index task) {
      T* sum = sums.get() + task * parts * numbers;
      for (Index part = 1; part < parts; ++part)
        for (Index number = 0; number < numbers; ++number) sum[number] += sum[part * numbers + number];
      Unpack(panels, sum, kernel + task * 9 * image_.channels * result_.channels);
    });
  }

 private:
  // The numbers of a point and a line of the cache, so that those of all points do not meet in one set of it.
  static Index Apart(Index numbers) { return numbers + kLanes; }

  // Images of a group in their frames, in memory of this thread.
  const T* Framed(const Frame<T>& frame, const T* images, Index first, Index count, int slot) const {
    T* to = Memory<T>(slot, group_ * frame.Numbers());
    for (Index i = 0; i < count; ++i) frame.Read(images + (first + i) * frame.Outside(), to + i * frame.Numbers());
    return to;
  }

  // Calls `work(first, count)` for the tiles of some images, at most `most_` at a time.
  template <typename F>
  void InBlocks(Index images, const F& work) const {
    const Index tiles = images * rows_ * columns_, blocks = (tiles + most_ - 1) / most_;
    for (Index block = 0; block < blocks; ++block) {
      const Index first = tiles * block / blocks;
      work(first, tiles * (block + 1) / blocks - first);
    }
  }

  // Where a tile begins in the frames of its group.
  Index Place(const Frame<T>& frame, Index tile) const {
    const Index image = tile / (rows_ * columns_), row = tile / columns_ % rows_, column = tile % columns_;
    return image * frame.Numbers() + kTile * (row * frame.Row() + column * frame.wide);
  }

  // The points of tiles, whose rows are the tiles; a panel has `width` channels.
  template <typename F>
  void ToPoints(const Frame<T>& frame, const T* from, Index first, Index tiles, Index width, T* to) const {
    const Index point = Apart(tiles * frame.wide);
    for (Index tile = 0; tile < tiles; ++tile) {
      const T* corner = from + Place(frame, first + tile);
      for (Index start = 0; start < frame.wide; start += width) {
        const Index known = std::min(width, frame.wide - start);
        for (Index lane = 0; lane < known; lane += kLanes) {
          V in[F::kFrom][F::kFrom], out[kPoints][kPoints];
          Load(corner + start + lane, frame.Row(), frame.wide, in);
          Both<F>(in, out);
          Store(out, false, kPoints * point, point, to + start * tiles + tile * known + lane);
        }
      }
    }
  }

  // Tiles of such points, of one panel; where tiles overlap they are added.
  template <typename F>
  void FromPoints(const Frame<T>& frame, const T* from, Index first, Index tiles, T* to) const {
    const Index point = Apart(tiles * frame.wide);
    for (Index tile = 0; tile < tiles; ++tile) {
      T* corner = to + Place(frame, first + tile);
      for (Index lane = 0; lane < frame.wide; lane += kLanes) {
        V in[kPoints][kPoints], out[F::kTo][F::kTo];
        Load(from + tile * frame.wide + lane, kPoints * point, point, in);
        Both<F>(in, out);
        Store(out, F::kTo > kTile, frame.Row(), frame.wide, corner + lane);
      }
    }
  }

  // The result, or the gradient of images. The numbers of a kernel are `to_input` and `to_output` apart.
  template <typename In, typename Out>
  void Map(const Frame<T>& source, const Frame<T>& target, Index to_input, Index to_output, const T* from,
           const T* kernel, T* to) {
    const Panels<M> panels(target.channels);
    const Index packed_size = kAllPoints * Apart(source.channels * panels.padded);
    const Index pieces = (images_ + each_ - 1) / each_;
    std::unique_ptr<T[]> packed(new T[tasks_ * packed_size]);
    Pieces::Run(threads_, tasks_, [&](Index task) {
      Pack(kernel + task * 9 * source.channels * target.channels, source.channels, to_input, to_output, panels,
           packed.get() + task * packed_size);
    });
    Pieces::Run(threads_, tasks_ * pieces, [&](Index piece) {
      const Index task = piece / pieces, end = std::min(images_, (piece % pieces + 1) * each_);
      for (Index start = piece % pieces * each_; start < end; start += group_) {
        const Index count = std::min(group_, end - start), image = task * images_ + start;
        const T* in = Framed(source, from, image, count, 0);
        T* out = Memory<T>(1, group_ * target.Numbers());
        if (Out::kTo > kTile) std::fill_n(out, count * target.Numbers(), T(0));
        InBlocks(count, [&](Index tile, Index tiles) {
          T* left = Memory<T>(2, kAllPoints * (Apart(most_ * source.wide) + Apart(most_ * target.wide)));
          T* sums = left + kAllPoints * Apart(most_ * source.wide);
          ToPoints<In>(source, in, tile, tiles, source.wide, left);
          OverChannels(panels, source, tiles, left, packed.get() + task * packed_size, sums);
          FromPoints<Out>(target, sums, tile, tiles, out);
        });
        for (Index i = 0; i < count; ++i)
          target.Write(out + i * target.Numbers(), to + (image + i) * target.Outside());
      }
    });
  }

  // The points of a task's kernel, whose rows are its inputs.
  void Pack(const T* kernel, Index inputs, Index to_input, Index to_output, const Panels<M>& panels, T* to) const {
    const Index point = Apart(inputs * panels.padded), tap = inputs * panels.features;
    for (Index first = 0; first < panels.padded; first += Panels<M>::kWidth, to += inputs * Panels<M>::kWidth) {
      const Index width = panels.Width(first);
      for (Index input = 0; input < inputs; ++input)
        for (Index lane = 0; lane < width; lane += kLanes) {
          const T* one = kernel + input * to_input + (first + lane) * to_output;
          V in[3][3] = {}, out[kPoints][kPoints];
          for (V(&row)[3] : in)
            for (V& numbers : row) {
              const Index known = std::min(kLanes, panels.features - first - lane);
              M::Make(one, 0, to_output, known, reinterpret_cast<T*>(&numbers));
              one += tap;
            }
          Both<KernelPoints>(in, out);
          Store(out, false, kPoints * point, point, to + input * width + lane);
        }
    }
  }

  // The gradient of a task's kernel, of its points, whose rows are channels.
  void Unpack(const Panels<M>& panels, const T* from, T* kernel) const {
    const Index channels = image_.channels, point = Apart(channels * panels.padded), tap = channels * panels.features;
    for (Index first = 0; first < panels.padded; first += Panels<M>::kWidth, from += channels * Panels<M>::kWidth) {
      const Index width = panels.Width(first);
      for (Index channel = 0; channel < channels; ++channel)
        for (Index lane = 0; lane < width; lane += kLanes) {
          V in[kPoints][kPoints], out[3][3];
          Load(from + channel * width + lane, kPoints * point, point, in);
          Both<PointsKernel>(in, out);
          T* one = kernel + channel * panels.features + first + lane;
          for (const V(&row)[3] : out)
            for (const V& numbers : row) {
              std::copy_n(reinterpret_cast<const T*>(&numbers), std::min(kLanes, panels.features - first - lane), one);
              one += tap;
            }
        }
    }
  }

  // At each point the product of tiles and a kernel.
  void OverChannels(const Panels<M>& panels, const Frame<T>& source, Index tiles, const T* left, const T* right,
                    T* to) const {
    for (Index point = 0; point < kAllPoints; ++point) {
      for (Index first = 0; first < panels.padded; first += Panels<M>::kWidth) {
        const Index width = panels.Width(first), size = source.channels * width;
        for (Index tile = 0; tile < tiles; tile += kRows)
          WithSizes(std::min<Index>(kRows, tiles - tile), width == kLanes, [&](auto rows, auto vectors) {
            constexpr int P = rows, N = vectors;
            V total[P][N] = {};
            const T* from = left + tile * source.wide;
            // The next panel comes from a second cache meanwhile.
            for (Index n = size * tile / tiles; n < size * (tile + P) / tiles; n += kLanes)
              __builtin_prefetch(right + size + n);
            Accumulate<M, P, N>([&](int p, Index k) { return from[p * source.wide + k]; }, right, source.channels,
                                total);
            for (int p = 0; p < P; ++p)
              for (int v = 0; v < N; ++v)
                *reinterpret_cast<V*>(to + (tile + p) * panels.padded + first + v * kLanes) = total[p][v];
          });
        right += size;
      }
      left += Apart(tiles * source.wide), right += Apart(0), to += Apart(tiles * panels.padded);
    }
  }

  // At each point the product of channels and features over tiles, added to `sum`.
  void OverTiles(const Panels<M>& panels, Index tiles, const T* left, const T* right, T* sum) const {
    for (Index point = 0; point < kAllPoints; ++point) {
      for (Index first = 0; first < panels.padded; first += Panels<M>::kWidth) {
        const Index width = panels.Width(first);
        for (Index channel = 0; channel < image_.channels; channel += kRows)
          WithSizes(std::min<Index>(kRows, image_.channels - channel), width == kLanes, [&](auto rows, auto vectors) {
            constexpr int P = rows, N = vectors;
            V total[P][N] = {};
            const T* from = left + channel;
            Accumulate<M, P, N>([&](int p, Index k) { return from[k * image_.wide + p]; }, right, tiles, total);
            T* place = sum + channel * width;
            for (int p = 0; p < P; ++p)
              for (int v = 0; v < N; ++v) *reinterpret_cast<V*>(place + p * width + v * kLanes) += total[p][v];
          });
        right += tiles * width, sum += image_.channels * width;
      }
      left += Apart(tiles * image_.wide), right += Apart(0), sum += Apart(0);
    }
  }

  Threads& threads_;
  const Index tasks_, images_, rows_, columns_;
  const Frame<T> image_, result_;
  Index group_, most_, each_;
};

}  // namespace warpjax

#endif  // WARPJAX_WINOGRAD_H_
