"""Imports go downwards only, flax stays in networks, and importing warpjax stays light."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# A module may import those of the rows above its own; a new module gets a place here.
LAYERS = (
  {"datasets", "types"},
  {"compilation", "jaxprs", "numerics"},
  {"mistakes"},
  {"padding"},
  {"checks"},
  {"differentiation", "linear_solve", "losses", "partition"},
  {"zero_gradient"},
  {"problem"},
  {"adaptation", "networks", "rules"},
  {"meta_gradients"},
  {"training"},
  {"tasks"},
  {"evaluation", "rl"},
  {"diagnostics"},
  {"runner"},
)
LEVEL = {module: level for level, modules in enumerate(LAYERS) for module in modules}
FILES = sorted(path for path in (ROOT / "warpjax").rglob("*.py") if path != ROOT / "warpjax" / "__init__.py")
OUTSIDE = {"configs", "experiments", "tests"}


def imported(path: pathlib.Path) -> list[str]:
  """The full names that a file imports, wherever in it."""
  names: list[str] = []
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path} has a relative import"
      names += [f"{node.module}.{alias.name}" for alias in node.names]
  return names


def module_of(path: pathlib.Path) -> str:
  return path.relative_to(ROOT / "warpjax").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downwards(path):
  mine = module_of(path)
  assert mine in LEVEL, f"give {mine} a place in LAYERS"
  for name in imported(path):
    top, *rest = name.split(".")
    assert top not in OUTSIDE, f"{path} imports {name}"
    if name == "warpjax":
      assert mine == "runner", f"{path} imports the whole package"
    elif top == "warpjax":
      assert rest[0] == mine or LEVEL[rest[0]] < LEVEL[mine], f"{path} imports {name}, which is not below it"
    assert top != "flax" or mine == "networks", f"{path} imports flax"


def test_files_of_data_import_nothing_else_of_the_library():
  for path in FILES:
    if module_of(path) == "datasets":
      names = [name for name in imported(path) if name.startswith("warpjax")]
      assert all(name.startswith("warpjax.datasets") for name in names), path


def test_every_layer_exists():
  assert set(LEVEL) <= {module_of(path) for path in FILES}


def test_import_is_light_and_starts_no_backend():
  heavy = ["tensorflow_datasets", "tensorflow", "orbax", "gymnax", "matplotlib", "PIL", "tqdm", "flax", "jax.extend"]
  loaded = f"[name for name in {heavy} if name in sys.modules]"
  code = f"import sys, warpjax; from jax._src import xla_bridge; print({loaded}, xla_bridge.backends_are_initialized())"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "[] False"
