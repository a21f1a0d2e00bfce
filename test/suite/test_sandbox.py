"""The walls from outside: a hostile agent, a runner killed at any moment, the forwarded port, signals.

Everything runs through sbx_run, which does with the sandbox what a runner does. As root three roads are tried: the stage
becomes the agent's uid; the runner drops to it first; and a process that never was root. Otherwise only the last."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.abspath(os.environ.get("SIGNALBOX_BUILD", os.path.join(HERE, "..", "..", "build")))
CASES = int(os.environ.get("SIGNALBOX_CASES", "60"))  # of the random kills; a release runs 300 and more
UID = 31008  # need not be in passwd
DEADLINE = 120  # seconds; whoever needs them has failed
ROOT = os.geteuid() == 0
ROADS = ["root", "drop", "user"] if ROOT else ["user"]


SOURCES = {"hostile": os.path.join(HERE, "hostile", "hostile.c")}  # compiled here when the build has not
compiled = tempfile.TemporaryDirectory(prefix="sbhostile")


def built(name):
    for directory, _, files in os.walk(BUILD):
        if name in files and os.access(os.path.join(directory, name), os.X_OK):
            return os.path.join(directory, name)
    if name in SOURCES:
        program = os.path.join(compiled.name, name)
        if not os.path.exists(program):
            subprocess.run(["cc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-o", program, SOURCES[name]], check=True)
        return program
    pytest.fail(f"{name} is not built below {BUILD}")


class Site:
    """Directories of the agent's uid, and the command line that makes a sandbox over them."""

    def __init__(self, road):
        self.road = road
        self.dir = tempfile.mkdtemp(prefix="sbwalls")
        os.chmod(self.dir, 0o755)
        for name in ("lower", "upper", "work", "merged", "home", "gateway", "bin"):
            os.mkdir(self.path(name), 0o755)
            if ROOT:
                os.chown(self.path(name), UID, UID)
        for name in ("signalbox-init", "sbx_run", "hostile"):
            shutil.copy(built(name), self.path("bin", name))

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def command(self, *argv, options=(), init=None):
        command = [self.path("bin", "sbx_run"), "--init", init or self.path("bin", "signalbox-init"), "--lower", self.path("lower"),
                   "--upper", self.path("upper"), "--work", self.path("work"), "--merged", self.path("merged"),
                   "--home", self.path("home"), "--bind", self.path("bin") + ":/run/test"]
        if ROOT and self.road != "user":
            command += ["--uid", str(UID), "--gid", str(UID)]
        if self.road == "drop":
            command += ["--drop", "--cgroup"]
        return [*command, *options, "--", *argv]

    def start(self, *argv, options=(), **more):
        if ROOT and self.road == "user":
            more.update(user=UID, group=UID, extra_groups=[])
        init = more.pop("init", None)
        return subprocess.Popen(self.command(*argv, options=options, init=init), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)

    def run(self, *argv, **more):
        p = self.start(*argv, **more)
        out, err = p.communicate(timeout=DEADLINE)
        return p.returncode, out.decode(errors="replace"), err.decode(errors="replace")

    def remove(self):
        if self.road == "drop":  # what a dropped runner may not remove: the emptied directory of its uid
            subprocess.run(self.command(options=["--remove-cgroup"]), check=True)
        work = self.path("work", "work")
        if os.path.isdir(work):
            os.chmod(work, 0o700)
        shutil.rmtree(self.dir)


@pytest.fixture(params=ROADS)
def site(request):
    s = Site(request.param)
    yield s
    s.remove()


def processes_with(token):
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as f:
                if token.encode() in f.read():
                    found.append(int(name))
    return found


def wait_until(condition, what):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.002)  # a poll of what has no descriptor to wait on


@pytest.mark.parametrize("network", [[], ["--share-net"]], ids=["alone", "host"])
def test_a_hostile_agent_finds_every_door_closed(site, network):
    if network and landlock_abi() < 6:
        pytest.skip("this kernel cannot scope abstract sockets away")
    with socket.socket(socket.AF_UNIX) as listener:
        name = f"signalbox-hostile-{os.getpid()}"  # the machine's: others test too
        listener.bind("\0" + name)
        listener.listen()
        _, out, err = site.run("/run/test/hostile", name, site.dir, "/root", HERE, options=network)
    lines = out.splitlines()
    opened = [line for line in lines if line.startswith("OPEN")]
    if network:  # what sharing the host's network means
        opened = [line for line in opened if line.split()[1] not in ("ipv4-tcp", "ipv4-udp", "ipv6-tcp", "metadata", "docker-host")]
    assert opened == [], out
    assert len(lines) > 50, out + err


def landlock_abi():
    import ctypes

    return ctypes.CDLL(None, use_errno=True).syscall(444, None, 0, 1)


def test_the_environment_stands_on_no_command_line(site):
    p = site.start("/bin/sleep", "1000", options=["--env", "TOKEN=unseen-7f3a"])
    # sbx_run itself has it on its own; the stage is its copy until it starts bwrap
    wait_until(lambda: any(is_program(pid, "sleep") for pid in children_of(p.pid)), "the agent did not start")
    seen = [pid for pid in processes_with("unseen-7f3a") if open(f"/proc/{pid}/comm").read().strip() != "sbx_run"]
    p.kill()
    p.communicate()
    assert seen == []


def children_of(pid):
    """All descendants of a process."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError), open(f"/proc/{name}/stat") as f:
                parents[int(name)] = int(f.read().rsplit(")", 1)[1].split()[1])
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        new = [child for child, parent in parents.items() if parent == one]
        found += new
        todo += new
    return found


def is_program(pid, name):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as f:
        return f.read().strip() == name
    return False


def test_a_runner_killed_at_any_moment_leaves_nothing(site):
    rng, group = random.Random(7), f"walls-kill-{os.getpid()}-"
    for i in range(CASES):
        token = f"86400.{os.getpid()}{i:04d}"
        p = site.start("/bin/sleep", token, options=["--id", f"{group}{i}"])
        end = time.monotonic() + rng.random() * 0.014  # a start takes about 8 ms
        while time.monotonic() < end:
            pass
        p.kill()
        p.communicate()
        wait_until(lambda: not processes_with(token), f"kill {i}: a process was left")
        if site.road == "drop":
            subprocess.run([*site.command(options=["--remove-cgroup", "--id", f"{group}{i}"])], check=True)
    assert site.dir not in open("/proc/self/mountinfo").read()
    assert not [d for d, _, _ in os.walk("/sys/fs/cgroup") if group in d]
    status, out, err = site.run("/bin/sh", "-c", "echo free > proof; cat proof")  # the upper layer is not held
    assert (status, out) == (0, "free\n"), err


@pytest.mark.parametrize("signal", ["TERM", "INT"])
def test_a_signal_to_the_agent_is_the_agents_to_answer(site, signal):
    p = site.start("/bin/sh", "-c", f"trap 'echo caught; exit 5' {signal}; echo ready; while :; do sleep 1000 & wait; done")
    assert p.stdout.readline() == b"ready\n"
    p.send_signal({"TERM": 15, "INT": 2}[signal])
    out, err = p.communicate(timeout=DEADLINE)
    assert (p.returncode, out) == (5, b"caught\n"), err


@pytest.mark.skipif(not ROOT, reason="only root can pass /root")
def test_what_lies_below_a_root_only_directory_can_be_exposed():
    site = Site("root")
    secret = tempfile.mkdtemp(prefix="sbrootonly")  # 0700 and root's
    try:
        shutil.copy(site.path("bin", "signalbox-init"), os.path.join(secret, "signalbox-init"))
        status, _, err = site.run("/bin/true", init=os.path.join(secret, "signalbox-init"))
        assert status == 126 and "Permission denied" in err
        at = site.path("exposed", "signalbox-init")
        status, out, err = site.run("/bin/echo", "reached", init=at, options=["--expose", f"{os.path.join(secret, 'signalbox-init')}:{at}"])
        assert (status, out) == (0, "reached\n"), err
        assert os.path.getsize(at) == 0  # the mount was seen by nobody else
        assert at not in open("/proc/self/mountinfo").read()
    finally:
        shutil.rmtree(secret)
        site.remove()


class Gateway:
    """A unix server that treats each connection with `serve(connection)` in a thread of its own."""

    def __init__(self, site, serve):
        self.path = site.path("gateway", "model.sock")
        self.serve = serve
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path + ".new")
        os.chmod(self.path + ".new", 0o666)
        self.listener.listen(256)
        os.rename(self.path + ".new", self.path)  # as the real one: who dials meanwhile must not meet a socket that is not his to open
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.one, args=(connection,), daemon=True).start()

    def one(self, connection):
        with connection, contextlib.suppress(OSError):
            self.serve(connection)

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


def echo(connection):
    while data := connection.recv(65536):
        connection.sendall(data)


def run_python(site, program, options=()):
    return site.run("/usr/bin/python3", "-c", program, options=["--gateway", site.path("gateway"), "--port", "8123", *options])


def test_a_hundred_connections_are_forwarded_at_once_and_a_stalled_one_holds_up_nobody(site):
    gateway = Gateway(site, echo)
    status, out, err = run_python(site, """
import hashlib, os, socket, threading
def one(n, results):
    s = socket.create_connection(("127.0.0.1", 8123))
    data = os.urandom(n)
    threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR))).start()
    got = b""
    while part := s.recv(65536):
        got += part
    results.append(got == data)
stalled = [socket.create_connection(("127.0.0.1", 8123)) for _ in range(20)]
for s in stalled:
    s.settimeout(0.2)
    try:
        while True: s.send(b"x" * 65536)   # never read: fills every buffer on the way
    except TimeoutError:
        pass
results = []
threads = [threading.Thread(target=one, args=(n, results)) for n in [0, 1, 100, 70000, 3000000] * 20]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(results), all(results))
""")
    gateway.close()
    assert (status, out) == (0, "100 True\n"), err


def test_more_connections_than_there_are_places_wait_and_are_served(site):
    gateway = Gateway(site, echo)
    status, out, err = run_python(site, """
import socket
first = [socket.create_connection(("127.0.0.1", 8123)) for _ in range(128)]
for s in first: s.sendall(b"a"); assert s.recv(1) == b"a"
late = socket.create_connection(("127.0.0.1", 8123)); late.sendall(b"b"); late.settimeout(0.2)
try: print(late.recv(1))
except TimeoutError: print("waits")
first[0].close()
late.settimeout(100); print(late.recv(1).decode())
""")
    gateway.close()
    assert (status, out) == (0, "waits\nb\n"), err


def test_a_gateway_that_comes_late_costs_a_wait_and_no_error(site):
    program = 'import socket,sys; s=socket.create_connection(("127.0.0.1",8123)); print("dialled", flush=True); s.sendall(b"hi"); s.shutdown(1); print(s.recv(9))'
    p = site.start("/usr/bin/python3", "-c", program, options=["--gateway", site.path("gateway"), "--port", "8123"])
    assert p.stdout.readline() == b"dialled\n"
    gateway = Gateway(site, echo)
    out, err = p.communicate(timeout=DEADLINE)
    gateway.close()
    assert out == b"b'hi'\n", err


def test_a_gateway_that_breaks_off_is_seen_by_the_agent(site):
    def cut(connection):
        connection.recv(100)
        connection.sendall(b"half")

    gateway = Gateway(site, cut)
    status, out, err = run_python(site, """
import socket
s = socket.create_connection(("127.0.0.1", 8123)); s.sendall(b"ask")
print(s.recv(100), s.recv(100))
""")
    gateway.close()
    assert (status, out) == (0, "b'half' b''\n"), err


def test_a_slow_reader_costs_no_processor_time(site):
    done = threading.Event()

    def flood(connection):
        connection.recv(1)
        connection.sendall(b"y" * 4_000_000)
        done.set()

    gateway = Gateway(site, flood)
    p = site.start("/usr/bin/python3", "-c", """
import socket, sys
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096); s.connect(("127.0.0.1", 8123)); s.sendall(b"?")
s.recv(1); print("stalled", flush=True)
ticks = lambda: sum(map(int, open("/proc/1/stat").read().rsplit(")", 1)[1].split()[11:13]))
before = ticks()
import time; time.sleep(0.5)
print(ticks() - before)
""", options=["--gateway", site.path("gateway"), "--port", "8123"])
    out, err = p.communicate(timeout=DEADLINE)
    gateway.close()
    stalled, used = out.decode().split()
    assert stalled == "stalled", err
    assert int(used) <= 10, "signalbox-init spins"  # of 50 ticks
