"""Measurements stored in the user's cache; a cache that cannot be read or written is no error."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from typing import Any

import jax
import jaxlib

from warpjax import processor
from warpjax.datasets import store
from warpjax.runner import workdir


def key(title: str, *values: Any) -> str:
  """A readable title, followed by a hash of the device, its driver, the versions of JAX, XLA's flags and the values."""
  device = jax.devices()[0]
  return entry(title, device.device_kind, device.client.platform_version, *values)


def entry(title: str, *values: Any) -> str:
  """As `key`, of the processor instead of the device, so that JAX is not started."""
  flags = os.environ.get("XLA_FLAGS", "")
  text = json.dumps([jax.__version__, jaxlib.__version__, flags, processor.identity(), *values], sort_keys=True)
  return f"{title}, {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def recall(name: str, entry: str, cache_dir: str | None = None) -> Any:
  """The entry of `CACHE/name.json`, or None if it does not exist or the file is damaged."""
  try:
    return _read(_path(name, cache_dir)).get(entry)
  except (OSError, RuntimeError):  # an unreadable folder, or a user without a home
    return None


def keep(name: str, entry: str, value: Any, cache_dir: str | None = None) -> str | None:
  """Stores an entry; returns None, or why it could not be stored."""
  try:
    path = _path(name, cache_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    workdir.write_json(path, {**_read(path), entry: value})
  except (OSError, RuntimeError) as error:
    return str(error)
  return None


def _path(name: str, cache_dir: str | None) -> pathlib.Path:
  return pathlib.Path(cache_dir or store.default_dir()) / f"{name}.json"


def _read(path: pathlib.Path) -> dict[str, Any]:
  try:
    entries = workdir.read_json(path)
  except ValueError:  # not JSON, or not text; the next `keep` replaces it
    return {}
  return entries if isinstance(entries, dict) else {}
