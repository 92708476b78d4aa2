"""Unrolled meta-gradients: identities with plain references, and bad input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.meta_gradients import unrolled
from warpjax.types import MetaParams, Task

pytestmark = pytest.mark.usefixtures("strict")


def plain_adaptation(meta_params, task, learning_rate, num_steps):
  """Gradient descent in a Python loop, differentiable by JAX alone."""
  loss = lambda params, _: toy.loss_fn(params, meta_params.shared, task.support)[0]
  return toy.descent(loss, meta_params.initial, learning_rate, num_steps)


def query_loss(params, shared, task):
  return toy.loss_fn(params, shared, task.query)[0]


@pytest.mark.parametrize("derivative", ["mixed", "reverse"])
def test_maml_is_the_derivative_of_a_python_loop(derivative):
  meta_params, task = toy.meta_params(), toy.task()

  def objective(meta_params):
    return query_loss(plain_adaptation(meta_params, task, 0.3, 3)[-1], meta_params.shared, task)

  (value, aux), grads = toy.run(unrolled(toy.loop(rules.sgd(0.3)), derivative), meta_params, task)
  expected_value, expected = toy.jit(jax.value_and_grad(objective))(meta_params)
  toy.assert_close((value, grads), (expected_value, expected))
  toy.assert_close(aux["mse"], value)


def test_first_order_is_the_query_gradient_at_the_adapted_point():
  meta_params, task = toy.meta_params(), toy.task()
  _, grads = toy.run(unrolled(toy.loop(rules.sgd(0.3)), "first_order"), meta_params, task)
  final = plain_adaptation(meta_params, task, 0.3, 3)[-1]
  toy.assert_close(tuple(grads[:2]), jax.grad(query_loss, argnums=(0, 1))(final, meta_params.shared, task))


def test_first_order_still_differentiates_the_update():
  # With momentum and one constant gradient per step, the derivative in alpha is minus the sum of the gradients.
  meta_params = toy.meta_params(rules.meta_sgd(0.2))
  task = toy.task()
  points = plain_adaptation(meta_params, task, 0.2, 3)
  steps = [jax.grad(toy.loss_fn, has_aux=True)(p, meta_params.shared, task.support)[0] for p in points[:-1]]
  outer = jax.grad(query_loss)(points[-1], meta_params.shared, task)
  expected = jax.tree.map(lambda out, *gs: -out * sum(gs), outer, *steps)
  inner = toy.loop(rules.meta_sgd(0.2))
  toy.assert_close(toy.run(unrolled(inner, "first_order"), meta_params, task)[1].rule, expected)


def test_meta_sgd_with_a_constant_step_size_is_maml():
  task = toy.task()
  for derivative in ("mixed", "first_order"):
    maml = toy.run(unrolled(toy.loop(rules.sgd(0.3)), derivative), toy.meta_params(), task)
    meta_sgd = rules.meta_sgd(0.3)
    result = toy.run(unrolled(toy.loop(meta_sgd), derivative), toy.meta_params(meta_sgd), task)
    toy.assert_close(result[0], maml[0])
    toy.assert_close(tuple(result[1][:2]), tuple(maml[1][:2]))


def test_truncation_runs_from_first_order_to_full():
  meta_params, task, inner = toy.meta_params(), toy.task(), toy.loop(rules.sgd(0.3))
  run = lambda *args, **kwargs: toy.run(unrolled(inner, *args, **kwargs), meta_params, task)
  toy.assert_close(run(truncate=0), run("first_order"))
  full = run()
  toy.assert_close(run(truncate=3), full)
  toy.assert_close(run(truncate=7), full)

  def last_step_only(initial):
    held, _ = jax.lax.stop_gradient(plain_adaptation(meta_params, task, 0.3, 3)[2:])
    start = jax.tree.map(lambda h, p: h + p - jax.lax.stop_gradient(p), held, initial)
    end = plain_adaptation(meta_params._replace(initial=start), task, 0.3, 1)[-1]
    return query_loss(end, meta_params.shared, task)

  toy.assert_close(run(truncate=1)[1].initial, toy.jit(jax.grad(last_step_only))(meta_params.initial))


@pytest.mark.parametrize(
  ("rule", "derivative"),
  [
    pytest.param(rules.sgd(0.3), "reverse", id="sgd-reverse"),
    pytest.param(rules.adam(0.1), "mixed", id="adam-mixed"),
    pytest.param(rules.sgd(0.3), "mixed", id="sgd-mixed", marks=pytest.mark.slow),
    pytest.param(rules.adam(0.1), "reverse", id="adam-reverse", marks=pytest.mark.slow),
  ],
)
def test_prox_is_differentiated_in_both_its_ends(rule, derivative):
  meta_params, task = toy.meta_params(), toy.task()
  estimate = toy.jit(unrolled(toy.loop(rule, prox=0.7), derivative))
  _, grads = estimate(meta_params, task, toy.key())
  toy.assert_slopes(lambda point: estimate(point, task, toy.key())[0][0], meta_params, grads)


def test_a_query_loss_of_its_own():
  other = lambda params, shared, batch: (jnp.sum(params["w"] ** 2) * jnp.sum(batch[0]), {"other": jnp.zeros(())})
  meta_params, task = toy.meta_params(), toy.task()
  (value, aux), _ = toy.run(unrolled(toy.loop(rules.sgd(0.3), query_loss_fn=other)), meta_params, task)
  final = plain_adaptation(meta_params, task, 0.3, 3)[-1]
  toy.assert_close(value, jnp.sum(final["w"] ** 2) * jnp.sum(task.query[0]))
  assert set(aux) == {"other"}


@pytest.mark.parametrize("derivative", ["mixed", pytest.param("reverse", marks=pytest.mark.slow), "first_order"])
def test_taylor_expansions_of_reptile_s_paper(derivative):
  """Section 5.1 of arXiv 1803.02999, for fixed minibatches: what is left over scales as the step size squared."""
  num_batches = 4
  meta_params = toy.meta_params()
  task = toy.task(num_examples=4 * num_batches)
  batches = jax.tree.map(lambda leaf: leaf.reshape(num_batches, 4, 2), task.support)
  batch = lambda index: jax.tree.map(lambda leaf: leaf[index], batches)
  flat, unravel = jax.flatten_util.ravel_pytree(meta_params.initial)
  loss = lambda vector, index: toy.loss_fn(unravel(vector), meta_params.shared, batch(index))[0]
  at = toy.jit(lambda i: (jax.grad(loss)(flat, i), jax.hessian(loss)(flat, i)))
  gradients, hessians = zip(*[map(np.asarray, at(i)) for i in range(num_batches)], strict=True)
  last = num_batches - 1
  first_order = -hessians[last] @ sum(gradients[:last])
  slope = first_order - (0 if derivative == "first_order" else sum(hessians[:last]) @ gradients[last])

  def residual(learning_rate):
    pick = lambda key, support, step, params, shared: jax.tree.map(lambda leaf: leaf[step], support)
    inner = toy.loop(rules.sgd(learning_rate), last, batch_fn=pick)
    grads = toy.run(unrolled(inner, derivative), meta_params, Task(batches, batch(last)))[1].initial
    vector = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])
    return np.linalg.norm(vector - gradients[last] - learning_rate * slope)

  order = np.log2(residual(2e-4) / residual(1e-4))
  np.testing.assert_allclose(order, 2, atol=0.02)


def test_a_differentiated_task_raises_instead_of_a_silent_zero():
  meta_params, task, estimate = toy.meta_params(), toy.task(), unrolled(toy.loop())
  value = lambda scale: estimate(meta_params, jax.tree.map(lambda leaf: scale * leaf, task), toy.key())[0][0]
  for transformed in (jax.grad(value), jax.jit(jax.grad(value)), jax.grad(jax.jit(value))):
    with pytest.raises(ValueError, match="the task is differentiated"):
      transformed(1.0)
  jax.jit(jax.vmap(value))(jnp.ones(2))  # neither jit nor vmap differentiates


def test_bad_input():
  inner = toy.loop()
  refusals = {
    "derivative must be one of 'mixed', 'reverse', 'first_order'": lambda: unrolled(inner, "forward"),
    "memory must be one of": lambda: unrolled(inner, memory="all"),
    "truncate must be None or an integer": lambda: unrolled(inner, truncate=-1),
    "truncate must be None or an integer of at least 0; got True": lambda: unrolled(inner, truncate=True),
    "num_steps must be an integer of at least 1; got 0": lambda: unrolled(inner._replace(num_steps=0)),
    "unrolled cannot differentiate the rule 'newton_cg'": lambda: unrolled(toy.loop(rules.newton_cg())),
    "inner must be an InnerLoop": lambda: unrolled(rules.sgd(0.1)),
  }
  for message, call in refusals.items():
    with pytest.raises(ValueError, match=message):
      call()


def test_a_user_rule_that_cannot_be_unrolled_is_named():
  rule = wj.UpdateRule(lambda key, params: (), lambda rule_params: None, differentiable=False, name="my_search")
  with pytest.raises(ValueError, match="my_search"):
    unrolled(toy.loop(rule), "first_order")


def test_empty_blocks_stay_empty():
  loss = lambda w, shared, batch: (jnp.sum((w - batch) ** 2), {})
  inner = wj.InnerLoop(loss, rules.sgd(0.1), 2)
  _, grads = toy.run(unrolled(inner), MetaParams(jnp.zeros(2)), Task(jnp.ones(2), jnp.ones(2)))
  assert grads.shared == () and grads.rule == ()
