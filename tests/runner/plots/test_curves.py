"""Results drawn against a setting of their runs."""

from __future__ import annotations

import json

import pytest

from warpjax.runner.plots import curves


@pytest.fixture
def finished(tmp_path):
  """Writes a workdir as far as curves are read from it; returns it and its result."""

  def write(name, method, alphabets, mean, **more):
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text(json.dumps({"data": {"alphabets": alphabets, "name": "made"}}))
    result = {"method": method, "metric": "accuracy", "mean": mean, "ci95": 0.02, **more}
    return tmp_path / name, result

  return write


def test_recipes_of_one_method_are_a_curve_in_the_order_of_the_setting(finished, tmp_path):
  said = {"published": {"number": 0.8, "interval": 0.01, "source": "made"}}
  made = [
    finished("b", "leap_25_cpu", 25, 0.6, **said),
    finished("a", "leap_cpu", 10, 0.5),
    finished("c", "maml_25_cpu", 25, 0.2),
    finished("d", "reptile_25_cpu", 25, 0.3, ci95=None),  # a sweep of one seed
  ]
  directories, results = zip(*made, strict=True)
  runs = curves.against(directories, results, "data.alphabets")
  assert {name: [value for value, _ in points] for name, points in runs.items()} == {
    "leap": [10, 25],
    "maml": [25],
    "reptile": [25],
  }
  assert curves.table(runs, "data.alphabets").splitlines()[2:] == [
    "| leap | 0.500 +/- 0.020 | 0.600 +/- 0.020 |",
    "| maml | | 0.200 +/- 0.020 |",
    "| reptile | | 0.300 |",
  ]
  curves.draw(runs, "data.alphabets", tmp_path / "new" / "curve.png")
  assert (tmp_path / "new" / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
  ("setting", "message"),
  [
    ("data.alphabet", r"--against=data\.alphabet: the config of .* has no 'alphabet'; did you mean 'alphabets'\?"),
    ("data.name", r"--against=data\.name must be a number in every config; .* has 'made'\."),
    ("data.alphabets.x", r"has no 'x'\."),
  ],
)
def test_a_setting_that_is_no_number_of_every_run_is_refused(finished, setting, message):
  directory, result = finished("a", "leap_cpu", 10, 0.5)
  with pytest.raises(ValueError, match=message):
    curves.against([directory], [result], setting)


def test_two_runs_of_a_method_at_one_place_are_refused(finished):
  made = [finished("a", "leap_cpu", 10, 0.5), finished("b", "leap_10_cpu", 10, 0.5)]
  with pytest.raises(ValueError, match=r"/b and another run of its method have 10\."):
    curves.against(*zip(*made, strict=True), "data.alphabets")
