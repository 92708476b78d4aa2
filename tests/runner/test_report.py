"""RESULTS.md, README and the docs are what the records say, and say why a number is short of its paper's."""

from __future__ import annotations

import re

import pytest

from warpjax.runner import workdir
from warpjax.runner.commands import report
from warpjax.runner.config import recipes
from warpjax.runner.reporting import records, results

ENTRIES = list(results.entries())
FIELDS = {"metric", "mean", "ci95", "over", "seeds", "num_tasks", "num_meta_steps", "tasks_per_step", "command"}
OF_A_RUN = FIELDS | {"per_step", "protocol", "commit", "versions", "machine", "wall_seconds"}
INTERVAL = re.compile(r"\d[\d.]* \+/- [\d.]+")


def entry(name):
  return next(entry for entry in ENTRIES if f"{entry.recipe.name}:{entry.method}" == name)


def test_the_files_are_what_is_written_now():
  assert not report.stale(), "run warpjax report"


def test_a_stale_file_is_named_and_written(tmp_path, monkeypatch):
  monkeypatch.setattr(report, "ROOT", tmp_path)
  readme = tmp_path / "README.md"
  readme.write_text("before\n<!-- report: highlights -->\n98.0\n<!-- end of report -->\nafter\n")
  found = report.stale()
  assert set(found) == {readme, tmp_path / "RESULTS.md"}
  for path, text in found.items():
    path.write_text(text)
  lines = readme.read_text().splitlines()
  assert (lines[0], lines[-1]) == ("before", "after") and "98.0" not in lines and not report.stale()


def test_every_record_belongs_to_a_row_and_to_one_section():
  shown = [(entry.recipe.name, entry.method) for entry in ENTRIES]
  folders = [path for path in records.FOLDER.iterdir() if path.name != "benchmark"]
  assert sorted(shown) == sorted((folder.name, path.stem) for folder in folders for path in folder.glob("*.json"))
  for recipe, method in shown:
    record = records.load(recipe)[method]
    assert (record["experiment"], record["method"]) == (recipe, method) and recipes.load(recipe).has(method)
    assert set(record) >= (FIELDS if "origin" in record else OF_A_RUN)


def test_further_numbers_are_numbers_with_their_names():
  for other in (other for entry in ENTRIES for other in entry.record.get("others", ())):
    values = [
      *other.get("values", {}).values(),
      *(other[key] for key in ("mean", "ci95", "low", "high") if key in other),
    ]
    assert other["what"] and values and all(value is None or isinstance(value, int | float) for value in values), other
    assert records.further(other)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.recipe.name}-{entry.method}")
def test_a_number_outside_its_paper_s_interval_says_why(entry):
  said, record = entry.recipe.settings(entry.method).get("published"), entry.record
  if said is None or record["metric"] == "height":
    return
  short = (said["number"] - record["mean"]) * (-1 if record["metric"] in ("mse", "loss") else 1)
  assert short <= said["interval"] + (record["ci95"] or 0) + 1e-9 or record["reason"]  # the intervals meet, or why not


def test_no_measured_number_is_typed_a_second_time():
  """Intervals of records are in no page but between the report's marks, and in no recipe."""
  said = [records.measured(entry.record) for entry in ENTRIES]
  said += [records.further(other) for entry in ENTRIES for other in entry.record.get("others", ())]
  found = {text for each in said for text in INTERVAL.findall(each)}
  patterns = (*report.PAGES, "docs/concepts/*.md", "configs/*.py")
  for path in (path for pattern in patterns for path in report.ROOT.glob(pattern)):
    text = report.BLOCK.sub("", path.read_text(encoding="utf-8"))
    assert not found & set(INTERVAL.findall(text)), path


def test_a_smoke_size_depends_on_the_budget_alone():
  small = [entry("omniglot:maml_cpu"), entry("omniglot:imaml_cpu"), entry("omniglot:anil_cpu")]
  large = [entry("omniglot:reptile_cpu"), entry("sinusoid:imaml_nystrom"), entry("navigation:maml")]
  for mean in (0.0, 1.0):
    assert all(results.is_smoke(each._replace(record={**each.record, "mean": mean})) for each in small)
    assert not any(results.is_smoke(each._replace(record={**each.record, "mean": mean})) for each in large)
  smoke = results.results().split("## Smoke size")[1].split("\n## ")[0]
  assert "| gap |" not in smoke and "`omniglot.py:maml_cpu`" in smoke and "`omniglot.py:reptile_cpu`" not in smoke


def test_readme_has_the_rows_that_matter_most_with_what_their_papers_have():
  text = results.highlights()
  assert len(text.splitlines()) == 2 + len(results.sections.HIGHLIGHTS) == 10
  for recipe, method in results.sections.HIGHLIGHTS:
    assert f"| `{recipe}.py:{method}` |" in text and entry(f"{recipe}:{method}").published


def test_readme_s_reasons_have_figures_from_the_records():
  text, peers = results.why(), workdir.read_json(records.FOLDER / "benchmark" / "peers_amd_epyc.json")
  names, paths = ("omniglot_5", "omniglot_1", "mini_5", "mini_1"), ("warpjax", "warpjax_cores")
  fastest = max(row["speedup"] for name in names for row in peers["cases"][name] if row["method"] in paths)
  assert f"to {fastest:.1f} times as fast" in text and "256 inner steps" in text and "{" not in text


def test_cells_of_a_row():
  cells = results.cells(entry("omniglot:reptile_cpu"))
  assert cells["method"] == "reptile" and cells["budget"] == "40,000 x 5 of 100,000 x 5"
  assert cells["published"] == "97.68 +/- 0.04" and float(cells["gap"]) < 0
  alone = results.cells(entry("omniglot:reptile_cpu"), alone=True)
  assert alone["method"] == "reptile, no transduction" and alone["published"] == "95.39 +/- 0.09"
  studies = results.cells(entry("reptile_studies:g_1_cpu"))
  assert "--config.eval.norm_stats=support_plus_one" in studies["recipe"] and studies["gap"] == ""


def test_the_page_of_a_paper_has_the_rows_of_all_of_its_methods():
  maml, reptile = results.paper("maml"), results.paper("reptile")
  assert "`omniglot.py:fomaml_cpu`" in maml and "`omniglot.py:imaml_cpu`" not in maml
  assert "`reptile_studies.py:sum_4_cpu`" in reptile and "`omniglot.py:reptile_cpu`" in reptile


def test_the_page_of_a_paper_has_the_measured_rows_first():
  missing = ["not yet run" in line for line in results.paper("maml").splitlines()]
  assert missing == sorted(missing) and any(missing) and not all(missing[2:])


def test_the_page_of_a_paper_without_a_number_names_its_rows(monkeypatch):
  monkeypatch.setattr(records, "load", lambda recipe: {})
  assert results.paper("learning_rate") == (
    "Not yet measured: `bilevel.py:learning_rate_high`, `bilevel.py:learning_rate_low`."
  )


def test_outside_of_a_checkout_it_is_refused(monkeypatch):
  monkeypatch.setattr(recipes, "CHECKOUT", None)
  with pytest.raises(ValueError, match="in a checkout of warpjax; this warpjax is installed"):
    report.main()


@pytest.mark.parametrize("name", [name for name in recipes.names() if recipes.load(name).common])
def test_the_metric_of_a_row_is_that_of_its_data(name):
  recipe = recipes.load(name)
  metrics = {records.metric_of(recipe.settings(method)) for method in recipe.names()}
  assert {record["metric"] for record in records.load(name).values()} <= metrics and len(metrics) == 1 and all(metrics)


def test_the_time_of_one_seed_with_the_machine_of_the_run():
  record = {"wall_seconds": 2 * 5400.0, "seeds": [0, 1], "machine": {"cpu": "a CPU", "cores": 2}}
  assert results.time(record) == "90 min, a CPU, 2 cores"
  assert results.time({**record, "wall_seconds": 2 * 9000.0}) == "2.5 h, a CPU, 2 cores"


def test_rows_that_were_never_run_are_listed_once():
  text = results.results()
  never = text.split("## Never run")[1]
  assert "`maze.py`: `hebbian`" in never and "not yet run" not in text


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_s_docstring_is_short_and_names_paper_and_command(name):
  doc = recipes.load(name).doc
  assert len(doc.splitlines()) <= 40 and "arXiv" in doc and "python -m experiments." in doc
  assert " +/- " not in doc and "not yet run" not in doc
