"""Fixtures of every test."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator

import jax
import pytest

SLOW_SECONDS = 3600  # a slow test that says nothing else
CACHE = {"jax_persistent_cache_min_compile_time_secs": 0.1, "jax_persistent_cache_min_entry_size_bytes": -1}
FLAGS = """
from warpjax import compilation
print(*(f"--{name}={str(value).lower()}" for name, value in compilation.fast_compilation().items()))
"""


def pytest_configure(config: pytest.Config) -> None:
  """Takes SIGINT as usual where the tests are a shell's background job, which ignores it, and so do its children."""
  ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
  if ignored and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
  quick = config.option.markexpr == "not slow"
  if quick:
    _share_contexts()
    # Most programs of a test are its own: to keep them takes longer than it saves, but for those of tests/runner.
    jax.config.update("jax_enable_compilation_cache", False)
  if "PYTEST_XDIST_WORKER" in os.environ:
    return
  _share_bytecode(config)
  if quick:
    _compile_fast()
  _compile_once(config)


def _compile_once(config: pytest.Config) -> None:
  """Shares what takes long to compile among the tests' processes, in a folder that ends with them."""
  folder = tempfile.TemporaryDirectory(prefix="warpjax-compiled-")
  config.add_cleanup(folder.cleanup)
  for name, value in (CACHE | {"jax_compilation_cache_dir": folder.name}).items():
    os.environ[name.upper()] = str(value)
    jax.config.update(name, value)


def _share_contexts() -> None:
  """Lowers a hundred programs in one MLIR context: JAX makes one for each, a tenth of the quick tests' time."""
  from jax._src.interpreters import mlir

  if (make := getattr(mlir, "make_ir_context", None)) is None:  # as in another JAX
    return
  made, of_hundred = itertools.count(), functools.lru_cache(maxsize=1)(lambda number: make())
  mlir.make_ir_context = lambda: of_hundred(next(made) // 100)


def _share_bytecode(config: pytest.Config) -> None:
  """Where Python may write no bytecode, as in many containers, the tests' processes share it in a folder of theirs.

  Each would compile thousands of modules by itself, which is more than half of the time that it takes to start.
  """
  known = jax.__spec__ and jax.__spec__.cached
  if sys.dont_write_bytecode and not (known and os.path.exists(known)):
    folder = tempfile.TemporaryDirectory(prefix="warpjax-bytecode-")
    config.add_cleanup(folder.cleanup)
    sys.dont_write_bytecode, sys.pycache_prefix = False, folder.name
    os.environ["PYTHONPYCACHEPREFIX"] = folder.name
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _compile_fast() -> None:
  """Lets XLA skip its optimizations in the quick tests, their workers and their subprocesses.

  Most tests run a program once, which takes far less than its optimization. The other runs, such as `make test-slow`,
  compile as users do, and `toy.optimized` does so in every run.
  """
  command = [sys.executable, "-c", FLAGS]
  flags = subprocess.run(command, cwd=pathlib.Path(__file__).parents[1], capture_output=True, text=True, check=True)
  os.environ["XLA_FLAGS"] = f"{flags.stdout.strip()} {os.environ.get('XLA_FLAGS', '')}".strip()


def pytest_collection_finish() -> None:
  """Looks for garbage less often, and only in what the tests make: traces make many objects, few of them in cycles."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(10_000, 20, 10)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Slow tests have a longer limit, unless they bring their own."""
  for item in items:
    if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
      item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


@pytest.fixture
def x64() -> Iterator[None]:
  """Runs a test in double precision."""
  with jax.enable_x64(True):
    yield


@pytest.fixture
def strict() -> Iterator[None]:
  """Runs a test in double precision, and refuses broadcasts between ranks, which hide wrong shapes."""
  with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
    yield
