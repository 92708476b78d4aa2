"""Runs the code of a page of the docs: its Python blocks in order, each followed by what it prints.

  python -m tests.docs.page_code docs/how_to/adam.md            # compares what the page shows with what is printed
  python -m tests.docs.page_code --write docs/how_to/adam.md    # puts what is printed into the page

A `text` block right after a `python` block is its output. What is logged, such as the progress of a run, is marked by a
comment, `HIDDEN`, and is not compared.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator

HIDDEN = "<!-- its output is not shown -->"
BLOCK = re.compile(
  rf"```python\n(?P<code>.*?)```(?P<hidden>\n\n{HIDDEN})?(?P<gap>\n\n```text\n)?(?(gap)(?P<output>.*?)```)", re.DOTALL
)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
OPTIONAL = ("grain", "tensorflow", "torch")
"""A block that imports one of these runs only where it is installed, and only with `optional`."""


def runs(code: str, optional: bool) -> bool:
  """Whether a block is run: not if it imports an optional library that is missing or not wanted."""
  named = [name for name in OPTIONAL if re.search(rf"^(import|from) {name}\b", code, re.MULTILINE)]
  return not named or (optional and all(importlib.util.find_spec(name) for name in named))


def outputs(text: str, namespace: dict, optional: bool = False) -> Iterator[tuple[re.Match[str], str]]:
  """Runs the blocks of a page in one namespace; yields each that was run, with what it printed."""
  for block in BLOCK.finditer(text):
    if runs(block["code"], optional):
      with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(block["code"], "page", "exec"), namespace)
      yield block, printed.getvalue()


def differences(shown: str, printed: str, relative: float = 0.3, absolute: float = 0.03) -> list[str]:
  """How what is printed differs from what a page shows: numbers with a point agree roughly, all else exactly.

  Training on another processor, or compiled with other flags, drifts: hundreds of meta-steps may differ by a fifth.
  """
  pairs = list(zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=False))
  bounds = [(a, b, absolute + relative * abs(float(a)) if "." in a or "e" in a else 0.0) for a, b in pairs]
  far = [f"{a} is shown and {b} is printed" for a, b, bound in bounds if not abs(float(a) - float(b)) <= bound]
  if NUMBER.sub("0", shown).split() != NUMBER.sub("0", printed).split():
    far.append(f"shown:\n{shown}\nprinted:\n{printed}")
  return far


def check(path: pathlib.Path, optional: bool = False) -> dict:
  """Runs a page in the current folder, and raises an AssertionError where it prints something else than it shows.

  Returns:
    The names that its code defines.
  """
  namespace: dict = {"__name__": "page"}
  for block, printed in outputs(path.read_text(encoding="utf-8"), namespace, optional):
    found = [] if block["hidden"] else differences(block["output"] or "", printed)
    assert not found, "\n".join((path.name, block["code"], *found))
  return namespace


def write(path: pathlib.Path) -> None:
  """Puts what the blocks print into the page; one that prints nothing has no output."""
  text = path.read_text(encoding="utf-8")
  printed = {block["code"]: text for block, text in outputs(text, {"__name__": "page"}, optional=True)}

  def filled(block: re.Match[str]) -> str:
    if block["hidden"]:
      return block[0]
    shown = printed.get(block["code"], block["output"] or "")
    return f"```python\n{block['code']}```" + (f"\n\n```text\n{shown}```" if shown else "")

  path.write_text(BLOCK.sub(filled, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
  wanted = [pathlib.Path(name).resolve() for name in sys.argv[1:] if name != "--write"]
  os.chdir(tempfile.mkdtemp())
  for page in wanted:
    write(page) if "--write" in sys.argv else check(page, optional=True)
