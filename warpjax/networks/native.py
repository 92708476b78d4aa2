"""Optional convolutions in C++ for CPUs, compiled once on the machine that runs them.

The files in `cpp` reach the rate of a large matrix product without copies of windows. The C++ compiler of the machine
compiles them when they are first used, which takes some seconds, and the library stays in the user's cache. Without
a compiler `windows.py` computes the same.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import pathlib
import shutil
import subprocess
import tempfile
from typing import Any, NamedTuple

import jax
import jaxlib.version
import numpy as np
from jax.interpreters import mlir

from warpjax import processor
from warpjax.datasets import store
from warpjax.networks.windows import Geometry

TARGET = "warpjax_convolution"
SOURCES = pathlib.Path(__file__).with_name("cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-w")
DTYPES = ("float32", "float64")
SECONDS = 300
_LOG = logging.getLogger("warpjax")


class Status(NamedTuple):
  """Whether convolutions are native, and the file, or why not."""

  available: bool
  reason: str


@functools.cache
def status() -> Status:
  """Compiles, loads and registers the native convolutions, once in a process.

  The environment's `WARPJAX_NATIVE=off` leaves them alone, and `CXX` names another compiler.

  Returns:
    Whether they are available.

  Example:
    >>> isinstance(status().available, bool)
    True
  """
  if os.environ.get("WARPJAX_NATIVE", "on").lower() in ("off", "0", "false"):
    return Status(False, "WARPJAX_NATIVE is off")
  compiler = shutil.which(os.environ.get("CXX", "c++"))
  if compiler is None:
    return Status(False, "this machine has no C++ compiler")
  try:
    library = _library(compiler)
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(ctypes.CDLL(str(library))[TARGET]), platform="cpu")
  except (OSError, subprocess.SubprocessError, AttributeError) as error:
    return Status(False, f"{compiler} made no library: {error}")
  return Status(True, str(library))


def serves(dtype: np.dtype) -> bool:
  """Whether arrays of that dtype are convolved natively."""
  return dtype.name in DTYPES and status().available


def lowering(
  context: mlir.LoweringRuleContext, left: Any, right: Any, of: str, geometry: Geometry, *, rounded: bool
) -> Any:
  """Computes one of the three maps in `convolution.py` on a CPU, for arrays with a dtype in `DTYPES`."""
  numbers = np.array([number for pair in geometry for number in pair], np.int64)
  threads = np.int64(max(1, processor.cores() // len(jax.devices("cpu"))))
  rule = jax.ffi.ffi_lowering(TARGET)
  return rule(context, left, right, of=np.int64("yxk".index(of)), rounded=rounded, threads=threads, geometry=numbers)


def _library(compiler: str) -> pathlib.Path:
  """The compiled library of this source, compiler, jaxlib and kind of CPU; made unless it is there whole."""
  version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=SECONDS).stdout
  sources = [path.read_bytes() for path in sorted(SOURCES.iterdir())]
  parts = [*sources, version, repr((FLAGS, jaxlib.version.__version__, processor.identity())).encode()]
  name = f"convolution-{hashlib.sha256(b''.join(parts)).hexdigest()[:16]}.so"
  try:
    folder = store.default_dir()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    library = folder / name
    return library if _is_whole(library) else _compiled(compiler, library)
  except PermissionError:
    return _compiled(compiler, pathlib.Path(tempfile.mkdtemp(prefix="warpjax-"), name))


def _checksum(library: pathlib.Path) -> pathlib.Path:
  return library.with_suffix(".sha256")


def _is_whole(library: pathlib.Path) -> bool:
  checksum = _checksum(library)
  if not (library.exists() and checksum.exists()):
    return False
  return checksum.read_text() == hashlib.sha256(library.read_bytes()).hexdigest()


def _compiled(compiler: str, library: pathlib.Path) -> pathlib.Path:
  """Compiles into a temporary file and renames it, so that another process never sees an incomplete library."""
  _LOG.warning("Compiling convolutions for this machine, once; it takes some seconds.")  # seen by default
  with tempfile.TemporaryDirectory(dir=library.parent) as folder:
    made = pathlib.Path(folder, library.name)
    command = [compiler, *FLAGS, "-I", jax.ffi.include_dir(), str(SOURCES / "convolution.cc"), "-o", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
      raise OSError((done.stderr.strip() or "the compiler failed").splitlines()[0])
    _checksum(made).write_text(hashlib.sha256(made.read_bytes()).hexdigest())
    os.replace(made, library)
    os.replace(_checksum(made), _checksum(library))
  return library
