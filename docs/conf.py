"""Sphinx settings: `make docs` builds docs/_build/html, and a warning is an error."""

from __future__ import annotations

import pathlib
import re
import shutil
import sys
from typing import Any

import latex2mathml.converter
from docutils import nodes

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generated  # noqa: E402

project, author, copyright = "warpjax", "the warpjax authors", "the warpjax authors, Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_math_renderer = "mathml"
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "warpjax"
html_static_path = ["_static"]

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
# The notebooks hold no output: every build runs them, so what a page shows is never older than the code.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar, napoleon_attr_annotations = True, False

_CODE = re.compile(r"(`[^`]+`)")


def _markdown_to_rest(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
  """Docstrings mark code by single backticks; in reST that is a pair, and `|x|` or `*` outside code mean something."""
  parts = _CODE.split("\n".join(lines))
  for index, part in enumerate(parts):
    if index % 2:
      parts[index] = f"`{part}`" + ("\\ " if re.match(r"\w", parts[index + 1]) else "")
    else:
      parts[index] = re.sub(r"\|", r"\\|", part)
  lines[:] = "".join(parts).split("\n")


def _no_fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
  """A named tuple's fields are in its docstring's Attributes."""
  return True if type(obj).__name__ == "_tuplegetter" else None


def _only_sources(app: Any, env: Any) -> None:
  """The index of sources lists `builtins`, where constants come from, as a page that is never written."""
  for name in [name for name, entry in getattr(env, "_viewcode_modules", {}).items() if not entry]:
    del env._viewcode_modules[name]


def _inline_math(translator: Any, node: Any) -> None:
  translator.body.append(latex2mathml.converter.convert(node.astext()))
  raise nodes.SkipNode


def _block_math(translator: Any, node: Any) -> None:
  translator.body.append(latex2mathml.converter.convert(node.astext(), display="block"))
  raise nodes.SkipNode


def setup(app: Any) -> None:
  """Called by Sphinx."""
  # MathML is shown by every browser, without a script from elsewhere.
  app.connect("env-updated", _only_sources, priority=900)
  app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
  shutil.copytree(HERE.parent / "experiments" / "notebooks", HERE / "notebooks", dirs_exist_ok=True)
  generated.write_api(HERE / "api")
  generated.write_experiments(HERE / "experiments")
  generated.write_settings(HERE / "settings")
  generated.write_combinations(HERE / "combinations")
  app.connect("autodoc-process-docstring", _markdown_to_rest, priority=100)
  app.connect("autodoc-skip-member", _no_fields)
