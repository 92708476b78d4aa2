"""Writers get every row of metrics.jsonl, and TensorBoard's files hold it within seconds."""

from __future__ import annotations

import struct
import sys
import time

import pytest

from warpjax.runner import workdir
from warpjax.runner.reporting import writers

ROWS = [
  {"step": 10, "split": "train", "loss": 2.0, "note": "a text is no scalar"},
  {"step": 20, "split": "val", "accuracy": 0.5},
]


def events_in(directory):
  """The events of a folder: records of a length, its checksum, the event and its checksum."""
  from tensorboardX.proto.event_pb2 import Event

  (path,) = (directory / "tensorboard").iterdir()
  data, events = path.read_bytes(), []
  while data:
    (length,) = struct.unpack("<Q", data[:8])
    events.append(Event.FromString(data[12 : 12 + length]))
    data = data[16 + length :]
  return events


def scalars_in(directory):
  events = events_in(directory)
  return [(event.step, value.tag, value.simple_value) for event in events for value in event.summary.value]


def await_until(holds, seconds):
  end = time.monotonic() + seconds
  while not holds():
    assert time.monotonic() < end
    time.sleep(0.05)


def test_every_writer_gets_every_row(tmp_path):
  seen = []
  with writers.opened(tmp_path, 0, [seen.append]) as write:
    for row in ROWS:
      write(row)
  assert seen == workdir.read_metrics(tmp_path) == ROWS


def test_tensorboard_has_each_row_within_seconds_and_hides_what_is_done_again(tmp_path):
  with writers.opened(tmp_path, 5, ["tensorboard"]) as write:
    for row in ROWS:
      write(row)
    # What a kill would leave, since nothing is closed.
    await_until(lambda: scalars_in(tmp_path) == [(10, "train/loss", 2.0), (20, "val/accuracy", 0.5)], seconds=20)
  assert [event.step for event in events_in(tmp_path) if event.session_log.status] == [6]


def test_an_unknown_writer_and_a_missing_package_are_named(tmp_path, monkeypatch):
  with (
    pytest.raises(ValueError, match="tensorbord.*tensorboard"),
    writers.opened(tmp_path, 0, ["tensorbord"]),
  ):
    pass
  monkeypatch.setitem(sys.modules, "tensorboardX", None)
  with pytest.raises(ImportError, match=r"warpjax\[tensorboard\]"), writers.opened(tmp_path, 0, ["tensorboard"]):
    pass
