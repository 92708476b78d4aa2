"""How many devices a CPU is made into: measured once, bound to the run, never an error."""

from __future__ import annotations

import sys

import jax
import pytest

from tests.runner import tiny
from warpjax.runner import workdir
from warpjax.runner.config import settings
from warpjax.runner.machine import cores

CONFIG = tiny.config("omniglot", "maml", {"tasks_per_step": 4})


def printing(*seconds):
  """A command that prints these seconds for 1 and for 2 devices."""
  return [sys.executable, "-c", f"import json, sys; print({seconds!r}[json.load(sys.stdin)['devices'] - 1])"]


FASTER, SLOWER, ELSEWHERE = printing(0.2, 0.1), printing(0.1, 0.2), printing("null", "null")
FAILING = [sys.executable, "-c", "raise SystemExit(1)"]


@pytest.fixture
def choose(tmp_path, monkeypatch):
  """The number for a new run on two cores, and what JAX is told, with a cache of its own."""
  told = []
  monkeypatch.setattr(jax.config, "update", lambda name, value: told.append((name, value)))

  def choose(command, config=CONFIG, asked=None, directory=tmp_path / "new", cache=tmp_path / "cache"):
    told.clear()
    chosen = cores.for_run(config, directory, asked, cores=2, command=command, cache_dir=str(cache))
    found = chosen.get("cpu_devices", 1)
    assert told == ([("jax_num_cpu_devices", found)] if found > 1 else [])
    return found

  return choose


@pytest.mark.parametrize(("command", "count"), [(FASTER, 2), (SLOWER, 1)])
def test_it_is_measured_once_and_remembered(choose, capsys, command, count):
  assert choose(command) == count
  first, second = capsys.readouterr().err.splitlines()
  assert "measuring 1 and 2 once" in first and f": {count} (1 takes" in second
  assert f"The other: --cpu_devices={3 - count}." in second
  assert choose(FAILING) == count and not capsys.readouterr().err


def test_what_fails_or_is_no_cpu_is_one(choose, capsys):
  assert choose(FAILING) == 1
  assert "1, since measuring failed (CalledProcessError)" in capsys.readouterr().err
  assert choose(ELSEWHERE) == 1 and choose(FASTER) == 1  # the machine has another backend, which is remembered


@pytest.mark.slow
def test_missing_data_are_not_reported_as_a_failure_of_the_measurement(tmp_path, monkeypatch, capsys):
  """The run itself says what is missing."""
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  config = tiny.config("mini_imagenet", "maml", {"tasks_per_step": 4})
  chosen = cores.for_run(config, tmp_path / "new", None, cores=2, data_dir=str(tmp_path), cache_dir=str(tmp_path))
  assert "cpu_devices" not in chosen and len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("change", [{"tasks_per_step": 3}, {"network": {"name": "mlp"}}])
def test_nothing_is_measured_that_cannot_be_faster(choose, change, capsys):
  assert choose(FASTER, {**CONFIG, **change}) == 1 and not capsys.readouterr().err


def test_what_the_user_or_the_workdir_says_holds(choose, tmp_path, capsys):
  assert choose(FAILING, asked=2) == 2 and choose(FAILING, {**CONFIG, "cpu_devices": 2}) == 2
  for begun, count in (({}, 1), ({"cpu_devices": 2}, 2)):
    directory = workdir.prepare(tmp_path / f"begun{count}", {**CONFIG, **begun})
    (directory / workdir.RESULT).write_text("{}")
    assert choose(FAILING, directory=directory) == count
    assert choose(FAILING, directory=directory, asked=1) == 1
  assert not capsys.readouterr().err
  assert settings.identity(CONFIG) == settings.identity({**CONFIG, "cpu_devices": 2})


@pytest.mark.slow
def test_the_measurement_is_of_a_meta_step(tmp_path):
  small = tiny.config("sinusoid", "maml")
  for count in (1, 2):
    assert 0 < cores._measured(small, count, cores.COMMAND, 120, {"cache_dir": str(tmp_path)}) < 60
