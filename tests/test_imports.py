"""Imports go downwards only, flax stays in networks, and importing warpjax stays light."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

import warpjax

ROOT = pathlib.Path(__file__).parents[1]

# A module may import those of the rows above its own; a new module gets a place here.
LAYERS = (
  {"datasets", "processor", "types"},
  {"compilation", "jaxprs", "numerics"},
  {"mistakes"},
  {"padding"},
  {"checks"},
  {"differentiation", "linear_solve", "losses", "partition"},
  {"memory", "zero_gradient"},
  {"problem"},
  {"adaptation", "networks", "rules"},
  {"meta_gradients"},
  {"training"},
  {"tasks"},
  {"evaluation", "rl"},
  {"diagnostics"},
  {"runner"},
)
# The same of the runner's modules, each of which has a name of its own.
RUNNER = (
  {"canvas", "interrupts", "norm_stats", "outer_step", "provenance", "recipes", "tables", "workdir"},
  {"hosts", "progress", "remembered", "schema", "sections", "watch"},
  {"base", "compiled", "meta_gradients", "optimizers", "rules", "run_settings", "warp", "writers"},
  {"bilevel", "image_data", "multi_shot", "optimizees", "reinforcement", "synthetic"},
  {"learners"},
  {"registry"},
  {"records", "settings"},
  {"experiment", "listing"},
  {"protocol"},
  {"cli", "figures", "measure", "recording", "results"},
  {"curves", "lowering", "selection"},
  {"origins"},
  {"loop"},
  {"evaluations", "profiling", "run", "tuning"},
  {"cores", "grid"},
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


def runner_module(name: str) -> str:
  """The module of the runner that an imported name is, or is of; "" for none."""
  parts = name.removeprefix("warpjax.runner").split(".") if name.startswith("warpjax.runner.") else []
  return next((part for part in parts if any(part in row for row in RUNNER)), "")


def test_the_modules_of_the_runner_import_downwards():
  level = {module: number for number, row in enumerate(RUNNER) for module in row}
  outside = ("__init__", "__main__")  # the commands and the Python API are above all of them
  files = [path for path in FILES if module_of(path) == "runner" and path.stem not in outside]
  files = [path for path in files if path.parent.name != "commands"]
  assert sorted(level) == sorted(path.stem for path in files)
  for path in files:
    below = {module for module in map(runner_module, imported(path)) if module and module != path.stem}
    assert all(level[module] < level[path.stem] for module in below), f"{path}: {below}"


def test_every_layer_exists():
  assert set(LEVEL) <= {module_of(path) for path in FILES}


def test_importing_the_package_alone_imports_none_of_it():
  """So that a command hears Ctrl-C, and answers --help, before the seconds that importing JAX takes."""
  code = (
    "import sys, warpjax, warpjax.runner.__main__; print([n for n in ('jax', 'numpy', 'absl') if n in sys.modules])"
  )
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_no_other():
  assert all(getattr(warpjax, name) is not None for name in warpjax.__all__)
  assert set(warpjax.__all__) <= set(dir(warpjax)) and warpjax.types.Task is warpjax.Task
  assert warpjax.sanity is warpjax.diagnostics  # its name in version 0.1.0
  for name in ("adpat", "__wrapped__", "_nothing"):
    assert not hasattr(warpjax, name)


def test_a_first_use_inside_of_jit_leaks_no_tracer():
  used = "[getattr(warpjax, name) for name in warpjax.__all__]"
  program = f"jax.jit(lambda x: ({used}, x + 1)[1])"
  code = f"import jax, warpjax\nwith jax.checking_leaks(): print({program}(1))"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "2"


def test_import_is_light_and_starts_no_backend():
  heavy = ["tensorflow_datasets", "tensorflow", "orbax", "gymnax", "matplotlib", "PIL", "tqdm", "flax", "jax.extend"]
  loaded = f"[name for name in {heavy} if name in sys.modules]"
  used = "[getattr(warpjax, name) for name in warpjax.__all__ if name != 'networks']"
  code = f"import sys, warpjax; {used}; from jax._src import xla_bridge as xla; print({loaded}, "
  code += "xla.backends_are_initialized())"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "[] False"
