"""L2L: a coordinate-wise LSTM that turns gradients into updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from warpjax.checks import check_count, check_real
from warpjax.rules import lstm
from warpjax.types import Params, PyTree, UpdateRule


def l2l_lstm(units: Sequence[int] = (20, 20), *, p: float | None = 5.0, scale: float = 0.01) -> UpdateRule:
  """`theta <- theta + scale * (W h + b)`, h the output of LSTMs that read the coordinate's gradient.

  All coordinates share the weights, and each has a state of its own, so that a trained rule runs on parameters of any
  shape. The paper holds the gradient constant, and sums the losses along the way: `truncated_unroll(inner, 20)`, which
  has their mean.

  Args:
    units: Width of each layer.
    p: Gradients are read as `log_and_sign` with this p; 0 or None reads them unchanged, as the paper's quadratics do,
      with a scale of 1.
    scale: Scale of the update.

  Returns:
    An `UpdateRule` whose rule parameters are the weights.

  Raises:
    ValueError: without a layer, or for a number out of range.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> weights = l2l_lstm((20, 20)).init(jax.random.key(0), {"w": jnp.zeros((3, 2))})
    >>> [jnp.shape(layer["kernel"]) for layer in weights["layers"]]
    [(22, 80), (40, 80)]

  Reference:
    Andrychowicz et al. 2016, arXiv 1606.04474, section 2.1.
  """
  units = tuple(units)
  if not units:
    raise ValueError("units must hold the size of one layer or more; got ()")
  for size in units:
    check_count("units", size)
  if p is not None and not 0 <= p < float("inf"):
    raise ValueError(f"p must be None, or finite and at least 0; got {p!r}")
  p = p or None
  if not 0 < scale < float("inf"):
    raise ValueError(f"scale must be positive and finite; got {scale!r}")

  def init(key: jax.Array, params: Params) -> PyTree:
    check_real("l2l_lstm", params)
    dtype = jnp.result_type(*jax.tree.leaves(params))
    widths = (1 if p is None else 2, *units)
    layers = [
      _layer(jax.random.fold_in(key, i), num_inputs, size, dtype)
      for i, (num_inputs, size) in enumerate(zip(widths[:-1], units, strict=True))
    ]
    head = jax.random.fold_in(key, len(units))
    kernel = jax.nn.initializers.lecun_normal()(head, (units[-1], 1), dtype)[:, 0]
    return {"layers": tuple(layers), "head": {"kernel": kernel, "bias": jnp.zeros((), dtype)}}

  def transform(weights: PyTree) -> optax.GradientTransformation:
    def start(params: Params) -> tuple[lstm.CellState, ...]:
      flat, _ = ravel_pytree(params)
      return tuple(lstm.zero_state(flat.size, size, flat.dtype) for size in units)

    def update(grads: PyTree, state: tuple[lstm.CellState, ...], params: Any = None) -> Any:
      del params
      grad, unravel = ravel_pytree(grads)
      inputs, states = grad[:, None] if p is None else lstm.log_and_sign(grad, p), []
      for layer, before in zip(weights["layers"], state, strict=True):
        states.append(lstm.advance(layer, before, inputs))
        inputs = states[-1].hidden
      return unravel(scale * (inputs @ weights["head"]["kernel"] + weights["head"]["bias"])), tuple(states)

    return optax.GradientTransformation(start, update)

  return UpdateRule(init, transform, name="l2l_lstm", finite_at_zero=True)


def _layer(key: jax.Array, num_inputs: int, units: int, dtype: Any) -> PyTree:
  """An LSTM that starts by remembering: the bias of its forget gates is 1."""
  kernel = jax.nn.initializers.lecun_normal()
  weights = lstm.init_weights(
    key, num_inputs, units, lambda key, shape: kernel(key, shape, dtype) if len(shape) == 2 else jnp.zeros(shape, dtype)
  )
  return {**weights, "bias": weights["bias"].at[units : 2 * units].set(1.0)}
