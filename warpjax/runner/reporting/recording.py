"""Makes the record of a finished run, `results/RECIPE/ROW.json`."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from warpjax.runner import workdir
from warpjax.runner.config import recipes, settings
from warpjax.runner.machine import provenance
from warpjax.runner.reporting import records

# Settings that change no number, or are stated elsewhere in the record.
OF_THE_MACHINE = ("task_chunk", "cpu_devices", "steps_per_dispatch", "checkpoint_every", "network.lowering")
NAMES = ("experiment", "method", "seed", "modules", "published")
LEFT_OUT = ("data", "published", "seed", "device", "provenance")


def make(directory: pathlib.Path, *, evaluation: str = "", row: str = "", reason: str = "") -> dict[str, Any]:
  """The record of a finished run.

  Args:
    directory: The workdir, of one run or of a sweep over seeds.
    evaluation: Takes `evaluation_NAME.json` in place of `result.json`.
    row: The row whose number the evaluation gives; "" for the run's own row.
    reason: Why the number is short of its paper's.

  Returns:
    The record.

  Raises:
    ValueError: Outside of a checkout; for a tree with changes, a run that is not finished, or one that belongs to no
      row of a recipe in configs/.
  """
  records.check_checkout()
  if changes := provenance.changes():
    raise ValueError(f"the tree has changes that no commit has; commit them first: {', '.join(changes)}.")
  config = workdir.read_json(directory / workdir.CONFIG)
  whole = workdir.read_json(directory / workdir.RESULT)
  result = workdir.read_json(directory / f"evaluation_{evaluation}.json") if evaluation else whole
  _check_finished(directory, config, whole)
  if result is None:
    raise ValueError(f"{directory} has no evaluation_{evaluation}.json; warpjax evaluate makes it.")
  recipe, method = recipes.load(config["experiment"]), row or config["method"]
  if recipe.path.parent not in recipes.FOLDERS or not recipe.has(method):
    raise ValueError(f"only rows in configs/ have records; {config['experiment']}:{method} is not one.")
  changed = dict(_changed(recipe, method, config, result.get("changed", {})))
  extra = {"changed": changed, "reason": reason, "trained_as": config["method"] if row else ""}
  return {
    **{key: value for key, value in result.items() if key not in LEFT_OUT},
    "method": method,
    "tasks_per_step": config["tasks_per_step"],
    **{key: value for key, value in extra.items() if value},
    "command": _evaluate_command(config, evaluation, result) if evaluation else _command(config, result, changed),
    **_of_the_run(directory, config, whole),
  }


def _check_finished(directory: pathlib.Path, config: Any, result: Any) -> None:
  if config is None or result is None or "mean" not in result:
    raise ValueError(f"--workdir must be a finished run or sweep over seeds; {directory} is not.")
  if (steps := result["num_meta_steps"]) != config["num_meta_steps"]:
    raise ValueError(f"{directory} must have a result of {config['num_meta_steps']} meta-steps; it has one of {steps}.")
  if "init_from" in result:
    raise ValueError(f"{directory} began from the parameters of another run, so its number is not the row's.")


def _of_the_run(directory: pathlib.Path, config: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
  """Seeds, seconds, commit, versions and machine; from the time of recording if the run is too old to have them."""
  seeds = _seeds(config, whole)
  first = workdir.read_json(directory / f"seed_{seeds[0]}" / workdir.RESULT) or whole
  made = first.get("provenance")
  note = {} if made else {"note": "commit, versions and machine are those of the recording"}
  over = "seeds" if len(seeds) > 1 else "tasks"
  return {"over": over, "seeds": seeds, "wall_seconds": whole["wall_seconds"], **(made or provenance.of_run()), **note}


def _seeds(config: Mapping[str, Any], result: Mapping[str, Any]) -> list[int]:
  return result.get("seeds", [config.get("seed", 0)])


def _changed(
  recipe: recipes.Recipe, method: str, config: Mapping[str, Any], tested: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
  """The settings in which a tested run differs from the row."""
  resolved = lambda table: dict(recipes.flat(workdir.as_json(settings.resolved(table))))
  whole, config = resolved(recipe.settings(method)), resolved(config)
  if method == config["method"]:
    yield from ((key, value) for key, value in config.items() if whole.get(key) != value and not _is_named(key))
    yield from ((key, None) for key in whole if key not in config and not _is_named(key))
    yield from tested.items()
  elif wrong := [key for key, value in tested.items() if whole.get(key) != workdir.as_json(value)]:
    raise ValueError(f"--row={method} is tested otherwise: {', '.join(f'{key}={whole.get(key)}' for key in wrong)}.")


def _is_named(key: str) -> bool:
  return key in OF_THE_MACHINE or key.split(".")[0] in NAMES


def _command(config: Mapping[str, Any], result: Mapping[str, Any], changed: Mapping[str, Any]) -> str:
  seeds = _seeds(config, result)
  flags = [f"--config=configs/{config['experiment']}.py:{config['method']}", f"--workdir={_place(config)}"]
  if "seed" not in config:
    flags.append(f"--seeds={','.join(map(str, seeds))}")
  elif seeds[0] > 0:
    flags.append(f"--config.seed={seeds[0]}")
  flags += [f"--config.{key}={value}" for key, value in changed.items()]
  return " ".join(["warpjax train", *flags])


def _evaluate_command(config: Mapping[str, Any], name: str, result: Mapping[str, Any]) -> str:
  flags = [f"--workdir={_place(config)}", f"--name={name}"]
  flags += [f"--set={key}={value}" for key, value in result.get("changed", {}).items()]
  if result["num_tasks"] != config["eval"]["num_tasks"]:
    flags.append(f"--num_tasks={result['num_tasks']}")
  return " ".join(["warpjax evaluate", *flags])


def _place(config: Mapping[str, Any]) -> str:
  return f"runs/{config['experiment']}/{config['method']}"


def write(record: Mapping[str, Any], *, further: str = "", folder: pathlib.Path = records.FOLDER) -> pathlib.Path:
  """Writes a record in the place of the row's older one, or as a further number of it.

  Args:
    record: A record, as `make` returns it.
    further: The name of an evaluation that is one more number of the row's record.
    folder: The folder of the records.

  Returns:
    The file.

  Raises:
    ValueError: If the row has no record that the number could join.
  """
  path = folder / record["experiment"] / f"{record['method']}.json"
  if further:
    before = workdir.read_json(path)
    if before is None:
      raise ValueError(f"--evaluation={further} joins the record of its row, {path.name}; record the run first.")
    kept = [other for other in before.get("others", []) if other.get("name") != further]
    numbers = {key: record[key] for key in ("mean", "ci95", "metric")}
    other = {"name": further, "what": f"evaluated by {record['command']}", **numbers}
    record = {**before, "others": [*kept, other]}
  path.parent.mkdir(parents=True, exist_ok=True)
  workdir.write_json(path, record)
  return path
