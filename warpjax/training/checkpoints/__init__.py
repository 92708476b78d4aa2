"""Checkpoints of a training state: atomic, verified on reading, and a damaged one falls back to the one before it.

Orbax writes the arrays and makes a save atomic, so a kill at any moment leaves the older checkpoints intact. It keeps
no checksum of the arrays, so warpjax saves its own: a flipped bit on the disk is detected.

Only the run that opened a directory with `open_manager` writes to it. Functions that are called with the path of the
directory only read, also while that run is training.
"""

from warpjax.training.checkpoints.files import digest
from warpjax.training.checkpoints.restoring import (
  BusyError,
  Restored,
  restore_first,
  restore_latest,
  restore_meta_params,
  when_free,
)
from warpjax.training.checkpoints.saving import Manager, Source, delete, open_manager, save, steps

__all__ = [
  "BusyError",
  "Manager",
  "Restored",
  "Source",
  "delete",
  "digest",
  "open_manager",
  "restore_first",
  "restore_latest",
  "restore_meta_params",
  "save",
  "steps",
  "when_free",
]
