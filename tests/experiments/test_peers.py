"""The comparison with peers: they do the same work, they take turns, and the figures are what they are said to be."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from experiments import benchmark
from experiments.peers import cases, group, jax_peers, ratios

SINE, IMAGES = (cases.smaller(cases.CASES[name]) for name in ("sine", "omniglot_5"))


def same(peer, ours):
  for key in ("loss", "grad_norm"):
    np.testing.assert_allclose(peer[key], ours[key], rtol=1e-4)


@pytest.fixture(scope="module")
def ours():
  return jax_peers.make("warpjax", SINE)


def test_the_parameters_are_those_of_the_networks():
  for case in (SINE, IMAGES):
    network = jax_peers.network("warpjax", case)
    x = jax.eval_shape(lambda case=case: cases.tasks(case)["support_x"][0])
    expected = jax.eval_shape(lambda x, network=network: network.init(jax.random.key(0), x)[0], x)
    found = cases.parameters(case)
    assert jax.tree.map(np.shape, found) == jax.tree.map(lambda leaf: leaf.shape, expected)


def test_plain_reverse_mode_computes_the_same(ours):
  same(jax_peers.make("reverse", SINE).facts, ours.facts)


def test_jax_by_hand_computes_the_same(ours):
  same(jax_peers.make("jax", SINE).facts, ours.facts)


@pytest.mark.slow
def test_jax_by_hand_computes_the_same_of_images_and_rounds_as_much():
  images = IMAGES._replace(num_tasks=1, num_steps=1)
  exact, rounded = (jax_peers.make("warpjax", images._replace(precision=name)).facts for name in ("tf32", "bfloat16"))
  same(jax_peers.make("jax", images).facts, exact)
  by_hand = jax_peers.make("jax", images._replace(precision="bfloat16")).facts
  np.testing.assert_allclose(by_hand["grad_norm"], rounded["grad_norm"], rtol=0.05)
  assert rounded["loss"] != exact["loss"] and by_hand["loss"] != exact["loss"]


@pytest.mark.parametrize("name", cases.TORCH)
def test_pytorch_computes_the_same(ours, name):
  pytest.importorskip("torch", reason='pip install -e ".[peers]"')
  if name in ("higher", "torchopt"):
    pytest.importorskip(name, reason='pip install -e ".[peers]"')
  from experiments.peers import torch_peers

  same(torch_peers.make(name, SINE).facts, ours.facts)


def test_the_figures(tmp_path):
  seconds = {"warpjax": [1.0, 2.0, 1.0], "torch": [3.0, 8.0, 4.0], "matmul": [0.5, 0.5, 0.9]}
  facts = {
    "warpjax": {"loss": 1.0, "grad_norm": 2.0, "flops": 20e9, "temp_bytes": 2**20},
    "torch": {"loss": 1.0, "grad_norm": 3.0, "version": "2"},
    "matmul": {"flops": 50e9},
  }
  ours, torch, higher = ratios.of_case(SINE, group.Timed(seconds, facts, {"higher": "no module"}))
  assert ours["method"] == "warpjax" and ours["matmul_fraction"] == pytest.approx(0.2) and ours["temp_bytes"] == 2**20
  assert (torch["seconds"], torch["ratio"], torch["seconds_low"], torch["seconds_high"]) == (4.0, 4.0, 3.5, 6.0)
  assert torch["ratio_low"] <= 4.0 <= torch["ratio_high"] and torch["agrees"] is False and torch["version"] == "2"
  assert higher == {"case": "sine", "method": "higher", "remark": "missing: no module"}
  (picture,) = ratios.draw([ours, torch, higher], tmp_path)
  assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_peers_take_turns_and_one_that_cannot_start_is_missing(tmp_path):
  said = []
  timed = group.time_case(SINE._replace(peers=("nobody",)), rounds=2, say=said.append)
  assert timed.missing == {
    "nobody": "ValueError: peer must be one of warpjax, reverse, flax, jax, matmul; got 'nobody'"
  }
  assert {name: len(values) for name, values in timed.seconds.items()} == {"warpjax": 2, "matmul": 2}
  assert all(min(values) > 0 for values in timed.seconds.values()) and any("round 2/2" in line for line in said)
  assert group.turned([1, 2, 3], 4) == [2, 3, 1]


def test_a_case_that_there_is_not(tmp_path):
  with pytest.raises(ValueError, match="no 'sines'; did you mean 'sine'"):
    benchmark.run({"method": "peers", "names": ("sines",), "rounds": 1}, tmp_path / "none")
  assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_whole_comparison(tmp_path):
  rows = benchmark.run({"method": "peers", "names": ("flax",), "rounds": 2, "small": True}, tmp_path)
  assert [row["method"] for row in rows] == ["warpjax", "flax"] and rows[1]["agrees"]
  assert json.loads((tmp_path / "machine.json").read_text())["cores"] >= 1
  assert len((tmp_path / "results.csv").read_text().splitlines()) == 3
  assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
