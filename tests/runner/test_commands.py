"""The commands of `warpjax NAME`: each has a module, a line in the docs, and a script in a checkout."""

from __future__ import annotations

import importlib
import pathlib
import re
import subprocess
import sys

import pytest

from tests.runner.commands import told
from warpjax.runner import cli
from warpjax.runner.__main__ import COMMANDS, MODULES

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_module_and_a_script(name):
  module = MODULES.get(name, name)
  assert callable(importlib.import_module(f"warpjax.runner.commands.{module}").command)
  assert name == "list" or (ROOT / "experiments" / f"{module}.py").exists()


def test_the_table_of_the_docs_has_every_command():
  text = (ROOT / "docs" / "how_to" / "launching.md").read_text(encoding="utf-8")
  installed, in_a_checkout = text.split("These commands exist only in a checkout")
  names = lambda part: re.findall(r"^\| `(\w+)` \| [a-z]", part, re.MULTILINE)
  assert names(installed) == list(COMMANDS) and "benchmark" in names(in_a_checkout)


def test_a_reader_that_ends_early_is_no_error():
  process = subprocess.Popen(
    [sys.executable, "-m", "warpjax.runner", "list", "--experiment=sinusoid"],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout is not None and process.stderr is not None
  process.stdout.close()
  assert (told(process.stderr.read()), process.wait(timeout=120)) == ([], 141)


@pytest.mark.parametrize(
  ("given", "settings", "others"),
  [
    (["--config.a.b=1", "--seeds", "2"], ["a.b=1"], ["--seeds", "2"]),
    (["--config.a.b", "1", "--seeds=2"], ["a.b=1"], ["--seeds=2"]),
    (["--config.a", "-0.5", "--config.b", "x=y"], ["a=-0.5", "b=x=y"], []),
    (["--config.a", "--seeds=2", "--config.b"], ["a", "b"], ["--seeds=2"]),
  ],
)
def test_the_value_of_a_setting_may_follow_after_a_space(given, settings, others):
  assert cli._settings(given) == (settings, others)


def test_the_package_is_the_command_too():
  done = subprocess.run([sys.executable, "-m", "warpjax", "trian"], capture_output=True, text=True)
  assert done.returncode == 1 and "warpjax has no command 'trian'; did you mean 'train'?" in done.stderr
