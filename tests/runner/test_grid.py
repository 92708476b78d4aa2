"""Grids of settings, `train --sweep`: names, resuming, and folders that belong to something else."""

from __future__ import annotations

import json
import shutil
import sys
import types

import pytest

from tests.runner import tiny
from warpjax.runner import evaluations, grid, origins, run, workdir
from warpjax.runner.commands import plot
from warpjax.runner.config import settings
from warpjax.runner.machine import hosts, tuning

CONFIG = tiny.config("sinusoid", "maml", {"num_meta_steps": 2})
SWEEP = ["inner.num_steps=1,2"]
RULES = """
from warpjax.runner.components.rules import sgd

def a(learning_rate: float):
  return sgd(learning_rate=learning_rate)

b = a
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """A grid, and a run of the same config; tests change copies alone."""
  path = tmp_path_factory.mktemp("runs")
  grid.train(CONFIG, path / "grid", SWEEP)
  run.train_and_evaluate(CONFIG, path / "run")
  return path


@pytest.fixture
def copied(runs, tmp_path):
  shutil.copytree(runs, tmp_path / "runs")
  return tmp_path / "runs"


def result_in(path):
  return json.loads((path / workdir.RESULT).read_text())


@pytest.fixture
def trained(monkeypatch):
  """The seeds of each training, which writes a config and a result and trains nothing."""
  trainings = []

  def train(config, directory, seeds=(), **arguments):
    if not (directory / workdir.RESULT).exists() or seeds:
      trainings.append(list(seeds))
    for place in [directory / f"seed_{seed}" for seed in seeds] or [directory]:
      workdir.prepare(place, settings.resolved(config), settings.resolved)
      workdir.write_json(place / workdir.RESULT, {})
    return {"metric": "mse", "mean": 1.0, "ci95": 0.1} | ({"seeds": list(seeds)} if seeds else {})

  monkeypatch.setattr(run, "train_and_evaluate", train)
  monkeypatch.setattr(run, "sweep", train)
  return trainings


def forbid(monkeypatch, module, name):
  def called(*arguments, **keywords):
    raise AssertionError(f"{name} was called")

  monkeypatch.setattr(module, name, called)


def test_a_grid_has_a_folder_for_each_point_and_a_config_of_its_own(runs):
  path, result = runs / "grid", result_in(runs / "grid")
  assert [each["name"] for each in result["runs"]] == ["inner.num_steps=1", "inner.num_steps=2"]
  for each in result["runs"]:
    assert result_in(path / each["name"])["mean"] == each["mean"]
  config = workdir.read_json(path / workdir.CONFIG)
  assert config["sweep"] == {"inner.num_steps": ["1", "2"]} and config["seed"] == 0
  assert (path / grid.PICTURE).exists() and len(grid.table(result).splitlines()) == 4


@pytest.mark.parametrize(("seeds", "over"), [((), "test tasks"), ((0, 1), "seeds")])
def test_a_grid_names_each_point_and_what_the_interval_is_over(tmp_path, trained, capsys, seeds, over):
  result = grid.train(CONFIG, tmp_path, ["inner.num_steps=1,2"], seeds)
  said = capsys.readouterr().err
  assert "[1/2] inner.num_steps=1" in said and "[2/2] inner.num_steps=2" in said
  assert grid.table(result).endswith(f"interval over the {over}.")


def test_names_of_points_need_no_quotes():
  names = list(grid.points(["network.features=(4, 4),(8,)", "inner.rule=my.method:a,sgd", "data.split=/x y/(1);2"]))
  assert names[0] == "network.features=4x4+inner.rule=my.method.a+data.split=_x_y__1__2"
  assert len(names) == len(set(names)) == 4
  assert not set("".join(names)) & set(";(),: /'\"")


def test_a_value_that_is_given_twice_is_one_point_and_two_of_one_name_are_refused():
  assert list(grid.points(["inner.num_steps=1,2,1"])) == ["inner.num_steps=1", "inner.num_steps=2"]
  with pytest.raises(ValueError, match=r"loss=a:b and loss=a\.b the folder loss=a\.b\.$"):
    grid.points(["loss=a:b,a.b"])
  with pytest.raises(ValueError, match=r"--sweep gives seed twice"):
    grid.points(["seed=1,2", "seed=3"])


@pytest.mark.parametrize("seeds", [(), pytest.param((0, 1), marks=pytest.mark.slow)])
def test_a_grid_leaves_the_folder_of_a_run_alone(copied, seeds):
  before = result_in(copied / "run")
  with pytest.raises(ValueError, match=r"belongs to another config.*sweep: nothing there, {.*} here") as error:
    grid.train(CONFIG, copied / "run", SWEEP, seeds)
  assert "\n" not in str(error.value)
  assert result_in(copied / "run") == before == run.train_and_evaluate(CONFIG, copied / "run")
  assert not list((copied / "run").glob("*=*"))


def test_a_run_and_a_sweep_leave_the_folder_of_a_grid_alone(copied):
  before, message = result_in(copied / "grid"), r"belongs to another config.*sweep: {.*} there, nothing here"
  with pytest.raises(ValueError, match=message):
    run.train_and_evaluate(CONFIG, copied / "grid")
  with pytest.raises(ValueError, match=message):
    run.sweep(CONFIG, copied / "grid", [0, 1])
  assert result_in(copied / "grid") == before


def test_a_grid_of_another_config_or_of_fewer_values_is_refused(copied):
  before = result_in(copied / "grid")
  with pytest.raises(ValueError, match=r"differs in: tasks_per_step: 2 there, 4 here\.$"):
    grid.train({**CONFIG, "tasks_per_step": 4}, copied / "grid", SWEEP)
  with pytest.raises(ValueError, match=r"differs in: sweep\.inner\.num_steps: \['1', '2'\] there, \['2'\] here\.$"):
    grid.train(CONFIG, copied / "grid", ["inner.num_steps=2"])
  with pytest.raises(ValueError, match=r"seed: 0 there, nothing here"):
    grid.train(CONFIG, copied / "grid", SWEEP, [0, 1])
  assert result_in(copied / "grid") == before


def test_a_finished_grid_is_only_read(runs, monkeypatch):
  for module, name in ((workdir, "make"), (workdir, "lock"), (workdir, "write_text"), (run, "train_and_evaluate")):
    forbid(monkeypatch, module, name)
  assert grid.train(CONFIG, runs / "grid", SWEEP) == result_in(runs / "grid")
  with pytest.raises(ValueError, match="this run began from its own initial parameters"):
    grid.train(CONFIG, runs / "grid", SWEEP, init=origins.InitFrom(str(runs / "run")))


def test_a_grid_goes_on_with_more_values(copied):
  before, kept = result_in(copied / "grid"), sorted((copied / "grid" / "inner.num_steps=1").rglob("*"))
  after = grid.train(CONFIG, copied / "grid", ["inner.num_steps=3,1,2"])
  assert [each["name"][-1] for each in after["runs"]] == ["3", "1", "2"] and after["runs"][1:] == before["runs"]
  assert sorted((copied / "grid" / "inner.num_steps=1").rglob("*")) == kept
  assert workdir.read_json(copied / "grid" / workdir.CONFIG)["sweep"] == {"inner.num_steps": ["3", "1", "2"]}


def test_a_grid_goes_on_with_more_axes(copied, trained, monkeypatch):
  path, before, sweeps = copied / "grid", result_in(copied / "grid"), [*SWEEP, "network.features=(5,)"]
  with monkeypatch.context() as patch:  # interrupted: the result is still that of the axes before
    forbid(patch, run, "train_and_evaluate")
    with pytest.raises(AssertionError, match="was called"):
      grid.train(CONFIG, path, sweeps)
  assert result_in(path) == before
  after = grid.train(CONFIG, path, sweeps)
  assert [each["name"] for each in after["runs"]] == [f"inner.num_steps={n}+network.features=5" for n in (1, 2)]
  assert grid.train(CONFIG, path, sweeps) == after and len(trained) == 2


def test_a_grid_takes_more_meta_steps(copied, trained):
  before, point = result_in(copied / "grid"), copied / "grid" / "inner.num_steps=2"
  after = grid.train({**CONFIG, "num_meta_steps": 4}, copied / "grid", SWEEP)
  assert result_in(copied / "grid") == after != before == workdir.read_json(copied / "grid" / "result_2.json")
  assert (workdir.read_json(point / workdir.CONFIG)["num_meta_steps"], (point / "result_2.json").exists()) == (4, True)


def test_a_grid_of_seeds_takes_more_seeds(tmp_path, trained):
  grid.train(CONFIG, tmp_path, ["inner.num_steps=1"], [0])
  with pytest.raises(ValueError, match=r"--sweep=seed=\.\.\. and --seeds both give seeds"):
    grid.train(CONFIG, tmp_path, ["seed=1"], [0])
  result = grid.train(CONFIG, tmp_path, ["inner.num_steps=1"], [0, 1])
  assert result["runs"][0]["seeds"] == [0, 1] and result["sweep"]["seed"] == [0, 1]
  assert trained == [[0], [0, 1]]
  (tmp_path / workdir.RESULT).unlink()  # as of an interrupted grid, whose seeds have begun
  assert workdir.begun(tmp_path)


def test_two_processes_do_not_share_a_grid(copied):
  with workdir.lock(copied / "grid"), pytest.raises(ValueError, match="another process is running"):
    grid.train(CONFIG, copied / "grid", ["inner.num_steps=1,2,3"])


def test_a_bad_point_is_refused_before_any_is_trained(tmp_path):
  with pytest.raises(ValueError, match=r"config\.inner\.num_steps must be an integer of at least 1; got 0"):
    grid.train(CONFIG, tmp_path / "grid", ["inner.num_steps=1,0"])
  assert not (tmp_path / "grid").exists()


def test_points_record_the_modules_that_they_name(tmp_path, trained, monkeypatch):
  (tmp_path / "rules_of_a_grid.py").write_text(RULES)
  monkeypatch.syspath_prepend(tmp_path)
  result = grid.train(CONFIG, tmp_path / "grid", ["inner.rule=rules_of_a_grid:a,sgd"])
  mine, sgd = (workdir.read_json(tmp_path / "grid" / each["name"] / workdir.CONFIG) for each in result["runs"])
  assert mine["inner"]["rule"] == "rules_of_a_grid:a" and "modules" not in sgd
  assert mine["modules"]["rules_of_a_grid"]["folder"] == str(tmp_path)
  assert workdir.read_json(tmp_path / "grid" / workdir.CONFIG)["modules"] == mine["modules"]
  more = grid.train(CONFIG, tmp_path / "grid", ["inner.rule=rules_of_a_grid:a,sgd,rules_of_a_grid:b"])
  assert more["runs"][:2] == result["runs"] and len(more["runs"]) == len(trained) == 3
  (tmp_path / "rules_of_a_grid.py").write_text(RULES + "# changed\n")
  with pytest.raises(ValueError, match=r"belongs to another config.* modules\.rules_of_a_grid\.sha256"):
    grid.train(CONFIG, tmp_path / "grid", ["inner.rule=rules_of_a_grid:a,sgd,rules_of_a_grid:b"])


def test_a_grid_that_has_begun_keeps_its_choice(copied):
  (copied / "grid" / workdir.RESULT).unlink()
  shutil.rmtree(copied / "grid" / "inner.num_steps=2")
  config = workdir.begun_config(copied / "grid")
  assert config is not None and config["task_chunk"] == 0
  workdir.write_json(copied / "grid" / workdir.CONFIG, {**config, "task_chunk": 1})
  assert tuning.for_run(CONFIG, str(copied / "grid"))["task_chunk"] == 1


def test_commands_for_one_run_say_what_a_grid_is(runs, monkeypatch):
  with pytest.raises(ValueError, match=r"--workdir must be one run; .*grid is a grid, .*/KEY=VALUE\.$"):
    evaluations.evaluate(runs / "grid")
  with pytest.raises(ValueError, match=r"--init_from must be one run; .*grid is a grid"):
    run.train_and_evaluate(CONFIG, runs / "new", init=origins.InitFrom(str(runs / "grid")))
  given = {"workdirs": [str(runs / "grid")], "output": str(runs / "picture.png"), "against": None, "markdown": False}
  monkeypatch.setattr(plot, "FLAGS", types.SimpleNamespace(**given))
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
  with pytest.raises(ValueError, match=r"grid is a grid\. Name .*: .*/inner\.num_steps=1, .*/inner\.num_steps=2\.$"):
    plot.main()


def test_the_command_refuses_a_grid_in_the_folder_of_a_run_in_one_line(copied, commands):
  config = workdir.read_json(copied / "run" / workdir.CONFIG)
  changed = ("num_meta_steps", "tasks_per_step", "checkpoint_every", "steps_per_dispatch")
  flags = [f"--config.{key}={config[key]}" for key in changed] + ["--config.network.features=4"]
  flags += ["--config=sinusoid:maml", f"--workdir={copied / 'run'}", "--config.eval.num_tasks=3"]
  done = commands.run("experiments.train", [*flags, "--sweep=inner.num_steps=1,2"])
  assert done.status == 1 and len(done.stderr.splitlines()) == 1
  assert "It differs in: sweep: nothing there, {'inner.num_steps': ['1', '2']} here." in done.stderr
  again = commands.run("experiments.train", flags)
  assert again.status == 0 and again.stdout.startswith("result"), again.stderr


def test_points_can_be_plotted(runs, tmp_path, monkeypatch, capsys):
  points = [str(runs / "grid" / f"inner.num_steps={steps}") for steps in (1, 2)]
  given = {"workdirs": points, "output": str(tmp_path / "picture.png"), "against": None, "markdown": False}
  monkeypatch.setattr(plot, "FLAGS", types.SimpleNamespace(**given))
  monkeypatch.setattr(hosts, "say", print)
  plot.main()
  assert f"maml ({points[1]})" in capsys.readouterr().out
