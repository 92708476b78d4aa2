"""The demo: its pictures say how much each method was trained."""

from warpjax.runner.commands import demo
from warpjax.runner.config import recipes
from warpjax.runner.plots import canvas


def test_the_curves_are_named_by_method_and_training_tasks(tmp_path, monkeypatch):
  drawn, save = {}, canvas.save
  monkeypatch.setattr(canvas, "save", lambda figure, output: (drawn.update({output: figure}), save(figure, output)))
  short = {"steps_per_dispatch": 2, "num_meta_steps": 4, "checkpoint_every": 4}
  evaluation = {**recipes.settings("demo:maml")["eval"], "num_tasks": 2}
  demo.run_methods(tmp_path, ["maml"], **short, eval=evaluation)
  assert (tmp_path / "adapted.png") in drawn
  (legend,) = drawn[tmp_path / "curves.png"].legends
  assert [text.get_text() for text in legend.get_texts()] == ["maml, trained on 100 tasks"]
