"""One call, one report: is a learner what it is meant to be?"""

from warpjax.sanity.learner import check_learner
from warpjax.sanity.report import Check, Report, zero_leaves

__all__ = ["Check", "Report", "check_learner", "zero_leaves"]
