"""Test-time training's comparison: differences are paired, and exclude 0 over tasks and over seeds or not at all."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments import ttt
from warpjax.runner.config import recipes

COST = ttt.Cost(0.5, 3.0, 2**20)
TASKS = np.random.default_rng(0).normal(size=(1, 50, 8))  # what a text is like, which all rows and seeds share
SEEDS = np.array([0.01, 0.0, -0.01])[:, None, None]


def made(gain, seeds=SEEDS):
  """Bits per byte that are `gain` lower in the last quarter."""
  return 2 + TASKS + 0.1 * seeds - gain * (np.arange(8) >= 6)


def test_differences_are_paired_over_tasks_and_over_seeds():
  measured = {"end_to_end": made(0.1), "first_order": made(0.05), "no_adaptation": made(0.0, SEEDS[::-1] * 500)}
  statement = ttt.compare(measured, {"end_to_end": COST})
  assert (statement["seeds"], statement["tasks"]) == (3, 50)
  first, none = (statement["end_to_end_less"][name] for name in ("first_order", "no_adaptation"))
  np.testing.assert_allclose([first["mean"], none["mean"]], [-0.05, -0.1], atol=1e-9)
  assert first["ci95_over_tasks"] < 1e-9 and first["excludes_0"]
  assert none["ci95_over_tasks"] < 1e-9 and none["ci95_over_seeds"] > 0.1 and not none["excludes_0"]
  row = statement["rows"]["end_to_end"]
  np.testing.assert_allclose(np.mean(row["per_position"][6:]), row["last_quarter"]["mean"])
  assert row["seconds"] == 0.5


def test_one_seed_excludes_nothing():
  measured = {"end_to_end": made(0.1, SEEDS[:1]), "first_order": made(0.0, SEEDS[:1])}
  assert not ttt.compare(measured, {})["end_to_end_less"]["first_order"]["excludes_0"]


def test_the_table_and_the_picture_have_every_row(tmp_path):
  statement = ttt.compare({"end_to_end": made(0.1), "warp": made(0.2)}, {"end_to_end": COST})
  rows = [line.split(" | ")[0] for line in ttt.table(statement).splitlines()[2:]]
  assert rows == ["| end_to_end", "| warp"] and "0.1000 +/- 0.0000" in ttt.table(statement)
  ttt.draw(statement, tmp_path / "comparison.png")
  assert (tmp_path / "comparison.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_command_trains_and_compares(tmp_path, monkeypatch):
  small = {
    "num_meta_steps": 2,
    "tasks_per_step": 2,
    "checkpoint_every": 2,
    "steps_per_dispatch": 2,
    "data": {"num_chunks": 4, "chunk": 4, "context": 2},
    "network": {"num_blocks": 1, "width": 4, "num_heads": 1, "hidden": 4, "window": 2},
    "inner": {"num_steps": 4},
    "eval": {"num_tasks": 3, "num_steps": 3},
  }
  settings = recipes.settings
  monkeypatch.setattr(recipes, "settings", lambda name: recipes.lay_over(settings(name), small))
  (tmp_path / "made.txt").write_text("And the day was good. " * 60)
  names = ("end_to_end", "no_adaptation")
  statement = ttt.run_all(tmp_path / "runs", [0, 1], names, data_dir=str(tmp_path / "made.txt"))
  assert set(statement["rows"]) == {*names} and statement["tasks"] == 3
  for row in statement["rows"].values():
    assert len(row["per_position"]) == 4 and row["seconds"] > 0 and row["temp_bytes"] > 0 and row["gigaflops"] > 0
  written = json.loads((tmp_path / "runs" / "comparison.json").read_text())
  assert written["rows"].keys() == statement["rows"].keys()
