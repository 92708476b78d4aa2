"""A method of one's own in one file, in a folder of one's own: launched, gone on with, evaluated and drawn."""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.runner.commands import told
from warpjax.runner import evaluations, experiment, run, workdir
from warpjax.runner.config import recipes, registry, settings
from warpjax.runner.plots import figures

ROOT = pathlib.Path(__file__).parents[2]
METHOD = '''"""Lines: a rule, a meta-gradient, a network, tasks, an optimizer and a loss of mine."""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

import warpjax as wj
from warpjax import meta_gradients, networks
from warpjax.runner.families.base import Data, Spec


def step_per_array(learning_rate: float) -> wj.UpdateRule:
  """A learned step size for every array.

  Args:
    learning_rate: Where they start.
  """
  init = lambda key, params: jax.tree.map(lambda leaf: jnp.full((), learning_rate), params)
  step = lambda sizes: lambda grads, params: jax.tree.map(lambda size, grad: -size * grad, sizes, grads)
  return wj.UpdateRule(init, lambda sizes: optax.stateless(step(sizes)), name="step_per_array")


def scaled(inner: wj.InnerLoop, scale: float = 1.0):
  grad = meta_gradients.unrolled(inner, "first_order")

  def meta_grad(meta_params, task, key):
    value, grads = grad(meta_params, task, key)
    return value, jax.tree.map(lambda leaf: scale * leaf, grads)

  return meta_grad


def small(num_outputs: int, width: int = 8):
  return networks.from_linen(networks.MLP((width,), num_outputs))


def lines(shots: Annotated[int, "test"] = 5) -> Spec:
  def sample(key):
    keys = jax.random.split(key, 3)
    slope, points = jax.random.normal(keys[0]), [jax.random.normal(k, (n, 1)) for k, n in zip(keys[1:], (shots, 9))]
    return wj.Task(*((x, slope * x) for x in points))

  return Spec("mse", 1, lambda: Data(sample, sample, {}))


def momentum(learning_rate: float):
  return optax.sgd(learning_rate, 0.9)


def absolute(apply):
  def loss(params, shared, batch):
    error = jnp.mean(jnp.abs(apply(params, shared, batch[0]) - batch[1]))
    return error, {"mse": error}

  return loss


BASE = "sinusoid:maml"
COMMON = {"num_meta_steps": 4, "tasks_per_step": 2, "checkpoint_every": 2, "steps_per_dispatch": 2}
COMMON |= {"eval": {"num_tasks": 5}}
METHODS = {
  "mine": {"inner": {"rule": "my_method:step_per_array", "learning_rate": 0.01, "num_steps": 2}},
  "all": {
    "data": {"name": "my_method:lines", "shots": 4},
    "network": {"name": "my_method:small", "width": 4},
    "inner": {"rule": "my_method:step_per_array", "learning_rate": 0.01, "num_steps": 2},
    "meta_gradient": {"name": "my_method:scaled", "scale": 0.5},
    "optimizer": {"name": "my_method:momentum", "learning_rate": 0.01},
    "loss": "my_method:absolute",
  },
}
'''


def launch(command, *arguments, cwd, root=ROOT):
  """`python -m warpjax.runner COMMAND` from a folder that knows nothing of the repository."""
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "agg", "PYTHONPATH": str(root)}
  line = [sys.executable, "-m", "warpjax.runner", command, *arguments]
  return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(autouse=True)
def a_process_that_knows_no_such_module(monkeypatch):
  monkeypatch.setattr(sys, "path", [folder for folder in sys.path if "my_method" not in folder])
  monkeypatch.delitem(sys.modules, "my_method", raising=False)
  recipes._module.cache_clear()
  yield
  sys.modules.pop("my_method", None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """The folder of `my_method.py`, and in it a run of everything of its own."""
  folder = tmp_path_factory.mktemp("my_method")
  (folder / "my_method.py").write_text(METHOD)
  done = launch("train", "--config=my_method.py:all", "--workdir=run", "--config.inner.num_steps=3", cwd=folder)
  assert done.returncode == 0, done.stderr
  return folder


def test_it_was_launched_with_its_own_settings(trained):
  result, config = (workdir.read_json(trained / "run" / name) for name in (workdir.RESULT, workdir.CONFIG))
  assert result["experiment"] == "my_method" and result["method"] == "all" and result["metric"] == "mse"
  assert len(result["per_step"]) == 2 and np.isfinite(result["mean"])
  assert config["inner"]["rule"] == "my_method:step_per_array" and config["inner"]["num_steps"] == 3
  assert config["loss"] == "my_method:absolute"
  assert config["modules"]["my_method"]["folder"] == str(trained.resolve())


def test_it_is_evaluated_and_drawn_from_elsewhere(trained, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  again = evaluations.evaluate(trained / "run")
  result = workdir.read_json(trained / "run" / workdir.RESULT)
  assert again["mean"] == pytest.approx(result["mean"], rel=1e-6)
  more = evaluations.evaluate(trained / "run", 7, changed={"data.shots": 6}, name="six")
  assert more["changed"] == {"data.shots": 6} and (trained / "run" / "evaluation_six.json").exists()
  figures.draw([trained / "run"], tmp_path / "curves.png", results=[result])
  assert (tmp_path / "curves.png").stat().st_size > 1000


def test_settings_of_its_test_are_read_from_elsewhere(trained, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = workdir.read_json(trained / "run" / workdir.CONFIG)
  assert settings.values(config, ["data.shots=6", "eval.num_steps=2"]) == {"data.shots": 6, "eval.num_steps": 2}


def test_it_goes_on_from_elsewhere(trained, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  shutil.copytree(trained / "run", tmp_path / "run")
  config = workdir.read_json(tmp_path / "run" / workdir.CONFIG)
  result = run.train_and_evaluate({**config, "num_meta_steps": 6}, tmp_path / "run")
  assert result["extended"] == [{"step": 4, "num_meta_steps": [4, 6]}]
  assert [row["step"] for row in workdir.read_metrics(tmp_path / "run")] == [2, 4, 6]
  assert result["mean"] != workdir.read_json(trained / "run" / workdir.RESULT)["mean"]


def test_what_is_built_is_what_the_file_says(trained):
  row = settings.with_overrides(recipes.settings(f"{trained}/my_method.py:all"), ["data.shots=3", "inner.num_steps=1"])
  built = experiment.build({**row, "modules": registry.user_modules(row)})
  support, query = built.data.train(jax.random.key(0))
  assert support[0].shape == (3, 1) and query[0].shape == (9, 1)
  np.testing.assert_allclose(support[1] / support[0], np.full((3, 1), query[1][0, 0] / query[0][0, 0]), rtol=1e-5)
  params, shared = built.network.init(jax.random.key(0), support[0])
  assert {leaf.shape[-1] for leaf in jax.tree.leaves(params)} == {4, 1}
  loss, _ = built.inner.loss_fn(params, shared, support)
  errors = np.abs(built.network.apply(params, shared, support[0]) - support[1])
  np.testing.assert_allclose(loss, errors.mean(), rtol=1e-6)
  sizes = built.inner.rule.init(jax.random.key(0), params)
  assert {leaf.shape for leaf in jax.tree.leaves(sizes)} == {()} and built.inner.num_steps == 1


def test_its_settings_are_those_of_its_signature(trained):
  row = recipes.settings(f"{trained}/my_method.py:all")
  found = {setting.path: setting for setting in settings.reference(row)}
  assert found["inner.learning_rate"].required and found["inner.learning_rate"].doc == "Where they start."
  assert found["network.width"].default == 8 and "network.num_outputs" not in found
  assert "optimizer.num_meta_steps" not in found and "meta_gradient.inner" not in found
  for given, message in [
    ("inner.learning_rat=1", r"config\.inner\.learning_rat is not a setting; did you mean 'learning_rate'\?"),
    ("meta_gradient.scale=big", r"config\.meta_gradient\.scale must be a number; got 'big'"),
    ("data.queries=3", r"config\.data\.queries is not a setting.* Allowed: name, shots"),
  ]:
    with pytest.raises(ValueError, match=message):
      settings.with_overrides(row, [given])


@pytest.mark.parametrize(("name", "message"), [
  ("my_method:stpe", r"config\.inner\.rule must be module:function; my_method has no function 'stpe'"),
  ("my_method:METHODS", r"config\.inner\.rule must be module:function; my_method has no function 'METHODS'"),
  ("no_such_module:rule", r"config\.inner\.rule must be module:function; got 'no_such_module:rule', and No module"),
])  # fmt: skip
def test_a_function_that_is_not_there_is_named(trained, name, message):
  row = recipes.lay_over(recipes.settings(f"{trained}/my_method.py:mine"), {"inner": {"rule": name}})
  with pytest.raises(ValueError, match=message) as error:
    experiment.build(row)
  assert "\n" not in str(error.value)


def copied(trained, tmp_path):
  """The folder elsewhere, where nothing else reads its file."""
  folder = tmp_path / "my_method_too"
  folder.mkdir()
  (folder / "my_method.py").write_text(METHOD)
  config = workdir.read_json(trained / "run" / workdir.CONFIG)
  config["modules"]["my_method"]["folder"] = str(folder)
  workdir.write_json(folder / workdir.CONFIG, config)
  return folder


def test_an_edited_module_is_refused_in_one_line(trained, commands, tmp_path):
  folder = copied(trained, tmp_path)
  experiment.build(workdir.read_json(folder / workdir.CONFIG))
  (folder / "my_method.py").write_text(METHOD.replace("-size * grad", "-2 * size * grad"))
  sys.modules.pop("my_method")
  done = commands.run("warpjax.runner.__main__", ["evaluate", f"--workdir={folder}"])
  assert done.status == 1 and len(told(done.stderr)) == 1, done.stderr
  assert told(done.stderr)[0].startswith("error: my_method, which the config names, has changed since the run began: ")


def test_a_module_that_is_gone_is_refused_in_one_line(trained, tmp_path):
  folder = copied(trained, tmp_path)
  (folder / "my_method.py").unlink()
  importlib.invalidate_caches()
  with pytest.raises(ValueError, match=r"the config names my_method:..., and No module named 'my_method'") as error:
    experiment.build(json.loads((folder / workdir.CONFIG).read_text()))
  assert "\n" not in str(error.value)


def test_a_moved_folder_with_the_same_file_goes_on(trained, tmp_path):
  folder, config = copied(trained, tmp_path), workdir.read_json(trained / "run" / workdir.CONFIG)
  moved = workdir.read_json(folder / workdir.CONFIG)
  assert moved["modules"] != config["modules"] and settings.identity(moved) == settings.identity(config)


def test_a_run_is_drawn_after_its_module_was_edited_or_removed(trained, tmp_path):
  folder = copied(trained, tmp_path)
  config = workdir.read_json(folder / workdir.CONFIG)
  (folder / "my_method.py").write_text(METHOD + "\n# A comment.\n")
  assert settings.of_the_test(config) == {"name": "my_method:lines", "shots": 4}
  (folder / "my_method.py").unlink()
  sys.modules.pop("my_method", None)
  importlib.invalidate_caches()
  assert settings.of_the_test(config) == {"name": "my_method:lines", "shots": 4}


def test_an_edit_in_the_same_process_is_what_runs_and_what_is_recorded(tmp_path):
  """As in a notebook."""
  file, source = tmp_path / "my_method.py", f"{tmp_path}/my_method.py:mine"
  file.write_text(METHOD)
  before = settings.load_config(source)
  file.write_text(METHOD.replace("-size * grad", "-2 * size * grad").replace('"num_steps": 2', '"num_steps": 3'))
  os.utime(file, ns=(1, 1))
  after = settings.load_config(source)
  assert (before["inner"]["num_steps"], after["inner"]["num_steps"]) == (2, 3)
  assert before["modules"] != after["modules"]
  transform = experiment.build(after).inner.rule.transform({"w": 0.5})
  updates, _ = transform.update({"w": 1.0}, transform.init({"w": 1.0}), {"w": 1.0})
  assert updates == {"w": -1.0}  # twice the step of the first version


NET = """
from __future__ import annotations

import flax.linen as nn


class Net(nn.Module):
  num_outputs: int
  width: int = 3

  @nn.compact
  def __call__(self, x):
    return nn.Dense(self.num_outputs)(nn.relu(nn.Dense(self.width)(x)))


def net(num_outputs: int, width: int = 3):
  from warpjax import networks

  return networks.from_linen(Net(num_outputs, width))


BASE = "sinusoid:maml"
METHODS = {"mine": {"network": {"name": "my_method:net", "width": 5}}}
"""


def test_a_recipe_can_hold_a_flax_module(tmp_path):
  (tmp_path / "my_method.py").write_text(NET)
  built = experiment.build(settings.load_config(f"{tmp_path}/my_method.py:mine"))
  params, _ = built.network.init(jax.random.key(0), np.zeros((2, 1)))
  assert {layer["kernel"].shape for layer in params.values()} == {(1, 5), (5, 1)}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """The package as a wheel has it: without the repository beside it."""
  folder = tmp_path_factory.mktemp("installed")
  line = [sys.executable, "setup.py", "-q", "build", f"--build-lib={folder}/lib", f"--build-base={folder}/base"]
  subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=280, check=True)
  return folder / "lib"


def test_recipes_are_installed_with_the_package(installed):
  assert {path.name for path in (installed / "warpjax" / "recipes").glob("*.py")} == {
    path.name for path in (ROOT / "configs").glob("*.py")
  }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_is_launched_where_only_the_package_is_installed(installed, tmp_path):
  (tmp_path / "my_method.py").write_text(METHOD)
  for command in (
    ("train", "--config=my_method.py:mine", "--workdir=run"),
    ("train", "--config=my_method.py:mine", "--workdir=run", "--config.num_meta_steps=6"),
    ("evaluate", "--workdir=run", "--num_tasks=7"),
    ("plot", "--workdirs=run", "--output=run.png"),
  ):
    done = launch(*command, cwd=tmp_path, root=installed)
    assert done.returncode == 0, done.stderr
  assert workdir.read_json(tmp_path / "run" / workdir.EVALUATION)["num_tasks"] == 7
  assert workdir.read_json(tmp_path / "run" / workdir.RESULT)["num_meta_steps"] == 6
  assert (tmp_path / "run.png").exists()
