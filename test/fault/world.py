"""What the lab strikes at and what it sees with its own eyes: processes by /proc, and grounds, on which rounds are played.

A ground is a site of the end-to-end tests that is used for many rounds.  It remembers how its server was started, so that whoever
kills it starts it again the same way, and which submits were acknowledged."""
import contextlib
import fcntl
import http.client
import json
import os
import pathlib
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from e2e_site import IS_ROOT, TERMINAL, Site, is_alive, proc_text, processes, wait_for  # noqa: E402,F401

FAKETIME = next((p for p in map(pathlib.Path, ("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1")) if p.exists()), None)
RUNNER = re.compile(rb"signalbox-runner\0(.*/tasks/([0-9A-Za-z]+)/agents/[^/]+/runs/(\d+))\0")
TICKS = os.sysconf("SC_CLK_TCK")
HEARTBEAT_S = 5  # the shortest heartbeat_timeout that the server takes
SETTLE_S = 300  # a round's tasks have ended by then, or never will: all attempts of all of them, on a machine with a load of 50 and more; slowness is no finding here

SCENARIO = """
  - match: "[scenario numbered]"
    steps:
      - say: "I count."
      - shell: "echo start >> /home/agent/begun; for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.03; done"
      - delay: 200ms
      - say: "I count on."
      - shell: "for i in 9 10 11 12; do echo line $i; sleep 0.03; done; echo made > made.txt"
      - expect: "line 12"
      - final: "I have counted."
  - match: "[scenario gated]"
    steps:
      - shell: "echo first >> made.txt"
      - shell: "echo second >> made.txt"
      - final: "Both were decided."
  - match: "[scenario broken-off-once]"
    steps:
      - cut: {times: 1}
      - final: "The second try holds."
  - match: "[scenario ill-twice]"
    steps:
      - error: {status: 500, times: 2}
      - final: "It works at the third try."
"""


class Violation(Exception):
    """An invariant does not hold."""


def let_pass(seconds):
    if seconds > 0:
        select.select([], [], [], seconds)


def uptime_ticks():
    return time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS


class Proc:
    """One process as it was when looked at."""
    __slots__ = ("pid", "start", "parent", "state", "cmdline", "task", "run", "at")

    def __init__(self, pid, start, parent, state):
        self.pid, self.start, self.parent, self.state = pid, start, parent, state
        self.cmdline = proc_text(pid, "cmdline")
        found = RUNNER.search(self.cmdline)
        self.run = (found[2].decode(), int(found[3])) if found else None
        self.task = None
        if not found:
            for word in proc_text(pid, "environ").split(b"\0"):
                if word.startswith(b"TASK_ID="):
                    self.task = word[8:].decode(errors="replace")
        self.at = uptime_ticks()


class Eyes:
    """A look at all processes; what a process is, is remembered, but looked at again while it is young (it may exec)."""

    def __init__(self):
        self.known = {}

    def look(self):
        seen = {}
        for pid in processes():
            stat = proc_text(pid, "stat").rsplit(b")", 1)[-1].split()
            if len(stat) < 20:
                continue
            start, key = int(stat[19]), (pid, int(stat[19]))
            old = self.known.get(key)
            if old and old.at - start > 2 * TICKS:
                old.state, old.parent = stat[0], int(stat[1])
                seen[pid] = old
            else:
                seen[pid] = Proc(pid, start, int(stat[1]), stat[0])
        self.known = {(p.pid, p.start): p for p in seen.values()}
        return {pid: p for pid, p in seen.items() if p.state not in (b"Z", b"X")}


def run_of(procs, p):
    """(task, n) that a process belongs to, by the runner above it; (task, None) when that is gone."""
    at, steps = p, 0
    while at and steps < 64:
        if at.run:
            return at.run
        at, steps = procs.get(at.parent), steps + 1
    return (p.task, None) if p.task else None


def below(procs, pid):
    out, todo = [], [pid]
    while todo:
        at = todo.pop()
        kids = [p for p in procs.values() if p.parent == at]
        out += kids
        todo += [p.pid for p in kids]
    return out


class LabSite(Site):
    """A site that knows its processes by their words and their environment alone: a ground may be a mount that every process sees."""

    def ours(self):
        needle, tasks, found = str(self.dir).encode(), {t.encode() for t in self.tasks}, []
        for pid in processes():
            if pid == os.getpid() or not is_alive(pid):
                continue
            environ = proc_text(pid, "environ")
            mine = any(w.startswith(b"TASK_ID=") and w[8:] in tasks for w in environ.split(b"\0"))
            if mine or needle in environ or needle in proc_text(pid, "cmdline"):
                found.append(pid)
        return found


class Ground:
    def __init__(self, kind, road="root"):
        self.kind, self.road = kind, road
        self.env, self.tmpfs, self.away = None, False, True
        self.acked, self.lock = [], threading.Lock()
        limits = {"running": 16, "running_per_repository": 16, "heartbeat_timeout": HEARTBEAT_S}
        self.site = LabSite(road, config={"limits": limits}, scenarios=SCENARIO, model=kind != "refused", start=False)
        try:
            if kind == "disk":
                self.mount()
            if kind == "clock":
                self.clock_file = self.site.dir / "clock"
                self.set_clock("+0")
                self.env = self.site.environment(LD_PRELOAD=str(FAKETIME), FAKETIME_TIMESTAMP_FILE=str(self.clock_file), FAKETIME_DONT_FAKE_MONOTONIC="1",
                                                 FAKETIME_NO_CACHE="1")
            self.repo = self.site.path("repo")
            self.site.sh("for i in $(seq 30); do echo $i > f$i; done; git init -qb main; git add -A; git commit -qm first", self.repo)
            self.start()
        except BaseException:
            self.close()
            raise

    # --- its conditions

    def mount(self):
        self.site.data.mkdir(mode=0o711, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=0711", "tmpfs", str(self.site.data)], check=True)
        self.tmpfs = True

    def set_clock(self, offset):
        new = self.clock_file.with_suffix(".new")
        new.write_text(offset + "\n")
        new.chmod(0o644)
        new.rename(self.clock_file)

    @property
    def scripted(self):
        return self.kind != "refused"

    # --- its server

    def start(self):
        self.site.start_server(env=self.env)
        self.away = False

    def kill_server(self):
        self.away = True
        self.site.kill_server()

    def restart(self, pause=0):
        self.kill_server()
        let_pass(pause)
        self.start()

    def stop_gently(self):
        self.away = True
        self.site.stop_server()

    def ensure_up(self):
        """The server runs; that it ended without our doing is a violation."""
        if self.away:
            if self.site.server.poll() is None:
                self.site.kill_server()
            self.start()
        elif self.site.server.poll() is not None:
            status = self.site.server.returncode
            self.start()
            raise Violation(f"the server ended by itself with status {status}: {self.site.log('server')[-2000:]}")

    # --- its tasks

    def try_call(self, method, path, body=None, timeout=120):
        """Status and body; (0, None) when there was no answer, which is no acknowledgement."""
        try:
            return self.site.call(method, path, body, timeout=timeout)
        except (OSError, http.client.HTTPException):
            return 0, None

    def submit(self, prompt, agent="command", source=None, **more):
        """The id of an acknowledged task, or None."""
        doc = {"prompt": prompt, "agent": agent, "source": source or {"kind": "none"}, **more}
        status, task = self.try_call("POST", "/v1/tasks", doc)
        if status != 201:
            return None
        with self.lock:
            self.acked.append(task["id"])
            self.site.tasks.add(task["id"])
        return task["id"]

    def run_dir(self, task, n=1):
        return self.site.run_dir(task, n)

    def text(self, path):
        with contextlib.suppress(OSError):
            return path.read_text(errors="replace")
        return ""

    def asked(self, mark):
        """How often the scripted model was asked with that mark in the request."""
        return sum(mark in self.text(p) for p in self.site.bodies.glob("[!.]*")) if self.scripted else 0

    # --- what of it can be struck

    def runner_pid(self, task, n=1):
        with contextlib.suppress(OSError, ValueError):
            doc = json.loads((self.run_dir(task, n) / "runner.json").read_text())
            stat = proc_text(doc["pid"], "stat").rsplit(b")", 1)[-1].split()
            if len(stat) > 19 and int(stat[19]) == doc["start_ticks"] and stat[0] not in (b"Z", b"X"):
                return doc["pid"]
        return None

    def targets(self, task, what, n=1):
        """Pids of a part of a run: runner stage bwrap init agent fetch; or server, gateway."""
        if what == "server":
            return [self.site.server.pid]
        if what == "gateway":
            return [p for p in [self.site.gateway_pid()] if p]
        runner = self.runner_pid(task, n)
        if not runner:
            return []
        if what == "runner":
            return [runner]
        found = below(Eyes().look(), runner)

        def kind(p):
            if p.run:
                return "stage"
            name = os.path.basename(p.cmdline.split(b"\0")[0]).decode(errors="replace")
            if name in ("bwrap", "signalbox-init"):
                return name.removeprefix("signalbox-")
            return "fetch" if b"\0fetch\0" in p.cmdline else "agent" if p.task else "other"
        return [p.pid for p in found if kind(p) == what]

    def strike(self, pids, sig):
        hit = 0
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                assert pid > 1
                if pid == self.site.server.pid and sig == signal.SIGKILL:
                    self.away = True
                os.kill(pid, sig)
                hit += 1
        return hit

    def limit_files(self, more):
        """Leaves the server that many descriptors more than it has; None: as before."""
        pid = self.site.server.pid
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # the server has it from us
        now = max((int(n) for n in os.listdir(f"/proc/{pid}/fd")), default=0)
        soft = hard if more is None else now + 1 + more
        subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={soft}:{hard}"], check=True, **self.site.identity())

    # --- what is left of runs

    def cgroups(self):
        tasks = set(self.site.tasks)
        out = []
        for top, dirs, _ in os.walk("/sys/fs/cgroup"):
            base = os.path.basename(top)
            if not base.startswith("signalbox-"):
                continue
            out += [os.path.join(top, d) for d in dirs if d.split(".")[0] in tasks]
            dirs.clear()
        return out

    def left(self, tasks):
        """Of ended tasks: processes, mounts, cgroups, locks."""
        procs = Eyes().look()
        out = []
        for p in procs.values():
            of = run_of(procs, p)
            if of and of[0] in tasks:
                out.append(f"process {p.pid} of {of}: {p.cmdline!r}")
        for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
            if str(self.site.dir) in line and not (self.tmpfs and line.split()[4] == str(self.site.data)):
                out.append(f"mount {line}")
        out += [f"cgroup {c}" for c in self.cgroups() if os.path.basename(c).split(".")[0] in tasks]
        for task in tasks:
            for path in list((self.site.directory(task) / "agents/main").glob("runs/*/lock")) + [self.site.directory(task) / "agents/main/state.lock"]:
                with contextlib.suppress(FileNotFoundError), open(path, "r+b") as f:
                    try:
                        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except OSError:
                        out.append(f"lock {path}")
        return out

    def close(self):
        """Ends everything of the ground; gives what should not have been there."""
        for pid in self.site.ours():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        problems = self.site.destroy()
        if self.tmpfs:
            subprocess.run(["umount", "-l", str(self.site.data)], capture_output=True)
            shutil.rmtree(self.site.dir, ignore_errors=True)
            problems = [p for p in problems if "removed" not in p]
        return problems
