"""Meta-LSTM: an LSTM whose cell state is the parameter vector."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from warpjax.checks import check_count, check_real
from warpjax.rules import lstm
from warpjax.types import Params, PyTree, UpdateRule

# The gates start near descent by a tiny step: forget 0.98 to 0.99, input 0.007 to 0.018.
_FORGET_BIAS, _INPUT_BIAS, _WEIGHTS = (4.0, 5.0), (-5.0, -4.0), (-0.01, 0.01)


class MetaLSTMState(NamedTuple):
  """The state of every coordinate: the first LSTM's state, and the last gates `[num_coordinates]`."""

  lstm: lstm.CellState
  forget: jax.Array
  input: jax.Array


def meta_lstm(units: int = 20, p: float = 10.0) -> UpdateRule:
  """`theta <- f (.) theta - i (.) g`, with gates f and i that an LSTM sets for every coordinate.

  An LSTM of `units` reads the loss and the gradient of the coordinate, both as `log_and_sign`; then
  `f = sigmoid(W_f [h, theta, f_last] + b_f)` and `i = sigmoid(W_i [h, theta, i_last] + b_i)`. All coordinates share the
  weights. The learned initial cell state is `MetaParams.initial`. The paper holds the inner gradient and loss constant:
  `unrolled(inner, "first_order")`.

  Args:
    units: Width of the first LSTM.
    p: Losses and gradients below `e^-p` count as small.

  Returns:
    An `UpdateRule` that reads `value=`, the loss; its rule parameters are the weights, which fit parameters of every
    shape.

  Raises:
    ValueError: when `units` is below 1 or `p` is not positive; when updated without `params` or `value=`.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> weights = meta_lstm(20).init(jax.random.key(0), {"w": jnp.zeros((3, 2))})
    >>> jax.tree.map(jnp.shape, weights["forget"])
    {'bias': (), 'kernel': (22,)}

  Reference:
    Ravi and Larochelle 2017, "Optimization as a model for few-shot learning", equation 2, and its released code.
  """
  check_count("units", units)
  if not 0 < p < float("inf"):
    raise ValueError(f"p must be positive and finite; got {p!r}")

  def init(key: jax.Array, params: Params) -> PyTree:
    check_real("meta_lstm", params)
    dtype = jnp.result_type(*jax.tree.leaves(params))
    draw = lambda key, shape, bounds=_WEIGHTS: jax.random.uniform(key, shape, dtype, *bounds)
    keys = jax.random.split(key, 5)
    gate = lambda first, second, bounds: {"kernel": draw(first, (units + 2,)), "bias": draw(second, (), bounds)}
    return {
      "lstm": lstm.init_weights(keys[0], 4, units, draw),
      "forget": gate(keys[1], keys[2], _FORGET_BIAS),
      "input": gate(keys[3], keys[4], _INPUT_BIAS),
    }

  def transform(weights: PyTree) -> optax.GradientTransformationExtraArgs:
    def start(params: Params) -> MetaLSTMState:
      flat, _ = ravel_pytree(params)
      zeros = jnp.zeros_like(flat)
      return MetaLSTMState(lstm.zero_state(flat.size, units, flat.dtype), zeros, zeros)

    def update(grads: PyTree, state: MetaLSTMState, params: Any = None, *, value: Any = None, **extra: Any) -> Any:
      del extra
      if params is None or value is None:
        raise ValueError("meta_lstm needs the parameters and the loss: update(grads, state, params, value=loss)")
      (grad, unravel), (theta, _) = ravel_pytree(grads), ravel_pytree(params)
      loss = jnp.broadcast_to(lstm.log_and_sign(jnp.reshape(value, 1).astype(grad.dtype), p), (grad.size, 2))
      seen = lstm.advance(weights["lstm"], state.lstm, jnp.concatenate([loss, lstm.log_and_sign(grad, p)], -1))
      forget = _gate(weights["forget"], seen.hidden, theta, state.forget)
      take = jax.nn.sigmoid(_gate(weights["input"], seen.hidden, theta, state.input))
      # f - 1 = -sigmoid(-x), without the cancellation.
      return unravel(-jax.nn.sigmoid(-forget) * theta - take * grad), MetaLSTMState(seen, jax.nn.sigmoid(forget), take)

    return optax.GradientTransformationExtraArgs(start, update)

  return UpdateRule(init, transform, name="meta_lstm", finite_at_zero=True)


def _gate(weights: PyTree, hidden: jax.Array, theta: jax.Array, last: jax.Array) -> jax.Array:
  """The gate of every coordinate before its sigmoid, `[num_coordinates]`."""
  inputs = jnp.concatenate([hidden, theta[:, None], last[:, None]], axis=-1)
  return inputs @ weights["kernel"] + weights["bias"]
