"""The parts, each in a process of its own; a part writes `result.json` while it runs."""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks import accuracy, memory
from experiments.on_device.schedule import PARTS, RUNS
from experiments.peers import cases, group, ratios
from warpjax.datasets import archives, omniglot
from warpjax.diagnostics import timing
from warpjax.runner import measure, run, workdir
from warpjax.runner.config import recipes, settings
from warpjax.runner.machine import lowering, provenance
from warpjax.runner.machine.interrupts import Interrupted

RESULT = "result.json"
PACKAGES = (
  *("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax", "optax", "orbax-checkpoint", "numpy", "scipy"),
  *("pillow", "pytest", "torch", "tensorflow-datasets"),
)
# Convolutions of Conv-4 as Omniglot and mini-ImageNet have them.
SIZES: dict[str, dict[str, int]] = {
  "omniglot": {"num_tasks": 32, "batch": 75, "size": 14, "channels": 64, "features": 64, "strides": 2},
  "omniglot_support": {"num_tasks": 32, "batch": 5, "size": 14, "channels": 64, "features": 64, "strides": 2},
  "mini_imagenet": {"num_tasks": 4, "batch": 75, "size": 42, "channels": 32, "features": 32, "strides": 1},
}
SMALL_SIZES = {"omniglot": {"num_tasks": 2, "batch": 2, "size": 6, "channels": 2, "features": 2, "repeats": 1}}
SMALL_RUN = (
  *("num_meta_steps=6", "tasks_per_step=2", "checkpoint_every=2", "steps_per_dispatch=2", "data.ways=2"),
  *("network.width=2", "eval.num_tasks=2", "eval.num_steps=1"),
)
FOR_EVALUATION = 0.25  # share of a training part's time, and at most so many seconds
AT_MOST = 25.0


class Call(NamedTuple):
  """How a part is called.

  Attributes:
    name: The part's.
    directory: The folder of all parts.
    seconds: The limit of the part.
    small: Whether sizes are tiny, to test the command.
    data_dir: Folder with Omniglot.
  """

  name: str
  directory: pathlib.Path
  seconds: float = 3600.0
  small: bool = False
  data_dir: str | None = None

  def write(self, result: Any) -> None:
    """Writes the result so far."""
    folder = self.directory / PARTS / self.name
    folder.mkdir(parents=True, exist_ok=True)
    workdir.write_json(folder / RESULT, result)

  def write_rows(self, rows: Iterable[dict[str, Any]], **facts: Any) -> None:
    """Writes the rows, again whenever there is another one."""
    written: list[dict[str, Any]] = []
    self.write({**facts, "rows": written})
    for row in rows:
      written.append(row)
      self.write({**facts, "rows": written})


def devices(call: Call) -> None:
  """The devices, the versions and the machine.

  Raises:
    ValueError: If JAX sees no accelerator, on which all other parts would take too long.
  """
  found = jax.devices()
  versions = {}
  for name in PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions[name] = importlib.metadata.version(name)
  made = provenance.of_run()
  call.write(
    {
      **made,
      "versions": {"python": made["versions"]["python"], **versions},
      "platform": found[0].platform,
      "platform_version": found[0].client.platform_version,
      "devices": [device.device_kind for device in found],
      "memory_bytes": (found[0].memory_stats() or {}).get("bytes_limit"),
    }
  )
  if found[0].platform == "cpu" and not call.small:
    raise ValueError("JAX sees no accelerator, only the CPU; --small tests the command on it.")


def lowerings(call: Call) -> None:
  """The seconds of both lowerings of convolutions at several sizes, and which is faster at the first of them."""
  found: dict[str, Any] = {}
  for name, sizes in (SMALL_SIZES if call.small else SIZES).items():
    found[name] = timing.time_lowerings(**sizes)
    call.write({"fastest": lowering.fastest(found["omniglot"]), "seconds": found})


def _fastest(call: Call) -> Any:
  """The lowering that the part `lowering` chose; "auto" if that part has no result."""
  measured = workdir.read_json(call.directory / PARTS / "lowering" / RESULT)
  return measured["fastest"] if measured else "auto"


def peers(call: Call, precision: Any) -> None:
  """MAML's meta-step on Omniglot by warpjax, by JAX by hand and by PyTorch, which take turns."""
  case = cases.CASES["omniglot_5"]._replace(peers=("jax", "torch"), precision=precision, lowering=_fastest(call))
  case, rounds = (cases.smaller(case)._replace(num_steps=1), 2) if call.small else (case, 9)
  facts = {"precision": precision, "lowering": case.lowering, "rounds": rounds}
  said: list[str] = []

  def say(line: str) -> None:
    said.append(line)
    call.write({**facts, "rows": [], "said": said})  # the seconds of each round, where the part is cut off

  call.write_rows(ratios.of_case(case, group.time_case(case, rounds, say=say)), **facts, said=said)


def errors(call: Call) -> None:
  """The benchmark's accuracy: some estimators against the exact meta-gradient, in single precision on the network."""
  row = recipes.settings("benchmark:accuracy")
  names, steps = ["mixed", "reverse", "first_order", "implicit_cg_5", "implicit_cg_20"], [16, 64]
  problems = {name: row["problems"][name] for name in ("network", "quadratic", "linear_regression")}
  if call.small:
    names, steps, problems = ["mixed"], [2], {"quadratic": {"num_tasks": 2, "dim": 3}}
  estimators = _estimators(row, names)
  # One problem after the other, so that those which are done stay.
  of_each = (accuracy.rows({name: table}, estimators, steps) for name, table in problems.items())
  call.write_rows(itertools.chain.from_iterable(of_each))


def peaks(call: Call) -> None:
  """The benchmark's memory: what is planned for some estimators, and the peak of a process at the most inner steps."""
  row = recipes.settings("benchmark:memory")
  names, steps, setting = ["reverse_save_all", "mixed_recompute", "first_order"], [1, 16, 64], row["setting"]
  if call.small:
    names, steps, setting = ["mixed_recompute"], [1], {"problem": "sines", "width": 4, "shots": 2, "queries": 2}
  peak_steps = [] if call.small else steps[-1:]
  rows = memory.rows(_estimators(row, names), row["inner_loop"], setting, steps, peak_steps)
  call.write_rows(rows, setting=setting)


def _estimators(row: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
  return {name: row["estimators"][name] for name in names}


def train(call: Call) -> None:
  """Trains a row of `configs/omniglot.py` at its paper's budget until the time is up, and says where it stopped.

  The run is in `runs/NAME`, and another call continues it. A run that is not finished is tested on fewer tasks.
  """
  overrides = [*(SMALL_RUN if call.small else ()), f"network.lowering={_fastest(call)}"]
  begun = workdir.begun_config(call.directory / RUNS / call.name)
  config = begun or settings.load_config(f"omniglot:{call.name}", *overrides)
  directory = call.directory / RUNS / call.name
  places: dict[str, Any] = {
    "data_dir": _made(call) if call.small else call.data_dir,
    "cache_dir": os.fspath(call.directory / "cache"),
  }
  reserved = min(FOR_EVALUATION * call.seconds, AT_MOST)
  try:
    with _stopped_after(call.seconds - reserved):
      result: Any = run.train_and_evaluate(config, directory, **places)
  except Interrupted:
    result = None
  progress = {"row": f"omniglot:{call.name}", "of": config["num_meta_steps"], **_progress(directory)}
  call.write({**progress, "finished": result is not None, "test": result})
  if result is None and progress["num_meta_steps"]:
    experiment, state = run.restore(directory, **places)
    tested, _ = measure.measure(experiment, state, num_tasks=2 if call.small else 500)
    call.write({**progress, "num_meta_steps": int(state.step), "finished": False, "test": tested})


@contextlib.contextmanager
def _stopped_after(seconds: float) -> Any:
  """Sends SIGTERM to this process then, at which training saves and stops; outside of training it raises the same."""

  def stop(number: int, frame: Any) -> None:
    del frame
    raise Interrupted(number)

  before = signal.signal(signal.SIGTERM, stop)
  timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()
    signal.signal(signal.SIGTERM, before)


def _progress(directory: pathlib.Path) -> dict[str, Any]:
  """The meta-steps in `metrics.jsonl`, the last loss, and how many a second, without the first dispatch."""
  rows = [row for row in workdir.read_metrics(directory) if row["split"] == "train"]
  if not rows:
    return {"num_meta_steps": 0}
  first, last = rows[0], rows[-1]
  seconds = last["seconds"] - first["seconds"]
  rate = (last["step"] - first["step"]) / seconds if seconds > 0 else None
  return {"num_meta_steps": last["step"], "loss": last["loss"], "meta_steps_per_second": rate}


def _made(call: Call) -> str:
  """A folder with a packed data set of as many characters as the split needs, two drawings of noise each."""
  folder = call.directory / "data"
  if not (folder / omniglot.PACKED).exists():
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (1210, 2, 28 * 4), np.uint8)
    classes = {f"Made/character{i:04d}": [b"P4 28 28 " + each.tobytes() for each in two] for i, two in enumerate(noise)}
    archives.pack_drawings(folder / omniglot.PACKED, classes)
  return os.fspath(folder)


PRECISIONS = ("float32", "tf32", "bfloat16")
TRAINED = ("maml", "meta_sgd_20way")
PROGRAMS: dict[str, Callable[[Call], None]] = {
  "devices": devices,
  "lowering": lowerings,
  **{f"peers_{precision}": partial(peers, precision=precision) for precision in PRECISIONS},
  "accuracy": errors,
  "memory": peaks,
  **dict.fromkeys(TRAINED, train),
}
