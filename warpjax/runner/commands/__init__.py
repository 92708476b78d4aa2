"""The commands, each `warpjax NAME` and, in a checkout, `python -m experiments.NAME`."""
