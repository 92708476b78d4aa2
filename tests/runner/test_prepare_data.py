from __future__ import annotations

import pytest

from warpjax.runner.commands import prepare_data


def test_the_root_is_data_dir_else_the_variable_else_the_default(monkeypatch, tmp_path):
  calls = []
  monkeypatch.setitem(prepare_data.PREPARE, "omniglot", lambda *args: calls.append(args))
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "env"))
  prepare_data.prepare_data("omniglot", str(tmp_path / "given"), "archives")
  prepare_data.prepare_data("omniglot")
  monkeypatch.delenv("TFDS_DATA_DIR")
  prepare_data.prepare_data("omniglot")
  roots = ("given", "archives"), ("env", None), ("tensorflow_datasets", None)
  assert calls == [(tmp_path / root, archives) for root, archives in roots]


def test_an_unknown_set_is_named():
  names = "omniglot, cifar100, mini_imagenet, tiered_imagenet, packed_omniglot, fashion_mnist"
  with pytest.raises(ValueError, match=f"the data set must be one of {names}; got 'omniglut'"):
    prepare_data.prepare_data("omniglut")
