"""What README says runs: its code, its commands' files, its links."""

from __future__ import annotations

import functools
import pathlib
import re

import optax
import pytest

import warpjax as wj
from warpjax import networks
from warpjax.runner.__main__ import COMMANDS
from warpjax.runner.config import recipes

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
EXAMPLE, CHANGES = BLOCKS


@functools.cache
def example(num_steps):
  """What README's example leaves, after fewer meta-steps."""
  assert len([line for line in EXAMPLE.splitlines() if line.strip()]) <= 15
  namespace: dict = {}
  exec(EXAMPLE.replace("num_steps=4000", f"num_steps={num_steps}"), namespace)
  return namespace


def test_it_is_short():
  assert len(README.splitlines()) <= 160 and len(README.split()) <= 900
  assert max(len(line) for line in README.splitlines() if not line.startswith("|")) <= 120


def test_the_example_runs():
  ran = example(2)
  assert int(ran["state"].step) == 2 and len(ran["new"].summary()["per_step"]) == 6


@pytest.mark.slow
def test_the_example_learns():
  errors = example(4000)["new"].summary()["per_step"]
  assert errors == sorted(errors, reverse=True) and errors[-1] < 0.7 < 2 < errors[0]


@pytest.mark.parametrize("line", CHANGES.splitlines())
def test_what_to_change_is_there(line):
  code, _, note = line.partition("  # ")
  own = {"module": networks.MLP(), "init": lambda key, params: (), "transform": lambda rule_params: optax.sgd(0.1)}
  inner = example(2)["inner"]._replace(prox=1.0 if "prox=1.0" in note else 0.0)
  made = eval(code, {**example(2), **own, "inner": inner, "linear_solve": wj.linear_solve})
  assert callable(made) or isinstance(made, wj.UpdateRule | networks.Network)


def test_every_config_and_file_named_is_there():
  named = re.findall(r"\b(\w+)\.py:(\w+)", README) + re.findall(r"--config=([a-z]\w*):(\w+)", README)
  assert named
  for name, method in named:
    assert recipes.load(name).has(method)
  for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
    assert (ROOT / link).exists(), link
  for module in re.findall(r"python -m (experiments\.[a-z]\w*)", README):
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
  for command in re.findall(r"^`?warpjax (\w+)", README, re.MULTILINE):
    assert command in COMMANDS, command
