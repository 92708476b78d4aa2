"""How many files the settings of one row pass from the command to `result.json`."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping

from warpjax.runner import run
from warpjax.runner.config import settings
from warpjax.runner.machine import cores, lowering

RUNNER = pathlib.Path(run.__file__).parent
OVERRIDES = ("num_meta_steps=2", "tasks_per_step=2", "steps_per_dispatch=2", "checkpoint_every=2", "eval.num_tasks=2")
# The command and the shared command line, which start what is profiled below.
COMMAND = {"commands/train.py", "cli.py"}


def is_row(value: object) -> bool:
  return isinstance(value, Mapping) and {"data", "inner", "meta_gradient"} <= value.keys()


def test_a_row_passes_at_most_twelve_files(tmp_path):
  passed = set(COMMAND)

  def profile(frame, event, returned):
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(f"{RUNNER}/"):
      arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
      if any(is_row(frame.f_locals.get(name)) for name in arguments):
        passed.add(str(pathlib.Path(code.co_filename).relative_to(RUNNER)))

  sys.setprofile(profile)
  try:
    config = settings.load_config("sinusoid:maml", *OVERRIDES, "network.features=(4,)")
    config = cores.for_run(config, tmp_path / "run", None)
    config = lowering.for_run(config, tmp_path / "run")
    run.train_and_evaluate(config, tmp_path / "run")
  finally:
    sys.setprofile(None)
  assert (tmp_path / "run" / "result.json").exists()
  assert len(passed) <= 12, " ".join(sorted(passed))
  assert {"config/recipes.py", "config/settings.py", "experiment.py", "run.py", "workdir.py"} <= passed
