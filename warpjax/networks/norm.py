"""Normalisation layers by name: over the batch, or over one example at a time."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from warpjax.checks import check_choice
from warpjax.networks.by_name import Norm

FIXED = ("axis", "axis_name", "axis_index_groups", "use_fast_variance", "force_float32_reductions")


class BatchNorm(nn.BatchNorm):
  """flax's batch norm over all axes but the last, computed as `x * slope + offset`.

  `slope = scale / sqrt(var + epsilon)` and `offset = bias - mean * slope`. Only one product and one sum are as large as
  the activations. Derivatives of every order then read and write activations fewer times than those of
  `(x - mean) * slope + bias`. Parameters, statistics and attributes are those of `flax.linen.BatchNorm`; those of
  `FIXED` keep their defaults.

  Raises:
    ValueError: for another value of one of `FIXED`.

  Example:
    >>> x = jax.random.normal(jax.random.key(0), (100, 3))
    >>> y, _ = BatchNorm(use_running_average=False).init_with_output(jax.random.key(0), 5 + 2 * x)
    >>> print(jnp.mean(y).round(3), jnp.std(y).round(3))
    0.0 1.0

  Reference: Ioffe, Szegedy 2015, arXiv 1502.03167, algorithm 1.
  """

  @nn.compact
  def __call__(
    self, x: jax.Array, use_running_average: bool | None = None, *, mask: jax.Array | None = None
  ) -> jax.Array:
    """`[..., channels] -> [..., channels]`, by the statistics of the examples in `mask`, or by those passed in."""
    for name in FIXED:
      if getattr(self, name) != (default := getattr(nn.BatchNorm, name)):
        raise ValueError(f"{name} must be {default} (flax.linen.BatchNorm has others); got {getattr(self, name)!r}")
    use_given = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
    mean, var = self._stats(x, use_given, mask)
    slope, values = jax.lax.rsqrt(var + self.epsilon), [x]
    if self.use_scale:
      values.append(self.param("scale", self.scale_init, x.shape[-1:], self.param_dtype))
      slope = slope * values[-1]
    offset = -mean * slope
    if self.use_bias:
      values.append(self.param("bias", self.bias_init, x.shape[-1:], self.param_dtype))
      offset = offset + values[-1]
    slope, offset = (jnp.expand_dims(value, range(x.ndim - 1)) for value in (slope, offset))
    return (x * slope + offset).astype(nn.dtypes.canonicalize_dtype(*values, dtype=self.dtype))

  def _stats(self, x: jax.Array, use_given: bool, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    kept = [
      self.variable("batch_stats", name, make, x.shape[-1:], jnp.float32)
      for name, make in (("mean", jnp.zeros), ("var", jnp.ones))
    ]
    if use_given:
      return kept[0].value, kept[1].value
    x, axes = x.astype(jnp.promote_types(x.dtype, jnp.float32)), range(x.ndim - 1)
    mean = jnp.mean(x, axes, where=mask)
    var = _not_negative(jnp.mean(jnp.square(x), axes, where=mask) - jnp.square(mean))
    if not self.is_initializing():
      for variable, value in zip(kept, (mean, var), strict=True):
        variable.value = self.momentum * variable.value + (1 - self.momentum) * value
    return mean, var


@jax.custom_jvp
def _not_negative(variance: jax.Array) -> jax.Array:
  """A variance clipped at zero, which round-off may have made negative, with the derivative of a variance."""
  return jnp.maximum(0.0, variance)


@_not_negative.defjvp
def _not_negative_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
  # `jnp.maximum` would halve the derivative at zero, and lose it where argument and result differ by a rounding.
  return _not_negative(*primals), tangents[0]


def norm_layer(
  kind: str, *, use_running_average: bool, epsilon: float, use_scale: bool, groups: int = 8, **named: Any
) -> nn.Module:
  """A normalisation layer for `[batch, height, width, channels]`.

  Args:
    kind: "batch"; "group", over each example's space and groups of channels; "layer", over its space and all channels.
    use_running_average: For batch norm, whether it uses the statistics passed in.
    epsilon: Added to the variance.
    use_scale: Whether there is a scale in addition to the bias.
    groups: Groups of channels for "group".
    **named: `name`, `dtype`, `param_dtype`.

  Returns:
    The layer.

  Raises:
    ValueError: for an unknown kind.
  """
  check_choice("norm", kind, Norm)
  if kind == "batch":
    return BatchNorm(use_running_average, momentum=0.9, epsilon=epsilon, use_scale=use_scale, **named)
  # flax's fast variance is clipped by a maximum, whose derivative rests on two numbers being equal.
  exact: dict[str, Any] = {"use_fast_variance": False, **named}
  return nn.GroupNorm(1 if kind == "layer" else groups, epsilon=epsilon, use_scale=use_scale, **exact)
