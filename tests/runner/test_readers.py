"""Who only reads a workdir changes nothing there, also while a run is at work in it."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import time

import pytest

from experiments import maze
from tests.runner import tiny
from tests.runner.commands import alive
from warpjax.runner import evaluations, experiment, loop, run, selection, workdir
from warpjax.runner.machine import tuning
from warpjax.training import checkpoints

CHOSEN = {"eval": {"val_tasks": 2, "num_steps": 1}}
SAVING = "8.orbax-checkpoint-tmp"


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
  """A workdir as a run has it in the middle of a save, its newest checkpoint damaged."""
  path = tmp_path_factory.mktemp("readers") / "run"
  run.train_and_evaluate(tiny.config("sinusoid", "maml", CHOSEN), path)
  for folder in (path / "checkpoints", path / selection.BEST):
    newest = max(checkpoints.steps(folder))
    shutil.copytree(folder / str(newest), folder / SAVING)
  for file in (path / "checkpoints" / "6" / "state").glob("*/*[0-9]"):
    file.write_bytes(file.read_bytes()[:-4])
  (path / workdir.RESULT).unlink()
  return path


def listing(path: pathlib.Path) -> dict[str, tuple[int, int, int]]:
  """Everything in a directory with its size and times; `.lock` and all."""
  stats = {str(each): each.stat() for each in [path, *path.rglob("*")]}
  return {name: (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats.items()}


def test_readers_leave_a_workdir_as_it_is(begun, capsys):
  built = experiment.build(tiny.config("sinusoid", "maml", CHOSEN))
  before = listing(begun)
  loop.restore(built, begun)
  printed = capsys.readouterr().out
  assert "Checkpoint 6 is damaged, so 4 is used. (" in printed and "Resuming" not in printed
  selection.best(built, begun, loop.start(built))
  selection.rows(begun)
  workdir.read_metrics(begun)
  tuning.for_run(tiny.config("sinusoid", "maml", CHOSEN), str(begun))
  with pytest.raises(ValueError, match="must be runs of configs/maze"):
    maze.curve(begun)
  assert listing(begun) == before


def test_an_evaluation_writes_its_result_and_nothing_else(begun):
  before = listing(begun)
  evaluations.evaluate(begun, 2)
  after = listing(begun)
  changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
  assert changed == {str(begun), str(begun / workdir.EVALUATION)}
  assert (begun / "checkpoints" / SAVING).is_dir() and not list(begun.rglob("damaged-*"))


def test_a_workdir_without_checkpoints_gets_no_folders(begun, tmp_path):
  shutil.copy(begun / workdir.CONFIG, tmp_path)
  with pytest.raises(ValueError, match="has no checkpoint; train first"):
    evaluations.evaluate(tmp_path, 2)
  assert [path.name for path in tmp_path.iterdir()] == [workdir.CONFIG]


def test_a_result_that_cannot_be_kept_is_still_given(begun, monkeypatch, capsys):
  def refuse(path, value):
    raise PermissionError(13, "Permission denied", str(path))

  monkeypatch.setattr(workdir, "write_json", refuse)
  assert evaluations.evaluate(begun, 2)["num_tasks"] == 2
  assert "evaluation.json cannot be written (Permission denied); the result is only printed." in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_goes_on_while_it_is_evaluated(commands, tmp_path):
  """On the old code it died: the evaluation removed the save in progress."""
  settings = {"num_meta_steps": 24, "steps_per_dispatch": 1, "checkpoint_every": 1, "network.features": "(4,)"}
  given = {"tasks_per_step": 1, "eval.num_tasks": 2, "eval.num_steps": 1, "eval.val_tasks": 2, **settings}
  flags = [f"--config.{name}={value}" for name, value in given.items()]
  training = commands.start("experiments.train", ["--config=configs/sinusoid.py:maml", f"--workdir={tmp_path}", *flags])
  said, readings, template = [], 0, None
  while not (tmp_path / workdir.RESULT).exists() and alive(training):
    time.sleep(0.01)
    if len(checkpoints.steps(tmp_path / "checkpoints")) < 2:
      continue
    if template is None:
      template = loop.start(experiment.build(workdir.read_json(tmp_path / workdir.CONFIG)))
    with contextlib.suppress(checkpoints.BusyError):
      readings += checkpoints.restore_latest(tmp_path / "checkpoints", template, warn=said.append).step > 0
      readings += checkpoints.restore_meta_params(tmp_path / selection.BEST, warn=said.append).step > 0
  done = commands.wait(training)
  assert done.status == 0, done.stderr
  assert readings and not said and "damaged" not in done.stdout
  assert [row["step"] for row in workdir.read_metrics(tmp_path) if row["split"] == "train"] == list(range(1, 25))
