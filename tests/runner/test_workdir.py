from __future__ import annotations

import json
import stat

import pytest

from warpjax.runner import workdir

CONFIG = {"seed": 0, "inner": {"rule": "sgd", "sizes": (4, 4)}}


def test_is_private_and_holds_the_config(tmp_path):
  path = workdir.prepare(tmp_path / "a" / "b", CONFIG)
  assert stat.S_IMODE(path.stat().st_mode) == 0o700
  assert json.loads((path / "config.json").read_text()) == {"seed": 0, "inner": {"rule": "sgd", "sizes": [4, 4]}}


def test_same_config_is_welcome_and_another_is_refused_key_by_key(tmp_path):
  path = workdir.prepare(tmp_path, CONFIG)
  workdir.write_json(path / workdir.RESULT, {})
  workdir.prepare(tmp_path, CONFIG)
  other = {"seed": 1, "inner": {"rule": "sgd", "sizes": (4, 8), "more": 2}}
  with pytest.raises(ValueError, match="belongs to another config") as error:
    workdir.prepare(tmp_path, other)
  for part in ("inner.more: nothing there, 2 here", r"inner.sizes: [4, 4] there, [4, 8] here", "seed: 0 there, 1 here"):
    assert part in str(error.value)
  assert workdir.read_json(path / workdir.CONFIG)["seed"] == 0


def test_a_workdir_with_nothing_trained_takes_a_new_config(tmp_path):
  workdir.prepare(tmp_path, CONFIG)
  workdir.prepare(tmp_path, {"seed": 5})
  assert workdir.read_json(tmp_path / workdir.CONFIG) == {"seed": 5}


def test_a_save_cut_short_is_nothing_trained(tmp_path):
  workdir.prepare(tmp_path, CONFIG)
  (tmp_path / "checkpoints" / "20.orbax-checkpoint-tmp").mkdir(parents=True)
  assert not workdir.begun(tmp_path) and workdir.begun_config(tmp_path) is None
  workdir.prepare(tmp_path, {"seed": 5})
  (tmp_path / "checkpoints" / "20").mkdir()
  assert workdir.begun_config(tmp_path) == {"seed": 5}


def test_checkpoints_of_nobody_knows_what_are_refused(tmp_path):
  (tmp_path / "checkpoints" / "100").mkdir(parents=True)
  with pytest.raises(ValueError, match=r"has checkpoints and no config\.json"):
    workdir.prepare(tmp_path, CONFIG)


def test_a_file_is_no_workdir(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(ValueError, match="--workdir must be a directory"):
    workdir.prepare(tmp_path / "file", CONFIG)


def test_two_processes_do_not_share_one(tmp_path):
  with workdir.lock(tmp_path), pytest.raises(ValueError, match="another process is running"), workdir.lock(tmp_path):
    pass
  with workdir.lock(tmp_path):
    pass


def test_rewinding_drops_later_steps_and_a_line_cut_short(tmp_path):
  workdir.append_metrics(tmp_path, [{"step": step, "loss": 0.5} for step in (1, 2, 3)])
  with open(tmp_path / workdir.METRICS, "a") as file:
    file.write('{"step": 4, "lo')
  assert [row["step"] for row in workdir.read_metrics(tmp_path)] == [1, 2, 3]
  workdir.rewind_metrics(tmp_path, 2)
  workdir.append_metrics(tmp_path, [{"step": 3}])
  assert [json.loads(line)["step"] for line in (tmp_path / workdir.METRICS).read_text().splitlines()] == [1, 2, 3]


def test_what_json_cannot_say_is_null(tmp_path):
  workdir.write_json(tmp_path / "x.json", {"a": float("nan"), "b": [float("inf"), 1.0], "c": (1, 2)})
  assert json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail) == {
    "a": None,
    "b": [None, 1.0],
    "c": [1, 2],
  }


def test_a_broken_file_is_named(tmp_path):
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(ValueError, match=r"config\.json is not JSON"):
    workdir.read_json(tmp_path / "config.json")
