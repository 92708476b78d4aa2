"""A causal transformer over tokens for test-time training: the MLPs of its last blocks adapt to a task."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from warpjax.checks import check_counts
from warpjax.networks.by_name import Dtype, ParamDtype
from warpjax.networks.mlp import WARP_KINDS
from warpjax.networks.warp import Warp, WarpSpec, check

ROTARY_BASE = 10_000.0
MLP = "mlp"
ADAPTING = "adapting"
HEAD_VARIANCE = 0.1  # variance of the first logits: the first loss is near that of a uniform guess


class Transformer(nn.Module):
  """`tokens [..., length] -> logits [..., length, num_outputs]`: blocks of windowed attention and an MLP.

  A block is `x + attention(norm(x))`, then `x + mlp(norm(x))`, with RMSNorm, rotary positions and no biases. A last
  norm and a linear head follow.

  Attributes:
    num_outputs: Vocabulary size; inputs are integers below it.
    num_blocks: Blocks.
    width: Width of the residual stream.
    num_heads: Heads of the attention, a divisor of `width` with an even quotient.
    hidden: Width of an MLP's hidden layer.
    window: A token attends to the last `window` tokens, itself included.
    num_adapting: The last blocks, whose MLPs adapt under `last_mlps`; 0 for a quarter of all, at least one.
    warp: Linear warp-layers or scales before and after each of these MLPs, `warp_in` and `warp_out`; `None` for none.
    scan: Whether the blocks are a loop, which compiles as fast for many as for one. Their parameters are stacked,
      `[blocks, ...]`: "adapting" those of the blocks whose MLPs adapt, "fixed" those of the others.
    remat: Whether a backward pass computes the activations of each block again instead of storing them. On a CPU this
      saves memory only with `scan`. Without it XLA merges the recomputation with the forward pass.
    dtype: Compute dtype; default: that of the parameters.
    param_dtype: Dtype of the parameters; `float` is the default float of JAX.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> network = Transformer(num_outputs=256, num_blocks=1, width=8, num_heads=2, hidden=16, window=4)
    >>> logits, _ = network.init_with_output(jax.random.key(0), jnp.zeros(12, jnp.int32))
    >>> logits.shape
    (12, 256)

  Reference:
    Su et al. 2021, arXiv 2104.09864 (rotary positions); Zhang and Sennrich 2019, arXiv 1910.07467 (RMSNorm).
  """

  num_outputs: int = 256
  num_blocks: int = 4
  width: int = 128
  num_heads: int = 4
  hidden: int = 512
  window: int = 64
  num_adapting: int = 0
  warp: WarpSpec | None = None
  scan: bool = False
  remat: bool = False
  dtype: Dtype | None = None
  param_dtype: ParamDtype = float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """`[..., length] -> [..., length, num_outputs]`."""
    _check(self)
    dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    init = nn.initializers.normal(self.width**-0.5)
    block: Any = nn.remat(_Block, prevent_cse=not self.scan) if self.remat else _Block
    make = partial(block, self.num_heads, self.hidden, self.window, self.num_blocks, **dtypes)
    first = self.num_blocks - adapting(self)
    x = nn.Embed(self.num_outputs, self.width, embedding_init=init, **dtypes, name="embed")(x.astype(jnp.int32))
    if self.scan:
      for name, count, warp in (("fixed", first, None), (ADAPTING, self.num_blocks - first, self.warp)):
        x = _scanned(make(warp, name=name), count, x) if count else x
    else:
      for i in range(self.num_blocks):
        x = make(self.warp if i >= first else None, name=f"block_{i}")(x)
    small = nn.initializers.variance_scaling(HEAD_VARIANCE, "fan_in", "truncated_normal")
    x = nn.RMSNorm(**dtypes, name="norm")(x)
    return nn.Dense(self.num_outputs, use_bias=False, kernel_init=small, **dtypes, name="head")(x)


def _scanned(block: Callable[[jax.Array], jax.Array], count: int, x: jax.Array) -> jax.Array:
  """`count` blocks, one after another, as one loop."""
  step = lambda block, x, _: (block(x), None)
  return nn.scan(step, variable_axes={"params": 0}, split_rngs={"params": True}, length=count)(block, x, None)[0]


class _Block(nn.Module):
  """Attention and an MLP, each added to its input."""

  num_heads: int
  hidden: int
  window: int
  num_blocks: int
  warp: WarpSpec | None
  dtype: Dtype | None
  param_dtype: ParamDtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
    # The branches of all blocks add up to the variance of one.
    out = nn.initializers.variance_scaling(1 / (2 * self.num_blocks), "fan_in", "truncated_normal")
    attention = _Attention(self.num_heads, self.window, out, **dtypes, name="attention")
    x = x + attention(nn.RMSNorm(**dtypes, name="norm_attention")(x))
    warp = lambda name: Warp(self.warp, **dtypes, name=name) if self.warp else lambda h: h
    h = warp("warp_in")(nn.RMSNorm(**dtypes, name="norm_mlp")(x))
    return x + warp("warp_out")(_MLP(self.hidden, out, **dtypes, name=MLP)(h))


class _MLP(nn.Module):
  hidden: int
  out_init: Callable[..., jax.Array]
  dtype: Dtype | None
  param_dtype: ParamDtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    settings: dict[str, Any] = {"use_bias": False, "dtype": self.dtype, "param_dtype": self.param_dtype}
    h = nn.gelu(nn.Dense(self.hidden, **settings, name="in")(x))
    return nn.Dense(x.shape[-1], kernel_init=self.out_init, **settings, name="out")(h)


class _Attention(nn.Module):
  num_heads: int
  window: int
  out_init: Callable[..., jax.Array]
  dtype: Dtype | None
  param_dtype: ParamDtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    length, width = x.shape[-2:]
    settings: dict[str, Any] = {"use_bias": False, "dtype": self.dtype, "param_dtype": self.param_dtype}
    qkv = nn.Dense(3 * width, **settings, name="qkv")(x)
    q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:-1], 3, self.num_heads, width // self.num_heads), -3, 0)
    q, k = rotated(q), rotated(k)
    scores = jnp.einsum("...qhd,...khd->...hqk", q, k) * q.shape[-1] ** -0.5
    scores = jnp.where(window_mask(length, self.window), scores, jnp.finfo(scores.dtype).min)
    mixed = jnp.einsum("...hqk,...khd->...qhd", jax.nn.softmax(scores, axis=-1), v)
    return nn.Dense(width, kernel_init=self.out_init, **settings, name="out")(mixed.reshape(x.shape))


def rotated(x: jax.Array) -> jax.Array:
  """Rotary positions: pairs of features turned by angles in proportion to the position; `[..., length, heads, size]`.

  Example:
    >>> import jax.numpy as jnp
    >>> rotated(jnp.ones((2, 1, 2))).round(2).tolist()
    [[[1.0, 1.0]], [[-0.3, 1.38]]]
  """
  length, size = x.shape[-3], x.shape[-1]
  frequencies = ROTARY_BASE ** (-jnp.arange(0, size, 2) / size)
  angles = (jnp.arange(length)[:, None] * frequencies)[:, None]
  cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
  first, second = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def window_mask(length: int, window: int) -> jax.Array:
  """Which tokens each one attends to: the last `window`, itself included; `[length, length]`.

  Example:
    >>> window_mask(3, 2).astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
  """
  behind = jnp.arange(length)[:, None] - jnp.arange(length)
  return (behind >= 0) & (behind < window)


def adapting(module: Transformer) -> int:
  """The number of last blocks whose MLPs adapt: `num_adapting`, or a quarter of the blocks, at least one."""
  return module.num_adapting or max(1, module.num_blocks // 4)


def last_mlps(module: Transformer) -> Callable[[tuple[Any, ...]], bool]:
  """The `is_shared` of `from_linen` under which only the MLPs of the last blocks adapt.

  Example:
    >>> is_shared = last_mlps(Transformer(num_blocks=4))
    >>> [is_shared((f"block_{i}", "mlp", "in", "kernel")) for i in range(4)], is_shared(("embed", "embedding"))
    ([True, True, True, False], True)
  """
  blocks = {ADAPTING, *(f"block_{i}" for i in range(module.num_blocks - adapting(module), module.num_blocks))}
  return lambda path: not (path[0] in blocks and path[1] == MLP)


def _check(module: Transformer) -> None:
  names = ("num_outputs", "num_blocks", "width", "num_heads", "hidden", "window")
  check_counts(**{name: getattr(module, name) for name in names})
  if module.width % (2 * module.num_heads):
    raise ValueError(f"width must be a multiple of 2 * num_heads, {2 * module.num_heads}; got {module.width}")
  if not 0 <= module.num_adapting <= module.num_blocks:
    raise ValueError(f"num_adapting must be 0 to num_blocks, {module.num_blocks}; got {module.num_adapting}")
  if module.warp is not None:
    check(module.warp, WARP_KINDS)
    if module.scan and module.warp.batch_norm:
      raise ValueError("warp.batch_norm must be False with scan, whose blocks keep no statistics; got True")
