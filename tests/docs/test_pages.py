"""The code of the pages runs, in order, and prints what the pages show."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests.docs import page_code

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
QUICK = {"get_started/coming_from", "get_started/install", "how_to/batch_norm_and_dropout", "how_to/datasets"}
OWN = {"how_to/your_method", "how_to/sweeps_and_logs", "how_to/launching"}
"""Pages whose code is run by tests of their own, or is of a folder of the reader's."""

PAGES = [
  f"{folder}/{path.stem}"
  for folder in ("get_started", "how_to")
  for path in sorted((DOCS / folder).glob("*.md"))
  if "```python" in path.read_text(encoding="utf-8")
]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", sorted(QUICK))
def test_a_quick_page_runs(page):
  names = page_code.check(DOCS / f"{page}.md")
  if page == "how_to/batch_norm_and_dropout":
    assert int(names["state"].step) == 1 and bool(names["metrics"]["finite"])
    assert names["result"].per_task.shape == (8, 3)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(set(PAGES) - QUICK - OWN))
def test_a_page_runs(page, monkeypatch):
  """In a process of its own, as a page may choose the number of devices."""
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  command = [sys.executable, "-m", "tests.docs.page_code", str(DOCS / f"{page}.md")]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr[-4000:]


def test_every_page_of_how_to_says_first_what_it_solves():
  """A title, and behind it a paragraph."""
  for path in sorted((DOCS / "how_to").glob("*.md")):
    title, blank, first, *_ = path.read_text(encoding="utf-8").split("\n")
    assert title.startswith("# ") and not blank and first[:1].isalpha(), path.name


@pytest.mark.parametrize(
  ("shown", "printed", "agree"),
  [
    ("loss 0.50 after 3 steps", "loss 0.52 after 3 steps", True),
    ("loss 0.50 after 3 steps", "loss 0.50 after 4 steps", False),
    ("loss 0.50", "loss 0.70", False),
    ("loss 0.50", "loss nan", False),
    ("yes", "no", False),
  ],
)
def test_what_agrees(shown, printed, agree):
  assert (not page_code.differences(shown, printed)) == agree


def test_what_is_printed_is_put_into_a_page_once(tmp_path):
  page = tmp_path / "page.md"
  logged = f"```python\nimport time\nprint(time.time())\n```\n\n{page_code.HIDDEN}\n"
  page.write_text(
    f"# A\n\n```python\nx = 2\nprint(x)\n```\n\n```text\n3\n```\n\n```python\nx += 1\n```\n\nB\n\n{logged}"
  )
  with pytest.raises(AssertionError, match="3 is shown and 2 is printed"):
    page_code.check(page)
  page_code.write(page)
  once = page.read_text()
  assert "```text\n2\n```\n\n```python\nx += 1\n```\n\nB\n" in once and page_code.check(page)["x"] == 3
  page_code.write(page)
  assert page.read_text() == once
