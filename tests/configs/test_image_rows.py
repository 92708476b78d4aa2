"""The configs of colour images: every row builds; rows train two steps on made images and are evaluated."""

from __future__ import annotations

import math

import pytest

from tests.datasets import image_files
from tests.runner import tiny
from warpjax.runner import experiment, loop, measure
from warpjax.runner.components import norm_stats
from warpjax.runner.config import recipes
from warpjax.training import parallel

FILES = ("mini_imagenet", "tiered_imagenet", "cifar_fs", "fc100")
RECIPES = {file: recipes.load(file) for file in FILES}
ONE_SHOT = [method for method in RECIPES["mini_imagenet"].methods if not method.endswith(("_5shot", "_cpu"))]
# The files share their rows, so that a method builds in one of them.
ROWS = [
  *(("mini_imagenet", method) for method in ONE_SHOT),
  *(
    ("mini_imagenet", method)
    for method in ("meta_sgd_5shot", "reptile_5shot_strict", "maml_resnet12_strict", "maml_5shot_cpu")
  ),
  ("tiered_imagenet", "maml_5shot"),
  ("tiered_imagenet", "warp_leap_offline_640shot"),
  ("cifar_fs", "warp_maml_5shot_strict"),
  ("fc100", "reptile"),
]
# Followed through a dispatch without compiling it; a row takes some 20 s to compile, and the slow tests train them all.
TRACED = [
  ("mini_imagenet", "meta_lstm"),
  *(
    pytest.param(*row, marks=pytest.mark.slow)
    for row in (
      ("cifar_fs", "mamlpp_5shot"),
      ("fc100", "warp_leap_offline"),
      ("mini_imagenet", "warp_maml"),
      ("tiered_imagenet", "meta_curvature"),
      ("tiered_imagenet", "warp_leap_offline_640shot"),
    )
  ),
]


def cifar(root):
  """A part of CIFAR-100, 8 noise images of each class."""
  import numpy as np

  from warpjax.datasets import splits

  folder = root / "cifar-100-binary"
  folder.mkdir(parents=True)
  labels = np.repeat(np.arange(100, dtype=np.uint8), 4)
  pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 3073), np.uint8)
  for name in ("train.bin", "test.bin"):
    (folder / name).write_bytes(np.concatenate([labels[:, None] * 0, labels[:, None], pixels[:, 1:]], 1).tobytes())
  (folder / "fine_label_names.txt").write_text("\n".join(sorted(splits.published("fc100").all)))
  return root


@pytest.fixture(scope="module")
def places(tmp_path_factory):
  root = tmp_path_factory.mktemp("images")
  made = {name: image_files.write(root / name, name, 2, 8, 16) for name in ("mini_imagenet", "tiered_imagenet")}
  made |= dict.fromkeys(("cifar_fs", "fc100"), cifar(root / "cifar"))
  return {name: {"data_dir": str(made[name]), "cache_dir": str(root / "cache")} for name in FILES}


def small(file, method):
  """The row on 2 classes of small images, with a narrow network and few tasks."""
  config = RECIPES[file].settings(method)
  data, network, inner, test = (config[name] for name in ("data", "network", "inner", "eval"))
  config |= {"num_meta_steps": 2, "tasks_per_step": 2, "checkpoint_every": 2, "steps_per_dispatch": 2}
  data |= {"ways": 2, "shots": min(data["shots"], 2), "queries": 1, "train_queries": 1}
  data["train_shots"] = min(data["train_shots"], 4)
  test |= {"num_tasks": 2, "num_steps": 2, "val_tasks": 2 if test.get("val_tasks") else 0}
  if test.get("batch_size"):
    test["batch_size"] = 2
  if "imagenet" in file:
    data["size"] = 16
  network |= {"widths": (2, 2, 2, 2)} if network["name"] == "resnet12" else {"width": 2}
  if inner.get("batch_size"):
    inner["batch_size"] = 4
  if config["meta_gradient"]["name"] == "warp_offline":
    inner["num_steps"] = 2
  return config


def methods(file):
  """Its methods, and each with the strict protocol but for those of a CPU's size."""
  found = list(RECIPES[file].methods)
  return [*found, *(f"{method}_strict" for method in found if not method.endswith("_cpu"))]


def distinct():
  """Rows of all files, those of one shrunk config once, in the files by turns."""
  found = {}
  for file in FILES:
    for method in methods(file):
      config = small(file, method)
      data = {key: value for key, value in config["data"].items() if key not in ("name", "size")}
      found.setdefault(tiny.content({**config, "data": data}), []).append((file, method))
  return [rows[number % len(rows)] for number, rows in enumerate(found.values())]


def built(file, method):
  """All but the larger ResNets, which take three times as long to build, are quick."""
  slow = method in ("warp_maml_resnet12", "maml_resnet12_strict")
  return pytest.param(file, method, marks=[pytest.mark.slow] if slow else [], id=f"{file}-{method}")


@pytest.mark.parametrize(("file", "method"), [built(*row) for row in ROWS])
def test_row_builds(file, method, places):
  config = small(file, method)
  if config["network"]["name"] != "resnet12":
    config["network"]["num_blocks"] = 1  # which takes the least time to trace
  built = experiment.build(config, **places[file])
  assert built.run.experiment == file and built.run.method == method
  assert built.norm_stats == RECIPES[file].settings(method)["eval"]["norm_stats"]
  if method.endswith("_strict"):
    assert built.norm_stats == "support" and built.evaluation.val_tasks


@pytest.mark.parametrize(("file", "method"), TRACED)
def test_row_traces(file, method, places):
  loop.Programs(experiment.build(small(file, method), **places[file])).trace()


def trains(file, method, places):
  built = experiment.build(small(file, method), **places[file])
  state, metrics = loop.make_dispatch(built, 2, parallel.device_mesh(1))(loop.start(built), built.data.train)
  assert metrics["finite"].all() and metrics["grad_norm/initial"].min() > 0
  result, per_task = measure.measure(built, state)
  assert per_task.shape == (2, 3) and math.isfinite(result["mean"])
  assert {"transductive", "support", "running"} <= {result["norm_stats"], *result}
  assert result["data"]["partial"] and result["protocol"]["partial"]


@pytest.fixture(autouse=True)
def few_tasks_for_statistics(monkeypatch):
  monkeypatch.setattr(norm_stats, "PER_STEP_TASKS", 2)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "method"), distinct())
def test_every_row_trains_two_steps(file, method, places):
  trains(file, method, places)


@pytest.mark.parametrize("file", FILES[1:])
def test_the_files_differ_in_data_and_published_numbers_alone(file):
  names = ("experiment", "published")
  bare = lambda name, method: {k: v for k, v in RECIPES[name].settings(method).items() if k not in names}
  assert set(RECIPES[file].methods) - set(RECIPES["mini_imagenet"].methods) <= {"warp_leap_offline_640shot"}
  for method in methods("mini_imagenet"):
    mini = bare("mini_imagenet", method)
    assert bare(file, method) == {**mini, "data": {**mini["data"], "name": file}}


def test_mamls_step_and_bound_are_those_of_its_sum_over_shots():
  for method, shots, tasks in (("maml", 1, 4), ("maml_5shot", 5, 2)):
    config = RECIPES["mini_imagenet"].settings(method)
    assert config["inner"]["learning_rate"] == pytest.approx(0.01 * 5)
    # The released outer loss is the sum over 5 * 15 query examples divided by the shots.
    assert config["optimizer"]["clip"] == pytest.approx(10 / (5 * 15 / shots))
    assert (config["tasks_per_step"], config["data"]["shots"], config["data"]["queries"]) == (tasks, shots, shots)


def test_a_strict_row_differs_in_its_protocol_alone():
  for method in ONE_SHOT:
    plain, strict = (RECIPES["mini_imagenet"].settings(name) for name in (method, f"{method}_strict"))
    for name in ("network", "inner", "meta_gradient", "optimizer", "num_meta_steps", "tasks_per_step"):
      assert plain[name] == strict[name]
    assert strict["data"]["queries"] == 15 and strict["eval"]["norm_stats"] == "support"
    assert "published" not in strict
