"""2 and 8 devices give what one gives: checked in a process of its own, whose start fixes how many there are."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import compilation, rules, training
from warpjax.meta_gradients import along_trajectory, reptile, unrolled
from warpjax.training import parallel
from warpjax.training.task_batch import sample_tasks, task_key
from warpjax.types import Task

ROOT = pathlib.Path(__file__).parents[2]
TASKS, STEPS, AXIS = 8, 5, parallel.DEVICES
OPTIMIZER = optax.adam(0.1)
# With minibatches, so that a task that met another's key would show.
INNER = toy.loop(num_steps=2, batch_fn=toy.pair)
CARRIED = along_trajectory(INNER._replace(rule=rules.sgd(0.1, 0.9)), reptile(), carry_optimizer=True)
QUICK = ("shard_map_with_tasks", "eight_devices")
SLOW = ("vmap", "pmap", "shard_map")
WAYS = [*QUICK, *[pytest.param(way, marks=pytest.mark.slow) for way in SLOW]]


def sampler(key):
  support, query = jax.random.normal(key, (2, 2, 4, 2))
  return Task(tuple(support), tuple(query))


@functools.cache
def start(meta_grad):
  def state(point):
    return training.init(
      toy.key(), INNER.rule, point.initial, point.shared, OPTIMIZER, meta_grad=meta_grad, tasks_per_step=TASKS
    )

  return jax.jit(state)(toy.meta_params())


def many(meta_grad, axis_name):
  step = training.meta_step(meta_grad, OPTIMIZER, axis_name=axis_name)
  return training.many_steps(step, sampler, tasks_per_step=TASKS, num_steps=STEPS, axis_name=axis_name)


def plain(state, metrics):
  """Everything that a run leaves, as NumPy arrays."""
  return jax.device_get((state._replace(key=jax.random.key_data(state.key)), metrics))


def mapped(transformation, meta_grad):
  """Under vmap or pmap: each part has its copy of the state and its share of the carry; the copies stay equal."""

  @jax.jit
  def parts(state):
    copies = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state._replace(carry=()))
    return copies._replace(carry=jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), state.carry))

  run = transformation(many(meta_grad, AXIS), axis_name=AXIS)
  run = jax.jit(run) if transformation is jax.vmap else run
  state, metrics = plain(*run(parts(start(meta_grad))))
  carry = jax.tree.map(lambda leaf: leaf.reshape(TASKS, *leaf.shape[2:]), state.carry)
  rest = state._replace(carry=()), metrics
  jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf[0], leaf[1]), rest)
  state, metrics = jax.tree.map(lambda leaf: leaf[0], rest)
  return state._replace(carry=carry), metrics


def sharded(meta_grad, devices=2):
  run = parallel.over_devices(many(meta_grad, AXIS), parallel.device_mesh(devices))  # which takes no tasks
  return plain(*jax.block_until_ready(run(start(meta_grad))))


def sharded_with_tasks(meta_grad):
  step = training.meta_step(meta_grad, OPTIMIZER, axis_name=AXIS)
  run, state, seen = parallel.over_devices(step, parallel.device_mesh(2)), start(meta_grad), []
  draw = jax.jit(lambda key, step: sample_tasks(sampler, task_key(key, step), TASKS))
  for _ in range(STEPS):
    state, metrics = run(state, draw(state.key, state.step))
    seen.append(jax.block_until_ready(metrics))
  return plain(state, jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(seen)))


def adapted(axis_name):
  """The adapted parameters themselves, in the place of the metrics."""

  def step(state: Any, tasks: Task) -> Any:
    one = lambda task: wj.adapt(INNER, state.meta_params, task, state.key).final.params
    params = jax.vmap(one)(tasks)
    return state, params if axis_name is None else jax.lax.all_gather(params, axis_name, tiled=True)

  return step


def first_meta_gradient(devices):
  """In single precision, read off a step of plain descent, over so many devices; 1 is without a mesh."""
  optimizer, axis_name = optax.sgd(1.0), None if devices == 1 else AXIS
  point = toy.meta_params(dtype=jnp.float32)
  state = training.init(toy.key(), INNER.rule, point.initial, point.shared, optimizer)
  tasks = toy.tasks(TASKS, dtype=jnp.float32)
  step = training.meta_step(unrolled(INNER), optimizer, axis_name=axis_name)
  run = jax.jit(step) if devices == 1 else parallel.over_devices(step, parallel.device_mesh(devices))
  return jax.tree.map(np.subtract, *jax.device_get((run(state, tasks)[0].meta_params, state.meta_params)))


def memory_gaps():
  """Of a meta-step over two devices under the policies that run steps again, from one device and every residual."""
  inner, tasks = INNER._replace(num_steps=5), toy.tasks(2)

  def stepped(memory, axis_name):
    step = training.meta_step(unrolled(inner, memory=memory), OPTIMIZER, axis_name=axis_name)
    run = jax.jit(step) if axis_name is None else parallel.over_devices(step, parallel.device_mesh(2))
    return plain(*run(start(None), tasks))

  expected = stepped("save_all", None)
  return {memory: gap(stepped(memory, AXIS), expected) for memory in ("nested", "treeverse", "offload")}


def with_data():
  """Tasks from an array that is an argument, as the runner draws them: the gap to one device, what is copied."""
  data, mesh = jax.random.normal(jax.random.key(1), (64, 2, 2, 4, 2)), parallel.device_mesh(2)
  draw = jax.tree_util.Partial(lambda data, key: Task(*map(tuple, data[jax.random.choice(key, len(data))])), data)

  def dispatch(axis_name, state, draw):
    step = training.meta_step(unrolled(INNER), OPTIMIZER, axis_name=axis_name)
    options = {"tasks_per_step": TASKS, "num_steps": STEPS, "axis_name": axis_name}
    return training.many_steps(step, draw, **options)(state)

  run = parallel.over_devices(functools.partial(dispatch, AXIS), mesh, takes_tasks=False)
  state, placed = parallel.on_every_host((start(None), draw), mesh)
  run(state, placed)  # compiles
  with jax.transfer_guard_device_to_device("disallow"):
    found = plain(*run(state, placed))
    copied = refusal(lambda: jax.block_until_ready(run(state, draw)), RuntimeError)
  (array,) = jax.tree.leaves(placed)
  places = {shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards}
  expected = plain(*jax.jit(functools.partial(dispatch, None))(start(None), draw))
  return {"gap": gap(found, expected), "places": len(places), "shards": len(array.addressable_shards), "copied": copied}


def norm(tree):
  return float(np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(tree))))


def refusal(call, kind=ValueError):
  try:
    call()
  except kind as error:
    return str(error)
  return "nothing was refused"


def gap(left, right):
  """The largest difference between two trees of one structure."""
  assert jax.tree.structure(left) == jax.tree.structure(right)
  pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
  return max(float(np.max(np.abs(np.asarray(a, float) - np.asarray(b, float)))) for a, b in pairs)


def main(ways: tuple[str, ...]) -> None:
  """Run with eight devices and in double precision; prints what the tests look at."""
  found: dict[str, Any] = {"devices": jax.device_count(), "gaps": {}}
  for name, meta_grad in (("unrolled", unrolled(INNER)), ("carried", CARRIED)):
    expected = plain(*jax.jit(many(meta_grad, None))(start(meta_grad)))
    found["moved"] = gap(expected[0].meta_params, toy.meta_params())
    vmapped, pmapped = functools.partial(mapped, jax.vmap), functools.partial(mapped, jax.pmap)
    eight = functools.partial(sharded, devices=8)
    runs = dict(zip((*QUICK, *SLOW), (sharded_with_tasks, eight, vmapped, pmapped, sharded), strict=True))
    found["gaps"] |= {f"{name}/{way}": gap(runs[way](meta_grad), expected) for way in ways}

  state, tasks = start(None), toy.tasks(TASKS)
  over = parallel.over_devices(adapted(AXIS), parallel.device_mesh(2))
  found["adapted"] = gap(over(state, tasks)[1], jax.jit(adapted(None))(state, tasks)[1])

  one = first_meta_gradient(1)
  found["float32"] = [norm(jax.tree.map(np.subtract, first_meta_gradient(n), one)) / norm(one) for n in (2, 8)]
  found["dtypes"] = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(one)})

  found["memory"] = memory_gaps()
  found["data"] = with_data()
  found["uneven"] = refusal(lambda: over(state, toy.tasks(3)))
  step = training.many_steps(adapted(AXIS), sampler, tasks_per_step=3, num_steps=1, axis_name=AXIS)
  run = parallel.over_devices(step, parallel.device_mesh(2), takes_tasks=False)
  found["uneven_many"] = refusal(lambda: run(state))
  found["mesh"] = [refusal(lambda count=count: parallel.device_mesh(count)) for count in (0, 9)]
  print(json.dumps(found))


@functools.cache
def report_of(ways):
  quick = " ".join(f"--{name}={str(value).lower()}" for name, value in compilation.fast_compilation().items())
  environment = os.environ | {
    "XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {quick}",
    "JAX_ENABLE_X64": "1",
    "JAX_PLATFORMS": "cpu",
  }
  code = f"from tests.training import test_parallel; test_parallel.main({ways})"
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
  )
  assert done.returncode == 0, done.stderr[-4000:]
  return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def found():
  return report_of(QUICK)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("meta_grad", ["unrolled", "carried"])
def test_devices_give_the_run_of_one(meta_grad, way):
  found = report_of(SLOW if way in SLOW else QUICK)
  assert found["devices"] == 8 and found["moved"] > 0.01
  assert found["gaps"][f"{meta_grad}/{way}"] < 1e-9


def test_data_are_an_argument_that_devices_of_a_cpu_share_and_no_call_copies(found):
  found = found["data"]
  assert found["gap"] < 1e-9 and (found["places"], found["shards"]) == (1, 2)
  assert "isallowed device-to-device transfer" in found["copied"]


def test_the_first_meta_gradient_in_single_precision(found):
  assert found["dtypes"] == ["float32"]
  assert max(found["float32"]) < 1e-5


def test_an_inner_gradient_is_not_summed_over_the_devices(found):
  assert found["adapted"] < 1e-13


@pytest.mark.parametrize("memory", ["nested", "treeverse", "offload"])
def test_steps_that_run_again_over_devices(found, memory):
  assert found["memory"][memory] < 1e-9


def test_uneven_tasks_are_refused(found):
  assert found["uneven_many"] == "tasks_per_step must be a multiple of the 2 devices; got 3"
  assert found["uneven"] == "the number of tasks must be a multiple of the 2 devices; got 3"


def test_devices_that_are_not_there_are_refused(found):
  assert found["mesh"] == [f"num_devices must be between 1 and 8; got {count}" for count in (0, 9)]


def test_devices_are_not_made_once_jax_has_one():
  assert len(jax.devices()) == 1 == parallel.use_cores(1)
  with pytest.raises(ValueError, match="before JAX runs anything; it has 1 of 3 CPU devices"):
    parallel.use_cores(3)
  with pytest.raises(ValueError, match="cores must be"):
    parallel.use_cores(0)


@pytest.mark.slow  # test_a_cpu_is_made_into_devices in tests/runner/machine/test_hosts.py does it by command
def test_devices_are_made_before_jax_has_any():
  code = "from warpjax.training import parallel; parallel.use_cores(2); import jax; print(jax.device_count())"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert done.stdout == "2\n"


def test_a_mesh_of_one_device():
  mesh = parallel.device_mesh(1)
  assert mesh.axis_names == (AXIS,) and mesh.size == 1


def test_a_step_that_averages_over_no_axis_is_refused():
  """It would keep the first device's result and drop the others' without a word."""
  inner = wj.InnerLoop(lambda w, shared, batch: (0.5 * (w - batch) ** 2, {}), wj.rules.sgd(0.5), 1)
  step = training.meta_step(wj.meta_gradients.unrolled(inner), optax.sgd(1.0))
  with pytest.raises(ValueError, match="axis_name must be the same for the step and what runs it; got None and 'devi"):
    parallel.over_devices(step, parallel.device_mesh(1))
  with pytest.raises(ValueError, match="got None and 'devices'"):
    training.many_steps(step, lambda key: None, tasks_per_step=2, num_steps=1, axis_name="devices")
