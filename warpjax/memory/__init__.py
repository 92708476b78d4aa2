"""Memory policies of long unrolls: what the backward sweep stores, and what it computes again."""

from warpjax.memory.policies import Plan, Scan, check_memory, is_below_linear, plan, scan_of

__all__ = ["Plan", "Scan", "check_memory", "is_below_linear", "plan", "scan_of"]
