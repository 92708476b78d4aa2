"""`config.eval.norm_stats`: each choice is the main number when named, and stands beside it when not."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from experiments import evaluate, experiment, loop, measure, multi_shot, protocol, run
from tests.experiments import tiny
from warpjax.types import Task

CHOICES = ("transductive", "support", "support_plus_one", "running")


def measured(config, **places):
  built = experiment.build(config, **places)
  return measure.measure(built, loop.start(built))


def sines(name, **network):
  return tiny.config(
    "sinusoid", "maml", {"eval": {"norm_stats": name}, "network": {"warp": network} if network else {}}
  )


def test_every_choice_is_a_number_of_its_own(tmp_path):
  places = {"data_dir": str(tiny.write_images(tmp_path / "raw")), "cache_dir": str(tmp_path / "cache")}
  config = tiny.config("omniglot", "maml", {"eval": {"norm_stats": "running", "num_tasks": 6, "num_steps": 2}})
  result = run.train_and_evaluate(config, tmp_path / "run", **places)
  assert result["norm_stats"] == "running"
  assert [name for name in CHOICES if name in result] == ["transductive", "support", "support_plus_one"]
  assert all(0 <= result[name]["mean"] <= 1 for name in CHOICES[:-1])
  again = evaluate.evaluate(tmp_path / "run", **places)
  assert {key: again[key] for key in ("norm_stats", "mean", "support")} == {
    key: result[key] for key in ("norm_stats", "mean", "support")
  }
  assert_combined(result, np.load(tmp_path / "run" / "per_task.npy"))


def assert_combined(result, per_task):
  """With another seed, whose numbers are higher by 0.1, every choice is there, and is printed."""
  higher = {name: {**result[name], "mean": result[name]["mean"] + 0.1} for name in CHOICES[:-1]}
  combined = measure.combine([result, {**result, "seed": 1, **higher}], [per_task, per_task])
  for name in CHOICES[:-1]:
    # Student's t with one degree of freedom, 12.706, times half the difference of two numbers.
    expected = {"mean": result[name]["mean"] + 0.05, "ci95": 12.7062 * 0.05, "num_diverged": 0}
    assert combined[name] == pytest.approx(expected, rel=1e-4)
    assert f"under {name.replace('_', ' ')} " in protocol.text(combined)
  assert combined["norm_stats"] == "running" and combined["num_diverged"] == 0 and combined["seeds"] == [0, 1]


def test_the_named_choice_and_those_beside_it_agree():
  results = {name: measured(sines(name, kind="linear", batch_norm=True))[0] for name in ("transductive", "running")}
  for name, other in (("transductive", "running"), ("running", "transductive")):
    assert results[name]["norm_stats"] == name and name not in results[name]
    assert results[name]["mean"] == pytest.approx(results[other][name]["mean"], rel=1e-5)
    assert results[name]["support"]["mean"] == pytest.approx(results[other]["support"]["mean"], rel=1e-5)
  assert len({round(results["running"][name]["mean"], 3) for name in ("transductive", "support")}) == 2


def test_a_sweep_counts_the_tasks_that_diverged_under_each_choice():
  result = {"metric": "mse", "seed": 0, "num_diverged": 1, "wall_seconds": 1.0}
  result |= {"mean": 2.0, "per_step": [2.0], "selected": {"step": 3}}
  seeds = [
    result | {"running": {"mean": 1.0, "ci95": 0.1, "num_diverged": 2}, "support": {"mean": 9.0}},
    result | {"running": {"mean": 2.0, "ci95": 0.1, "num_diverged": 0}, "support": {"mean": None, "num_diverged": 3}},
    result | {"running": {"mean": 3.0, "ci95": 0.1, "num_diverged": 1}, "transductive": {"mean": 1.0}},
  ]
  combined = measure.combine(seeds, [np.ones((2, 1))] * 3)
  assert combined["running"] == pytest.approx({"mean": 2.0, "ci95": 2.484, "num_diverged": 3}, abs=1e-3)
  assert combined["num_diverged"] == 3 and not {"transductive", "support", "selected"} & set(combined)
  of_two = measure.combine(seeds[:2], [np.ones((2, 1))] * 2)
  assert np.isnan(of_two["support"]["mean"]) and of_two["support"]["num_diverged"] == 3
  lines = [" ".join(line.split()) for line in protocol.text(combined).splitlines()]
  assert "under running 2.0000 +/- 2.4841" in lines and "diverged 3 test tasks of all seeds, left out" in lines


def test_without_batch_norm_the_choice_is_none():
  found, expected = (measured(sines(name)) for name in ("running", "transductive"))
  np.testing.assert_array_equal(found[1], expected[1])
  assert found[0]["norm_stats"] == expected[0]["norm_stats"] == "none"
  assert not set(CHOICES) & set(found[0])


def test_a_choice_that_there_is_not_is_refused():
  with pytest.raises(ValueError, match=r"config\.eval\.norm_stats must be one of 'transductive', .*got 'runing'"):
    experiment.build(sines("runing"))
  allowed = r"must be one of 'transductive', 'support', 'running', 'per_step' here; got 'support_plus_one'"
  with pytest.raises(ValueError, match=allowed):
    experiment.build(sines("support_plus_one"))


def test_multi_shot_judges_one_query_set_under_every_choice():
  spec = multi_shot.omniglot(None, None, ways=2, held_out=1, batch_size=2)
  assert spec.norm_stats == ("transductive", "support", "running")
  images = jax.numpy.asarray(np.random.default_rng(0).integers(0, 256, (2, 4, 8, 8, 1)), jax.numpy.uint8)
  task = Task((images[0], jax.numpy.arange(4)), (images[1], jax.numpy.arange(4)))
  network = multi_shot.multi_headed(2, alphabets=1, width=2)
  inner = spec.loop(experiment.builders.inner(INNER, experiment.builders.loss("accuracy", network)), network, False)
  seen = spec.whole_task(jax.random.key(1), task, (), ())
  np.testing.assert_array_equal(seen.query[0], inner.query_batch_fn(jax.random.key(1), task, (), ())[0])
  assert seen.support[0].dtype == seen.query[0].dtype and seen.support[0].shape == images[0].shape
  np.testing.assert_array_equal(seen.support[1], task.support[1])


INNER = {"rule": "sgd", "learning_rate": 0.1, "num_steps": 1}
