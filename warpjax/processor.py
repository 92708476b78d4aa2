"""The processor of this machine; importing this module does not import JAX."""

from __future__ import annotations

import os
import platform
import re


def cores() -> int:
  """The number of cores that this process may use.

  Example:
    >>> cores() >= 1
    True
  """
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def identity() -> str:
  """The model and instructions, which tell apart machines that cannot run each other's programs.

  Example:
    >>> identity() == identity()
    True
  """
  names = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU ", "Features")  # x86's, and ARM's
  try:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
      first = re.split(r"\n\s*\n", file.read(1 << 14))[0]
  except OSError:
    first = ""
  lines = [line for line in first.splitlines() if line.startswith(names)]
  return "\n".join([platform.machine(), *(lines or [platform.node()])])
