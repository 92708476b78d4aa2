"""Settings from a command line: each type read from text, what is refused, and which settings a row can take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from warpjax.runner import experiment
from warpjax.runner.config import recipes, schema, settings

MAML = recipes.settings("sinusoid:maml")


@pytest.mark.parametrize(("hint", "text", "value"), [
  (int, "3", 3),
  (float, "1e-3", 1e-3),
  (float, "2", 2.0),
  (bool, "True", True),
  (bool, "false", False),
  (str, "adam", "adam"),
  (str, "3", "3"),
  (Literal["mixed", "reverse"], "reverse", "reverse"),
  (Literal[1, 2], "2", 2),
  (Sequence[int], "(32,)", (32,)),
  (Sequence[int], "40,40", (40, 40)),
  (Sequence[int], "[]", ()),
  (Sequence[str], "('crop', flip)", ("crop", "flip")),
  (tuple[float, float], "0.1, 2", (0.1, 2.0)),
  (float | tuple[float, ...], "0.1", 0.1),
  (float | tuple[float, ...], "0.1,0.2", (0.1, 0.2)),
  (int | None, "None", None),
  (int | None, "4", 4),
  (Any, "{'a': 1}", {"a": 1}),
])  # fmt: skip
def test_each_type_is_read_from_text(hint, text, value):
  found = settings.parse("config.x", text, hint)
  assert found == value and type(found) is type(value)


@pytest.mark.parametrize(("hint", "text", "allowed"), [
  (int, "1.5", "an integer"),
  (int, "many", "an integer"),
  (int, "True", "an integer"),
  (float, "fast", "a number"),
  (float, "True", "a number"),
  (bool, "1", "True or False"),
  (Literal["mixed", "reverse"], "fast", "one of 'mixed', 'reverse'"),
  (Sequence[int], "1,b", "a sequence, each an integer"),
  (tuple[float, float], "1,2,3", "a sequence, each a number"),
  (int | None, "1.5", "an integer"),
])  # fmt: skip
def test_a_value_of_another_type_is_refused(hint, text, allowed):
  with pytest.raises(ValueError) as error:
    settings.parse("config.x", text, hint)
  assert str(error.value) == f"config.x must be {allowed}; got {text!r}."


def test_a_value_that_is_near_a_choice_is_told_so():
  with pytest.raises(
    ValueError, match=r"config\.x must be one of 'mixed', 'reverse'; got 'mixd'; did you mean 'mixed'\?"
  ):
    settings.parse("config.x", "mixd", Literal["mixed", "reverse"] | None)


@pytest.mark.parametrize(("given", "table", "expected"), [
  ("inner.momentum=0.9", "inner", {"momentum": 0.9}),
  ("inner.nesterov=true", "inner", {"nesterov": True}),
  ("meta_gradient.truncate=2", "meta_gradient", {"truncate": 2}),
  ("meta_gradient.memory=recompute", "meta_gradient", {"memory": "recompute"}),
  ("meta_gradient.redrawn=head", "meta_gradient", {"redrawn": "head"}),
  ("network.warp.kind=linear", "network", {"warp": {"kind": "linear"}}),
  ("network.hidden=(32,)", "network", {"hidden": (32,)}),
  ("eval.prox=0.5", "eval", {"prox": 0.5}),
])  # fmt: skip
def test_every_setting_can_be_given_on_the_command_line(given, table, expected):
  row = recipes.settings("omniglot:maml")
  found = settings.with_overrides(row, [given])
  assert found[table] == {**row[table], **expected}
  assert {**found, table: row[table]} == row  # and nothing else is another


def test_those_of_the_run_are_given_by_their_names():
  found = settings.with_overrides(MAML, ["seed=3", "num_meta_steps=20", "train_norm_stats=support"])
  assert found == {**MAML, "seed": 3, "num_meta_steps": 20, "train_norm_stats": "support"}


def test_the_row_stays_as_it_is():
  row = recipes.settings("sinusoid:maml")
  settings.with_overrides(row, ["inner.num_steps=7", "network.warp.kind=linear"])
  assert row == MAML


@pytest.mark.parametrize(("given", "message"), [
  (["seed=1", "seed=2"], r"config\.seed is given twice\."),
  (["inner.num_steps=1", "seed=2", "inner.num_steps=1"], r"config\.inner\.num_steps is given twice\."),
  (["num_meta_stepz=3"], r"config\.num_meta_stepz is not a setting; did you mean 'num_meta_steps'\? Allowed: .*seed, "),
  (["inner.learning_rat=1"], r"config\.inner\.learning_rat is not .* 'learning_rate'\? Allowed: rule, learning_rate, "),
  (["network.warp.knd=scale"], r"config\.network\.warp\.knd is not .* 'kind'\? Allowed: kind, activation, batch_norm"),
  (
    ["evaluation.num_tasks=3"],
    r"config\.evaluation\.num_tasks is not a setting; did you mean 'eval\.num_tasks'\? "
    r"`warpjax train .* --settings` lists all \d+\.$",
  ),
  (
    ["learning_rate=0.1"],
    r"config\.learning_rate is not a setting; did you mean 'inner\.learning_rate' or 'optimizer\.learning_rate'\?",
  ),
  (["inner.b1=0.5"], r"config\.inner\.b1 is not a setting"),
  (["inner=3"], r"config\.inner is not a setting"),
  (["inner.num_steps"], r"a setting must be KEY=VALUE, such as inner\.num_steps=5; got 'inner\.num_steps'"),
  (["inner.num_steps=many"], r"config\.inner\.num_steps must be an integer; got 'many'"),
])  # fmt: skip
def test_what_is_no_setting_is_refused_in_one_line(given, message):
  with pytest.raises(ValueError, match=message) as error:
    settings.with_overrides(MAML, given)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [
  ["inner.rule=adam", "inner.b1=0.5"],
  ["inner.b1=0.5", "inner.rule=adam"],  # in either order
])  # fmt: skip
def test_another_rule_keeps_what_it_reads_too(given):
  row = recipes.lay_over(MAML, {"inner": {"momentum": 0.9, "num_steps": 4}})
  found = settings.with_overrides(row, given)["inner"]
  assert found == {"rule": "adam", "learning_rate": 0.01, "num_steps": 4, "b1": 0.5}
  assert experiment.build(settings.with_overrides(row, given)).inner.num_steps == 4


def test_another_name_of_every_kind_of_table_keeps_what_it_reads_too():
  given = ["network.name=mlp", "meta_gradient.name=reptile", "optimizer.name=sgd", "data.name=surfaces"]
  found = settings.with_overrides(recipes.settings("sinusoid:warp_maml"), given)
  assert found["network"]["features"] == (40, 40) and found["network"]["warp"]["kind"] == "linear"
  assert found["meta_gradient"] == {"name": "reptile"} and found["optimizer"]["name"] == "sgd"
  assert found["data"] == {"name": "surfaces"}


def test_the_same_name_again_takes_nothing_away():
  row = recipes.lay_over(MAML, {"inner": {"momentum": 0.9}})
  assert settings.with_overrides(row, ["inner.rule=sgd"]) == row


def test_of_a_command_s_own_tables_what_is_there_can_have_another_value():
  row = recipes.settings("benchmark:scaling")
  found = settings.with_overrides(row, ["repeats=2", "axes.tasks=(1,)", "axes.width=()", "setting.width=8"])
  assert (found["repeats"], found["axes"]["tasks"], found["axes"]["width"]) == (2, (1,), ())
  assert found["setting"] == {**row["setting"], "width": 8}
  with pytest.raises(ValueError, match=r"config\.repeat is not a setting; did you mean 'repeats'\?"):
    settings.with_overrides(row, ["repeat=2"])
  with pytest.raises(ValueError, match=r"config\.axes\.widht is not a setting; did you mean 'width'\? Allowed: tasks"):
    settings.with_overrides(row, ["axes.widht=()"])


def test_the_reference_has_the_types_defaults_and_sentences_of_what_is_named():
  found = {setting.path: setting for setting in settings.reference(MAML)}
  assert found["seed"].required and found["seed"].hint is int and found["seed"].doc
  assert found["task_chunk"].default == 0 and not found["task_chunk"].required
  assert found["inner.learning_rate"].required and found["inner.nesterov"].default is False
  assert found["eval.norm_stats"].default == "transductive" and "Batch statistics" in found["eval.norm_stats"].doc
  assert found["network.warp.kind"].default == "none" and "network.warp" not in found
  assert not {"inner.b1", "data.data_dir", "network.num_outputs", "inner.loss_fn"} & found.keys()
  paths = [setting.path for setting in settings.reference(MAML)]
  assert len(paths) == len(set(paths))


@pytest.mark.parametrize("row", ["sinusoid:maml", "sinusoid:warp_leap_offline", "continual:warp", "surfaces:warp"])
def test_resolved_settings_say_every_default_and_train_the_same(row):
  given = recipes.settings(row)
  whole = settings.resolved(given)
  assert whole["task_chunk"] == 0 and whole["eval"]["seed"] == 0
  assert "momentum" not in whole["inner"]  # it has no default but None
  for path in (setting.path for setting in settings.reference(given) if not setting.required and setting.default):
    *tables, name = path.split(".")
    table = whole
    for each in tables:
      table = table.get(each, {})
    assert name in table or (tables == ["network", "warp"] and "warp" not in given["network"]), path
  assert ("warp" in whole["network"]) == ("warp" in given["network"])
  assert settings.resolved(whole) == whole
  built, same = experiment.build(given), experiment.build(whole)
  assert (built.run, built.evaluation) == (same.run, same.evaluation)
  assert built.inner.num_steps == same.inner.num_steps and built.norm_stats == same.norm_stats


def test_the_text_of_a_row_s_settings_has_a_line_for_each():
  lines = settings.text(recipes.lay_over(MAML, {"inner": {"nesterov": True}})).splitlines()
  heads = [line for line in lines if not line.startswith(" ")]
  assert len(heads) == len(settings.reference(MAML))
  assert "inner.num_steps: an integer; is 1" in heads
  assert "inner.nesterov: True or False; is True, default False" in heads
  assert "inner.batch_size: an integer; default 0" in heads
  assert any(line.startswith("    ") for line in lines)


@pytest.mark.parametrize("override", ["data.name=cifar_fs", "data.ways=3"])
def test_other_tasks_have_no_published_number(override):
  assert "published" in settings.load_config("mini_imagenet:maml")
  assert "published" not in settings.load_config("mini_imagenet:maml", override)


def test_none_is_refused_where_it_would_be_another_default():
  with pytest.raises(ValueError, match=r"config\.network\.head_init must not be None, which stands for its default"):
    settings.load_config("omniglot:maml", "network.head_init=None")


def test_a_number_stays_one_where_a_text_is_allowed_too():
  row = settings.load_config("omniglot:maml", "network.padding=1")
  assert row["network"]["padding"] == 1
  assert settings.load_config("omniglot:maml", "network.padding=VALID")["network"]["padding"] == "VALID"
  assert settings.load_config("sinusoid:maml", "loss=None").get("loss") is None


@pytest.mark.parametrize("table", ["data", "network", "inner", "meta_gradient", "optimizer", "eval"])
def test_an_empty_table_is_refused_by_name(table):
  with pytest.raises(ValueError, match=rf"config must have the tables .*; it lacks {table}\."):
    experiment.build({**recipes.settings("sinusoid:maml"), table: {}})


def test_annotations_that_cannot_be_read_are_told_in_one_line():
  def rule(learning_rate: NoSuchType):  # noqa: F821
    return learning_rate

  with pytest.raises(ValueError, match=r"annotations of .*rule must be importable at run time: .*NoSuchType"):
    schema.call("config.inner", {"learning_rate": 0.1}, rule)
