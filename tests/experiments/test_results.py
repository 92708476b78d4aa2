"""RESULTS.md is what the configs say, and says why a number is short of its paper's."""

from __future__ import annotations

import re

import pytest

from experiments import results
from warpjax.runner import listing

FOUND = [(section, row) for section in results.SECTIONS for row in results.rows(section)]


def test_the_file_is_what_is_written_now(tmp_path, monkeypatch):
  written = results.PATH.read_text()
  monkeypatch.setattr(results, "PATH", tmp_path / "RESULTS.md")
  results.main([])
  assert results.PATH.read_text() == written


@pytest.mark.parametrize(("section", "row"), FOUND, ids=[f"{section.config}-{row.method}" for section, row in FOUND])
def test_a_number_outside_its_paper_s_interval_says_why(section, row):
  assert row.recipe.removeprefix(f"{section.config}.py:") in {r.method for r in listing.rows(section.config)}
  if not row.gap:
    return
  interval = re.search(r"\+/- (\d+(\.\d+)?)", row.published)
  lower_is_better = "error" in section.title
  short = float(row.gap) if lower_is_better else -float(row.gap)
  assert row.why or short <= (float(interval.group(1)) if interval else 0.0)


def test_every_reason_belongs_to_a_row_that_was_measured():
  measured = {(section.config, row.recipe.split(":")[1]) for section, row in FOUND if row.measured != listing.NOT_RUN}
  assert set(results.WHY) <= measured


def test_the_recipe_in_place_of_a_row_that_was_not_run():
  rows = {row.method: row for row in results.rows(results.SECTIONS[0])}
  assert rows["maml"].recipe == "omniglot.py:maml_cpu" and rows["maml"].budget == "14,000 x 16 of 60,000 x 32"
  assert rows["maml"].published == "98.7 +/- 0.4" and rows["maml"].gap == "-0.02"
  assert rows["mamlpp"].recipe == "omniglot.py:mamlpp" and rows["mamlpp"].gap == ""
