"""The configs of colour images: every row builds; rows train two steps on made images and are evaluated."""

from __future__ import annotations

import importlib
import math

import pytest

from tests.datasets import image_files
from tests.runner import tiny
from warpjax.runner import experiment, image_rows, loop, measure
from warpjax.runner.components import norm_stats
from warpjax.training import parallel

FILES = ("mini_imagenet", "tiered_imagenet", "cifar_fs", "fc100")
MODULES = {file: importlib.import_module(f"configs.{file}") for file in FILES}
MINI = MODULES["mini_imagenet"].METHODS
# The files share their rows, so that a method builds in one of them.
ROWS = [
  *(("mini_imagenet", method) for method in image_rows._ONE_SHOT),
  *(
    ("mini_imagenet", method)
    for method in ("meta_sgd_5shot", "reptile_5shot_strict", "maml_resnet12_strict", "maml_5shot_cpu")
  ),
  ("tiered_imagenet", "maml_5shot"),
  ("tiered_imagenet", "warp_leap_offline_640shot"),
  ("cifar_fs", "warp_maml_5shot_strict"),
  ("fc100", "reptile"),
]
QUICK = [("mini_imagenet", "maml_strict")]
# Followed through a dispatch without compiling it; a row takes some 20 s to compile, and the slow tests train them all.
TRACED = [
  ("mini_imagenet", "warp_maml"),
  ("cifar_fs", "mamlpp_5shot"),
  ("fc100", "warp_leap_offline"),
  ("mini_imagenet", "meta_lstm"),
  ("tiered_imagenet", "meta_curvature"),
  ("tiered_imagenet", "warp_leap_offline_640shot"),
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
  root = tmp_path_factory.mktemp("image_rows")
  made = {name: image_files.write(root / name, name, 2, 8, 16) for name in ("mini_imagenet", "tiered_imagenet")}
  made |= dict.fromkeys(("cifar_fs", "fc100"), cifar(root / "cifar"))
  return {name: {"data_dir": str(made[name]), "cache_dir": str(root / "cache")} for name in FILES}


def small(file, method):
  """The row on 2 classes of small images, with a narrow network and few tasks."""
  config = MODULES[file].get_config(method)
  config.update({"num_meta_steps": 2, "tasks_per_step": 2, "checkpoint_every": 2, "steps_per_dispatch": 2})
  config.data.update({"ways": 2, "shots": min(config.data.shots, 2), "queries": 1, "train_queries": 1})
  config.data.train_shots = min(config.data.train_shots or 0, 4)
  config.eval.update({"num_tasks": 2, "num_steps": 2, "val_tasks": 2 if config.eval.val_tasks else 0})
  if config.eval.batch_size:
    config.eval.batch_size = 2
  if "imagenet" in file:
    config.data.size = 16
  config.network.update({"widths": (2, 2, 2, 2)} if config.network.name == "resnet12" else {"width": 2})
  if config.inner.get("batch_size"):
    config.inner.batch_size = 4
  if config.meta_gradient.name == "warp_offline":
    config.inner.num_steps = 2
  return config.to_dict()


def distinct():
  """Rows of all files, those of one shrunk config once, in the files by turns."""
  found = {}
  for file in FILES:
    for method in MODULES[file].METHODS:
      config = small(file, method)
      data = {key: value for key, value in config["data"].items() if key not in ("name", "size")}
      found.setdefault(tiny.content({**config, "data": data}), []).append((file, method))
  return [rows[number % len(rows)] for number, rows in enumerate(found.values())]


@pytest.mark.parametrize(("file", "method"), ROWS, ids=[f"{file}-{method}" for file, method in ROWS])
def test_row_builds(file, method, places):
  built = experiment.build(small(file, method), **places[file])
  assert built.run.experiment == file and built.run.method == method
  assert built.norm_stats == MODULES[file].get_config(method).eval.norm_stats
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


@pytest.mark.parametrize(("file", "method"), QUICK)
def test_row_trains_two_steps(file, method, places):
  trains(file, method, places)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "method"), [row for row in distinct() if row not in QUICK])
def test_every_row_trains_two_steps(file, method, places):
  trains(file, method, places)


@pytest.mark.parametrize("file", FILES[1:])
def test_the_files_differ_in_data_and_published_numbers_alone(file):
  module = MODULES[file]
  assert {
    **MODULES["mini_imagenet"].COMMON,
    "data": {**MODULES["mini_imagenet"].COMMON["data"], "name": file},
  } == module.COMMON
  bare = lambda row: {key: value for key, value in row.items() if key != "published"}
  rows = {method: bare(row) for method, row in module.METHODS.items() if method != "warp_leap_offline_640shot"}
  assert rows == {method: bare(row) for method, row in MINI.items() if not method.endswith("_cpu")}


def test_mamls_step_and_bound_are_those_of_its_sum_over_shots():
  for method, shots, tasks in (("maml", 1, 4), ("maml_5shot", 5, 2)):
    config = MODULES["mini_imagenet"].get_config(method)
    assert config.inner.learning_rate == pytest.approx(0.01 * 5)
    # The released outer loss is the sum over 5 * 15 query examples divided by the shots.
    assert config.optimizer.clip == pytest.approx(10 / (5 * 15 / shots))
    assert (config.tasks_per_step, config.data.shots, config.data.queries) == (tasks, shots, shots)


def test_a_strict_row_differs_in_its_protocol_alone():
  for method in image_rows._ONE_SHOT:
    plain, strict = (MODULES["mini_imagenet"].get_config(name).to_dict() for name in (method, f"{method}_strict"))
    for name in ("network", "inner", "meta_gradient", "optimizer", "num_meta_steps", "tasks_per_step"):
      assert plain[name] == strict[name]
    assert strict["data"]["queries"] == 15 and strict["eval"]["norm_stats"] == "support"


@pytest.mark.parametrize("file", FILES)
def test_docstring_is_a_lab_note(file):
  doc, module = MODULES[file].__doc__, MODULES[file]
  assert f"--config=configs/{file}.py:maml" in doc and "arXiv" in doc
  for method, row in module.METHODS.items():
    if not method.endswith(("_strict", image_rows.FIVE_SHOT)):
      assert f"| {method} " in doc
    if "published" in row and not method.endswith(("_strict", "_cpu")):
      assert f"{100 * row['published']['number']:.2f}" in doc
