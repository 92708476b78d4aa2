"""L2L: its row trains the rule alone, and the comparison says what the runs say."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from experiments import l2l
from tests.runner import tiny
from warpjax import rules
from warpjax.runner import experiment, loop, measure
from warpjax.runner.config import recipes
from warpjax.training import parallel

TINY = {
  "num_meta_steps": 2,
  "tasks_per_step": 2,
  "checkpoint_every": 2,
  "steps_per_dispatch": 2,
  "data": {"dim": 3},
  "inner": {"units": (2,), "num_steps": 4},
  "meta_gradient": {"length": 2},
  "optimizer": {"updates_per_step": 2},
  "eval": {"num_tasks": 3, "num_steps": 4},
}


@pytest.fixture(scope="module")
def trained():
  built = experiment.build(recipes.lay_over(recipes.settings("l2l:l2l_lstm"), TINY))
  start = loop.start(built)
  return built, start, *loop.make_dispatch(built, 2, parallel.device_mesh(1))(start, built.data.train)


def test_the_rule_is_trained_and_the_start_is_the_task_s(trained):
  built, before, state, metrics = trained
  assert int(state.step) == 2 and metrics["finite"].all()
  np.testing.assert_array_equal(state.meta_params.initial, np.zeros(3))
  moved = jax.tree.map(lambda a, b: np.any(a != b), before.meta_params.rule, state.meta_params.rule)
  assert all(jax.tree.leaves(moved))
  assert np.all(np.asarray(state.carry.number) == 0)  # every adaptation came to its end
  result, per_task = measure.measure(built, state)
  assert result["metric"] == "loss" and per_task.shape == (3, 5)


@pytest.mark.slow
def test_the_comparison_is_of_the_same_functions_and_paired(trained, monkeypatch, tmp_path):
  built, _, state, _ = trained
  monkeypatch.setattr(l2l, "BASELINES", {"sgd": (optax.sgd, {"learning_rate": (1e-6, 0.02, 1e6)})})
  runs, statement = l2l.compare(state.meta_params.rule, built, l2l.Setting({}, tuning=20, test=30))
  assert statement["hyperparameters"] == {"sgd": {"learning_rate": 0.02}} and statement["best_baseline"] == "sgd"
  learned, sgd = runs["l2l_lstm"].losses, runs["sgd"].losses
  assert learned.shape == sgd.shape == (30, 5)
  np.testing.assert_array_equal(learned[:, 0], sgd[:, 0])
  difference = learned[:, -1] - sgd[:, -1]
  assert statement["less_best_baseline"]["mean"] == pytest.approx(difference.mean())
  assert statement["less_best_baseline"]["ci95"] == pytest.approx(1.96 * difference.std(ddof=1) / np.sqrt(30))
  l2l.draw({"as trained": runs}, tmp_path / "comparison.png")
  assert (tmp_path / "comparison.png").stat().st_size > 1000


def test_a_baseline_is_the_optimizer_it_is_named_after(trained):
  """RMSprop with its rate given as a meta-learned parameter takes the steps of optax's own."""
  built, rate = trained[0], 0.05
  losses = l2l.evaluator(rules.learned(optax.rmsprop, learning_rate=rate), built)
  found = losses({"learning_rate": np.float32(rate)}, 1, 5)
  plain = l2l.evaluator(rules.from_optax(optax.rmsprop(rate)), built)((), 1, 5)
  np.testing.assert_allclose(found, plain, rtol=1e-5)


@pytest.mark.slow
def test_the_training_of_networks_on_images(tmp_path):
  small = {**TINY, "data": {"split": "folders", "ways": 2, "hidden": 3, "size": 7, "batch_size": 4}}
  settings = recipes.lay_over(recipes.settings("l2l:l2l_lstm_images"), small)
  places = {"data_dir": str(tiny.write_images(tmp_path / "raw")), "cache_dir": str(tmp_path / "cache")}
  built = experiment.build(settings, **places)
  state, metrics = loop.make_dispatch(built, 2, parallel.device_mesh(1))(loop.start(built), built.data.train)
  assert metrics["finite"].all() and state.meta_params.initial.shape == ((7 * 7 + 1) * 3 + (3 + 1) * 2,)
  wide = experiment.build(recipes.lay_over(settings, {"data": {"hidden": 5}}), **places)
  losses = l2l.evaluator(rules.sgd(0.1), wide)((), 0, 4)
  assert losses.shape == (4, 5) and np.all(np.abs(losses[:, 0] - np.log(2)) < 0.05)  # the start knows nothing
