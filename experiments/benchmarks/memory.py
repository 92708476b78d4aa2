"""The memory of one task's meta-gradient against inner steps: what XLA plans, and what a process really takes.

As a script it measures one setting, read as JSON from standard input: the peak of a process that does nothing else.
"""

from __future__ import annotations

import json
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from experiments.benchmarks import cost, estimators
from experiments.benchmarks.cost import Row, Setting

_ROOT = pathlib.Path(__file__).parents[2]


def rows(
  base: Setting,
  inner: Mapping[str, Any],
  tables: Mapping[str, Mapping[str, Any]],
  inner_steps: Sequence[int],
  peak_steps: Sequence[int] = (),
) -> Iterator[Row]:
  """The temporaries of each estimator at each number of inner steps, and for `peak_steps` the peak of a process."""
  todo = cost.work(base._replace(tasks=1), inner)
  for steps in inner_steps:
    setting = base._replace(inner_steps=steps, tasks=1)
    for name, table in tables.items():
      planned = compiled(todo, steps, table)[2]
      peak = peak_of_a_process(setting, inner, table) if steps in peak_steps else None
      yield {"method": name, **setting._asdict(), **planned, "peak_bytes": peak}


def compiled(todo: cost.Work, inner_steps: int, table: Mapping[str, Any]) -> tuple[Any, Any, Row]:
  """The compiled meta-gradient of one task, its arguments, and what is known without running it."""
  task = jax.tree.map(lambda leaf: leaf[0], todo.tasks)
  make = estimators.from_tables({"it": table}, task)["it"]
  args = (todo.meta_params, task, jax.random.key(0))
  started = time.perf_counter()
  traced = jax.jit(estimators.for_one_task(make(todo.inner._replace(num_steps=inner_steps)))).trace(*args)
  program = traced.lower().compile()
  known = {"num_params": cost.num_params(todo.meta_params), "compile_seconds": time.perf_counter() - started}
  return program, args, {**known, **cost.planned(traced, program)}


def peak_of_a_process(setting: Setting, inner: Mapping[str, Any], table: Mapping[str, Any]) -> int:
  """Bytes that a new process takes at most while it computes the meta-gradient, JAX and the program included.

  Raises:
    RuntimeError: with what the process said, when it failed.
  """
  given = json.dumps({"setting": setting._asdict(), "inner": dict(inner), "table": dict(table)})
  command = [sys.executable, "-m", "experiments.benchmarks.memory"]
  done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=_ROOT)
  if done.returncode:
    raise RuntimeError(f"the process that measures memory failed:\n{done.stderr}")
  return int(done.stdout)


def _peak(given: Mapping[str, Any]) -> int:
  setting = Setting(**given["setting"])
  program, args, _ = compiled(cost.work(setting, given["inner"]), setting.inner_steps, given["table"])
  reset = pathlib.Path("/proc/self/clear_refs")
  if reset.exists():  # Linux forgets the peak of the compilation
    reset.write_text("5")
  jax.block_until_ready(program(*args))
  on_device = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
  return on_device or _resident_peak()


def _resident_peak() -> int:
  status = pathlib.Path("/proc/self/status")
  if status.exists():
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
  size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return size if sys.platform == "darwin" else 1024 * size


if __name__ == "__main__":
  print(_peak(json.load(sys.stdin)))
