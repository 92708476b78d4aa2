"""The benchmark: counts that can be known, errors that must be zero, memory that does not grow, files."""

from __future__ import annotations

import collections
import csv
import sys

import jax
import jax.numpy as jnp
import pytest

from configs import benchmark as config
from experiments import benchmark
from experiments.benchmarks import (
  accuracy,
  bilevel,
  bilevel_record,
  cases,
  cost,
  count,
  estimators,
  memory,
  policies,
  recipe,
  report,
  scaling,
)
from tests import toy
from tests.datasets.idx_files import write_set
from warpjax import linear_solve, meta_gradients
from warpjax.meta_gradients import along_trajectory, implicit, reptile, unrolled
from warpjax.runner.config import recipes, settings

STEPS = 3
ALONG = along_trajectory
# Gradients and Hessian-vector products of one task; each ends with the gradient of the query loss but Reptile.
COUNTS = {
  "mixed": (unrolled, 2 * STEPS + 1, STEPS),  # each product comes with a gradient, of a second evaluation
  "reverse": (lambda inner: unrolled(inner, "reverse", memory="save_all"), STEPS + 1, STEPS),
  "first_order": (lambda inner: unrolled(inner, "first_order"), STEPS + 1, 0),
  "reptile": (lambda inner: ALONG(inner, reptile()), STEPS, 0),
  "implicit": (lambda inner: ALONG(inner, implicit(linear_solve.cg(2))), STEPS + 1 + 3, 3),  # one for `shared`
  "forward": (lambda inner: meta_gradients.forward_gradient(inner, 2), 2 * (STEPS + 1), 2 * STEPS),
  "evolution": (lambda inner: meta_gradients.evolution_strategies(inner, 0.1, 2), 4 * STEPS, 0),
}


@pytest.mark.parametrize(
  "name", [pytest.param(n, marks=pytest.mark.slow if n in ("reverse", "evolution") else ()) for n in COUNTS]
)
def test_what_is_counted(name):
  make, gradients, hvps = COUNTS[name]
  counter = collections.Counter()
  loop = toy.loop(num_steps=STEPS, prox=0.5, loss_fn=count.counted(toy.loss_fn, counter))
  found = toy.run(make(loop), toy.meta_params(), toy.task())
  assert count.totals(counter) == {"gradients": gradients, "hvps": hvps}
  toy.assert_close(found, toy.run(make(toy.loop(num_steps=STEPS, prox=0.5)), toy.meta_params(), toy.task()), rtol=1e-5)


def test_exact_estimators_have_no_error_and_others_have():
  case, said = cases.quadratic_family(num_tasks=2, dim=5), []
  mine = {
    "mixed": unrolled,
    "first_order": lambda inner: unrolled(inner, "first_order"),
    "implicit": lambda inner: ALONG(inner, implicit(linear_solve.cg(2))),
  }
  rows = accuracy.compare(case, mine, num_steps=(3,), say=said.append)
  exact, first_order = rows
  assert exact["relative_error"] < 1e-12 and abs(exact["cosine"] - 1) < 1e-12 and abs(exact["norm_ratio"] - 1) < 1e-12
  assert first_order["relative_error"] > 0.1 and first_order["norm_ratio"] > 1  # descent shrinks what it passes back
  assert (
    said == ["quadratic: implicit with 3 inner steps is left out: " + said[0].split(": ", 2)[2]] and "prox" in said[0]
  )


def test_implicit_gradients_reach_the_exact_one_of_linear_regression():
  case = cases.linear_regression(num_tasks=2, dim=6, condition_number=10.0, prox=0.1)
  mine = {str(steps): lambda inner, steps=steps: ALONG(inner, implicit(linear_solve.cg(steps))) for steps in (2, 6)}
  two, six = accuracy.compare(case, mine, num_steps=(200,))
  assert six["relative_error"] < 1e-6 < two["relative_error"]


def test_the_network_s_reference_is_the_limit_of_the_estimators():
  case = cases.small_network(num_tasks=1, features=3, reference_steps=300, learning_rate=0.1, dtype="float64")
  rows = accuracy.compare(case, {"mixed": unrolled}, num_steps=(150,))
  assert {row["block"] for row in rows} == {"initial", "shared"}
  assert all(row["relative_error"] < 1e-2 and row["cosine"] > 0.999 for row in rows)


def test_persistence_is_measured_over_a_lifetime():
  case = cases.quadratic_family(num_tasks=2, dim=3)
  example = jax.tree.map(lambda leaf: leaf[0], case.tasks)
  table = {"pes": {"name": "evolution_strategies", "num_pairs": 3, "window": 2, "distribution": "orthogonal"}}
  (row,) = accuracy.compare(case, estimators.from_tables(table, example), num_steps=(4,))
  # `initial` is perturbed in the first window alone, here in every direction once.
  assert row["relative_error"] < 1e-6


SMALL = cost.Setting(problem="sines", shots=10, queries=10, width=16, tasks=2, inner_steps=2)
INNER = {"rule": "sgd", "learning_rate": 0.1, "prox": 1.0}


@pytest.mark.slow
def test_memory_of_implicit_gradients_is_the_same_at_16_and_256_inner_steps_and_mixed_mode_stores_the_parameters():
  tables = {name: config.MEMORY[name] for name in ("implicit", "mixed_recompute")}
  rows = {(row["method"], row["inner_steps"]): row for row in memory.rows(tables, INNER, SMALL._asdict(), (16, 256))}
  temporaries = {key: row["temp_bytes"] for key, row in rows.items()}
  assert temporaries["implicit", 16] == temporaries["implicit", 256]
  slope = (temporaries["mixed_recompute", 256] - temporaries["mixed_recompute", 16]) / 240
  assert 0 < slope <= 1.05 * 4 * rows["mixed_recompute", 16]["num_params"]


@pytest.mark.slow
def test_the_peak_of_a_process_shows_the_temporaries():
  setting = SMALL._replace(width=64, shots=2000, inner_steps=64)
  found = {}
  for name in ("mixed_recompute", "reverse_save_all"):
    planned = memory.compiled(cost.work(setting, INNER), 64, config.MEMORY[name])[2]["temp_bytes"]
    found[name] = planned, memory.peak_of_a_process(setting, INNER, config.MEMORY[name])
  (low, low_peak), (high, high_peak) = found.values()
  assert high - low > 2**26 and 0.5 < (high_peak - low_peak) / (high - low) < 2


def test_modes_write_their_rows_and_pictures(tmp_path, capsys):
  setting = {"problem": "sines", "width": 4, "tasks": 2, "inner_steps": 1}
  shared = {"method": "scaling", "setting": setting, "methods": {"maml": config.LEARNERS["maml"]}, "repeats": 1}
  rows = benchmark.run({**shared, "axes": {"tasks": (2, 4), "devices": (1024,)}}, tmp_path)
  assert [(row["axis"], row["tasks"]) for row in rows] == [("tasks", 2), ("tasks", 4)]
  with (tmp_path / "results.csv").open() as file:
    written = list(csv.DictReader(file))
  assert {"cosine", "relative_error", "temp_bytes", "flops", "seconds"} <= written[0].keys()
  assert float(written[0]["seconds"]) == rows[0]["seconds"] > 0 and int(written[0]["temp_bytes"]) > 0
  assert (tmp_path / "scaling.png").stat().st_size > 0 and "method" in capsys.readouterr().out


def scaled(axis, value, seconds, temp_bytes=100, compile_seconds=2.0):
  setting = {**cost.Setting()._asdict(), axis: value}
  costs = {"seconds": seconds, "temp_bytes": temp_bytes, "compile_seconds": compile_seconds}
  return {"axis": axis, "method": "maml", **setting, **costs}


def test_slopes_begin_where_an_axis_does_and_are_recorded(tmp_path):
  tasks = [scaled("tasks", n, 0.01 * n if n >= 32 else 1.0) for n in (1, 32, 64, 128)]
  tasks[-1]["seconds"] *= 1.04
  steps = [scaled("inner_steps", n, 2.0 * n**0.5, temp_bytes=8 * n) for n in (16, 64)]
  only_one = [scaled("width", 64, 1.0)]
  rows = [*tasks, *steps, *only_one]
  assert scaling.slopes(rows) == [
    ["32 tasks", "128 tasks", "maml", "1.03", "4%", "0.00", "0.00"],
    ["16 inner steps", "64 inner steps", "maml", "0.50", "", "1.00", "0.00"],
  ]
  about = {"date": "2026-01-02", "commit": "abc", "machine": {}, "versions": {}}
  made = scaling.record(rows, about, "command")
  assert made["rows"] == scaling.slopes(rows) and len(made["measured"]) == 7 and made["measured"][1]["tasks"] == 32
  (picture,) = scaling.draw(rows, tmp_path)
  assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_recipe_s_profile_and_choices_are_recorded(tmp_path):
  spent = [
    ("conv", "convolution", 0.008, "products"),
    ("norm", "mul", 0.002, "elements"),
    ("", "add", 1e-6, "elements"),
  ]
  keys = ("layer", "operation", "seconds", "kind")
  rows = [{"method": "r:m", "whole_seconds": 0.02, **dict(zip(keys, one, strict=True))} for one in spent]
  about = {"date": "2026-01-02", "commit": "abc", "machine": {}, "versions": {}}
  made = recipe.profile_record(rows, about, "command")
  assert made["text"].startswith("A meta-step takes 20 ms, its operations 10 ms: products 80%, copies 0%")
  assert made["rows"] == [["conv", "`convolution`", "8.00", "80.0%"], ["norm", "`mul`", "2.00", "20.0%"]]
  choices = [{"method": "r:m", "choice": "--config.task_chunk=0", "seconds": 0.5, "devices": 2}]
  assert recipe.tune_record(choices, about, "command")["rows"] == [["`--config.task_chunk=0`", "500"]]
  drawn = [*recipe.draw(rows, tmp_path), *recipe.draw(choices, tmp_path)]
  assert [path.name for path in drawn] == ["profile.png", "tune.png"]
  assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_a_profile_is_of_the_recipe_s_operations():
  rows = list(recipe.profile("sinusoid:maml", ("tasks_per_step=2", "network.features=4")))
  assert {"dense_0", "head"} <= {row["layer"] for row in rows} and rows[0]["whole_seconds"] > 0


def test_speed_is_of_each_method_under_each_change():
  methods = {"maml": config.LEARNERS["maml"]}
  rows = list(cost.speed(methods, SMALL._asdict(), {"inner_steps": (1,)}, repeats=2))
  assert [row["inner_steps"] for row in rows] == [2, 1] and all(row["meta_steps_per_second"] > 0 for row in rows)


@pytest.mark.slow
def test_each_number_of_devices_has_a_process_that_makes_them():
  setting = {"problem": "sines", "width": 4, "tasks": 4, "inner_steps": 1}
  methods = {"maml": config.LEARNERS["maml"]}
  rows = list(scaling.rows(methods, setting, {"devices": (1, 4)}, repeats=1))
  assert [row["devices"] for row in rows] == [1, 4] and jax.device_count() < 4


@pytest.mark.slow
def test_policies_are_predicted_from_short_unrolls_and_take_turns():
  setting = {"problem": "sines", "width": 4}
  kept = {name: config.POLICIES[name] for name in ("save_gradients", "nested")}
  rows = list(policies.rows(kept, config.SGD, setting, (256,), timed_steps=(256,), rounds=1))
  assert all(abs(row["relative_error"]) < 0.1 and row["seconds"] > 0 for row in rows)
  assert rows[0]["ratio"] == 1 and rows[1]["temp_bytes"] < rows[0]["temp_bytes"] / 2
  about = {"date": "", "commit": "", "machine": {}, "versions": {}}
  recorded = policies.record(rows, about, "command")
  assert [len(line) for line in recorded["rows"]] == [len(recorded["columns"])] * 2
  assert recorded["rows"][1][0] == "`nested`" and recorded["rows"][0][-1].endswith(" s, 1.00")


@pytest.mark.slow
def test_thousands_of_steps_of_conv_4_fit_into_little_memory():
  setting = cost.Setting(**config.METHODS["policies"]["setting"])._replace(tasks=1)
  todo = cost.work(setting, config.SGD)
  size = lambda steps, policy: memory.compiled(todo, steps, config.POLICIES[policy])[2]["temp_bytes"]
  assert size(1024, "nested") <= size(1024, "save_gradients") / 8
  assert size(1024, "treeverse") <= size(1024, "save_gradients") / 16
  assert max(size(4096, "nested"), 2 * size(4096, "treeverse")) < 128 * 2**20


def test_pictures_of_the_other_modes(tmp_path):
  point = {"case": "c", "method": "m", "block": "initial", "gradients": 3, "hvps": 1, "cosine": 0.5, "norm_ratio": 1.0}
  drawn = report.draw_accuracy([{**point, "relative_error": 0.1}], tmp_path)
  drawn += report.draw_memory([{"method": "m", "inner_steps": 1, "temp_bytes": 3, "peak_bytes": 5}], tmp_path)
  drawn += report.draw_speed([{"method": "m", "meta_steps_per_second": 2.0}], tmp_path)
  assert [path.name for path in drawn] == ["accuracy_c_initial.png", "memory.png", "speed.png"]
  assert all(path.stat().st_size > 0 for path in drawn)


def test_every_mode_has_its_config_and_bad_settings_are_named(tmp_path):
  assert set(config.METHODS) <= set(benchmark.MODES)
  for mode in config.METHODS:
    assert recipes.settings(f"benchmark:{mode}")["method"] == mode
  row = recipes.settings("benchmark:accuracy")
  with pytest.raises(ValueError, match="config.inner_step is not a setting; did you mean 'inner_steps'"):
    benchmark.run({**row, "inner_step": 1}, tmp_path)
  with pytest.raises(ValueError, match="config.method has no 'accurac'; did you mean 'accuracy'"):
    benchmark.run({**row, "method": "accurac"}, tmp_path)
  with pytest.raises(ValueError, match="--only has no 'mixd'; did you mean 'mixed'"):
    benchmark.run(row, tmp_path, only=["mixd"])
  with pytest.raises(ValueError, match="config.dtype has no 'float8'"):
    cost.work(SMALL._replace(dtype="float8"), INNER)


@pytest.mark.parametrize("mode", ["accuracy", "memory"])
def test_a_setting_of_a_mode_can_have_another_value(mode):
  assert settings.load_config(f"benchmark:{mode}", "inner_steps=(1,2)")["inner_steps"] == (1, 2)


QUADRATIC = {
  **config.BILEVEL_PROBLEMS["quadratic"],
  "data": {"name": "bilevel_quadratic", "dim": 4, "outer_dim": 2},
  "outer": {},
}


def test_bilevel_estimators_have_equal_oracle_calls_and_finished_runs_are_read_again(tmp_path):
  tables = {name: config.BILEVEL[name] for name in ("unrolled", "penalty", "reptile")}
  unfit = {"unfit": {"meta_gradient": {"name": "truncated_unroll", "length": 7}}}
  settings = {"problems": {"quadratic": QUADRATIC}, "estimators": unfit | tables, "cases": ("quadratic",)}
  settings |= {"budget": {"quadratic": 5_000}, "rates": (0.01, 0.3), "seeds": (0,), "runs": str(tmp_path / "kept")}
  rows = benchmark.run({"method": "bilevel", **settings}, tmp_path)
  assert [row["method"] for row in rows] == list(tables)
  unrolled_row, penalty_row, reptile_row = rows
  for row in (unrolled_row, penalty_row):
    assert 0.9 * 5_000 < row["gradients"] + row["hvps"] <= 5_000 and row["outer_rate"] == 0.3
    assert row["relative_error"] < 0.5 and row["temp_bytes"] > 0
  steps = QUADRATIC["inner"]["num_steps"]
  assert unrolled_row["hvps"] == steps * unrolled_row["outer_steps"] and penalty_row["hvps"] == 0
  assert reptile_row["remark"] == "no gradient of shared" and reptile_row["outer_steps"] == 1
  assert (tmp_path / "bilevel_quadratic.png").stat().st_size > 0
  assert list(bilevel.rows(**settings)) == [{key: row[key] for key in row if key != "mode"} for row in rows]
  about = {"date": "2026-01-02", "commit": "abc", "machine": {}, "versions": {}}
  made = bilevel_record.record(rows, about, "command")
  assert [row[1] for row in made["rows"]] == ["`unrolled`", "`penalty`", "`reptile`"]
  assert {len(row) for row in made["rows"]} == {len(made["columns"])}
  other = [{**rows[0], "case": "other", "outer_rate": rate, "seconds": rate, "together": 2} for rate in (1.0, 2.0)]
  other.append({**other[1], "seconds": 7.0, "together": 1})
  both = bilevel_record.record(other, {**about, "commit": "def"}, "another", made)
  assert both["rows"][:3] == made["rows"] and both["command"] == "command; another"
  assert [row[1:4] + [row[both["columns"].index("seconds")]] for row in both["rows"][3:]] == [
    ["`unrolled`", "1", "1", "1"],
    ["`unrolled`", "2", "2", "7"],  # without that of the program for two rates
  ]
  assert [row["commit"] for row in both["measured"]] == ["abc"] * 3 + ["def"] * 3
  again = bilevel_record.record(rows, {**about, "commit": "ghi"}, "third", both)
  assert len(again["rows"]) == 5 and again["commands"] == {"other": "another", "quadratic": "third"}


def test_a_run_that_diverged_is_not_chosen_and_is_read_again_as_what_it_was(tmp_path, monkeypatch):
  row = {"seed": 0, "remark": "", "val_loss": 0.0}
  made = lambda table, estimator, outer, data_dir, rates, seed: [
    {**row, "outer_rate": rate, "val_loss": float("nan") if rate == 1.0 else 0.5} for rate in rates
  ]
  monkeypatch.setattr(bilevel, "runs_of", made)
  settings = {"problems": {"quadratic": QUADRATIC}, "estimators": {"mine": {}}, "cases": ("quadratic",), "seeds": (0,)}
  settings |= {"budget": {"quadratic": 1}, "rates": (1.0, 0.3), "runs": str(tmp_path)}
  first = list(bilevel.rows(**settings))
  monkeypatch.delattr(bilevel, "runs_of")
  assert [row["outer_rate"] for row in first] == [0.3] and list(bilevel.rows(**settings)) == first


def test_a_problem_can_have_an_outer_loop_of_its_own(monkeypatch):
  seen = []

  def made(table, estimator, outer, data_dir, rates, seed):
    seen.append((outer.optimizer, outer.steps, outer.budget))
    return [{"outer_rate": rate, "seed": seed, "val_loss": rate} for rate in rates]

  monkeypatch.setattr(bilevel, "runs_of", made)
  own = {
    "every_rate": True,
    "optimizer": "sgd",
    "rates": (1e-3, 10.0),
    "seeds": (3,),
    "steps": 20,
    "estimators": ("b",),
  }
  problems = {"own": {**QUADRATIC, "outer": own}, "general": QUADRATIC}
  settings = {"problems": problems, "estimators": {"a": {}, "b": {}}, "budget": {"own": 7, "general": 8}}
  settings |= {"rates": (0.3, 0.1), "seeds": (0, 1)}
  rows = list(bilevel.rows(**settings, cases=("own", "general")))
  found = [(row["case"], row["method"], row["outer_rate"], row["seed"]) for row in rows]
  assert found[:2] == [("own", "b", 1e-3, 3), ("own", "b", 10.0, 3)] and seen[0] == ("sgd", 20, 7)
  assert found[2:] == [("general", name, 0.1, seed) for name in "ab" for seed in (0, 1)]
  assert rows[2]["tried"] == "0.3: 0.3, 0.1: 0.1" and seen[-1] == ("adam", sys.maxsize, 8)
  with pytest.raises(ValueError, match="config.problems.own.outer.step is not a setting; did you mean 'steps'"):
    list(bilevel.rows(**{**settings, "problems": {"own": {**QUADRATIC, "outer": {"step": 1}}}}, cases=("own",)))
  with pytest.raises(ValueError, match="config.problems.own.outer.optimizer must be"):
    list(bilevel.rows(**{**settings, "problems": {"own": {**QUADRATIC, "outer": {"optimizer": "x"}}}}, cases=("own",)))


def test_hyper_cleaning_is_measured_after_training_afresh(tmp_path):
  folder = write_set(tmp_path / "files", train=60, test=20)
  problem = config.BILEVEL_PROBLEMS["small"]
  problem = {**problem, "data": {**problem["data"], "train": 40, "val": 20, "test": 20}}
  outer = bilevel.Outer(rates=(1.0,), seeds=(0,), budget=2_000)
  (row,) = bilevel.runs_of(problem, config.BILEVEL["one_step"], outer, str(folder), (1.0,), 0)
  assert row["f1"] > 0.7 and row["accuracy"] > 0.5 and row["hvps"] == row["outer_steps"]
  assert row["best_accuracy"] >= row["accuracy"] and row["moved"] > 1 and row["seconds"] > 0
  tried = bilevel.runs_of(problem, config.BILEVEL["one_step"], outer, str(folder), (1e-6, 1.0), 0)
  same = ("accuracy", "f1", "val_loss", "moved", "outer_steps", "gradients")
  assert [tried[1][name] for name in same] == pytest.approx([row[name] for name in same], rel=1e-4)  # of one program
  assert tried[0]["moved"] < 1e-3 and tried[0]["val_loss"] > row["val_loss"] and tried[0]["together"] == 2


def test_bfloat16_computes_in_it_and_keeps_the_parameters():
  todo = cost.work(SMALL._replace(dtype="bfloat16"), INNER)
  assert todo.meta_params.initial["head"]["kernel"].dtype == jnp.float32
  text = str(
    jax.make_jaxpr(todo.inner.loss_fn)(
      todo.meta_params.initial, (), (todo.tasks.support[0][0], todo.tasks.support[1][0])
    )
  )
  assert "bf16" in text
