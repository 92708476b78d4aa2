"""The scripts of `.ci`, with stand-ins for what needs root."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
STAND_INS = {"id": "echo 0", "debootstrap": "", "mount": "", "umount": "", "chroot": ""}


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="the script copies what git knows")
def test_the_other_debian_gets_the_files_there_are_and_keeps_its_environment(tmp_path):
  commands, root = tmp_path / "commands", tmp_path / "root"
  for name, line in STAND_INS.items():
    write(commands / name, f"#!/bin/sh\n{line}\n").chmod(0o700)
  write(root / "usr" / "bin" / "make", "").chmod(0o700)  # so that the root is taken for one that is made
  write(root / "etc" / "ssl" / "certs" / "old", "")
  deleted = write(root / "warpjax" / "tests" / "test_deleted.py", "assert False")
  hidden = write(root / "warpjax" / ".pytest_cache" / "old", "")
  environment = write(root / "warpjax" / ".venv-test-core" / "bin" / "python", "")
  variables = {"PATH": f"{commands}:{os.environ['PATH']}", "ROOT": str(root), "SSL_CERT_FILE": os.devnull}
  done = subprocess.run(
    [ROOT / ".ci" / "run_on_debian"], env=os.environ | variables, capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stderr
  assert (root / "warpjax" / "setup.py").read_text() == (ROOT / "setup.py").read_text()
  assert environment.exists() and not deleted.exists() and not hidden.exists()


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_says_what_is_wrong_with_a_python(tmp_path):
  done = subprocess.run(
    ["make", "--no-print-directory", "install", "PYTHON=/nope", f"VENV={tmp_path / 'venv'}"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode and "/nope is no Python 3.11 or later, or is not installed" in done.stdout
  assert not (tmp_path / "venv").exists()


def write(path: pathlib.Path, text: str) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  return path
