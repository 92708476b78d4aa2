"""The list of experiments agrees with the configs."""

from __future__ import annotations

import pathlib
import subprocess
import sys

from warpjax.runner import listing, recipes

ROOT = pathlib.Path(__file__).parents[2]


def test_rows_have_the_docstring_s_numbers():
  rows = {row.method: row for row in listing.rows("omniglot")}
  omniglot = recipes.load("omniglot")
  assert list(rows) == list(omniglot.methods)
  assert rows["maml"].published == "98.7 +/- 0.4" and "1703.03400" in rows["maml"].paper
  for name in ("maml_cpu", "imaml_cpu"):
    assert f"| {rows[name].published} " in omniglot.doc and f"| {rows[name].measured} " in omniglot.doc
  assert rows["t_net"].published == "-" and "Lee and Choi" in rows["t_net"].paper


def test_every_experiment_is_listed():
  found = listing.experiments()
  assert set(found) == {path.stem for path in (ROOT / "configs").glob("[!_]*.py")}
  assert all(found.values())


def test_the_command_needs_no_other_flag():
  command = [sys.executable, "-m", "experiments.train", "--list"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
  assert "benchmark --config=configs/benchmark.py:accuracy|memory" in done.stdout
  for part in ("omniglot: ", "meta_sgd_cpu", "arXiv 1909.00025", "--config=configs/EXPERIMENT.py:METHOD"):
    assert part in done.stdout


def test_five_shots_and_the_strict_protocol_have_their_own_rows():
  rows = {row.method: row for row in listing.rows("mini_imagenet")}
  assert rows["maml"].published == "48.70 +/- 1.84" and rows["maml_5shot"].published == "63.11 +/- 0.92"
  assert rows["maml_5shot"].measured == rows["maml_strict"].measured == "not yet run"
