"""The choice of chunk and lowering: measured once, remembered, and kept by a run."""

from __future__ import annotations

import pytest

from tests.runner import tiny
from warpjax.runner import experiment, run, workdir
from warpjax.runner.machine import tuning

SINES = tiny.config("sinusoid", "maml", {"num_meta_steps": 2})


@pytest.fixture
def places(tmp_path):
  return {"cache_dir": str(tmp_path / "cache")}


def test_every_chunk_is_measured_and_the_fastest_remembered(places, monkeypatch):
  found = tuning.measure(SINES, **places)
  assert [one.changes["task_chunk"] for one in found] == [0, 1, 2]
  assert all(0 < one.seconds < 60 for one in found)
  monkeypatch.setattr(tuning, "measure", lambda settings, **places: found)
  said = []
  best = tuning.fastest(SINES, say=said.append, **places)
  assert best == min(found, key=lambda one: one.seconds).changes and "--config.task_chunk=" in said[0]
  monkeypatch.setattr(tuning, "measure", None)  # a second time nothing is measured, and another seed is the same work
  assert tuning.fastest({**SINES, "seed": 3, "num_meta_steps": 9}, say=said.append, **places) == best
  with pytest.raises(TypeError):
    tuning.fastest({**SINES, "tasks_per_step": 4}, say=said.append, **places)


@pytest.mark.parametrize("content", ["{", "[1]", None])
def test_a_cache_that_is_damaged_or_cannot_be_written_stops_nothing(tmp_path, monkeypatch, content):
  monkeypatch.setattr(tuning, "measure", lambda settings, **places: [tuning.Measured({"task_chunk": 2}, 0.1)])
  cache_dir = tmp_path / "cache"
  if content is None:
    cache_dir.write_text("a file in the place of the folder")
  else:
    cache_dir.mkdir()
    (cache_dir / "tuned.json").write_text(content)
  assert tuning.fastest(SINES, say=lambda message: None, cache_dir=str(cache_dir)) == {"task_chunk": 2}


def test_a_run_keeps_the_choice_that_it_was_begun_with(places, tmp_path, monkeypatch):
  monkeypatch.setattr(tuning, "fastest", lambda config, **places: {"task_chunk": 1})
  begun = tuning.for_run(SINES, str(tmp_path / "run"), **places)
  assert begun == {**SINES, "task_chunk": 1}
  workdir.prepare(tmp_path / "run", begun)
  monkeypatch.setattr(tuning, "fastest", lambda config, **places: {"task_chunk": 2})
  assert tuning.for_run(SINES, str(tmp_path / "run"), **places)["task_chunk"] == 2  # nothing was trained there yet
  assert run.train_and_evaluate(begun, tmp_path / "run")["num_meta_steps"] == 2
  assert tuning.for_run(SINES, str(tmp_path / "run"), **places) == begun


def test_convolutions_are_measured_under_both_lowerings(monkeypatch):
  tried, chunks = [], []

  def timed(choices, built):
    tried.extend(choices)
    chunks.extend(experiment.run.task_chunk for experiment in built)
    return [tuning.Measured(c, 1.0 if c["network"]["lowering"] == "lax" else 2.0) for c in choices]

  built = experiment.build(tiny.config("sinusoid", "maml", {"tasks_per_step": 5}))
  monkeypatch.setattr(tuning, "_timed", timed)
  monkeypatch.setattr(tuning, "build", lambda settings, **places: built)
  tuning.measure({"network": {"name": "maml_omniglot"}})
  assert [c["network"]["lowering"] for c in tried] == ["patches", "lax", "lax", "lax", "lax", "lax"]
  assert [c["task_chunk"] for c in tried] == chunks == [0, 0, 1, 2, 4, 5]
