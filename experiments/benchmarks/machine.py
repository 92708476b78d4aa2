"""What figures were measured on, and when."""

from __future__ import annotations

import datetime
import os
import pathlib
import platform
from typing import Any

import jax

from experiments.peers import cases


def machine() -> dict[str, Any]:
  """The processor, its cores that this process may use, their load before it, the devices, versions and the date."""
  model = platform.processor() or platform.machine()
  info = pathlib.Path("/proc/cpuinfo")
  if info.exists():
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    model = names[0] if names else model
  return {
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
    "processor": model,
    "cores": cases.cores(),
    "load_before": os.getloadavg()[0],
    "devices": [device.device_kind for device in jax.devices()],
    "jax": jax.__version__,
    "python": platform.python_version(),
    "system": platform.platform(),
  }
