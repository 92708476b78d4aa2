"""Meta-LSTM: its gates, its initial weights, its meta-gradient."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.meta_gradients import unrolled
from warpjax.rules import lstm

pytestmark = pytest.mark.usefixtures("strict")

RULE = rules.meta_lstm(3)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def preprocess(x, p=10.0):
  """The released form: the two cases of one number, by a Python `if`."""
  return (np.log(abs(x)) / p, np.sign(x)) if abs(x) >= np.exp(-p) else (-1.0, np.exp(p) * x)


def by_hand(weights, thetas, grads, losses):
  """The recursion of the paper for one coordinate in NumPy: the points after each step."""
  hidden, cell, forget, take, theta, points = np.zeros(3), np.zeros(3), 0.0, 0.0, thetas, []
  for grad, loss in zip(grads, losses, strict=True):
    inputs = np.concatenate([preprocess(loss), preprocess(grad), hidden])
    write, keep, new, read = np.split(inputs @ weights["lstm"]["kernel"] + weights["lstm"]["bias"], 4)
    cell = sigmoid(keep) * cell + sigmoid(write) * np.tanh(new)
    hidden = sigmoid(read) * np.tanh(cell)
    forget = sigmoid(np.dot([*hidden, theta, forget], weights["forget"]["kernel"]) + weights["forget"]["bias"])
    take = sigmoid(np.dot([*hidden, theta, take], weights["input"]["kernel"]) + weights["input"]["bias"])
    theta = forget * theta - take * grad
    points.append(theta)
  return points


def drawn(seed):
  """Weights of the rule away from its start."""
  shapes = jax.eval_shape(RULE.init, toy.key(), toy.initial())
  return jax.tree.map(lambda leaf: toy.draw(seed, *leaf.shape), shapes)


def test_the_recursion_of_the_paper():
  weights = drawn(5)
  theta, grads, losses = 0.7, [0.3, -1e-6, -2.0], [2.0, 0.5, 1e-5]
  transform, params = RULE.transform(weights), {"w": jnp.full((1, 1), theta)}
  state, points = transform.init(params), []

  @toy.jit
  def step(params, state, grad, loss):
    updates, state = transform.update({"w": jnp.full((1, 1), grad)}, state, params, value=loss)
    return optax.apply_updates(params, updates), state

  for grad, loss in zip(grads, losses, strict=True):
    params, state = step(params, state, grad, loss)
    points.append(params["w"].item())
  np.testing.assert_allclose(points, by_hand(jax.tree.map(np.asarray, weights), theta, grads, losses), rtol=1e-12)


def test_with_its_gates_pinned_it_is_sgd_exactly():
  zeros = jax.tree.map(jnp.zeros_like, drawn(5))
  pinned = {**zeros, "forget": {**zeros["forget"], "bias": jnp.asarray(200.0)}}  # f = 1, and i = sigmoid(0) = 1/2
  meta_params, task = toy.meta_params()._replace(rule=pinned), toy.task()
  final = lambda rule, m: toy.jit(lambda m, t: wj.adapt(toy.loop(rule), m, t, toy.key()).final.params)(m, task)
  mine, plain = final(RULE, meta_params), final(rules.sgd(0.5), toy.meta_params())
  chex.assert_trees_all_equal(mine, plain)


def test_it_starts_near_descent_by_a_tiny_step():
  weights = toy.jit(rules.meta_lstm().init)(toy.key(), toy.initial())
  assert 4 <= weights["forget"].pop("bias") <= 5 and -5 <= weights["input"].pop("bias") <= -4
  rest = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(weights)])
  assert rest.size == 24 * 80 + 80 + 2 * 22
  assert np.abs(rest).max() <= 0.01 and np.abs(rest).mean() == pytest.approx(0.005, rel=0.1)


def test_coordinates_share_weights_and_nothing_else():
  """Reordered coordinates have reordered steps, and a coordinate's steps do not depend on the others."""
  weights = drawn(6)
  transform, theta, grads = RULE.transform(weights), toy.draw(1, 5), toy.draw(2, 3, 5)

  @toy.jit
  def points(order):
    params, state = theta[order], transform.init(theta[order])
    for grad in grads:
      updates, state = transform.update(grad[order], state, params, value=jnp.asarray(1.0))
      params = params + updates
    return params

  order = np.array([3, 0, 4, 2, 1])
  np.testing.assert_allclose(points(order), points(np.arange(5))[order], rtol=1e-12)
  np.testing.assert_allclose(points(order[:2]), points(np.arange(5))[order[:2]], rtol=1e-12)


def test_first_order_is_the_derivative_of_a_loop_with_constant_gradients():
  inner, task = toy.loop(RULE), toy.task()
  meta_params = toy.meta_params(RULE)

  def objective(meta_params):
    transform, params = RULE.transform(meta_params.rule), meta_params.initial
    state = transform.init(params)
    for _ in range(3):
      of = lambda p: toy.loss_fn(p, meta_params.shared, task.support)[0]
      value, grads = jax.lax.stop_gradient(jax.value_and_grad(of)(params))
      updates, state = transform.update(grads, state, params, value=value)
      params = optax.apply_updates(params, updates)
    return toy.loss_fn(params, meta_params.shared, task.query)[0]

  (value, _), grads = toy.run(unrolled(inner, "first_order"), meta_params, task)
  toy.assert_close((value, grads), toy.jit(jax.value_and_grad(objective))(meta_params), rtol=1e-9)


def test_log_and_sign_is_a_clamp():
  x, p = np.concatenate([np.geomspace(1e-9, 1e3, 50), -np.geomspace(1e-9, 1e3, 50)]), 5.0
  expected = np.stack([np.maximum(np.log(np.abs(x)) / p, -1), np.clip(x * np.exp(p), -1, 1)], -1)
  np.testing.assert_allclose(toy.jit(lambda x: lstm.log_and_sign(x, p))(x), expected, rtol=1e-12)
  slopes = toy.jit(jax.vmap(jax.jacfwd(lambda x: lstm.log_and_sign(x[None], p)[0])))(np.array([0.0, 0.5, -2.0]))
  np.testing.assert_allclose(slopes, [[0, np.exp(p)], [0.4, 0], [-0.1, 0]], rtol=1e-12)


def test_bad_input():
  for bad, message in (({"units": 0}, "units must be an integer of at least 1; got 0"), ({"p": 0}, "p must be pos")):
    with pytest.raises(ValueError, match=message):
      rules.meta_lstm(**bad)
  params = toy.initial()
  transform = RULE.transform(drawn(5))
  for given in ({"value": 1.0}, {"params": params}):
    with pytest.raises(ValueError, match="meta_lstm needs the parameters and the loss"):
      transform.update(params, transform.init(params), **given)
  assert ravel_pytree(params)[0].size == transform.init(params).input.size
