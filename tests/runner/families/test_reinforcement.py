"""The configs of navigation and maze: every row builds, rows of each kind train, are evaluated and drawn."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import maze as maze_script
from experiments import navigation as navigation_script
from tests import toy
from warpjax import rl
from warpjax.runner import loop, run
from warpjax.runner.config import recipes, registry
from warpjax.runner.experiment import build
from warpjax.runner.plots import figures

NAVIGATION, MAZE = recipes.load("navigation"), recipes.load("maze")
ROWS = [(recipe, method) for recipe in (MAZE, NAVIGATION) for method in recipe.methods]
SHORT = {"num_meta_steps": 2, "steps_per_dispatch": 1, "checkpoint_every": 1}


def tiny(recipe, method, **overrides):
  config = recipe.settings(method)
  config |= {**SHORT, **overrides}
  if recipe is NAVIGATION:
    config |= {"tasks_per_step": 2, "task_chunk": 2}
    config["data"] |= {"episodes": 3, "test_episodes": 3, "horizon": 5}
    config["network"]["features"] = (4,)
    config["eval"] |= {"num_tasks": 3, "num_steps": 2}
  else:
    config["data"] |= {"size": 5, "num_steps": 6, "mazes_at_once": 3, "test_episodes": 2}
    config["network"]["width"] = 4
    config["inner"]["num_steps"] = 2
    config["eval"]["num_tasks"] = 3
  return config


@pytest.mark.parametrize(("recipe", "method"), ROWS, ids=lambda value: getattr(value, "name", value))
def test_every_row_builds(recipe, method):
  build(recipe.settings(method))


SLOW = [pytest.param(method, marks=pytest.mark.slow) for method in NAVIGATION.methods]


@pytest.mark.parametrize("method", SLOW)
def test_navigation_trains_is_evaluated_and_drawn(method, tmp_path):
  result = run.train_and_evaluate(tiny(NAVIGATION, method), tmp_path)
  assert result["metric"] == "return" and len(result["per_step"]) == 3
  assert -5 < result["mean"] < 0 and result["num_diverged"] == 0
  if method == "maml":
    found = navigation_script.report(tmp_path)
    assert np.shape(found["returns"]) == (navigation_script.GOALS, 3) and found["environment_steps_per_second"] > 0
    assert (tmp_path / "trajectories.png").stat().st_size > 10_000


def test_the_later_learning_rate_is_that_of_the_steps_after_the_first():
  config = tiny(NAVIGATION, "maml")
  transform = build(config).test_inner.rule.transform(())
  state, steps = transform.init(np.zeros((), np.float32)), []
  for _ in range(3):
    update, state = transform.update(np.ones((), np.float32), state)
    steps.append(float(update))
  assert steps == [-0.5, -0.25, -0.25]


@pytest.mark.parametrize("method", MAZE.methods)
def test_the_agent_and_its_warp_learn_by_one_adam(method):
  rule = build(tiny(MAZE, method)).inner.rule.transform(())
  params, grads = np.ones(3, np.float32), np.array([1.0, 1e-4, 1e-6], np.float32)
  mine, theirs = rule.init(params), (adam := optax.adam(1e-3)).init(params)
  for scale in (1.0, -0.5):
    found, mine = rule.update(scale * grads, mine, params)
    expected, theirs = adam.update(scale * grads, theirs, params)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_band_of_few_seeds_is_students():
  rewards = np.array([[1.0, 3.0], [2.0, 3.0], [6.0, 3.0]])
  mean, ci95 = maze_script.band(rewards)
  np.testing.assert_array_equal(mean, [3, 3])
  # 4.303 is the 97.5% point of t with two degrees of freedom.
  np.testing.assert_allclose(ci95, [4.303 * np.sqrt(7 / 3), 0], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", MAZE.methods)
def test_the_maze_trains_and_resumes(method, tmp_path):
  experiment = build(tiny(MAZE, method))
  whole = loop.train(loop.Programs(experiment), tmp_path / "whole").state
  loop.train(loop.Programs(build(tiny(MAZE, method, num_meta_steps=1))), tmp_path / "parts")
  parts = loop.train(loop.Programs(experiment), tmp_path / "parts", say=lambda message: None).state
  jax.tree.map(np.testing.assert_array_equal, whole.meta_params, parts.meta_params)
  jax.tree.map(np.testing.assert_array_equal, whole.carry, parts.carry)
  start = loop.start(experiment).meta_params
  for block in ("initial", "shared"):
    pairs = zip(*map(jax.tree.leaves, (getattr(whole.meta_params, block), getattr(start, block))), strict=True)
    assert all(np.any(a != b) for a, b in pairs) or block == "initial"
  assert bool(jax.tree.leaves(start.shared)) == (method == "warp_rnn")


@pytest.mark.slow
def test_the_maze_by_seeds_its_curves_and_their_difference(tmp_path):
  result = run.sweep(tiny(MAZE, "rnn"), tmp_path / "rnn", [0, 1])
  assert result["metric"] == "return" and math.isfinite(result["mean"]) and result["seeds"] == [0, 1]
  lives = maze_script.curves(tmp_path / "rnn")
  assert set(lives) == {"seed_0", "seed_1"}
  np.testing.assert_array_equal(lives["seed_0"][0], [2, 4])
  found = maze_script.difference(lives, lives, last=2)
  assert found["mean"] == 0 and found["by_seed"] == [0, 0] and json.dumps(found)
  maze_script.draw({"a": lives, "b": lives}, tmp_path / "curves.png")
  assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_a_path_has_its_start_and_its_arrival():
  """Of a point that sees its goal, whose last position no observation shows."""
  goal = np.array([0.25, -0.1], np.float32)
  seeing = rl.memoryless(lambda p, shared, seen: (10 * (goal - seen), jnp.full_like(seen, -20.0)), rl.gaussian())
  task = rl.navigation.Navigation(jnp.asarray(goal), jnp.zeros(2))
  env = rl.navigation.point_navigation(varying_start=True)
  play = lambda key: rl.rollout(env, seeing, (), (), task, key, num_steps=12, num_episodes=5)
  episodes = jax.device_get(toy.jit(play)(toy.key()))
  positions, present = navigation_script.paths(episodes.observations, episodes.actions, episodes.mask)
  assert positions.shape == (13, 5, 2) and present.shape == (13, 5)
  np.testing.assert_array_equal(positions[0], episodes.observations[0])
  np.testing.assert_allclose(positions[:-1][episodes.mask > 0], episodes.observations[episodes.mask > 0], atol=1e-6)
  for episode in range(5):
    walk = positions[present[:, episode] > 0, episode]
    assert len(walk) == episodes.mask[:, episode].sum() + 1
    np.testing.assert_allclose(walk[-1], goal, atol=0.01)
    assert np.abs(walk[-2] - goal).max() > 0.01


@pytest.mark.parametrize(
  ("recipe", "first", "second"),
  [(NAVIGATION, "maml", {"estimator": "dice"}), (MAZE, "rnn", {"discount": 0.99, "trace": 0.9})],
  ids=("navigation", "maze"),
)
def test_methods_that_rate_actions_otherwise_have_the_same_test_tasks(recipe, first, second, tmp_path):
  other = {"goal_size": 0.02} if recipe is NAVIGATION else {"size": 9}
  result = {"experiment": "", "metric": "return", "data": {}}
  for name, overrides in (("a", {}), ("b", second), ("c", other)):
    config = recipes.lay_over(recipe.settings(first), {"data": overrides})
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text(json.dumps(config))
    np.save(tmp_path / name / "per_task.npy", np.array([[-3.0, -2.0], [-4.0, -1.0]]) + ord(name))
  directories, results = [tmp_path / name for name in "abc"], [{**result, "method": name} for name in "abc"]
  same, other = figures.paired(directories, results)
  assert same == "b - a: +1.0000 +/- 0.0000 (return, paired over 2 test tasks)"
  assert other == "c - a: not paired, the test tasks differ"


def test_refusals():
  for key, value, message in (
    ("data", {"start": "centre"}, "config.data.start"),
    ("data", {"estimator": "reinforce"}, "config.data.estimator"),
    ("meta_gradient", {"max_kl": 0.0}, "max_kl"),
    ("inner", {"later_learning_rate": -1.0}, "later_learning_rate"),
    ("meta_gradient", {"name": "ppo", "max_kl": None, "clip": 0.0}, "clip must be above 0"),
    ("meta_gradient", {"name": "ppo", "max_kl": None, "epochs": 0}, "epochs must be an integer of at least 1"),
  ):
    config = tiny(NAVIGATION, "maml")
    config[key] |= value
    with pytest.raises(ValueError, match=message):
      build(config)
  with pytest.raises(ValueError, match=r"config\.optimizer\.schedule must be 'constant' for ppo"):
    config = tiny(NAVIGATION, "maml_ppo")
    config["optimizer"]["schedule"] = "linear"
    build(config)
  with pytest.raises(ValueError, match=r"config\.tasks_per_step must be 1 for online, which is one life; got 2"):
    build(tiny(MAZE, "rnn", tasks_per_step=2))


@pytest.mark.parametrize(("method", "odd"), [("random", True), ("maml", False)])
def test_the_policy_that_nobody_trained_has_tanh_units(method, odd):
  network = registry.network(NAVIGATION.settings(method), num_outputs=2)
  seen = jax.random.normal(jax.random.key(1), (20, 2))
  params, shared = network.init(jax.random.key(0), seen)
  there, opposite = (network.apply(params, shared, sign * seen)[0] for sign in (1, -1))
  assert np.allclose(there, -opposite, atol=1e-5) == odd  # without biases a network of odd units is odd
