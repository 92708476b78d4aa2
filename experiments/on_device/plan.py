"""The parts in their order, with their limits, and how the result of each is read and summarized."""

from __future__ import annotations

import os
import pathlib
import re
from typing import Any

from experiments.on_device.programs import PROGRAMS, RESULT, TRAINED
from experiments.on_device.schedule import Part
from warpjax.runner import workdir
from warpjax.runner.machine import provenance

SITE = "site"
_OUTCOME = re.compile(r"^(\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED)", re.MULTILINE)
# Shares of the minutes that remain. The time that a part leaves goes to the parts after it, at last to training.
SHARES = {
  **{"wheels": 0.2, "devices": 0.15, "tests": 0.3, "lowering": 0.15},
  **{"peers_float32": 0.25, "peers_tf32": 0.25, "peers_bfloat16": 0.3, "accuracy": 0.2, "memory": 0.2},
  **{"maml": 0.5, "meta_sgd_20way": 1.0},
}


def parts(directory: pathlib.Path, *, wheels: str | None, small: bool, data_dir: str | None) -> dict[str, Part]:
  """All parts by name.

  Args:
    directory: Where everything goes.
    wheels: A folder of wheels, which are installed into `site` in that folder and nowhere else.
    small: Whether sizes are tiny, to test the command.
    data_dir: Folder with Omniglot.
  """
  site = directory / SITE
  # One GPU is shared by the processes of a part.
  environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
  if site.is_dir() or wheels:
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.fspath(site), os.environ.get("PYTHONPATH")]))
  if small:  # most of the time of tiny programs is their compilation
    flags_of_xla = ["--xla_backend_optimization_level=0", os.environ.get("XLA_FLAGS", "")]
    environment["XLA_FLAGS"] = " ".join(filter(None, flags_of_xla))
  flags = [f"--workdir={directory}", "--seconds={seconds}", *(["--small"] if small else [])]
  flags += [f"--data_dir={data_dir}"] if data_dir else []

  def program(name: str) -> Part:
    command = ["-m", "experiments.accelerator", f"--part={name}", *flags]
    own = {**environment, **({} if name not in TRAINED else {"XLA_PYTHON_CLIENT_PREALLOCATE": "true"})}
    return Part(name, command, SHARES[name], _json, _LINES[name.split("_")[0]], own, needed=name == "devices")

  made = {name: program(name) for name in PROGRAMS}
  first = {"devices": made.pop("devices"), "tests": _tests(small, environment)}
  return ({"wheels": _wheels(wheels, site)} if wheels else {}) | first | made


def _wheels(wheels: str, site: pathlib.Path) -> Part:
  files = sorted(pathlib.Path(wheels).glob("*.whl"))
  if not files:
    raise ValueError(f"--wheels must be a folder with wheels; {wheels} has none.")
  options = ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade", "--disable-pip-version-check"]
  command = ["-m", "pip", "install", "--quiet", *options, "--target", os.fspath(site)]
  names = [path.name for path in files]
  return Part(
    "wheels",
    [*command, *map(os.fspath, (path.absolute() for path in files))],
    SHARES["wheels"],
    lambda folder: {"wheels": names},
    lambda result: f"{len(result['wheels'])} wheels.",
  )


def _tests(small: bool, environment: dict[str, str]) -> Part:
  every = sorted((provenance.ROOT / "tests").rglob("test_*.py"))
  files = [os.fspath(path) for path in every if "pytest.mark.gpu" in path.read_text(encoding="utf-8")]
  fewer = ["-k", "test_no_window_loses_its_gradient"] if small else []
  files = [path for path in files if not small or path.endswith("test_pooling.py")]
  command = ["-m", "pytest", "-m", "gpu", "-v", "--color=no", "-p", "no:cacheprovider", *fewer, *files]
  # Tests of single precision are of float32 products.
  own = {**environment, "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
  return Part("tests", command, SHARES["tests"], _outcomes, _of_tests, own)


def _json(folder: pathlib.Path) -> Any:
  return workdir.read_json(folder / RESULT)


def _outcomes(folder: pathlib.Path) -> dict[str, Any]:
  """The tests by outcome, those of a run that was cut off too."""
  found = _OUTCOME.findall((folder / "stdout").read_text(errors="replace"))
  names = {outcome: [name for name, which in found if which == outcome] for outcome in ("PASSED", "SKIPPED")}
  failed = [name for name, which in found if which in ("FAILED", "ERROR")]
  return {"passed": len(names["PASSED"]), "failed": failed, "skipped": len(names["SKIPPED"])}


def _of_tests(result: Any) -> str:
  failed = result["failed"]
  first = f": {failed[0]}" if failed else ""
  return f"{result['passed']} passed, {len(failed)} failed{first}, {result['skipped']} skipped."


def _of_devices(result: Any) -> str:
  versions = result["versions"]
  return f"{', '.join(result['devices'])} ({result['platform']}), Python {versions['python']}, jax {versions['jax']}."


def _of_lowering(result: Any) -> str:
  total = lambda times: 1e3 * (times["gradient"] + times["second_order"])
  of = lambda times: ", ".join(f"{name} {total(each):.3g} ms" for name, each in times.items())
  return "; ".join(f"{sizes}: {of(times)}" for sizes, times in result["seconds"].items()) + "."


def _of_peers(result: Any) -> str:
  shown = [row for row in result["rows"] if "seconds" in row]
  missing = [row["method"] for row in result["rows"] if "seconds" not in row]
  text = ", ".join(f"{row['method']} {1e3 * row['seconds']:.3g} ms ({row['ratio']:.3g})" for row in shown)
  if not shown:
    return f"Cut off: {(result.get('said') or ['nothing yet'])[-1]}."
  return " ".join([f"{text}.", *(f"{name} is missing." for name in missing)])


def _of_accuracy(result: Any) -> str:
  worst = max(result["rows"], key=lambda row: row["relative_error"] if row["method"] == "mixed" else 0)
  return f"{len(result['rows'])} rows; mixed mode's largest error {worst['relative_error']:.2g}, of {worst['case']}."


def _of_memory(result: Any) -> str:
  last = result["rows"][-1]["inner_steps"]
  shown = [f"{r['method']} {r['temp_bytes'] / 2**20:.3g} MiB" for r in result["rows"] if r["inner_steps"] == last]
  return f"Temporaries at {last} inner steps: {', '.join(shown)}."


def _of_training(result: Any) -> str:
  test, rate = result["test"], result.get("meta_steps_per_second")
  text = f"{result['num_meta_steps']:,} of {result['of']:,} meta-steps{f', {rate:.0f} a second' if rate else ''}"
  return f"{text}, {test['metric']} {test['mean']:.4f} on {test['num_tasks']} tasks." if test else f"{text}."


_LINES = {
  **{"devices": _of_devices, "lowering": _of_lowering, "peers": _of_peers, "accuracy": _of_accuracy},
  **{"memory": _of_memory, "maml": _of_training, "meta": _of_training},
}
