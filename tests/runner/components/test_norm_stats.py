"""`config.eval.norm_stats`: each choice is the main number when named, and stands beside it when not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from tests.runner import tiny
from warpjax import evaluation, losses, networks
from warpjax.meta_gradients import unrolled
from warpjax.runner import evaluations, experiment, loop, measure, run
from warpjax.runner.components import norm_stats
from warpjax.runner.config import registry
from warpjax.runner.families import base, image_data, multi_shot
from warpjax.runner.reporting import protocol
from warpjax.tasks import multi_shot as alphabets
from warpjax.types import MetaParams, Task

KEY = jax.random.key(5)
CHOICES = ("transductive", "support", "support_plus_one", "running")


def measured(config, **places):
  built = experiment.build(config, **places)
  return measure.measure(built, loop.start(built))


def sines(name, **network):
  return tiny.config(
    "sinusoid", "maml", {"eval": {"norm_stats": name}, "network": {"warp": network} if network else {}}
  )


@pytest.mark.slow
def test_every_choice_is_a_number_of_its_own(tmp_path, monkeypatch):
  monkeypatch.setattr(norm_stats, "PER_STEP_TASKS", 2)
  places = {"data_dir": str(tiny.write_images(tmp_path / "raw")), "cache_dir": str(tmp_path / "cache")}
  config = tiny.config("omniglot", "maml", {"eval": {"norm_stats": "per_step", "num_tasks": 6, "num_steps": 2}})
  result = run.train_and_evaluate(config, tmp_path / "run", **places)
  assert result["norm_stats"] == "per_step" and 0 <= result["mean"] <= 1
  assert [name for name in CHOICES if name in result] == list(CHOICES)
  assert all(0 <= result[name]["mean"] <= 1 for name in CHOICES)
  again = evaluations.evaluate(tmp_path / "run", **places)
  assert {key: again[key] for key in ("norm_stats", "mean", "support")} == {
    key: result[key] for key in ("norm_stats", "mean", "support")
  }
  assert_combined(result, np.load(tmp_path / "run" / "per_task.npy"))


def assert_combined(result, per_task):
  """With another seed, whose numbers are higher by 0.1, every choice is there, and is printed."""
  higher = {name: {**result[name], "mean": result[name]["mean"] + 0.1} for name in CHOICES}
  combined = measure.combine([result, {**result, "seed": 1, **higher}], [per_task, per_task])
  for name in CHOICES:
    # Student's t with one degree of freedom, 12.706, times half the difference of two numbers.
    expected = {"mean": result[name]["mean"] + 0.05, "ci95": 12.7062 * 0.05, "num_diverged": 0}
    assert combined[name] == pytest.approx(expected, rel=1e-4)
    assert f"under {name.replace('_', ' ')} " in protocol.text(combined)
  assert (
    combined["norm_stats"] == result["norm_stats"] and combined["num_diverged"] == 0 and combined["seeds"] == [0, 1]
  )


def test_the_named_choice_and_those_beside_it_agree():
  results = {name: measured(sines(name, kind="linear", batch_norm=True))[0] for name in ("transductive", "running")}
  for name, other in (("transductive", "running"), ("running", "transductive")):
    assert results[name]["norm_stats"] == name and name not in results[name]
    assert results[name]["mean"] == pytest.approx(results[other][name]["mean"], rel=1e-5)
    assert results[name]["support"]["mean"] == pytest.approx(results[other]["support"]["mean"], rel=1e-5)
  assert len({round(results["running"][name]["mean"], 3) for name in ("transductive", "support")}) == 2


def test_statistics_of_training_tasks_are_collected_once_for_each_state():
  built, asked = experiment.build(sines("transductive", kind="linear", batch_norm=True)), []
  made = built._replace(readout=lambda inner, meta_params, *_: (asked.append(meta_params), built.readout)[1])
  state = loop.start(built)
  assert measure.measure(made, state)[0]["mean"] == pytest.approx(measure.measure(built, state)[0]["mean"])
  assert asked == [state.meta_params]


def test_a_sweep_counts_the_tasks_that_diverged_under_each_choice():
  result = {"metric": "mse", "seed": 0, "num_diverged": 1, "wall_seconds": 1.0}
  result |= {"mean": 2.0, "per_step": [2.0], "selected": {"step": 3}}
  seeds = [
    result | {"running": {"mean": 1.0, "ci95": 0.1, "num_diverged": 2}, "support": {"mean": 9.0}},
    result | {"running": {"mean": 2.0, "ci95": 0.1, "num_diverged": 0}, "support": {"mean": None, "num_diverged": 3}},
    result | {"running": {"mean": 3.0, "ci95": 0.1, "num_diverged": 1}, "transductive": {"mean": 1.0}},
  ]
  combined = measure.combine(seeds, [np.ones((2, 1))] * 3)
  assert combined["running"] == pytest.approx({"mean": 2.0, "ci95": 2.484, "num_diverged": 3}, abs=1e-3)
  assert combined["num_diverged"] == 3 and not {"transductive", "support", "selected"} & set(combined)
  of_two = measure.combine(seeds[:2], [np.ones((2, 1))] * 2)
  assert np.isnan(of_two["support"]["mean"]) and of_two["support"]["num_diverged"] == 3
  lines = [" ".join(line.split()) for line in protocol.text(combined).splitlines()]
  assert "under running 2.0000 +/- 2.4841" in lines and "diverged 3 test tasks of all seeds, left out" in lines


def test_without_batch_norm_the_choice_is_none():
  found, expected = (measured(sines(name)) for name in ("running", "transductive"))
  np.testing.assert_array_equal(found[1], expected[1])
  assert found[0]["norm_stats"] == expected[0]["norm_stats"] == "none"
  assert not set(CHOICES) & set(found[0])


def test_a_choice_that_there_is_not_is_refused():
  with pytest.raises(ValueError, match=r"config\.eval\.norm_stats must be one of 'transductive', .*got 'runing'"):
    experiment.build(sines("runing"))
  allowed = r"must be one of 'transductive', 'support', 'running', 'per_step' for these data; got 'support_plus_one'"
  with pytest.raises(ValueError, match=allowed):
    experiment.build(sines("support_plus_one"))


@pytest.mark.parametrize(
  ("reader", "ways", "queries", "unasked"),
  [
    (base.omniglot, 5, 5, True),
    (base.omniglot, 20, 1, True),
    (base.omniglot, 20, 5, False),
    (image_data.SETS["mini_imagenet"], 5, 1, True),
    (image_data.SETS["mini_imagenet"], 5, 5, False),
  ],
)
def test_query_examples_are_judged_one_at_a_time_unasked_where_they_are_few(reader, ways, queries, unasked):
  spec = reader(None, None, ways=ways, shots=1, queries=queries)
  assert "support_plus_one" in spec.norm_stats and ("support_plus_one" not in spec.costly) == unasked


def test_multi_shot_judges_one_query_set_under_every_choice():
  spec = multi_shot.omniglot(None, None, ways=2, held_out=1, batch_size=2)
  assert spec.norm_stats == (*CHOICES, "per_step") and set(spec.costly) == {"support_plus_one", "per_step"}
  images = jax.numpy.asarray(np.random.default_rng(0).integers(0, 256, (2, 4, 8, 8, 1)), jax.numpy.uint8)
  task = Task((images[0], jax.numpy.arange(4)), (images[1], jax.numpy.arange(4)))
  network = multi_shot.multi_headed(2, alphabets=1, width=2)
  inner = spec.loop(registry.inner(INNER, registry.loss(None, "accuracy")(network.apply)), network, False)
  seen = spec.whole_task(jax.random.key(1), task, (), ())
  np.testing.assert_array_equal(seen.query[0], inner.query_batch_fn(jax.random.key(1), task, (), ())[0])
  assert seen.support[0].dtype == seen.query[0].dtype and seen.support[0].shape == images[0].shape
  np.testing.assert_array_equal(seen.support[1], task.support[1])


@pytest.mark.parametrize(("query", "count"), [("support", 1), ("held_out", 4)])
def test_multi_shot_trains_on_a_minibatch_or_on_all_that_is_held_out(query, count):
  spec = multi_shot.omniglot(None, None, ways=2, held_out=1, batch_size=1, query=query)
  x, y = np.zeros((4, 8, 8, 1), np.uint8), jax.numpy.arange(4)
  network = multi_shot.multi_headed(2, alphabets=1, width=2)
  inner = spec.loop(registry.inner(INNER, registry.loss(None, "accuracy")(network.apply)), network, True)
  found_x, found_y = inner.query_batch_fn(jax.random.key(1), Task((x, y), (x, y)), (), ())
  assert len(found_x) == count and len(set(found_y.tolist())) == count


INNER = {"rule": "sgd", "learning_rate": 0.1, "num_steps": 1}


NORMED = networks.from_linen(networks.MLP((3,), 2, warp=networks.WarpSpec("linear", batch_norm=True)))


def drawings(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["support_plus_one", "per_step"])
def test_multi_shot_tasks_under_the_costly_choices(monkeypatch, name):
  monkeypatch.setattr(norm_stats, "PER_STEP_TASKS", 2)
  spec = multi_shot.omniglot(None, None, ways=2, held_out=1, batch_size=2)
  images = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 8, 8, 1), np.uint8)
  flat = lambda params, shared, stats, x: NORMED.apply_with_stats(params, shared, stats, x.reshape(len(x), -1))
  network = networks.Network(NORMED.init, lambda p, s, x: flat(p, s, None, x)[0], flat)
  inner = spec.loop(registry.inner(INNER, registry.loss(None, "accuracy")(network.apply)), network, False)
  meta_params = MetaParams(*network.init(KEY, jnp.zeros((2, 64))))
  if name == "per_step":
    made = norm_stats.per_step(network, losses.classification, 1)
    readout = made(inner, meta_params, alphabets.sampler(images, held_out=1), KEY)
  else:
    readout = norm_stats.readouts([name], inner, network, losses.classification, spec.whole_task)[name]
  tasks = alphabets.all_tasks(images, held_out=1)
  found = evaluation.evaluate(inner, meta_params, tasks, KEY, num_tasks=3, num_steps=1, metric="loss", readout=readout)
  assert found.per_task.shape == (3, 2) and np.isfinite(found.per_task).all()


def test_training_is_under_the_choice_that_is_named():
  inner = wj.InnerLoop(losses.classification(NORMED.apply), wj.rules.sgd(0.5), 1)
  meta_params = MetaParams(*jax.jit(NORMED.init)(KEY, jnp.zeros((2, 5))))
  labels = jnp.array([0, 1, 0, 1])
  task = Task((drawings(0, 4, 5), labels), (1 + 2 * drawings(1, 4, 5), labels))
  params, shared = jax.jit(lambda: wj.adapt(inner, meta_params, task, KEY).final.params)(), meta_params.shared
  under = losses.support(NORMED.apply_with_stats), losses.support_plus_one(NORMED.apply)
  expected = {name: toy.jit(loss)(params, shared, task)[0] for name, loss in zip(CHOICES[1:3], under, strict=True)}
  expected["transductive"] = toy.jit(inner.loss_fn)(params, shared, task.query)[0]
  assert len({round(float(loss), 4) for loss in expected.values()}) == 3
  for name, loss in expected.items():
    made = norm_stats.in_training(name, inner, NORMED, losses.classification)
    (value, _), grads = jax.jit(unrolled(made))(meta_params, task, KEY)
    np.testing.assert_allclose(value, loss, rtol=1e-4)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads.initial["head"]))
  without = networks.from_linen(networks.MLP((3,), 2))._replace(apply_with_stats=None)
  assert norm_stats.in_training("support", inner, without, losses.classification) is inner


def test_the_training_statistics_are_a_setting_and_on_the_card():
  norm = {"network": {"warp": {"kind": "linear", "batch_norm": True}}}
  built = experiment.build(tiny.config("sinusoid", "maml", norm, {"train_norm_stats": "support"}))
  assert built.inner.query_loss_fn is not None and built.test_inner.query_loss_fn is None
  assert protocol.card(built, 1)["train_norm_stats"] == "support"
  assert protocol.card(experiment.build(tiny.config("sinusoid", "maml", norm)), 1)["train_norm_stats"] == "transductive"


def test_training_statistics_that_there_are_not_are_refused():
  with pytest.raises(
    ValueError, match=r"config\.train_norm_stats must be one of 'transductive', 'support' for these data"
  ):
    experiment.build({**tiny.config("sinusoid", "maml"), "train_norm_stats": "support_plus_one"})
  drops = networks.from_linen(networks.ResNet12(2, (2, 2, 2, 2), 0.1), takes_key=True)
  with pytest.raises(ValueError, match="must not be 'support_plus_one' for a network with dropout"):
    norm_stats.in_training("support_plus_one", None, drops, None)
