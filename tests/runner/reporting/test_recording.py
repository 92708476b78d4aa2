"""A finished run becomes a record, and what is not one is refused in a line."""

from __future__ import annotations

import json
import pathlib
import shutil

import numpy as np
import pytest

from tests.runner import tiny
from warpjax import processor
from warpjax.runner import evaluations, measure, run, workdir
from warpjax.runner.config import recipes
from warpjax.runner.machine import provenance
from warpjax.runner.reporting import recording

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A tiny run, with an evaluation of it under another test."""
  path = tmp_path_factory.mktemp("runs") / "maml"
  run.train_and_evaluate(tiny.config("sinusoid", "maml"), path)
  evaluations.evaluate(path, 2, changed={"data.shots": 7}, name="7_shots")
  return path


@pytest.fixture(autouse=True)
def clean(monkeypatch):
  monkeypatch.setattr(provenance, "git", lambda *arguments: "" if arguments[0] == "status" else "abc")


@pytest.fixture
def copied(finished, tmp_path):
  return pathlib.Path(shutil.copytree(finished, tmp_path / "maml"))


def test_a_record_has_the_number_and_what_it_was_measured_with(finished, tmp_path):
  found = recording.make(finished, reason="tiny")
  result = workdir.read_json(finished / workdir.RESULT)
  for key in ("mean", "ci95", "metric", "per_step", "num_tasks", "num_meta_steps", "protocol", "wall_seconds"):
    assert found[key] == result[key]
  assert (found["seeds"], found["over"], found["tasks_per_step"], found["reason"]) == ([0], "tasks", 2, "tiny")
  assert found["machine"]["cores"] == processor.cores() and found["machine"]["cpu"]
  assert found["versions"]["jax"] and found["protocol"]["split_sha256"] is None
  assert not {"data", "published", "provenance", "seed"} & found.keys()
  path = recording.write(found, folder=tmp_path)
  assert path == tmp_path / "sinusoid" / "maml.json" and json.loads(path.read_text()) == workdir.as_json(found)


def test_settings_that_are_not_the_row_s_are_named(finished):
  found = recording.make(finished)
  assert found["changed"] == {"num_meta_steps": 6, "tasks_per_step": 2, "network.features": [4], "eval.num_tasks": 3}
  assert "--config.num_meta_steps=6" in found["command"] and "configs/sinusoid.py:maml " in found["command"]


def test_a_run_of_the_row_itself_has_a_bare_command(copied):
  config = workdir.read_json(copied / workdir.CONFIG)
  row = workdir.as_json(recipes.settings("sinusoid:maml"))
  workdir.write_json(copied / workdir.CONFIG, {**row, "task_chunk": 2, "checkpoint_every": 2})
  result = workdir.read_json(copied / workdir.RESULT)
  workdir.write_json(copied / workdir.RESULT, {**result, "num_meta_steps": row["num_meta_steps"]})
  found = recording.make(copied)
  assert config["num_meta_steps"] == 6 and "changed" not in found
  flags = "--config=configs/sinusoid.py:maml --workdir=runs/sinusoid/maml"
  assert found["command"] == f"warpjax train {flags}"


def test_a_sweep_over_seeds(finished, tmp_path):
  config, result = (workdir.read_json(finished / name) for name in (workdir.CONFIG, workdir.RESULT))
  for seed in (0, 3):
    shutil.copytree(finished, tmp_path / f"seed_{seed}")
  per_task = [np.load(finished / workdir.PER_TASK)] * 2
  combined = measure.combine([{**result, "seed": seed} for seed in (0, 3)], per_task)
  workdir.write_json(tmp_path / workdir.RESULT, combined)
  workdir.write_json(tmp_path / workdir.CONFIG, {key: value for key, value in config.items() if key != "seed"})
  found = recording.make(tmp_path)
  assert (found["seeds"], found["over"]) == ([0, 3], "seeds") and len(found["over_seeds"]["means"]) == 2
  assert "--seeds=0,3" in found["command"] and found["versions"]["jax"] and found["wall_seconds"] > 0


def test_a_newer_run_replaces_the_row_s_record(finished, tmp_path):
  (tmp_path / "sinusoid").mkdir()
  (tmp_path / "sinusoid" / "maml.json").write_text('{"origin": "docstring", "others": []}')
  path = recording.write(recording.make(finished), folder=tmp_path)
  assert "origin" not in workdir.read_json(path)


def test_an_evaluation_is_one_more_number_of_its_run(finished, tmp_path):
  with pytest.raises(ValueError, match="--evaluation=7_shots joins the record of its row, maml.json; record the run"):
    recording.write(recording.make(finished, evaluation="7_shots"), further="7_shots", folder=tmp_path)
  before = recording.make(finished)
  recording.write(before, folder=tmp_path)
  for _ in range(2):  # the second replaces the first
    path = recording.write(recording.make(finished, evaluation="7_shots"), further="7_shots", folder=tmp_path)
  found = workdir.read_json(path)
  (other,) = found.pop("others")
  assert found == workdir.as_json(before)
  assert (
    "--name=7_shots --set=data.shots=7 --num_tasks=2" in other["what"]
    and other["ci95"] > 0
    and other["metric"] == "mse"
  )


def test_an_evaluation_can_be_the_number_of_another_row(copied):
  other = workdir.read_json(copied / "evaluation_7_shots.json")
  workdir.write_json(copied / "evaluation_5_shots.json", {**other, "changed": {"data.shots": 5}})
  found = recording.make(copied, evaluation="5_shots", row="learned")
  assert (found["method"], found["trained_as"]) == ("learned", "maml") and "warpjax evaluate" in found["command"]
  with pytest.raises(ValueError, match="--row=learned is tested otherwise: data.shots=5"):
    recording.make(copied, evaluation="7_shots", row="learned")


def test_an_evaluation_that_is_not_there_is_named(finished):
  with pytest.raises(ValueError, match="has no evaluation_9_shots.json; warpjax evaluate makes it"):
    recording.make(finished, evaluation="9_shots")


def test_a_tree_with_changes_is_refused(finished, monkeypatch):
  monkeypatch.setattr(provenance, "git", lambda *arguments: " M warpjax/problem.py")
  with pytest.raises(ValueError, match="the tree has changes that no commit has; .*: warpjax/problem.py"):
    recording.make(finished)


def edit(path, **values):
  workdir.write_json(path, {**workdir.read_json(path), **values})


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (lambda path: (path / workdir.RESULT).unlink(), "--workdir must be a finished run or sweep over seeds"),
    (lambda path: edit(path / workdir.CONFIG, num_meta_steps=9), "must have a result of 9 meta-steps; it has one of 6"),
    (
      lambda path: edit(path / workdir.CONFIG, method="mine"),
      "rows in configs/ have records; sinusoid:mine is not one",
    ),
    (lambda path: edit(path / workdir.RESULT, init_from={"workdir": "x"}), "began from the parameters of another run"),
  ],
)
def test_what_is_no_finished_run_of_a_row_is_refused(copied, spoil, message):
  spoil(copied)
  with pytest.raises(ValueError, match=message):
    recording.make(copied)


def test_the_command_says_it_in_one_line(commands, tmp_path):
  done = commands.run("experiments.record", [f"--workdir={tmp_path}"])
  assert done.status == 1 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_outside_of_a_checkout_nothing_is_recorded(tmp_path, monkeypatch):
  monkeypatch.setattr(recording.recipes, "CHECKOUT", None)
  with pytest.raises(ValueError, match="in a checkout of warpjax; this warpjax is installed"):
    recording.make(tmp_path)
