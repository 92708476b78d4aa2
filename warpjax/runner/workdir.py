"""A workdir: `config.json`, `metrics.jsonl`, `checkpoints/`, `result.json` and pictures, private to its user."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from warpjax.training import checkpoints

CONFIG, METRICS, RESULT, EVALUATION = "config.json", "metrics.jsonl", "result.json", "evaluation.json"
CHECKPOINTS, PER_TASK = "checkpoints", "per_task.npy"

# The words of orbax and tensorstore, in errors of several types.
_FULL = re.compile(r"No space left on device|Disk quota exceeded|File too large|ENOSPC")


def make(path: str | os.PathLike[str]) -> pathlib.Path:
  """Makes the workdir with mode 0700, unless it exists.

  Raises:
    ValueError: If it is a file.
  """
  directory = pathlib.Path(path)
  if directory.exists() and not directory.is_dir():
    raise ValueError(f"--workdir must be a directory; {directory} is a file.")
  directory.mkdir(mode=0o700, parents=True, exist_ok=True)
  return directory


def begun(directory: pathlib.Path) -> bool:
  """Whether the workdir, or a run in it, has a checkpoint or a result; only the same config can continue it."""
  folders = ("seed_*", "*=*", "*=*/seed_*") if (directory / CONFIG).exists() else ()
  places = [directory, *(place for pattern in folders for place in directory.glob(pattern))]
  return any((place / RESULT).exists() or checkpoints.steps(place / CHECKPOINTS) for place in places)


def begun_config(path: str | os.PathLike[str]) -> dict[str, Any] | None:
  """The config of a workdir that has `begun`; None for any other."""
  directory = pathlib.Path(path)
  return read_json(directory / CONFIG) if begun(directory) else None


def prepare(
  path: str | os.PathLike[str], config: Mapping[str, Any], identity: Callable[[Mapping[str, Any]], Any] = dict
) -> pathlib.Path:
  """Makes the workdir and writes the config, or checks that what was trained there has the same config.

  More `num_meta_steps` than before extend the run: the config is replaced, and `result.json` becomes `result_N.json`,
  where N is the previous number of meta-steps.

  The caller must have the `lock`, since another process may be training there without a checkpoint yet.

  Args:
    path: The workdir.
    config: All settings, as nested dicts.
    identity: `(config) -> settings` by which two configs are the same, such as `settings.identity`.

  Returns:
    The workdir's path.

  Raises:
    ValueError: If the workdir belongs to another config, or has more `num_meta_steps`. The message names every key that
      differs.
  """
  directory = make(path)
  before = read_json(directory / CONFIG)
  if not begun(directory):
    directory.chmod(0o700)
    write_json(directory / CONFIG, config)
    return directory
  if before is None:
    raise ValueError(f"{directory} has checkpoints and no {CONFIG}, so that their config is unknown.")
  earlier, now = as_json(identity(before)), as_json(identity(config))
  is_longer = _extends(earlier, now)
  if is_longer and (directory / RESULT).exists():
    os.replace(directory / RESULT, directory / f"result_{earlier['num_meta_steps']}.json")
  if is_longer or earlier == now:
    if before != as_json(config):  # longer, or of an older version without defaults
      write_json(directory / CONFIG, config)
    return directory
  if _extends(now, earlier):
    fewer, more = now["num_meta_steps"], earlier["num_meta_steps"]
    raise ValueError(
      f"{directory} is a run of {more} meta-steps, and num_meta_steps can only be raised; got {fewer}. "
      "Use another --workdir for fewer."
    )
  differing = "; ".join(differences(earlier, now))
  raise ValueError(f"{directory} belongs to another config; use another --workdir. It differs in: {differing}.")


def config_of_run(path: pathlib.Path, what: str = "--workdir") -> dict[str, Any]:
  """The config of the run in a workdir.

  Raises:
    ValueError: If there is none, or it belongs to a sweep or a grid, whose runs are in sub-directories.
  """
  config = read_json(path / CONFIG)
  if config is None:
    raise ValueError(f"{what} must have a {CONFIG}; {path} has none.")
  check_is_one_run(what, path, config)
  return config


def check_is_one_run(what: str, path: pathlib.Path, config: Mapping[str, Any]) -> None:
  """Raises a ValueError if the config belongs to a sweep or a grid, whose runs are in sub-directories."""
  if "sweep" in config:
    raise ValueError(f"{what} must be one run; {path} is a grid, which has one for each point, {path}/KEY=VALUE.")
  if "seed" not in config:
    raise ValueError(f"{what} must be one run; {path} has one for each seed, {path}/seed_N.")


def _extends(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
  """Whether two configs differ in `num_meta_steps` alone, and the second has more."""
  fewer, more = (config.get("num_meta_steps") for config in (before, after))
  return (
    isinstance(fewer, int) and isinstance(more, int) and fewer < more and {**before, "num_meta_steps": more} == after
  )


@contextlib.contextmanager
def lock(directory: pathlib.Path) -> Iterator[None]:
  """Locks the workdir for one process.

  Raises:
    ValueError: If another process has the lock.
  """
  with open(directory / ".lock", "w", encoding="utf-8") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      raise ValueError(f"another process is running in {directory}; wait for it or use another --workdir.") from None
    yield


def disk_full(error: BaseException) -> str | None:
  """The message for a full disk; None for any other error."""
  full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
  if not full and not _FULL.search(str(error)):
    return None
  place = f" at {error.filename}" if isinstance(error, OSError) and error.filename else ""
  return f"the disk is full{place}, or over its quota. Free some space, and run the same command again."


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
  """Each key that differs between two nested dicts, as "a.b: 1 there, 2 here"."""
  if isinstance(before, dict) and isinstance(now, dict):
    for key in sorted(before.keys() | now.keys()):
      yield from differences(before.get(key, "nothing"), now.get(key, "nothing"), f"{path}.{key}" if path else key)
  elif before != now:
    yield f"{path}: {before} there, {now} here"


def append_metrics(directory: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
  """Appends rows to `metrics.jsonl`, one object a line."""
  with open(directory / METRICS, "a", encoding="utf-8") as file:
    file.writelines(json.dumps(as_json(row)) + "\n" for row in rows)


def rewind_metrics(directory: pathlib.Path, step: int) -> None:
  """Drops the rows after meta-step `step`, and a line cut short by a kill, so that no step is logged twice."""
  kept = [row for row in read_metrics(directory) if row["step"] <= step]
  write_text(directory / METRICS, "".join(json.dumps(row) + "\n" for row in kept))


def read_metrics(directory: pathlib.Path) -> list[dict[str, Any]]:
  """The rows of `metrics.jsonl`, without a line cut short by a kill."""
  path, rows = directory / METRICS, []
  for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
    with contextlib.suppress(json.JSONDecodeError):
      rows.append(json.loads(line))
  return rows


def read_json(path: pathlib.Path) -> Any:
  """The object in a file, or None if there is no file.

  Raises:
    ValueError: If it is not JSON.
  """
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (FileNotFoundError, NotADirectoryError):
    return None
  except json.JSONDecodeError as error:
    raise ValueError(f"{path} is not JSON: {error}.") from None


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes an object atomically."""
  write_text(path, json.dumps(as_json(value), indent=2) + "\n")


def as_text(value: Any) -> str:
  """A value as one line of JSON."""
  return json.dumps(as_json(value), sort_keys=True)


def as_json(value: Any) -> Any:
  """A value as JSON returns it: tuples become lists, and numbers that are not finite, which JSON lacks, become None."""
  if isinstance(value, Mapping):
    return {str(key): as_json(element) for key, element in value.items()}
  if isinstance(value, list | tuple):
    return [as_json(element) for element in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a text atomically."""
  part = path.with_name(f".{path.name}.{os.getpid()}.part")  # two evaluations may write at once
  with open(part, "w", encoding="utf-8") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(part, path)
