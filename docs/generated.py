"""The pages made from the code: the API, a page for each recipe, and the settings of a run."""

from __future__ import annotations

import base64
import json
import pathlib
import re
import shutil

import api_pages
import recipe_pages
import settings_reference

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "experiments" / "notebooks"
ALIASES = (
  "LossFn",
  "Apply",
  "ApplyWithStats",
  "BatchFn",
  "QueryBatchFn",
  "LinearSolve",
  "TaskSampler",
  "Rate",
  "Scalar",
)
PICTURE_DATA = "application/vnd.warpjax.figure+json"
"""What a stored picture shows, for the test that compares it with a new run."""
COMBINATIONS = """# Which rule, which estimator, which task

Every estimator with every rule is a case of `tests/test_conformance.py`, from whose tables this page is made.

| estimator | few-shot | shared, query | bilevel | learned rule | rules |
|---|---|---|---|---|---|
{rows}

- *few-shot*: the start of the adaptation, `initial`. `implicit`, `warm_implicit`, `penalty`, `sama`, `soba` and
  `one_step` estimate it by the proximal term alone, so that `InnerLoop.prox` must be above 0.
- *shared, query*: `shared` that the query loss reads, such as a frozen body or warp-layers.
- *bilevel*: `shared` that the inner loss alone reads, such as the weights of examples or hyper-parameters. An estimator
  without a "yes" has a zero gradient there.
- *learned rule*: step sizes and other parameters of the rule.
- *rules*: those of {rules}.
  An estimator that differentiates a step refuses a rule without a derivative, by name.
- `truncated_unroll` has its default here, `derivative="first_order"`. With `"mixed"` it is for bilevel problems too.
- Estimators that carry a state do not go with `own_parameters` and `blockwise`.
"""
GALLERY = """# Notebooks

Each runs in less than two minutes on a core. A test runs them all again and compares what they print and draw.

::::{{container}} gallery
{cards}
::::

```{{toctree}}
:hidden:

{names}
```
"""
CARD = """:::{{container}} card
{picture}[{title}]({name}.ipynb)

{lead}
:::
"""
modules, names = api_pages.modules, api_pages.names


def write_api(folder: pathlib.Path) -> None:
  """Writes a page for each module, one for each group of modules, and an index."""
  _write(folder, api_pages.pages())


def write_experiments(folder: pathlib.Path) -> None:
  """Writes a page for each recipe, and an index."""
  _write(folder, recipe_pages.pages())


def write_notebooks(folder: pathlib.Path) -> None:
  """Writes the notebooks with their stored pictures, without the data of these, and a gallery of thumbnails."""
  shutil.rmtree(folder, ignore_errors=True)
  (folder / "thumbnails").mkdir(parents=True)
  cards, stems = [], []
  for path in sorted(NOTEBOOKS.glob("*.ipynb")):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    pictures = [(cell, output["data"]) for cell in cells for output in cell.get("outputs", ()) if "data" in output]
    pictures = [(cell, data) for cell, data in pictures if "image/png" in data]
    for _, data in pictures:
      del data[PICTURE_DATA]
    (folder / path.name).write_text(json.dumps(notebook), encoding="utf-8")
    tagged = [data for cell, data in pictures if "thumbnail" in cell["metadata"].get("tags", ())]
    for data in [*tagged, *(data for _, data in pictures)][:1]:
      (folder / "thumbnails" / f"{path.stem}.png").write_bytes(base64.b64decode(data["image/png"]))
    picture = f"[![](thumbnails/{path.stem}.png)]({path.stem}.ipynb)\n\n" if pictures else ""
    title, _, text = "".join(cells[0]["source"]).partition("\n\n")
    sentences = [part for part in re.split(r"(?<=\.)\s", text.split("\n\n")[0]) if part.endswith(".")][:2]
    lead = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(sentences))
    cards.append(CARD.format(name=path.stem, title=title.lstrip("# "), lead=lead, picture=picture))
    stems.append(path.stem)
  _write(folder, {"index.md": GALLERY.format(cards="\n".join(cards), names="\n".join(stems))})


def write_combinations(folder: pathlib.Path) -> None:
  """Writes the page of which rule goes with which estimator and which task, from the tables of the conformance test."""
  from tests import test_conformance as conformance

  rows = []
  for name in conformance.ESTIMATORS:
    refused = [f"`{rule}`" for rule in conformance.RULES if conformance.refused(rule, name)]
    estimated = ["yes" if part in conformance.ESTIMATES[name] else "-" for part in conformance.PARTS]
    rows.append(f"| `{name}` | {' | '.join(estimated)} | {'all but ' + ', '.join(refused) if refused else 'all'} |")
  rules = ", ".join(f"`{rule}`" for rule in conformance.RULES)
  _write(folder, {"index.md": COMBINATIONS.format(rows="\n".join(rows), rules=rules)})


def write_settings(folder: pathlib.Path) -> None:
  """Writes the page of settings."""
  _write(folder, {"index.md": settings_reference.page()})


def _write(folder: pathlib.Path, pages: dict[str, str]) -> None:
  """Writes the pages; those that nobody makes any more are removed."""
  folder.mkdir(exist_ok=True)
  for stale in set(folder.glob("*.md")) - {folder / page for page in pages}:
    stale.unlink()
  for page, text in pages.items():
    (folder / page).write_text(text, encoding="utf-8")
