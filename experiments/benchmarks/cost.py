"""What a meta-step costs: seconds, temporaries and floating-point operations, over the settings that decide it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from warpjax import losses, networks, training
from warpjax.checks import check_count
from warpjax.diagnostics import cost, timing
from warpjax.runner.components import outer_step
from warpjax.runner.config import registry, schema
from warpjax.tasks import few_shot, sinusoid
from warpjax.training import parallel
from warpjax.types import InnerLoop, MetaParams, Task

Row = dict[str, Any]
IMAGE, CLASSES = (28, 28, 1), 2  # made of noise; a task has twice as many classes to draw from as ways


class Setting(NamedTuple):
  """One measurement.

  Attributes:
    problem: "images", Conv-4 on made images of 28x28, or "sines", a network of two layers of `width`.
    ways: Classes of a task of images.
    shots: Support examples (of each class).
    queries: Query examples (of each class).
    inner_steps: Inner steps.
    width: Filters or units of a layer.
    tasks: Tasks in a meta-step.
    task_chunk: Tasks side by side; 0 chooses.
    dtype: Of the computations, "float32" or "bfloat16"; parameters are float32.
    devices: That share the tasks.
  """

  problem: str = "images"
  ways: int = 5
  shots: int = 1
  queries: int = 15
  inner_steps: int = 5
  width: int = 64
  tasks: int = 32
  task_chunk: int = 0
  dtype: str = "float32"
  devices: int = 1


class Work(NamedTuple):
  """What is measured: an inner loop, where it starts, and tasks `[tasks, ...]`."""

  inner: InnerLoop
  meta_params: MetaParams
  tasks: Task


def work(setting: Setting, inner: Mapping[str, Any]) -> Work:
  """The problem of a setting under the inner loop of a table such as `config.inner`.

  Raises:
    ValueError: for a setting that is not allowed.
  """
  for name, value in setting._asdict().items():
    if isinstance(value, int) and not name.startswith("task_"):
      check_count(f"config.{name}", value)
  schema.choose("config.dtype", setting.dtype, {"float32": 0, "bfloat16": 0})
  dtype, key = None if setting.dtype == "float32" else jnp.dtype(setting.dtype), jax.random.key(0)
  if schema.choose("config.problem", setting.problem, {"images": True, "sines": False}):
    shape = (CLASSES * setting.ways, setting.shots + setting.queries, *IMAGE)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    sampler = few_shot.sampler(images, ways=setting.ways, shots=setting.shots, queries=setting.queries)
    module: Any = networks.Conv4(num_classes=setting.ways, width=setting.width, dtype=dtype)
    make_loss: Any = losses.classification
  else:
    sampler = sinusoid.sampler("maml", shots=setting.shots, queries=setting.queries)
    module = networks.MLP(features=(setting.width, setting.width), num_outputs=1, dtype=dtype)
    make_loss = losses.regression
  network = networks.from_linen(module)
  tasks = jax.jit(lambda: training.sample_tasks(sampler, key, setting.tasks))()
  params, shared = network.init(key, tasks.support[0][0])
  loop = registry.inner({**inner, "num_steps": setting.inner_steps}, make_loss(network.apply))
  return Work(loop, MetaParams(params, shared, loop.rule.init(key, params)), tasks)


def num_params(meta_params: MetaParams) -> int:
  """Elements of all blocks."""
  return sum(leaf.size for leaf in jax.tree.leaves(meta_params))


def meta_step(setting: Setting, method: Mapping[str, Any], *, repeats: int = 5) -> Row:
  """Compiles and times one meta-step.

  Args:
    setting: The sizes.
    method: `inner` and `meta_gradient`, tables as in an experiment's config.
    repeats: Meta-steps timed; the median counts.

  Returns:
    The setting with `num_params`, `temp_bytes`, `flops` (by count, of one device), `compile_seconds`, `seconds` and
    `meta_steps_per_second`.
  """
  todo = work(setting, method["inner"])
  made = registry.named("meta_gradient", method, inner=todo.inner)
  outer = outer_step.resolve(made, jax.eval_shape(partial(jax.tree.map, lambda leaf: leaf[0]), todo.tasks))
  optimizer, spread = optax.adam(1e-3), setting.devices > 1
  initial, shared, _ = todo.meta_params
  state = training.init(
    jax.random.key(0),
    todo.inner.rule,
    initial,
    shared,
    optimizer,
    meta_grad=outer.meta_grad,
    tasks_per_step=setting.tasks,
  )
  axis = parallel.DEVICES if spread else None
  step: Any = outer.make_step(optimizer, axis_name=axis, task_chunk=setting.task_chunk or None)
  step = parallel.over_devices(step, parallel.device_mesh(setting.devices)) if spread else jax.jit(step)
  started = time.perf_counter()
  traced = step.trace(state, todo.tasks)
  compiled = traced.lower().compile()
  compile_seconds = time.perf_counter() - started
  # The first call also allocates.
  median = statistics.median(timing.seconds_of(lambda: compiled(state, todo.tasks), repeats))
  known = {"num_params": num_params(state.meta_params), "compile_seconds": compile_seconds}
  known |= planned(traced, compiled)
  return {**setting._asdict(), **known, "seconds": median, "meta_steps_per_second": 1 / median}


def planned(traced: Any, compiled: Any) -> Row:
  """What is known of a compiled program without running it."""
  found = cost.cost_of(traced, compiled)
  return {"temp_bytes": found.temp_bytes, "flops": found.flops}


def speed(base: Setting, methods: Mapping[str, Any], axes: Mapping[str, Sequence[Any]], repeats: int) -> Iterator[Row]:
  """Every method under `base`, and under each other value of one axis at a time."""
  others = [base._replace(**{axis: value}) for axis, values in axes.items() for value in values]
  for setting in dict.fromkeys((base, *others)):
    for name, method in methods.items():
      yield {"method": name, **meta_step(setting, method, repeats=repeats)}


def scaling(
  base: Setting, methods: Mapping[str, Any], axes: Mapping[str, Sequence[Any]], repeats: int
) -> Iterator[Row]:
  """One axis after another, the rest as in `base`; numbers of devices that there are not are left out, and named."""
  for axis, values in axes.items():
    for value in values:
      setting = base._replace(**{axis: value})
      if setting.devices > jax.device_count() or setting.tasks % setting.devices:
        print(f"Left out: {axis} {value}, with {jax.device_count()} devices and {setting.tasks} tasks.")
        continue
      for name, method in methods.items():
        yield {"method": name, "axis": axis, **meta_step(setting, method, repeats=repeats)}
