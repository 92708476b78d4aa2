"""One task bound to its loop: its draws, its proximal term and its query loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.problem import Problem, has_prox

pytestmark = pytest.mark.usefixtures("strict")


def bound(**fields):
  return Problem(toy.loop(**fields), toy.meta_params(), toy.task(), toy.key())


def test_no_two_draws_of_a_task_share_a_key():
  """A batch_fn folds the step into the task's key; queries and rules have streams of their own."""
  seen, plain = [], optax.sgd(0.1)

  def update(grads, state, params=None, *, key, **extra):
    seen.append(key)
    return plain.update(grads, state)

  def batch_fn(key, support, step, params, shared):
    seen.append(jax.random.fold_in(key, step))
    return support

  def query_batch_fn(key, task, params, shared):
    seen.append(key)
    return task.query

  rule = rules.from_optax(optax.GradientTransformationExtraArgs(plain.init, update))
  problem, num_steps = bound(rule=rule, batch_fn=batch_fn, query_batch_fn=query_batch_fn), 6
  initial, shared, _ = problem.meta_params
  for step in range(num_steps):
    problem.step(problem.start(), step)
    problem.query_loss(initial, shared, step)
  data = {tuple(map(int, jax.random.key_data(key))) for key in (problem.key, *seen)}
  assert len(seen) == 3 * num_steps and len(data) == 3 * num_steps + 1


@pytest.mark.parametrize("derivative", ["mixed", "reverse", "first_order"])
def test_a_step_has_the_value_and_the_gradient_of_the_inner_objective(derivative):
  problem = bound(prox=0.7)
  initial, shared, _ = problem.meta_params
  state = problem.start()._replace(params=jax.tree.map(lambda leaf: leaf + 0.3, initial))
  step = problem.step(state, 2, derivative)
  expected = jax.value_and_grad(problem.inner_objective)(state.params, shared, problem.batch(state.params, 2))
  toy.assert_close((step.value, step.grads), expected)
  plain = toy.loss_fn(state.params, shared, problem.task.support)[0]
  toy.assert_close(step.value, plain + 0.7 / 2 * 9 * 0.3**2)
  toy.assert_close(step.next.params, optax.tree.add_scale(state.params, -0.1, step.grads))
  assert step.number == 2


def test_the_query_loss_is_without_the_proximal_term_and_may_be_another():
  initial, shared, _ = toy.meta_params()
  away = jax.tree.map(lambda leaf: leaf + 1, initial)
  value, aux = bound(prox=5.0).query_loss(away, shared, 0)
  toy.assert_close((value, aux), toy.loss_fn(away, shared, toy.task().query))
  other = lambda params, shared, batch: (jnp.sum(params["b"]) + jnp.sum(batch[0]), {"other": jnp.ones(())})
  value, aux = bound(query_loss_fn=other).query_loss(away, shared, 0)
  toy.assert_close((value, aux), other(away, shared, toy.task().query))


def test_a_batch_that_is_drawn_before_is_that_of_the_step():
  problem = bound(batch_fn=wj.minibatch(2))
  state = problem.start()
  toy.assert_close(problem.with_batch(state.params, 3).step(state, 3), problem.step(state, 3))
  toy.assert_close(problem.with_batch(state.params, 3).batch(state.params, 3), problem.batch(state.params, 3))


def test_has_prox():
  assert [has_prox(toy.loop(prox=prox)) for prox in (0, 0.0, 0.1, jnp.array(0.0))] == [False, False, True, True]
