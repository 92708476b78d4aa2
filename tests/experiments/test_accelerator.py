"""One command for a machine with a GPU: no part costs another, and everything that finished is on the disk."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile

import jax
import pytest

from experiments import accelerator
from experiments.on_device import plan, programs, records, schedule
from experiments.on_device.schedule import Part
from warpjax.runner import workdir
from warpjax.runner.machine import provenance
from warpjax.runner.reporting import records as recorded
from warpjax.runner.reporting import results

ROOT = pathlib.Path(__file__).parents[2]
HANGS = "import os, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
HANGS += "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)']); "
HANGS += "print(child.pid, flush=True); time.sleep(60)"


def part(name, code, share=1.0):
  read = lambda folder: (folder / "stdout").read_text().split()
  return Part(name, ("-S", "-c", code), share, read, lambda result: f"It printed {result[0]}.")


@pytest.fixture
def impatient(monkeypatch):
  monkeypatch.setattr(schedule, "GRACE", 0.3)
  monkeypatch.setattr(schedule, "LEAST", 0.1)


def is_alive(number):
  status = pathlib.Path(f"/proc/{number}/status")
  return status.exists() and "zombie" not in status.read_text()


def ran(parts, directory, seconds=60.0, **kwargs):
  said = []
  rows = schedule.run(parts, directory, seconds, facts={"minutes": 1}, say=said.append, **kwargs)
  return rows, said


def test_a_part_that_hangs_or_fails_costs_no_other(tmp_path, impatient):
  fails = "import sys; print('half', flush=True); print('one\\ntwo', file=sys.stderr); sys.exit(3)"
  parts = [part("hangs", HANGS, 0.02), part("fails", fails), part("works", "print('whole {seconds}')")]
  (hung, failed, done), said = ran(parts, tmp_path, seconds=90.0)
  assert (hung["status"], failed["status"], done["status"]) == ("out of time", "failed", "done")
  assert not is_alive(int(hung["result"][0])) and hung["exit_status"] == -signal.SIGKILL and hung["seconds"] < 30
  assert (failed["exit_status"], failed["stderr"], failed["result"]) == (3, ["one", "two"], ["half"])
  assert done["result"][0] == "whole" and 60 < float(done["result"][1]) < 90 and "stderr" not in done
  assert said[0].startswith("[1/3] hangs: at most 2 s; 1.5 minutes remain.") and said[5].endswith("It printed whole.")
  assert said[3].endswith("It printed half. Last error line: two")
  whole = json.loads((tmp_path / "accelerator.json").read_text())
  assert whole["minutes"] == 1 and whole["parts"] == {row["part"]: row for row in (hung, failed, done)}
  assert all(
    json.loads((tmp_path / "parts" / f"{name}.json").read_text()) == whole["parts"][name] for name in whole["parts"]
  )


def test_parts_are_left_out_when_the_minutes_are_up_and_keep_their_earlier_results(tmp_path, impatient):
  ran([part("second", "print('before')")], tmp_path)
  (first, second, third), said = ran(
    [part("first", "import time; time.sleep(1.5)"), part("second", "print(1)"), part("third", "print(1)")],
    tmp_path,
    1.3,
  )
  assert (first["status"], second["status"], third["status"]) == ("out of time", "left out", "left out")
  assert said[-1] == "[3/3] third: left out, since 0.0 minutes remain."
  kept = json.loads((tmp_path / "accelerator.json").read_text())["parts"]
  assert kept["second"]["result"] == ["before"] and kept["third"]["status"] == "left out"


def test_an_interrupt_ends_the_part_and_keeps_what_finished(tmp_path, impatient):
  printed, number = tmp_path / "parts" / "hangs" / "stdout", threading.main_thread().ident

  def interrupt():
    while not (printed.exists() and printed.read_text().endswith("\n")):
      time.sleep(0.05)
    signal.pthread_kill(number, signal.SIGINT)

  threading.Thread(target=interrupt, daemon=True).start()
  with pytest.raises(KeyboardInterrupt):
    ran([part("works", "print('whole')"), part("hangs", HANGS), part("never", "print(1)")], tmp_path)
  kept = json.loads((tmp_path / "accelerator.json").read_text())["parts"]
  assert {name: row["status"] for name, row in kept.items()} == {"works": "done", "hangs": "interrupted"}
  assert not is_alive(int(printed.read_text()))


def test_a_result_that_cannot_be_read_is_said(tmp_path):
  broken = part("broken", "print('{')")._replace(read=lambda folder: json.loads((folder / "stdout").read_text()))
  (row,), said = ran([broken], tmp_path)
  assert (
    row["status"] == "done" and row["result_error"].startswith("JSONDecodeError") and said[1].endswith("No result.")
  )


def test_a_part_that_cannot_begin_costs_no_other(tmp_path):
  (tmp_path / "parts").mkdir()
  (tmp_path / "parts" / "first").write_text("a file in the place of its folder")
  rows, said = ran([part("first", "print(1)"), part("second", "print(2)")], tmp_path)
  assert [row["status"] for row in rows] == ["failed", "done"] and "FileExistsError" in said[1]


def test_without_what_is_needed_nothing_else_runs(tmp_path):
  parts = [part("devices", "import sys; sys.exit(1)")._replace(needed=True), part("second", "print(2)")]
  rows, said = ran(parts, tmp_path)
  assert [row["status"] for row in rows] == ["failed", "left out"]
  assert said[-1] == "[2/2] second: left out, since devices failed."
  whole = plan.parts(tmp_path, wheels=None, small=False, data_dir=None)
  assert [name for name, each in whole.items() if each.needed] == ["devices"]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is an accelerator")
def test_a_cpu_is_no_accelerator(tmp_path):
  with pytest.raises(ValueError, match="JAX sees no accelerator, only the CPU"):
    programs.devices(programs.Call("devices", tmp_path))
  programs.devices(programs.Call("devices", tmp_path, small=True))
  found = json.loads((tmp_path / "parts" / "devices" / "result.json").read_text())
  assert found["platform"] == "cpu" and found["versions"]["jax"] and found["machine"]["cores"] >= 1


def test_two_files_to_bring_home(tmp_path):
  code = (
    f"import pathlib; p = pathlib.Path(r'{tmp_path}/all/runs/maml'); p.mkdir(parents=True); (p / 'x').write_text('1')"
  )
  ran([part("trains", code)], tmp_path / "all", export=tmp_path / "home")
  assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["accelerator.json", "runs.tar"]
  with tarfile.open(tmp_path / "home" / "runs.tar") as archive:
    assert "runs/maml/x" in archive.getnames()


def test_the_plan(tmp_path, monkeypatch):
  parts = plan.parts(tmp_path, wheels=None, small=False, data_dir="data")
  assert list(parts) == [
    *("devices", "tests", "lowering", "peers_float32", "peers_tf32", "peers_bfloat16", "accuracy", "memory"),
    *("maml", "meta_sgd_20way"),
  ]
  assert all(f"--part={name}" in each.command for name, each in parts.items() if name != "tests")
  assert {pathlib.Path(path).name for path in parts["tests"].command if path.endswith(".py")} == {
    *("test_conv.py", "test_convolution.py", "test_pooling.py", "test_mixed_mode.py", "test_single_precision.py"),
    *("test_replay.py", "test_run.py"),
  }
  assert "PYTHONPATH" not in parts["devices"].environment
  with pytest.raises(ValueError, match="--wheels must be a folder with wheels; .* has none"):
    plan.parts(tmp_path, wheels=str(tmp_path), small=False, data_dir=None)
  with pytest.raises(ValueError, match="--only has no 'peers_tf23'; did you mean 'peers_tf32'"):
    accelerator.run_all(tmp_path, minutes=1, only=["peers_tf23"])
  with pytest.raises(ValueError, match="--data_dir must hold Omniglot, .* got /nowhere.* --only="):
    accelerator.run_all(tmp_path, minutes=1, data_dir="/nowhere")
  assert not list(tmp_path.iterdir())


def test_tiny_results_and_whole_ones_are_not_mixed(tmp_path):
  home(tmp_path, {}, small=True)
  with pytest.raises(ValueError, match="has results with --small, which are not mixed; use another --workdir"):
    accelerator.run_all(tmp_path, minutes=1, only=["devices"])
  assert not (tmp_path / "parts").exists()


def test_outcomes_of_tests_are_read_from_what_pytest_printed_so_far(tmp_path):
  lines = (
    "tests/a.py::test_b[1-x y] PASSED [ 1%]\ntests/a.py::test_c FAILED [ 2%]\ntests/a.py::test_d SKIPPED (no) [3%]\n"
  )
  (tmp_path / "stdout").write_text(lines + "tests/a.py::test_e ")
  found = plan.parts(tmp_path, wheels=None, small=True, data_dir=None)["tests"].read(tmp_path)
  assert found == {"passed": 1, "failed": ["tests/a.py::test_c"], "skipped": 1}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this environment has no pip")
def test_wheels_are_installed_beside_the_results_alone(tmp_path):
  (tmp_path / "wheels").mkdir()
  files = {"met.py": "NUMBER = 5\n", "met-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: met\nVersion: 1.0\n"}
  files |= {"met-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
  with zipfile.ZipFile(tmp_path / "wheels" / "met-1.0-py3-none-any.whl", "w") as archive:
    for name, text in {**files, "met-1.0.dist-info/RECORD": ""}.items():
      archive.writestr(name, text)
  parts = plan.parts(tmp_path / "all", wheels=str(tmp_path / "wheels"), small=True, data_dir=None)
  uses = part("uses", "import met; print(met.NUMBER)")._replace(environment=parts["devices"].environment)
  (installed, used), _ = ran([parts["wheels"], uses], tmp_path / "all")
  assert installed["status"] == "done", installed
  assert installed["result"] == {"wheels": ["met-1.0-py3-none-any.whl"]} and used["result"] == ["5"]
  assert (tmp_path / "all" / "site" / "met.py").exists()


TIMES = {"value": 1e-3, "gradient": 2e-3, "second_order": 4e-3}
OURS = {"case": "omniglot_5", "method": "warpjax", "seconds": 0.002, "seconds_low": 0.001, "seconds_high": 0.003}
THEIRS = {**OURS, "method": "jax", "seconds": 0.004, "ratio_low": 1.9, "ratio_high": 2.1, "agrees": True}
TEST = {"mean": 0.9712, "ci95": 0.004, "metric": "accuracy", "num_tasks": 500}
ROW = {"case": "network", "method": "mixed", "inner_steps": 16, "block": "initial", "relative_error": 0.07}
FOUND = {
  "devices": {
    "platform": "gpu",
    "devices": ["Some GPU"],
    "versions": {"python": "3.12.3", "jax": "0.11.2", "torch": "2.11.0"},
    "machine": {"cpu": "Some CPU", "cores": 16, "device": "Some GPU"},
  },
  "tests": {"passed": 3, "failed": [], "skipped": 1},
  "lowering": {"fastest": "lax", "seconds": {"omniglot": {"patches": TIMES, "lax": TIMES}}},
  "peers_tf32": {
    "rows": [{**OURS, "ratio": 1.0}, {**THEIRS, "ratio": 2.0}, {"method": "torch", "remark": "missing: no module"}]
  },
  "accuracy": {"rows": [{**ROW, "cosine": 0.99}]},
  "memory": {"rows": [{"method": "mixed", "inner_steps": 64, "temp_bytes": 2**20, "peak_bytes": None}]},
  "maml": {
    **{"row": "omniglot:maml", "num_meta_steps": 1200, "of": 60_000, "meta_steps_per_second": 200.4},
    **{"finished": False, "test": TEST},
  },
}


def home(folder, found, small=False):
  parts = {name: {"part": name, "status": "done", "result": result} for name, result in found.items()}
  workdir.write_json(folder / "accelerator.json", {"small": small, "commit": None, "parts": parts})
  return folder


def test_results_become_records_which_the_report_prints(tmp_path, monkeypatch):
  lines = records.write(home(tmp_path, FOUND), tmp_path / "results")
  assert "omniglot:maml is not finished" in " ".join(lines) and "runs.tar" not in " ".join(lines)
  written = {path.stem: workdir.read_json(path) for path in (tmp_path / "results" / "benchmark").iterdir()}
  assert set(written) == {f"gpu_{name}" for name in ("lowering", "peers", "accuracy", "memory", "training")}
  assert written["gpu_peers"]["rows"] == [
    ["tf32", "warpjax", "2 (1 to 3)", "1", ""],
    ["tf32", "jax", "4 (1 to 3)", "2 (1.9 to 2.1)", ""],
    ["tf32", "torch", "-", "-", "missing: no module"],
  ]
  assert written["gpu_training"]["rows"] == [["`omniglot:maml`", "1,200 of 60,000", "200", "97.12 +/- 0.40", "500"]]
  assert written["gpu_lowering"]["commit"] == provenance.commit() and "recording" in written["gpu_lowering"]["note"]
  for path in (recorded.FOLDER / "benchmark").glob("*.json"):
    shutil.copy(path, tmp_path / "results" / "benchmark")
  monkeypatch.setattr(recorded, "FOLDER", tmp_path / "results")
  text = results.results()
  assert "## Training at the papers' budgets, on Some GPU" in text
  assert "Measured on: Some GPU, Some CPU, 16 cores, python 3.12.3, jax 0.11.2, torch 2.11.0." in text


def test_a_finished_run_is_its_row_s_record(tmp_path, monkeypatch):
  finished = {**FOUND, "maml": {**FOUND["maml"], "finished": True}}
  home(tmp_path, finished)
  assert any("unpack runs.tar" in line for line in records.write(tmp_path, tmp_path / "results"))
  (tmp_path / "runs" / "maml").mkdir(parents=True)
  made = {"experiment": "omniglot", "method": "maml"}
  monkeypatch.setattr(records.recording, "make", lambda directory: {**made, "from": directory.name})
  records.write(tmp_path, tmp_path / "results")
  assert workdir.read_json(tmp_path / "results" / "omniglot" / "maml.json") == {**made, "from": "maml"}


@pytest.mark.parametrize(
  ("platform", "small", "what"), [("cpu", False, "of no accelerator"), ("gpu", True, "of --small")]
)
def test_a_rehearsal_makes_no_records(tmp_path, platform, small, what):
  home(tmp_path, {"devices": {**FOUND["devices"], "platform": platform}}, small)
  with pytest.raises(ValueError, match=what):
    records.write(tmp_path, tmp_path / "results")
  with pytest.raises(ValueError, match="must be a folder with accelerator.json"):
    records.write(tmp_path / "none", tmp_path / "results")
  assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", [pytest.param("accuracy", marks=pytest.mark.slow), "memory"])
def test_a_part_of_the_benchmark_writes_its_rows_and_its_line(tmp_path, name):
  programs.PROGRAMS[name](programs.Call(name, tmp_path, small=True))
  each = plan.parts(tmp_path, wheels=None, small=True, data_dir=None)[name]
  found = each.read(tmp_path / "parts" / name)
  assert len(found["rows"]) == 1 and found["rows"][0]["method"].startswith("mixed")
  assert ("1 rows; mixed mode's largest error" if name == "accuracy" else "at 1 inner steps:") in each.line(found)


@pytest.mark.slow
def test_training_stops_in_time_says_how_far_it_came_and_goes_on(tmp_path, monkeypatch):
  monkeypatch.setattr(programs, "SMALL_RUN", ("num_meta_steps=1000000", *programs.SMALL_RUN[1:]))
  reached = []
  for seconds in (40.0, 30.0):
    started = time.monotonic()
    programs.train(programs.Call("maml", tmp_path, seconds, small=True))
    found = json.loads((tmp_path / "parts" / "maml" / "result.json").read_text())
    assert time.monotonic() - started < seconds + 60 and not found["finished"]
    assert found["test"]["num_meta_steps"] == found["num_meta_steps"] and found["test"]["num_tasks"] == 2
    reached.append(found["num_meta_steps"])
  assert 0 < reached[0] < reached[1] < 1000000 == found["of"]


@pytest.mark.slow
def test_the_whole_command_on_this_machine(tmp_path):
  command = [sys.executable, "-m", "experiments.accelerator", "--small", "--minutes=20", f"--workdir={tmp_path}/all"]
  environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
  done = subprocess.run(
    [*command, f"--export={tmp_path}/home"], cwd=ROOT, env=environment, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout + done.stderr
  whole = json.loads((tmp_path / "home" / "accelerator.json").read_text())
  assert {row["status"] for row in whole["parts"].values()} == {"done"} and whole["small"]
  found = {name: row["result"] for name, row in whole["parts"].items()}
  assert set(found) == set(plan.parts(tmp_path, wheels=None, small=True, data_dir=None))
  assert found["tests"] == {"passed": 2, "failed": [], "skipped": 0} and found["devices"]["platform"] == "cpu"
  assert found["lowering"]["fastest"] in ("patches", "lax") and found["accuracy"]["rows"][0]["relative_error"] < 1e-10
  assert {row["method"] for row in found["peers_bfloat16"]["rows"]} == {"warpjax", "jax", "torch"}
  assert found["memory"]["rows"][0]["temp_bytes"] > 0
  for name in programs.TRAINED:
    assert found[name]["finished"] and found[name]["num_meta_steps"] == 6 and found[name]["test"]["num_tasks"] == 2
  assert (tmp_path / "home" / "runs.tar").stat().st_size > 0
