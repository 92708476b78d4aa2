"""A text is a file, or the one text file of a folder."""

from __future__ import annotations

import hashlib

import pytest

from warpjax.datasets import DatasetNotFoundError, text


def test_a_file_or_the_folder_of_one(tmp_path):
  content = "In the beginning \u00e9".encode()
  (tmp_path / "a.txt").write_bytes(content)
  (tmp_path / "notes.md").write_bytes(b"none")
  for place in (tmp_path, tmp_path / "a.txt"):
    loaded = text.load(place)
    assert loaded.data.tobytes() == content and loaded.name == "a.txt"
    assert loaded.sha256 == hashlib.sha256(content).hexdigest()


def test_a_text_that_is_not_there_is_named(tmp_path):
  for place in (tmp_path, tmp_path / "none.txt"):
    with pytest.raises(DatasetNotFoundError, match=rf"--data_dir={place} must be a file, or a folder with one .txt"):
      text.load(place)
  with pytest.raises(DatasetNotFoundError, match="pass --data_dir=FILE"):
    text.load(None)


def test_a_folder_of_several_texts_is_refused(tmp_path):
  for name in "ab":
    (tmp_path / f"{name}.txt").write_bytes(b"text")
  with pytest.raises(ValueError, match="it has 2: a.txt, b.txt"):
    text.load(tmp_path)
