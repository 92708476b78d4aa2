"""Runs end to end: results, resuming, interruptions, what is not finite, several seeds."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
import types

import chex
import jax
import numpy as np
import pytest

from tests.runner import tiny
from tests.runner.commands import until
from warpjax.runner import evaluations, experiment, loop, measure, run, workdir
from warpjax.runner.commands import plot
from warpjax.runner.config import settings
from warpjax.runner.machine.interrupts import Interrupted
from warpjax.runner.plots import figures
from warpjax.runner.reporting import progress
from warpjax.training import StepFn, parallel

CONFIG = tiny.config("sinusoid", "maml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """An uninterrupted run, which no test changes."""
  path = tmp_path_factory.mktemp("runs") / "whole"
  return path, run.train_and_evaluate(CONFIG, path)


def state_of(path):
  return loop.restore(experiment.build(CONFIG), path, say=lambda message: None)


def assert_equal_bits(a, b):
  chex.assert_trees_all_equal(*(state._replace(key=jax.random.key_data(state.key)) for state in (a, b)))


def without_times(rows):
  return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


def test_workdir_holds_what_it_should(finished):
  path, result = finished
  assert {"config.json", "metrics.jsonl", "checkpoints", "result.json", "curves.png"} <= {
    p.name for p in path.iterdir()
  }
  assert result == json.loads((path / "result.json").read_text())
  for key in (
    "experiment",
    "method",
    "num_meta_steps",
    "wall_seconds",
    "metric",
    "mean",
    "ci95",
    "num_tasks",
    "per_step",
  ):
    assert key in result
  assert (result["experiment"], result["method"], result["metric"]) == ("sinusoid", "maml", "mse")
  assert (result["num_meta_steps"], result["num_tasks"], len(result["per_step"])) == (6, 3, 2)
  assert (result["norm_stats"], result["num_devices"], result["seed"]) == ("none", loop.num_devices(2), 0)
  assert result["published"]["number"] == 1.13 and result["published"]["interval"] == 0.18
  assert result["mean"] == result["per_step"][-1] == pytest.approx(np.load(path / "per_task.npy")[:, -1].mean())
  rows = workdir.read_metrics(path)
  assert [row["step"] for row in rows] == [2, 4, 6]
  assert all(row["split"] == "train" and row["loss"] > 0 for row in rows)


def test_its_config_holds_every_setting_that_has_a_value(finished):
  path, _ = finished
  kept = json.loads((path / "config.json").read_text())
  assert kept == workdir.as_json(settings.resolved(CONFIG))
  assert kept["eval"]["norm_stats"] == "transductive" and kept["inner"]["nesterov"] is False
  assert "momentum" not in kept["inner"]  # its default is None


def test_a_workdir_of_an_older_version_without_defaults_goes_on(finished, tmp_path):
  path = shutil.copytree(finished[0], tmp_path / "older")
  workdir.write_json(path / workdir.CONFIG, CONFIG)
  assert run.train_and_evaluate(CONFIG, path) == finished[1]
  assert settings.of_the_test(CONFIG) == settings.of_the_test(settings.resolved(CONFIG))
  run.workdir.prepare(path, settings.resolved(CONFIG), settings.identity)
  assert json.loads((path / "config.json").read_text()) == workdir.as_json(settings.resolved(CONFIG))
  with pytest.raises(ValueError, match=r"differs in: .*inner\.nesterov: False there, True here"):
    run.train_and_evaluate({**CONFIG, "inner": {**CONFIG["inner"], "momentum": 0.9, "nesterov": True}}, path)


def test_a_finished_workdir_returns_its_result_without_training(finished, monkeypatch):
  path, result = finished
  monkeypatch.setattr(loop, "train", lambda *args: pytest.fail("trained again"))
  assert run.train_and_evaluate(CONFIG, path) == result


def stop_after(monkeypatch, dispatches):
  """Makes the run see a signal once it has asked before the first dispatch and after so many."""
  asked = [0]

  class Signal:
    def __enter__(self):
      return self

    def __exit__(self, *args):
      pass

    def __call__(self):
      asked[0] += 1
      return signal.SIGTERM if asked[0] > dispatches else 0

  monkeypatch.setattr(progress, "stop_signal", Signal)


@pytest.mark.gpu
@pytest.mark.parametrize("dispatches", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_resumed_equals_uninterrupted_bit_for_bit(finished, tmp_path, monkeypatch, capsys, dispatches):
  path, result = finished
  with monkeypatch.context() as patch:
    stop_after(patch, dispatches)
    with pytest.raises(Interrupted) as stopped:
      run.train_and_evaluate({**CONFIG, "checkpoint_every": 4}, tmp_path)
    assert (stopped.value.signal, stopped.value.code) == (signal.SIGTERM, 128 + signal.SIGTERM)
  assert not (tmp_path / "result.json").exists()
  steps = 2 * dispatches
  assert f"Stopped at meta-step {steps}, which is saved" in capsys.readouterr().out
  workdir.append_metrics(tmp_path, [{"step": steps + 2, "split": "train", "loss": -1.0}])  # logged, then killed
  again = run.train_and_evaluate({**CONFIG, "checkpoint_every": 4}, tmp_path)
  assert f"Resuming sinusoid:maml at meta-step {steps}." in capsys.readouterr().out
  assert_equal_bits(state_of(path), state_of(tmp_path))
  assert without_times(workdir.read_metrics(path)) == without_times(workdir.read_metrics(tmp_path))
  assert without_times([again]) == without_times([result])
  np.testing.assert_array_equal(np.load(path / "per_task.npy"), np.load(tmp_path / "per_task.npy"))


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(finished, tmp_path, capsys):
  path, _ = finished
  shutil.copytree(path, tmp_path / "run")
  (tmp_path / "run" / "result.json").unlink()
  files = [p for p in (tmp_path / "run" / "checkpoints" / "6" / "state").rglob("*") if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  largest.write_bytes(largest.read_bytes()[:-20])
  run.train_and_evaluate(CONFIG, tmp_path / "run")
  printed = capsys.readouterr().out
  assert "Checkpoint 6 is damaged, so 4 is used" in printed and "at meta-step 4" in printed
  assert_equal_bits(state_of(path), state_of(tmp_path / "run"))


def test_other_data_than_it_was_trained_on_is_refused(finished, tmp_path):
  shutil.copytree(finished[0], tmp_path / "run")
  built = experiment.build(CONFIG)
  other = built._replace(data=built.data._replace(description={"split_sha256": "abc"}))
  with pytest.raises(ValueError, match="was trained on other data: split_sha256: nothing there, abc here"):
    loop.restore(other, tmp_path / "run")


def test_what_is_not_finite_stops_with_step_block_and_advice(tmp_path):
  config = tiny.config("sinusoid", "maml", {"optimizer": {"name": "sgd", "learning_rate": 1e30}})
  config["optimizer"] = {"name": "sgd", "learning_rate": 1e30}
  with pytest.raises(FloatingPointError) as error:
    run.train_and_evaluate(config, tmp_path)
  message = str(error.value)
  assert "meta-step 1: the parameters of block 'initial' are not finite" in message
  assert "Try a smaller inner.learning_rate" in message and "No checkpoint was saved before it" in message
  assert not (tmp_path / "result.json").exists()


def test_what_is_not_finite_can_be_skipped_and_is_counted(finished, tmp_path, monkeypatch, capsys):
  """Meta-steps 2 and 3 of 6 have tasks that are not finite; a resume goes on counting."""
  make = loop.training.meta_step

  def poisoned(*args, **kw):
    step = make(*args, **kw)

    def broken(state, tasks):
      bad = (state.step == 1) | (state.step == 2)
      new, metrics = step(state, jax.tree.map(lambda leaf: jax.numpy.where(bad, jax.numpy.nan, leaf), tasks))
      return new, metrics

    return StepFn(broken, step.axis_name)

  monkeypatch.setattr(loop.training, "meta_step", poisoned)
  with monkeypatch.context() as patch:
    stop_after(patch, 1)
    with pytest.raises(Interrupted) as stopped:
      run.train_and_evaluate(CONFIG, tmp_path, on_nonfinite="skip")
    assert (stopped.value.signal, stopped.value.code) == (signal.SIGTERM, 128 + signal.SIGTERM)
  result = run.train_and_evaluate(CONFIG, tmp_path, on_nonfinite="skip")
  printed = capsys.readouterr().out
  assert "meta-step 2: the meta-gradient of block 'initial' is not finite" in printed
  assert "Skipped, as were 1 of these 2 meta-steps in all." in printed
  assert result["skipped"] == 2 and finished[1]["skipped"] == 0 and np.isfinite(result["mean"])
  rows = workdir.read_metrics(tmp_path)
  assert [row["skipped"] for row in rows] == [1, 1, 0] and all(np.isfinite(row["loss"]) for row in rows)


def test_the_last_good_checkpoint_stays(finished, tmp_path, monkeypatch):
  stop_after(monkeypatch, 1)
  with pytest.raises(Interrupted):
    run.train_and_evaluate(CONFIG, tmp_path)
  monkeypatch.undo()
  make = loop.make_dispatch

  def poisoned(*args, **kwargs):
    def dispatch(state, sampler):
      state, metrics = make(*args, **kwargs)(state, sampler)
      return state, {**metrics, "finite": metrics["finite"].at[1].set(False)}

    return jax.jit(dispatch)

  monkeypatch.setattr(loop, "make_dispatch", poisoned)
  with pytest.raises(FloatingPointError, match=r"meta-step 4: the meta-loss is not finite.*of meta-step 2 is kept"):
    run.train_and_evaluate(CONFIG, tmp_path)
  assert int(state_of(tmp_path).step) == 2


def test_devices_change_nothing_but_round_off():
  """Runs on as many devices as there are; with one, the mesh's path is compared with itself."""
  built = experiment.build(CONFIG)
  one, _ = loop.make_dispatch(built, 2, parallel.device_mesh(1))(loop.start(built), built.data.train)
  many, _ = loop.make_dispatch(built, 2, parallel.device_mesh(loop.num_devices(2)))(loop.start(built), built.data.train)
  chex.assert_trees_all_close(one.meta_params, many.meta_params, rtol=1e-4, atol=1e-6)


def test_tasks_in_turn_are_on_one_device():
  """Reptile's released chain: the tasks of a meta-step pass on one state, which counts all of their steps."""
  chain = {"inner": {"momentum": 0.9}, "meta_gradient": {"carry_optimizer": True, "in_turn": True}}
  built = experiment.build(tiny.config("sinusoid", "reptile", chain))
  assert built.outer_step.in_turn and loop.num_devices(built.run.tasks_per_step, in_turn=True) == 1
  state = loop.start(built)
  after, _ = loop.make_dispatch(built, 2, parallel.device_mesh(1))(state, built.data.train)
  assert {leaf.shape[0] for leaf in jax.tree.leaves(after.carry)} == {1}
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after.carry, after.meta_params)))


def test_evaluate_writes_the_same_form(finished, tmp_path):
  shutil.copytree(finished[0], tmp_path / "run")
  result = evaluations.evaluate(tmp_path / "run", num_tasks=5)
  assert result == json.loads((tmp_path / "run" / "evaluation.json").read_text())
  assert result["num_tasks"] == 5 and set(result) >= {"experiment", "method", "metric", "mean", "ci95", "per_step"}
  same = evaluations.evaluate(tmp_path / "run")
  assert same["mean"] == finished[1]["mean"]
  with pytest.raises(ValueError, match=r"must have a config\.json"):
    evaluations.evaluate(tmp_path)


def test_a_trained_model_is_tested_under_other_settings(finished, tmp_path):
  """More steps go through the same first ones; other shots are another test, and none has the paper's number."""
  shutil.copytree(finished[0], tmp_path / "run")
  steps = settings.values(CONFIG, ["eval.num_steps=3"])
  longer = evaluations.evaluate(tmp_path / "run", changed=steps, name="longer")
  assert longer == json.loads((tmp_path / "run" / "evaluation_longer.json").read_text())
  assert len(longer["per_step"]) == 4 and longer["per_step"][:2] == pytest.approx(finished[1]["per_step"][:2])
  assert longer["changed"] == steps and "published" not in longer and "published" in finished[1]
  fewer = evaluations.evaluate(tmp_path / "run", changed={"data.shots": 2}, name="2_shots")
  assert fewer["protocol"]["shots"] == 2 and fewer["mean"] != finished[1]["mean"]
  assert not (tmp_path / "run" / "evaluation.json").exists()


@pytest.mark.parametrize(
  ("changed", "name", "message"),
  [
    ({"inner.num_steps": 3}, "", r"--set must be a setting of the test, one of eval.\*, .*; got inner.num_steps=3"),
    ({"data.train_shots": 3}, "", r"--set must be a setting of the test"),
    ({"eval.num_step": 3}, "", r"config.eval.num_step is not a setting; did you mean 'num_steps'"),
    ({"eval.num_steps": "many"}, "", r"config.eval.num_steps must be an integer.*; got 'many'"),
    ({"eval.num_steps": 3}, "../there", r"--name must be letters"),
  ],
)
def test_settings_that_are_not_the_test_s_are_refused(finished, changed, name, message):
  with pytest.raises(ValueError, match=message):
    evaluations.evaluate(finished[0], changed=changed, name=name)
  with pytest.raises(ValueError, match="must be KEY=VALUE.*; got 'eval.num_steps'"):
    settings.values(CONFIG, ["eval.num_steps"])


@pytest.fixture(scope="module")
def swept(finished, tmp_path_factory):
  """Seeds 0, which was trained already, and 1."""
  path = tmp_path_factory.mktemp("runs") / "sweep"
  shutil.copytree(finished[0], path / "seed_0")
  return path, run.sweep(CONFIG, path, [0, 1])


def test_sweep_keeps_the_two_intervals_apart(swept):
  tmp_path, combined = swept
  means = [json.loads((tmp_path / f"seed_{seed}" / "result.json").read_text())["mean"] for seed in (0, 1)]
  assert combined == json.loads((tmp_path / "result.json").read_text())
  assert combined["seeds"] == [0, 1] and means[0] != means[1]
  assert combined["mean"] == pytest.approx(np.mean(means))
  # Student's t with one degree of freedom, 12.706, times the deviation of two numbers, |a - b| / sqrt 2, over sqrt 2.
  assert combined["over_seeds"]["ci95"] == pytest.approx(12.7062 * abs(means[0] - means[1]) / 2, rel=1e-4)
  tasks = np.mean([np.load(tmp_path / f"seed_{seed}" / "per_task.npy")[:, -1] for seed in (0, 1)], axis=0)
  assert combined["over_tasks"]["ci95"] == pytest.approx(1.96 * tasks.std(ddof=1) / np.sqrt(3))
  np.testing.assert_allclose(np.load(tmp_path / "per_task.npy")[:, -1], tasks)
  assert {"config.json", "curves.png"} <= {p.name for p in tmp_path.iterdir()}
  with pytest.raises(ValueError, match="must be one run; .* has one for each seed"):
    evaluations.evaluate(tmp_path)
  with pytest.raises(ValueError, match="belongs to another config.*seed: nothing there, 0 here"):
    run.train_and_evaluate(CONFIG, tmp_path)


def test_what_is_finished_is_shown_where_nothing_can_be_written(finished, swept, monkeypatch):
  """As on a read-only file system, which root does not see in a file's mode."""

  def refuse(*arguments):
    raise OSError(errno.EROFS, "Read-only file system", ".lock")

  path, combined = swept
  for name in ("make", "lock", "write_text", "append_metrics"):
    monkeypatch.setattr(workdir, name, refuse)
  assert run.train_and_evaluate(CONFIG, finished[0]) == finished[1]
  assert run.sweep(CONFIG, path, [0, 1]) == combined
  for other in ({**CONFIG, "seed": 3}, {**CONFIG, "num_meta_steps": 8}):
    with pytest.raises(OSError, match="Read-only"):
      run.train_and_evaluate(other, finished[0])
  with pytest.raises(OSError, match="Read-only"):
    run.sweep(CONFIG, path, [0, 1, 2])


def test_a_sweep_does_not_take_the_workdir_of_a_run(finished, tmp_path):
  shutil.copytree(finished[0], tmp_path / "run")
  with pytest.raises(ValueError, match="belongs to another config.*seed: 0 there, nothing here"):
    run.sweep(CONFIG, tmp_path / "run", [0, 1])
  assert json.loads((tmp_path / "run" / "result.json").read_text()) == finished[1]


def test_an_interrupted_sweep_keeps_its_config(finished, tmp_path, monkeypatch):
  stop_after(monkeypatch, 1)
  with pytest.raises(Interrupted) as stopped:
    run.sweep(CONFIG, tmp_path, [0, 1])
  assert (stopped.value.signal, stopped.value.code) == (signal.SIGTERM, 128 + signal.SIGTERM)
  with pytest.raises(ValueError, match="is a run of 6 meta-steps, and num_meta_steps can only be raised; got 4"):
    run.sweep({**CONFIG, "num_meta_steps": 4}, tmp_path, [0, 1])


def test_test_tasks_pair_across_methods_and_seeds(finished):
  built = experiment.build({**CONFIG, "seed": 9})
  state = state_of(finished[0])
  _, per_task = measure.measure(built, state)
  np.testing.assert_array_equal(per_task, np.load(finished[0] / "per_task.npy"))


@pytest.mark.parametrize("against", [None, "num_meta_steps"])
def test_plot_names_the_file_that_it_writes(finished, tmp_path, monkeypatch, capsys, against):
  given = {"workdirs": [str(finished[0])], "output": str(tmp_path / "picture"), "against": against, "markdown": False}
  monkeypatch.setattr(plot, "FLAGS", types.SimpleNamespace(**given))
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
  plot.main()
  assert capsys.readouterr().out.splitlines()[-1] == f"Drawn in {tmp_path / 'picture.png'}"
  assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_table_and_paired_difference(finished, tmp_path):
  path, result = finished
  shutil.copytree(path, tmp_path / "other")
  np.save(tmp_path / "other" / "per_task.npy", np.load(path / "per_task.npy") - 0.5)
  lines = figures.table([result, result]).splitlines()
  assert len(lines) == 3 and lines[0].split() == ["method", "step", "0", "step", "1"]
  assert f"{result['per_step'][1]:.3f} +/- " in lines[1]
  difference = f"maml ({tmp_path / 'other'}) - maml ({path})"  # two of one name are told apart
  paired = lambda: figures.paired([path, tmp_path / "other"], [result, result])
  assert paired() == [f"{difference}: -0.5000 +/- 0.0000 (mse, paired over 3 test tasks)"]
  assert figures.paired([path, tmp_path / "other"], [result, {**result, "method": "anil"}])[0].startswith(
    "anil - maml:"
  )
  figures.draw([path, path], tmp_path / "new" / "both.png", results=[result, result])
  assert (tmp_path / "new" / "both.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_is_drawn_as_a_band_over_its_seeds(tmp_path):
  for seed, value in enumerate((1.0, 3.0)):
    run_of = tmp_path / f"seed_{seed}"
    run_of.mkdir()
    workdir.append_metrics(run_of, [{"step": step, "mse": value} for step in (1, 2, 3)])
    workdir.write_json(run_of / workdir.RESULT, {"per_step": [value, value]})
  assert figures.seeds(tmp_path) == [tmp_path / "seed_0", tmp_path / "seed_1"]
  steps, mean, low, high = figures._training(figures.seeds(tmp_path), "mse")
  assert steps.tolist() == [1, 2, 3]
  assert (mean.tolist(), low.tolist(), high.tolist()) == ([2.0] * 3, [1.0] * 3, [3.0] * 3)
  combined = {"experiment": "sines", "method": "maml", "metric": "mse", "per_step": [2.0, 2.0]}
  figures.draw([tmp_path], tmp_path / "band.png", results=[combined])
  assert (tmp_path / "band.png").read_bytes().startswith(b"\x89PNG")
  assert figures.seeds(tmp_path / "seed_0") == [tmp_path / "seed_0"]


def test_markdown_table():
  result = {
    "method": "maml",
    "metric": "mse",
    "mean": 0.5,
    "ci95": 0.1,
    "num_meta_steps": 6000,
    "num_tasks": 600,
    "wall_seconds": 12.4,
  }
  lines = figures.markdown([result, {**result, "seeds": [0, 1], "published": {"number": 1.13, "interval": 0.18}}])
  assert lines.splitlines()[2:] == [
    "| maml | mse 0.500 +/- 0.100 | - | 6,000 | 600 | 1 | 12 |",
    "| maml | mse 0.500 +/- 0.100 | 1.130 +/- 0.180 | 6,000 | 600 | 2 | 12 |",
  ]
  assert len({line.count("|") for line in lines.splitlines()}) == 1


def test_sweeps_are_paired_by_seed_too(tmp_path):
  config, paths, results = {"data": {}, "eval": {}}, [], []
  for name, means in (("a", [0.1, 0.2, 0.3]), ("b", [0.3, 0.5, 0.7])):
    (tmp_path / name).mkdir()
    workdir.write_json(tmp_path / name / "config.json", config)
    np.save(tmp_path / name / "per_task.npy", np.full((4, 2), np.mean(means)))
    paths.append(tmp_path / name)
    results.append(
      {"method": name, "metric": "accuracy", "data": {}, "seeds": [0, 1, 2], "over_seeds": {"means": means}}
    )
  tasks, seeds = figures.paired(paths, results)
  assert "paired over 4 test tasks" in tasks
  assert seeds == "b - a: +0.3000 +/- 0.2484 (paired over 3 training seeds)"


@pytest.mark.parametrize(
  ("table", "setting", "same"),
  [("data", {"train_queries": 9}, True), ("data", {"shots": 7}, False), ("eval", {"seed": 1}, False)],
)
def test_only_runs_on_the_same_test_tasks_are_paired(finished, tmp_path, table, setting, same):
  path, result = finished
  shutil.copytree(path, tmp_path / "other")
  config = workdir.read_json(path / "config.json")
  workdir.write_json(tmp_path / "other" / "config.json", {**config, table: {**config[table], **setting}})
  (line,) = figures.paired([path, tmp_path / "other"], [result, {**result, "method": "anil"}])
  assert ("paired over 3 test tasks" in line) == same and line.endswith("the test tasks differ") != same


def test_a_task_that_diverged_is_left_out_of_the_difference(finished, tmp_path):
  path, result = finished
  shutil.copytree(path, tmp_path / "other")
  per_task = np.load(path / "per_task.npy") + 0.5
  per_task[0] = np.nan
  np.save(tmp_path / "other" / "per_task.npy", per_task)
  (line,) = figures.paired([path, tmp_path / "other"], [result, {**result, "method": "anil"}])
  assert "+0.5000" in line and "paired over 2 test tasks" in line


def test_smoothing_keeps_the_length_and_the_level():
  np.testing.assert_allclose(figures.smooth([2.0] * 1000), np.full(1000, 2.0))
  assert len(figures.smooth([])) == 0
  assert figures.smooth(list(range(400)))[-1] == 398.5


def test_a_signal_saves_and_the_same_command_goes_on(commands, tmp_path):
  sizes = ["--config.tasks_per_step=2", "--config.eval.num_tasks=2", "--config.steps_per_dispatch=20"]
  endless = ["--config.num_meta_steps=2000000", "--config.checkpoint_every=1000000"]
  arguments = ["--config=configs/sinusoid.py:maml", f"--workdir={tmp_path}", *sizes, *endless]
  pid = commands.start("experiments.train", arguments)
  until(lambda: workdir.read_metrics(tmp_path), pid)
  os.kill(pid, signal.SIGTERM)
  done = commands.wait(pid)
  assert done.status == 128 + signal.SIGTERM
  assert "the same command continues" in done.stdout and "Traceback" not in done.stdout + done.stderr
  saved = [int(p.name) for p in (tmp_path / "checkpoints").iterdir()]
  assert saved == [workdir.read_metrics(tmp_path)[-1]["step"]]
