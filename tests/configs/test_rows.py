"""Every row of every config builds, trains two meta-steps and is evaluated."""

from __future__ import annotations

import itertools
import math

import jax
import numpy as np
import pytest
from PIL import Image

from tests.runner import tiny
from warpjax.datasets import omniglot as omniglot_files
from warpjax.runner import experiment, loop, measure
from warpjax.runner.config import recipes, registry, settings
from warpjax.runner.reporting import protocol
from warpjax.training import parallel

FILES = ("sinusoid", "omniglot", "reptile_studies", "demo")
ALL = [(file, method) for file in FILES for method in recipes.load(file).names()]
SMALLER = [row for row in ALL if row[1].endswith("_cpu")]
ROWS = tiny.distinct({row: tiny.config(*row) for row in ALL})
# A meta-gradient of an unroll, one along the trajectory, offline steps, and images; `make test-slow` trains every row.
QUICK = {("sinusoid", method) for method in ("maml", "leap", "warp_leap_offline")}
QUICK.add(("omniglot", "maml"))


def trained(file, method):
  marks = [] if (file, method) in QUICK else [pytest.mark.slow]
  return pytest.param(file, method, id=f"{file}-{method}", marks=marks)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  root = tmp_path_factory.mktemp("images")
  return {"data_dir": str(tiny.write_images(root / "raw")), "cache_dir": str(root / "cache")}


@pytest.mark.parametrize(("file", "method"), [trained(*row) for row in ROWS])
def test_row_trains_two_steps(file, method, images):
  built = experiment.build(tiny.config(file, method), **(images if file in tiny.ON_IMAGES else {}))
  state, metrics = loop.make_dispatch(built, 2, parallel.device_mesh(1))(loop.start(built), built.data.train)
  assert int(state.step) == 2
  assert metrics["finite"].all() and metrics["loss"].shape == (2,)
  learned = "shared" if built.settings["meta_gradient"].get("redrawn") == "context" else "initial"
  assert metrics[f"grad_norm/{learned}"].min() > 0
  result, per_task = measure.measure(built, state, num_tasks=2)
  assert per_task.shape == (2, built.evaluation.num_steps + 1)
  assert math.isfinite(result["mean"]) and result["num_diverged"] == 0
  assert result["experiment"] == file and result["method"] == method
  assert ("support_plus_one" in result) == (result["metric"] == "accuracy")


@pytest.fixture(scope="module")
def drawings():
  """As many characters and drawings of each as Omniglot has, all of them blank."""
  blank = np.broadcast_to(np.uint8(0), (1623, 20, 28, 28, 1))
  names = tuple(f"alphabet/character{index:04d}" for index in range(len(blank)))
  return omniglot_files.Omniglot(blank, names, ("alphabet",) * len(names))


@pytest.mark.parametrize("file", tiny.ON_IMAGES)
def test_omniglot_has_the_drawings_that_every_row_asks_for(file, drawings, monkeypatch):
  monkeypatch.setattr(omniglot_files, "load", lambda *places, **decoding: drawings)
  configs = [recipes.settings(f"{file}:{method}") for method in recipes.load(file).names()]
  for config in {repr(config["data"]): config for config in configs}.values():  # rows of one task are one case
    data = config["data"]
    made = registry.named("data", settings.resolved(recipes.without_none(config)), data_dir=None, cache_dir=None).load()
    (support, query), test = (jax.eval_shape(draw, jax.random.key(0)) for draw in (made.train, made.test_task))
    in_training = config["inner"].get("batch_size") or 0
    in_test = config["eval"].get("batch_size") or in_training
    assert in_training <= support[0].shape[0] and in_test <= test.support[0].shape[0]
    assert support[0].shape[0] == data["ways"] * (data["train_shots"] or data["shots"])
    assert query[0].shape[0] == data["ways"] * (data["train_queries"] or data["queries"])


@pytest.mark.parametrize("query", ["held_out", "support"])
def test_query_examples_of_training_can_be_support_examples(query, images):
  change = {"data": {"shots": 2, "queries": 1, "train_shots": 6, "train_queries": 2, "train_query": query}}
  built = experiment.build(tiny.config("omniglot", "reptile", change), **images)
  (x, y), (query_x, query_y) = jax.jit(built.data.train)(jax.random.key(0))
  assert (len(x), len(query_x)) == (12, 4) and sorted(y.tolist()) == [0] * 6 + [1] * 6
  assert protocol.card(built, 1)["train_query"] == query
  for image, label in zip(query_x, query_y, strict=True):
    same = [int(own) for other, own in zip(x, y, strict=True) if (other == image).all()]
    assert same == ([int(label)] if query == "support" else [])


@pytest.mark.parametrize("resample", ["lanczos", "nearest"])
def test_drawings_are_resized_as_the_config_says(resample, tmp_path):
  """A folder of 105x105 drawings in two levels; nearest keeps them two."""
  rng = np.random.default_rng(0)
  for part, name in itertools.product(("train", "val", "test"), "ab"):
    (folder := tmp_path / "raw" / part / f"{part}_{name}").mkdir(parents=True)
    for example in range(2):
      Image.fromarray(255 * rng.integers(0, 2, (105, 105), np.uint8)).save(folder / f"{example}.png")
  places = {"data_dir": str(tmp_path / "raw"), "cache_dir": str(tmp_path / "cache")}
  built = experiment.build(tiny.config("omniglot", "maml", {"data": {"resample": resample}}), **places)
  (x, _), _ = jax.jit(built.data.train)(jax.random.key(0))
  assert (len(np.unique(np.round(x, 5))) == 2) == (resample == "nearest")


def test_the_demo_of_reptile_trains_on_the_grid_and_is_tested_on_random_points():
  data = experiment.build(recipes.settings("sinusoid:reptile_demo")).data
  grid = np.linspace(-5, 5, 50)[:, None]
  train, test = (sampler(jax.random.key(0)) for sampler in (data.train, data.test))
  for x in (train.support[0], train.query[0], test.query[0]):
    np.testing.assert_allclose(x, grid, atol=1e-5)
  assert test.support[0].shape == (10, 1) and np.ptp(np.diff(np.sort(test.support[0], axis=0), axis=0)) > 0.1
  config = recipes.settings("sinusoid:reptile_demo")
  config["data"]["train_shots"] = 7
  with pytest.raises(ValueError, match="train_shots must be 0 with train_grid, which trains on the grid; got 7"):
    experiment.build(config)


def test_query_examples_out_of_the_support_set_are_a_part_of_it(images):
  change = {"data": {"train_shots": 2, "train_queries": 2, "train_query": "support"}}
  with pytest.raises(ValueError, match=r"train_query must be 'held_out' .* got 'support' with 2 shots, 2 queries"):
    experiment.build(tiny.config("omniglot", "reptile", change), **images)


@pytest.mark.parametrize(("file", "method"), SMALLER, ids=[f"{file}-{method}" for file, method in SMALLER])
def test_smaller_recipe_is_another_size_of_its_row(file, method):
  whole = method.removesuffix("_cpu").removesuffix("_20way_small").removesuffix("_minutes")
  small, row = (recipes.settings(f"{file}:{name}") for name in (method, whole))
  assert small["num_meta_steps"] < row["num_meta_steps"]
  assert small["inner"]["rule"] == row["inner"]["rule"] and small["network"]["name"] == row["network"]["name"]
  assert small["meta_gradient"] == row["meta_gradient"]


def build(file, method, images):
  config = tiny.config(file, method)
  if file in tiny.ON_IMAGES and method != "cavia_cpu":
    config["network"]["num_blocks"] = 1  # which takes the least time to trace
  return experiment.build(config, **(images if file in tiny.ON_IMAGES else {}))


# Those of warp-layers are built by tests/runner/components/test_warp.py.
WAVES = [row for row in ROWS if row[0] not in tiny.ON_IMAGES and not row[1].startswith(("warp", "t_net"))]


@pytest.mark.parametrize(("file", "method"), WAVES, ids=["-".join(row) for row in WAVES])
def test_row_of_waves_builds(file, method):
  assert build(file, method, None).run.method == method


def built(number, row):
  """A fifth of them are quick."""
  return pytest.param(*row, marks=[pytest.mark.slow] if number % 5 else [], id="-".join(row))


@pytest.mark.parametrize(("file", "method"), [built(*row) for row in enumerate(SMALLER)])
def test_smaller_recipe_builds(file, method, images):
  build(file, method, images)


def test_misspelt_method_names_the_nearest():
  with pytest.raises(ValueError, match=r"configs/sinusoid.py has no method 'mamll'; did you mean 'maml'\?"):
    recipes.settings("sinusoid:mamll")
