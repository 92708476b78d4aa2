from __future__ import annotations

import gc
import pathlib
import shutil
import tracemalloc

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from warpjax import rules, training
from warpjax.training import checkpoints
from warpjax.types import MetaParams


def make_state(value: float = 1.0):
  """A state with what ours have: NamedTuples, empty blocks, an optimizer state, a typed key, an integer step."""
  params = MetaParams({"w": jnp.full((64, 32), value), "b": jnp.arange(3.0) * value})
  return {
    "meta_params": params,
    "opt_state": optax.adam(1e-3).init(params),
    "step": jnp.asarray(7, jnp.int32),
    "key": jax.random.key(3),
    "half": jnp.ones((4,), jnp.bfloat16) * value,
  }


def raw(leaf):
  return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(raw(x), raw(y))


@pytest.fixture
def manager(tmp_path):
  result = checkpoints.open_manager(tmp_path / "checkpoints", max_to_keep=3)
  yield result
  result.close()


def flip_a_bit(path: pathlib.Path, position: float) -> None:
  data = bytearray(path.read_bytes())
  data[int(position * (len(data) - 1))] ^= 0b00010000
  path.write_bytes(bytes(data))


def largest_file(directory: pathlib.Path) -> pathlib.Path:
  return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_round_trip_keeps_values_types_and_extra(manager):
  checkpoints.save(manager, 7, make_state(2.0), {"wall_seconds": 1.5})
  restored = checkpoints.restore_latest(manager, make_state(0.0))
  assert restored.step == 7
  assert restored.extra == {"wall_seconds": 1.5}
  assert_same(restored.state, make_state(2.0))
  assert jax.random.normal(restored.state["key"]) == jax.random.normal(jax.random.key(3))


def test_restored_arrays_are_not_pinned_to_a_device(manager):
  checkpoints.save(manager, 0, make_state())
  restored = checkpoints.restore_latest(manager, make_state())
  assert not any(leaf.committed for leaf in jax.tree.leaves(restored.state))


def test_nothing_saved_is_none(manager):
  assert checkpoints.restore_latest(manager, make_state()) is None


def test_keeps_the_newest_and_restores_the_last(manager):
  for step in (1, 2, 3, 4):
    checkpoints.save(manager, step, make_state(float(step)))
  assert checkpoints.steps(manager) == [2, 3, 4]
  assert_same(checkpoints.restore_latest(manager, make_state()).state, make_state(4.0))


def test_a_step_is_not_saved_twice(manager):
  checkpoints.save(manager, 5, make_state())
  with pytest.raises(ValueError, match=r"above that of the newest checkpoint, 5; got 5"):
    checkpoints.save(manager, 5, make_state())


def test_an_array_without_elements_is_refused(manager):
  with pytest.raises(ValueError, match=r"arrays without elements; got the shape \(0, 3\) at \['w'\]"):
    checkpoints.save(manager, 1, {"w": jnp.zeros((0, 3))})


def test_one_checkpoint_is_too_few_to_keep(tmp_path):
  with pytest.raises(ValueError, match="max_to_keep must be at least 2"):
    checkpoints.open_manager(tmp_path, max_to_keep=1)


@pytest.mark.parametrize("position", [*(pytest.param(at, marks=pytest.mark.slow) for at in (0.2, 0.9)), 0.5])
def test_a_flipped_bit_falls_back_and_says_so(manager, position):
  for step in (1, 2):
    checkpoints.save(manager, step, jax.tree.map(lambda x: x, make_state(float(step))))
  directory = pathlib.Path(manager.directory)
  flip_a_bit(largest_file(directory / "2"), position)
  said: list[str] = []
  restored = checkpoints.restore_latest(manager, make_state(), warn=said.append)
  assert restored.step == 1
  assert_same(restored.state, make_state(1.0))
  assert len(said) == 1 and said[0].startswith("Checkpoint 2 is damaged, so 1 is used")
  assert (directory / "damaged-2").is_dir()
  checkpoints.save(manager, 2, make_state(5.0))  # the number is free again
  assert_same(checkpoints.restore_latest(manager, make_state()).state, make_state(5.0))


@pytest.mark.parametrize("damage", ["truncate", "delete", "record"])
def test_missing_or_cut_files_fall_back(manager, damage):
  for step in (1, 2):
    checkpoints.save(manager, step, make_state(float(step)))
  newest = pathlib.Path(manager.directory) / "2"
  if damage == "truncate":
    victim = largest_file(newest)
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
  elif damage == "delete":
    largest_file(newest).unlink()
  else:
    next(path for path in (newest / "record").rglob("*") if path.is_file()).write_text("{")
  said: list[str] = []
  assert checkpoints.restore_latest(manager, make_state(), warn=said.append).step == 1
  assert len(said) == 1


def test_the_order_says_which_is_restored(manager):
  for step in (1, 2, 3):
    checkpoints.save(manager, step, make_state(float(step)))
  assert checkpoints.restore_first(manager, make_state(0.0), []) is None
  restored = checkpoints.restore_first(manager, make_state(0.0), [2, 3, 1])
  assert restored.step == 2
  assert_same(restored.state, make_state(2.0))
  flip_a_bit(largest_file(pathlib.Path(manager.directory) / "2"), 0.5)
  said = []
  restored = checkpoints.restore_first(manager, make_state(0.0), [2, 1, 3], warn=said.append)
  assert restored.step == 1 and len(said) == 1
  assert_same(restored.state, make_state(1.0))
  assert checkpoints.steps(manager) == [1, 3]


def test_leftover_of_an_interrupted_save_is_ignored(tmp_path):
  with checkpoints.open_manager(tmp_path) as manager:
    checkpoints.save(manager, 1, make_state(1.0))
  (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
  (tmp_path / "2.orbax-checkpoint-tmp" / "half").write_text("written")
  with checkpoints.open_manager(tmp_path) as manager:
    assert checkpoints.restore_latest(manager, make_state()).step == 1
    checkpoints.save(manager, 2, make_state(2.0))
    assert checkpoints.steps(manager) == [1, 2]


def test_shapes_and_dtypes_are_template_enough(manager):
  checkpoints.save(manager, 1, make_state(3.0))
  for template in (jax.eval_shape(make_state), {**make_state(), "half": np.asarray(make_state()["half"])}):
    found = checkpoints.restore_latest(manager, template).state
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found))
    assert_same(found, make_state(3.0))


def test_another_models_checkpoint_is_an_error_and_stays(manager):
  checkpoints.save(manager, 1, make_state())
  other = make_state() | {"half": jnp.ones((5,), jnp.bfloat16)}
  fits_not = r"does not fit the template: half is bfloat16\[4\] in the checkpoint and bfloat16\[5\] in the template"
  for source in (manager, manager.directory):
    with pytest.raises(ValueError, match=f"can be used: each is damaged or of another model. 1: it {fits_not}"):
      checkpoints.restore_latest(source, other)
  assert checkpoints.steps(manager) == [1]


def test_digest_sees_values_dtypes_shapes_and_paths():
  base = {"a": jnp.zeros((2, 3))}
  others = [
    {"a": jnp.zeros((3, 2))},
    {"a": jnp.zeros((2, 3), jnp.int32)},
    {"b": jnp.zeros((2, 3))},
    {"a": jnp.full((2, 3), -0.0)},
  ]
  digests = {checkpoints.digest(tree) for tree in [base, *others]}
  assert len(digests) == 5
  assert checkpoints.digest({"a": np.zeros((2, 3), np.float32)}) == checkpoints.digest(base)


@pytest.mark.slow
def test_saves_leave_nothing_behind_in_memory(tmp_path):
  """Saving jax arrays leaves 24 lists a save, and orbax's packed format 300 bytes a leaf (tensorstore 0.1.86)."""
  state = {"leaves": [np.zeros((2, step), np.float32) for step in range(1, 33)]}
  traced = []
  tracemalloc.start()
  with checkpoints.open_manager(tmp_path) as manager:
    for step in range(20):
      checkpoints.save(manager, step, state)
      if step in (9, 19):
        gc.collect()
        traced.append(tracemalloc.get_traced_memory()[0])
  tracemalloc.stop()
  assert traced[1] - traced[0] < 60_000


def snapshot(directory: pathlib.Path) -> dict[str, tuple[int, int, int]]:
  """Everything in a directory with its size and times, the directory's own among them."""
  stats = {str(path): path.stat() for path in [directory, *directory.rglob("*")]}
  return {path: (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for path, stat in stats.items()}


def test_whoever_gives_a_path_changes_nothing(tmp_path):
  """Not the save in progress, nor the damaged checkpoint, which only the run itself puts aside."""
  directory = tmp_path / "checkpoints"
  with checkpoints.open_manager(directory) as manager:
    for step in (1, 2):
      checkpoints.save(manager, step, make_state(float(step)))
  flip_a_bit(largest_file(directory / "2"), 0.5)
  shutil.copytree(directory / "1" / "state", directory / "3.orbax-checkpoint-tmp" / "state")
  before, said = snapshot(tmp_path), []
  assert checkpoints.steps(directory) == [1, 2]
  restored = checkpoints.restore_latest(str(directory), make_state(), warn=said.append)
  assert restored.step == 1 and said[0].startswith("Checkpoint 2 is damaged, so 1 is used. (")
  assert checkpoints.restore_meta_params(directory, step=1).step == 1
  with pytest.raises(ValueError, match="can be used"):
    checkpoints.restore_first(directory, make_state(), [2])
  assert snapshot(tmp_path) == before
  with checkpoints.open_manager(directory) as manager:
    assert checkpoints.restore_latest(manager, make_state(), warn=said.append).step == 1
  assert sorted(path.name for path in directory.iterdir()) == ["1", "damaged-2"]


def test_an_absent_directory_is_read_as_empty_and_stays_absent(tmp_path):
  assert checkpoints.steps(tmp_path / "none") == []
  assert checkpoints.restore_latest(tmp_path / "none", make_state()) is None
  with pytest.raises(ValueError, match="holds no checkpoint; it does not exist"):
    checkpoints.restore_meta_params(tmp_path / "none")
  assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_busy_and_not_damaged(tmp_path, monkeypatch):
  with checkpoints.open_manager(tmp_path) as manager:
    checkpoints.save(manager, 1, make_state(1.0))
    read, said, taken = checkpoints.files.read, [], []

    def meanwhile(folder, template):
      if not taken:
        taken.append(folder)
        checkpoints.delete(manager, 1)
        checkpoints.save(manager, 2, make_state(2.0))
      return read(folder, template)

    monkeypatch.setattr(checkpoints.files, "read", meanwhile)
    restored = checkpoints.restore_latest(tmp_path, make_state(), warn=said.append)
    assert restored.step == 2 and not said
    assert_same(restored.state, make_state(2.0))

    def always(folder, template):
      folder.rename(tmp_path / "aside")
      (tmp_path / "aside").rename(folder)
      raise FileNotFoundError(folder)

    monkeypatch.setattr(checkpoints.files, "read", always)
    monkeypatch.setattr(checkpoints.restoring.time, "sleep", lambda seconds: None)
    with pytest.raises(checkpoints.BusyError, match=r"checkpoint 2 in .* was replaced while it was read; try again"):
      checkpoints.restore_latest(tmp_path, make_state(), warn=said.append)
    assert not said


def test_a_first_save_in_progress_is_busy(tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoints.restoring.time, "sleep", lambda seconds: None)
  (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
  with pytest.raises(checkpoints.BusyError, match="holds no checkpoint yet, and one is being written"):
    checkpoints.restore_latest(tmp_path, make_state())


def test_a_deleted_checkpoint_goes_in_one_rename(tmp_path, monkeypatch):
  """A reader never sees half of one: the files go only once the folder has another name."""
  removed = []
  real = shutil.rmtree
  with checkpoints.open_manager(tmp_path, max_to_keep=2) as manager:
    monkeypatch.setattr(shutil, "rmtree", lambda path, **kwargs: (removed.append(str(path)), real(path, **kwargs)))
    for step in (1, 2, 3):
      checkpoints.save(manager, step, make_state())
    checkpoints.delete(manager, 2)
    assert checkpoints.steps(manager) == [3]
  assert {pathlib.Path(path).name for path in removed} == {".deleted"}
  assert [path.name for path in tmp_path.iterdir()] == ["3"]


def state_of_training():
  key, params = jax.random.key(0), {"w": jnp.arange(6.0).reshape(2, 3), "layers": [jnp.ones(2), jnp.zeros(4)]}
  return training.init(key, rules.meta_sgd(0.1), params, {"scale": jnp.full((2,), 3.0)}, optax.adam(1e-3))


def test_meta_params_alone_need_neither_template_nor_optimizer(manager):
  state = state_of_training()
  checkpoints.save(manager, 3, state, {"seconds": 1.0})
  restored = checkpoints.restore_meta_params(manager.directory)
  assert restored.step == 3 and restored.extra == {"seconds": 1.0}
  chex.assert_trees_all_equal(restored.state, state.meta_params)
  shapes = jax.eval_shape(lambda: state.meta_params)
  chex.assert_trees_all_equal(checkpoints.restore_meta_params(manager.directory, shapes).state, state.meta_params)
  loss = jax.jit(lambda meta_params: jnp.sum(meta_params.initial["w"] * meta_params.shared["scale"][0]))
  assert float(loss(restored.state)) == 45.0  # placed, and ready for a program


def test_meta_params_of_another_model_are_refused_by_path_and_shape(manager):
  state = state_of_training()
  checkpoints.save(manager, 3, state)
  wider = state.meta_params._replace(initial={**state.meta_params.initial, "w": jnp.zeros((2, 5)), "b": jnp.zeros(2)})
  differing = (
    r"initial/b is absent in the checkpoint and float32\[2\] in the template; "
    r"initial/w is float32\[2, 3\] in the checkpoint and float32\[2, 5\] in the template"
  )
  with pytest.raises(ValueError, match=differing):
    checkpoints.restore_meta_params(manager.directory, wider)
  with pytest.raises(ValueError, match=r"holds no checkpoint 2; it has 3"):
    checkpoints.restore_meta_params(manager.directory, step=2)


def test_a_checkpoint_that_never_was_is_named_with_those_that_are(manager):
  for step in (10, 20):
    checkpoints.save(manager, step, make_state())
  for source in (manager, pathlib.Path(manager.directory)):
    with pytest.raises(ValueError, match=r"checkpoint 99 in .* is not there: never saved, .*; there are 10, 20\.$"):
      checkpoints.restore_first(source, make_state(), [99])


def test_reading_says_nothing(manager, caplog):
  state = state_of_training()
  checkpoints.save(manager, 1, state)
  checkpoints.restore_meta_params(manager.directory)
  checkpoints.restore_meta_params(manager.directory, state.meta_params)
  with pytest.raises(ValueError, match="does not fit the template"):
    checkpoints.restore_latest(manager.directory, {"w": jnp.ones(2)})
  assert caplog.text == ""


def test_numbers_are_arrays_and_texts_are_refused_by_path(manager):
  state = {"w": jnp.ones(2), "count": 3, "rate": 0.5, "done": True, "seen": np.arange(3)}
  checkpoints.save(manager, 1, state)
  restored = checkpoints.restore_latest(manager.directory, state).state
  chex.assert_trees_all_equal(restored, jax.tree.map(jnp.asarray, state))
  with pytest.raises(ValueError, match=r"rate is float32\[\] in the checkpoint and int32\[\] in the template"):
    checkpoints.restore_latest(manager.directory, {**state, "rate": 1})
  with pytest.raises(ValueError, match=r"state\['w'\] must be an array or a number; got 'x'"):
    checkpoints.save(manager, 2, {"w": "x"})
  for restore in (checkpoints.restore_latest, checkpoints.restore_meta_params):
    with pytest.raises(ValueError, match=r"template\['w'\] must be an array or a number; got an object"):
      restore(manager.directory, {"w": object()})


def test_a_flipped_bit_of_the_meta_params_falls_back(manager):
  for step in (1, 2):
    checkpoints.save(manager, step, state_of_training())
  flip_a_bit(largest_file(pathlib.Path(manager.directory) / "2" / "state" / "meta_params.initial.w"), 0.5)
  said = []
  assert checkpoints.restore_meta_params(manager.directory, warn=said.append).step == 1
  assert len(said) == 1 and "Checkpoint 2 is damaged, so 1 is used." in said[0]
