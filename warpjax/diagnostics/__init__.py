"""Checks of a learner in one report, the cost of a step, and the geometry that warp-layers learn."""

from warpjax.diagnostics import cost, geometry
from warpjax.diagnostics.check_learner import check_learner
from warpjax.diagnostics.report import Check, Report, zero_leaves

__all__ = ["Check", "Report", "check_learner", "cost", "geometry", "zero_leaves"]
