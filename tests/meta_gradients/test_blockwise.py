"""Estimators of one inner loop share an adaptation: the numbers of two, for the products of one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.diagnostics import cost
from warpjax.linear_solve import cg
from warpjax.meta_gradients import along_trajectory, blockwise, implicit, leap, reptile, unrolled, warp
from warpjax.tasks import continual


def random_query(key, task, params, shared):
  """A query batch that depends on its key, so that points that share one are found out."""
  del params, shared
  return toy.some(key, task.query, 2)


def loop(rule=None, **kwargs):
  return toy.loop(rule, batch_fn=toy.pair, query_batch_fn=random_query, **kwargs)


def at_step(key, task, step, params, shared):
  del params, shared
  return toy.some(key, task.query, 2, step)


def both(estimate, meta_params):
  """Two tasks under one `vmap`."""
  keys = jax.random.split(toy.key(), 2)
  return toy.jit(lambda point: jax.vmap(lambda task, key: estimate(point, task, key))(toy.tasks(2), keys))(meta_params)


def by_two(initial, shared):
  """The same blocks from two adaptations: a plain function of an estimator cannot share."""
  return blockwise(initial=lambda *args: initial(*args), shared=lambda *args: shared(*args))


MOMENTUM = rules.chain(rules.meta_sgd((0.5, 1.0)), rules.sgd(0.05, momentum=0.9))
HOSTS = {
  "mixed": unrolled,
  "reverse": lambda inner: unrolled(inner, "reverse"),
  "first_order": lambda inner: unrolled(inner, "first_order"),
  "save_all": lambda inner: unrolled(inner, memory="save_all"),
  "recompute": lambda inner: unrolled(inner, memory="recompute"),
  "truncated": lambda inner: unrolled(inner, truncate=1),
  "weighted": lambda inner: unrolled(inner, step_weights=(0.2, 0.3, 0.5)),
  "leap": lambda inner: along_trajectory(inner, leap()),
}
QUICK = ("mixed",)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in HOSTS])
def test_one_adaptation_gives_what_two_do(name):
  inner, host = loop(MOMENTUM, prox=0.5), HOSTS[name]
  seen_so_far = continual.query_at_step(warp("full", reduction="sum"), at_step)
  guest = along_trajectory(inner, reptile(), seen_so_far, warp("first_order"))
  meta_params = toy.meta_params(MOMENTUM)
  toy.assert_close(
    both(blockwise(initial=host(inner), shared=guest), meta_params), both(by_two(host(inner), guest), meta_params)
  )


@pytest.mark.usefixtures("strict")
def test_a_contribution_with_a_solve_is_a_guest_too():
  inner, meta_params = loop(prox=1.0), toy.meta_params()
  host, guest = unrolled(inner), along_trajectory(inner, implicit(cg(2)))
  toy.assert_close(both(blockwise(initial=host, shared=guest), meta_params), both(by_two(host, guest), meta_params))


@pytest.mark.usefixtures("strict")
def test_another_inner_loop_is_another_adaptation():
  meta_params = toy.meta_params()
  host, guest = unrolled(loop(num_steps=2)), along_trajectory(loop(num_steps=3), warp())
  toy.assert_close(both(blockwise(initial=host, shared=guest), meta_params), both(by_two(host, guest), meta_params))


@pytest.mark.usefixtures("strict")
def test_the_shared_adaptation_can_be_differentiated():
  inner, meta_params = loop(rules.sgd(0.1), num_steps=2), toy.meta_params()
  host, guest = unrolled(inner), along_trajectory(inner, warp())
  along = toy.direction(meta_params)

  def projected(estimate):
    return lambda point: optax.tree.vdot(estimate(point, toy.task(), toy.key())[1], along)

  one = projected(blockwise(initial=host, shared=guest))
  found = toy.jit(jax.grad(one))(meta_params)
  toy.assert_close(found, toy.jit(jax.grad(projected(by_two(host, guest))))(meta_params))
  toy.assert_slopes(toy.jit(one), meta_params, found)


def test_a_guest_saves_an_inner_gradient_at_every_step():
  def loss_fn(params, shared, batch):
    return jnp.mean((jnp.tanh(batch[0] @ params) @ shared - batch[1]) ** 2), {}

  width, num_steps = 8, 4
  meta_params = wj.MetaParams(jnp.ones((width, width)), jnp.ones((width, width)))
  task = wj.Task(*[(jnp.ones((16, width)), jnp.ones((16, width)))] * 2)
  inner = wj.InnerLoop(loss_fn, rules.sgd(0.1), num_steps)
  host, guest = unrolled(inner), along_trajectory(inner, warp())
  flops = lambda estimate: cost.flops(estimate, meta_params, task, toy.key())
  gradient = cost.flops(jax.grad(loss_fn, has_aux=True), meta_params.initial, meta_params.shared, task.support)
  query = cost.flops(loss_fn, meta_params.initial, meta_params.shared, task.query)
  saved = flops(by_two(host, guest)) - flops(blockwise(initial=host, shared=guest))
  assert saved >= num_steps * gradient + query
