"""Bootstrapped meta-gradients: the closed form on a quadratic, MAML's gradient one step on, and finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import padding, rules
from warpjax.meta_gradients import (
  bootstrapped,
  match_parameters,
  match_predictions,
  match_probabilities,
  own_parameters,
  unrolled,
)
from warpjax.types import MetaParams, Task

pytestmark = pytest.mark.usefixtures("strict")

RATE = 0.3


def apply(params, shared, x):
  hidden = x @ params["w"] + params["b"][None]
  return (hidden + 0.3 * hidden**2) @ shared["warp"]


MATCHES = {
  "parameters": match_parameters,
  "predictions": match_predictions(apply),
  "probabilities": match_probabilities(apply),
}


def end(inner, meta_params, task, num_steps=None):
  return wj.adapt(inner, meta_params, task, toy.key(), num_steps=num_steps).final.params


def distance(name, target, point, shared, fixed_shared, task):
  """mu written out."""
  if name == "parameters":
    return sum(jnp.sum((target[key] - point[key]) ** 2) for key in target) / 2
  wanted, got = apply(target, fixed_shared, task.query[0]), apply(point, shared, task.query[0])
  if name == "predictions":
    return jnp.mean((wanted - got) ** 2) / 2
  p, q = jax.nn.softmax(wanted), jax.nn.softmax(got)
  return jnp.mean(jnp.sum(p * jnp.log(p / q), axis=-1))


@pytest.mark.parametrize("target_steps", [1, 3])
def test_closed_form_on_a_quadratic(target_steps):
  """Of `h (w - batch)^2 / 2` each step contracts by `c = 1 - rate h`; the target is known, and so is the gradient."""
  curvature, rate, num_steps, support, query, start = 0.8, 0.5, 3, 4.0, 6.0, -1.0
  loss = lambda w, shared, batch: (0.5 * curvature * (w - batch) ** 2, {})
  inner = wj.InnerLoop(loss, rules.sgd(rate), num_steps)
  estimate = bootstrapped(inner, RATE, target_steps)
  (value, aux), grads = toy.run(estimate, MetaParams(jnp.array(start)), Task(jnp.array(support), jnp.array(query)))
  contraction = 1 - rate * curvature
  last = support + contraction**num_steps * (start - support)
  before = support + contraction ** (num_steps + target_steps - 1) * (start - support)
  target = before - RATE * curvature * (before - query)
  np.testing.assert_allclose(value, 0.5 * curvature * (last - query) ** 2, rtol=1e-12)
  np.testing.assert_allclose(aux["bootstrapped/distance"], 0.5 * (target - last) ** 2, rtol=1e-12)
  np.testing.assert_allclose(grads.initial, contraction**num_steps * (last - target), rtol=1e-12)


def test_one_step_on_it_is_maml_s_gradient_times_the_rate():
  """Of what adapts and of the rule; of `shared` the query loss's own derivative is left out."""
  rule, task = rules.meta_sgd((0.05, 0.2)), toy.task()
  inner, meta_params = toy.loop(rule), toy.meta_params(rule)
  (value, aux), grads = toy.run(bootstrapped(inner, RATE), meta_params, task)
  (expected, expected_aux), plain = toy.run(unrolled(inner), meta_params, task)
  scaled = jax.tree.map(lambda leaf: RATE * leaf, plain)
  del aux["bootstrapped/distance"]
  toy.assert_close((value, aux, grads.initial, grads.rule), (expected, expected_aux, scaled.initial, scaled.rule))
  final = toy.jit(lambda: end(inner, meta_params, task))()
  own = jax.grad(lambda shared: toy.loss_fn(final, shared, task.query)[0])(meta_params.shared)
  toy.assert_close(grads.shared["warp"], scaled.shared["warp"] - RATE * own["warp"])


@pytest.mark.parametrize("name", MATCHES)
def test_meta_gradient_by_finite_differences(name):
  """Of the distance to a target that stays where it is, with momentum, whose state goes on to the target."""
  inner, meta_params, task = toy.loop(rules.sgd(0.1, 0.9)), toy.meta_params(), toy.task()
  estimate = bootstrapped(inner, RATE, 3, MATCHES[name])
  compiled = toy.jit(estimate)
  result = compiled(meta_params, task, toy.key())

  def target():
    before = end(inner, meta_params, task, num_steps=5)
    grads = jax.grad(lambda params: toy.loss_fn(params, meta_params.shared, task.query)[0])(before)
    return jax.tree.map(lambda p, g: p - RATE * g, before, grads)

  wanted = toy.jit(target)()
  of = toy.jit(lambda at: distance(name, wanted, end(inner, at, task), at.shared, meta_params.shared, task))
  np.testing.assert_allclose(result[0][1]["bootstrapped/distance"], of(meta_params), rtol=1e-9)
  toy.assert_slopes(of, meta_params, result[1])
  if name == "parameters":  # what is eager takes as long as all else
    toy.assert_close(result, estimate(meta_params, task, toy.key()), rtol=1e-9)


def test_the_modes_agree_under_vmap():
  inner, meta_params = toy.loop(), toy.meta_params()
  tasks, keys = toy.tasks(2), jax.random.split(toy.key(), 2)
  make = lambda *args, **kwargs: bootstrapped(inner, RATE, 2, MATCHES["probabilities"], *args, **kwargs)
  run = lambda estimate: toy.jit(jax.vmap(estimate, in_axes=(None, 0, 0)))(meta_params, tasks, keys)
  mixed = run(make())
  toy.assert_close(mixed, run(make(derivative="reverse", memory="save_all")), rtol=1e-9)
  one = toy.jit(make())(meta_params, jax.tree.map(lambda leaf: leaf[1], tasks), keys[1])
  toy.assert_close(jax.tree.map(lambda leaf: leaf[1], mixed), one, rtol=1e-9)
  first = run(make(derivative="first_order"))
  assert np.abs(first[1].initial["w"] - mixed[1].initial["w"]).max() > 1e-6
  toy.assert_close(first[0], mixed[0])


def test_padding_of_the_query_set_is_in_no_distance():
  inner, task = toy.loop(), toy.task()
  x, y = task.query
  more = (jnp.concatenate([leaf, jnp.full((2, 2), 5.0)]) for leaf in (x, y))
  padded = task._replace(query=padding.Padded(*more, jnp.append(jnp.ones(4), jnp.zeros(2))))
  per_example = padding.per_example(apply)

  def loss_fn(params, shared, batch):
    x, y, weights = padding.unpack(batch)
    error = padding.mean((padding.apply_to(per_example, params, shared, x) - y) ** 2, weights)
    return error, {"mse": error}

  estimate = bootstrapped(inner._replace(loss_fn=loss_fn), RATE, 2, match_predictions(per_example))
  results = [toy.run(estimate, toy.meta_params(), each) for each in (task, padded)]
  toy.assert_close(*results, rtol=1e-9)


def test_it_composes_with_what_a_task_draws():
  own = own_parameters(bootstrapped(toy.loop(), RATE), lambda key, initial: {"b": jnp.ones(3)})
  toy.assert_zero(toy.run(own, toy.meta_params(), toy.task())[1].initial["b"])


def test_bad_input():
  for bad in (0.0, -1.0, float("inf"), True, "0.1"):
    with pytest.raises(ValueError, match="target_rate must be a positive number; got"):
      bootstrapped(toy.loop(), bad)
  with pytest.raises(ValueError, match="target_steps must be an integer of at least 1; got 0"):
    bootstrapped(toy.loop(), 0.1, 0)
  with pytest.raises(ValueError, match="match must be a Match such as match_parameters; got str"):
    bootstrapped(toy.loop(), 0.1, match="parameters")
  with pytest.raises(ValueError, match="derivative must be one of"):
    bootstrapped(toy.loop(), 0.1, derivative="third")
  whole = toy.loop(query_batch_fn=wj.losses.whole_task, query_loss_fn=lambda p, s, task: toy.loss_fn(p, s, task.query))
  with pytest.raises(ValueError, match=r"the match needs query batches \(x, y\); got a Task"):
    bootstrapped(whole, 0.1, match=MATCHES["predictions"])(toy.meta_params(), toy.task(), toy.key())
