"""TRPO and PPO on a decision process whose episodes are all listed, so that nothing is random; over devices too."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from tests.rl import tabular
from tests.test_imports import ROOT
from warpjax import compilation, rules, training
from warpjax.rl import ppo, trpo
from warpjax.training import parallel

PARAMS = np.array([[0.3, -0.2], [-0.5, 0.4]])
SCALES = np.array([1.0, 0.5])
SGD = optax.sgd(1.0)


def state_of(optimizer=None):
  return training.init(toy.key(), rules.sgd(0.7), PARAMS, (), optimizer or optax.identity())


def tasks(scales=SCALES):
  return wj.Task(jnp.asarray(scales), jnp.asarray(scales))


def loss_after():
  """`(params) -> ` the exact loss after adaptation by the exact gradient, over both tasks."""
  inner = tabular.exact_loop()

  @toy.jit
  def loss(params):
    adapted = lambda s: wj.adapt(inner, wj.MetaParams(params), wj.Task(s, s), toy.key()).final.params
    return jnp.mean(jax.vmap(lambda s: inner.loss_fn(adapted(s), (), s)[0])(jnp.asarray(SCALES)))

  return loss


@pytest.mark.parametrize("derivative", ["reverse", pytest.param("first_order", marks=pytest.mark.slow)])
def test_trpo_raises_the_exact_return_within_its_divergence(x64, derivative):
  state, loss = state_of(), loss_after()
  step = toy.jit(trpo.meta_step(tabular.listed_loop(), derivative=derivative))
  losses = [loss(state.meta_params.initial)]
  for _ in range(3):
    state, metrics = step(state, tasks())
    losses.append(loss(state.meta_params.initial))
    assert 0 < metrics["kl"] <= 0.01 and metrics["finite"] and metrics["step_scale"] > 0
  assert all(after < before for before, after in zip(losses, losses[1:], strict=False))
  assert int(state.step) == 3


def test_the_first_gradient_of_trpo_and_ppo_is_that_of_unrolled(x64):
  """Where the ratio is 1 the clipped objective has the policy gradient; one epoch of plain descent moves by it."""
  inner, one = tabular.listed_loop(), tasks([1.0])
  grads = toy.run(wj.meta_gradients.unrolled(inner), wj.MetaParams(jnp.asarray(PARAMS)), wj.Task(1.0, 1.0))[1]
  _, metrics = toy.jit(trpo.meta_step(inner))(state_of(), one)
  np.testing.assert_allclose(metrics["grad_norm/initial"], optax.tree.norm(grads), rtol=1e-8)
  state, metrics = toy.jit(ppo.meta_step(inner, SGD, epochs=1))(state_of(SGD), one)
  np.testing.assert_allclose(PARAMS - state.meta_params.initial, grads.initial, rtol=1e-8)
  np.testing.assert_allclose(metrics["grad_norm/initial"], optax.tree.norm(grads), rtol=1e-8)
  np.testing.assert_allclose(metrics["kl"], 0, atol=1e-12)


def test_ppo_raises_the_exact_return(x64):
  optimizer, loss = optax.adam(0.05), loss_after()
  state = state_of(optimizer)
  step = toy.jit(ppo.meta_step(tabular.listed_loop(), optimizer, epochs=3))
  losses = [loss(state.meta_params.initial)]
  for _ in range(3):
    state, metrics = step(state, tasks())
    losses.append(loss(state.meta_params.initial))
    assert metrics["finite"] and metrics["kl"] > 0
  assert all(after < before for before, after in zip(losses, losses[1:], strict=False))
  assert int(state.step) == 3 and optax.tree.get(state.opt_state, "count") == 9


def test_a_clipped_term_has_no_gradient():
  ratio = jnp.array([0.5, 0.5, 1.0, 1.1, 1.5, 1.5])
  advantages = jnp.array([2.0, -2.0, 2.0, -2.0, 2.0, -2.0])
  gains, slopes = toy.jit(jax.vmap(jax.value_and_grad(lambda r, a: ppo.clipped(r, a, 0.2))))(ratio, advantages)
  np.testing.assert_allclose(gains, [1.0, -1.6, 2.0, -2.2, 2.4, -3.0], rtol=1e-6)
  np.testing.assert_allclose(slopes, [2.0, 0.0, 2.0, -2.0, 0.0, -2.0], rtol=1e-6)


def test_a_ratio_at_its_bound_keeps_its_gradient():
  bound = jnp.array([1.2, 0.8, 1.2])
  slopes = toy.jit(jax.grad(lambda ratio: jnp.sum(ppo.clipped(ratio, jnp.array([2.0, -2.0, -2.0]), 0.2))))(bound)
  np.testing.assert_array_equal(slopes, [2.0, -2.0, -2.0])


MAKE = {"trpo": trpo.meta_step, "ppo": lambda inner, **kwargs: ppo.meta_step(inner, SGD, epochs=2, **kwargs)}


def one_device(name):
  return toy.jit(MAKE[name](tabular.listed_loop(), task_chunk=1))(state_of(SGD), tasks())


def gap(left, right):
  """The largest difference, flags as numbers."""
  pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
  return max(float(np.max(np.abs(np.asarray(a, float) - np.asarray(b, float)))) for a, b in pairs)


@pytest.mark.parametrize("name", ["ppo", pytest.param("trpo", marks=pytest.mark.slow)])
def test_tasks_over_an_axis_give_the_step_of_one_device(x64, name):
  state, metrics = one_device(name)
  step = MAKE[name](tabular.listed_loop(), axis_name="tasks")
  each = jax.tree.map(lambda leaf: leaf[:, None], tasks())
  axes = training.TrainState(None, None, None, None, 0)
  spread, found = toy.jit(jax.vmap(step, (axes, 0), axis_name="tasks"))(state_of(SGD), each)
  for index in range(2):
    here = jax.tree.map(lambda leaf, index=index: leaf[index], (spread.meta_params, found))
    assert gap(here, (state.meta_params, metrics)) < 1e-10
  assert gap(state.meta_params, state_of().meta_params) > 0.01


def main():
  """Run with two devices and in double precision: prints how far a step on them is from a step on one."""
  found = {}
  for name in MAKE:
    step = MAKE[name](tabular.listed_loop(), axis_name=parallel.DEVICES)
    state, metrics = parallel.over_devices(step, parallel.device_mesh(2))(state_of(SGD), tasks())
    expected, numbers = one_device(name)
    found[name] = gap((state.meta_params, metrics), (expected.meta_params, numbers))
  print(json.dumps(found))


@pytest.mark.slow
def test_two_devices_give_the_step_of_one():
  quick = " ".join(f"--{name}={str(value).lower()}" for name, value in compilation.fast_compilation().items())
  flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {quick}", "JAX_ENABLE_X64": "1"}
  done = subprocess.run(
    [sys.executable, "-c", "from tests.rl import test_outer_steps; test_outer_steps.main()"],
    cwd=ROOT,
    env=os.environ | flags | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert done.returncode == 0, done.stderr[-4000:]
  found = json.loads(done.stdout.splitlines()[-1])
  assert set(found) == set(MAKE) and max(found.values()) < 1e-10


REFUSED = [
  (lambda: trpo.meta_step(toy.loop()), r"must be rl.policy_gradient\(...\) for trpo"),
  (lambda: ppo.meta_step(toy.loop(), SGD), r"must be rl.policy_gradient\(...\) for ppo"),
  (lambda: trpo.meta_step(tabular.listed_loop()._replace(rule=rules.newton_cg(2))), "newton_cg"),
  (lambda: trpo.meta_step(tabular.listed_loop(), trpo.Settings(max_kl=0.0)), "max_kl must be above 0"),
  (
    lambda: trpo.meta_step(tabular.listed_loop(), task_chunk=0),
    "task_chunk must be None or an integer of at least 1; got 0",
  ),
  (
    lambda: ppo.meta_step(tabular.listed_loop(), SGD, task_chunk=0),
    "task_chunk must be None or an integer of at least 1; got 0",
  ),
  (lambda: ppo.meta_step(tabular.listed_loop(), SGD, clip=0.0), "clip must be above 0; got 0.0"),
  (lambda: ppo.meta_step(tabular.listed_loop(), SGD, epochs=0), "epochs must be an integer of at least 1; got 0"),
  (lambda: ppo.meta_step(tabular.listed_loop(), SGD, derivative="mixed"), "derivative must be one of 'reverse'"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_bad_arguments_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
