"""Experiments: a config in, a workdir with a result out."""

import sys

from warpjax.runner import interrupts

if sys.argv[:1] == ["-m"]:  # `python -m experiments.NAME`, whose imports take seconds
  interrupts.at_once()
