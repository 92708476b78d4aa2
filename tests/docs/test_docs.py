"""The documentation builds without a warning and covers every public name; its links lead somewhere."""

from __future__ import annotations

import functools
import importlib.util
import pathlib
import re
import subprocess
import sys
import types

import pytest

import warpjax
from tests import test_conformance as conformance
from warpjax import runner
from warpjax.runner import workdir
from warpjax.runner.__main__ import COMMANDS
from warpjax.runner.config import listing, recipes, registry, schema, settings

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
FOLDERS = (".", "get_started", "concepts", "how_to", "papers", "reference")
PAGES = [path for folder in FOLDERS for path in sorted((DOCS / folder).glob("*.md"))]


def load(name):
  spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  sys.path.insert(0, str(DOCS))  # for what it imports of its folder
  try:
    spec.loader.exec_module(module)
  finally:
    sys.path.remove(str(DOCS))
  return module


GENERATED = load("generated")
PUBLIC = [full for name, module in GENERATED.modules().items() for full in GENERATED.names(name, module)]


def test_the_nouns_are_public():
  assert {"warpjax.types.MetaParams", "warpjax.rules.meta_sgd", "warpjax.meta_gradients.unrolled"} <= set(PUBLIC)
  assert {"warpjax.tasks.few_shot.sampler", "warpjax.linear_solve.cg", "warpjax.adaptation.adapt"} <= set(PUBLIC)


def test_presets_are_public_and_on_the_page_of_their_module(tmp_path):
  """They are instances of `functools.partial`, neither functions nor classes."""
  assert {"warpjax.networks.maml_omniglot", "warpjax.networks.reptile_sinusoid"} <= set(PUBLIC)
  GENERATED.write_api(tmp_path)
  page = (tmp_path / "warpjax.networks.md").read_text(encoding="utf-8")
  assert ".. py:function:: maml_mini_imagenet(" in page and "Conv4(width=32" in page


def test_every_public_name_is_in_the_table_of_its_module_and_of_its_group():
  pages, groups = GENERATED.api_pages.pages(), GENERATED.api_pages.groups()
  assert sorted(name for members in groups.values() for name in members) == sorted(GENERATED.modules())
  assert "warpjax.numerics" in groups["internals"] and "warpjax.types" in groups["core"]
  for group, members in groups.items():
    for name in members:
      module = GENERATED.modules()[name]
      for full in GENERATED.names(name, module):
        if not isinstance(getattr(module, full.rpartition(".")[2]), functools.partial):
          assert all(f"<{full}>`" in pages[f"{page}.md"] for page in (name, group)), full
  assert all(f"<warpjax.{home}.{name}>`" in pages["index.md"] for name, home in warpjax._HOMES.items())


def test_every_field_of_a_public_named_tuple_is_among_its_attributes():
  objects = {
    full: getattr(module, full.rpartition(".")[2])
    for name, module in GENERATED.modules().items()
    for full in GENERATED.names(name, module)
  }
  tuples = {full: value for full, value in objects.items() if isinstance(value, type) and hasattr(value, "_fields")}
  missing = {}
  for full, value in tuples.items():
    _, heading, text = value.__doc__.partition("Attributes:")
    named = re.findall(r"^ {2,4}(\w+): ", text, re.MULTILINE) if heading else []
    if absent := [field for field in value._fields if field not in named]:
      missing[full] = absent
  assert tuples and not missing


def test_every_public_name_has_a_docstring():
  undocumented = [
    full
    for name, module in GENERATED.modules().items()
    for full in [name, *GENERATED.names(name, module)]
    if not (module if full == name else getattr(module, full.rpartition(".")[2])).__doc__
  ]
  assert not undocumented


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page):
  for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
    target = (page.parent / link).resolve().relative_to(DOCS)
    if target.parts[0] == "notebooks" and target.stem != "index":
      assert (ROOT / "experiments" / target).exists(), link
    elif target.parts[0] == "api" and target.stem != "index":
      assert target.stem in {*GENERATED.modules(), *GENERATED.api_pages.GROUPS}, link
    elif target.parts[0] not in ("api", "combinations", "experiments", "notebooks", "settings"):
      assert (DOCS / target).exists(), link


def test_the_recipe_of_your_own_method_is_built(tmp_path, monkeypatch):
  """The first block is a file, which brings a rule; the marks of the tasks are those that there are."""
  text = (DOCS / "how_to" / "your_method.md").read_text(encoding="utf-8")
  blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
  (tmp_path / "my_method.py").write_text(blocks[0])
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, "path", list(sys.path))
  try:
    config = runner.load_config("my_method.py:mine", "inner.num_steps=3")
    assert runner.build(config).inner.num_steps == 3 and "published" not in config
    tasks = next(block for block in blocks if "Annotated" in block)
    recipe = blocks[blocks.index(tasks) + 1]
    (tmp_path / "my_tasks.py").write_text(tasks + recipe)
    lines = settings.reference(own := runner.load_config("my_tasks.py:lines"))
    short = {
      "num_meta_steps": 4,
      "steps_per_dispatch": 2,
      "checkpoint_every": 4,
      "eval": {**own["eval"], "num_tasks": 2},
    }
    assert runner.train_and_evaluate({**own, **short}, tmp_path / "run")["mean"] > 0
    marks = {setting.path: set(setting.marks) for setting in lines}
    assert marks["data.shots"] == {"test"} and marks["data.noise"] == {"problem"}
  finally:
    for name in ("my_method", "my_tasks"):
      sys.modules.pop(name, None)
  words = {mark for name in vars(schema) if name.startswith("Of") for mark in getattr(schema, name).__metadata__}
  assert words == set(re.findall(r'^\| `"(\w+)"` \|', text, re.MULTILINE))


def test_the_tables_of_commands_have_all_of_them():
  """Those of `warpjax NAME`, then those of a checkout alone."""
  text = (DOCS / "how_to" / "launching.md").read_text(encoding="utf-8").partition("## Commands")[2]
  installed, checkout = text.split("These commands exist only in a checkout")
  names = lambda table: re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)))
  assert names(installed) == list(COMMANDS)
  there = {path.stem for path in (ROOT / "experiments").glob("[a-z]*.py")} | {"report"}
  assert set(names(checkout)) | set(COMMANDS) | {"prepare_data"} == there | {"list", "prepare"}


def test_the_logger_of_ten_lines_logs_what_metrics_jsonl_has(tmp_path, monkeypatch):
  """The page's code, with a stand-in for `wandb`, shorter."""
  rows, summary = [], {}
  log = types.SimpleNamespace(log=lambda values, step: rows.append((step, values)), summary=summary)
  monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **settings: log))
  monkeypatch.chdir(tmp_path)
  text = (DOCS / "how_to" / "sweeps_and_logs.md").read_text(encoding="utf-8")
  (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
  assert len([line for line in block.splitlines() if line]) <= 10
  short = "num_meta_steps=4", "steps_per_dispatch=2", "checkpoint_every=2", "eval.num_tasks=8", "eval.val_tasks=8"
  exec(block.replace('"sinusoid:maml")', f'"sinusoid:maml", *{short})'), namespace := {})
  kept = workdir.read_metrics(tmp_path / "runs" / "maml")
  assert [(step, "train/loss" in values, "val/mse" in values) for step, values in rows] == [
    (row["step"], row["split"] == "train", row["split"] == "val") for row in kept
  ]
  assert [row["split"] for row in kept] == ["train", "val"] * 2
  assert rows[0][1]["train/loss"] == kept[0]["loss"]
  assert summary == {key: namespace["result"][key] for key in ("mean", "ci95")}


@pytest.mark.parametrize("kind", registry.KINDS)
def test_the_page_of_settings_has_every_setting_of_every_component(kind, tmp_path):
  """Of each component, what `--settings` prints, with its type and default."""
  GENERATED.write_settings(tmp_path)
  page = (tmp_path / "index.md").read_text(encoding="utf-8")
  section = next(part for part in page.split("\n## ") if part.startswith(f"`{kind}`"))
  key = registry.KEY[kind]
  for name in registry.TABLES[kind]:
    assert f"`{name}`" in section
    for setting in settings.reference({kind: {key: name}}):
      if setting.path.startswith(f"{kind}.") and setting.path != f"{kind}.{key}":
        rows = [line for line in section.splitlines() if line.startswith(f"| `{setting.path}` |")]
        assert rows and setting.doc, setting.path
        default = "required" if setting.required else str(setting.default)
        assert any(schema.describe(setting.hint) in row.replace("\\", "") for row in rows), setting.path
        assert setting.default is None or any(default in row for row in rows), setting.path


def test_the_page_of_combinations_has_every_estimator_and_what_it_refuses(tmp_path):
  GENERATED.write_combinations(tmp_path)
  page = (tmp_path / "index.md").read_text(encoding="utf-8")
  rows = {name: re.search(rf"^\| `{name}` \| (.*) \|$", page, re.MULTILINE).group(1) for name in conformance.ESTIMATORS}
  assert rows["mixed"] == "yes | yes | yes | yes | all but `newton_cg`, `lbfgs`"
  assert rows["penalty"] == "yes | yes | yes | - | all" and rows["leap"] == "yes | - | - | - | all"


@pytest.mark.parametrize("name", recipes.names())
def test_the_page_of_a_recipe_has_its_rows_in_tables_and_its_commands_as_code(name):
  recipe = recipes.load(name)
  page = GENERATED.recipe_pages.page(recipe)
  plain = re.sub(r"```\n.*?```|`[^`\n]*`", "", page, flags=re.DOTALL)
  assert "python -m" not in plain and "--config=" not in plain and not re.search(r"^ {2,}\S", plain, re.MULTILINE)
  rows = listing.rows(recipe) if listing.is_trained(recipe) else []
  for row in rows:
    assert f"`{row.method}`" in page
    assert row.measured in ("not yet run", "-") or f"| `{row.method}` | {row.published} | {row.measured} |" in page
  assert f"| {len(rows) or len(recipe.methods)} |" in index_of_recipes().split(f"[{name}]")[1]


@functools.cache
def index_of_recipes():
  return GENERATED.recipe_pages.pages()["index.md"]


def test_the_gallery_has_a_picture_of_every_notebook(tmp_path):
  folder = tmp_path / "notebooks"
  GENERATED.write_notebooks(folder)
  page = (folder / "index.md").read_text(encoding="utf-8")
  for path in (ROOT / "experiments" / "notebooks").glob("*.ipynb"):
    assert f"]({path.name})" in page and (folder / "thumbnails" / f"{path.stem}.png").stat().st_size > 1000
    assert GENERATED.PICTURE_DATA not in (folder / path.name).read_text(encoding="utf-8")


def test_the_page_of_settings_has_the_marks_that_there_are(tmp_path):
  words = {mark for name in vars(schema) if name.startswith("Of") for mark in getattr(schema, name).__metadata__}
  assert words == set(GENERATED.settings_reference.MARKS)


@pytest.mark.slow
def test_it_builds_without_a_warning_and_covers_every_public_name(tmp_path):
  pytest.importorskip("sphinx", reason="the docs extra is not installed")
  pytest.importorskip("sphinx_copybutton", reason="the docs extra was installed before it had all of this")
  from sphinx.util.inventory import InventoryFile

  command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"]
  done = subprocess.run([*command, str(DOCS), str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr[-4000:]
  with open(tmp_path / "objects.inv", "rb") as file:
    inventory = InventoryFile.load(file, "", lambda base, path: path)
  documented = {name for kind, found in inventory.items() if kind.startswith("py:") for name in found}
  assert not set(PUBLIC) - documented
