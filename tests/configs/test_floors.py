"""The shortest recipes of the papers, trained whole: their errors are those published, or lower."""

from __future__ import annotations

import numpy as np
import pytest

from warpjax import evaluation
from warpjax.runner import run
from warpjax.runner.config import recipes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  """Each method's result, with its errors on the same test tasks; about a minute of a core each."""
  found = {}
  for method in ("maml", "meta_sgd", "reptile_demo"):
    folder = tmp_path_factory.mktemp(method)
    result = run.train_and_evaluate(recipes.settings(f"sinusoid:{method}"), folder)
    found[method] = result, np.load(folder / "per_task.npy")[:, -1]
  return found


@pytest.mark.parametrize("method", ["maml", "meta_sgd"])
def test_the_published_error_is_reached(method, results):
  result, published = results[method][0], recipes.settings(f"sinusoid:{method}")["published"]
  assert result["mean"] < published["number"] + published["interval"]


def test_meta_sgd_is_better_than_maml_on_the_same_tasks(results):
  difference, ci95 = evaluation.mean_and_ci95(results["meta_sgd"][1] - results["maml"][1])
  assert difference + ci95 < 0


def test_reptile_s_demo_fits_a_new_wave(results):
  result = results["reptile_demo"][0]
  assert result["mean"] < 0.2 and result["per_step"][0] > 3
