"""The comparison with peers: they do the same work, they take turns, and the figures are what they are said to be."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from configs import benchmark as config
from experiments import benchmark
from experiments.peers import cases, group, jax_peers, ratios, records
from warpjax.runner.reporting import results

SMALL = {name: cases.smaller(case) for name, case in cases.CASES.items()}
SINE = SMALL["sine"]
# Each peer against warpjax in a case of every kind; the slow ones differ from another by a setting.
IN_TORCH = (
  *(("sine", name) for name in cases.MAML_BY),
  *((name, "torch") for name in ("leap_16", "warp_full_16")),
  *(("warp_full_16", "torch_full"), ("omniglot_5", "torch")),
  *(pytest.param(name, "torch", marks=pytest.mark.slow) for name in ("warp_first_order_16", "mini_1")),
)


def ready(name):
  case = SMALL[name]
  return case._replace(order=jax_peers.order(case)) if case.method == "warp" else case


@pytest.fixture(scope="module")
def ours():
  made = {}

  def of(name):
    if name not in made:
      made[name] = jax_peers.make("warpjax", ready(name)).facts["numbers"]
    return made[name]

  return of


def same(numbers, expected, rtol=1e-4):
  assert numbers
  for key, value in numbers.items():
    np.testing.assert_allclose(value, expected[key], rtol=rtol, err_msg=key)


@pytest.mark.parametrize(
  "name", ["sine", "omniglot_5", pytest.param("mini_5", marks=pytest.mark.slow), "leap_16", "warp_full_16"]
)
def test_the_parameters_are_those_of_the_networks(name):
  case = SMALL[name]
  x = jax.eval_shape(lambda: cases.tasks(case)["query_x"][0])
  expected = jax.eval_shape(lambda x: jax_peers.network("warpjax", case).init(jax.random.key(0), x), x)
  shapes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)
  assert shapes(tuple(jax_peers.blocks(case)[:2])) == shapes(expected)


def test_plain_reverse_mode_computes_the_same(ours):
  same(jax_peers.make("reverse", SINE).facts["numbers"], ours("sine"))


def test_jax_by_hand_computes_the_same(ours):
  same(jax_peers.make("jax", SINE).facts["numbers"], ours("sine"))


@pytest.mark.slow
def test_jax_by_hand_computes_the_same_of_images_and_rounds_as_much():
  images = SMALL["omniglot_5"]._replace(num_steps=1)

  def numbers(peer, precision):
    return jax_peers.make(peer, images._replace(precision=precision)).facts["numbers"]

  exact, rounded, by_hand = numbers("warpjax", "tf32"), numbers("warpjax", "bfloat16"), numbers("jax", "bfloat16")
  same(numbers("jax", "tf32"), exact)
  np.testing.assert_allclose(by_hand["grad_norm/initial"], rounded["grad_norm/initial"], rtol=0.05)
  assert rounded["loss"] != exact["loss"] and by_hand["loss"] != exact["loss"]


@pytest.mark.parametrize(("name", "peer"), IN_TORCH)
def test_pytorch_computes_the_same(ours, name, peer):
  pytest.importorskip("torch", reason='pip install -e ".[peers]"')
  if peer in ("higher", "torchopt"):
    pytest.importorskip(peer, reason='pip install -e ".[peers]"')
  from experiments.peers import torch_peers

  found = torch_peers.make(peer, ready(name)).facts["numbers"]
  same(found, ours(name))
  # The released step is of first order, so that its gradient of the warp-layers is another than that of "full".
  assert (found.keys() == ours(name).keys()) == ((name, peer) != ("warp_full_16", "torch"))


@pytest.mark.slow
def test_products_of_bfloat16_compute_nearly_the_same(ours):
  same(jax_peers.make("warpjax_bfloat16", SMALL["omniglot_5"]).facts["numbers"], ours("omniglot_5"), rtol=5e-2)


def test_a_case_that_does_not_divide_over_the_cores_is_refused(monkeypatch):
  monkeypatch.setattr(cases, "cores", lambda: 3)
  with pytest.raises(ValueError, match="2 tasks do not divide over 3 cores"):
    jax_peers.make("warpjax_cores", SMALL["omniglot_5"])


SECONDS = {"warpjax": [1.0, 2.0, 1.0], "torch": [3.0, 8.0, 4.0], "warpjax_bfloat16": [0.5, 1.0, 0.5]}
NUMBERS = {"loss": 1.0, "grad_norm/initial": 2.0, "grad_norm/shared": 5.0}
OURS = {"numbers": NUMBERS, "flops": 20e9, "temp_bytes": 2**20, "peak_bytes": 3 * 10**9}


def timed():
  facts = {
    "warpjax": OURS,
    "warpjax_bfloat16": {**OURS, "numbers": {**NUMBERS, "loss": 1.04}, "peak_bytes": 2 * 10**9},
    "torch": {"numbers": {"loss": 1.0, "grad_norm/initial": 3.0}, "version": "2", "peak_bytes": 10**9},
    "matmul": {"flops": 50e9},
  }
  return group.Timed({**SECONDS, "matmul": [0.5, 0.5, 0.9]}, facts, {"higher": "no module"})


def test_the_figures(tmp_path):
  ours, torch, rounded, higher = ratios.of_case(SINE, timed())
  assert ours["method"] == "warpjax" and ours["matmul_fraction"] == pytest.approx(0.2) and ours["temp_bytes"] == 2**20
  assert (ours["speedup"], ours["rounds"], rounded["speedup"]) == (4.0, 3, 8.0) and rounded["agrees"] is True
  assert rounded["speedup_low"] <= 8.0 <= rounded["speedup_high"] and rounded["ratio"] == 0.5
  assert (torch["seconds"], torch["ratio"], torch["seconds_low"], torch["seconds_high"]) == (4.0, 4.0, 3.5, 6.0)
  assert torch["ratio_low"] <= 4.0 <= torch["ratio_high"] and torch["agrees"] is False and torch["version"] == "2"
  assert higher == {"case": "sine", "method": "higher", "remark": "missing: no module"}
  (picture,) = ratios.draw([ours, torch, rounded, higher], tmp_path)
  assert picture.read_bytes().startswith(b"\x89PNG")


ABOUT = {"date": "2026-01-02", "commit": "abc", "machine": {"cpu": "A CPU", "cores": 2, "threads": 4, "memory_gib": 8}}


def test_the_record_keeps_other_cases_and_its_table_says_which_path():
  rows = list(ratios.of_case(SINE, timed()))
  before = records.of([{**row, "case": "leap_16"} for row in rows], {**ABOUT, "date": "2025-12-31"}, "before", None)
  made = records.of(rows, ABOUT, "command", before)
  assert list(made["cases"]) == ["leap_16", "sine"] and made["cases"]["leap_16"][0]["date"] == "2025-12-31"
  line = dict(zip(made["columns"], made["rows"][1], strict=True))
  assert (line["peer"], line["peer's memory"], line["agrees"]) == ("4.00 s", "1.00 GB", "not torch")
  assert line["as in README"].startswith("4 (") and line["products of bfloat16"].startswith("8 (")
  assert (line["both"], line["warpjax's, times that"]) == ("", "3.0, 2.0")
  assert "(3 or more," in made["text"] and made["machine"] == ABOUT["machine"]


def test_tables_of_two_machines_name_both(tmp_path, monkeypatch):
  monkeypatch.setattr(results.records, "FOLDER", tmp_path)
  (tmp_path / "benchmark").mkdir()
  record = {"title": "T", "text": "About.", "command": "c", "columns": ["a"], "rows": [["1"]]}
  for cpu, date in (("Old", "2025-01-01"), ("New", "2026-01-01")):
    machine = {"cpu": cpu, "cores": 2, "memory_gib": 8}
    path = tmp_path / "benchmark" / f"peers_{benchmark.slug(cpu)}.json"
    path.write_text(json.dumps({**record, "date": date, "machine": machine}))
  text = results.benchmark("peers")
  assert text.index("**T: New, 2 cores**") < text.index("**T: Old, 2 cores**") and "New, 2 cores, 8 GiB." in text


def test_a_benchmark_without_records_is_refused(tmp_path):
  with pytest.raises(ValueError, match="--record is for bilevel, .*, scaling, tune; got the benchmark 'speed'"):
    benchmark.run(config.METHODS["speed"] | {"method": "speed"}, tmp_path / "none", record_in=tmp_path)


@pytest.mark.slow
def test_peers_take_turns_and_one_that_cannot_start_is_missing(tmp_path):
  said = []
  timed = group.time_case(SINE._replace(peers=("nobody",)), rounds=2, say=said.append)
  names = "warpjax, warpjax_cores, warpjax_bfloat16, warpjax_cores_bfloat16, warp_maml, reverse, flax, jax, matmul"
  assert timed.missing == {"nobody": f"ValueError: peer must be one of {names}; got 'nobody'"}
  assert {name: len(values) for name, values in timed.seconds.items()} == {"warpjax": 2, "matmul": 2}
  assert all(min(values) > 0 for values in timed.seconds.values()) and any("round 2/2" in line for line in said)
  assert 10**7 < timed.facts["warpjax"]["peak_bytes"] < 10**11
  assert group.turned([1, 2, 3], 4) == [2, 3, 1]


def test_a_case_that_there_is_not(tmp_path):
  with pytest.raises(ValueError, match="no 'sines'; did you mean 'sine'"):
    benchmark.run({"method": "peers", "names": ("sines",), "rounds": 1}, tmp_path / "none")
  assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_whole_comparison(tmp_path):
  settings = {"method": "peers", "names": ("flax", "warp_maml"), "rounds": 2, "small": True}
  rows = benchmark.run(settings, tmp_path, only=["flax"], record_in=tmp_path / "records")
  assert [row["method"] for row in rows] == ["warpjax", "flax"] and rows[1]["agrees"]
  assert json.loads((tmp_path / "machine.json").read_text())["cores"] >= 1
  assert len((tmp_path / "results.csv").read_text().splitlines()) == 3
  assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
  (record,) = (json.loads(path.read_text()) for path in (tmp_path / "records").glob("peers_*.json"))
  assert list(record["cases"]) == ["flax"] and record["machine"]["memory_gib"] > 0
