"""Where the tasks of a config start: at prototypes, or at a context of zero, in training and in the test."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.runner import tiny
from warpjax.runner import experiment, loop, measure
from warpjax.runner.config import registry
from warpjax.training import parallel


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  root = tmp_path_factory.mktemp("images")
  places = {"data_dir": str(tiny.write_images(root / "raw")), "cache_dir": str(root / "cache")}
  return experiment.build(tiny.config("omniglot", "proto_maml", {"network": {"width": 4}}), **places)


@pytest.mark.slow
def test_test_tasks_begin_at_the_prototypes(built):
  """Before any step, from an untrained network: those of the head that is learned are another loss."""
  state, key = loop.start(built), jax.random.key(0)
  losses = lambda built: measure.evaluator(built, metric="loss")(state, built.data.test, key, 2).per_task[:, 0]
  assert (losses(built) != losses(built._replace(start=None))).all()


@pytest.mark.slow
def test_a_head_of_prototypes_stays_as_it_began(built):
  start = loop.start(built)
  state, metrics = loop.make_dispatch(built, 2, parallel.device_mesh(1))(start, built.data.train)
  before, after = start.meta_params.initial, state.meta_params.initial
  jax.tree.map(np.testing.assert_array_equal, before["head"], after["head"])
  assert metrics["finite"].all() and np.any(before["conv_0"]["kernel"] != after["conv_0"]["kernel"])


def test_a_regression_has_no_prototypes():
  config = tiny.config("sinusoid", "maml", {"meta_gradient": {"start": "prototypes"}})
  built = experiment.build(config)
  with pytest.raises(ValueError, match=r"y must be integers"):
    loop.Programs(built).trace()


def test_a_context_starts_at_zero_and_stays_there():
  built = experiment.build(tiny.config("sinusoid", "cavia"))
  start = loop.start(built)
  state, _ = loop.make_dispatch(built, 2, parallel.device_mesh(1))(start, built.data.train)
  assert not np.any(state.meta_params.initial["context"]) and built.start is not None
  assert np.any(state.meta_params.shared["weights"]["shift"] != start.meta_params.shared["weights"]["shift"])


def test_bad_settings():
  config = tiny.config("sinusoid", "maml")
  allowed = r"config.meta_gradient.start must be one of 'learned', 'prototypes'; got 'prototype'"
  with pytest.raises(ValueError, match=allowed):
    experiment.build({**config, "meta_gradient": {"name": "unrolled", "start": "prototype"}})
  with pytest.raises(ValueError, match=r"config.meta_gradient.match must be one of 'parameters', 'predictions'"):
    experiment.build({**config, "meta_gradient": {"name": "bootstrapped", "target_rate": 0.1, "match": "kl"}})
  starts = (registry.start({"start": name}, lambda params, shared, x: x) for name in ("learned", "prototypes"))
  assert [start is None for start in starts] == [True, False]
