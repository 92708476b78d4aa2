"""Turns the results of the parts into records: tables in `results/benchmark/gpu_*.json`, and rows of finished runs."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from experiments.on_device.programs import PRECISIONS, TRAINED
from experiments.on_device.schedule import RUNS, SUMMARY
from warpjax.runner import workdir
from warpjax.runner.machine import provenance
from warpjax.runner.reporting import recording, records

COMMAND = "python -m experiments.accelerator"
Results = Mapping[str, Any]
Rows = Iterator[list[str]]


class Table(NamedTuple):
  """A table of RESULTS.md: its title, what it is, its columns, and its rows by the parts' results."""

  title: str
  text: str
  columns: tuple[str, ...]
  rows: Any


def write(folder: pathlib.Path, results: pathlib.Path = records.FOLDER) -> list[str]:
  """Writes the records of what was measured on a GPU.

  Args:
    folder: A workdir of the command, or its export, where `runs.tar` is unpacked for the rows of finished runs.
    results: Where records are.

  Returns:
    Lines that say what was written, and what was not.

  Raises:
    ValueError: Outside of a checkout, for a folder without results, or results of tiny sizes or of no accelerator.
  """
  records.check_checkout()
  summary = workdir.read_json(folder / SUMMARY)
  if summary is None:
    raise ValueError(f"--record must be a folder with {SUMMARY}; {folder} has none.")
  found = {name: row["result"] for name, row in summary["parts"].items() if row.get("result")}
  machine = found.get("devices")
  if machine is None or machine["platform"] == "cpu" or summary["small"]:
    what = "of --small" if summary["small"] else "of no accelerator" if machine else "of an unknown device"
    raise ValueError(f"records are made from whole measurements on an accelerator; those in {folder} are {what}.")
  lines = [*_tables(found, summary, results), *_runs(folder, found, results)]
  return [*lines, "warpjax report prints them in RESULTS.md."]


def _tables(found: Results, summary: Results, results: pathlib.Path) -> Iterator[str]:
  machine = found["devices"]
  for name, table in TABLES.items():
    if not (rows := list(table.rows(found))):
      yield f"gpu_{name}: nothing was measured."
      continue
    record = {
      "title": f"{table.title}, on {machine['devices'][0]}",
      "text": table.text,
      "command": COMMAND,
      "commit": summary["commit"] or provenance.commit(),
      **({} if summary["commit"] else {"note": "the commit is that of the recording"}),
      "versions": {key: machine["versions"][key] for key in ("python", "jax", "torch") if key in machine["versions"]},
      "machine": machine["machine"],
      "columns": list(table.columns),
      "rows": rows,
    }
    path = results / "benchmark" / f"gpu_{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    workdir.write_json(path, record)
    yield f"{path}: {len(rows)} rows."


def _runs(folder: pathlib.Path, found: Results, results: pathlib.Path) -> Iterator[str]:
  for name in TRAINED:
    if not found.get(name, {}).get("finished"):
      yield f"omniglot:{name} is not finished, so its row has no record; the table of training says where it stopped."
    elif not (directory := folder / RUNS / name).is_dir():
      yield f"omniglot:{name} is finished; unpack runs.tar in {folder} for its record."
    else:
      yield f"{recording.write(recording.make(directory), folder=results)} is the record of omniglot:{name}."


def _lowering(found: Results) -> Rows:
  for sizes, times in found.get("lowering", {}).get("seconds", {}).items():
    for name, each in times.items():
      yield [sizes, f"`{name}`", *(f"{1e3 * each[key]:.3g}" for key in ("value", "gradient", "second_order"))]


def _peers(found: Results) -> Rows:
  for precision in PRECISIONS:
    for row in found.get(f"peers_{precision}", {}).get("rows", ()):
      if "seconds" not in row:
        yield [precision, row["method"], "-", "-", row["remark"]]
        continue
      quartiles = f"{1e3 * row['seconds_low']:.3g} to {1e3 * row['seconds_high']:.3g}"
      interval = f" ({row['ratio_low']:.3g} to {row['ratio_high']:.3g})" if "ratio_low" in row else ""
      remark = "" if row.get("agrees", True) else "its first loss or gradient differs by more than 1%"
      time = f"{1e3 * row['seconds']:.3g} ({quartiles})"
      yield [precision, row["method"], time, f"{row['ratio']:.3g}{interval}", remark]


def _accuracy(found: Results) -> Rows:
  for row in found.get("accuracy", {}).get("rows", ()):
    error = f"{row['relative_error']:.2g}"
    yield [row["case"], f"`{row['method']}`", str(row["inner_steps"]), row["block"], error, f"{row['cosine']:.6f}"]


def _memory(found: Results) -> Rows:
  for row in found.get("memory", {}).get("rows", ()):
    sizes = [f"{row[key] / 2**20:.1f}" if row.get(key) else "-" for key in ("temp_bytes", "peak_bytes")]
    yield [f"`{row['method']}`", str(row["inner_steps"]), *sizes]


def _training(found: Results) -> Rows:
  for name in TRAINED:
    if (row := found.get(name)) and row["num_meta_steps"]:
      test, rate = row["test"] or {}, row.get("meta_steps_per_second")
      number = records.number(test.get("mean"), test.get("ci95"), test.get("metric", ""))
      done = f"{row['num_meta_steps']:,} of {row['of']:,}"
      yield [f"`{row['row']}`", done, f"{rate:.0f}" if rate else "-", number, str(test.get("num_tasks", "-"))]


TABLES = {
  "lowering": Table(
    "Both lowerings of a convolution",
    "Milliseconds of a 3x3 convolution with weights for each task, of its gradient, and of a gradient through one "
    "inner step, at the sizes of Conv-4 on Omniglot (query and support set) and on mini-ImageNet.",
    ("sizes", "lowering", "value", "gradient", "second order"),
    _lowering,
  ),
  "peers": Table(
    "A meta-step of MAML beside others'",
    "Omniglot, 32 tasks, 5 inner steps, Conv-4 with 64 filters; `jax` is `jax.grad` and `jax.vmap` by hand, `torch` "
    "PyTorch by hand. Median milliseconds with quartiles, and the ratio to warpjax with its 95% interval.",
    ("products", "peer", "ms", "ratio", "remark"),
    _peers,
  ),
  "accuracy": Table(
    "Error of the meta-gradient",
    "Relative error and cosine against the exact meta-gradient; the network in single precision, the others in double.",
    ("problem", "estimator", "inner steps", "block", "relative error", "cosine"),
    _accuracy,
  ),
  "memory": Table(
    "Memory against inner steps",
    "MiB of one task's meta-gradient: temporaries as XLA plans them, and the peak that the device reports.",
    ("estimator", "inner steps", "temporaries", "peak"),
    _memory,
  ),
  "training": Table(
    "Training at the papers' budgets",
    "The meta-steps that each run made in its minutes, and its accuracy on test tasks then, in percent.",
    ("row", "meta-steps", "meta-steps a second", "accuracy", "test tasks"),
    _training,
  ),
}
