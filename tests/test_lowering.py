"""What runs on a GPU or a TPU, lowered on a CPU: every estimator through every kind of network."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType

import warpjax as wj
from tests.test_conformance import ESTIMATORS, SETTINGS, one_task
from warpjax import losses, meta_gradients, networks, rl, rules, training
from warpjax.training import optimizers, parallel, replay

PLATFORMS = ("cuda", "tpu")
CONV = {
  "lax": ("convolution", "dot_general"),
  "patches": ("dot_general",),
}
EXAMPLES, STEPS, TASKS = 4, 3, 2


def convolution(lowering: str) -> dict[str, Any]:
  return {"conv_general_dilated": functools.partial(networks.conv_general_dilated, lowering=lowering)}


def classifier(module: Any, *shape: int) -> tuple[Any, Any, Any]:
  """Loss, network and one task's batch, all by shape alone."""
  network = networks.from_linen(module)
  batch = jnp.zeros((EXAMPLES, *shape)), jnp.zeros(EXAMPLES, int)
  return losses.classification(network.apply), network.init, batch


def recurrent_policy() -> tuple[Any, Any, Any]:
  network = networks.from_linen(networks.WarpRNN(width=3, num_actions=2))
  loss = rl.policy_gradient(rl.recurrent(network.apply, rl.categorical()))
  zeros = jnp.zeros((STEPS, EXAMPLES))
  episodes = rl.Episodes(jnp.zeros((STEPS, EXAMPLES, 2)), zeros.astype(int), zeros, zeros + 1)
  init = lambda key, batch: network.init(key, (None, batch.episodes.observations[0]))
  return loss, init, rl.Batch(episodes, zeros)


NETWORKS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
  "mlp": (lambda: classifier(networks.MLP((3,), 2, warp=networks.WarpSpec("linear")), 2), ("dot_general",)),
  "policy": (recurrent_policy, ("dot_general", "while")),
}
for lowering, operations in CONV.items():
  with_it = convolution(lowering)
  conv4 = networks.maml_mini_imagenet(2, width=2, num_blocks=2, warp=networks.WarpSpec(), **with_it)
  resnet12 = networks.ResNet12(2, widths=(2, 2, 2, 2), warp=networks.WarpSpec("conv1x1"), **with_it)
  NETWORKS[f"conv4-{lowering}"] = (functools.partial(classifier, conv4, 16, 16, 1), operations)
  NETWORKS[f"resnet12-{lowering}"] = (functools.partial(classifier, resnet12, 16, 16, 1), operations)


def learner(name: str) -> tuple[wj.InnerLoop, wj.MetaParams, wj.Task]:
  loss, init, batch = NETWORKS[name][0]()
  inner = wj.InnerLoop(loss, rules.sgd(0.1), num_steps=2)
  x = batch if isinstance(batch, rl.Batch) else batch[0]
  params, shared = jax.eval_shape(init, jax.random.key(0), x)
  tasks = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((TASKS, *leaf.shape), leaf.dtype), wj.Task(batch, batch))
  return inner, wj.MetaParams(params, shared, ()), tasks


def lowered(function: Callable[..., Any], *args: Any) -> dict[str, str]:
  """The program for each platform, as text."""
  traced = jax.jit(function).trace(*args)
  return {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in PLATFORMS}


def assert_operations(texts: dict[str, str], operations: Sequence[str]) -> None:
  for platform, text in texts.items():
    used = set(re.findall(r"stablehlo\.(\w+)", text))
    assert set(operations) <= used, (platform, used)
    assert ("convolution" in used) == ("convolution" in operations), platform
    assert not re.search("lapack|_ffi|callback", text), (platform, set(re.findall(r"custom_call @(\w+)", text)))


def adapted_loss(inner: wj.InnerLoop) -> Callable[..., Any]:
  def loss(meta_params: wj.MetaParams, task: wj.Task, key: jax.Array) -> jax.Array:
    final = wj.adapt(inner, meta_params, task, key).final.params
    return inner.loss_fn(final, meta_params.shared, task.query)[0]

  return loss


FUNCTIONS = {"forward": adapted_loss, **{name: lambda inner, e=e: one_task(e(inner)) for name, e in ESTIMATORS.items()}}
# Other settings of an estimator lower to the same operations.
QUICK = [("mlp", function) for function in FUNCTIONS if function not in SETTINGS]
QUICK += [(network, "mixed") for network in NETWORKS if not network.startswith(("mlp", "resnet12"))]
WHOLE = [(network, function) for network in NETWORKS for function in FUNCTIONS]


def marked(pair: tuple[str, str]) -> Any:
  return pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow)


@pytest.mark.parametrize(("network", "function"), [marked(pair) for pair in WHOLE])
def test_it_lowers_for_a_gpu_and_a_tpu(network, function):
  inner, meta_params, tasks = learner(network)
  keys = jax.random.split(jax.random.key(0), TASKS)
  vmapped = jax.vmap(FUNCTIONS[function](inner), (None, 0, 0))
  assert_operations(lowered(vmapped, meta_params, tasks, keys), NETWORKS[network][1])


def state_of(inner: wj.InnerLoop, meta_params: wj.MetaParams, optimizer: Any) -> Any:
  start = functools.partial(training.init, rule=inner.rule, optimizer=optimizer)
  return jax.eval_shape(lambda key, p, s: start(key, params=p, shared=s), jax.random.key(0), *meta_params[:2])


@pytest.mark.parametrize("memory", ["device", "host"])
@pytest.mark.parametrize("network", ["mlp", *[pytest.param(name, marks=pytest.mark.slow) for name in [*NETWORKS][1:]]])
def test_offline_replay_lowers_and_waits_where_it_is_told_to(network, memory):
  inner, meta_params, tasks = learner(network)
  optimizer = optimizers.per_block(optax.sgd(0.1))
  step = replay.meta_step(inner, optimizer, memory=memory, task_chunk=1)
  texts = lowered(step, state_of(inner, meta_params, optimizer), tasks)
  assert_operations(texts, NETWORKS[network][1])
  assert all(("pinned_host" in text) == (memory == "host") for text in texts.values())


@pytest.mark.parametrize("network", ["mlp", *[pytest.param(name, marks=pytest.mark.slow) for name in [*NETWORKS][1:]]])
def test_the_step_over_two_devices_lowers_and_averages_over_them(network):
  inner, meta_params, tasks = learner(network)
  optimizer = optax.adam(1e-3)
  step = training.meta_step(meta_gradients.unrolled(inner), optimizer, axis_name="devices", task_chunk=1)
  spread = parallel.over_devices(step, AbstractMesh((2,), ("devices",), axis_types=(AxisType.Auto,)))
  texts = lowered(spread, state_of(inner, meta_params, optimizer), tasks)
  assert_operations(texts, (*NETWORKS[network][1], "all_reduce"))
