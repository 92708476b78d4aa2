"""A process of a run whose peer never begins; `ADDRESS`, `PROCESS_ID` and `SECONDS` of the environment say which."""

from __future__ import annotations

import os

from warpjax.runner import cli
from warpjax.runner.machine import hosts


def main() -> None:
  hosts.connect(os.environ["ADDRESS"], 2, int(os.environ["PROCESS_ID"]), seconds=float(os.environ["SECONDS"]))


if __name__ == "__main__":
  cli.define()
  cli.run(main)
