"""One call, one report: is a learner what it is meant to be?"""

from warpjax.diagnostics.check_learner import check_learner
from warpjax.diagnostics.report import Check, Report, zero_leaves

__all__ = ["Check", "Report", "check_learner", "zero_leaves"]
