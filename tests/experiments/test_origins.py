"""Training longer from where a run stands, and starting from another run's meta-parameters; both are recorded."""

from __future__ import annotations

import chex
import jax
import pytest

from experiments import evaluate, experiment, loop, origins, run, selection, workdir
from tests.experiments import tiny
from warpjax import checkpoints

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
  assert evaluate.evaluate(path)["extended"] == after["extended"]


def test_a_longer_run_says_what_becomes_of_a_schedule(tmp_path, capsys):
  config = tiny.config("sinusoid", "maml", {"optimizer": {"name": "adam", "learning_rate": 0.01, "schedule": "cosine"}})
  run.train_and_evaluate({**config, "num_meta_steps": 4}, tmp_path)
  result = run.train_and_evaluate(config, tmp_path)
  assert "from meta-step 4 on it is the schedule of 6." in capsys.readouterr().out
  assert result["extended"] == [{"step": 4, "num_meta_steps": [4, 6]}]


def test_a_run_is_not_made_shorter_nor_longer_with_other_settings(extended):
  path, _, after = extended
  with pytest.raises(ValueError, match="belongs to another config.*num_meta_steps: 6 there, 3 here"):
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
  assert evaluate.evaluate(tmp_path / "run")["init_from"] == record
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
  with pytest.raises(ValueError, match=r"--init_from=.* cannot be used: .* holds no checkpoint 5; it has 2, 4, 6"):
    origins.load(origins.InitFrom(str(finished[0]), 5), template)
  with pytest.raises(ValueError, match="--init_from must be a workdir with checkpoints; .* has none"):
    origins.load(origins.InitFrom(str(tmp_path)), template)
  assert not list(tmp_path.iterdir())


def test_the_checkpoint_that_validation_chose_is_taken(tmp_path, monkeypatch):
  numbers = iter([3.0, 1.0, 2.0])
  monkeypatch.setattr(selection, "_judged", lambda experiment: lambda state: {"mse": next(numbers), "ci95": 0.1})
  config = tiny.config("sinusoid", "maml", {"eval": {"val_tasks": 2, "num_steps": 1}})
  run.train_and_evaluate(config, tmp_path)
  template = jax.eval_shape(lambda: loop.start(experiment.build(config))).meta_params
  assert origins.load(origins.InitFrom(str(tmp_path)), template)[1]["step"] == 4


def test_another_network_is_refused_by_path_and_shape(finished, tmp_path):
  wider = tiny.config("sinusoid", "maml", {"network": {"features": (5,)}})
  with pytest.raises(ValueError, match=r"--init_from=.*does not fit the template: initial/.* is float32\[.*4.*\]"):
    run.train_and_evaluate(wider, tmp_path / "wider", init=origins.InitFrom(str(finished[0])))
  assert not checkpoints.steps(tmp_path / "wider" / workdir.CHECKPOINTS)
