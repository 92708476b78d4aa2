"""L2L's coordinate-wise LSTM."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.meta_gradients import unrolled

pytestmark = pytest.mark.usefixtures("strict")


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def by_hand(weights, grads, scale):
  """The updates of one coordinate in NumPy, gradients as they are."""
  states = [[np.zeros(layer["bias"].size // 4)] * 2 for layer in weights["layers"]]
  updates = []
  for grad in grads:
    x = np.array([grad])
    for layer, state in zip(weights["layers"], states, strict=True):
      hidden, cell = state
      write, keep, new, read = np.split(np.concatenate([x, hidden]) @ layer["kernel"] + layer["bias"], 4)
      cell = sigmoid(keep) * cell + sigmoid(write) * np.tanh(new)
      x = sigmoid(read) * np.tanh(cell)
      state[:] = x, cell
    updates.append(scale * (x @ weights["head"]["kernel"] + weights["head"]["bias"]))
  return updates


def test_two_layers_by_hand():
  rule = rules.l2l_lstm((3, 2), p=None, scale=0.5)
  shapes = jax.eval_shape(rule.init, toy.key(), jnp.zeros(2))
  weights, grads = jax.tree.map(lambda leaf: toy.draw(7, *leaf.shape), shapes), toy.draw(8, 4, 2)

  @toy.jit
  def run(weights, grads):
    transform = rule.transform(weights)
    step = lambda state, grad: transform.update(grad, state)[::-1]
    return jax.lax.scan(step, transform.init(jnp.zeros(2)), grads)[1]

  updates = run(weights, grads)
  numpy_weights = jax.tree.map(np.asarray, weights)
  for i in range(2):
    np.testing.assert_allclose(updates[:, i], by_hand(numpy_weights, grads[:, i], 0.5), rtol=1e-12)


def test_a_rule_for_one_shape_runs_on_any_other():
  rule = rules.l2l_lstm((3,))
  other = {"a": toy.draw(1, 7), "b": (toy.draw(2, 2, 2),)}

  @toy.jit
  def step(other):
    transform = rule.transform(rule.init(toy.key(), toy.initial()))
    return transform.update(other, transform.init(other))[0]

  assert jax.tree.map(jnp.shape, step(other)) == jax.tree.map(jnp.shape, other)
  of_shape = lambda params: jax.tree.map(jnp.shape, jax.eval_shape(rule.init, toy.key(), params))
  assert of_shape(toy.initial()) == of_shape(other)


def test_forget_gates_start_open():
  layer, _ = toy.jit(rules.l2l_lstm((3, 2)).init)(toy.key(), toy.initial())["layers"]
  np.testing.assert_array_equal(layer["bias"], [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0])


def test_the_scale_s_derivative_is_the_slope_of_the_loss():
  """With everything but the head's bias at zero, the rule moves every coordinate by `scale * bias` a step."""
  rule, scale, bias = rules.l2l_lstm((2,), scale=0.1), 0.1, 0.3
  meta_params, task = toy.meta_params(rule), toy.task()
  weights = jax.tree.map(jnp.zeros_like, meta_params.rule)
  weights["head"]["bias"] = jnp.asarray(bias)
  meta_params = meta_params._replace(rule=weights)
  moved = lambda bias: jax.tree.map(lambda p: p + 3 * scale * bias, meta_params.initial)
  loss = lambda bias: toy.loss_fn(moved(bias), meta_params.shared, task.query)[0]
  (value, _), grads = toy.run(unrolled(toy.loop(rule)), meta_params, task)
  toy.assert_close((value, grads.rule["head"]["bias"]), toy.jit(jax.value_and_grad(loss))(bias))
  final = toy.jit(lambda m, t: wj.adapt(toy.loop(rule), m, t, toy.key()).final.params)(meta_params, task)
  toy.assert_close(final, moved(bias))


@pytest.mark.parametrize(
  ("bad", "message"),
  [
    ({"units": ()}, "units must hold the size of one layer or more"),
    ({"units": (20, 0)}, "units must be an integer of at least 1; got 0"),
    ({"p": -1.0}, "p must be None, or finite and at least 0"),
    ({"scale": 0.0}, "scale must be positive and finite; got 0.0"),
  ],
)
def test_bad_input(bad, message):
  with pytest.raises(ValueError, match=message):
    rules.l2l_lstm(**bad)
