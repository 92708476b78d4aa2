// Convolutions of images with a kernel, and their gradients, without copies of windows: an XLA FFI handler for CPUs.
//
// Images x[N, H, W, C], kernel k[kh, kw, C, F] and result y[N, h, w, F]; an axis of tasks may be in front of all.

#include "correlate.h"
#include "kernel.h"
#include "winograd.h"

namespace ffi = xla::ffi;

namespace warpjax {
namespace {

template <typename M>
void Compute(Threads& threads, const Geometry& g, Index of, ffi::AnyBuffer left, ffi::AnyBuffer right,
             ffi::AnyBuffer out) {
  const auto a = left.dimensions(), b = right.dimensions();
  const std::size_t lead = a.size() - 4;  // the axis of tasks, if there is one
  const Index tasks = lead ? a[0] : 1, images = a[lead], inputs = a[lead + 3];
  const auto* first = reinterpret_cast<const typename M::Number*>(left.untyped_data());
  const auto* second = reinterpret_cast<const typename M::Number*>(right.untyped_data());
  auto* result = reinterpret_cast<typename M::Number*>(out.untyped_data());
  const Index features = of == 1 ? b[lead + 2] : b[lead + 3];
  if constexpr (!std::is_same_v<M, Rounded>) {
    const Index channels = of == 1 ? features : inputs, outputs = of == 1 ? inputs : features;
    const int tile = BestTile(g, of == 2, channels, outputs);
    const auto in_tiles = [&](auto size) {
      Winograd<typename M::Number, size> tiles(threads, g, tasks, images, channels, outputs);
      if (of == 0) return tiles.Result(first, second, result);
      if (of == 1) return tiles.Images(first, second, result);
      return tiles.Kernel(first, second, result);
    };
    if (tile == 2) return in_tiles(std::integral_constant<int, 2>());
    if (tile == 4) return in_tiles(std::integral_constant<int, 4>());
  }
  if (of == 2) return OfKernel<M>(threads, g, tasks, images, inputs, features, first, second, result);
  Correlate<M>(threads, g, of == 1, tasks, images, inputs, features, first, second, result);
}

// `of`: 0 the result, of images and kernel; 1 the gradient of images, of result and kernel; 2 that of the kernel.
ffi::Error Convolution(ffi::ThreadPool pool, ffi::AnyBuffer left, ffi::AnyBuffer right, ffi::Result<ffi::AnyBuffer> out,
                       Index of, bool rounded, Index threads, ffi::Span<const Index> geometry) {
  Geometry g;
  Threads workers{pool, threads};
  std::copy(geometry.begin(), geometry.end(), g.image);
  if (left.element_type() == ffi::DataType::F64) {
    Compute<Plain<double>>(workers, g, of, left, right, *out);
  } else if (!rounded) {
    Compute<Plain<float>>(workers, g, of, left, right, *out);
  } else if (of != 2 && left.dimensions().back() % Rounded::kNumbers) {
    return ffi::Error::InvalidArgument("rounded products are over an even number of channels");
  } else {
    Compute<Rounded>(workers, g, of, left, right, *out);
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace warpjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(warpjax_convolution, warpjax::Convolution,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<std::int64_t>("of")
                                  .Attr<bool>("rounded")
                                  .Attr<std::int64_t>("threads")
                                  .Attr<ffi::Span<const std::int64_t>>("geometry"));
