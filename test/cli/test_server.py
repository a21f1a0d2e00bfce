"""Your own server: started by the first command, once, detached, with a clean environment.  The real server."""

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import time

import pytest
from conftest import DEADLINE, PROGRAM

pytestmark = pytest.mark.skipif(not os.path.exists(os.path.join(os.path.dirname(PROGRAM), "signalbox-runner")), reason="the runner is not built")


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=DEADLINE)
        self.unix_path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.unix_path)


def ask(path, what):
    """The JSON that a socket answers; None when nobody does."""
    try:
        connection = Connection(path)
        connection.request("GET", what)
        return json.loads(connection.getresponse().read())
    except (OSError, ValueError):
        return None


def end(pid):
    """Ends a process that this test's server started, and waits until it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for sig in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(fd, sig)
            if select.select([fd], [], [], DEADLINE)[0]:
                break
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def servers(room):
    """The servers on this test's data directory."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        if words[1:2] == [b"serve"] and os.path.join(room, "data").encode() in words:
            found.append(int(pid))
    return found


def gateway_pid(path):
    """The gateway outlives the server, and comes up a moment after it: it is waited for."""
    end_at = time.monotonic() + DEADLINE
    while time.monotonic() < end_at:
        answer = ask(os.path.join(path, "gateway-control.sock"), "/version")
        if answer:
            return answer["pid"]
        time.sleep(0.01)
    raise AssertionError("a server runs without its gateway")


@pytest.fixture
def runtime(room, environment):
    """The runtime directory; whatever was started on it is ended."""
    path = os.path.join(room, "run")
    yield path
    if not servers(room):
        return
    gateway = gateway_pid(path)
    for pid in [*servers(room), gateway]:
        end(pid)


def server_pid(runtime):
    return ask(os.path.join(runtime, "signalbox.sock"), "/version")["pid"]


def test_the_first_command_starts_the_server_and_the_next_uses_it(signalbox, runtime):
    assert signalbox("ls").returncode == 0
    pid = server_pid(runtime)
    assert signalbox("ls").returncode == 0
    assert server_pid(runtime) == pid


def test_the_server_is_detached_and_its_environment_is_clean(signalbox, runtime, room):
    r = signalbox("ls", env={"UNRELATED": "1", "LD_LIBRARY_PATH": "/nowhere", "OPENAI_API_KEY": "sk-test", "TZ": "UTC", "SIGNALBOX_TOKEN": "t"})
    assert r.returncode == 0, r.stderr
    pid = server_pid(runtime)
    with open(f"/proc/{pid}/environ") as f:
        names = dict(v.split("=", 1) for v in f.read().split("\0") if v)
    assert "UNRELATED" not in names and "LD_LIBRARY_PATH" not in names and "SIGNALBOX_TOKEN" not in names
    assert names["OPENAI_API_KEY"] == "sk-test" and names["HOME"] == room and names["TZ"] == "UTC"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) == pid
    for fd in (1, 2):
        assert os.readlink(f"/proc/{pid}/fd/{fd}") == os.path.join(room, "data", "log", "server.log")
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"


def test_many_first_commands_at_once_start_one_server(runtime, environment, room):
    children = [subprocess.Popen([PROGRAM, "ls"], env=environment, cwd=os.path.join(room, "work"), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(12)]
    for child in children:
        out, err = child.communicate(timeout=DEADLINE)
        assert child.returncode == 0, err
    assert servers(room) == [server_pid(runtime)]


def test_a_server_that_cannot_start_is_told_with_the_end_of_its_log(signalbox, runtime, room):
    config = os.path.join(room, ".config", "signalbox")
    os.makedirs(config)
    with open(os.path.join(config, "config.yaml"), "w") as f:
        f.write("limits:\n  nonsense: 1\n")
    r = signalbox("ls")
    assert r.returncode == 7
    assert "the server ended at its start" in r.stderr
    assert "nonsense" in r.stderr
    assert "server.log" in r.stderr


def test_a_dead_socket_is_no_obstacle(signalbox, runtime):
    os.mkdir(runtime, 0o700)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(os.path.join(runtime, "signalbox.sock"))
    dead.close()
    assert signalbox("ls").returncode == 0


def test_a_runtime_directory_of_somebody_else_is_refused(signalbox, room):
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    other = os.path.join(room, "other")
    os.mkdir(other)
    os.chown(other, 12345, 12345)
    r = signalbox("--runtime", other, "ls")
    assert r.returncode == 4 and "belongs to somebody else" in r.stderr
    assert os.listdir(other) == []


def test_a_socket_path_that_is_too_long_is_told_before_anything_is_started(signalbox, room):
    r = signalbox("--runtime", os.path.join(room, "x" * 100), "ls")
    assert r.returncode == 2 and "longer than" in r.stderr
    assert not os.path.exists(os.path.join(room, "data"))


def test_the_whole_way_of_a_command_task(signalbox, runtime, room):
    repo = os.path.join(room, "repo")
    os.mkdir(repo)
    subprocess.run(["git", "init", "-q", "-b", "main", repo], check=True)
    with open(os.path.join(repo, "a.txt"), "w") as f:
        f.write("a\n")
    r = signalbox("run", "--agent", "command", "--name", "T-1", "--verify", "grep -q b a.txt", "echo b >a.txt; echo new >b.txt", cwd=repo)
    assert r.returncode == 0, r.stdout + r.stderr
    assert "DONE  T-1" in r.stdout
    assert " 2 files changed, 2 insertions(+), 1 deletion(-)" in r.stdout
    assert "verify  passed  grep -q b a.txt" in r.stdout
    with open(os.path.join(repo, "a.txt")) as f:
        assert f.read() == "a\n"
    assert "+b" in signalbox("diff", "T-1", cwd=repo).stdout
    assert signalbox("apply", "--check", "T-1", cwd=repo).returncode == 0
    assert signalbox("apply", "T-1", cwd=room).returncode == 0
    with open(os.path.join(repo, "a.txt")) as f:
        assert f.read() == "b\n"
    again = signalbox("apply", "T-1", cwd=repo)
    assert again.returncode == 6 and "a.txt" in again.stderr
    log = [l.split("\t") for l in signalbox("events", "T-1", cwd=repo).stdout.splitlines()]
    assert [int(l[0]) for l in log] == list(range(1, len(log) + 1))
    assert log[0][2] == "task.created" and log[-1][2] in ("task.done", "run.ended")
    assert signalbox("wait", "T-1", cwd=repo).returncode == 0
    assert signalbox("cancel", "T-1", cwd=repo).returncode == 6
    assert signalbox("start", "--agent", "command", "--name", "T-1", "true", cwd=repo).returncode == 6
    assert signalbox("rm", "T-1", cwd=repo).returncode == 0
    assert signalbox("show", "T-1", cwd=repo).returncode == 5


def test_a_task_that_fails_its_check_is_an_error_and_cancel_is_exit_status_3(signalbox, runtime):
    bad = signalbox("run", "--repo", "-", "--agent", "command", "--verify", "exit 7", "true")
    assert bad.returncode == 1, bad.stdout + bad.stderr
    assert "verify  failed" in bad.stdout
    started = json.loads(signalbox("start", "--json", "--repo", "-", "--agent", "command", "sleep 600").stdout)
    stopped = signalbox("cancel", started["id"])
    assert stopped.returncode == 0 and "CANCELED" in stopped.stdout
    assert signalbox("wait", started["id"]).returncode == 3


def test_run_outlives_the_death_of_its_server_and_shows_nothing_twice(signalbox, runtime, environment, room):
    assert signalbox("ls").returncode == 0
    run = subprocess.Popen([PROGRAM, "run", "--repo", "-", "--agent", "command", "echo first; sleep 2; echo last"], env=environment,
                           cwd=os.path.join(room, "work"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        seen = ""
        while "> first" not in seen:
            line = run.stderr.readline()
            assert line, seen
            seen += line
        pid = server_pid(runtime)
        fd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        assert select.select([fd], [], [], DEADLINE)[0]
        os.close(fd)
        assert signalbox("ls").returncode == 0
        out, err = run.communicate(timeout=DEADLINE)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 0, seen + err
    assert (seen + err).count("> first") == 1 and (seen + err).count("> last") == 1
    assert "DONE" in out


def test_ctrl_c_leaves_the_task_running(signalbox, runtime, environment, room):
    run = subprocess.Popen([PROGRAM, "run", "--repo", "-", "--name", "T-1", "--agent", "command", "echo first; sleep 600"], env=environment,
                           cwd=os.path.join(room, "work"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = ""
    while "> first" not in seen:
        line = run.stderr.readline()
        assert line, seen
        seen += line
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=DEADLINE)
    assert run.returncode == 130 and "signalbox wait T-1" in err
    assert json.loads(signalbox("show", "T-1", "--json").stdout)["status"] == "RUNNING"
    assert signalbox("rm", "--force", "T-1").returncode == 0
