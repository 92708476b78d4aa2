"""Training longer from where a run stands, and starting from another run's meta-parameters; both are recorded."""

from __future__ import annotations

import chex
import jax
import pytest

from tests.runner import tiny
from warpjax.runner import evaluations, experiment, loop, origins, run, selection, workdir
from warpjax.runner.config import registry
from warpjax.training import checkpoints

PUBLISHED = {"published": {"number": 1.0, "interval": 0.1, "source": "nobody"}}
CONFIG = {**tiny.config("sinusoid", "maml"), **PUBLISHED}  # six meta-steps, two a dispatch
SHORT = {**CONFIG, "num_meta_steps": 3}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  path = tmp_path_factory.mktemp("origins") / "whole"
  return path, run.train_and_evaluate(CONFIG, path)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
  path = tmp_path_factory.mktemp("origins") / "extended"
  return path, run.train_and_evaluate(SHORT, path), run.train_and_evaluate(CONFIG, path)


def state_of(path):
  return loop.restore(experiment.build(CONFIG), path)


def without_result(path):
  """The evaluation of a run as a signal would have left it: what it started from is in its checkpoint alone."""
  result = (path / workdir.RESULT).rename(path / "aside.json")
  found = evaluations.evaluate(path)
  result.rename(path / workdir.RESULT)
  return found


def raw(state):
  return state._replace(key=jax.random.key_data(state.key))


def test_a_longer_run_is_the_same_as_one_that_never_stopped(finished, extended):
  """With a constant outer learning rate; dispatches go on at multiples of their length."""
  path, before, after = extended
  chex.assert_trees_all_close(raw(state_of(path)), raw(state_of(finished[0])), rtol=1e-6)
  assert [row["step"] for row in workdir.read_metrics(path)] == [2, 3, 4, 6]
  assert after["num_meta_steps"] == 6 and after["mean"] == pytest.approx(finished[1]["mean"], rel=1e-5)
  assert "extended" not in before and after["extended"] == [{"step": 3, "num_meta_steps": [3, 6]}]
  assert workdir.read_json(path / "result_3.json") == before
  assert workdir.read_json(path / workdir.CONFIG)["num_meta_steps"] == 6
  assert without_result(path)["extended"] == after["extended"]


@pytest.mark.slow
def test_a_longer_run_says_what_becomes_of_a_schedule(tmp_path, capsys):
  config = tiny.config("sinusoid", "maml", {"optimizer": {"name": "adam", "learning_rate": 0.01, "schedule": "cosine"}})
  run.train_and_evaluate({**config, "num_meta_steps": 4}, tmp_path)
  result = run.train_and_evaluate(config, tmp_path)
  said = "This run had 4 meta-steps and now has 6. The learning-rate schedule is now that of 6 meta-steps."
  assert said in capsys.readouterr().out.splitlines()
  assert result["extended"] == [{"step": 4, "num_meta_steps": [4, 6]}]


def test_a_schedule_is_told_of_only_where_there_is_one(capsys):
  restored = checkpoints.Restored(4, None, {"num_meta_steps": 4})
  origins.going_on(restored, 6, None, print, has_schedule=False)
  assert capsys.readouterr().out == "This run had 4 meta-steps and now has 6.\n"
  assert not registry.has_schedule(CONFIG["optimizer"]) and not registry.has_schedule({"name": "adam"})
  for optimizer in ({"name": "sgd", "schedule": "linear"}, {"name": "rule_adam"}):
    assert registry.has_schedule(optimizer)


def test_a_run_is_not_made_shorter_nor_longer_with_other_settings(extended):
  path, _, after = extended
  with pytest.raises(ValueError, match="is a run of 6 meta-steps, and num_meta_steps can only be raised; got 3"):
    run.train_and_evaluate(SHORT, path)
  with pytest.raises(ValueError, match="belongs to another config.*num_meta_steps: 6 there, 8 here; seed: 0 there, 1"):
    run.train_and_evaluate({**CONFIG, "num_meta_steps": 8, "seed": 1}, path)
  assert workdir.read_json(path / workdir.RESULT) == after


def test_a_run_starts_from_another(finished, tmp_path):
  path, other = finished
  init = origins.InitFrom(str(path))
  config = {**CONFIG, "num_meta_steps": 2, "optimizer": {"name": "sgd", "learning_rate": 1e-30}}
  result = run.train_and_evaluate(config, tmp_path / "run", init=init)
  trained = state_of(path)
  begun = loop.restore(experiment.build(config), tmp_path / "run")
  chex.assert_trees_all_equal(begun.meta_params, trained.meta_params)  # the rate moves nothing
  assert int(begun.step) == 2 and result["mean"] == pytest.approx(other["mean"], rel=1e-6)
  record = {"workdir": str(path), "step": 6, "sha256": checkpoints.digest(trained.meta_params)}
  assert result["init_from"] == record and "published" in other and "published" not in result
  assert evaluations.evaluate(tmp_path / "run")["init_from"] == record
  again = without_result(tmp_path / "run")
  assert again["init_from"] == record and "published" not in again
  assert run.train_and_evaluate(config, tmp_path / "run") == result  # the command need not say it again
  with pytest.raises(ValueError, match=r"this run began from .*, meta-step 6; use another --workdir"):
    run.train_and_evaluate(config, tmp_path / "run", init=origins.InitFrom(str(path), 4))
  with pytest.raises(ValueError, match="this run began from its own initial parameters; use another"):
    run.train_and_evaluate(CONFIG, path, init=init)
  assert checkpoints.steps(path / workdir.CHECKPOINTS) == [2, 4, 6]


def test_the_optimizer_starts_anew_from_the_other_runs_parameters(finished):
  built, trained = experiment.build(CONFIG), state_of(finished[0])
  state = loop.start(built, trained.meta_params)
  chex.assert_trees_all_equal(state.meta_params, trained.meta_params)
  chex.assert_trees_all_equal(state.opt_state, built.optimizer.init(trained.meta_params))
  assert int(state.step) == 0


def test_a_checkpoint_is_chosen_and_has_to_be_there(finished, tmp_path):
  built = experiment.build(CONFIG)
  template = jax.eval_shape(lambda: loop.start(built)).meta_params
  assert origins.load(origins.InitFrom(str(finished[0]), 4), template)[1]["step"] == 4
  with pytest.raises(ValueError, match=r"^--init_from=\S+: \S+ holds no checkpoint 5; it has 2, 4, 6"):
    origins.load(origins.InitFrom(str(finished[0]), 5), template)
  with pytest.raises(ValueError, match="--init_from must be a workdir with checkpoints; .* has none"):
    origins.load(origins.InitFrom(str(tmp_path)), template)
  assert not list(tmp_path.iterdir())


def test_the_checkpoint_that_validation_chose_is_taken(tmp_path, monkeypatch):
  numbers = iter([3.0, 1.0, 2.0])
  monkeypatch.setattr(selection, "_measured", lambda experiment: lambda state: {"mse": next(numbers), "ci95": 0.1})
  config = tiny.config("sinusoid", "maml", {"eval": {"val_tasks": 2, "num_steps": 1}})
  run.train_and_evaluate(config, tmp_path)
  template = jax.eval_shape(lambda: loop.start(experiment.build(config))).meta_params
  assert origins.load(origins.InitFrom(str(tmp_path)), template)[1]["step"] == 4


def test_another_network_is_refused_by_path_and_shape(finished, tmp_path):
  wider = tiny.config("sinusoid", "maml", {"network": {"features": (5,)}})
  with pytest.raises(ValueError, match=r"does not fit the template: initial/.* is float32\[.*4.*\]") as error:
    run.train_and_evaluate(wider, tmp_path / "wider", init=origins.InitFrom(str(finished[0])))
  assert str(error.value).startswith(f"--init_from={finished[0]}: ")
  assert str(error.value).count("can be used") == 1 and "cannot be used" not in str(error.value)
  assert not checkpoints.steps(tmp_path / "wider" / workdir.CHECKPOINTS)


def test_a_sweep_is_no_run_to_start_from(tmp_path):
  workdir.prepare(tmp_path, {key: value for key, value in CONFIG.items() if key != "seed"})
  with pytest.raises(ValueError, match=r"--init_from must be one run; .* has one for each seed, .*/seed_N"):
    origins.load(origins.InitFrom(str(tmp_path)), None)


@pytest.mark.slow
def test_a_sweep_keeps_what_its_runs_started_from(finished, tmp_path, monkeypatch):
  """Also where it is stopped after a seed, and the command that goes on does not say it again."""
  init, config = origins.InitFrom(str(finished[0])), {**CONFIG, "num_meta_steps": 2}
  with monkeypatch.context() as patch:
    patch.setattr(run, "_build", stopping_at_the_second(run._build))
    with pytest.raises(KeyboardInterrupt):
      run.sweep(config, tmp_path, [0, 1], init=init)
  combined = run.sweep(config, tmp_path, [0, 1])
  record = workdir.read_json(tmp_path / "seed_0" / workdir.RESULT)["init_from"]
  assert combined["init_from"] == record == workdir.read_json(tmp_path / "seed_1" / workdir.RESULT)["init_from"]
  assert "published" not in combined and "extended" not in combined


def test_a_sweep_lists_every_extension_of_its_runs():
  first, second = ({"step": step, "num_meta_steps": [step, 9]} for step in (2, 3))
  results = [{"extended": [first]}, {}, {"extended": [second]}, {"extended": [first]}]
  assert origins.of_sweep(results) == {"extended": [first, second]} and origins.of_sweep([{}]) == {}


def stopping_at_the_second(build):
  calls = []

  def called(*arguments, **keywords):
    calls.append(arguments)
    if len(calls) == 2:
      raise KeyboardInterrupt
    return build(*arguments, **keywords)

  return called
