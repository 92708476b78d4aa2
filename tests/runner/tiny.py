"""Configs shrunk to seconds, and a made data set."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from warpjax.runner.config import recipes

SINES = {
  "num_meta_steps": 6,
  "tasks_per_step": 2,
  "checkpoint_every": 2,
  "steps_per_dispatch": 2,
  "network": {"features": (4,)},
  "eval": {"num_tasks": 3},
}
IMAGES = {
  "num_meta_steps": 2,
  "tasks_per_step": 2,
  "checkpoint_every": 2,
  "steps_per_dispatch": 2,
  "data": {"ways": 2, "split": "folders"},
  "network": {"width": 2},
  "eval": {"num_tasks": 2, "num_steps": 1},
}
NUM_CLASSES, NUM_EXAMPLES = 3, 12
ON_IMAGES = ("omniglot", "reptile_studies")


def config(file: str, method: str, *overrides: Mapping[str, Any]) -> dict[str, Any]:
  """The row of a config file as nested dicts, with others laid over it."""
  result = recipes.settings(f"{file}:{method}")
  for values in (IMAGES if file in ON_IMAGES else SINES, *overrides):
    result = recipes.lay_over(result, values)
  return _fit(result) if file in ON_IMAGES else result


def distinct(configs: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[tuple[str, str]]:
  """The rows, those that their shrunk configs make the same once."""
  found: dict[tuple[str, str], tuple[str, str]] = {}
  for row, config in configs.items():
    found.setdefault((row[0], content(config)), row)
  return list(found.values())


def content(config: Mapping[str, Any]) -> str:
  """What a row trains: its settings without its names and its paper's number."""
  names = ("experiment", "method", "published")
  return repr(recipes.without_none({key: value for key, value in config.items() if key not in names}))


def _fit(config: Mapping[str, Any]) -> dict[str, Any]:
  """Shots and minibatches that the images below are enough for."""
  data, inner, test = (config[name] for name in ("data", "inner", "eval"))
  small: dict[str, dict[str, int]] = {"data": {}, "inner": {}, "eval": {}}
  if data.get("train_queries", 0) >= NUM_EXAMPLES:
    small["data"]["train_queries"] = 5
  if data.get("train_shots", 0) >= NUM_EXAMPLES:
    small["data"]["train_shots"] = 6
  if data.get("val_classes"):
    small["data"]["val_classes"] = 0  # the folder below has its own
  if inner.get("batch_size") == 25:
    small["inner"]["batch_size"] = 4
  if test.get("batch_size"):
    small["eval"]["batch_size"] = 2  # the test tasks here have two examples
  return recipes.lay_over(config, small)


def write_images(root: pathlib.Path) -> pathlib.Path:
  """A raw folder `{train,val,test}/<class>/*.png`: each class a bar at its own angle, drawn 12 times with noise."""
  rng = np.random.default_rng(0)
  for part in ("train", "val", "test"):
    for label in range(NUM_CLASSES):
      folder = root / part / f"{part}_{label}"
      folder.mkdir(parents=True)
      for example in range(NUM_EXAMPLES):
        pixels = rng.integers(0, 60, (28, 28))
        pixels[6 * label + 4 : 6 * label + 8] += 180
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{example:02d}.png")
  return root
