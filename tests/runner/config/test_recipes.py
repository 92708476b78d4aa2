"""Recipes: rows over common settings, over other rows and over other files, and the errors about missing ones."""

from __future__ import annotations

import sys

import pytest

from warpjax.runner.config import recipes

ALPHA = '''"""Alpha."""

COMMON = {"steps": 1, "eval": {"tasks": 5, "steps": 1}, "inner": {"rule": "sgd", "rate": 0.1}}
METHODS = {
  "_five": {"steps": 5, "eval": {"steps": 3}},
  "plain": {},
  "five": {"base": "_five"},
  "adam": {"inner": {"rule": "adam"}, "published": {"number": 0.9, "source": "a paper"}},
  "adam_fast": {"base": ("adam", "_five"), "inner": {"rate": 0.2}, "steps": 6},
  "adam_bare": {"base": "adam", "published": None},
  "no_eval": {"eval": None},
}
VARIANTS = {"_strict": {"eval": {"tasks": 50}}}
'''


@pytest.fixture(autouse=True)
def path_of_its_own(monkeypatch):
  monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def write(tmp_path, monkeypatch):
  """Writes a recipe into a folder of recipes that have names."""
  monkeypatch.setattr(recipes, "FOLDERS", (tmp_path, *recipes.FOLDERS))

  def write(name, text):
    (tmp_path / f"{name}.py").write_text(text)
    return recipes.load(name)

  return write


@pytest.fixture
def alpha(write):
  return write("alpha", ALPHA)


def test_a_row_lays_over_a_table_or_takes_its_place(alpha):
  expected = {"steps": 5, "eval": {"tasks": 5, "steps": 3}, "inner": {"rule": "sgd", "rate": 0.1}}
  assert alpha.settings("five") == {"experiment": "alpha", "method": "five", **expected}
  assert alpha.settings("plain")["eval"] == {"tasks": 5, "steps": 1}
  assert alpha.settings("adam")["inner"] == {"rule": "adam"}  # the rate of sgd is not adam's


def test_rows_have_bases_in_their_order(alpha):
  found = alpha.settings("adam_fast")
  assert found["steps"] == 6 and found["eval"] == {"tasks": 5, "steps": 3}
  assert found["inner"] == {"rule": "adam", "rate": 0.2} and found["published"]["number"] == 0.9
  assert "base" not in found


def test_none_takes_away(alpha):
  assert "published" not in alpha.settings("adam_bare") and "eval" not in alpha.settings("no_eval")
  assert "published" in alpha.settings("adam")


def test_names_that_begin_with_an_underscore_are_parts(alpha):
  assert list(alpha.methods) == ["plain", "five", "adam", "adam_fast", "adam_bare", "no_eval"]
  with pytest.raises(ValueError, match=r"alpha.py has no method '_five'; did you mean 'five'\? Allowed: plain, five, "):
    alpha.settings("_five")


def test_every_method_exists_as_each_variant_without_its_published_number(alpha):
  found = alpha.settings("adam_strict")
  assert found["method"] == "adam_strict" and found["eval"] == {"tasks": 50, "steps": 1}
  assert "published" not in found
  assert alpha.names() == [*alpha.methods, *(f"{method}_strict" for method in alpha.methods)]
  assert alpha.has("adam_strict") and alpha.has("adam") and not alpha.has("_strict") and not alpha.has("adm_strict")


def test_what_is_changed_is_not_the_recipe(alpha):
  first = alpha.settings("plain")
  first["eval"]["tasks"], first["inner"]["rule"] = 1, "adam"
  assert alpha.settings("plain")["eval"]["tasks"] == 5 and alpha.settings("five")["inner"]["rule"] == "sgd"


def test_a_file_over_another_has_its_methods_and_variants_without_its_numbers(alpha, write):
  beta = write(
    "beta",
    'BASE = "alpha"\nCOMMON = {"steps": 2, "eval": {"tasks": 7}}\n'
    'METHODS = {"adam": {"published": {"number": 0.5, "source": "another"}}, "own": {"steps": 3}}',
  )
  assert list(beta.methods) == [*alpha.methods, "own"]
  assert beta.settings("plain")["eval"] == {"tasks": 7, "steps": 1} and beta.settings("plain")["steps"] == 2
  assert beta.settings("adam")["published"]["number"] == 0.5 and beta.settings("adam")["inner"] == {"rule": "adam"}
  assert "published" not in beta.settings("adam_fast")
  assert beta.settings("own")["steps"] == 3 and beta.settings("own_strict")["eval"]["tasks"] == 50
  assert beta.settings("own")["experiment"] == "beta"


def test_data_names_another_data_set_under_the_settings_of_the_base():
  images, other = (recipes.load(name).common for name in ("mini_imagenet", "fc100"))
  assert other == {**images, "data": {**images["data"], "name": "fc100"}} and images["data"]["name"] == "mini_imagenet"


def test_a_file_over_a_row_has_methods_of_its_own_alone(alpha, write):
  gamma = write("gamma", 'BASE = "alpha:adam"\nMETHODS = {"mine": {"inner": {"rate": 0.5}}}')
  assert list(gamma.methods) == ["mine"] and not gamma.has("mine_strict")
  assert gamma.settings("mine") == {
    "experiment": "gamma",
    "method": "mine",
    "steps": 1,
    "eval": {"tasks": 5, "steps": 1},
    "inner": {"rule": "adam", "rate": 0.5},
  }
  strict = write("delta", 'BASE = "alpha:adam_strict"\nMETHODS = {"mine": {}}')
  assert strict.settings("mine")["eval"]["tasks"] == 50


def test_the_base_of_a_file_can_be_a_path_from_its_folder(tmp_path):
  (tmp_path / "alpha.py").write_text(ALPHA)
  (tmp_path / "over.py").write_text('BASE = "alpha.py:adam"\nMETHODS = {"mine": {"steps": 9}}')
  found = recipes.settings(f"{tmp_path}/over.py:mine")  # from another folder
  assert found["steps"] == 9 and found["inner"] == {"rule": "adam"}


def test_a_recipe_is_found_by_its_path_and_by_its_name(alpha, tmp_path, monkeypatch):
  assert recipes.load(tmp_path / "alpha.py") == alpha == recipes.load("alpha")
  assert recipes.settings(f"{tmp_path}/alpha.py:five") == recipes.settings("alpha:five")
  monkeypatch.chdir(tmp_path)
  for source in ("sinusoid:maml", "sinusoid.py:maml", "configs/sinusoid.py:maml"):
    assert recipes.settings(source)["inner"]["learning_rate"] == 0.01
  assert {"alpha", "sinusoid", "omniglot"} <= set(recipes.names())


def test_of_one_method_the_name_can_be_left_out(write):
  write("one", "METHODS = {'only': {'steps': 1}}")
  assert recipes.settings("one") == {"experiment": "one", "method": "only", "steps": 1}
  with pytest.raises(ValueError, match=r"--config must name a method, l2l:METHOD; l2l has l2l_lstm, l2l_lstm_images"):
    recipes.settings("l2l")


@pytest.mark.parametrize(
  ("source", "message"),
  [
    (
      "sinusiod:maml",
      r"--config must be FILE.py:METHOD or NAME:METHOD; 'sinusiod' does not exist; did you mean 'sinusoid'",
    ),
    ("configs/omniglt.py:maml", "'configs/omniglt.py' does not exist; did you mean 'omniglot'"),
    ("somewhere/else.py:maml", "'somewhere/else.py' does not exist"),
    ("/no/such/configs/omniglot.py:maml", "'/no/such/configs/omniglot.py' does not exist"),
    ("sinusoid:mamll", r"sinusoid.py has no method 'mamll'; did you mean 'maml'\? Allowed: maml, fomaml"),
  ],
)
def test_what_is_not_there_is_named_with_the_nearest(source, message):
  with pytest.raises(ValueError, match=message) as error:
    recipes.settings(source)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (
      "METHODS = {'a': {'base': 'bb'}, 'b': {}}",
      r"METHODS\['a'\] has the base 'bb', which does not exist; did you mean 'b'",
    ),
    ("METHODS = {'a': {'base': 'a'}}", r"METHODS\['a'\] is its own base, by a\."),
    ("METHODS = {'a': {'base': 'b'}, 'b': {'base': 'a'}}", r"METHODS\['a'\] is its own base, by a and b\."),
    ("BASE = 'alpah'\nMETHODS = {}", r"'alpah' does not exist; did you mean 'alpha'"),
    ("BASE = 'alpha:adm'\nMETHODS = {}", r"alpha.py has no method 'adm'; did you mean 'adam'"),
    ("BASE = 'broken'\nMETHODS = {}", r"broken.py is its own BASE, by .*broken.py\."),
    ("DATA = 'fc100'\nMETHODS = {}", "broken.py has DATA = 'fc100' and no BASE whose data could have that name"),
    ("COMMON = {}", "broken.py must have METHODS, a dict with a row for each method; got None"),
    ("METHODS = ['maml']", r"must have METHODS, a dict with a row for each method; got \['maml'\]"),
    ("METHODS = {", "broken.py, line 1, is no Python: "),
  ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(alpha, write, text, message):
  with pytest.raises(ValueError, match=message) as error:
    write("broken", text)
  assert "\n" not in str(error.value)


def test_every_row_of_this_repository_is_laid_out():
  for name in recipes.names():
    recipe = recipes.load(name)
    assert recipe.doc and recipe.methods
    for method in recipe.names():
      settings = recipe.settings(method)
      assert (settings["experiment"], settings["method"]) == (name, method) and "base" not in settings
