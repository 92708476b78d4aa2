"""Configs at random: each is refused before anything compiles, with a message that names the key, or it trains."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runner import tiny
from warpjax.runner import experiment, loop

METHODS = ("maml", "fomaml", "anil", "meta_sgd", "reptile", "leap", "imaml", "t_net", "warp_maml", "warp_leap_offline")
# Values of which some are allowed by some methods; whether a config holds together is for `build` to say.
CHOICES = {
  "tasks_per_step": [1, 2, 3, 0, -1, 1.5, "2"],
  "steps_per_dispatch": [1, 2, 0, 3],
  "checkpoint_every": [2, 6, 0, "often"],
  "task_chunk": [0, 1, 5, -1],
  "data.variant": ["maml", "meta_sgd", "reptile", "mmaml", 1],
  "data.shots": [1, 3, 0, -2, "5"],
  "data.train_queries": [0, 2, -1],
  "network.name": ["mlp", "maml_sinusoid", "reptile_sinusoid", "maml_omniglot", "mpl"],
  "network.features": [(4,), (3, 2), (), 4, (0,), ("a",)],
  "network.activation": ["relu", "tanh", "gelu"],
  "network.dtype": ["bfloat16", "float32", "float8"],
  "network.adapts": ["all", "head", "body", "haed"],
  "inner.rule": ["sgd", "adam", "meta_sgd", "learned", "sdg"],
  "inner.learning_rate": [0.1, 1e-3, 0, -0.1, "fast", (0.005, 0.1), True],
  "inner.momentum": [0.9, 0.0, 1.5, "m"],
  "inner.num_steps": [1, 2, 0, -3, 1.5],
  "inner.prox": [0.0, 1.0, -1.0, "p"],
  "inner.batch": ["full", "minibatch", "epochs", "all"],
  "inner.batch_size": [0, 1, 2, -1],
  "meta_gradient.name": ["unrolled", "reptile", "leap", "implicit", "warp", "warp_offline", "rolled"],
  "meta_gradient.derivative": ["mixed", "reverse", "first_order", "mixd"],
  "meta_gradient.truncate": [1, 2, 0, 99, "t"],
  "meta_gradient.eta": [1, 2, 0, 3, -1],
  "optimizer.name": ["sgd", "adam", "lamb"],
  "optimizer.learning_rate": [1e-3, 0, -1.0, "slow"],
  "optimizer.schedule": ["constant", "linear", "cosine", "step"],
  "optimizer.clip_norm": [0.0, 1.0, -1.0],
  "eval.num_tasks": [1, 3, 0, "all"],
  "eval.norm_stats": ["transductive", "running", "runing"],
  "nonsense": [1],
  "inner.nonsense": [1],
}
_COMPILATIONS: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
  lambda event, duration, **kw: _COMPILATIONS.append(event) if "backend_compile" in event else None
)
changes = st.dictionaries(st.sampled_from(sorted(CHOICES)), st.integers(0, 6), max_size=4)


def changed(method, choices):
  config = tiny.config("sinusoid", method, {"num_meta_steps": 2})
  for key, number in choices.items():
    table, _, name = key.rpartition(".")
    (config[table] if table else config)[name] = CHOICES[key][number % len(CHOICES[key])]
  return config


def named(keys, message):
  """Whether it has the setting, or its table where the settings of a table do not go together."""
  return any(part in message for key in keys for part in key.split("."))


def check(method, choices):
  config, before = changed(method, choices), len(_COMPILATIONS)
  try:
    built = experiment.build(config)
    programs = loop.Programs(built)
    programs.trace()
  except ValueError as error:
    assert len(_COMPILATIONS) == before, "it compiled before it refused"
    message = str(error)
    assert named(choices, message), message
    assert "\n" not in message and len(message) < 600
    return
  state, metrics = programs.dispatch(2)(loop.start(built), built.data.train)
  assert int(state.step) == 2 and set(metrics) > {"loss", "finite"} and metrics["loss"].shape == (2,)
  assert np.asarray(metrics["finite"]).dtype == bool


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(method=st.sampled_from(METHODS), choices=changes.filter(bool))
def test_any_config_is_refused_or_trains(method, choices):
  check(method, choices)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(method=st.sampled_from(METHODS), choices=changes.filter(bool))
def test_two_hundred_configs(method, choices):
  check(method, choices)


@pytest.mark.parametrize("key", sorted(CHOICES))
def test_one_setting_at_a_time(key):
  """Every value of the table that is refused, is by name; what is accepted is left to the tests above to train."""
  refused = 0
  for number in range(len(CHOICES[key])):
    try:
      experiment.build(changed("maml", {key: number}))
    except ValueError as error:
      refused += 1
      assert named([key], str(error)), str(error)
  assert refused
