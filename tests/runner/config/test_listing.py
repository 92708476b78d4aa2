"""The list of rows has the recipes' published numbers and the records' measured ones, and is filtered."""

from __future__ import annotations

import pytest

from warpjax.runner.config import listing, recipes
from warpjax.runner.reporting import records


def test_rows_have_the_recipe_s_and_the_record_s_numbers():
  rows = {row.method: row for row in listing.rows(recipes.load("omniglot"))}
  assert set(rows) == set(recipes.load("omniglot").methods)
  assert rows["maml"].published == "98.7 +/- 0.4" and "1703.03400" in rows["maml"].paper
  record = records.load("omniglot")["imaml_cpu"]
  assert rows["imaml_cpu"].measured == records.number(record["mean"], record["ci95"], "accuracy")
  assert rows["t_net"].published == "-" and "Lee and Choi" in rows["t_net"].paper


def test_measured_rows_come_first_and_those_of_variants_too():
  found = listing.rows(recipes.load("reptile_studies"))
  measured = [row.measured != listing.NOT_RUN for row in found]
  assert measured == sorted(measured, reverse=True) and any(measured)
  assert {"g_1", "g_1_cpu"} <= {row.method for row in found}


@pytest.mark.parametrize(
  ("filters", "kept"),
  [
    ({"paper": "raghu"}, lambda row: row.method.startswith("anil")),
    ({"method": "MAML"}, lambda row: "maml" in row.method),
    ({"measured": True}, lambda row: row.measured != listing.NOT_RUN),
    ({"paper": "1909.04630", "method": "hf", "measured": True}, lambda row: row.method.startswith("imaml_hf")),
  ],
)
def test_filters_leave_the_rows_that_they_name(filters, kept):
  every = listing.rows(recipes.load("omniglot"))
  found = listing.select(every, **filters)
  assert found and all(map(kept, found)) and len(found) < len(every)


def test_a_recipe_outside_of_the_repository_is_listed_without_its_namesake_s_records(tmp_path):
  file = tmp_path / "sinusoid.py"
  file.write_text("METHODS = {'maml': {'data': {'name': 'sinusoid'}, 'published': {'number': 1.0, 'interval': 0.5}}}")
  (row,) = listing.rows(recipes.load(file))
  assert row == ("sinusoid", "maml", "Finn et al. 2017, arXiv 1703.03400", "1.0 +/- 0.5", listing.NOT_RUN)


def test_a_filter_that_leaves_nothing_is_an_error():
  with pytest.raises(ValueError, match=r"no row has paper 'nobody' and method ''\."):
    listing.text(["omniglot"], paper="nobody")


def test_every_paper_has_a_row():
  rows = [row for name in recipes.names() for row in recipes.load(name).methods]
  assert set(listing.PAPERS) - {"l2l"} <= {listing.prefix_of(method) for method in rows}


def test_the_commands_need_no_other_flag(commands):
  done = commands.run("experiments.train", ["--list"])
  assert "benchmark --config=configs/benchmark.py:accuracy|memory" in done.stdout
  for part in ("omniglot: ", "meta_sgd_cpu", "arXiv 1909.00025", "--config=EXPERIMENT:METHOD"):
    assert part in done.stdout
  done = commands.run("warpjax.runner.__main__", ["list", "--experiment=maze", "--measured"])
  assert "warp_rnn" in done.stdout and "hebbian" not in done.stdout and "omniglot" not in done.stdout
