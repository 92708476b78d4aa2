"""Every row of multi-shot Omniglot, continual sines, surfaces and text builds, trains two steps, is evaluated."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from PIL import Image

from tests.runner import tiny as tiny_configs
from warpjax.runner import experiment, loop, measure
from warpjax.runner.config import recipes, settings
from warpjax.runner.reporting import protocol
from warpjax.training import parallel

SHARED = {"num_meta_steps": 2, "tasks_per_step": 2, "checkpoint_every": 2, "steps_per_dispatch": 2}
SIZES = {
  "multi_shot_omniglot": {
    "data": {"alphabets": 2, "ways": 2, "held_out": 2, "batch_size": 4},
    "network": {"width": 2, "alphabets": 2},
    "inner": {"num_steps": 3},
    "eval": {"num_tasks": 2, "num_steps": 2},
  },
  "continual": {
    "data": {"points": 4, "steps_each": 2},
    "network": {"features": (4,)},
    "inner": {"num_steps": 10},
    "eval": {"num_tasks": 2, "num_steps": 10},
  },
  "surfaces": {"inner": {"num_steps": 3}, "eval": {"num_tasks": 2, "num_steps": 3}},
  "ttt": {
    "data": {"num_chunks": 3, "chunk": 4, "context": 2},
    "network": {"num_blocks": 2, "width": 4, "num_heads": 1, "hidden": 4, "window": 2},
    "inner": {"num_steps": 3},
    "eval": {"num_tasks": 2, "num_steps": 2},
  },
}
QUICK = (("continual", "warp"),)


def tiny(file, method):
  """The row at a size of seconds; of the settings above, those that it can take."""
  config = recipes.settings(f"{file}:{method}")
  there, steps = {setting.path for setting in settings.reference(config)}, config["inner"]["num_steps"]
  for table, sizes in SIZES[file].items():
    config[table] |= {key: value for key, value in sizes.items() if f"{table}.{key}" in there}
  if file == "continual" and steps < 100:  # maml meets one wave at a time in training
    config["inner"]["num_steps"] = 2
  if config["meta_gradient"].get("seen_every"):
    config["meta_gradient"]["seen_every"] = config["data"]["steps_each"]
  return config | SHARED


ALL = [(file, method) for file in SIZES for method in recipes.load(file).methods]
ROWS = tiny_configs.distinct({row: tiny(*row) for row in ALL})


@pytest.fixture(scope="module")
def alphabets(tmp_path_factory):
  """Fourteen alphabets of two characters, six drawings each, in the tree of the upstream archives."""
  root, rng = tmp_path_factory.mktemp("alphabets"), np.random.default_rng(0)
  for alphabet in range(14):
    for character in (1, 2):
      folder = root / "raw" / "images_background" / f"Made_{alphabet:02d}" / f"character{character:02d}"
      folder.mkdir(parents=True)
      for drawing in range(6):
        pixels = (255 * (rng.random((28, 28)) > 0.3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{alphabet:02d}{character:02d}_{drawing + 1:02d}.png")
  (root / "raw" / "images_evaluation").mkdir()
  return {"data_dir": str(root / "raw"), "cache_dir": str(root / "cache")}


@pytest.fixture(scope="module")
def book(tmp_path_factory):
  file = tmp_path_factory.mktemp("book") / "made.txt"
  file.write_text("".join(f"Verse {number}: and the {number % 7}th day was good.\n" for number in range(60)))
  return file


def row(file, method):
  return pytest.param(file, method, marks=[] if (file, method) in QUICK else [pytest.mark.slow], id=f"{file}-{method}")


@pytest.mark.parametrize(("file", "method"), [row(*names) for names in ROWS])
def test_row_trains_two_steps(file, method, alphabets, book):
  places = {"multi_shot_omniglot": alphabets, "ttt": {"data_dir": str(book)}}
  built = experiment.build(tiny(file, method), **places.get(file, {}))
  count = min(2, built.run.num_meta_steps)
  state, metrics = loop.make_dispatch(built, count, parallel.device_mesh(1))(loop.start(built), built.data.train)
  assert int(state.step) == count and metrics["finite"].all()
  result, per_task = measure.measure(built, state, num_tasks=2)
  assert per_task.shape == (2, built.evaluation.num_steps + 1) and math.isfinite(result["mean"])


@pytest.mark.parametrize(
  "method", ["fomaml", "warp_leap_offline", *(pytest.param(m, marks=pytest.mark.slow) for m in ("leap", "reptile"))]
)
def test_test_tasks_draw_a_head_where_training_tasks_do(method, alphabets):
  built = experiment.build(tiny("multi_shot_omniglot", method), **alphabets)
  assert (built.start is None) == (method == "warp_leap_offline")
  assert protocol.card(built, 1)["augmentation"] == "affine_nearest"


def test_multi_shot_recipes_start_from_the_biases_that_they_were_measured_with():
  recipe = recipes.load("multi_shot_omniglot")
  small = [name for name in recipe.methods if name.endswith("_cpu")]
  few = {f"{method}_{alphabets}_cpu" for method in recipe.methods for alphabets in (1, 3, 5)}
  zeros = {name for name in small if recipe.settings(name)["network"].get("bias_init") == "zeros"}
  assert zeros == {*small} - few - {"warp_relu_ladder_cpu"}


@pytest.mark.slow
def test_a_test_task_starts_from_the_head_that_it_draws(alphabets):
  config = tiny("multi_shot_omniglot", "leap")
  config["eval"]["num_steps"] = 1
  config["network"]["width"] = 16  # the last of two units can be dead, and no head sees anything then
  built = experiment.build(config, **alphabets)
  state, key = loop.start(built), jax.random.key(0)
  losses = lambda built: measure.evaluator(built, metric="loss")(state, built.data.test, key, 2).per_task[:, 0]
  assert (losses(built) != losses(built._replace(start=None))).all()
