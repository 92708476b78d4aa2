"""What is printed of long work where there is no terminal."""

from __future__ import annotations

import functools

from tests.runner import tiny
from warpjax.runner import experiment, loop, measure
from warpjax.runner.reporting import progress


def printed(capsys, **settings):
  with progress.bar(6, 0, "work", **settings) as report:
    for done in (2, 4, 6):
      report(done, {"loss": 1 / done})
  return capsys.readouterr().out.splitlines()


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
  monkeypatch.setattr(progress, "bar", functools.partial(progress.bar, seconds_between_lines=0.0))
  _, per_task = measure.measure(built, state, num_tasks=450)
  assert len(per_task) == 450
  assert capsys.readouterr().out.splitlines() == [f"sinusoid:maml: {n}/450 test tasks" for n in (200, 400, 450)]
