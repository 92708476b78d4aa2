"""Sphinx settings: `make docs` builds docs/_build/html, and a warning is an error."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any

import latex2mathml.converter
from docutils import nodes
from sphinx import addnodes

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import api_pages  # noqa: E402
import generated  # noqa: E402

import warpjax  # noqa: E402

project, author, copyright = "warpjax", "the warpjax authors", "the warpjax authors, Apache-2.0"
version = release = warpjax.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
html_math_renderer = "mathml"
highlight_language = "none"  # of blocks that name none, such as commands and what is printed
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"warpjax {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
# The button copies the code of a doctest without its prompts and its output.
copybutton_prompt_text, copybutton_prompt_is_regexp = r">>> |\.\.\. |\$ ", True


def _origin() -> str:
  """The address of the repository that this is a clone of, if it is a public one; "" for none."""
  command = ["git", "config", "--get", "remote.origin.url"]
  found = shutil.which("git") and subprocess.run(command, cwd=HERE, capture_output=True, text=True).stdout.strip()
  address = re.sub(r"^git@([\w.-]+):", r"https://\1/", found or "").removesuffix(".git")
  return address if re.match(r"https://(github\.com|gitlab\.com|bitbucket\.org)/", address) else ""


# Pages have an edit link wherever the docs are built from a clone of a public repository.
if origin := _origin():
  html_theme_options = {"source_repository": origin, "source_branch": "main", "source_directory": "docs/"}

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
# The notebooks hold their outputs, which a slow test compares with those of a new run.
nb_execution_mode = "off"
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar, napoleon_attr_annotations = False, False
autodoc_type_aliases = {name: f"warpjax.types.{name}" for name in generated.ALIASES}
python_maximum_signature_line_length = 88

_COLON = "\ue000"


def _markdown_to_rest(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
  """Docstrings mark code by single backticks; in reST that is a pair."""
  lines[:] = api_pages.as_rest("\n".join(lines)).split("\n")
  if what == "data" and lines:  # napoleon would read what is before a colon as a type
    lines[0] = lines[0].replace(": ", f"{_COLON} ")


def _with_colons(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
  lines[:] = [line.replace(_COLON, ":") for line in lines]


def _without_edit_link(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
  """Pages made from the code are in no repository."""
  if page.split("/")[0] in ("api", "experiments", "settings", "combinations", "notebooks"):
    context |= {"theme_source_repository": "", "theme_source_edit_link": ""}


def _short_constant(app: Any, domain: str, kind: str, content: Any) -> None:
  """A constant or alias without the long type that it stands for; its docstring has it in words."""
  if kind == "data":
    for node in list(content.parent.findall(addnodes.desc_annotation)):
      if len(node.astext()) > 40:
        node.parent.remove(node)
    for node in list(content.children):
      if node.astext().startswith("alias of"):
        content.remove(node)


def _no_fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
  """Fields are in the docstring's Attributes: a named tuple's, and a module's whose default is a function or a type."""
  is_default = what == "class" and (isinstance(obj, type) or "." not in getattr(obj, "__qualname__", "."))
  return True if type(obj).__name__ == "_tuplegetter" or is_default else None


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
  generated.write_notebooks(HERE / "notebooks")
  generated.write_api(HERE / "api")
  generated.write_experiments(HERE / "experiments")
  generated.write_settings(HERE / "settings")
  generated.write_combinations(HERE / "combinations")
  app.connect("autodoc-process-docstring", _markdown_to_rest, priority=100)
  app.connect("autodoc-process-docstring", _with_colons, priority=900)
  app.connect("autodoc-skip-member", _no_fields)
  app.connect("object-description-transform", _short_constant)
  app.connect("html-page-context", _without_edit_link)
