"""What a run says of itself, what it compiles, and the two scripts that look at a config without training it."""

from __future__ import annotations

import re

import jax
import pytest

from tests.runner import tiny
from warpjax.runner import experiment, fitting, loop, workdir
from warpjax.runner.commands import check
from warpjax.runner.components import norm_stats, outer_step
from warpjax.runner.config import recipes

CONFIG = tiny.config("sinusoid", "maml")


@pytest.fixture
def compiled():
  """The names of the programs compiled so far."""
  seen = []
  listener = lambda name, seconds, **facts: seen.append(name) if name.endswith("backend_compile_duration") else None
  jax.monitoring.register_event_duration_secs_listener(listener)
  yield seen
  jax.monitoring.unregister_event_duration_listener(listener)


def test_nothing_compiles_after_the_first_dispatch_and_the_cost_is_said(tmp_path, monkeypatch, compiled):
  built, counts, said = experiment.build(CONFIG), [], []
  append = workdir.append_metrics
  monkeypatch.setattr(workdir, "append_metrics", lambda *args: (counts.append(len(compiled)), append(*args)))
  loop.train(loop.Programs(built), tmp_path, say=said.append)
  assert len(counts) == 3 and counts[0] > 0
  assert counts == [counts[0]] * 3
  (cost,) = said
  assert re.search(r"A meta-step of sinusoid:maml.*GFLOP, peak \d+\.\d MiB, of it temporaries \d+\.\d MiB", cost)


def test_validation_under_statistics_of_what_was_trained_compiles_once(tmp_path, monkeypatch, compiled):
  monkeypatch.setattr(norm_stats, "PER_STEP_TASKS", 2)
  network = {"network": {"warp": {"kind": "linear", "batch_norm": True}}}
  config = tiny.config("sinusoid", "maml", network, {"eval": {"norm_stats": "per_step", "val_tasks": 2}})
  built, counts, measured = experiment.build(config), [], []
  append = workdir.append_metrics

  def spy(directory, rows):
    counts.append(len(compiled))
    measured.extend(row["mse"] for row in rows if row["split"] == "val")
    append(directory, rows)

  monkeypatch.setattr(workdir, "append_metrics", spy)
  loop.train(loop.Programs(built), tmp_path, say=lambda line: None)
  train, val, *later = counts
  assert val > train > 0 and later == [val] * 4  # of three dispatches, each validated
  assert len(set(measured)) == 3  # of each checkpoint's own parameters and statistics


def test_meta_parameters_that_do_not_move_are_named(tmp_path):
  built, said = experiment.build(CONFIG), []

  def held(meta_params, task, key):
    value, grads = built.outer_step.meta_grad(meta_params, task, key)
    grads.initial["head"]["bias"] = 0 * grads.initial["head"]["bias"]
    return value, grads

  loop.train(loop.Programs(built._replace(outer_step=outer_step.resolve(held, None))), tmp_path, say=said.append)
  (warning,) = [line for line in said if line.startswith("Warning")]
  assert "initial/head/bias did not move in 2 meta-steps" in warning and "dense" not in warning


@pytest.mark.slow
def test_check_of_a_config():
  report = check.check(experiment.build(CONFIG), num_tasks=2)
  assert report["finite differences"].status == "passed" and report["order"].status == "passed"
  assert report["held out"].status == "passed"


def test_check_says_what_it_cannot_check():
  offline = experiment.build(tiny.config("sinusoid", "warp_leap_offline"))
  report = check.check(offline, num_tasks=2)
  assert report["finite differences"].status == "passed"
  for name in check.ESTIMATOR:
    assert report[name].status == "skipped" and "warp_offline takes a step" in report[name].finding


@pytest.mark.slow
def test_kinks_near_the_initial_parameters_are_no_fault():
  """Biases of zero put ReLUs within 1e-5 of their kinks, where differences over longer steps are off by a tenth."""
  assert (
    check.check(experiment.build(recipes.settings("sinusoid:maml")), num_tasks=2)["finite differences"].status
    == "passed"
  )


STEPS_OF_THEIR_OWN = [
  pytest.param({"name": "truncated_unroll", "length": 2}, 4, id="truncated"),
  pytest.param(
    {"name": "unrolled", "first_order_epochs": 1, "steps_per_epoch": 2}, 5, id="in phases", marks=pytest.mark.slow
  ),
  pytest.param({"name": "evolution_strategies", "window": 2}, 4, id="persistent", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("table", "most"), STEPS_OF_THEIR_OWN)
def test_steps_that_are_more_than_a_meta_gradient_are_checked_and_fitted(monkeypatch, table, most):
  monkeypatch.setattr(fitting, "POLICIES", ())
  config = {**CONFIG, "meta_gradient": table, "inner": {**CONFIG["inner"], "num_steps": 4}}
  built = experiment.build(config)
  assert check.check(built, num_tasks=2)["zero leaves"].status == "passed"
  assert list(fitting.table(config, built, gib=1.0, at_most=5).values()) == [most]


@pytest.mark.slow
def test_the_largest_number_of_inner_steps_by_memory_policy(monkeypatch):
  monkeypatch.setattr(fitting, "POLICIES", (("reverse", "save_all"),))
  built = experiment.build(CONFIG)
  found = fitting.table(CONFIG, built, gib=1e-4, at_most=4096)
  reverse, own = found.values()
  assert 1 < reverse < own < 4096  # the config's own is mixed mode, which stores no activations


def test_which_policies_take_a_number_of_inner_steps(monkeypatch):
  monkeypatch.setattr(fitting, "POLICIES", (("mixed", "recompute"), ("mixed", "treeverse")))
  line, snapshots = fitting.predicted(experiment.build(CONFIG), 4096).values()
  assert 0 < snapshots < line / 4
