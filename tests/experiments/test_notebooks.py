"""Each notebook has stored outputs, small ones, and a new run prints and draws the same."""

from __future__ import annotations

import copy
import pathlib

import nbformat
import pytest

from tests.experiments import notebook_outputs

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb"))
MOST_BYTES = 200_000


def test_there_are_notebooks():
  assert {"1_compose", "2_your_own_method"} <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_outputs_are_stored_and_small(path):
  """`python -m tests.experiments.notebook_outputs --write FILE` stores them."""
  cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
  assert any(notebook_outputs.texts(cell).strip() for cell in cells)
  assert all(cell.execution_count is None for cell in cells)
  assert not [cell.source for cell in cells if " at 0x" in notebook_outputs.texts(cell)]
  assert path.stat().st_size <= MOST_BYTES


@pytest.mark.slow
@pytest.mark.timeout(1200)  # two minutes on a core that does nothing else
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_new_run_prints_and_draws_the_same(path, monkeypatch):
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  monkeypatch.delenv("XLA_FLAGS", raising=False)  # the sixth chooses its own number of devices
  stored = nbformat.read(path, as_version=4)
  found = list(notebook_outputs.differences(stored, notebook_outputs.execute(path)))
  assert not found, "\n".join(found)


def test_what_differs_is_found():
  """A changed number, a curve of another shape and a missing picture; not times, and not a small drift."""
  lines = [[[0.0, 1.0, 2.0], [3.0, 2.0, 1.0]]]
  drawn = {"data": {notebook_outputs.DATA: [{"labels": ["step", "error"], "lines": lines, "images": []}]}}
  outputs = [{"output_type": "stream", "name": "stdout", "text": "error 0.50 in 12 ms\n"}]
  outputs.append({"output_type": "display_data", "metadata": {}, **drawn})
  stored = nbformat.v4.new_notebook(
    cells=[nbformat.v4.new_code_cell("f()", outputs=list(map(nbformat.from_dict, outputs)))]
  )
  other = lambda: copy.deepcopy(stored)
  differences = lambda new: list(notebook_outputs.differences(stored, new))
  assert not differences(other())
  same = other()
  same.cells[0].outputs[0].text = "error 0.52 in 99 ms\n"
  notebook_outputs.pictures(same.cells[0])[0][0]["lines"][0][1][0] = 3.1
  assert not differences(same)
  worse = other()
  worse.cells[0].outputs[0].text = "error 0.90 in 12 ms\n"
  notebook_outputs.pictures(worse.cells[0])[0][0]["lines"][0][1] = [3.0, 4.0, 5.0]
  assert len(differences(worse)) == 2
  missing = other()
  del missing.cells[0].outputs[1]
  assert differences(missing) == ["cell 0: 1 pictures are stored and 0 drawn"]
