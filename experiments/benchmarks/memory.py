"""The memory of one task's meta-gradient against inner steps: what XLA plans, and the peak of a process."""

from __future__ import annotations

import multiprocessing
import pathlib
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any

import jax

from experiments.benchmarks import cost
from experiments.benchmarks.cost import Row, Setting
from experiments.benchmarks.estimators import Table, chosen, for_one_task, from_tables
from experiments.peers import worker
from warpjax.runner.config import schema


def rows(
  estimators: dict,
  inner_loop: dict,
  setting: dict,
  inner_steps: Sequence[int],
  peak_steps: Sequence[int] = (),
  only: Sequence[str] = (),
) -> Iterator[Row]:
  """The temporaries of each estimator at each number of inner steps, and for `peak_steps` the peak of a process."""
  base = schema.call("config.setting", setting, Setting)._replace(tasks=1)
  todo = cost.work(base, inner_loop)
  for each in (base._replace(inner_steps=steps) for steps in inner_steps):
    for name, table in chosen(estimators, only).items():
      peak = peak_of_a_process(each, inner_loop, table) if each.inner_steps in peak_steps else None
      yield {"method": name, **each._asdict(), **compiled(todo, each.inner_steps, table)[2], "peak_bytes": peak}


def compiled(todo: cost.Work, inner_steps: int, table: Table) -> tuple[Any, Any, Row]:
  """The compiled meta-gradient of one task, its arguments, and its properties that are known without running it."""
  task = jax.tree.map(lambda leaf: leaf[0], todo.tasks)
  make = from_tables({"it": table}, task)["it"]
  args = (todo.meta_params, task, jax.random.key(0))
  meta_grad = jax.jit(for_one_task(make(todo.inner._replace(num_steps=inner_steps))))
  program, known = cost.compiled(meta_grad, *args)
  return program, args, {"num_params": cost.num_params(todo.meta_params), **known}


def peak_of_a_process(setting: Setting, inner: Table, table: Table) -> int:
  """The peak bytes of a new process that computes the meta-gradient, JAX and the program included."""
  with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
    return pool.submit(_peak, setting, inner, table).result()


def _peak(setting: Setting, inner: Table, table: Table) -> int:
  program, args, _ = compiled(cost.work(setting, inner), setting.inner_steps, table)
  reset = pathlib.Path("/proc/self/clear_refs")
  if reset.exists():  # Linux forgets the peak of the compilation
    reset.write_text("5")
  jax.block_until_ready(program(*args))
  on_device = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
  return on_device or worker.peak_bytes()
