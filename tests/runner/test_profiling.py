"""Where the time of a meta-step goes."""

from __future__ import annotations

import pytest

from tests.runner import tiny
from warpjax.runner import experiment, profiling


@pytest.fixture(scope="module")
def measured():
  return profiling.profile(
    experiment.build(tiny.config("sinusoid", "maml", {"network": {"features": (16, 16)}})), repeats=2
  )


def test_layers_and_operations_are_those_of_the_network(measured):
  spent, wall = measured
  assert {"dense_0", "head"} <= {one.layer for one in spent}
  assert any(one.kind == "products" and one.layer == "dense_1" for one in spent)
  assert [one.seconds for one in spent] == sorted((one.seconds for one in spent), reverse=True)
  assert 0 < max(one.seconds for one in spent) < wall


def test_the_table_adds_up(measured):
  text = profiling.table(*measured, lines=3)
  head, *rows = text.splitlines()
  assert len(rows) == 3 and head.startswith("A meta-step takes ")
  shares = [float(word.rstrip("%.,")) for word in head.split() if "%" in word]
  assert len(shares) == 3 and 98 <= sum(shares) <= 102


@pytest.mark.parametrize(
  ("name", "where"),
  [
    ("jit(f)/while/body/jvp(Conv4)/Conv4._layer/conv_1/dot_general", ("conv_1", "dot_general")),
    ("jit(f)/vmap(transpose(jvp(Conv4)))/Conv4._layer/select_n", ("Conv4", "select_n")),
    ("jit(f)/while/body/closed_call/mul", ("", "mul")),
    ("wrapped_copy", ("", "wrapped_copy")),
  ],
)
def test_place(name, where):
  assert profiling.place(name) == where


def test_a_loop_is_not_counted_beside_its_body():
  program = """
  %while.1 = (s32[], f32[2]) while(%tuple.1), condition=%cond, body=%body, metadata={op_name="jit(f)/while"}
  ROOT %dot.1 = f32[2] dot(%a, %b), metadata={op_name="jit(f)/while/body/dot_general" stack_frame_id=1}
  %copy.3 = f32[2] copy(%dot.1)
  """
  assert profiling.operations(program) == {"dot.1": "jit(f)/while/body/dot_general", "copy.3": "copy"}
