"""How convolutions are lowered on a device that no table lists: measured once, bound to the run, never an error."""

from __future__ import annotations

import functools
import json
import sys

import jax
import pytest

from tests.runner import tiny
from warpjax.diagnostics import timing
from warpjax.networks import conv
from warpjax.runner import evaluations, run, workdir
from warpjax.runner.machine import lowering, remembered

CONFIG = tiny.config("omniglot", "maml")
SLOW, FAST = ({"value": time, "gradient": time, "second_order": time / 2} for time in (0.2, 0.1))


def printing(times):
  """A command that prints times as the measurement does."""
  return [sys.executable, "-c", f"print('a line of XLA'); print({json.dumps(json.dumps(times))})"]


PATCHES_WIN = printing({"patches": FAST, "lax": SLOW})
LAX_WINS = printing({"patches": SLOW, "lax": FAST})
FAILING = [sys.executable, "-c", "raise SystemExit('out of memory')"]


@pytest.fixture
def choose(tmp_path):
  """The lowering of a new run on a device that is not listed, with a cache of its own."""

  def choose(command, config=CONFIG, directory=tmp_path / "new", cache_dir=tmp_path / "cache", **options):
    resolved = lowering.for_run(
      config, directory, **{"listed": {}, **options}, command=command, cache_dir=str(cache_dir)
    )
    return resolved["network"].get("lowering")

  return choose


@pytest.mark.parametrize(("command", "expected"), [(PATCHES_WIN, "patches"), (LAX_WINS, "lax")])
def test_it_is_measured_once_and_remembered(choose, capsys, command, expected):
  assert choose(command) == expected
  first, second = capsys.readouterr().err.splitlines()
  assert "measuring" in first and f": {expected} (patches" in second
  numbers = ("150", "300") if expected == "patches" else ("300", "150")  # milliseconds of both that decide, together
  assert "(patches {} ms, lax {} ms for a gradient and a meta-gradient)".format(*numbers) in second
  assert "--config.network.lowering=" in second
  assert choose(FAILING) == expected  # nothing is measured again
  assert f": {expected}, as measured before" in capsys.readouterr().err


def test_the_process_that_measures_has_this_package_and_the_standard_library():
  code = (
    "import json, types, warpjax.runner.machine.lowering as here; print(json.dumps([types.__name__, here.__file__]))"
  )
  assert lowering._measure([sys.executable, "-c", code], 120.0) == ["types", lowering.__file__]


def test_what_the_measurement_prints_is_understood(monkeypatch, capsys):
  small = {"num_tasks": 1, "batch": 1, "size": 4, "channels": 1, "features": 1, "repeats": 1}
  monkeypatch.setattr(timing, "time_lowerings", functools.partial(timing.time_lowerings, **small))
  lowering.main()
  assert lowering.fastest(json.loads(capsys.readouterr().out.splitlines()[-1])) in lowering.CHOICES


@pytest.mark.parametrize("changed", ["jax", "device", "XLA_FLAGS"])
def test_it_is_forgotten_when_a_version_or_the_device_changes(choose, monkeypatch, changed):
  assert choose(PATCHES_WIN) == "patches"
  if changed == "jax":
    monkeypatch.setattr(jax, "__version__", "99.0")
  elif changed == "device":
    monkeypatch.setattr(remembered.processor, "identity", lambda: "another")
  else:
    monkeypatch.setenv("XLA_FLAGS", "--xla_some_flag=1")
  assert choose(LAX_WINS) == "lax"


@pytest.mark.parametrize(
  ("command", "said"),
  [
    (FAILING, "exit status 1: out of memory"),
    ([sys.executable, "-c", "import time; time.sleep(60)"], "not done after 1 s"),
    ([sys.executable, "-c", "print('no times')"], "Expecting value"),
    ([sys.executable, "-c", "print('{}')"], "'patches'"),
    ([sys.executable, "-c", ""], "IndexError"),
    (["/no/such/program"], "No such file"),
  ],
)
def test_a_failing_measurement_leaves_lax_and_says_so(choose, capsys, command, said):
  assert choose(command, seconds=1.0 if "sleep" in command[-1] else 60.0) == "lax"
  last = capsys.readouterr().err.splitlines()[-1]
  assert "lax, since measuring failed" in last and said in last
  assert choose(PATCHES_WIN) == "patches"  # a failure is not remembered


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]", b'{"a": 1}'])
def test_a_damaged_cache_is_measured_anew(choose, tmp_path, content):
  store = tmp_path / "cache" / "lowering.json"
  store.parent.mkdir()
  store.write_bytes(content)
  assert choose(PATCHES_WIN) == "patches"
  assert choose(FAILING) == "patches"


def test_an_entry_that_is_no_lowering_is_measured_anew(choose, tmp_path):
  entry = remembered.key(jax.devices()[0].device_kind)
  assert remembered.keep(lowering.STORE, entry, {"fastest": "patches"}, str(tmp_path / "cache")) is None
  assert choose(LAX_WINS) == "lax"


def test_a_cache_that_cannot_be_written_stops_nothing(choose, tmp_path, capsys):
  (tmp_path / "file").write_text("")
  assert choose(PATCHES_WIN, cache_dir=tmp_path / "file" / "cache") == "patches"
  assert "not remembered" in capsys.readouterr().err


def test_nothing_is_measured_where_there_is_nothing_to_choose(choose):
  assert choose(FAILING, listed=conv.AUTO_LOWERING) is None  # the tests run on a CPU, which is listed
  assert choose(FAILING, config=tiny.config("sinusoid", "maml")) is None  # no convolutions
  for given in conv.LOWERINGS:  # as --config.network.lowering
    assert choose(FAILING, config={**CONFIG, "network": {**CONFIG["network"], "lowering": given}}) == given


def begin(directory, config):
  workdir.prepare(directory, config)
  (directory / workdir.CHECKPOINTS / "2").mkdir(parents=True)


def test_a_begun_run_keeps_its_lowering_and_its_evaluation_takes_it(choose, tmp_path, monkeypatch):
  directory = tmp_path / "run"
  settings = {"listed": {}, "cache_dir": str(tmp_path / "cache")}
  resolved = lowering.for_run(CONFIG, directory, command=LAX_WINS, **settings)
  begin(directory, resolved)
  assert workdir.read_json(directory / workdir.CONFIG)["network"]["lowering"] == "lax"
  (tmp_path / "cache" / "lowering.json").unlink()
  again = lowering.for_run(CONFIG, directory, command=PATCHES_WIN, **settings)
  assert again == resolved
  workdir.prepare(directory, again)  # the same config: it may go on
  with pytest.raises(ValueError, match=r"network\.lowering: lax there, patches here"):
    workdir.prepare(directory, {**CONFIG, "network": {**CONFIG["network"], "lowering": "patches"}})
  built = []
  monkeypatch.setattr(evaluations, "build", lambda config, **places: built.append(config) or 1 / 0)
  with pytest.raises(ZeroDivisionError):
    evaluations.evaluate(directory)
  assert built[0]["network"]["lowering"] == "lax"


def test_a_run_begun_on_another_device_keeps_its_lowering_here(choose, tmp_path):
  """As one that a GPU began, and the tests' CPU goes on with or shows."""
  directory = tmp_path / "run"
  begin(directory, {**CONFIG, "network": {**CONFIG["network"], "lowering": "lax"}})
  assert choose(FAILING, directory=directory, listed=conv.AUTO_LOWERING) == "lax"


def test_a_config_is_checked_before_anything_is_measured(choose, tmp_path):
  bad = {**CONFIG, "inner": {**CONFIG["inner"], "num_steps": 0}}
  check = functools.partial(run.check, bad, tmp_path / "new")
  with pytest.raises(ValueError, match="num_steps must be an integer of at least 1"):
    choose([sys.executable, "-c", f"open({str(tmp_path / 'measured')!r}, 'w')"], config=bad, check=check)
  assert not (tmp_path / "measured").exists() and not (tmp_path / "new").exists()
  assert choose(LAX_WINS) == "lax"
  assert choose(FAILING, check=lambda: 1 / 0) == "lax"  # remembered, so that nothing is measured


def test_a_sweep_keeps_the_lowering_of_its_first_seed(choose, tmp_path):
  directory = tmp_path / "sweep"
  workdir.prepare(directory, {**CONFIG, "network": {**CONFIG["network"], "lowering": "lax"}})
  assert choose(PATCHES_WIN, directory=directory) == "patches"  # nothing was trained yet
  (directory / "seed_0" / workdir.CHECKPOINTS / "2").mkdir(parents=True)
  assert choose(PATCHES_WIN, directory=directory) == "lax"


def test_a_run_begun_before_there_was_a_choice_goes_on(choose, tmp_path):
  directory = tmp_path / "run"
  begin(directory, CONFIG)
  assert choose(FAILING, directory=directory) is None
