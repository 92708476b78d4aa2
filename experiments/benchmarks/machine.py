"""What figures were measured on, and when."""

from __future__ import annotations

import datetime
import os
import platform
from typing import Any

import jax

from warpjax.runner.machine import provenance


def machine() -> dict[str, Any]:
  """The processor, its cores that this process may use, their load before it, the devices, versions and the date."""
  return {
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
    "processor": provenance.cpu(),
    "cores": provenance.cores(),
    "load_before": os.getloadavg()[0],
    "devices": [device.device_kind for device in jax.devices()],
    "jax": jax.__version__,
    "python": platform.python_version(),
    "system": platform.platform(),
  }
