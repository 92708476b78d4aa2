"""The inner loop: what it does, what it shows to rules and batches, and what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.meta_gradients import unrolled
from warpjax.types import MetaParams, Task

pytestmark = pytest.mark.usefixtures("strict")


def test_a_python_loop_around_optax():
  meta_params, task, optimizer = toy.meta_params(), toy.task(), optax.adam(0.1)
  adapted = toy.jit(lambda m, t: wj.adapt(toy.loop(rules.from_optax(optimizer)), m, t, toy.key(), record=True))
  final, steps = adapted(meta_params, task)
  params, state = meta_params.initial, optimizer.init(meta_params.initial)
  gradient = toy.jit(jax.value_and_grad(toy.loss_fn, has_aux=True))
  for index in range(3):
    (value, _), grads = gradient(params, meta_params.shared, task.support)
    seen = jax.tree.map(lambda leaf, i=index: leaf[i], steps)
    toy.assert_close((seen.state.params, seen.value, seen.grads), (params, value, grads))
    assert seen.number == index
    updates, state = optimizer.update(grads, state)
    params = optax.apply_updates(params, updates)
    toy.assert_close(tuple(seen.next), (params, state))
  toy.assert_close(tuple(final), (params, state))


def test_nothing_is_recorded_unless_asked_for():
  assert wj.adapt(toy.loop(), toy.meta_params(), toy.task(), toy.key()).steps is None


def test_the_number_of_steps_can_be_overridden():
  meta_params, task = toy.meta_params(), toy.task()
  longer = wj.adapt(toy.loop(num_steps=3), meta_params, task, toy.key(), num_steps=5)
  toy.assert_close(longer, wj.adapt(toy.loop(num_steps=5), meta_params, task, toy.key()))


def test_the_program_does_not_grow_with_the_steps():
  size = lambda steps: len(str(jax.make_jaxpr(lambda m: unrolled(toy.loop(num_steps=steps))(m, toy.task(), toy.key()))(
    toy.meta_params()
  )))  # fmt: skip
  assert abs(size(400) - size(4)) < 0.01 * size(4)


def test_the_proximal_term_is_in_value_gradient_and_step():
  meta_params, task, prox = toy.meta_params(), toy.task(), 0.7
  inner = toy.loop(rules.sgd(0.2), prox=prox)
  steps = toy.jit(lambda task: wj.adapt(inner, meta_params, task, toy.key(), record=True).steps)(task)

  def loss(params, _):
    pull = sum(jnp.sum((params[name] - meta_params.initial[name]) ** 2) for name in params)
    return toy.loss_fn(params, meta_params.shared, task.support)[0] + prox / 2 * pull

  points = toy.jit(lambda initial: toy.descent(loss, initial, 0.2, 3))(meta_params.initial)
  toy.assert_close(jax.tree.map(lambda *leaves: np.stack(leaves), *points[1:]), steps.next.params)
  toy.assert_close(np.stack([toy.jit(loss)(point, 0) for point in points[:3]]), steps.value)


def test_the_proximal_weight_may_be_traced():
  meta_params, task = toy.meta_params(), toy.task()
  final = lambda prox: wj.adapt(toy.loop(prox=prox), meta_params, task, toy.key()).final.params
  traced = jax.jit(jax.vmap(final))(jnp.array([0.0, 0.7]))
  for i, prox in enumerate((0.0, 0.7)):
    toy.assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], traced), final(prox))


def watching_rule(seen):
  """A rule that hands out what the loop shows to it, in its state."""

  def update(grads, state, params=None, *, value, grad, value_fn, key):
    del state, grads
    return jax.tree.map(jnp.zeros_like, params), seen(params, value, grad, value_fn, key)

  def init(params):
    example = seen(params, jnp.zeros(()), params, lambda p: jnp.zeros(()), jax.random.key(0))
    return jax.tree.map(jnp.zeros_like, example)

  return rules.from_optax(optax.GradientTransformationExtraArgs(init, update))


def test_rules_see_value_gradient_and_value_fn_with_the_proximal_term():
  meta_params, task = toy.meta_params(), toy.task()
  away = lambda params: jax.tree.map(lambda leaf: leaf + 1, params)
  rule = watching_rule(
    lambda params, value, grad, value_fn, key: (value, grad, value_fn(params), value_fn(away(params)))
  )
  value, grad, same, moved = wj.adapt(toy.loop(rule, 1, prox=0.5), meta_params, task, toy.key()).final.opt_state
  (plain, _), plain_grad = jax.value_and_grad(toy.loss_fn, has_aux=True)(*meta_params[:2], task.support)
  toy.assert_close((value, grad, same), (plain, plain_grad, plain))
  expected = toy.loss_fn(away(meta_params.initial), meta_params.shared, task.support)[0] + 0.5 / 2 * 9
  toy.assert_close(moved, expected)


def test_rules_draw_from_a_stream_of_their_own():
  rule = watching_rule(lambda params, value, grad, value_fn, key: jax.random.key_data(key))
  inner = toy.loop(rule, 4)
  steps = wj.adapt(inner, toy.meta_params(), toy.task(), toy.key(), record=True).steps
  keys = {tuple(map(int, key)) for key in steps.next.opt_state}
  folded = {tuple(map(int, jax.random.key_data(jax.random.fold_in(toy.key(), i)))) for i in range(4)}
  assert len(keys) == 4 and not keys & folded


def indices(batch_fn, key, num_steps, total):
  """The examples that each step sees, `[num_steps, size]`; y is checked to stay beside its x."""
  support = (jnp.arange(total), 100 + jnp.arange(total))
  x, y = jax.jit(jax.vmap(lambda step: batch_fn(key, support, step, (), ())))(jnp.arange(num_steps))
  np.testing.assert_array_equal(y, x + 100)
  return np.asarray(x)


def test_minibatches_are_drawn_without_replacement_afresh_at_each_step():
  drawn = indices(wj.minibatch(3), toy.key(), 200, 5)
  assert drawn.shape == (200, 3)
  assert all(len(set(row)) == 3 for row in drawn)
  np.testing.assert_allclose(np.bincount(drawn.ravel()) / 200, 3 / 5, atol=0.12)
  assert len({tuple(row) for row in drawn}) > 30
  np.testing.assert_array_equal(drawn, indices(wj.minibatch(3), toy.key(), 200, 5))
  assert (drawn != indices(wj.minibatch(3), toy.key(8), 200, 5)).any()
  assert sorted(indices(wj.minibatch(5), toy.key(), 1, 5)[0]) == list(range(5))


@pytest.mark.parametrize(
  ("size", "total"),
  [pytest.param(2, 5, marks=pytest.mark.slow), (3, 5), (5, 5), (1, 3), pytest.param(4, 6, marks=pytest.mark.slow)],
)
def test_epochs_cycle_without_replacement_and_span_their_ends(size, total):
  num_epochs = 6
  drawn = indices(wj.epochs(size), toy.key(), num_epochs * total // size + 1, total)
  order = drawn.ravel()[: num_epochs * total].reshape(num_epochs, total)
  np.testing.assert_array_equal(np.sort(order), np.tile(np.arange(total), (num_epochs, 1)))
  assert len({tuple(row) for row in order}) > 1, "never reshuffled"
  assert (drawn != indices(wj.epochs(size), toy.key(8), len(drawn), total)).any()


def test_batches_are_held_constant():
  """A batch made of the parameters is data: how samples depend on them is the loss's business."""
  meta_params, task = toy.meta_params(), toy.task()
  point = meta_params.initial["b"]

  def rollout(params, support):
    return support[0] + params["b"][:2][None], support[1]

  moving = toy.loop(num_steps=1, batch_fn=lambda key, support, step, params, shared: rollout(params, support))
  fixed = toy.loop(num_steps=1, batch_fn=lambda key, support, step, params, shared: rollout({"b": point}, support))
  for derivative in ("mixed", "reverse"):
    toy.assert_close(*(toy.run(unrolled(inner, derivative), meta_params, task) for inner in (moving, fixed)))

  asked = lambda key, task, params, shared: rollout(params, task.query)
  final = wj.adapt(toy.loop(), meta_params, task, toy.key()).final.params
  told = lambda key, task, params, shared: rollout(final, task.query)
  inners = (toy.loop(query_batch_fn=batch_fn) for batch_fn in (asked, told))
  toy.assert_close(*(toy.run(unrolled(inner), meta_params, task) for inner in inners))


def test_a_derivative_in_the_task_is_refused():
  meta_params = toy.meta_params()

  def first_weight(task):
    return wj.adapt(toy.loop(), meta_params, task, toy.key()).final.params["b"][0]

  with pytest.raises(ValueError, match=r"the task is differentiated.*MetaParams\.shared"):
    jax.grad(first_weight)(toy.task())


def test_query_batches_draw_from_a_stream_of_their_own():
  seen = lambda key, task, params, shared: jax.random.key_data(key).astype(float)
  inner = toy.loop(query_batch_fn=seen, query_loss_fn=lambda params, shared, batch: (batch[0], {"low": batch[1]}))
  (high, aux), _ = unrolled(inner, "first_order")(toy.meta_params(), toy.task(), toy.key())
  folded = [jax.random.key_data(jax.random.fold_in(toy.key(), i)) for i in range(5)]
  assert all((high, aux["low"]) != (float(data[0]), float(data[1])) for data in folded)


def test_parameters_may_be_any_pytree():
  nested = (jnp.ones(()), Task(jnp.ones(()), ()))
  loss = lambda params, shared, batch: ((params[0] * params[1].support - batch) ** 2, {})
  final = wj.adapt(wj.InnerLoop(loss, rules.sgd(0.1), 1), MetaParams(nested), Task(jnp.zeros(()), ()), toy.key()).final
  toy.assert_close(final.params, (jnp.array(0.8), Task(jnp.array(0.8), ())))


def test_bad_input():
  refuse = lambda **fields: lambda: wj.adapt(toy.loop()._replace(**fields), toy.meta_params(), toy.task(), toy.key())
  support_of_four = lambda batch_fn: (
    lambda: wj.adapt(toy.loop(batch_fn=batch_fn), toy.meta_params(), toy.task(num_examples=4), toy.key())
  )
  refusals = {
    "num_steps must be an integer of at least 1; got 0": refuse(num_steps=0),
    "num_steps must be an integer of at least 1; got 2.0": refuse(num_steps=2.0),
    "num_steps must be an integer of at least 1; got True": refuse(num_steps=True),
    "num_steps must be an integer of at least 1; got '3'": refuse(num_steps="3"),
    "prox must be finite and at least 0; got -0.1": refuse(prox=-0.1),
    "prox must be finite and at least 0; got nan": refuse(prox=float("nan")),
    r"rule must be an UpdateRule such as rules.sgd\(0.1\)": refuse(rule=optax.sgd(0.1)),
    r"loss_fn must be a function \(params, shared, batch\); got None": refuse(loss_fn=None),
    r"batch_fn must be a function \(key, .*\); got 8": refuse(batch_fn=8),
    r"query_loss_fn must be a function \(params, .*; got 8": refuse(query_loss_fn=8),
    "prox must be finite and at least 0; got '2'": refuse(prox="2"),
    r"support must be arrays \[examples, ...\] to draw from; got \(\)": lambda: wj.adapt(
      toy.loop(batch_fn=wj.minibatch(1)), toy.meta_params(), Task((), ()), toy.key()
    ),
    r"support must have as many examples in each array; got \(\(5,\), \(3,\)\)": lambda: wj.adapt(
      toy.loop(batch_fn=wj.epochs(1)), toy.meta_params(), Task((np.ones(5), np.ones(3)), ()), toy.key()
    ),
    r"inner must be an InnerLoop\(loss_fn, rule, num_steps\); got tuple": lambda: wj.adapt(
      (), toy.meta_params(), toy.task(), toy.key()
    ),
    "size must be an integer of at least 1; got 0": lambda: wj.minibatch(0),
    "size must be an integer of at least 1; got 1.5": lambda: wj.epochs(1.5),
    "size must be at most the number of support examples, 4; got 5": support_of_four(wj.minibatch(5)),
    "size must be at most the number of support examples, 4; got 6": support_of_four(wj.epochs(6)),
  }
  for message, call in refusals.items():
    with pytest.raises(ValueError, match=message):
      call()
