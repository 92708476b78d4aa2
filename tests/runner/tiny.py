"""Configs shrunk to seconds, and a made data set."""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from warpjax.runner import schema

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
  """The row of a config file as nested dicts, overridden as the command line would."""
  result = importlib.import_module(f"configs.{file}").get_config(method)
  for values in (IMAGES if file in ON_IMAGES else SINES, *overrides):
    result.update(values)
  if file in ON_IMAGES:
    _fit(result)
  return result.to_dict()


def distinct(configs: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[tuple[str, str]]:
  """The rows, those that their shrunk configs make the same once."""
  found: dict[tuple[str, str], tuple[str, str]] = {}
  for row, config in configs.items():
    found.setdefault((row[0], content(config)), row)
  return list(found.values())


def content(config: Mapping[str, Any]) -> str:
  """What a row trains: its settings without its names and its paper's number."""
  names = ("experiment", "method", "published")
  return repr(schema.given({key: value for key, value in config.items() if key not in names}))


def _fit(config: Any) -> None:
  """Shots and minibatches that the images below are enough for."""
  if (config.data.train_queries or 0) >= NUM_EXAMPLES:
    config.data.train_queries = 5
  if (config.data.train_shots or 0) >= NUM_EXAMPLES:
    config.data.train_shots = 6
  if config.inner.batch_size == 25:
    config.inner.batch_size = 4
  if config.eval.batch_size:
    config.eval.batch_size = 2  # the test tasks here have two examples


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
