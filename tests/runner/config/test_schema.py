from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import pytest

from warpjax.runner.config import recipes, registry, schema, settings


def target(
  count: int,
  rate: float = 0.1,
  flag: bool = False,
  kind: Literal["a", "b"] = "a",
  sizes: Sequence[int] = (),
  bounds: float | tuple[float, float] = 0.0,
  limit: int | None = None,
  anything: Any = None,
) -> int:
  return count


ACCEPTED = [
  {"count": 1},
  {"count": 1, "rate": 2},
  {"count": 1, "flag": True},
  {"count": 1, "kind": "b"},
  {"count": 1, "sizes": [1, 2]},
  {"count": 1, "bounds": (0.1, 2)},
  {"count": 1, "bounds": 3},
  {"count": 1, "limit": None},
  {"count": 1, "anything": object},
]


@pytest.mark.parametrize("table", ACCEPTED)
def test_accepts(table):
  assert schema.call("config", table, target) == 1


REFUSED = [
  ({"count": 1.5}, r"config.count must be an integer; got 1.5 \(float\)"),
  ({"count": True}, r"config.count must be an integer; got True \(bool\)"),
  ({"count": "1"}, r"config.count must be an integer; got '1' \(str\)"),
  ({"count": 1, "rate": "0.1"}, "config.rate must be a number"),
  ({"count": 1, "rate": False}, "config.rate must be a number"),
  ({"count": 1, "flag": 1}, "config.flag must be True or False"),
  ({"count": 1, "kind": "c"}, "config.kind must be one of 'a', 'b'; got 'c'"),
  ({"count": 1, "sizes": 3}, "config.sizes must be a sequence, each an integer"),
  ({"count": 1, "sizes": (1, 2.5)}, "config.sizes must be a sequence"),
  ({"count": 1, "bounds": (1.0, 2.0, 3.0)}, "config.bounds must be a number or a sequence"),
  ({"count": 1, "limit": 1.0}, "config.limit must be an integer; got"),
  ({}, "config.count is missing; it must be an integer.$"),
  ({"count": 1, "rat": 0.1}, r"config.rat is not a setting; did you mean 'rate'\? Allowed: count, rate, "),
  ({"count": 1, "qqqq": 0.1}, r"config.qqqq is not a setting\. Allowed: count"),
]


@pytest.mark.parametrize(("table", "message"), REFUSED)
def test_refuses(table, message):
  with pytest.raises(ValueError, match=message):
    schema.call("config", table, target)


def test_what_is_missing_is_named_at_once():
  def target(a: int, b: float, c: str): ...

  with pytest.raises(ValueError, match=r"config.a is missing; it must be an integer\. Missing too: c\."):
    schema.call("config", {"b": 1.0}, target)


def test_given_arguments_are_not_settings():
  assert schema.call("config", {}, target, count=3) == 3
  with pytest.raises(ValueError, match="config.count is not a setting"):
    schema.call("config", {"count": 4}, target, count=3)


def test_choose_names_the_nearest():
  assert schema.choose("config.rule", "sgd", {"sgd": 1}) == 1
  with pytest.raises(ValueError, match=r"config.rule has no 'sgdd'; did you mean 'sgd'\? Allowed: sgd, adam"):
    schema.choose("config.rule", "sgdd", {"sgd": 1, "adam": 2})
  with pytest.raises(ValueError, match="config.rule has no None"):
    schema.choose("config.rule", None, {"sgd": 1})


def test_what_is_not_given_is_the_default_of_what_is_chosen():
  """A network chosen on the command line is its preset's, not the row's with another name."""
  given = ["network.name=meta_sgd_omniglot", "network.adapts=all"]
  tables = settings.with_overrides(recipes.settings("omniglot:maml"), given)
  assert tables["network"] == {"name": "meta_sgd_omniglot", "width": 64, "adapts": "all"}
  network = registry.named("network", tables, num_outputs=5)
  params, _ = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
  assert "dense_0" in params and params["head"]["kernel"].shape == (32, 5)
