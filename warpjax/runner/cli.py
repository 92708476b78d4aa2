"""The command line: flags that commands share, and errors in one line."""

from __future__ import annotations

import contextlib
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
from absl import app, flags, logging

from warpjax.runner import workdir
from warpjax.runner.config import settings
from warpjax.runner.machine import compiled, hosts, interrupts

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # --help of a command then lists the flags of `define`

# Messages of absl on a flag, and the ones shown instead.
_WORDS = (
  (r"flag --(\w+)=None: Flag .* must have a value other than None\.", r"--\1 is missing; --help says what it is."),
  (r"flag (--\S+?)=(.*): invalid literal for int\(\).*", r"\1 must be an integer; got '\2'."),
  (r"flag (--\S+?)=(.*): could not convert string to float.*", r"\1 must be a number; got '\2'."),
)

_overrides: list[str] = []  # `a.b=VALUE` of the command line, for `config`


def run(main: Callable[[], int | None]) -> NoReturn:
  """Runs a command that takes only flags; errors that a user can mend become one line.

  Args:
    main: Returns the exit status; None means 0.
  """

  def in_one_line(argv: Sequence[str]) -> int | None:
    del argv
    with errors_in_one_line():
      return main()

  run_with(in_one_line, parse, main.__module__)


def run_with(main: Callable[[Sequence[str]], int | None], flags_parser: Callable[..., Any], module: str) -> NoReturn:
  """Runs a command and ends the process.

  A command that failed or was interrupted ends without tearing down the interpreter, since XLA may still compute, and
  threads that outlive the interpreter crash it.

  Args:
    main: Takes the arguments that are no flags, and returns the exit status.
    flags_parser: As for `absl.app.run`.
    module: The name of the command's module, whose docstring and flags are printed by --help.
  """
  status: Any = 1
  interrupts.at_once()
  _help_is_of(module)
  try:
    app.run(main, flags_parser=flags_parser)
  except SystemExit as error:
    status = error.code
  except KeyboardInterrupt:
    interrupts.leave_interrupted()
  except BrokenPipeError:  # of --help; `errors_in_one_line` has those of a command
    status = hosts.BROKEN_PIPE
  except BaseException:
    traceback.print_exc()
  if isinstance(status, str):
    print(status, file=sys.stderr)
  hosts.leave(status if isinstance(status, int) else int(status is not None))


def _help_is_of(name: str) -> None:
  """Makes --help print the docstring and the flags of the command's module, even if another module was started."""
  if name == "__main__" or name not in sys.modules:
    return
  sys.modules["__main__"].__doc__ = sys.modules[name].__doc__
  for flag in FLAGS.get_key_flags_for_module(name):
    FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def define(*, config: bool = False, places: bool = True, processes: bool = False) -> None:
  """Defines the shared flags; commands call it, so that importing one defines no flag.

  Args:
    config: Whether to define `--config=FILE.py:METHOD`, `--config.key=value` and `--cpu_devices`.
    places: Whether to define `--data_dir`, `--cache_dir` and `--compilation_cache`.
    processes: Whether to define `--coordinator`, `--num_processes` and `--process_id`.
  """
  flags.DEFINE_bool("traceback", False, "Show where in the code an error arose.")
  if config:
    flags.DEFINE_string("config", None, "FILE.py:METHOD, or NAME:METHOD of a recipe; any setting: --config.a.b=VALUE")
    flags.mark_flag_as_required("config")
    flags.DEFINE_integer(
      "cpu_devices",
      None,
      "Devices to make of a CPU; default: one for each core where train measures that to be faster.",
      lower_bound=1,
    )
  if places:
    flags.DEFINE_string("data_dir", None, "Prepared data; default: TFDS_DATA_DIR, else that of the data set.")
    flags.DEFINE_string("cache_dir", None, "Arrays of the data, and compiled programs; default: the user's cache.")
    flags.DEFINE_bool("compilation_cache", True, "Keep compiled programs in the cache, where JAX is not set otherwise.")
  if processes:
    flags.DEFINE_string("coordinator", None, "Many hosts: HOST:PORT of the first; auto on SLURM, TPU pods, Kubernetes.")
    flags.DEFINE_integer("num_processes", None, "Many hosts: how many processes there are.")
    flags.DEFINE_integer("process_id", None, "Many hosts: which one this is, from 0.")


def config() -> dict[str, Any]:
  """The config of the command line, as nested dicts; see `settings.load_config`.

  Raises:
    ValueError: For a file that cannot be read, or an unknown method or setting.
  """
  return settings.load_config(FLAGS.config, *_overrides)


def places() -> dict[str, str | None]:
  """The arguments `data_dir` and `cache_dir`."""
  return {"data_dir": FLAGS.data_dir, "cache_dir": FLAGS.cache_dir}


def keep_compiled() -> None:
  """Keeps compiled programs for the next start, if the flags allow it; devices are used, so hosts must be connected."""
  if FLAGS.compilation_cache:
    compiled.keep(FLAGS.cache_dir)


def integers(name: str, values: Sequence[str]) -> list[int]:
  """The values of a list flag as integers.

  Raises:
    ValueError: For text that is no integer, or a repeated one.
  """
  if not all(re.fullmatch(r"\d+", value.strip()) for value in values) or len(set(values)) < len(values):
    raise ValueError(f"--{name} must be different non-negative integers, separated by commas; got {','.join(values)}.")
  return [int(value) for value in values]


def parse(argv: Sequence[str]) -> list[str]:
  """Parses flags for `app.run`; settings, `--config.a.b=VALUE`, are stored for `config`."""
  logging.set_verbosity(logging.FATAL)  # orbax logs some 45 lines for each save, and tracebacks of errors it raises
  _overrides[:], others = _settings(argv)
  try:
    rest = FLAGS(others)
  except flags.UnrecognizedFlagError as error:
    fail(_no_such_flag(error))
  except flags.Error as error:
    fail(_in_words(str(error).splitlines()[0]))
  if _overrides and "cpu_devices" not in FLAGS:  # `define` makes this flag only with the config of a run
    fail(f"this command takes no settings of a config; got --config.{_overrides[0]}.")
  if "cpu_devices" in FLAGS and FLAGS.cpu_devices:
    jax.config.update("jax_num_cpu_devices", FLAGS.cpu_devices)
  if len(rest) > 1:
    fail(f"arguments must be flags, --NAME=VALUE, and lists have commas without spaces; got {rest[1]!r}.")
  return rest


def _settings(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """The settings as `a.b=VALUE`, and all other arguments; as for any flag, a value may follow after a space."""
  settings, others, texts = list[str](), list[str](), list(argv)
  while texts:
    text = texts.pop(0)
    if not text.startswith(("--config.", "-config.")):
      others.append(text)
      continue
    if "=" not in text and texts and not texts[0].startswith("--"):
      text = f"{text}={texts.pop(0)}"
    settings.append(text.lstrip("-").removeprefix("config."))
  return settings, others


def _no_such_flag(error: flags.UnrecognizedFlagError) -> str:
  setting = "config" in FLAGS and "Did you mean" not in str(error) and "." not in error.flagname
  return f"{error}{f'; a setting of the config is --config.{error.flagname}=VALUE' if setting else ''}."


def _in_words(message: str) -> str:
  for pattern, words in _WORDS:
    message = re.sub(f"^{pattern}$", words, message)
  return message


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
  """Turns errors that a user can mend into one line on stderr, with exit status 1; `run` handles Ctrl-C."""
  sys.unraisablehook = _without_late_reads
  try:
    with interrupts.raised():  # except in training, where `progress.stop_signal` handles signals
      yield
  except BrokenPipeError:
    hosts.leave(hosts.BROKEN_PIPE)
  except Exception as error:
    if interrupts.received():  # a library turned the interrupt into another error
      raise KeyboardInterrupt from error
    message = _mendable(error)
    if message is None or FLAGS.traceback:
      raise
    fail(message)


def _without_late_reads(unraisable: Any) -> None:
  """Hides the errors of further reads of a checkpoint, after the first has failed and is reported."""
  if isinstance(unraisable.exc_value, KeyboardInterrupt):
    interrupts.leave_interrupted()  # Python would only print it
  code = getattr(unraisable.object, "cr_code", None)  # the code of a coroutine that is no longer awaited
  of_orbax = code is not None and "orbax" in pathlib.Path(code.co_filename).parts
  if not of_orbax and str(unraisable.exc_value) != "Event loop is closed":
    sys.__unraisablehook__(unraisable)


def _mendable(error: Exception) -> str | None:
  """The message for an error that a user can mend; None for any other, whose traceback is needed."""
  if (full := workdir.disk_full(error)) is not None:
    return full
  if (lost := hosts.lost_peer(error)) is not None:
    return lost
  return str(error) if isinstance(error, ValueError | OSError | FloatingPointError | ImportError) else None


def fail(message: str) -> NoReturn:
  """Prints an error in one line on stderr and exits with status 1."""
  print(f"error: {message}", file=sys.stderr, flush=True)
  sys.exit(1)
