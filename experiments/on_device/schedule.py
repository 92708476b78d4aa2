"""Runs parts one after the other, each in a process of its own under a time limit, and keeps the result of each."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from warpjax.runner import workdir
from warpjax.runner.machine import provenance

GRACE = 10.0  # seconds between the signal that asks a part to end and the one that ends it
LEAST = 5.0  # seconds that must remain for another part to begin
LAST_LINES = 15
PARTS, RUNS = "parts", "runs"
SUMMARY, ARCHIVE = "accelerator.json", "runs.tar"

Row = dict[str, Any]


class Part(NamedTuple):
  """One part of the plan.

  Attributes:
    name: Name of its folder and its JSON file.
    command: Arguments of the interpreter; "{seconds}" stands for the limit.
    share: Its time limit, as a share of the minutes that remain when it begins.
    read: `(folder) -> result`, from what the part wrote into its folder, also if it was cut off; None for nothing.
    line: `(result) -> text`, the summary in one line.
    environment: Variables besides those of this process.
    needed: Whether the parts after it are left out if it fails.
  """

  name: str
  command: Sequence[str]
  share: float
  read: Callable[[pathlib.Path], Any]
  line: Callable[[Any], str]
  environment: Mapping[str, str] = {}
  needed: bool = False


def _say(message: str) -> None:
  print(message, flush=True)


def run(
  parts: Sequence[Part],
  directory: pathlib.Path,
  seconds: float,
  *,
  facts: Mapping[str, Any],
  export: pathlib.Path | None = None,
  say: Callable[[str], object] = _say,
) -> list[Row]:
  """Runs the parts in order until the time is up.

  Whatever happens to a part, those after it run, unless it is needed. `parts/NAME.json` is written when a part begins
  and when it ends, and `accelerator.json` holds them all.

  Args:
    parts: The parts.
    directory: Where everything goes; parts of an earlier call stay, unless they run again.
    seconds: For all of them.
    facts: Further keys of `accelerator.json`.
    export: A folder for a copy of `accelerator.json`, and for the training runs as one file, `runs.tar`.
    say: Called with a line when a part begins and when it ends.

  Returns:
    The row of each part: `status` is "done", "failed", "out of time" or "left out".
  """
  deadline, rows = time.monotonic() + seconds, list[Row]()
  (directory / PARTS).mkdir(parents=True, exist_ok=True)
  for index, part in enumerate(parts, 1):
    remaining = deadline - time.monotonic()
    limit = part.share * (remaining - GRACE)
    row: Row = {"part": part.name, "status": "running", "limit_seconds": round(limit, 1)}
    keep = lambda row: _keep(row, directory, facts, export)
    failed = [part.name for part, row in zip(parts, rows, strict=False) if part.needed and row["status"] == "failed"]
    title, left = f"[{index}/{len(parts)}] {part.name}", f"{max(remaining, 0) / 60:.1f} minutes remain"
    if limit < LEAST or failed:
      row["status"] = "left out"
      say(f"{title}: left out, since {f'{failed[0]} failed' if failed else left}.")
    else:
      say(f"{title}: at most {limit:.0f} s; {left}.")
      try:
        keep(row)
        row |= _run(part, directory, limit)
      except OSError as error:  # a part that cannot begin
        row |= {"status": "failed", "seconds": 0.0, "stderr": [f"{type(error).__name__}: {error}"]}
      except BaseException:
        keep({**row, "status": "interrupted"})
        raise
      say(f"  {row['status']} after {row['seconds']:.0f} s. {_line(part, row)}")
    keep(row)
    rows.append(row)
  return rows


def _run(part: Part, directory: pathlib.Path, limit: float) -> Row:
  """Runs a part to its end or its limit; its folder holds what it printed."""
  folder = directory / PARTS / part.name
  folder.mkdir(parents=True, exist_ok=True)
  command = [sys.executable, *(text.replace("{seconds}", f"{limit:.0f}") for text in part.command)]
  started = time.monotonic()
  with open(folder / "stdout", "w") as out, open(folder / "stderr", "w") as err:
    # A process group of its own, so that its children end with it.
    process = subprocess.Popen(
      command,
      cwd=provenance.ROOT,
      env={**os.environ, "PYTHONUNBUFFERED": "1", **part.environment},
      stdin=subprocess.DEVNULL,
      stdout=out,
      stderr=err,
      process_group=0,
    )
    try:
      process.wait(limit)
    except subprocess.TimeoutExpired:
      status = "out of time"
    else:
      status = "failed" if process.returncode else "done"
    finally:
      _end(process)
  row: Row = {"status": status, "seconds": round(time.monotonic() - started, 1), "exit_status": process.returncode}
  row |= {"command": " ".join(["python", *command[1:]]), "environment": dict(part.environment)}
  try:
    row["result"] = part.read(folder)
  except Exception as error:  # the part was cut off while it wrote
    row["result_error"] = f"{type(error).__name__}: {error}"
  if status != "done":
    row["stderr"] = (folder / "stderr").read_text(errors="replace").splitlines()[-LAST_LINES:]
  return row


def _end(process: subprocess.Popen) -> None:
  """Ends the process with its children: it is asked to, and after some seconds it is killed."""
  with contextlib.suppress(ProcessLookupError, PermissionError):
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGTERM)
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    os.killpg(process.pid, signal.SIGKILL)
  process.wait()


def _line(part: Part, row: Row) -> str:
  try:
    text = part.line(row["result"]) if row.get("result") else "No result."
  except Exception:  # a part that was cut off may lack what its line says
    text = "No summary."
  last = [line for line in row.get("stderr", ()) if line.strip()][-1:]
  return f"{text} Last error line: {last[0].strip()[:200]}" if row["status"] == "failed" and last else text


def _keep(row: Row, directory: pathlib.Path, facts: Mapping[str, Any], export: pathlib.Path | None) -> None:
  """Writes the part's JSON and the file of all parts, those of earlier calls included."""
  if row["status"] != "left out" or not (directory / PARTS / f"{row['part']}.json").exists():
    workdir.write_json(directory / PARTS / f"{row['part']}.json", row)
  rows = [workdir.read_json(path) for path in sorted((directory / PARTS).glob("*.json"))]
  whole = {**facts, "parts": {each["part"]: each for each in rows}}
  for folder in filter(None, (directory, export)):
    folder.mkdir(parents=True, exist_ok=True)
    workdir.write_json(folder / SUMMARY, whole)
  if export and row["status"] != "running" and (directory / RUNS).is_dir():
    part = export / f".{ARCHIVE}.part"
    with tarfile.open(part, "w") as archive:
      archive.add(directory / RUNS, RUNS)
    os.replace(part, export / ARCHIVE)
