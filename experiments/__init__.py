"""Experiments: a config in, a workdir with a result out."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m experiments.NAME`, before the seconds that importing JAX takes
  from warpjax.runner.machine import interrupts

  interrupts.at_once()
