"""Bad settings: each gets one clear error, and nothing has compiled by then."""

from __future__ import annotations

import importlib.util
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.runner import tiny
from warpjax.runner import experiment, run, workdir
from warpjax.runner.config import recipes, settings

_COMPILATIONS: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
  lambda event, duration, **kw: _COMPILATIONS.append(event) if "backend_compile" in event else None
)

SINUSOID = [
  ({"num_meta_stepz": 3}, r"config\.num_meta_stepz is not a setting; did you mean 'num_meta_steps'\?"),
  ({"inner": {"learning_rat": 0.1}}, r"config\.inner\.learning_rat is not a setting; did you mean 'learning_rate'\?"),
  ({"inner": {"num_step": 3}}, r"config\.inner\.num_step is not a setting; did you mean 'num_steps'\?"),
  ({"data": {"shot": 3}}, r"config\.data\.shot is not a setting; did you mean 'shots'\?"),
  ({"eval": {"num_task": 3}}, r"config\.eval\.num_task is not a setting; did you mean 'num_tasks'\?"),
  ({"network": {"name": "mpl"}}, r"config\.network\.name has no 'mpl'; did you mean 'mlp'\?"),
  (
    {"network": {"adapts": "haed"}},
    r"config\.network\.adapts must be one of .*; got 'haed' \(str\); did you mean 'head'\?",
  ),
  ({"inner": {"rule": "sdg"}}, r"config\.inner\.rule has no 'sdg'; did you mean 'sgd'\?"),
  ({"meta_gradient": {"derivative": "mixd"}}, r"config\.meta_gradient\.derivative must be one of 'mixed', 'reverse'"),
  ({"optimizer": {"schedule": "liner"}}, r"config\.optimizer\.schedule must be one of 'constant', 'linear'"),
  ({"eval": {"batch_size": 2}}, r"config\.eval\.batch_size needs inner\.batch to be 'minibatch' or 'epochs'; got 2"),
  (
    {"meta_gradient": {"steps_per_epoch": 10}},
    r"config\.meta_gradient\.steps_per_epoch needs multi_step_epochs or first_order_epochs; got 10",
  ),
  (
    {"meta_gradient": {"derivative": "first_order", "first_order_epochs": 3}},
    r"config\.meta_gradient\.first_order_epochs must be 0 with derivative='first_order'; got 3",
  ),
  ({"num_meta_steps": 1.5}, r"config\.num_meta_steps must be an integer; got 1\.5 \(float\)"),
  ({"inner": {"learning_rate": "fast"}}, r"config\.inner\.learning_rate must be a number; got 'fast'"),
  ({"network": {"features": 40}}, r"config\.network\.features must be a sequence, each an integer; got 40"),
  ({"eval": 3}, r"config\.eval must be a table; got 3"),
  ({"num_meta_steps": 0}, r"config\.num_meta_steps must be an integer of at least 1; got 0"),
  ({"inner": {"num_steps": 0}}, r"config\.inner\.num_steps must be an integer of at least 1; got 0"),
  (
    {"eval": {"optimizer_state": "trained"}},
    r"config\.eval\.optimizer_state must be 'fresh' unless config\.meta_gradient\.carry_optimizer is True",
  ),
  ({"eval": {"num_steps": 0}}, r"config\.eval\.num_steps must be an integer of at least 1; got 0"),
  ({"tasks_per_step": -4}, r"config\.tasks_per_step must be an integer of at least 1; got -4"),
  ({"task_chunk": -1}, r"config\.task_chunk must be an integer of at least 0; got -1"),
  ({"checkpoint_every": 3}, r"config\.checkpoint_every must be a multiple of steps_per_dispatch, 2; got 3"),
  ({"inner": {"learning_rate": -0.1}}, r"learning_rate must be a positive number"),
  ({"optimizer": {"learning_rate": 0.0}}, r"config\.optimizer\.learning_rate must be above 0; got 0\.0"),
  ({"optimizer": {"clip": -1.0}}, r"config\.optimizer\.clip must be at least 0; got -1\.0"),
  ({"inner": {"batch_size": 3}}, r"config\.inner\.batch_size needs inner\.batch"),
  ({"inner": {"batch": "epochs"}}, r"config\.inner\.batch_size must be an integer of at least 1; got 0"),
  ({"data": {"shots": 0}}, r"config\.data\.shots must be an integer of at least 1; got 0"),
  ({"data": {"train_shots": -1}}, r"config\.data\.train_shots must be an integer of at least 0; got -1"),
  ({"eval": {"batch_size": -1}}, r"config\.eval\.batch_size must be an integer of at least 0; got -1"),
  ({"optimizer": {"rule_learning_rate": -1.0}}, r"config\.optimizer\.rule_learning_rate must be at least 0; got -1"),
  ({"meta_gradient": {"multi_step_epochs": -1}}, r"config\.meta_gradient\.multi_step_epochs must be an integer"),
  ({"inner": {"prox": -1.0}}, r"config\.inner\.prox must be at least 0; got -1"),
  ({"inner": {"nesterov": True}}, r"config\.inner\.nesterov needs inner\.momentum above 0; got None"),
  (
    {"network": {"warp": {"num_layers": 2}}},
    r"config\.network\.warp\.kind must be set with other settings of warp-layers; got {'num_layers': 2}",
  ),
]
RELEASED = {"name": "implicit", "operator": "released"}
ROWS = [
  (
    "reptile",
    {"meta_gradient": {"in_turn": True}},
    r"meta_gradient\.in_turn needs meta_gradient\.carry_optimizer",
  ),
  ("reptile", {"eval": {"batch_size": 0}}, r"eval\.batch_size \(0 for config\.inner's\) must be at most .* 5; got 10"),
  ("reptile", {"inner": {"batch_size": 999}}, r"config\.inner\.batch_size must be at most .* a task, \d+; got 999"),
  ("imaml", {"inner": {"prox": 0.0}}, r"implicit needs InnerLoop\.prox > 0"),
  (
    "imaml",
    {"meta_gradient": {**RELEASED, "solver": "neumann"}},
    r"operator must be 'paper' with another .* 'neumann'",
  ),
  ("imaml", {"meta_gradient": {**RELEASED, "damping": 5.0}}, r"operator must be 'paper' .* and a damping of 5\.0"),
  ("imaml_hf", {"meta_gradient": {"name": "unrolled"}}, r"config\.meta_gradient\.\w+ is not a setting"),
]
IMAGES = [
  ({"data": {"ways": 4}}, r"ways must be at most the 3 classes there are; got 4"),
  ({"data": {"shots": 8, "queries": 5}}, r"shots \+ queries must be at most the 12 examples there are; got 8 \+ 5"),
  ({"data": {"train_shots": 12}}, r"shots \+ queries must be at most the 12 examples there are; got 12 \+ 1"),
  ({"data": {"split": "random_characters"}}, r"config\.data\.split must be 'folders' for a data folder"),
  ({"data": {"rotations": "all"}}, r"config\.data\.rotations must be one of 'none', 'per_class', 'as_classes'"),
]


def refused(config, message, **places):
  before = len(_COMPILATIONS)
  with pytest.raises(ValueError, match=message) as error:
    experiment.build(config, **places)
  assert len(_COMPILATIONS) == before
  assert "\n" not in str(error.value)


def overridden(file, method, overrides):
  """As by the command line, but with keys and types that it would refuse."""
  config = tiny.config(file, method)
  for key, value in overrides.items():
    config[key] = {**config[key], **value} if isinstance(value, dict) else value
  return config


@pytest.mark.parametrize(("overrides", "message"), SINUSOID)
def test_settings(overrides, message):
  refused(overridden("sinusoid", "maml", overrides), message)


OF_OTHER_METHODS = [
  (
    "navigation",
    "maml",
    {"optimizer": {"name": "adam", "learning_rate": 0.1}},
    r"optimizer\.name must be 'none' with 'trpo'",
  ),
  (
    "navigation",
    "maml",
    {"loss": "warpjax.losses:classification"},
    r"config\.loss must be None with config\.data\.name='navigation'",
  ),
  (
    "continual",
    "maml",
    {"loss": "warpjax.losses:regression"},
    r"config\.loss must be None with config\.data\.name='continual'",
  ),
  (
    "continual",
    "warp_maml",
    {"meta_gradient": {"leap_loss": False}},
    r"leap_loss needs initial to be 'leap'; got 'maml'",
  ),
]


@pytest.mark.parametrize(("file", "method", "overrides", "message"), OF_OTHER_METHODS)
def test_settings_without_an_effect(file, method, overrides, message):
  refused(overridden(file, method, overrides), message)


def test_a_step_size_of_parameters_that_there_are_not(tmp_path):
  config = overridden("sinusoid", "maml", {"optimizer": {"shared_learning_rate": 0.1}})
  with pytest.raises(ValueError, match=r"config\.optimizer\.shared_learning_rate must be 0 for a method without these"):
    run.train_and_evaluate(config, tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("batch", ["minibatch", "epochs"])
def test_batches_of_the_test_are_drawn_as_those_of_training(batch):
  config = overridden("sinusoid", "maml", {"inner": {"batch": batch, "batch_size": 3}, "eval": {"batch_size": 3}})
  built = experiment.build(config)
  key, support = jax.random.key(0), jnp.arange(7)
  for index in range(4):
    wanted, found = (loop.batch_fn(key, support, index, (), ()) for loop in (built.inner, built.test_inner))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("method", "overrides", "message"), ROWS)
def test_settings_of_a_row(method, overrides, message):
  refused(overridden("sinusoid", method, overrides), message)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  root = tmp_path_factory.mktemp("images")
  return {"data_dir": str(tiny.write_images(root / "raw")), "cache_dir": str(root / "cache")}


@pytest.mark.parametrize(("overrides", "message"), IMAGES)
def test_settings_of_images(overrides, message, images):
  refused(overridden("omniglot", "maml", overrides), message, **images)


OWN_BATCHES = [("navigation", "maml"), ("maze", "rnn"), ("continual", "maml"), ("l2l", "l2l_lstm_images")]


@pytest.mark.parametrize(("file", "method"), [*OWN_BATCHES, ("multi_shot_omniglot", "leap"), ("ttt", "warp")])
def test_batches_of_a_config_are_refused_where_the_data_bring_their_own(file, method):
  for table, key, value in (("inner", "batch", "minibatch"), ("inner", "batch_size", 4), ("eval", "batch_size", 4)):
    config = recipes.settings(f"{file}:{method}")
    config[table][key] = value
    refused(config, rf"config\.{table}\.{key} .*{config['data']['name']}.* has its own batches; got {value!r}")
    config[table][key] = 0 if key == "batch_size" else "full"
    if "omniglot" not in file and file not in ("l2l", "ttt"):  # which need files
      experiment.build(config)


def test_settings_of_two_tables_that_do_not_fit():
  rule = recipes.settings("l2l:l2l_lstm")
  rule["inner"]["num_steps"] = 200
  refused(rule, r"config\.optimizer\.updates_per_step must be 10, the outer updates of a meta-step .*; got 5")
  joint = recipes.settings("multi_shot_omniglot:fine_tuning_25_cpu")
  joint["data"]["alphabets"] = 30
  refused(joint, r"config\.data\.alphabets must be at most the heads, network\.alphabets, 25; got 30")
  joint["data"]["alphabets"], joint["network"]["alphabets"] = None, 10
  refused(joint, r"config\.data\.alphabets must be at most the heads, network\.alphabets, 10; got 25")


def test_without_matplotlib_nothing_is_trained(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "matplotlib", None)
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ImportError, match="matplotlib is not installed"):
    run.train_and_evaluate(tiny.config("sinusoid", "maml"), tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("flag", "kept"), [pytest.param("data.shots=3", False, marks=pytest.mark.slow), ("data.train_queries=3", True)]
)
def test_the_published_number_is_of_its_own_tasks(commands, tmp_path, flag, kept):
  small = ("num_meta_steps=2", "checkpoint_every=2", "steps_per_dispatch=2", "eval.num_tasks=2", flag)
  arguments = ["--config=configs/sinusoid.py:maml", *(f"--config.{setting}" for setting in small)]
  done = commands.run("experiments.train", [*arguments, f"--workdir={tmp_path}", *(["--json"] if kept else [])])
  assert done.status == 0, done.stderr
  result = workdir.read_json(tmp_path / workdir.RESULT)
  assert ("published" in result) is kept
  if kept:
    assert json.loads(done.stdout[done.stdout.index("\n{") :]) == result
  else:
    assert any(line.startswith("result ") for line in done.stdout.splitlines()) and "{" not in done.stdout


def test_a_missing_table_is_named():
  config = tiny.config("sinusoid", "maml")
  del config["optimizer"]
  refused(config, r"config must have the tables data, .*; it lacks optimizer\. A recipe with BASE has those of another")


def test_absent_data_say_where_and_how(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  place = tmp_path / "nothing_here"
  before = len(_COMPILATIONS)
  with pytest.raises(FileNotFoundError) as error:
    experiment.build(tiny.config("omniglot", "maml"), data_dir=str(place))
  assert str(place) in str(error.value) and "omniglot" in str(error.value).lower()
  assert "warpjax prepare" in str(error.value)
  assert len(_COMPILATIONS) == before


def test_the_workdir_of_another_config_is_refused(tmp_path):
  config = tiny.config("sinusoid", "maml")
  (tmp_path / "config.json").write_text('{"seed": 3}')
  (tmp_path / "result.json").write_text("{}")
  before = len(_COMPILATIONS)
  with pytest.raises(ValueError, match="belongs to another config.*seed: 3 there, 0 here"):
    run.train_and_evaluate(config, tmp_path)
  assert len(_COMPILATIONS) == before


def test_help_names_every_flag_of_the_script(commands):
  printed = commands.run("experiments.train", ["--help"]).stdout
  names = ["config", "workdir", "seeds", "data_dir", "cache_dir", "compilation_cache", "traceback", "list"]
  for name in [*names, "coordinator", "num_processes", "process_id", "on_nonfinite"]:
    assert re.search(rf"--(\[no\])?{name}:", printed), name


@pytest.mark.parametrize("values", ["0.02", "0.01,0.02"])
def test_the_command_line_gives_meta_sgd_a_number_or_bounds(values):
  config = settings.with_overrides(recipes.settings("sinusoid:meta_sgd"), [f"inner.learning_rate={values}"])
  alpha = experiment.build(config).inner.rule.init(jax.random.key(0), jax.numpy.zeros(100))
  assert alpha.min() >= 0.01 and alpha.max() <= 0.0200001
  assert (alpha.min() == alpha.max()) == (values == "0.02")
