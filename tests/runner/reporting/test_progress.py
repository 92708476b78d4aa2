"""What is printed of long work where there is no terminal."""

from __future__ import annotations

import contextlib
import functools
import time

from tests.runner import tiny
from warpjax.runner import experiment, loop, measure, run
from warpjax.runner.reporting import progress


def printed(capsys, **settings):
  with progress.bar(6, 0, "work", **settings) as report:
    for done in (2, 4, 6):
      report(done, {"loss": 1 / done})
  printed = capsys.readouterr()
  return (printed.out or printed.err).splitlines()


def test_lines_begin_at_once_have_an_end_and_are_few(capsys):
  assert printed(capsys) == ["work: 2/6 meta-steps, loss 0.5", "work: 6/6 meta-steps, loss 0.1667"]


def test_what_is_short_prints_nothing_where_that_is_wanted(capsys):
  assert printed(capsys, always=False) == []
  lines = printed(capsys, always=False, unit="test tasks", seconds_between_lines=0.0)
  assert len(lines) == 3 and lines[0] == "work: 2/6 test tasks, loss 0.5"
  assert printed(capsys, shown=False) == []


def test_a_long_evaluation_says_how_far_it_is(monkeypatch, capsys):
  built = experiment.build(tiny.config("sinusoid", "maml"))
  state = loop.start(built)
  capsys.readouterr()
  monkeypatch.setattr(measure, "_threads", lambda: 1)
  monkeypatch.setattr(progress, "bar", functools.partial(progress.bar, seconds_between_lines=0.0))
  _, per_task = measure.measure(built, state, num_tasks=450)
  assert len(per_task) == 450
  printed = capsys.readouterr()
  assert printed.err.splitlines() == [f"sinusoid:maml: {n}/450 test tasks" for n in (200, 400, 450)]
  assert not printed.out  # which has the result of `warpjax evaluate`, as JSON


def test_only_what_takes_long_says_what_is_waited_for(monkeypatch, capsys):
  monkeypatch.setattr(progress, "WAIT_SECONDS", 0.02)
  for name, seconds, shown in (("short", 0, True), ("hidden", 0.2, False), ("long", 0.2, True)):
    with progress.waiting(f"Doing {name} work", shown=shown):
      time.sleep(seconds)
  printed = capsys.readouterr()
  assert printed.err == "Doing long work ...\n" and not printed.out


def test_each_part_of_a_run_says_what_is_waited_for(monkeypatch, tmp_path):
  waited = list[str]()

  @contextlib.contextmanager
  def waiting(what, shown=True):
    assert shown
    waited.append(what)
    yield

  monkeypatch.setattr(progress, "waiting", waiting)
  validated = {"num_meta_steps": 2, "eval": {"val_tasks": 2}}
  run.train_and_evaluate(tiny.config("sinusoid", "maml", validated), tmp_path)
  name = "sinusoid:maml"
  assert waited == [
    f"Reading the data of {name}",
    f"Tracing the meta-step of {name}",
    f"Initializing {name}",
    f"Compiling the meta-step of {name}",
    f"Computing the first 2 meta-steps of {name}",
    f"Validating meta-step 2 of {name}",
    f"Saving meta-step 2 of {name}",
    f"Evaluating {name} on 3 test tasks",
    f"Drawing {tmp_path / 'curves.png'}",
  ]
  waited.clear()
  run.restore(tmp_path)
  assert waited == [f"Reading the data of {name}", f"Restoring {name}"]
