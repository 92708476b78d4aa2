"""WarpGrad's configs: every row builds, the offline one trains and resumes, and settings that disagree are refused."""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import forgetting
from experiments import surfaces as surfaces_experiment
from tests import toy
from warpjax.runner import loop
from warpjax.runner.components import meta_gradients, warp
from warpjax.runner.config import recipes, registry
from warpjax.runner.experiment import build
from warpjax.runner.families import multi_shot
from warpjax.tasks import multi_shot as alphabets
from warpjax.training import parallel

ROWS = [f"{file}:{method}" for file in ("continual", "surfaces") for method in recipes.load(file).methods]
ROWS += [f"sinusoid:{method}" for method in recipes.load("sinusoid").methods if method.startswith(("warp", "t_net"))]


@pytest.mark.parametrize("row", ROWS)
def test_every_row_builds(row):
  build(recipes.settings(row))


def tiny(method="warp_leap_offline", **overrides):
  config = recipes.settings(f"sinusoid:{method}")
  config |= {"num_meta_steps": 2, "steps_per_dispatch": 1, "checkpoint_every": 1, "tasks_per_step": 2}
  config["inner"]["num_steps"] = 2
  config["network"]["features"] = (4,)
  return {**config, **overrides}


@pytest.mark.parametrize("method", ["warp_leap_offline", pytest.param("warp_reptile", marks=pytest.mark.slow)])
def test_it_trains_and_resumes(method, tmp_path):
  experiment = build(tiny(method))
  whole = loop.train(loop.Programs(experiment), tmp_path / "whole").state
  short = build(tiny(method, num_meta_steps=1))
  loop.train(loop.Programs(short), tmp_path / "parts")
  parts = loop.train(loop.Programs(experiment), tmp_path / "parts", say=lambda message: None).state
  jax.tree.map(np.testing.assert_array_equal, whole.meta_params, parts.meta_params)
  start = loop.start(experiment).meta_params
  assert any(
    np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (whole.meta_params.shared, start.shared)), strict=True)
  )


def test_a_schedule_is_refused_offline():
  with pytest.raises(ValueError, match="schedule"):
    build(tiny(optimizer={"name": "sgd", "learning_rate": 0.1, "schedule": "linear"}))


def test_sub_tasks_of_two_lengths_are_refused():
  config = recipes.settings("continual:warp")
  config["meta_gradient"]["seen_every"] = 10
  with pytest.raises(ValueError, match="seen_every"):
    build(config)


def test_an_unknown_warp_setting_is_refused():
  config = tiny()
  config["network"]["warp"] = {"kind": "linear", "residul": True}
  with pytest.raises(ValueError, match="did you mean 'residual'"):
    build(config)


def test_no_warp_layers_for_an_empty_table():
  assert warp.spec({}) is None
  assert warp.spec({"kind": "linear", "activation": "tanh"}).activation is not None


def test_forgetting_is_averaged_over_what_no_run_diverged_on():
  fine, broken = np.arange(12.0).reshape(3, 2, 2), np.ones((3, 2, 2))
  broken[1, 0, 1] = np.nan
  (first, second), left_out = forgetting.means([fine, broken])
  np.testing.assert_array_equal(first, [[4, 5], [6, 7]])  # of the first and the last
  np.testing.assert_array_equal(second, np.ones((2, 2)))
  assert left_out == 1
  with pytest.raises(ValueError, match="one of them diverged on each of 3 sequences"):
    forgetting.means([fine, np.full((3, 2, 2), np.inf)])


def test_forgetting_compares_runs_on_the_same_waves():
  config = lambda **data: {"data": {"name": "continual", "subtasks": 5, "steps_each": 20, **data}}
  paths = [pathlib.Path("a"), pathlib.Path("b")]
  assert forgetting._shared_data(paths, [config(train_subtasks=1), config(train_subtasks=0)])["steps_each"] == 20
  with pytest.raises(ValueError, match="tested on the same waves"):
    forgetting._shared_data(paths, [config(), config(steps_each=10)])
  with pytest.raises(ValueError, match="runs of configs/continual.py; b is not"):
    forgetting._shared_data(paths, [config(), None])


def test_forgetting_is_the_ratio_of_later_losses_to_that_after_its_own_steps():
  curves = np.ones((7, 3))
  curves[2, 0], curves[4, 0], curves[-1, 0] = 0.1, 0.4, 10.0
  found = forgetting.summary(curves, 2)
  assert found["after_own_steps"] == [0.1, 1.0]
  assert found["after_the_switch"] == [0.4, 1.0]
  assert found["at_the_end"] == [10.0, 1.0]
  assert found["ratio_after_the_switch"] == pytest.approx(2.0)
  assert found["ratio_at_the_end"] == pytest.approx(10.0)


def test_the_statement_counts_lower_and_higher_ends():
  surface = jax.tree.map(lambda leaf: np.asarray(leaf)[None], surfaces_experiment.surfaces.PEAKS)
  low, high = np.array([0.2283, -1.6255]), np.array([-0.0093, 1.5814])  # the deepest and highest points of `peaks`
  path = lambda *ends: np.stack([np.stack(ends)])[None]
  found = surfaces_experiment.statement(
    surfaces_experiment.Descents(surface, None, path(low, high, low), path(high, low, low))
  )
  assert (found["starts"], found["lower"], found["higher"]) == (3, 1, 1)


def test_numbered_labels_name_the_alphabet():
  images = np.zeros((3, 2, 4, 8, 8, 1), np.uint8) + 10 * np.arange(3, dtype=np.uint8)[:, None, None, None, None, None]
  sampler = alphabets.sampler(images, held_out=1)
  for seed in range(5):
    task = multi_shot._numbered(sampler, 3, 2, jax.random.key(seed))
    np.testing.assert_array_equal(task.support[0][:, 0, 0, 0] // 10, task.support[1] // 2)
    np.testing.assert_array_equal(task.query[0][:, 0, 0, 0] // 10, task.query[1] // 2)
    assert set(np.asarray(task.support[1]) % 2) == {0, 1}


def test_a_head_that_each_task_draws_stays_as_it_began():
  config = tiny("leap")
  config["meta_gradient"]["redrawn"] = "head"
  experiment = build(config)
  start = loop.start(experiment)
  state, _ = loop.make_dispatch(experiment, 2, parallel.device_mesh(1))(start, experiment.data.train)
  before, after = start.meta_params.initial, state.meta_params.initial
  jax.tree.map(np.testing.assert_array_equal, before["head"], after["head"])
  assert all(np.any(before[name]["kernel"] != after[name]["kernel"]) for name in before.keys() - {"head"})


def test_another_head_has_the_entries_of_the_first_in_another_order():
  head = {"kernel": np.arange(12.0).reshape(3, 4), "bias": np.arange(4.0)}
  drawn = meta_gradients.another_head(jax.random.key(0), {"head": head, "body": np.ones(2)})
  assert drawn.keys() == {"head"} and drawn["head"].keys() == head.keys()
  for name, leaf in head.items():
    assert drawn["head"][name].shape == leaf.shape and np.any(drawn["head"][name] != leaf)
    np.testing.assert_array_equal(np.sort(drawn["head"][name].ravel()), leaf.ravel())
  with pytest.raises(ValueError, match="redrawn needs a head that adapts; what adapts is body"):
    meta_gradients.another_head(jax.random.key(0), {"body": np.ones(2)})


def test_what_is_redrawn_is_one_of_three():
  config = tiny("leap")
  allowed = r"config.meta_gradient.redrawn must be one of 'nothing', 'head', 'context'; got 'body'"
  with pytest.raises(ValueError, match=allowed):
    build({**config, "meta_gradient": {"name": "leap", "redrawn": "body"}})
  with pytest.raises(ValueError, match=r"redrown is not a setting; did you mean 'redrawn'"):
    build({**config, "meta_gradient": {"name": "leap", "redrown": "head"}})


@pytest.mark.parametrize("name", [pytest.param("warpgrad_omniglot", marks=pytest.mark.slow), "multi_headed_omniglot"])
def test_a_config_can_have_biases_of_zero(name):
  warp = {} if name.startswith("multi") else {"warp": {"kind": "conv3x3"}}
  table = {"name": name, "width": 8, "bias_init": "zeros", **warp}
  network = registry.network({"network": table}, num_outputs=20)
  leaves = jax.tree.leaves_with_path(toy.jit(network.init)(jax.random.key(0), jnp.ones((1, 28, 28, 1))))
  biases = [leaf for path, leaf in leaves if path[-1].key == "bias"]
  assert len(biases) >= 9 and not np.any([np.any(bias) for bias in biases])
