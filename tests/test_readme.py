"""What README says runs: its code, its commands' files, its links."""

from __future__ import annotations

import pathlib
import re

import numpy as np

from warpjax.runner.__main__ import COMMANDS
from warpjax.runner.config import recipes

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_code_runs():
  blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
  namespace: dict = {}
  for block in blocks:
    exec(block, namespace)
  state, metrics = namespace["state"], namespace["metrics"]
  assert len(blocks[1].strip().splitlines()) <= 10
  assert {row["method"] for row in namespace["rows"]} == {"first order"}
  assert int(state.step) == 1 and np.isfinite(metrics["loss"]) and 0 <= metrics["accuracy"] <= 1


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
