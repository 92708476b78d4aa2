"""What belongs where: recipes are data, commands are on top, a string becomes an object in one place."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.test_imports import ROOT, imported

LIBRARY, EXPERIMENTS, CONFIGS = ROOT / "warpjax", ROOT / "experiments", ROOT / "configs"
MOST = 15  # modules of machinery in a folder
# A new method, network, sampler, data set or command is one file there, so that these grow.
GROW = (
  *("warpjax/rules", "warpjax/meta_gradients", "warpjax/networks", "warpjax/tasks", "warpjax/datasets", "warpjax/rl"),
  "experiments",
)
# Who turns a name into a module: of the config, of a recipe's file, and of a library that is patched.
BY_NAME = {"runner/config/registry.py", "runner/config/recipes.py", "datasets/tfds_files.py"}


def files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.rglob("*.py") if ".ipynb_checkpoints" not in path.parts)


def name_of(path: pathlib.Path) -> str:
  return str(path.relative_to(ROOT))


def ours(path: pathlib.Path) -> list[str]:
  """What a file imports of this repository."""
  return [name for name in imported(path) if name.split(".")[0] in ("warpjax", "configs", "experiments", "tests")]


@pytest.mark.parametrize("path", files(CONFIGS), ids=name_of)
def test_a_recipe_imports_recipes_alone(path):
  assert all(name.split(".")[0] in ("configs", "__future__") for name in imported(path)), imported(path)


def test_reading_every_recipe_loads_neither_jax_nor_flax():
  names = [path.stem for path in files(CONFIGS) if path.stem != "__init__"]
  code = f"import importlib, sys; [importlib.import_module('configs.' + name) for name in {names}]; "
  heavy = "[name for name in ('jax', 'flax', 'numpy', 'optax', 'warpjax') if name in sys.modules]"
  done = subprocess.run(
    [sys.executable, "-c", f"{code}print({heavy})"], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert len(names) >= 15 and done.stdout.strip() == "[]"


def test_the_reader_of_recipes_is_as_light_as_they_are():
  """So that a list of what there is to run, and --help, need not wait for JAX."""
  names = imported(LIBRARY / "runner" / "config" / "recipes.py")
  assert all(name.split(".")[0] in sys.stdlib_module_names for name in names), names


@pytest.mark.parametrize("path", files(EXPERIMENTS), ids=name_of)
def test_an_experiment_imports_the_library_recipes_and_sub_packages(path):
  for name in ours(path):
    parts = name.split(".")
    allowed = parts[0] in ("warpjax", "configs") or (EXPERIMENTS / (parts[1:] or ["-"])[0]).is_dir()
    assert allowed, f"{path} imports {name}"


@pytest.mark.parametrize("folder", [LIBRARY, CONFIGS], ids=name_of)
def test_nothing_below_imports_an_experiment_or_a_test(folder):
  for path in files(folder):
    assert not [name for name in ours(path) if name.split(".")[0] in ("experiments", "tests")], path


def test_nothing_of_the_library_imports_the_runner():
  for path in files(LIBRARY):
    if LIBRARY / "runner" not in path.parents and path != LIBRARY / "__main__.py":
      assert not [name for name in ours(path) if name.startswith("warpjax.runner")], path


def by_name(path: pathlib.Path) -> Iterator[ast.Call]:
  """The calls that import a module whose name is no constant, and no f-string of a name within this package."""
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
      ("import_module", "__import__", "spec_from_file_location", "run_path", "run_module")
    ):
      name = node.args[0]
      if isinstance(name, ast.JoinedStr):
        name = name.values[0]
      if not isinstance(name, ast.Constant) or (
        name is not node.args[0] and not str(name.value).startswith("warpjax.")
      ):
        yield node


def test_a_string_becomes_an_object_in_the_registry_alone():
  found = {str(path.relative_to(LIBRARY)) for path in files(LIBRARY) if any(by_name(path))}
  assert found == BY_NAME
  assert not [path for folder in (EXPERIMENTS, CONFIGS) for path in files(folder) if any(by_name(path))]


FOLDERS = sorted(
  {path.parent for top in (LIBRARY, EXPERIMENTS) for path in files(top)} - {ROOT / name for name in GROW}
)


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_a_folder_of_machinery_is_small(folder):
  modules = [path.stem for path in folder.glob("*.py") if path.stem not in ("__init__", "__main__")]
  assert len(modules) <= MOST, f"{len(modules)}: {', '.join(sorted(modules))}"


def test_no_two_modules_of_the_runner_share_a_name():
  names = [path.stem for path in files(LIBRARY / "runner") if path.stem not in ("__init__", "__main__")]
  assert sorted(set(names)) == sorted(names)


def lines_of_code(path: pathlib.Path) -> int:
  """Lines without blank ones, comments and docstrings."""
  code = ast.unparse(ast.parse(path.read_text(encoding="utf-8")))
  tree, lines = ast.parse(code), set(range(1, code.count("\n") + 2))
  for node in ast.walk(tree):
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
      lines -= set(range(node.lineno, node.end_lineno + 1))
  return len(lines - {number for number, line in enumerate(code.split("\n"), 1) if not line.strip()})


COMMANDS = [path for path in files(LIBRARY / "runner" / "commands") if path.stem != "__init__"]


@pytest.mark.parametrize("path", COMMANDS, ids=name_of)
def test_a_command_is_short(path):
  assert lines_of_code(path) <= 60


@pytest.mark.parametrize(
  "folder", sorted({path.parent for path in files(ROOT / "tests")} - {ROOT / "tests"}), ids=name_of
)
def test_the_tests_mirror_the_repository(folder):
  name = folder.relative_to(ROOT / "tests")
  assert any((top / name).is_dir() for top in (LIBRARY, ROOT)), f"{name} is the folder of nothing"
