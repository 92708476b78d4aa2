"""Compiled programs in the user's cache, so that the second start of a run compiles nothing.

JAX's persistent compilation cache, with entries that are checked and a folder of limited size.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from warpjax import processor
from warpjax.datasets import store
from warpjax.runner.machine import hosts, remembered

FOLDER = "compiled"
OFF = "--nocompilation_cache"
MAX_BYTES = 1 << 29
MIN_SECONDS = 0.1  # of compilation; smaller programs are many, and compiling them takes little time
_CHECKED = "compilation_cache"
_WORKS = "works"
_DIGEST_BYTES = hashlib.sha256().digest_size


def keep(cache_dir: str | None = None) -> None:
  """Keeps what this process compiles from now on, where JAX's own settings name no other place.

  Args:
    cache_dir: The folder of caches; None for the user's.
  """
  set_by_user = jax.config.values
  if set_by_user["jax_compilation_cache_dir"] or not set_by_user["jax_enable_compilation_cache"]:
    return
  reason = _refused(cache_dir)
  if reason:
    hosts.say(f"Compiled programs are not kept: {reason}.", error=True)
    return
  path = pathlib.Path(cache_dir or store.default_dir()) / FOLDER
  _hook().get_file_cache = lambda path: (Folder(pathlib.Path(path)), path)
  reset_cache()
  jax.config.update("jax_compilation_cache_dir", str(path))
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)


def _hook() -> Any:
  """The module whose `get_file_cache` JAX calls when it first compiles; no public setting replaces how it reads."""
  from jax._src import compilation_cache

  return compilation_cache


class Folder:
  """Compiled programs by key, a file each, as JAX reads and writes them; trouble with the disk is told once.

  A file begins with the SHA-256 of its content, and replaces another as a whole: machine code that is damaged or half
  written is never run. The programs that were used least recently are deleted.

  Args:
    path: The folder.
    max_bytes: Its size.
    say: Called with messages for the user.
  """

  def __init__(
    self,
    path: pathlib.Path,
    max_bytes: int = MAX_BYTES,
    say: Callable[[str], object] = lambda message: hosts.say(message, error=True),
  ):
    self._path, self._max_bytes, self._say, self._machine = path, max_bytes, say, machine()
    self._said: set[str] = set()

  def get(self, key: str) -> bytes | None:
    """The program of a key; None if there is none, or it is damaged."""
    path = self._file(key)
    try:
      data = path.read_bytes()
      os.utime(path)  # the last use, by which programs are deleted
    except FileNotFoundError:
      return None
    except OSError as error:
      self._tell(f"Compiled programs cannot be read: {error}.")
      return None
    digest, program = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(program).digest() == digest:
      return program
    with contextlib.suppress(OSError):
      path.unlink()
    return None

  def put(self, key: str, value: bytes) -> None:
    """Stores the program of a key."""
    try:
      self._path.mkdir(mode=0o700, parents=True, exist_ok=True)  # who can write here can run code as this user
      _write(self._file(key), hashlib.sha256(value).digest() + value)
      self._shrink()
    except OSError as error:
      self._tell(f"Compiled programs are not kept: {error}. The run continues without them; {OFF} turns this off.")
    else:
      self._tell(
        f"Compiled programs are kept in {self._path}, at most {self._max_bytes >> 20} MiB; {OFF} turns it off."
      )

  def _file(self, key: str) -> pathlib.Path:
    return self._path / f"{key}-{self._machine}"

  def _tell(self, message: str) -> None:
    kind = message.partition(":")[0]
    if kind not in self._said:
      self._said.add(kind)
      self._say(message)

  def _shrink(self) -> None:
    used, total = list[tuple[float, int, str]](), 0
    with os.scandir(self._path) as entries:
      for entry in entries:
        with contextlib.suppress(FileNotFoundError):  # another process shrinks the folder too
          stat = entry.stat()
          used += [(stat.st_mtime, stat.st_size, entry.path)] if entry.is_file() else []
    total = sum(size for _, size, _ in used)
    for _, size, path in sorted(used):
      if total <= self._max_bytes:
        return
      with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
      total -= size


def machine() -> str:
  """A hash of the processor's model and instructions: what is compiled on one may not run on another."""
  return hashlib.sha256(processor.identity().encode()).hexdigest()[:12]


def _write(path: pathlib.Path, data: bytes) -> None:
  """Writes a file as a whole; of several processes the last one wins."""
  part, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
  try:
    with open(part, "wb") as file:
      file.write(data)
    os.replace(name, path)
  except BaseException:
    os.unlink(name)
    raise


def _refused(cache_dir: str | None) -> str:
  """Why XLA cannot load its own programs on this device, or "". Tried once for each version of XLA."""
  entry = remembered.key(jax.devices()[0].device_kind, machine())
  result = remembered.recall(_CHECKED, entry, cache_dir)
  if result is None:
    result = reason_not_to() or _WORKS
    remembered.keep(_CHECKED, entry, result, cache_dir)
  return "" if result == _WORKS else str(result)


def reason_not_to() -> str:
  """Compiles a program and loads it again: the error or the message of XLA, or "" if there is none.

  On some processors XLA takes its own tuning options for missing instructions, and prints 2 kB for each program.
  """
  with _stderr() as printed:
    try:
      program = jax.jit(lambda x: x * 2 + 1).lower(jax.ShapeDtypeStruct((8,), "float32")).compile()
      serialize_executable.deserialize_and_load(*serialize_executable.serialize(program))
    except Exception as error:  # an error of XLA, or a JAX without these functions
      return f"XLA cannot load its programs here ({type(error).__name__}: {str(error).partition(chr(10))[0][:200]})"
  text = printed()
  return f"XLA prints when it loads one here ({text.splitlines()[0][:200]})" if text else ""


@contextlib.contextmanager
def _stderr() -> Iterator[Callable[[], str]]:
  """Takes what is printed on stderr, by C++ too, which `contextlib.redirect_stderr` does not see."""
  with tempfile.TemporaryFile() as file:
    sys.stderr.flush()
    before, text = os.dup(2), list[str]()
    os.dup2(file.fileno(), 2)
    try:
      yield lambda: "".join(text)
    finally:
      os.dup2(before, 2)
      os.close(before)
      file.seek(0)
      text.append(file.read().decode(errors="replace").strip())
