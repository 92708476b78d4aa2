"""The cost of a meta-step: seconds, temporaries and floating-point operations, over the settings that decide it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.estimators import Table, chosen
from warpjax import losses, networks, training
from warpjax.checks import check_count
from warpjax.diagnostics import cost, timing
from warpjax.runner.components import outer_step
from warpjax.runner.config import registry, schema
from warpjax.tasks import few_shot, sinusoid
from warpjax.training import parallel
from warpjax.types import InnerLoop, LossFn, MetaParams, Task, TaskSampler

Row = dict[str, Any]
IMAGE, CLASSES = (28, 28, 1), 2  # made of noise; a task has twice as many classes to draw from as ways
DTYPES = {"float32": None, "bfloat16": jnp.dtype("bfloat16")}


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
    task_chunk: Tasks under one `vmap`; 0 chooses.
    dtype: Dtype of the computations, "float32" or "bfloat16"; parameters are float32.
    devices: Devices that share the tasks.
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
  """The measured problem: an inner loop, its start, and tasks `[tasks, ...]`."""

  inner: InnerLoop
  meta_params: MetaParams
  tasks: Task


def work(setting: Setting, inner: Table) -> Work:
  """The problem of a setting under the inner loop of a table such as `config.inner`.

  Raises:
    ValueError: For a setting that is not allowed.
  """
  for name, value in setting._asdict().items():
    if isinstance(value, int) and name != "task_chunk":
      check_count(f"config.{name}", value)
  schema.choose("config.dtype", setting.dtype, DTYPES)
  make = schema.choose("config.problem", setting.problem, {"images": _images, "sines": _sines})
  sampler, network, loss_fn = make(setting)
  key = jax.random.key(0)
  tasks = jax.jit(lambda: training.sample_tasks(sampler, key, setting.tasks))()
  params, shared = network.init(key, tasks.support[0][0])
  loop = registry.inner({**inner, "num_steps": setting.inner_steps}, loss_fn)
  return Work(loop, MetaParams(params, shared, loop.rule.init(key, params)), tasks)


def _images(setting: Setting) -> tuple[TaskSampler, networks.Network, LossFn]:
  shape = (CLASSES * setting.ways, setting.shots + setting.queries, *IMAGE)
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  sampler = few_shot.sampler(images, ways=setting.ways, shots=setting.shots, queries=setting.queries)
  module = networks.Conv4(num_classes=setting.ways, width=setting.width, dtype=DTYPES[setting.dtype])
  network = networks.from_linen(module)
  return sampler, network, losses.classification(network.apply)


def _sines(setting: Setting) -> tuple[TaskSampler, networks.Network, LossFn]:
  sampler = sinusoid.sampler("maml", shots=setting.shots, queries=setting.queries)
  module = networks.MLP(features=(setting.width, setting.width), num_outputs=1, dtype=DTYPES[setting.dtype])
  network = networks.from_linen(module)
  return sampler, network, losses.regression(network.apply)


def compiled(jitted: Any, *args: Any) -> tuple[Any, Row]:
  """The compiled program of a jitted function for some arguments, and what is known without running it."""
  started = time.perf_counter()
  traced = jitted.trace(*args)
  program = traced.lower().compile()
  seconds = time.perf_counter() - started
  planned = cost.cost_of(traced, program)
  return program, {"compile_seconds": seconds, "temp_bytes": planned.temp_bytes, "flops": planned.flops}


def num_params(meta_params: MetaParams) -> int:
  """Elements of all blocks."""
  return sum(leaf.size for leaf in jax.tree.leaves(meta_params))


def ready(
  todo: Work,
  outer: outer_step.OuterStep,
  optimizer: optax.GradientTransformation,
  *,
  devices: int = 1,
  task_chunk: int | None = None,
) -> tuple[Any, training.TrainState]:
  """The jitted meta-step over some devices, and the state that it starts from."""
  initial, shared, _ = todo.meta_params
  sizes = {"meta_grad": outer.meta_grad, "tasks_per_step": jax.tree.leaves(todo.tasks)[0].shape[0]}
  state = training.init(jax.random.key(0), todo.inner.rule, initial, shared, optimizer, **sizes)
  if devices == 1:
    return jax.jit(outer.make_step(optimizer, axis_name=None, task_chunk=task_chunk)), state
  step: Any = outer.make_step(optimizer, axis_name=parallel.DEVICES, task_chunk=task_chunk)
  return parallel.over_devices(step, parallel.device_mesh(devices)), state


def meta_step(setting: Setting, method: Table, *, repeats: int = 5, seconds: float = math.inf) -> Row:
  """Compiles and times one meta-step.

  Args:
    setting: The sizes.
    method: `inner` and `meta_gradient`, tables as in an experiment's config.
    repeats: Meta-steps timed; the median counts.
    seconds: Time limit of the repeats; at least one is timed.

  Returns:
    The setting with `num_params`, `temp_bytes`, `flops` (by count, of one device), `compile_seconds`, `seconds` and
    `meta_steps_per_second`.
  """
  todo = work(setting, method["inner"])
  example = jax.eval_shape(partial(jax.tree.map, lambda leaf: leaf[0]), todo.tasks)
  outer = outer_step.resolve(registry.meta_gradient(method, todo.inner), example)
  chunk = setting.task_chunk or None
  step, state = ready(todo, outer, optax.adam(1e-3), devices=setting.devices, task_chunk=chunk)
  program, known = compiled(step, state, todo.tasks)
  (first,) = timing.seconds_of(call := lambda: program(state, todo.tasks), 1, warm_up=0)
  count = max(1, int(min(repeats, seconds / first)))
  median = statistics.median(timing.seconds_of(call, count, warm_up=0))
  sizes = {**setting._asdict(), "num_params": num_params(state.meta_params)}
  return {**sizes, **known, "seconds": median, "meta_steps_per_second": 1 / median}


def speed(methods: dict, setting: dict, axes: dict, repeats: int, only: Sequence[str] = ()) -> Iterator[Row]:
  """Every method under the setting, and under each other value of one axis at a time."""
  base, methods = _setting(setting), dict(chosen(methods, only))
  others = [base._replace(**{axis: value}) for axis, values in axes.items() for value in values]
  for each in dict.fromkeys((base, *others)):
    for name, method in methods.items():
      yield {"method": name, **meta_step(each, method, repeats=repeats)}


def _setting(table: Mapping[str, Any]) -> Setting:
  return schema.call("config.setting", table, Setting)
