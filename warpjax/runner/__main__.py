"""The command `warpjax NAME`, also `python -m warpjax.runner NAME`."""

from __future__ import annotations

import importlib
import sys

from warpjax.runner.config import recipes
from warpjax.runner.machine import interrupts
from warpjax.runner.reporting import progress

COMMANDS = {
  "train": "meta-train and evaluate one config",
  "evaluate": "evaluate a run again",
  "plot": "compare runs in a picture and a table",
  "list": "list the recipes and their rows",
  "check": "check a learner before training it",
  "tune": "find the fastest task_chunk and lowering",
  "fits": "find the inner steps that fit into memory",
  "profile": "profile a meta-step by layer and operation",
  "prepare": "prepare a data set",
  "demo": "train four methods on sine waves and draw the results",
  "record": "write the record of a finished run (in a checkout)",
  "report": "write RESULTS.md and the tables of the docs from the records (in a checkout)",
}
MODULES = {"prepare": "prepare_data", "list": "show"}


def main() -> None:
  """Runs the command that the first argument names."""
  interrupts.at_once()
  name = sys.argv[1] if len(sys.argv) > 1 else "--help"
  if name in ("--help", "-h", "help"):
    width = max(map(len, COMMANDS))
    lines = [f"  {each:{width}}  {doc}" for each, doc in COMMANDS.items()]
    print("\n".join(["usage: warpjax COMMAND --help", "", *lines]))
    return
  if name not in COMMANDS:
    print(f"error: warpjax has no command {name!r}{recipes.nearest(name, COMMANDS)}", file=sys.stderr)
    sys.exit(1)
  sys.argv[:2] = [f"warpjax {name}"]
  with progress.waiting("Importing JAX and the libraries of the command"):
    module = importlib.import_module(f"warpjax.runner.commands.{MODULES.get(name, name)}")
  module.command()


if __name__ == "__main__":
  main()
