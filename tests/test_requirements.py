"""setup.py declares what is imported, and nothing else."""

from __future__ import annotations

import ast
import functools
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("warpjax", "experiments", "configs", "tests", "docs")
OURS = {*FOLDERS, *(path.stem for path in (ROOT / "docs").glob("*.py"))}
NAMES = {"PIL": "pillow", "absl": "absl-py", "orbax": "orbax-checkpoint", "tensorflow_datasets": "tensorflow-datasets"}
TOOLS = {
  "furo": "the theme of the documentation",
  "importlib-resources": "imported by tensorflow-datasets, which does not declare it",
  "ipykernel": "runs the notebooks",
  "jaxlib": "the half of JAX that a machine may pin",
  "mypy": "a command",
  "myst-nb": "an extension of sphinx",
  "sphinx-copybutton": "an extension of sphinx",
  "pytest-timeout": "a plugin of pytest",
  "pytest-xdist": "a plugin of pytest",
  "ruff": "a command",
}


@functools.cache
def imports(path, inside_functions=True):
  """The distributions that a file imports."""
  tree = ast.parse(path.read_text(encoding="utf-8"))
  nodes = ast.walk(tree) if inside_functions else iter(tree.body)
  modules = [
    module
    for node in nodes
    for module in (
      [alias.name for alias in node.names]
      if isinstance(node, ast.Import)
      else [node.module]
      if isinstance(node, ast.ImportFrom)
      else [node.args[0].value]
      if isinstance(node, ast.Call)
      and ast.unparse(node.func) in ("importlib.import_module", "pytest.importorskip")
      and isinstance(node.args[0], ast.Constant)
      else []
    )
  ]
  tops = {module.split(".")[0] for module in modules} - OURS - set(sys.stdlib_module_names)
  return {NAMES.get(top, top).lower().replace("_", "-") for top in tops}


def imported(*folders, inside_functions=True):
  return {
    name: path
    for folder in folders
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "_build" not in path.parts
    for name in imports(path, inside_functions)
  }


@pytest.fixture
def declared(monkeypatch):
  """The names that each extra and the core (`""`) require."""
  arguments = {}
  fake = types.SimpleNamespace(setup=lambda **keywords: arguments.update(keywords), find_packages=lambda **_: [])
  monkeypatch.setitem(sys.modules, "setuptools", fake)
  build = types.SimpleNamespace(build_py=type("build_py", (), {}))
  monkeypatch.setitem(sys.modules, "setuptools.command", types.SimpleNamespace(build_py=build))
  monkeypatch.setitem(sys.modules, "setuptools.command.build_py", build)
  runpy.run_path(str(ROOT / "setup.py"))
  name = lambda requirement: re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")
  groups = {"": arguments["install_requires"], **arguments["extras_require"]}
  return {group: {name(requirement) for requirement in group_of} for group, group_of in groups.items()}


def test_what_is_imported_is_declared(declared):
  everything = set().union(*declared.values())
  assert not {name: str(path) for name, path in imported(*FOLDERS).items() if name not in everything}


def test_importing_a_module_of_the_library_needs_no_extra(declared):
  needed = imported("warpjax", inside_functions=False)
  assert not {name: str(path) for name, path in needed.items() if name not in declared[""]}


def test_the_tests_need_the_core_and_their_extra(declared):
  optional = declared["rl"] | declared["docs"] | declared["peers"]  # behind pytest.importorskip, or another process
  installed = declared[""] | declared["test-core"]
  assert not {name: str(path) for name, path in imported("tests").items() if name not in installed | optional}


def test_what_is_declared_is_imported(declared):
  assert set().union(*declared.values()) - set(imported(*FOLDERS)) <= set(TOOLS)


def test_only_the_rl_extra_and_what_takes_it_in_bounds_jax(declared):
  assert [group for group, names in declared.items() if "gymnax" in names] == ["rl", "test"]
  assert declared["test"] == declared["test-core"] | declared["rl"]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
  ("arguments", "folder"),
  [
    ((), ".venv"),
    (("EXTRAS=test-core",), ".venv-test-core"),
    ((f"PYTHON={sys.executable}",), ".venv-{version}"),
    ((f"PYTHON={sys.executable}", "EXTRAS=test-core"), ".venv-{version}-test-core"),
    ((f"PYTHON={sys.executable}", "VENV=elsewhere"), "elsewhere"),
  ],
)
def test_another_python_or_extra_gets_an_environment_of_its_own(arguments, folder):
  environment = {
    key: value for key, value in os.environ.items() if key not in ("PYTHON", "EXTRAS", "VENV", "MAKEFLAGS")
  }
  command = ["make", "--no-print-directory", "where", *arguments]
  done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
  assert done.stdout.strip() == folder.format(version=f"{sys.version_info.major}.{sys.version_info.minor}") + "/bin"
