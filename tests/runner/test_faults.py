"""Bad inputs and faults: what was tried, the one line that a user reads, the exit status, and that nothing is lost."""

from __future__ import annotations

import errno
import hashlib
import os
import pathlib
import shutil
import signal
import sys
import zipfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import orbax.checkpoint
import pytest

from tests.runner import tiny
from tests.runner.commands import replacing, until
from warpjax.datasets import tfds_files
from warpjax.runner import cli, workdir
from warpjax.runner.reporting import watch

TRAIN = "experiments.train"
SETTINGS = {
  "network.features": "(4,)",
  "tasks_per_step": 2,
  "eval.num_tasks": 2,
  "steps_per_dispatch": 2,
  "checkpoint_every": 2,
  "num_meta_steps": 6,
}
SINES = ["--config=configs/sinusoid.py:maml", *(f"--config.{name}={value}" for name, value in SETTINGS.items())]
IMAGES = [
  "--config=configs/omniglot.py:maml",
  "--config.data.split=folders",
  "--config.data.ways=2",
  "--cache_dir={folder}/cache",
]


class Case(NamedTuple):
  """One thing to try in the workdir of a run that was stopped at meta-step 4 of 6.

  Attributes:
    cause: What is wrong; several cases may share it.
    arguments: Of the command, besides `--workdir`; "{workdir}" and "{folder}" stand for paths.
    message: What the line on stderr, or for status 0 what is printed, must hold.
    damage: Done to the workdir before.
    module: The script.
    status: Its exit status.
  """

  cause: str
  arguments: list[str]
  message: str
  damage: Callable[[pathlib.Path], object] = lambda path: None
  module: str = TRAIN
  status: int = 1


def setting(cause: str, override: str, message: str) -> Case:
  return Case(cause, replacing(SINES, f"--config.{override}"), message)


def flag(cause: str, extra: str, message: str) -> Case:
  return Case(cause, [*SINES, extra], message)


def script(cause: str, module: str, arguments: list[str], message: str) -> Case:
  return Case(cause, arguments, message, module=f"experiments.{module}")


def fault(cause: str, damage: Callable[[pathlib.Path], object], message: str, status: int = 1) -> Case:
  return Case(cause, SINES, message, damage, status=status)


def write(name: str, text: str) -> Callable[[pathlib.Path], object]:
  return lambda path: (path / name).write_text(text)


def flip(file: pathlib.Path) -> None:
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 0b00010000
  file.write_bytes(bytes(data))


def every(step: str, change: Callable[[pathlib.Path], object]) -> Callable[[pathlib.Path], object]:
  """Changes the files with the arrays of the checkpoints that `step` matches."""
  return lambda path: [change(file) for file in sorted((path / "checkpoints").glob(f"{step}/state/*/*[0-9]"))]


def truncate(file: pathlib.Path) -> None:
  file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def half_written(path: pathlib.Path) -> None:
  shutil.copytree(path / "checkpoints" / "4" / "state", path / "checkpoints" / "6.orbax-checkpoint-tmp" / "state")
  workdir.append_metrics(path, [{"step": 6, "split": "train", "loss": 0.0}])
  with open(path / workdir.METRICS, "a") as file:
    file.write('{"step": 8, "spl')


CASES = [
  setting("no such setting", "inner.num_stepz=3", "config.inner.num_stepz is not a setting; did you mean 'num_steps'?"),
  setting("no such setting", "evaluation.num_tasks=3", "is not a setting; did you mean 'eval.num_tasks'?"),
  setting("wrong type", "inner.num_steps=many", "num_steps must be an integer; got 'many'"),
  setting("wrong type", "inner.learning_rate=fast", "learning_rate must be a number; got 'fast'"),
  setting("out of range", "num_meta_steps=0", "config.num_meta_steps must be an integer of at least 1; got 0"),
  setting("out of range", "tasks_per_step=-4", "config.tasks_per_step must be an integer of at least 1; got -4"),
  setting("out of range", "inner.num_steps=0", "config.inner.num_steps must be an integer of at least 1; got 0"),
  setting("out of range", "inner.learning_rate=-0.1", "learning_rate must be a positive number"),
  setting("out of range", "optimizer.learning_rate=0", "config.optimizer.learning_rate must be above 0; got 0"),
  setting("out of range", "task_chunk=-1", "config.task_chunk must be an integer of at least 0; got -1"),
  setting("out of range", "data.shots=0", "shots must be an integer of at least 1; got 0"),
  setting("settings that do not fit", "checkpoint_every=3", "must be a multiple of steps_per_dispatch, 2; got 3"),
  setting("settings that do not fit", "inner.batch_size=3", "config.inner.batch_size needs inner.batch"),
  setting("no such choice", "meta_gradient.derivative=mixd", "must be one of 'mixed', 'reverse'"),
  setting("no such choice", "network.adapts=haed", "'all_but_norm'; got 'haed'; did you mean 'head'?"),
  setting("no such choice", "inner.rule=sdg", "config.inner.rule has no 'sdg'; did you mean 'sgd'?"),
  setting("no such choice", "data.variant=mmaml", "config.data.variant must be one of 'maml'"),
  setting("no such choice", "eval.norm_stats=runing", "config.eval.norm_stats must be one of"),
  Case("no such config", ["--config=configs/sinusoid.py:mamll"], "has no method 'mamll'; did you mean 'maml'?"),
  Case("no such config", ["--config=configs/sinusoids.py:maml"], "does not exist; did you mean 'sinusoid'?"),
  Case("no such config", ["--config=README.md:maml"], "is no Python"),
  Case("flag missing", [], "--config is missing; --help says what it is."),
  Case(
    "no such setting",
    [*SINES, "--config.inner.rule=adam", "--config.inner.momentum=0.5"],
    "config.inner.momentum is not a setting. Allowed: rule, learning_rate, b1, b2, eps, eps_root, num_steps",
  ),
  Case("setting given twice", [*SINES, "--config.seed=1", "--config.seed=2"], "config.seed is given twice."),
  Case("out of range", [*SINES, "--seeds=0,1", "--config.inner.num_steps=0"], "num_steps must be an integer of at"),
  flag("no such flag", "--data_dri=x", "Did you mean: data_dir ?"),
  flag("no such flag", "--num_meta_steps=3", "of the config is --config.num_meta_steps=VALUE"),
  flag("flag out of range", "--seeds=0,x", "--seeds must be different non-negative integers"),
  flag("flag out of range", "--seeds=0,0", "--seeds must be different non-negative integers"),
  flag("flag out of range", "--on_nonfinite=skipp", "on_nonfinite"),
  flag("stray argument", "1", "lists have commas without spaces; got '1'"),
  flag("processes half described", "--coordinator=host:1", "--num_processes is missing; --coordinator=host:1 needs it"),
  flag("processes half described", "--process_id=1", "--process_id needs --coordinator=HOST:PORT"),
  flag("processes half described", "--num_processes=two", "num_processes must be an integer; got 'two'"),
  flag("no cluster", "--coordinator=auto", "--coordinator=auto found no cluster to join"),
  setting("workdir of another config", "inner.learning_rate=0.5", "inner.learning_rate: 0.01 there, 0.5 here"),
  setting("workdir of another config", "seed=5", "It differs in: seed: 0 there, 5 here"),
  flag("workdir of another config", "--seeds=0,1", "It differs in: seed: 0 there, nothing here"),
  fault("config.json broken", write("config.json", "{"), "config.json is not JSON"),
  fault("config.json lost", lambda path: (path / "config.json").unlink(), "has checkpoints and no config.json"),
  fault("result.json broken", write("result.json", "<html>"), "result.json is not JSON"),
  Case("workdir is a file", [*SINES, "--workdir={workdir}/metrics.jsonl"], "metrics.jsonl is a file"),
  Case("workdir is a file", [*SINES, "--workdir={workdir}/metrics.jsonl/a"], "Not a directory"),
  fault("every checkpoint flipped", every("?", flip), "can be used: each is damaged or of another model"),
  fault("every checkpoint cut short", every("?", truncate), "can be used: each is damaged or of another model"),
  fault("newest checkpoint flipped", every("4", flip), "Checkpoint 4 is damaged, so 2 is used", 0),
  fault("save and metrics half written", half_written, "Resuming sinusoid:maml at meta-step 4.", 0),
  Case("data absent", [*IMAGES, "--data_dir={folder}/nowhere"], "Omniglot was not found in"),
  Case("data no images", [*IMAGES, "--data_dir={folder}/html"], "test_0/00.png (cannot identify image file)"),
  Case("data too small", replacing(IMAGES, "--data_dir={folder}/images", "--config.data.ways=4"), "the 3 classes"),
  Case("data uneven", [*IMAGES, "--data_dir={folder}/uneven"], "must have the same number of images; found 11 to 12"),
  script("no workdir to evaluate", "evaluate", ["--workdir={folder}"], "--workdir must have a config.json"),
  script("not of the test", "evaluate", ["--workdir={workdir}", "--set=seed=1"], "must be a setting of the test"),
  script("flag out of range", "evaluate", ["--workdir={workdir}", "--num_tasks=0"], "num_tasks"),
  script("run unfinished", "plot", ["--workdirs={workdir}"], "must be finished runs"),
  script("no such data set", "prepare_data", ["omniglots", "--data_dir={folder}/d"], "must be one of omniglot"),
  script("archive missing", "prepare_data", ["omniglot", "--data_dir={folder}/d", "--archives={folder}"], "must hold"),
  script(
    "archive is an HTML page",
    "prepare_data",
    ["omniglot", "--data_dir={folder}/d", "--archives={folder}/page"],
    "must be a zip archive; it is an HTML page",
  ),
  script(
    "archive leads outside",
    "prepare_data",
    ["omniglot", "--data_dir={folder}/d", "--archives={folder}/outside"],
    "member '../../escaped' leads outside",
  ),
]  # fmt: skip
RECOVERED = ("newest checkpoint flipped", "save and metrics half written")
# Those of test_run.py, in its own process, and further cases of a cause.
SLOW = [case for case in CASES if case.cause in ("newest checkpoint flipped", "every checkpoint cut short")]
SLOW += [case for case in CASES if case.message.startswith("It differs in: seed: 0 there")]
SLOW += [case for case in CASES if case.message == "Not a directory"]


def cases():
  name = lambda case: f"{case.cause}: {' '.join(case.arguments[-1:])}"
  return [pytest.param(case, id=name(case), marks=pytest.mark.slow if case in SLOW else ()) for case in CASES]


@pytest.fixture(scope="module")
def folder(commands, tmp_path_factory):
  """A finished run, the same stopped at meta-step 4, images of several kinds, and archives."""
  root = tmp_path_factory.mktemp("faults")
  done = commands.run(TRAIN, [*SINES, f"--workdir={root / 'finished'}"])
  assert done.status == 0, done.stderr
  shutil.copytree(root / "finished", root / "stopped")
  for name in ("result.json", "per_task.npy", "curves.png"):
    (root / "stopped" / name).unlink()
  shutil.rmtree(root / "stopped" / "checkpoints" / "6")
  workdir.rewind_metrics(root / "stopped", 4)
  tiny.write_images(root / "images")
  for kind in ("html", "uneven"):
    shutil.copytree(root / "images", root / kind)
  (root / "html" / "test" / "test_0" / "00.png").write_text("<!DOCTYPE html><title>Not found</title>")
  (root / "uneven" / "train" / "train_0" / "00.png").unlink()
  for name in ("page", "outside"):
    (root / name).mkdir()
  for name in ("background", "evaluation", "background_small1", "background_small2"):
    (root / "page" / f"images_{name}.zip").write_text("<html><body>Moved</body></html>")
    with zipfile.ZipFile(root / "outside" / f"images_{name}.zip", "w") as archive:
      archive.writestr("../../escaped", "x")
  return root


def written(path: pathlib.Path) -> dict[str, str]:
  """Every file of a workdir and its SHA-256, but for the lock."""
  files = [file for file in path.rglob("*") if file.is_file() and file.name != ".lock"]
  return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_the_table_is_long_enough():
  assert len(CASES) >= 40 and len({case.cause for case in CASES}) >= 15


@pytest.mark.parametrize("case", cases())
def test_case(commands, folder, tmp_path, case):
  path = tmp_path / "run"
  shutil.copytree(folder / "stopped", path)
  case.damage(path)
  before = written(path)
  arguments = [argument.format(workdir=path, folder=folder) for argument in case.arguments]
  own = case.module != TRAIN or any(argument.startswith("--workdir=") for argument in arguments)
  done = commands.run(case.module, arguments if own else [f"--workdir={path}", *arguments])
  assert done.status == case.status, done.stderr
  if case.status:
    assert case.message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr
    assert written(path) == before  # nothing lost, nothing added
  else:
    assert case.message in done.stdout
    assert case.cause in RECOVERED
    result, expected = (workdir.read_json(p / "result.json") for p in (path, folder / "finished"))
    assert {**result, "wall_seconds": 0} == {**expected, "wall_seconds": 0}
    assert [row["step"] for row in workdir.read_metrics(path)] == [2, 4, 6]
  assert not (folder.parent / "escaped").exists() and not (folder / "escaped").exists()


LATE = "--config=configs/sinusoid.py:warp_leap_offline"


@pytest.mark.parametrize("given", [(*SINES, "--config.inner.num_steps=0"), (LATE, "--config.meta_gradient.eta=7")])
def test_a_bad_config_makes_no_workdir(commands, tmp_path, given):
  """The second shows only once the tasks and their steps have been counted."""
  done = commands.run(TRAIN, [*given, f"--workdir={tmp_path / 'run'}"])
  assert done.status == 1 and not (tmp_path / "run").exists()
  assert given[-1].split(".")[-1].split("=")[0] in done.stderr


def test_a_workdir_in_use_is_refused(commands, folder, tmp_path):
  path = tmp_path / "run"
  shutil.copytree(folder / "stopped", path)
  before = written(path)
  with workdir.lock(path):
    done = commands.run(TRAIN, [*SINES, f"--workdir={path}"])
  assert done.status == 1 and "another process is running in" in done.stderr
  assert written(path) == before


@pytest.mark.parametrize("seeds", [(), ("--seeds=0,1",)], ids=["run", "sweep"])
def test_a_run_that_has_saved_nothing_yet_keeps_its_config(commands, tmp_path, seeds):
  (tmp_path / "config.json").write_text("{}")
  with workdir.lock(tmp_path):
    done = commands.run(TRAIN, [*SINES, *seeds, f"--workdir={tmp_path}"])
  assert done.status == 1 and "another process is running in" in done.stderr
  assert (tmp_path / "config.json").read_text() == "{}" and not list(tmp_path.glob("seed_*"))


def test_what_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(commands, tmp_path):
  arguments = [*SINES, f"--workdir={tmp_path}", "--config.optimizer.learning_rate=1e30"]
  done = commands.run(TRAIN, arguments)
  assert done.status == 1 and len(done.stderr.strip().splitlines()) == 1
  assert (
    "error: meta-step " in done.stderr and "--on_nonfinite=skip" in done.stderr and "of block 'initial'" in done.stderr
  )


def endless(path: pathlib.Path, *more: str) -> list[str]:
  return replacing(SINES, f"--workdir={path}", "--config.num_meta_steps=2000000", *more)


FULL = [
  OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl"),
  OSError(errno.EDQUOT, "Disk quota exceeded", "metrics.jsonl"),
  ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device [OS error 28]"),
]


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_full_disk_is_said_in_one_line(error, monkeypatch, capsys):
  monkeypatch.setattr(cli, "FLAGS", SimpleNamespace(traceback=False))
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # put back afterwards
  with pytest.raises(SystemExit) as stopped, cli.errors_in_one_line():
    raise error
  printed = capsys.readouterr().err
  assert stopped.value.code == 1 and printed.startswith("error: the disk is full")
  assert printed.endswith("run the same command again.\n") and len(printed.splitlines()) == 1
  assert "checkpoint" not in printed  # a picture or a cache has none


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_full_disk_of_a_run_is_told_with_what_is_saved(error, tmp_path):
  with pytest.raises(OSError, match=r"the disk is full.* Nothing is saved\.$"), watch.full_disk_told(tmp_path):
    raise error
  (tmp_path / "checkpoints" / "40").mkdir(parents=True)
  saved = pytest.raises(OSError, match=r"the checkpoint of meta-step 40\.$")
  with saved as told, watch.full_disk_told(tmp_path):
    raise error
  assert cli._mendable(told.value) == str(told.value)
  with pytest.raises(ZeroDivisionError), watch.full_disk_told(tmp_path):
    raise ZeroDivisionError


def test_a_library_that_is_not_there_is_said_in_one_line(monkeypatch, capsys):
  monkeypatch.setattr(cli, "FLAGS", SimpleNamespace(traceback=False))
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
  with pytest.raises(SystemExit), cli.errors_in_one_line():
    tfds_files.import_tfds("omniglot")
  assert capsys.readouterr().err == 'error: omniglot needs tensorflow-datasets: pip install -e ".[data]"\n'


def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(commands, tmp_path):
  """A limit on the size of a file, set while it runs, is refused by the kernel as a full disk is."""
  import resource

  path, large = tmp_path / "run", "--config.network.features=(40,40)"
  pid = commands.start(TRAIN, endless(path, large))
  until((path / "checkpoints" / "4").is_dir, pid)
  resource.prlimit(pid, resource.RLIMIT_FSIZE, (6000, 6000))
  done = commands.wait(pid)
  assert done.status == 1, done.stderr
  newest = max(int(folder.name) for folder in (path / "checkpoints").iterdir() if folder.name.isdigit())
  assert "error: the disk is full" in done.stderr
  assert f"It resumes from the checkpoint of meta-step {newest}." in done.stderr
  done = commands.wait(*_stopped(commands, path, large))
  assert f"Resuming sinusoid:maml at meta-step {newest}." in done.stdout and "damaged" not in done.stdout


def _stopped(commands, path: pathlib.Path, *more: str) -> tuple[int, int]:
  """The same command again, stopped by SIGINT once it trains."""
  rows = len(workdir.read_metrics(path))
  pid = commands.start(TRAIN, endless(path, *more))
  until(lambda: len(workdir.read_metrics(path)) > rows, pid)
  os.kill(pid, signal.SIGINT)
  return pid, commands.count


def test_sigint_finishes_the_step_saves_and_exits_with_130(commands, tmp_path):
  path = tmp_path / "run"
  done = commands.wait(*_stopped(commands, path, "--config.checkpoint_every=1000000"))
  assert done.status == 130 and "which is saved; the same command continues" in done.stdout
  (saved,) = (int(folder.name) for folder in (path / "checkpoints").iterdir())
  assert saved == workdir.read_metrics(path)[-1]["step"]


LATE = """
async def read():
  try:
    await pause()
  finally:
    raise ValueError(message)
"""


@pytest.mark.parametrize(
  ("place", "message", "shown"),
  [
    (orbax.checkpoint.__file__, "Encountered error while reading array index: (slice(0, 4, 1),)", False),
    (__file__, "Event loop is closed", False),
    (__file__, "something else", True),
  ],
)
def test_the_other_reads_of_a_damaged_checkpoint_are_not_told_again(place, message, shown, monkeypatch, capfd):
  class Pause:
    def __await__(self):
      yield

  names = {"pause": Pause, "message": message}
  exec(compile(LATE, place, "exec"), names)
  late = names["read"]()
  late.send(None)
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
  with cli.errors_in_one_line():
    del late  # Python closes the coroutine, which fails then
  assert (message in capfd.readouterr().err) == shown
