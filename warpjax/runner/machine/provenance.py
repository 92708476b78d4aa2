"""The provenance of a number: the commit, the versions, the machine."""

from __future__ import annotations

import os
import pathlib
import platform
import subprocess
from importlib import metadata
from typing import Any

import jax

from warpjax import processor

ROOT = pathlib.Path(__file__).parents[3]
_VERSIONS = ("warpjax", "jax", "flax", "optax", "numpy")


def of_run() -> dict[str, Any]:
  """`commit`, `versions` and `machine` of this process; `commit` is None outside of a checkout."""
  name = commit()
  return {
    "commit": f"{name}, with changes" if name and changes() else name,
    "versions": {"python": platform.python_version(), **{name: _version(name) for name in _VERSIONS}},
    "machine": {"cpu": cpu(), "cores": processor.cores(), "device": jax.devices()[0].device_kind},
  }


def commit() -> str | None:
  """The commit of warpjax's checkout; None outside of a checkout."""
  return git("rev-parse", "HEAD")


def changes() -> list[str]:
  """The files that differ from the commit, except records."""
  lines = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results") or ""
  return [line.split()[-1] for line in lines.splitlines()]


def git(*arguments: str) -> str | None:
  """The output of git in the checkout; None without a checkout or git."""
  if not (ROOT / ".git").exists():
    return None
  try:
    done = subprocess.run(["git", "-C", os.fspath(ROOT), *arguments], capture_output=True, text=True, timeout=60)
  except (OSError, subprocess.TimeoutExpired):
    return None
  return done.stdout.strip() if done.returncode == 0 else None


def cpu() -> str:
  """The processor's model."""
  info = pathlib.Path("/proc/cpuinfo")
  lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
  names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
  return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
  try:
    return metadata.version(name)
  except metadata.PackageNotFoundError:
    return None
