"""Validation chooses the checkpoint of the result, and the card says what was measured."""

from __future__ import annotations

import numpy as np
import pytest

from configs import mini_imagenet
from experiments import evaluate, experiment, image_data, loop, protocol, run, selection, workdir
from tests.experiments import tiny
from tests.tasks import image_files

CONFIG = {
  "num_meta_steps": 4,
  "tasks_per_step": 1,
  "checkpoint_every": 1,
  "steps_per_dispatch": 1,
  "data": {"ways": 2, "shots": 1, "queries": 2, "train_queries": 2, "size": 16},
  "network": {"width": 2},
  "inner": {"num_steps": 1},
  "eval": {"num_tasks": 4, "num_steps": 1, "val_tasks": 4},
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
  root = tmp_path_factory.mktemp("selection")
  return {"data_dir": str(image_files.write(root / "raw", count=6, size=16)), "cache_dir": str(root / "cache")}


def config(**overrides):
  found = mini_imagenet.get_config("fomaml")
  for values in (CONFIG, overrides):
    found.update(values)
  return found.to_dict()


def params_at(monkeypatch_measure, values):
  """Makes validation read its numbers off a list."""
  numbers = iter(values)
  return lambda experiment: lambda state: {"accuracy": next(numbers), "ci95": 0.1, "num_tasks": 4}


@pytest.fixture(scope="module")
def chosen(places, tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(selection, "_measure", params_at(selection, [0.3, 0.6, 0.5, 0.6]))
    path = tmp_path_factory.mktemp("runs") / "chosen"
    return path, run.train_and_evaluate(config(), path, **places)


def test_the_result_is_of_the_best_validation(chosen, places):
  path, result = chosen
  assert result["selected"] == {"by": "validation", "step": 2, "accuracy": 0.6, "ci95": 0.1, "num_tasks": 4}
  assert result["num_meta_steps"] == 4
  assert [row["accuracy"] for row in selection.rows(path)] == [0.3, 0.6, 0.5, 0.6]
  built = experiment.build(config(), **places)
  assert int(loop.restore(built, path).step) == 2
  again = evaluate.evaluate(path, **places)
  assert again["per_step"] == result["per_step"]


def test_what_was_kept_of_steps_to_come_is_removed(chosen, places):
  path, _ = chosen
  built = experiment.build(config(), **places)
  workdir.rewind_metrics(path, 1)
  with selection.judge(built, path, 1):
    pass
  assert selection.best(built, path, loop.start(built))[1]["step"] == 1


def test_validation_measures_the_validation_split(places, monkeypatch):
  built = experiment.build(config(), **places)
  state = loop.start(built)
  found = selection._measure(built)(state)
  assert 0 <= found["accuracy"] <= 1 and found["num_tasks"] == 4
  seen = []
  real = selection.evaluation.evaluator

  def spy(*args, **kw):
    run = real(*args, **kw)
    return lambda meta_params, sampler, key, n: (seen.append(sampler), run(meta_params, sampler, key, n))[1]

  monkeypatch.setattr(selection.evaluation, "evaluator", spy)
  selection._measure(built)(state)
  assert seen == [built.data.val]


def test_validation_needs_validation_tasks():
  with pytest.raises(ValueError, match=r"config\.eval\.val_tasks must be 0 here; got 3"):
    experiment.build(tiny.config("sinusoid", "maml", {"eval": {"val_tasks": 3}}))


def test_the_card_says_what_was_measured(chosen):
  _, result = chosen
  card = result["protocol"]
  assert (card["ways"], card["shots"], card["queries"], card["train_queries"]) == (2, 1, 2, 2)
  assert (card["inner_steps_train"], card["inner_steps_test"], card["inner_learning_rate"]) == (1, 1, 0.05)
  assert card["norm_stats"] == "transductive" and card["transductive"] and card["selection"] == "validation"
  assert card["split_sha256"] == result["data"]["split_sha256"] and "62 of 64 train classes" in card["partial"]
  assert (card["test_tasks"], card["val_tasks"], card["seeds"]) == (4, 4, [0])
  lines = protocol.text(result).splitlines()
  assert lines[0].startswith("result") and "95% over tasks" in lines[0]
  for word in ("under support", "ways", "learning rate on", "split sha256", "partial", "seeds"):
    assert any(line.startswith(word) for line in lines)


def test_per_step_statistics_are_a_choice_of_their_own(places):
  results = {}
  for name in ("transductive", "per_step"):
    built = experiment.build(config(eval={"norm_stats": name, "val_tasks": 0, "num_tasks": 8}), **places)
    results[name] = run.measure.measure(built, loop.start(built))[0]
  assert results["per_step"]["norm_stats"] == "per_step" and "transductive" in results["per_step"]
  assert results["per_step"]["transductive"]["mean"] == pytest.approx(results["transductive"]["mean"])


def test_tasks_are_uint8_and_batches_are_not(places):
  spec = image_data.SETS["mini_imagenet"](**places, ways=2, shots=1, queries=1, size=16, augmentation=("crop", "flip"))
  import jax

  from warpjax.types import InnerLoop

  task = spec.load().train(jax.random.key(0))
  assert task.support[0].dtype == np.uint8
  for training in (True, False):
    inner = spec.loop(InnerLoop(None, None, 1), None, training)
    x, _ = inner.batch_fn(jax.random.key(1), task.support, 0, None, None)
    again, _ = inner.batch_fn(jax.random.key(1), task.support, 1, None, None)
    assert x.dtype == np.float32 and x.max() <= 1
    assert np.array_equal(x, again) != training  # augmented anew at every step, in training alone
  seen = spec.whole_task(jax.random.key(0), task, None, None)
  np.testing.assert_allclose(seen.query[0], np.asarray(task.query[0]) / 255, rtol=1e-6)
