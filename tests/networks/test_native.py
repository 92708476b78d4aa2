"""The library of convolutions: compiled once, kept whole, and never needed."""

from __future__ import annotations

import os
import pathlib
import stat
import subprocess
import sys

import pytest

from warpjax.networks import native

COMPILER = """#!/bin/sh
if [ "$1" = --version ]; then echo some compiler; exit; fi
echo "$@" >> {log}
{then}
while [ $# -gt 1 ]; do shift; done
echo library > "$1"
"""


@pytest.fixture
def compiler(tmp_path, monkeypatch):
  """Writes a compiler that notes its calls and makes a file; the cache is a folder of the test."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

  def make(then: str = "") -> str:
    path = tmp_path / "compiler"
    path.write_text(COMPILER.format(log=tmp_path / "calls", then=then))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)

  return make


def calls(tmp_path: pathlib.Path) -> int:
  return len((tmp_path / "calls").read_text().splitlines())


def test_it_is_compiled_once_and_again_if_it_is_damaged(compiler, tmp_path):
  library = native._library(compiler())
  assert library.parent == tmp_path / "cache" / "warpjax" and library.read_text() == "library\n"
  assert native._library(compiler()) == library and calls(tmp_path) == 1
  library.write_text("lib")
  assert native._library(compiler()) == library and library.read_text() == "library\n" and calls(tmp_path) == 2
  assert sorted(path.suffix for path in library.parent.iterdir()) == [".sha256", ".so"]


def test_another_processor_or_source_is_another_library(compiler, monkeypatch):
  library = native._library(compiler())
  monkeypatch.setattr(native.processor, "identity", lambda: "another")
  assert native._library(compiler()) != library


def test_a_cache_that_cannot_be_written_is_no_obstacle(compiler, tmp_path, monkeypatch):
  def refuse(self, **_):
    raise PermissionError(13, "Permission denied", str(self))

  monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
  library = native._library(compiler())
  assert library.read_text() == "library\n" and not library.is_relative_to(tmp_path / "cache")


def status(**environment: str) -> str:
  code = "from warpjax.networks import native; print(native.status())"
  done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return done.stdout.strip()


@pytest.mark.slow
def test_without_it_there_is_a_reason(compiler):
  off = status(WARPJAX_NATIVE="off")
  assert off == "Status(available=False, reason='WARPJAX_NATIVE is off')"
  assert "reason='this machine has no C++ compiler'" in status(CXX="/no/such/compiler")
  assert "made no library: no such header" in status(CXX=compiler("echo no such header >&2; exit 1"))
  assert "made no library" in status(CXX=compiler())  # what it makes is no library
