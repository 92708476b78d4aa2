from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warpjax import partition

PARAMS = {
  "conv_0": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)},
  "warp_0": {"layer": {"kernel": 2 * jnp.ones((3, 3))}},
  "block": {"warp_in": {"scale": jnp.ones(4)}, "head": {"kernel": jnp.ones((4, 1))}},
}


def paths(tree):
  return {tuple(key.key for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


def test_split_takes_every_path_with_a_component_named_warp():
  rest, shared = partition.split(PARAMS)
  assert paths(shared) == {("warp_0", "layer", "kernel"), ("block", "warp_in", "scale")}
  assert paths(rest) == {("conv_0", "kernel"), ("conv_0", "bias"), ("block", "head", "kernel")}


def test_split_is_by_lower_case_prefix():
  names = {"Warp_0": 1, "unwarp": 2, "warped": 3}
  assert partition.split(names) == ({"Warp_0": 1, "unwarp": 2}, {"warped": 3})


def test_merge_undoes_split_in_either_order_and_keeps_empty_branches():
  params = {**PARAMS, "empty": {}}
  rest, shared = partition.split(params)
  assert rest["empty"] == {}
  for merged in (partition.merge(rest, shared), partition.merge(shared, rest)):
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, merged, params)


def test_a_predicate_on_the_path_replaces_the_names():
  rest, shared = partition.split(PARAMS, lambda path: path[-1] == "kernel")
  assert paths(shared) == {path for path in paths(PARAMS) if path[-1] == "kernel"}
  assert paths(rest) == paths(PARAMS) - paths(shared)


@pytest.mark.parametrize("answer", [True, False])
def test_a_side_without_leaves_is_the_empty_tuple(answer):
  rest, shared = partition.split(PARAMS, lambda path: answer)
  assert (rest if answer else shared) == ()
  assert jax.tree.structure(partition.merge(rest, shared)) == jax.tree.structure(PARAMS)


def test_merge_does_not_alias_its_arguments():
  rest, shared = partition.split(PARAMS)
  partition.merge(rest, shared)["block"]["head"]["kernel"] = None
  assert rest["block"]["head"]["kernel"] is not None


@pytest.mark.parametrize(
  ("rest", "shared"), [({"a": {"b": 1}}, {"a": {"b": 2}}), ({"a": {"b": 1}}, {"a": 2}), ({"a": 1}, {"a": {"b": 2}})]
)
def test_overlaps_are_refused_by_path(rest, shared):
  with pytest.raises(ValueError, match="overlap at a"):
    partition.merge(rest, shared)


def test_what_is_not_a_nested_dict_is_refused():
  with pytest.raises(ValueError, match="params must be a nested dict"):
    partition.split([jnp.ones(2)])
  with pytest.raises(ValueError, match="shared must be a nested dict or \\(\\)"):
    partition.merge({}, jnp.ones(2))


def test_gradients_pass_through_split_and_merge():
  rest, shared = partition.split(PARAMS)
  loss = lambda rest, shared: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(partition.merge(rest, shared)))
  gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))(rest, shared)
  jax.tree.map(lambda g, p: np.testing.assert_allclose(g, 2 * p), gradient, (rest, shared))
