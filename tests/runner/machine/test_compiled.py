"""Compiled programs in the user's cache: the same run bit for bit, whatever happens to the folder."""

from __future__ import annotations

import errno
import os
import threading

import jax
import numpy as np
import pytest
from jax._src import compilation_cache

from tests.runner import tiny
from warpjax.runner import cli, run
from warpjax.runner.machine import compiled

SETTINGS = (
  "jax_compilation_cache_dir",
  "jax_enable_compilation_cache",
  "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture
def fresh(monkeypatch):
  """JAX as it starts, without a cache; as before afterwards."""
  before = {name: getattr(jax.config, name) for name in SETTINGS}
  monkeypatch.setattr(compilation_cache, "get_file_cache", compilation_cache.get_file_cache)
  jax.config.update("jax_compilation_cache_dir", None)
  compilation_cache.reset_cache()
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  monkeypatch.undo()
  compilation_cache.reset_cache()


@pytest.fixture
def folder(tmp_path):
  return compiled.Folder(tmp_path / "compiled", say=lambda message: None)


def files(path):
  return sorted(file for file in path.iterdir() if file.is_file())


def flip(data: bytes) -> bytes:
  return data[:-5] + bytes([data[-5] ^ 16]) + data[-4:]


DAMAGES = {
  "flipped": flip,
  "cut short": lambda data: data[:-5],
  "empty": lambda data: b"",
  "text": lambda data: b"<html>",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_program_is_none_and_is_replaced(folder, tmp_path, damage):
  folder.put("jit_f-12", b"machine code")
  assert folder.get("jit_f-12") == b"machine code" and folder.get("jit_g-12") is None
  (file,) = files(tmp_path / "compiled")
  file.write_bytes(damage(file.read_bytes()))
  assert folder.get("jit_f-12") is None
  folder.put("jit_f-12", b"machine code")
  assert folder.get("jit_f-12") == b"machine code"


def test_a_program_of_another_processor_is_not_used(folder, tmp_path, monkeypatch):
  folder.put("jit_f-12", b"machine code")
  monkeypatch.setattr(compiled, "machine", lambda: "another")
  assert compiled.Folder(tmp_path / "compiled").get("jit_f-12") is None
  monkeypatch.undo()
  assert compiled.Folder(tmp_path / "compiled").get("jit_f-12") == b"machine code"


def test_the_processor_is_told_by_its_instructions(monkeypatch):
  texts = ["model name\t: A\nflags\t\t: fpu sse2\ncpu MHz\t: 1.0\n\nflags\t\t: other\n"]
  texts += [texts[0].replace("1.0", "2.0"), texts[0].replace("sse2", "sse2 avx512f")]

  def hash_of(text):
    monkeypatch.setattr("builtins.open", lambda *args, **options: __import__("io").StringIO(text))
    try:
      return compiled.machine()
    finally:
      monkeypatch.undo()

  first, same, other = map(hash_of, texts)
  assert first == same != other


def test_what_was_used_least_recently_is_deleted(tmp_path):
  folder = compiled.Folder(tmp_path, max_bytes=400, say=lambda message: None)
  for age, name in enumerate("abc"):
    folder.put(name, b"x" * 100)
    os.utime(folder._file(name), (age, age))
  assert folder.get("a")  # now the newest
  folder.put("d", b"x" * 100)
  assert [name for name in "abcd" if folder.get(name)] == ["a", "c", "d"]


def test_a_folder_that_cannot_be_used_is_told_once(tmp_path, monkeypatch):
  told = list[str]()
  (tmp_path / "file").write_text("")
  folder = compiled.Folder(tmp_path / "file" / "compiled", say=told.append)
  for key in ("a", "b"):
    assert folder.get(key) is None
    folder.put(key, b"x")
  reading, writing = told
  assert reading.startswith("Compiled programs cannot be read") and "Not a directory" in reading
  assert writing.startswith("Compiled programs are not kept") and "--nocompilation_cache" in writing

  def full(*args):
    raise OSError(errno.ENOSPC, "No space left on device")

  told.clear()
  monkeypatch.setattr(os, "replace", full)
  folder = compiled.Folder(tmp_path / "compiled", say=told.append)
  for key in ("a", "b"):
    folder.put(key, b"x")
  (message,) = told
  assert "No space left on device" in message and "The run continues without them" in message
  assert not files(tmp_path / "compiled")  # not half a file


def test_writers_and_readers_share_a_folder(tmp_path):
  values, wrong = [bytes([i]) * 200_000 for i in range(4)], list[bytes]()

  def work(value):
    own = compiled.Folder(tmp_path, max_bytes=300_000, say=lambda message: None)
    for _ in range(40):
      own.put("key", value)
      seen = own.get("key")
      wrong.extend([seen] if seen is not None and seen not in values else [])

  threads = [threading.Thread(target=work, args=(value,)) for value in values]
  [thread.start() for thread in threads]
  [thread.join() for thread in threads]
  assert not wrong and len(files(tmp_path)) == 1


def hits() -> list[str]:
  """Grows by the events of JAX's cache."""
  seen = list[str]()
  jax.monitoring.register_event_listener(lambda event, **_: seen.append(event.rsplit("/", 1)[-1]))
  return seen


def test_a_run_with_loaded_programs_is_the_same_bit_for_bit(fresh, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(compiled, "MIN_SECONDS", 0.0)
  monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
  compiled.keep(str(tmp_path))
  seen, results = hits(), []

  def train(name):
    seen.clear()
    result = run.train_and_evaluate(tiny.config("sinusoid", "maml"), tmp_path / name)
    results.append({**result, "wall_seconds": 0, "per_task": np.load(tmp_path / name / "per_task.npy").tolist()})
    state = run.restore(tmp_path / name).state
    results[-1]["params"] = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state.meta_params)]
    return seen.count("cache_hits"), seen.count("cache_misses")

  assert train("compiles")[1] >= 3
  stored = files(tmp_path / "compiled")
  assert stored and f"kept in {tmp_path / 'compiled'}" in capsys.readouterr().err
  loaded = train("loads")
  assert loaded[0] >= 3 and loaded[1] == 0
  for file in stored:
    file.write_bytes(flip(file.read_bytes()))
  assert train("damaged")[1] >= 3
  assert results[0] == results[1] == results[2]
  assert not capsys.readouterr().err.strip()


def test_the_place_is_that_of_jax_where_it_is_set(fresh, tmp_path):
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
  compiled.keep(str(tmp_path))
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
  jax.config.update("jax_compilation_cache_dir", None)
  jax.config.update("jax_enable_compilation_cache", False)
  compiled.keep(str(tmp_path))
  assert jax.config.jax_compilation_cache_dir is None and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kept", [True, False])
def test_a_flag_turns_it_off(fresh, tmp_path, monkeypatch, kept):
  monkeypatch.setattr(cli, "FLAGS", type("Flags", (), {"compilation_cache": kept, "cache_dir": str(tmp_path)}))
  cli.keep_compiled()
  assert (jax.config.jax_compilation_cache_dir is not None) == kept


def noisy(*args):
  os.write(2, b"E0000 Target machine feature +prefer-no-gather is not supported\nmore\n")


def failing(*args):
  raise ValueError("no such symbol\nmore")


@pytest.mark.parametrize(("load", "reason"), [(noisy, "+prefer-no-gather is not supp"), (failing, "no such symbol)")])
def test_programs_that_xla_does_not_load_quietly_are_not_kept(fresh, tmp_path, monkeypatch, capfd, load, reason):
  monkeypatch.setattr(compiled.serialize_executable, "deserialize_and_load", load)
  for _ in range(2):
    compiled.keep(str(tmp_path))
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("Compiled programs are not kept: XLA") and reason in line
    assert jax.config.jax_compilation_cache_dir is None
    monkeypatch.setattr(compiled, "reason_not_to", lambda: "tried again")  # it is remembered


def test_programs_are_loaded_quietly_here(capfd):
  assert compiled.reason_not_to() == "" and capfd.readouterr().err == ""
