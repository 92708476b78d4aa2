"""Runs the scripts' command lines in processes of their own, forked from one that has imported everything already."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).parents[2]


class Done(NamedTuple):
  """A process that has ended: its exit status, minus the signal's number where one ended it, and what it printed."""

  status: int
  stdout: str
  stderr: str


def replacing(arguments: Sequence[str], *flags: str) -> list[str]:
  """The arguments with further flags, which take the place of those of their names."""
  names = {flag.partition("=")[0] for flag in flags}
  return [*(each for each in arguments if each.partition("=")[0] not in names), *flags]


def told(stderr: str) -> list[str]:
  """The lines of stderr but those of what a slow machine waits for."""
  return [line for line in stderr.splitlines() if line.strip() and not line.endswith(" ...")]


def until(condition: Callable[[], object], pid: int | None = None, seconds: float = 240.0) -> None:
  """Waits for a condition, at most so long, and only while the process with that id lives."""
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, f"waited {seconds:g} s in vain"
    assert pid is None or alive(pid), f"process {pid} ended before that"
    time.sleep(0.01)


def alive(pid: int) -> bool:
  """Whether a process has not ended."""
  try:
    status = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except FileNotFoundError:
    return False
  return status.rsplit(")", 1)[1].split()[0] != "Z"


class Commands:
  """A server of forked processes; a process costs what it does, and not its imports."""

  def __init__(self, folder: pathlib.Path):
    self.folder, self.count = folder, 0
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1", "MPLBACKEND": "agg"}
    self.server = subprocess.Popen(
      [sys.executable, "-m", "tests.runner.commands", str(folder)],
      cwd=ROOT,
      env=environment,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def ask(self, *request: object) -> int:
    assert self.server.stdin and self.server.stdout
    self.server.stdin.write(json.dumps(request) + "\n")
    self.server.stdin.flush()
    return int(self.server.stdout.readline())

  def start(self, module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Starts `python -m MODULE ARGUMENTS`, and returns its process id, which `wait` takes."""
    self.count += 1
    return self.ask("start", module, list(arguments), dict(environment or {}), str(self.folder / str(self.count)))

  def wait(self, pid: int, number: int | None = None) -> Done:
    status = self.ask("wait", pid)
    output = self.folder / str(number or self.count)
    return Done(status, *(output.with_suffix(end).read_text() for end in (".out", ".err")))

  def run(self, module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Done:
    return self.wait(self.start(module, arguments, environment))

  def close(self) -> None:
    assert self.server.stdin
    self.server.stdin.close()
    self.server.wait(60)


def drawn_once(folder: pathlib.Path) -> Callable[..., None]:
  """`figures.draw` for the first picture of its kind, a copy for the others: it takes a quarter of a small run."""
  from warpjax.runner.plots import figures

  def draw(
    directories: Sequence[pathlib.Path], output: str | os.PathLike[str], *, results: Sequence[Mapping[str, Any]]
  ) -> None:
    kept = folder / f"{results[0]['metric']}_{len(results)}{pathlib.Path(output).suffix}"
    if kept.exists():
      shutil.copy(kept, output)
      return
    figures.draw(directories, output, results=results)
    copy = shutil.copy(output, f"{kept}.{os.getpid()}")
    os.replace(copy, kept)  # whole for another process

  return draw


def serve(folder: pathlib.Path) -> None:
  """Answers requests from stdin until it ends."""
  import gc

  import matplotlib.pyplot  # noqa: F401 (so that no fork has to import it)
  import orbax.checkpoint  # noqa: F401
  import scipy.stats  # noqa: F401
  from jax._src import xla_bridge

  from warpjax.runner import run
  from warpjax.runner.commands import evaluate, plot, train  # noqa: F401
  from warpjax.runner.reporting import progress

  progress.WAIT_SECONDS = 1e6  # what a slow machine waits for is no part of what a command prints
  run.figures = types.SimpleNamespace(draw=drawn_once(folder))

  assert not xla_bridge.backends_are_initialized()  # a fork of a process with threads of XLA hangs
  gc.collect()
  gc.freeze()  # so that no fork looks for garbage in what was imported
  for line in sys.stdin:
    operation, *arguments = json.loads(line)
    if operation == "wait":
      print(os.waitstatus_to_exitcode(os.waitpid(*arguments, 0)[1]), flush=True)
      continue
    pid = os.fork()
    if pid == 0:
      _become(*arguments)
    print(pid, flush=True)


def _become(module: str, arguments: list[str], environment: dict[str, str], output: str) -> None:
  """The fork's whole life."""
  import runpy
  import traceback

  import jax

  os.environ.update(environment)
  jax.config.update("jax_enable_x64", environment.get("JAX_ENABLE_X64") == "1")  # read from there at the import only
  for number, end in ((0, None), (1, ".out"), (2, ".err")):
    opened = os.open(output + end, os.O_WRONLY | os.O_CREAT) if end else os.open(os.devnull, os.O_RDONLY)
    os.dup2(opened, number)
  sys.argv = [module, *arguments]
  status = 0
  try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
  except SystemExit as error:
    status = error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error.code, str):
      print(error.code, file=sys.stderr)
  except BaseException:
    traceback.print_exc()
    status = 1
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


if __name__ == "__main__":
  serve(pathlib.Path(sys.argv[1]))
