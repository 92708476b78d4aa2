"""The command line: flags shared by the scripts, and errors that are one line."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections
from absl import flags, logging
from ml_collections import config_flags

FLAGS = flags.FLAGS


def define(*, config: bool = False, places: bool = True) -> None:
  """Defines the shared flags; scripts call it, so that importing one defines nothing.

  Args:
    config: Whether to define `--config=FILE.py:METHOD` and `--config.key=value`.
    places: Whether to define `--data_dir` and `--cache_dir`.
  """
  flags.DEFINE_bool("traceback", False, "Show where in the code an error arose.")
  if config:
    config_flags.DEFINE_config_file("config", None, "configs/NAME.py:METHOD", lock_config=True)
    flags.mark_flag_as_required("config")
  if places:
    flags.DEFINE_string("data_dir", None, "Prepared data; default: TFDS_DATA_DIR, else that of the data set.")
    flags.DEFINE_string("cache_dir", None, "Arrays made from the data; default: the user's cache.")


def config() -> dict[str, Any]:
  """The config of the command line, as nested dicts.

  Raises:
    ValueError: Where the file cannot be read, or has no such method.
  """
  value = FLAGS.config
  if not isinstance(value, ml_collections.ConfigDict):
    path = config_flags.get_config_filename(FLAGS["config"])
    raise ValueError(f"--config must be configs/NAME.py:METHOD; {path!r} cannot be read.")
  return value.to_dict()


def places() -> dict[str, str | None]:
  """The arguments `data_dir` and `cache_dir`."""
  return {"data_dir": FLAGS.data_dir, "cache_dir": FLAGS.cache_dir}


def integers(name: str, values: Sequence[str]) -> list[int]:
  """The values of a list flag as integers.

  Raises:
    ValueError: For one that is not, or is there twice.
  """
  if not all(re.fullmatch(r"\d+", value.strip()) for value in values) or len(set(values)) < len(values):
    raise ValueError(f"--{name} must be different non-negative integers with commas between; got {','.join(values)}.")
  return [int(value) for value in values]


def parse(argv: Sequence[str]) -> list[str]:
  """Parses flags for `app.run`; an override of a key that is not there is one line, not a traceback."""
  logging.set_verbosity(logging.WARNING)  # orbax says some 45 lines a save otherwise
  try:
    return FLAGS(list(argv))
  except (AttributeError, KeyError) as error:
    hint = re.search(r"Did you mean \"(.*)\" instead of \"(.*)\"", str(error))
    name = hint.group(2) if hint else str(error).strip("'\"").split("\n")[0].strip("'\"")
    near = f"; did you mean {hint.group(1)!r}?" if hint else "."
    fail(f"--config has no setting {name!r}{near}")
  except flags.Error as error:
    # A config file that raises comes as its traceback; the last error in it is the one that says why.
    causes = re.findall(r"^\s*\w*Error: (.+)", str(error), re.MULTILINE)
    fail(causes[-1] if causes else str(error).splitlines()[0])
  except ValueError as error:
    fail(str(error))
  raise AssertionError("unreachable")


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
  """Turns the errors that a user can mend into a line on stderr and exit status 1."""
  try:
    yield
  except (ValueError, FileNotFoundError, FloatingPointError) as error:
    if FLAGS.traceback:
      raise
    fail(str(error))


def fail(message: str) -> None:
  """Exits with status 1 and a line on stderr."""
  print(f"error: {message}", file=sys.stderr, flush=True)
  sys.exit(1)
