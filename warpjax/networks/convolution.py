"""The convolution as a primitive whose derivatives of every order are convolutions of the same kind.

Images `x`, kernel `k` and result `y` of a convolution have one trilinear form, the sum of `y * convolve(x, k)`. So each
of the three is a bilinear map of the other two: `of="y"` is the convolution, `of="x"` its gradient with respect to the
images, and `of="k"` with respect to the kernel. The derivatives of each are the other two. Differentiation therefore
never sees the windows by which they are computed, and stores images, which are nine times smaller for a 3x3 kernel.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from warpjax.networks import native, windows
from warpjax.networks.windows import Geometry

Of = Literal["y", "x", "k"]

AXES = {"x": "NHWC", "k": "ijCF", "y": "NhwF"}
OPERANDS: dict[str, tuple[Of, Of]] = {"y": ("x", "k"), "x": ("y", "k"), "k": ("x", "y")}
OWN = {"y": "NF", "x": "NC", "k": "CF"}
"""The axis that each operand has in common with the result alone."""


def convolve(x: jax.Array, kernel: jax.Array, geometry: Geometry, *, rounded: bool, precision: Any) -> jax.Array:
  """The convolution of images with a kernel.

  Args:
    x: `[batch, height, width, channels]`.
    kernel: `[rows, columns, channels, features]`, of the dtype of `x`.
    geometry: Extents, strides, padding and dilation.
    rounded: Whether products take operands rounded to bfloat16 and sum them in float32; for float32 arrays.
    precision: Precision of the matrix products.

  Returns:
    `[batch, rows, columns, features]`.
  """
  return _bind(x, kernel, of="y", geometry=geometry, rounded=rounded, precision=precision)


_convolution_p = Primitive("convolution")


def _bind(left: jax.Array, right: jax.Array, **params: Any) -> jax.Array:
  operands = [left, right]
  varying: list[frozenset] = [getattr(jax.typeof(each), "vma", frozenset()) for each in operands]
  for i, missing in enumerate((varying[1] - varying[0], varying[0] - varying[1])):
    if missing:  # inside `shard_map`, a primitive wants operands that vary over the same axes
      operands[i] = lax.pcast(operands[i], tuple(missing), to="varying")
  return _convolution_p.bind(*operands, **params)


def _result(left: Any, right: Any, *, of: Of, geometry: Geometry, **_: Any) -> jax.core.ShapedArray:
  extents = dict(zip("HWijhw", (*geometry.image, *geometry.kernel, *geometry.result), strict=True))
  for name, operand in zip(OPERANDS[of], (left, right), strict=True):
    extents |= dict(zip(AXES[name], operand.shape[-4:], strict=True))
  varying = {"vma": left.vma} if getattr(left, "vma", None) else {}
  shape = (*left.shape[:-4], *(extents[axis] for axis in AXES[of]))
  return jax.core.ShapedArray(shape, left.dtype, **varying)


def _cotangent(slot: int, ct: jax.Array, left: Any, right: Any, *, of: Of, **params: Any) -> jax.Array:
  """The cotangent of an operand: the same primitive of the result's cotangent and the other operand."""
  wanted, kept = OPERANDS[of][slot], OPERANDS[of][1 - slot]
  known = {of: ct, kept: (right, left)[slot]}
  return _bind(*(known[name] for name in OPERANDS[wanted]), of=wanted, **params)


def _batched(operands: Sequence[jax.Array], axes: Sequence[int | None], **params: Any) -> tuple[jax.Array, int]:
  """A new axis of both operands is one of tasks. One of a single operand is folded into an axis of its own."""
  if None not in axes:
    stacked = [jnp.moveaxis(each, axis or 0, 0) for each, axis in zip(operands, axes, strict=True)]
    if stacked[0].ndim == 5:
      return _bind(*stacked, **params), 0
    tasks = stacked[0].shape[:2]
    out = _bind(*(each.reshape(-1, *each.shape[2:]) for each in stacked), **params)
    return out.reshape(*tasks, *out.shape[1:]), 0
  slot = int(axes[0] is None)
  axis = axes[slot]
  assert axis is not None
  letter, name = OWN[params["of"]][slot], OPERANDS[params["of"]][slot]
  place = operands[slot].ndim - 1 - 4 + AXES[name].index(letter)
  folded = jnp.moveaxis(operands[slot], axis, place)
  size = folded.shape[place]
  folded = folded.reshape(*folded.shape[:place], -1, *folded.shape[place + 2 :])
  out = _bind(*(folded if i == slot else each for i, each in enumerate(operands)), **params)
  place = out.ndim - 4 + AXES[params["of"]].index(letter)
  return out.reshape(*out.shape[:place], size, -1, *out.shape[place + 1 :]), place


def _on_cpu(context: mlir.LoweringRuleContext, left: Any, right: Any, **params: Any) -> Any:
  of, image = params["of"], context.avals_in[0]
  assert isinstance(image, jax.core.ShapedArray)
  if params["rounded"]:
    # XLA's own products of bfloat16 are slow on CPUs, in most orders of axes. Native ones take pairs of channels.
    if native.serves(image.dtype) and (of == "k" or image.shape[-1] % 2 == 0):
      return native.lowering(context, left, right, of, params["geometry"], rounded=True)
    return mlir.lower_fun(_rounded_first, multiple_results=False)(context, left, right, **params)
  if native.serves(image.dtype):
    return native.lowering(context, left, right, of, params["geometry"], rounded=False)
  blocks = functools.partial(windows.compute_in_blocks, of=of, geometry=params["geometry"])
  return mlir.lower_fun(blocks, multiple_results=False)(context, left, right, precision=params["precision"])


def _rounded_first(left: jax.Array, right: jax.Array, **params: Any) -> jax.Array:
  left, right = (lax.reduce_precision(each, exponent_bits=8, mantissa_bits=7) for each in (left, right))
  return _convolution_p.bind(left, right, **{**params, "rounded": False})


_PARAMS = ("of", "geometry", "rounded", "precision")
_convolution_p.def_impl(jax.jit(_convolution_p.bind, static_argnames=_PARAMS))
_convolution_p.def_abstract_eval(_result)
ad.defbilinear(_convolution_p, functools.partial(_cotangent, 0), functools.partial(_cotangent, 1))
batching.primitive_batchers[_convolution_p] = _batched
mlir.register_lowering(_convolution_p, mlir.lower_fun(windows.compute, multiple_results=False))
mlir.register_lowering(_convolution_p, _on_cpu, platform="cpu")
