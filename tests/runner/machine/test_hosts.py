"""Two processes over the loopback: they give the run of one, and the end of one ends the other."""

from __future__ import annotations

import os
import re
import signal
import socket
import time

import jax
import numpy as np
import pytest

from tests.runner import tiny
from tests.runner.commands import replacing, until
from warpjax.runner import cli, experiment, loop, workdir
from warpjax.runner.machine import hosts
from warpjax.training import checkpoints, parallel

SETTINGS = {
  "network.features": "(4,)",
  "tasks_per_step": 4,
  "eval.num_tasks": 2,
  "steps_per_dispatch": 1,
  "checkpoint_every": 1,
  "num_meta_steps": 10,
}
X64 = {"JAX_ENABLE_X64": "1"}


def arguments(path, row="sinusoid.py:maml", settings=SETTINGS, **others):
  given = [f"--config.{name}={value}" for name, value in settings.items()]
  flags = [f"--{name}={value}" for name, value in others.items()]
  return [f"--config=configs/{row}", f"--workdir={path}", *given, *flags]


def free_address():
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return f"127.0.0.1:{free.getsockname()[1]}"


def start_two(commands, path, **others):
  coordinator, started = free_address(), []
  for process_id in (0, 1):
    flags = {"coordinator": coordinator, "num_processes": 2, "process_id": process_id, **others}
    started.append((commands.start("experiments.train", arguments(path, **flags), X64), commands.count))
  return started


def final_params(path):
  """In double precision, from a checkpoint that any number of processes has written."""
  with jax.enable_x64(True):
    features = {"network": {"features": (4,)}, "tasks_per_step": 4}
    built = experiment.build(tiny.config("sinusoid", "maml", features))
    with checkpoints.open_manager(path / workdir.CHECKPOINTS) as manager:
      restored = checkpoints.restore_latest(manager, loop.start(built))
    assert restored.step == SETTINGS["num_meta_steps"]
    return restored.state.meta_params


def test_two_processes_die_together_resume_and_end_as_one_does(commands, tmp_path):
  one = commands.run("experiments.train", arguments(tmp_path / "one"), X64)
  assert one.status == 0, one.stderr
  path = tmp_path / "two"
  (first, first_number), (second, _) = start_two(commands, path)
  until(lambda: workdir.read_metrics(path), first)
  os.kill(second, signal.SIGKILL)
  begun = time.monotonic()
  survivor = commands.wait(first, first_number)
  assert time.monotonic() - begun < 150  # jax.distributed's own time-out is 100 s
  assert survivor.status in (1, -signal.SIGABRT)
  assert re.search("another process of this run has ended|another task died", survivor.stderr), survivor.stderr
  assert commands.wait(second, first_number + 1).status == -signal.SIGKILL
  assert not (path / "result.json").exists()

  both = [commands.wait(*process) for process in start_two(commands, path)]
  assert [done.status for done in both] == [0, 0], both[0].stderr + both[1].stderr
  speaks = [any(line.startswith("result ") for line in done.stdout.splitlines()) for done in both]
  assert speaks == [True, False]  # one of them
  steps = [row["step"] for row in workdir.read_metrics(path)]
  assert steps == list(range(1, SETTINGS["num_meta_steps"] + 1))  # and writes
  assert workdir.read_json(path / "result.json")["num_devices"] == 2
  left, right = final_params(tmp_path / "one"), final_params(path)
  for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    assert x.dtype == np.float64
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_two_processes_train_on_images_as_one_does(commands, tmp_path):
  settings = {"network.width": 2, "data.ways": 2, "data.split": "folders", **SETTINGS}
  del settings["network.features"]
  images = {"row": "omniglot.py:maml_cpu", "settings": settings, "data_dir": tiny.write_images(tmp_path / "images")}
  one = commands.run("experiments.train", arguments(tmp_path / "one", cpu_devices=1, **images), X64)
  assert one.status == 0, one.stderr
  both = [commands.wait(*process) for process in start_two(commands, tmp_path / "two", **images)]
  assert [done.status for done in both] == [0, 0], both[0].stderr + both[1].stderr
  losses = [[row["loss"] for row in workdir.read_metrics(tmp_path / name)] for name in ("one", "two")]
  assert len(losses[0]) == SETTINGS["num_meta_steps"]
  np.testing.assert_allclose(*losses, rtol=1e-6)


REFUSED = [
  (("h:1", None, None), "--num_processes is missing; --coordinator=h:1 needs it"),
  (("h:1", 2, None), "--process_id is missing; --coordinator=h:1 needs it"),
  (("h:1", 2, 2), "--process_id must be 0 to --num_processes - 1; got 2 of 2"),
  (("h:1", 0, 0), "--process_id must be 0 to --num_processes - 1; got 0 of 0"),
  (("localhost:99999", 2, 1), "--coordinator must have a port from 1 to 65535; got 'localhost:99999'"),
  (("localhost:0", 2, 1), "--coordinator must have a port from 1 to 65535; got 'localhost:0'"),
  (("host", 2, 0), "--coordinator must be HOST:PORT or auto; got 'host'"),
  ((None, 2, None), "--num_processes needs --coordinator=HOST:PORT; got --num_processes=2"),
  (("auto", None, 1), "--process_id needs --coordinator=HOST:PORT; got --process_id=1"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_flags_that_do_not_go_together(given, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    hosts.connect(*given)


def test_tasks_and_devices_must_divide_over_the_processes(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 3)
  with pytest.raises(ValueError, match=r"config\.tasks_per_step must be a multiple of the 3 processes; got 4"):
    loop.num_devices(4)
  with pytest.raises(ValueError, match="num_devices must be a multiple of the 3 processes; got 1"):
    parallel.device_mesh(1)


def test_a_host_with_other_settings_is_refused(monkeypatch):
  hosts.check_same("the config", workdir.as_text({"sizes": (1, 2)}))
  monkeypatch.setattr(hosts, "from_first", lambda function: workdir.as_text({"seed": 0, "sizes": [1, 2]}))
  with pytest.raises(ValueError, match=r"the config of process 0 must be the first's. It differs in: seed: 0 there, 1"):
    hosts.check_same("the config", workdir.as_text({"seed": 1, "sizes": (1, 2)}))


def test_another_error_is_not_taken_for_a_lost_peer(monkeypatch):
  error = ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer")
  assert hosts.lost_peer(error) is None  # alone, there is nobody to lose
  monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
  assert "another process of this run has ended" in hosts.lost_peer(error)
  assert hosts.lost_peer(ValueError("config.seed must be an integer")) is None


UNRESOLVED = (
  "Unable to initialize backend 'cpu': [enforce fail at external/gloo/gloo/transport/tcp/device.cc:99] rv == 0. -2 vs 0"
)


def joined(monkeypatch, error, resolves):
  """`hosts.connect` where the others are joined and the first look at the devices fails."""
  lookup = socket.getaddrinfo

  def patched(name, *arguments, **keywords):
    if name == socket.gethostname() and not resolves:
      raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return lookup("127.0.1.1" if name == socket.gethostname() else name, *arguments, **keywords)

  def fail():
    raise error

  monkeypatch.setattr(socket, "gethostname", lambda: "worker7")
  monkeypatch.setattr(socket, "getaddrinfo", patched)
  monkeypatch.setattr(jax.distributed, "initialize", lambda *arguments, **keywords: None)
  monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
  monkeypatch.setattr(jax, "device_count", fail)
  with pytest.raises(hosts.StartError) as failed:
    hosts.connect("127.0.0.1:9", 2, 1)
  assert hosts.lost_peer(failed.value) is None
  return cli._mendable(failed.value)


def test_a_machine_whose_own_name_does_not_resolve_is_told_so(monkeypatch):
  said = joined(monkeypatch, RuntimeError(UNRESOLVED), resolves=False)
  assert said.startswith("this machine's own name, 'worker7', does not resolve to an address")
  assert "Add the line '127.0.0.1 worker7' to /etc/hosts" in said


def test_devices_that_fail_are_no_name_that_does_not_resolve(monkeypatch):
  error = RuntimeError("Unable to initialize backend 'cuda': FAILED_PRECONDITION: No visible GPU devices.")
  said = joined(monkeypatch, error, resolves=False)
  assert said.startswith("JAX cannot use the devices of this process (Unable to initialize backend 'cuda'")


def test_another_failure_at_the_start_is_no_lost_process(monkeypatch):
  said = joined(monkeypatch, RuntimeError("Gloo context initialization failed: Connection refused"), resolves=True)
  assert said.startswith("the processes of this run could not be connected (Gloo context")
  assert "'worker7' is 127.0.1.1" in said


def test_a_coordinator_that_does_not_exist_is_told_within_seconds(commands, tmp_path):
  processes = {"coordinator": "nobody.invalid:4000", "num_processes": 2}
  started = [
    (commands.start("experiments.train", arguments(tmp_path / "two", **processes, process_id=i)), commands.count)
    for i in (0, 1)
  ]
  for each in started:
    done = commands.wait(*each)
    assert done.status == 1 and not (tmp_path / "two").exists()
    assert done.stderr.startswith(
      "error: --coordinator=nobody.invalid:4000: the name 'nobody.invalid' does not resolve"
    )
    assert "or add the name to /etc/hosts" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_port_in_use_is_told_at_once():
  with socket.socket() as taken:
    taken.bind(("", 0))
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(hosts.StartError, match=f"process 0 cannot listen at port {port} .*Choose another port"):
      hosts.connect(f"127.0.0.1:{port}", 2, 0)


@pytest.mark.parametrize("host", [".", "a" * 64])
def test_what_cannot_be_a_name_is_told(host):
  with pytest.raises(hosts.StartError, match=f"the name '{re.escape(host)}' does not resolve to an address"):
    hosts.connect(f"{host}:1234", 2, 1)


def test_a_port_where_a_run_has_just_ended_is_free():
  """The side that closes first keeps the port for a minute (TIME_WAIT)."""
  with socket.create_server(("127.0.0.1", 0)) as listening:  # which sets SO_REUSEADDR, as gRPC does
    port = listening.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as other:
      accepted, _ = listening.accept()
      accepted.close()
      assert other.recv(1) == b""
  hosts._check_address(f"127.0.0.1:{port}", 0)


def waiting(commands, process_id, seconds):
  """A process whose peer never begins, once it has said what it waits for."""
  address, environment = free_address(), {"PROCESS_ID": str(process_id), "SECONDS": str(seconds)}
  pid = commands.start("tests.runner.machine.waiting", [], environment | {"ADDRESS": address})
  said = commands.folder / f"{commands.count}.err"
  until(lambda: said.exists() and said.read_text().endswith("\n"), pid)
  assert said.read_text() == f"Waiting for 2 processes at {address}.\n"
  return pid


@pytest.mark.parametrize("process_id", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_peers_that_do_not_begin_are_told_of_before_jax_aborts(commands, process_id):
  done = commands.wait(waiting(commands, process_id, seconds=2.0))
  assert done.status == 1 and not done.stdout
  _, told = done.stderr.splitlines()
  assert re.fullmatch(r"error: --coordinator=\S+ could not be joined by all processes in 2 s\. .+", told), told


@pytest.mark.parametrize("process_id", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_sigint_while_waiting_for_peers(commands, process_id):
  pid = waiting(commands, process_id, seconds=60.0)
  os.kill(pid, signal.SIGINT)
  done = commands.wait(pid)
  assert done.status == 130 and not done.stdout
  assert done.stderr.splitlines()[1:] == ["Interrupted; what was saved before stays."]


def test_a_cpu_is_made_into_devices(commands, tmp_path):
  flags = replacing(arguments(tmp_path / "two", cpu_devices=2), "--config.num_meta_steps=1")
  done = commands.run("experiments.train", flags)
  assert done.status == 0, done.stderr
  assert workdir.read_json(tmp_path / "two" / "result.json")["num_devices"] == 2
