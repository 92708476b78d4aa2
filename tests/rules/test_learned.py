"""Step sizes per step (LSLR), and hyper-parameters of any optax transformation, meta-learned."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.meta_gradients import unrolled
from warpjax.runner.components import rules as named_rules

pytestmark = pytest.mark.usefixtures("strict")


def total(tree):
  return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def plain():
  """MAML's value and gradient, and the derivative in its step size by Meta-SGD: the sum of its alphas' derivatives."""
  with jax.enable_x64(True):
    meta_params, task = toy.meta_params(rules.meta_sgd(0.3)), toy.task()
    maml = toy.run(unrolled(toy.loop(rules.sgd(0.3))), toy.meta_params(), task)
    return maml, total(toy.run(unrolled(toy.loop(rules.meta_sgd(0.3))), meta_params, task)[1].rule)


@pytest.mark.parametrize("num_steps", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3)), 5])
def test_lslr_with_one_value_is_maml(plain, num_steps):
  (value, expected), in_step_size = plain
  rule = rules.per_step_sgd(0.3, num_steps)
  result, grads = toy.run(unrolled(toy.loop(rule)), toy.meta_params(rule), toy.task())
  toy.assert_close((result, tuple(grads[:2])), (value, tuple(expected[:2])))
  np.testing.assert_allclose(total(grads.rule), in_step_size, rtol=1e-10)
  assert jax.tree.map(jnp.shape, grads.rule) == {"b": (num_steps,), "w": (num_steps,)}
  toy.assert_zero(jax.tree.map(lambda leaf: leaf[3:], grads.rule))  # steps that were not taken


def test_lslr_takes_each_step_s_own_size_and_then_the_last():
  alpha = {"b": jnp.array([0.1, 0.2]), "w": jnp.array([0.3, 0.05])}
  transform = rules.per_step_sgd(0.1, 2).transform(alpha)
  state, seen = transform.init(toy.initial()), []
  for _ in range(4):
    updates, state = transform.update({"b": jnp.ones(()), "w": jnp.ones(())}, state)
    seen.append((-updates["b"], -updates["w"]))
  np.testing.assert_array_equal(seen, [(0.1, 0.3), (0.2, 0.05), (0.2, 0.05), (0.2, 0.05)])


@pytest.mark.parametrize("positive", [(), ("learning_rate",)])
def test_a_learned_step_size_is_sgd_and_has_the_sum_of_meta_sgd_s_derivatives(plain, positive):
  (value, expected), in_step_size = plain
  rule = rules.learned(optax.sgd, positive=positive, learning_rate=0.3)
  result, grads = toy.run(unrolled(toy.loop(rule)), toy.meta_params(rule), toy.task())
  toy.assert_close((result, tuple(grads[:2])), (value, tuple(expected[:2])), rtol=1e-9)
  np.testing.assert_allclose(
    grads.rule["log_learning_rate" if positive else "learning_rate"], in_step_size * (0.3 if positive else 1), rtol=1e-9
  )  # in log(a): a times


def test_a_schedule_is_learned_through():
  """A decay over inner steps is LSLR's sizes by the chain rule: a_k = a r^k."""
  factory = lambda first, decay: optax.sgd(lambda step: first * decay**step)
  rule, lslr, task = rules.learned(factory, first=0.3, decay=0.5), rules.per_step_sgd(0.3, 3), toy.task()
  grads = toy.run(unrolled(toy.loop(rule)), toy.meta_params(rule), task)[1]
  sizes = 0.3 * 0.5 ** jnp.arange(3)
  meta_params = toy.meta_params()._replace(rule=jax.tree.map(lambda _: sizes, toy.initial()))
  of_each = sum(jax.tree.leaves(toy.run(unrolled(toy.loop(lslr)), meta_params, task)[1].rule))
  np.testing.assert_allclose(grads.rule["first"], of_each @ 0.5 ** jnp.arange(3), rtol=1e-9)
  np.testing.assert_allclose(grads.rule["decay"], 0.3 * (of_each[1] + 2 * 0.5 * of_each[2]), rtol=1e-9)


def test_a_schedule_over_inner_steps_composes_with_any_rule():
  schedule = optax.exponential_decay(1.0, 1, 0.5)
  scheduled = rules.chain(rules.meta_sgd(0.3), rules.from_optax(optax.scale_by_schedule(schedule)))
  point = lambda rule: wj.adapt(toy.loop(rule), toy.meta_params(rule), toy.task(), toy.key()).final.params
  decayed = rules.sgd(optax.exponential_decay(0.3, 1, 0.5))
  # optax computes schedules in single precision.
  toy.assert_close(toy.jit(lambda: point(scheduled))(), toy.jit(lambda: point(decayed))(), rtol=1e-5)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: rules.learned(optax.sgd), "learned needs a hyper-parameter"),
    (lambda: rules.learned(0.1, learning_rate=0.1), "factory must be a function"),
    (lambda: rules.learned(optax.sgd, lr=0.1), "factory cannot be called with lr"),
    (lambda: rules.learned(optax.sgd, learning_rate=float("nan")), "learning_rate must be a finite number"),
    (lambda: rules.learned(optax.sgd, positive=["learning_rate"], learning_rate=0.0), "learning_rate must start above"),
    (lambda: rules.learned(optax.sgd, positive=["momentum"], learning_rate=0.1), "positive must name .*'momentum'"),
    (lambda: rules.learned(optax.sgd, positive="learning_rate", learning_rate=0.1), "a sequence of names.*a string"),
    (lambda: rules.per_step_sgd(0.0, 3), "learning_rate must be a positive number"),
    (lambda: rules.per_step_sgd(lambda step: 0.1, 3), "learning_rate must be a positive number, where every"),
    (lambda: rules.per_step_sgd(0.1, 0), "num_steps must be an integer of at least 1; got 0"),
  ],
)
def test_bad_input(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_a_number_of_numpy_is_a_number():
  rule = rules.learned(optax.sgd, learning_rate=np.float32(0.5), momentum=np.float64(0.25))
  start = rule.init(toy.key(), jnp.zeros(1))
  assert (float(start["learning_rate"]), float(start["momentum"])) == (0.5, 0.25)


def test_a_partial_is_a_factory():
  rule = rules.learned(functools.partial(optax.sgd, momentum=0.9), learning_rate=0.1)
  assert set(rule.init(toy.key(), jnp.zeros(1))) == {"learning_rate"}


@pytest.mark.parametrize(
  ("transform", "optimizer"),
  [
    ("sgd", optax.sgd(0.1, 0.5)),
    ("rmsprop", optax.rmsprop(0.1, momentum=0.5)),
    ("adam", optax.adam(0.1, b1=0.5, eps_root=1e-8)),
  ],
)
def test_the_setting_starts_as_its_optimizer_and_has_a_derivative_where_the_gradient_is_zero(transform, optimizer):
  rule = named_rules.learned(0.1, 0.5, transform)
  rule_params = rule.init(toy.key(), toy.initial())

  def steps(transformation, gradient):
    state, taken = transformation.init(gradient), []
    for _ in range(3):
      updates, state = transformation.update(gradient, state)
      taken.append(updates)
    return jnp.stack(taken)

  @toy.jit
  def both(values, gradient):
    of = lambda values: steps(rule.transform(values), gradient)
    return of(values), steps(optimizer, gradient), jax.jacobian(of)(values)

  for gradient in (jnp.array([1.0, -2.0]), jnp.zeros(2)):
    found, expected, slopes = both(rule_params, gradient)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_parameters_of_two_precisions_keep_them():
  params = {"half": jnp.ones(2, jnp.bfloat16), "single": jnp.ones(2, jnp.float32)}
  loss = lambda p, shared, batch: (jnp.sum(p["half"].astype(jnp.float32) ** 2) + jnp.sum(p["single"] ** 2), {})
  rule = rules.learned(optax.sgd, learning_rate=0.25, momentum=0.5)
  inner = wj.InnerLoop(loss, rule, num_steps=2)
  meta_params = wj.MetaParams(params, rule=rule.init(toy.key(), params))
  with jax.numpy_dtype_promotion("standard"):
    final = toy.jit(lambda m: wj.adapt(inner, m, wj.Task(0.0, 0.0), toy.key()).final)(meta_params)
  # From 1: a half, then 1/2 - (1 + 1/2 * 2) / 4.
  for name, leaf in params.items():
    assert final.params[name].dtype == leaf.dtype
    np.testing.assert_array_equal(final.params[name], jnp.zeros_like(leaf))
