"""Ctrl-C in any command and phase: one line, exit status 130, no crash of the interpreter, nothing half done left."""

from __future__ import annotations

import ast
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.runner import tiny
from tests.runner.commands import until
from warpjax.runner import cli, evaluations, run, workdir
from warpjax.runner.machine import interrupts

ROOT = pathlib.Path(__file__).parents[3]
LINE = "Interrupted; what was saved before stays."
SINES = ["--config=configs/sinusoid.py:maml"]
BAD = ("Traceback", "Fatal Python error", "Exception ignored")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  path = tmp_path_factory.mktemp("interrupted") / "run"
  run.train_and_evaluate(tiny.config("sinusoid", "maml"), path)
  return path


def start(module, arguments):
  """As from a shell, with the SIGINT that a terminal's foreground process has."""
  handled = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1", "MPLBACKEND": "agg"}
  process = subprocess.Popen(
    [sys.executable, "-m", module, *arguments],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    preexec_fn=handled,
  )
  maps = pathlib.Path(f"/proc/{process.pid}/maps")
  until(lambda: "numpy" in maps.read_text())  # the interpreter's own start is not ours to end
  return process


def assert_interrupted(process):
  out, err = process.communicate(timeout=120)
  assert process.returncode == 130, (process.returncode, out, err)
  assert err.count(LINE) == 1 and not any(word in err for word in BAD), err


@pytest.mark.parametrize("command", [["experiments.train"], ["warpjax.runner", "train"]], ids=" ".join)
def test_while_it_imports(command):
  module, *arguments = command
  process = start(module, [*arguments, *SINES, "--workdir=/nowhere/at/all"])
  process.send_signal(signal.SIGINT)
  assert_interrupted(process)


@pytest.mark.slow
def test_while_it_evaluates(finished, busy):
  """With test tasks in flight, on a busy machine: on the old code the interpreter crashed under XLA's threads."""
  process = start("experiments.evaluate", [f"--workdir={finished}", "--num_tasks=100000000"])
  assert process.stderr is not None
  while "/100000000 test tasks" not in process.stderr.readline():  # the first line of progress, after fifteen seconds
    assert process.poll() is None
  process.send_signal(signal.SIGINT)
  assert_interrupted(process)
  assert not (finished / workdir.EVALUATION).exists()


# In place of a function of the command, one that is interrupted inside.
PHASES = [
  (evaluations, "build", "loading data"),
  (evaluations.loop, "start", "compiling"),
  (evaluations.loop, "restore_all", "restoring"),
  (evaluations.measure, "measure", "evaluating"),
]


@pytest.fixture
def left(monkeypatch):
  """The exit statuses of processes that end at once, which here do not."""
  statuses: list[int] = []

  def leave(status):
    statuses.append(status)
    raise SystemExit(status)

  monkeypatch.setattr(os, "_exit", leave)
  before = signal.getsignal(signal.SIGINT)
  yield statuses
  signal.signal(signal.SIGINT, before)
  cli.logging.set_verbosity(cli.logging.WARNING)


@pytest.mark.parametrize(("module", "name", "phase"), PHASES, ids=[phase for *_, phase in PHASES])
@pytest.mark.parametrize("becomes", [None, RuntimeError, SystemError], ids=["raised", "RuntimeError", "SystemError"])
def test_a_phase(finished, monkeypatch, capfd, left, module, name, phase, becomes):
  """Also where a library makes another error of it."""

  def interrupted(*arguments, **keywords):
    try:
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(1)
    except KeyboardInterrupt:
      if becomes is None:
        raise
      raise becomes("initialization raised unreported exception") from None

  monkeypatch.setattr(module, name, interrupted)

  def main():
    evaluations.evaluate(finished)

  monkeypatch.setattr(cli.app, "run", lambda main, flags_parser: main([]))
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
  with pytest.raises(SystemExit):
    cli.run(main)
  assert left == [130]
  assert capfd.readouterr().err.splitlines() == [LINE]


def test_one_that_nobody_could_raise_ends_the_process(monkeypatch, capfd, left):
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
  with cli.errors_in_one_line(), contextlib.suppress(SystemExit):
    cli._without_late_reads(type("Unraisable", (), {"exc_value": KeyboardInterrupt()}))
  assert left == [130] and capfd.readouterr().err.splitlines() == [LINE]


def test_a_second_one_ends_the_process(capfd, left):
  with pytest.raises(SystemExit), interrupts.raised():
    with contextlib.suppress(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
  assert left == [130] and capfd.readouterr().err.splitlines() == [LINE]


def test_a_success_is_not_made_a_failure_by_a_late_one(monkeypatch, left):
  def main():
    sys.exit(0)

  monkeypatch.setattr(cli.app, "run", lambda main, flags_parser: main([]))
  with pytest.raises(SystemExit) as ended:
    cli.run(main)
  assert ended.value.code == 0 and not left
  assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_importing_the_experiments_changes_no_handler():
  code = "import signal, experiments; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
  assert done.stdout == "True\n", done.stderr


SCRIPTS = sorted((ROOT / "experiments").glob("[!_]*.py"))
RUNNER = sorted((ROOT / "warpjax" / "runner" / "commands").glob("[!_]*.py"))


def last_call(path):
  """What the function `command` of a command of the runner does last, or a script."""
  body = ast.parse(path.read_text()).body
  if isinstance(body[-1], ast.Expr):
    return ast.unparse(body[-1])
  block, *_ = [
    node
    for node in body
    if (isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))
    or (isinstance(node, ast.FunctionDef) and node.name == "command")
  ]
  return ast.unparse(block.body[-1])


@pytest.mark.parametrize("path", [*SCRIPTS, *RUNNER], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_command_ends_where_commands_end(path):
  """What ends elsewhere has a traceback and a crash for Ctrl-C."""
  last = last_call(path)
  if last == "command()":
    (module,) = re.findall(r"^from (warpjax\.runner\.[\w.]+) import command$", path.read_text(), re.MULTILINE)
    assert last_call(ROOT / f"{module.replace('.', '/')}.py").startswith(("cli.run(main", "cli.run_with(main"))
  else:
    assert last.startswith(("cli.run(main", "cli.run_with(main"))


TINY = ["--config.tasks_per_step=2", "--config.steps_per_dispatch=1", "--config.checkpoint_every=10"]
EVALUATING = "--config.eval.num_tasks=9999999"
LONG = [*TINY, "--config.num_meta_steps=1000000"]
COMMANDS = {
  "train": [*SINES, "--workdir={new}", *LONG],
  "train, validating": [*SINES, "--workdir={new}", *LONG, "--config.eval.val_tasks=20000"],
  "train, evaluating": [
    *SINES,
    "--workdir={new}",
    *TINY,
    "--config.num_meta_steps=1",
    "--config.eval.num_tasks=9999999",
  ],
  "evaluate": ["--workdir={finished}", "--num_tasks=9999999"],
  "plot": ["--workdirs={finished}", "--output={new}/plot.png"],
  "check": SINES,
  "tune": [*SINES, "--cache_dir={new}"],
  "fits": [*SINES, "--gib=1"],
  "profile": SINES,
  "benchmark": ["--config=configs/benchmark.py:accuracy", "--workdir={new}"],
  "demo": ["--workdir={new}"],
  "l2l": ["--workdir={new}"],
  "surfaces": ["--workdir={new}"],
  "ttt": ["--workdir={new}", "--data_dir=README.md"],
  "throughput": SINES,
  "cost_model": SINES,
  "maze": ["--workdirs={finished}", "--output={new}/maze.png"],
  "navigation": ["--workdir={finished}"],
  "forgetting": ["--workdirs={finished}"],
  "lowering": [],
  "report": ["--check"],
  "prepare_data": ["omniglot", "--data_dir={new}", "--archives={new}"],
}


@pytest.fixture
def busy():
  """Both cores at work besides."""
  code = "while True: pass"
  processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(os.cpu_count() or 1)]
  yield
  for process in processes:
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_at_moments_of_its_life(finished, tmp_path, busy, command):
  """What ends by itself first has ended with its own status."""
  for index, seconds in enumerate((0.0, 1.0, 4.0, 9.0, 15.0, 25.0)):
    places = {"finished": finished, "new": tmp_path / str(index)}
    process = start(f"experiments.{command.split(',')[0]}", [each.format(**places) for each in COMMANDS[command]])
    time.sleep(seconds)
    ended = process.poll() is not None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert not any(word in err for word in BAD), err
    if process.returncode == 130:
      training = "a second signal stops at once" in err
      assert ("Stopped " in out) if training else err.count(LINE) == 1, (out, err)
    else:  # it had ended, or was printing its last words
      assert process.returncode in (0, 1), (process.returncode, out, err)
    if ended:
      break
