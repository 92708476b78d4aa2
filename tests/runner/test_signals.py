"""A signal at every point of the training loop: it stops the run, and what is said to be saved is saved."""

from __future__ import annotations

import os
import signal

import jax
import pytest

from tests.runner import tiny
from warpjax.runner import experiment, loop, run, selection, workdir
from warpjax.runner.machine import hosts
from warpjax.runner.machine.interrupts import Interrupted
from warpjax.runner.reporting import progress, watch
from warpjax.training import checkpoints


@pytest.fixture(scope="module")
def programs():
  """Compiled once: without validation, with it, and with no checkpoint due but the last."""
  changes = {0: {}, 2: {"eval": {"val_tasks": 2, "num_steps": 1}}, "rarely saved": {"checkpoint_every": 6}}
  build = lambda changed: loop.Programs(experiment.build(tiny.config("sinusoid", "maml", changed)))
  return {name: build(changed) for name, changed in changes.items()}


def saved_steps(path):
  folders = (path / workdir.CHECKPOINTS).iterdir()
  return sorted(int(folder.name) for folder in folders if folder.name.isdigit())


def interrupt(*arguments, **keywords):
  os.kill(os.getpid(), signal.SIGINT)


def at(number, function, *, after=False):
  """The function, with a signal in its call of that number."""
  calls = [0]

  def called(*arguments, **keywords):
    calls[0] += 1
    now = calls[0] == number
    if now and not after:
      interrupt()
    result = function(*arguments, **keywords)
    if now and after:
      interrupt()
    return result

  return called


# Where in the loop, the call there, and the meta-step at which the run is to stop.
POINTS = [
  (selection, "validation", 1, 0),  # before the first dispatch
  (watch, "say_cost", 1, 2),  # between the question and the dispatch
  (jax, "device_get", 1, 2),  # in a dispatch
  (jax, "device_get", 3, 6),
  (watch, "row", 2, 4),  # after a dispatch, before its line of metrics
  (workdir, "append_metrics", 2, 4),
  (checkpoints, "save", 1, 4),  # after the question: the next dispatch is the last
  (checkpoints, "save", 2, 6),
  (checkpoints, "save", 3, 6),  # of the last meta-step, after the last question of the loop
]
VALIDATED = [
  (workdir, "append_metrics", 2, 2),  # what validation measured, after what training did
  (checkpoints, "save", 1, 2),  # of the best, while the validation of meta-step 2 goes on
  (checkpoints, "save", 2, 4),
]
CASES = [(*point, 0) for point in POINTS] + [(*point, 2) for point in VALIDATED]


def case(module, name, number, step, val_tasks, after):
  """A signal after a further call of a function is as one after the first call of it here."""
  again = (module, name, number, step, val_tasks) != next(each for each in CASES if each[:2] == (module, name))
  parts = (module.__name__, name, number, step, val_tasks, "after" if after else "before")
  marks = [pytest.mark.slow] if after and again else []
  return pytest.param(module, name, number, step, val_tasks, after, id="-".join(map(str, parts)), marks=marks)


@pytest.mark.parametrize(
  ("module", "name", "number", "step", "val_tasks", "after"),
  [case(*each, after) for each in CASES for after in (False, True)],
)
def test_a_signal_anywhere_in_the_loop(
  programs, tmp_path, monkeypatch, capfd, module, name, number, step, val_tasks, after
):
  """Of six meta-steps, two a dispatch, each of which is saved."""
  monkeypatch.setattr(module, name, at(number, getattr(module, name), after=after))
  with pytest.raises(Interrupted) as stopped:
    run._run(programs[val_tasks], tmp_path)
  assert (stopped.value.signal, stopped.value.code) == (signal.SIGINT, 128 + signal.SIGINT)
  printed = capfd.readouterr()
  saved = saved_steps(tmp_path)
  assert "a second signal stops at once" in printed.err
  (said,) = [line for line in printed.out.splitlines() if line.startswith("Stopped")]
  assert (saved[-1] if saved else 0) == step
  if saved:
    assert said.startswith(f"Stopped at meta-step {step}, ") and "which is saved" in said
  else:
    assert said == "Stopped before the first meta-step, so nothing is saved; the same command begins again."
  assert not (tmp_path / workdir.RESULT).exists()


@pytest.mark.parametrize(
  ("number", "step"),
  [(1, 2), pytest.param(2, 4, marks=pytest.mark.slow), pytest.param(3, 6, marks=pytest.mark.slow), (4, 6)],
)
def test_a_signal_right_after_a_question_does_not_stop_the_run_unsaved(
  programs, tmp_path, monkeypatch, capfd, number, step
):
  """The next question has the answer, whose dispatch is saved though no checkpoint was due."""
  monkeypatch.setattr(hosts, "largest", at(number, hosts.largest, after=True))
  with pytest.raises(Interrupted) as stopped:
    run._run(programs["rarely saved"], tmp_path)
  assert (stopped.value.signal, stopped.value.code) == (signal.SIGINT, 128 + signal.SIGINT)
  assert f"Stopped at meta-step {step}, " in capfd.readouterr().out
  assert saved_steps(tmp_path) == [step]


def test_a_signal_is_asked_about_once_a_dispatch(programs, tmp_path, monkeypatch):
  """Every host asks as often, whether it has a checkpoint due or not: each question waits for all of them."""
  events, wait = [], jax.device_get
  monkeypatch.setattr(hosts, "largest", lambda number: events.append("question") or number)
  monkeypatch.setattr(jax, "device_get", lambda tree: events.append("dispatch") or wait(tree))
  loop.train(programs["rarely saved"], tmp_path)
  assert events == ["question", *3 * ["dispatch", "question"], "question"]  # the last one is the end's


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_the_parent_ignores_stays_ignored(number):
  """As SIGINT of a shell's background job."""
  before = signal.signal(number, signal.SIG_IGN)
  try:
    with progress.stop_signal() as came:
      signal.raise_signal(number)
      assert came() == 0 and signal.getsignal(number) is signal.SIG_IGN
    assert signal.getsignal(number) is signal.SIG_IGN
  finally:
    signal.signal(number, before)


def test_a_signal_that_nobody_asked_about_is_raised_again():
  with pytest.raises(KeyboardInterrupt), progress.stop_signal() as came:
    assert came() == 0
    interrupt()
  with progress.stop_signal() as came:
    interrupt()
    assert came() == signal.SIGINT
