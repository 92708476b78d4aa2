"""The commands of a checkout: those of `warpjax`, one file for each figure of a paper, and the benchmark."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m experiments.NAME`, before the seconds that importing JAX takes
  from warpjax.runner.machine import interrupts

  interrupts.at_once()
