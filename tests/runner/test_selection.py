"""Validation chooses the checkpoint of the result, and the card says what was measured."""

from __future__ import annotations

import json
import re
import shutil
import types

import jax
import numpy as np
import pytest

import warpjax as wj
from experiments import throughput
from tests.datasets import image_files
from tests.runner import tiny
from warpjax.evaluation import step_statistics
from warpjax.runner import evaluations, experiment, loop, measure, run, selection, workdir
from warpjax.runner.components import norm_stats
from warpjax.runner.config import recipes
from warpjax.runner.families import base, image_data
from warpjax.runner.reporting import protocol
from warpjax.training import parallel
from warpjax.types import InnerLoop

WAVES = {"num_meta_steps": 4, "checkpoint_every": 1, "steps_per_dispatch": 1, "eval": {"val_tasks": 4, "num_steps": 2}}
IMAGES = {
  "data": {"ways": 2, "queries": 2, "train_queries": 3, "size": 16},
  "network": {"width": 2},
  "eval": {"val_tasks": 4},
}
NUMBERS = [3.0, 1.0, 2.0, 1.0]
ACCURACIES = [0.5, 0.9, 0.6, 0.9, 0.7, 0.8]


def waves(**evaluation):
  return tiny.config("sinusoid", "maml", WAVES, {"eval": evaluation})


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
  """A run whose validation reads its numbers off a list."""
  numbers = iter(NUMBERS)
  measured = lambda state: {"mse": next(numbers), "ci95": 0.1, "num_tasks": 4}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(selection, "_measured", lambda experiment: measured)
    path = tmp_path_factory.mktemp("runs") / "chosen"
    return path, run.train_and_evaluate(waves(), path)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
  root = tmp_path_factory.mktemp("selection")
  return {"data_dir": str(image_files.write(root / "raw", count=6, size=20)), "cache_dir": str(root / "cache")}


def test_the_result_is_of_the_best_validation(chosen):
  path, result = chosen
  assert result["selected"] == {"by": "validation", "step": 2, "mse": 1.0, "ci95": 0.1, "num_tasks": 4}
  assert result["num_meta_steps"] == 4
  assert [row["mse"] for row in selection.rows(path)] == NUMBERS
  assert int(loop.restore(experiment.build(waves()), path).step) == 2
  again = evaluations.evaluate(path, changed={"data.shots": 20})
  assert again["selected"] == result["selected"] and again["num_meta_steps"] == 4
  card = again["protocol"]
  assert (card["shots"], card["train_shots"], card["train_queries"]) == (20, 5, 5)
  assert evaluations.evaluate(path)["per_step"] == result["per_step"]
  with pytest.raises(
    ValueError, match=r"--set must not be eval\.val_tasks: the checkpoints .* have been chosen; got 9"
  ):
    evaluations.evaluate(path, changed={"eval.val_tasks": 9})


def test_what_was_kept_of_steps_to_come_is_removed(chosen):
  path, _ = chosen
  built = experiment.build(waves())
  with selection.validation(built, path, 1, write=lambda row: None):
    pass
  assert selection.best(built, path, loop.start(built))[1]["step"] == 1


@pytest.fixture(scope="module")
def ensemble(places, tmp_path_factory):
  """A run of images whose validation reads its numbers off a list, and the ensemble of its best three."""
  config = tiny_images()
  config |= {"num_meta_steps": 6, "optimizer": {"name": "adam", "learning_rate": 0.05}}
  config["eval"] |= {"num_tasks": 40, "num_steps": 2, "ensemble": 3}
  numbers = iter(ACCURACIES)
  measured = lambda state: {"accuracy": next(numbers), "ci95": 0.1, "num_tasks": 4}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(selection, "_measured", lambda experiment: measured)
    path = tmp_path_factory.mktemp("ensemble") / "run"
    return config, path, run.train_and_evaluate(config, path, **places)


@pytest.mark.slow
def test_an_ensemble_is_of_the_best_validations(ensemble, places):
  config, path, result = ensemble
  assert result["selected"]["steps"] == [2, 4, 6] and result["selected"]["step"] == 2
  assert result["protocol"]["ensemble"] == 3
  states = loop.restore_all(experiment.build(config, **places), path).states
  assert [int(state.step) for state in states] == [2, 4, 6]
  again = evaluations.evaluate(path, **places)
  assert again["per_step"] == result["per_step"] and again["support"] == result["support"]


@pytest.mark.slow
def test_an_ensemble_averages_the_probabilities_of_networks_that_adapt_each_by_itself(ensemble, places):
  config, path, result = ensemble
  alone = experiment.build({**config, "eval": {**config["eval"], "ensemble": 0}}, **places)
  states = loop.restore_all(experiment.build(config, **places), path).states
  key = jax.random.fold_in(jax.random.key(0), measure._TEST_STREAM)

  @jax.jit
  def probabilities(meta_params, index):
    task = alone.data.test(jax.random.fold_in(jax.random.fold_in(key, 0), index))
    own = jax.random.fold_in(jax.random.fold_in(key, 1), index)
    adapted = wj.adapt(alone.test_inner, meta_params, task, own, num_steps=alone.evaluation.num_steps)
    x, y = alone.test_inner.query_batch_fn(key, task, adapted.final.params, meta_params.shared)
    return jax.nn.softmax(alone.network.apply(adapted.final.params, meta_params.shared, x)), y

  right = []
  for index in range(40):
    seen = [probabilities(state.meta_params, index) for state in states]
    right.append(np.mean(np.argmax(sum(p for p, _ in seen), axis=-1) == seen[0][1]))
  np.testing.assert_allclose(np.load(path / workdir.PER_TASK)[:, -1], right, atol=1e-6)
  single = [measure.measure(alone, state)[0]["mean"] for state in states]
  assert len(set(single)) > 1 and result["mean"] not in single


@pytest.mark.slow
def test_an_ensemble_is_chosen_likewise_by_many_hosts(ensemble, places, monkeypatch):
  """Whose first host tells the others what it read as JSON."""
  config, path, _ = ensemble
  built = experiment.build(config, **places)
  monkeypatch.setattr(selection.hosts, "from_first", lambda function: json.loads(json.dumps(function())))
  assert [int(state.step) for state in selection.best(built, path, loop.start(built))[0]] == [2, 4, 6]


@pytest.mark.slow
def test_an_ensemble_without_enough_whole_checkpoints_is_refused(ensemble, places, tmp_path):
  config, path, _ = ensemble
  shutil.copytree(path, tmp_path / "run")
  built = experiment.build(config, **places)
  for step in (6, 5):
    next((tmp_path / "run" / selection.BEST / str(step)).rglob("_METADATA")).unlink()
  with pytest.raises(ValueError, match="has 2 intact checkpoints of the 3 of config.eval.ensemble"):
    selection.best(built, tmp_path / "run", loop.start(built))
  state = loop.start(built)
  with pytest.raises(ValueError, match="members must be 2 states; got 0"):
    measure.measure(built, state)


@pytest.mark.parametrize(
  ("evaluation", "said"),
  [
    ({"ensemble": 2, "val_tasks": 0}, "got the metric 'accuracy' and 0 validation tasks"),
    ({"ensemble": 1}, "at least 2 and at most the checkpoints of the run, 2; got 1"),
    ({"ensemble": 3}, "at least 2 and at most the checkpoints of the run, 2; got 3"),
  ],
)
def test_an_ensemble_needs_checkpoints_that_validation_chose(places, evaluation, said):
  config = tiny_images()
  config["eval"] |= evaluation
  with pytest.raises(ValueError, match=re.escape(said)):
    experiment.build(config, **places)


def test_an_ensemble_is_of_classifiers():
  with pytest.raises(ValueError, match=r"got the metric 'mse' and 4 validation tasks"):
    experiment.build(waves(ensemble=2))


@pytest.mark.parametrize(("metric", "better", "worse"), [("accuracy", 0.6, 0.5), ("mse", 0.5, 0.6)])
def test_better_is_higher_accuracy_and_lower_error(metric, better, worse):
  rank = lambda value: selection._rank(metric, value)
  assert rank(better) > rank(worse) > rank(float("nan")) == rank(None)


def test_validation_tasks_are_of_the_validation_split_and_the_same_every_time(monkeypatch):
  built = experiment.build(waves())
  apart = jax.tree_util.Partial(lambda key: built.data.test(key))
  built = built._replace(data=built.data._replace(val=apart))
  seen, real = [], measure.evaluation.evaluator

  def spy(*args, **kw):
    found = real(*args, **kw)
    return lambda params, *args: (seen.append(args[:3]), found(params, *args))[1]

  monkeypatch.setattr(measure.evaluation, "evaluator", spy)
  judge, state = selection._measured(built), loop.start(built)
  first = judge(state)
  assert first["mse"] > 0 and first["num_tasks"] == 4 and judge(state) == first
  assert seen[0][0] is apart and seen[0] == seen[1]


def test_omniglot_holds_out_characters_for_validation_and_keeps_those_of_the_test():
  names = [f"Alphabet/{index}" for index in range(1623)]
  drawings = types.SimpleNamespace(names=names, split=None)
  whole, held_out = (base._split(drawings, "random_characters", 0, count) for count in (0, 100))
  assert [len(part) for part in whole] == [1200, 0, 423] and [len(part) for part in held_out] == [1100, 100, 423]
  assert held_out.test == whole.test and set(held_out.train) < set(whole.train)
  with pytest.raises(ValueError, match="config.data.val_classes must be 0 to 1199 for random_characters; got 1200"):
    base._split(drawings, "random_characters", 0, 1200)
  with pytest.raises(ValueError, match="config.data.val_classes must be 0 for background_evaluation; got 5"):
    base._split(drawings, "background_evaluation", 0, 5)


def test_omniglot_validates_on_the_validation_folder(places, tmp_path):
  data = {"data_dir": str(tiny.write_images(tmp_path / "drawings")), "cache_dir": places["cache_dir"]}
  built = experiment.build(tiny.config("omniglot", "maml", {"eval": {"val_tasks": 3}}), **data)
  assert built.data.description["val_classes"] == tiny.NUM_CLASSES
  tasks = [sampler(jax.random.key(0)).query[0] for sampler in (built.data.val, built.data.test_task)]
  assert tasks[0].shape == tasks[1].shape and not np.array_equal(*tasks)


def test_validation_needs_validation_tasks():
  with pytest.raises(ValueError, match=r"config\.eval\.val_tasks must be 0 or more for these data; got -1"):
    experiment.build(waves(val_tasks=-1))
  with pytest.raises(ValueError, match=r"config\.eval\.val_tasks must be 0 for these data; got 3"):
    experiment.build(tiny.config("continual", "warp", {"eval": {"val_tasks": 3}}))


def test_the_card_says_what_was_measured(chosen):
  _, result = chosen
  card = result["protocol"]
  assert (card["shots"], card["queries"], card["inner_steps_train"], card["inner_steps_test"]) == (5, 100, 1, 2)
  assert card["norm_stats"] == "none" and not card["transductive"] and card["selection"] == "validation"
  assert (card["test_tasks"], card["val_tasks"], card["seeds"], card["ensemble"]) == (3, 4, [0], False)
  lines = protocol.text(result).splitlines()
  assert lines[0].startswith("result") and "95% over tasks" in lines[0]
  assert any(line.startswith("learning rate on") and line.endswith("the mean loss over the batch") for line in lines)


def test_tests_may_leave_the_proximal_term_out():
  built = experiment.build(tiny.config("sinusoid", "imaml", {"eval": {"prox": 0.0}}))
  assert (built.inner.prox, built.test_inner.prox) == (10.0, 0.0)
  card = protocol.card(built, 3)
  assert (card["inner_prox_train"], card["inner_prox_test"]) == (10.0, None)
  assert experiment.build(tiny.config("sinusoid", "imaml")).test_inner.prox == 10.0


def test_the_card_of_images_names_the_split_and_what_is_missing(places, capsys):
  config = recipes.lay_over(recipes.settings("mini_imagenet:maml"), IMAGES)
  built = experiment.build(config, **places)
  printed, resized = capsys.readouterr().err, "36 images were 20x20, resized to 16x16 by lanczos"
  assert "incomplete; it lacks 62 of 64 train classes" in printed and f"Of the data: {resized}." in printed
  card = protocol.card(built, 600)
  assert card["data_notes"] == resized and built.data.description["notes"] == [resized]
  assert card["split_sha256"] == built.data.description["split_sha256"] and "62 of 64 train classes" in card["partial"]
  assert (card["ways"], card["shots"], card["queries"], card["train_queries"]) == (2, 1, 2, 3)
  assert (card["norm_stats"], card["transductive"], card["inner_learning_rate"]) == ("transductive", True, 0.05)


@pytest.mark.slow
def test_per_step_statistics_are_a_choice_of_their_own():
  network = {"network": {"warp": {"kind": "linear", "batch_norm": True}}}
  results = {}
  for name in ("transductive", "per_step"):
    built = experiment.build(tiny.config("sinusoid", "maml", network, {"eval": {"norm_stats": name}}))
    results[name], _ = measure.measure(built, loop.start(built))
  assert results["per_step"]["norm_stats"] == "per_step" and "per_step" not in [
    key for key in results["transductive"] if isinstance(results["transductive"][key], dict)
  ]
  assert results["per_step"]["transductive"]["mean"] == pytest.approx(results["transductive"]["mean"], rel=1e-5)
  assert results["per_step"]["mean"] != pytest.approx(results["transductive"]["mean"], rel=1e-3)


def test_per_step_statistics_are_along_the_steps_of_the_test(monkeypatch):
  """From the optimizer state that training left, as the test tasks are, where they are."""
  monkeypatch.setattr(norm_stats, "PER_STEP_TASKS", 2)
  network = {"network": {"warp": {"kind": "linear", "batch_norm": True}}}
  evaluation = {"eval": {"norm_stats": "per_step", "optimizer_state": "trained", "batch_size": 5}}
  carried = {"inner": {"momentum": 0.9}, "meta_gradient": {"carry_optimizer": True}}
  built = experiment.build(tiny.config("sinusoid", "reptile", network, carried, evaluation))
  state = loop.start(built)
  state = state._replace(carry=jax.tree.map(lambda leaf: leaf + 1, state.carry))
  jax.tree.map(np.testing.assert_array_equal, built.readout_of(state).data, by_step(built, *built.test_loop(state)))
  fresh = by_step(built, built.test_inner, state.meta_params)
  assert differ(built.readout_of(state).data, fresh)


def differ(left, right):
  return any(not np.allclose(a, b) for a, b in zip(*map(jax.tree.leaves, (left, right)), strict=True))


def by_step(built, inner, meta_params, **start):
  settings = {"num_tasks": 2, "num_steps": built.evaluation.num_steps, **start}
  apply_with_stats = built.network.apply_with_stats
  return step_statistics.collect(inner, meta_params, built.data.train, jax.random.key(0), apply_with_stats, **settings)


def test_per_step_statistics_begin_where_a_test_task_does(monkeypatch):
  monkeypatch.setattr(norm_stats, "PER_STEP_TASKS", 2)
  changes = {
    "network": {"warp": {"kind": "linear", "batch_norm": True}},
    "inner": {"learning_rate": 1.0},
    "meta_gradient": {"redrawn": "head"},
    "eval": {"norm_stats": "per_step"},
  }
  built = experiment.build(tiny.config("sinusoid", "maml", changes))
  state = loop.start(built)
  state = state._replace(meta_params=jax.tree.map(lambda leaf: leaf + 1, state.meta_params))
  found, loop_and_point = built.readout_of(state).data, built.test_loop(state)
  jax.tree.map(np.testing.assert_array_equal, found, by_step(built, *loop_and_point, start=built.start))
  assert differ(found, by_step(built, *loop_and_point))


def tiny_images(**data):
  config = recipes.lay_over(recipes.settings("mini_imagenet:fomaml"), IMAGES)
  config |= {"num_meta_steps": 2, "tasks_per_step": 2, "checkpoint_every": 1, "steps_per_dispatch": 1}
  return recipes.lay_over(config, {"data": data, "inner": {"num_steps": 1}})


def test_images_on_the_host_are_trained_on(places):
  built, other = (experiment.build(tiny_images(placement=where), **places) for where in ("host", "device"))
  holds_images = lambda sampler: any(leaf.dtype == np.uint8 for leaf in jax.tree.leaves(sampler))
  assert not holds_images(built.data.train) and holds_images(other.data.train)
  dispatch = loop.make_dispatch(built, 1, parallel.device_mesh(1))
  state, metrics = dispatch(loop.start(built), built.data.train)
  assert int(state.step) == 1 and metrics["finite"].all() and metrics["grad_norm/initial"].min() > 0


@pytest.mark.slow
def test_throughput_is_timed_on_a_tiny_set(places):
  found = throughput.measure(tiny_images(), repeats=2, **places)
  assert found["data_seconds"] > 0 and found["ready_seconds"] > 0
  assert found["data_share"] == pytest.approx(found["data_seconds"] / found["step_seconds"])
  assert found["tasks_per_second"] == pytest.approx(2 / found["step_seconds"])


def test_tasks_are_uint8_and_batches_are_not(places):
  spec = image_data.SETS["mini_imagenet"](**places, ways=2, shots=1, queries=1, size=16, augmentation=("crop", "flip"))
  task = jax.jit(spec.load().train)(jax.random.key(0))
  assert task.support[0].dtype == np.uint8
  for training in (True, False):
    inner = spec.loop(InnerLoop(None, None, 1), None, training)
    batches = jax.jit(lambda support, fn=inner.batch_fn: [fn(jax.random.key(1), support, i, (), ()) for i in (0, 1)])
    (x, _), (again, _) = batches(task.support)
    assert x.dtype == np.float32 and x.max() <= 1
    assert np.array_equal(x, again) != training  # augmented anew at every step, in training alone
  seen = spec.whole_task(jax.random.key(0), task, (), ())
  np.testing.assert_allclose(seen.query[0], np.asarray(task.query[0]) / 255, rtol=1e-6)
