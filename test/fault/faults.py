"""The faults: each is a function that submits work, strikes, and says what must come of it.  What holds always is checked by check.py."""
import contextlib
import signal
import socket
import threading
import time

import agents
from check import Expect
from gate_faults import gate_struck, gate_while_the_clock_jumps
from world import HEARTBEAT_S, TERMINAL, IS_ROOT, FAKETIME, let_pass

KILL, STOP, CONT = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT
HOUSE = {"house_attempts": 6, "initial_ms": 30, "cap_ms": 200}  # what is ours to bear is tried again
BOTH = dict(HOUSE, attempts=4)
STEP_S = 20
BOUNDED_S = 60  # for what ends by limits of seconds: far more than they are, and far less than never
SERVED_S = 10  # more than a call needed before: less than the 20 s after which a reader is let go, for which a server that waits for one would wait
HANG_STALL_MS = 15000  # longer than an agent needs for its first word on a busy machine
STEPS = ("claimed", "fetching", "preparing", "setup", "running", "collecting", "verify", "result", "saving")
PHASES = ("fetching", "preparing", "setup", "running", "collecting")
INSIDE = ("stage", "bwrap", "init", "agent")


class Round:
    def __init__(self, ground, observer, rng):
        self.ground, self.observer, self.rng = ground, observer, rng
        self.tasks, self.refused, self.notes = {}, 0, []

    def note(self, text):
        self.notes.append(str(text))

    def submit(self, prompt, want=None, **more):
        id = self.ground.submit(prompt, **more)
        if id:
            self.observer.watch(id)
            self.tasks[id] = want or Expect()
        else:
            self.refused += 1
        return id

    def counting(self, want=None, lines=60, **more):
        """A task that takes every step and some tenths of a second."""
        more.setdefault("retry", HOUSE)
        if self.rng.random() < 0.5:
            more.setdefault("source", {"kind": "local", "dir": str(self.ground.repo)})
        return self.submit(agents.numbered(lines, pause=round(self.rng.uniform(0.01, 0.05), 3)), want or Expect(lines=lines, status="DONE"), **more)

    def stepped(self, want=None, lines=40, **more):
        """The same with a setup and a check that take long enough to be struck."""
        return self.counting(want, lines, setup="sleep 0.06; echo prepared", verify="sleep 0.06; test -f made.txt", **more)

    def codex(self, scenario, want, **more):
        want.mark = f"{self.rng.getrandbits(64):016x}"
        return self.submit(f"[scenario {scenario}] do it {want.mark}", want, **{"agent": "codex-exec", **more})

    def moment(self, longest):
        let_pass(self.rng.uniform(0, longest))

    def saw(self, task, step, n=1):
        run = self.ground.run_dir(task, n)
        if step == "claimed":
            return (run / "runtime").exists()
        if step == "saving":
            return (run.parents[1] / "workspace/layer.tar.new").exists() or (run.parents[1] / "workspace/base.json").exists()
        mark = {"verify": '"id":"verify"', "result": '"type":"run.result"'}.get(step, f'"to":"{step}"')
        return mark in self.ground.text(run / "spool.jsonl")

    def wait_step(self, task, step, n=1):
        until = time.monotonic() + STEP_S
        while not self.saw(task, step, n):
            if time.monotonic() > until:
                self.note(f"never saw {step}")
                return False
            let_pass(0.0004)
        return True

    def wait_target(self, task, what, n=1):
        until = time.monotonic() + STEP_S
        while not (found := self.ground.targets(task, what, n)):
            if time.monotonic() > until or self.over(task):
                return []
        return found

    def over(self, task):
        status, doc = self.ground.try_call("GET", f"/v1/tasks/{task}")
        return status == 200 and doc["status"] in TERMINAL

    def pick_step(self, steps=STEPS):
        step = self.rng.choice(steps)
        self.note(step)
        return step


# --- the server

def server_killed(r):
    ids = [r.counting(Expect(lines=60, status="DONE", runs=1)) for _ in range(r.rng.randint(1, 3))]
    for _ in range(r.rng.randint(1, 3)):
        r.moment(0.5)
        r.ground.restart(r.rng.choice((0, 0, 0.1)))
    return ids


def server_killed_at_step(r):
    id = r.stepped(Expect(lines=40, status="DONE", runs=1))
    if r.wait_step(id, r.pick_step()):
        r.moment(r.rng.choice((0, 0.003, 0.02)))
        r.ground.restart(r.rng.choice((0, 0, 0.3)))


def server_killed_while_submitting(r):
    stop = threading.Event()

    def submit():
        for _ in range(40):
            if not r.submit("echo line 1", Expect(lines=1, status="DONE", runs=1), retry=HOUSE):
                let_pass(0.01)
            if stop.is_set():
                return
    threads = [threading.Thread(target=submit) for _ in range(4)]
    for t in threads:
        t.start()
    for _ in range(2):
        r.moment(0.3)
        r.ground.restart()
    r.moment(0.1)
    stop.set()
    for t in threads:
        t.join()
    r.note(f"{len(r.tasks)} acknowledged")


def server_stopped(r):
    for _ in range(2):
        r.counting(Expect(lines=60, status="DONE", runs=1))
    for _ in range(2):
        r.moment(0.3)
        freeze(r, [r.ground.site.server.pid], r.rng.uniform(0.05, 1.0))


def server_frozen(r):
    """Longer than the heartbeat timeout: what it did not hear while it was frozen is nobody's silence."""
    r.submit(agents.numbered(60, every=1, pause=0.12), Expect(lines=60, status="DONE", runs=1), retry=HOUSE)
    r.moment(0.5)
    freeze(r, [r.ground.site.server.pid], HEARTBEAT_S + r.rng.uniform(0.5, 1.5))


def server_away(r):
    """The runs end while it is away; what they have to say is read from disk."""
    for _ in range(3):
        r.counting(Expect(lines=60, status="DONE", runs=1))
    r.moment(0.4)
    r.ground.kill_server()
    let_pass(r.rng.uniform(1, 4))
    r.ground.start()


def server_drained(r):
    for _ in range(6):
        r.counting(Expect(lines=60, status="DONE", runs=1))
    r.moment(0.3)
    r.ground.stop_gently()
    r.moment(0.5)
    r.ground.start()


def freeze(r, pids, seconds):
    server = r.ground.site.server.pid in pids
    r.observer.paused = r.observer.paused or server
    r.ground.strike(pids, STOP)
    try:
        let_pass(seconds)
    finally:
        r.ground.strike(pids, CONT)
        r.observer.paused = False


# --- the runner

def runner_killed(r):
    id = r.counting()
    for n in range(1, r.rng.randint(1, 3) + 1):
        r.moment(0.3)
        r.ground.strike(r.ground.targets(id, "runner", n), KILL)


def runner_killed_at_step(r):
    id = r.stepped()
    step = r.pick_step()
    if r.wait_step(id, step):
        r.moment(r.rng.choice((0, 0, 0.002, 0.01)))
        r.ground.strike(r.ground.targets(id, "runner"), KILL)


def runner_stopped(r):
    id = r.counting(Expect(lines=60, status="DONE", runs=1))
    for _ in range(2):
        r.moment(0.3)
        freeze(r, r.ground.targets(id, "runner"), r.rng.uniform(0.02, 1.5))


def runner_frozen(r):
    """Stopped for good, or continued about when it is given up: nobody enters its workspace before it is dead."""
    id = r.counting()
    if r.wait_step(id, r.pick_step(("running", "collecting"))):
        pids = r.ground.targets(id, "runner")
        r.ground.strike(pids, STOP)
        if r.rng.random() < 0.7:
            let_pass(HEARTBEAT_S + r.rng.uniform(-0.7, 1.2))
            r.ground.strike(pids, CONT)
            r.note("continued")


# --- what is inside the walls

def inside_killed(r):
    want = Expect(lines=40, status="DONE|ERROR", reason="agent_exited|sandbox_failed|workspace_failed|diff_failed|verify_failed|setup_failed|agent_start_failed|source_failed")
    id = r.stepped(want, retry=BOTH)
    what = r.rng.choice(INSIDE + ("fetch",))
    r.note(what)
    if r.wait_step(id, r.rng.choice(("setup", "running", "collecting")) if what != "fetch" else "fetching"):
        r.moment(0.05)
        r.ground.strike(r.wait_target(id, what), KILL)


def inside_stopped(r):
    id = r.stepped(Expect(lines=40, status="DONE", runs=1))
    what = r.rng.choice(INSIDE)
    r.note(what)
    r.wait_step(id, r.rng.choice(("setup", "running")))
    r.moment(0.1)
    freeze(r, r.wait_target(id, what), r.rng.uniform(0.05, 0.8))


def agent_frozen(r):
    """A silent agent is told from a working one, ended at its limit, and its tree with it."""
    id = r.submit(agents.family(400), Expect(status="TIMEOUT", reason="stall_timeout", within_s=BOUNDED_S), stall_timeout_ms=1500)
    r.wait_step(id, "running")
    r.moment(0.3)
    r.ground.strike(r.wait_target(id, "agent"), STOP)


def stage_stopped_runner_killed(r):
    """The one that would end the tree cannot; somebody must."""
    id = r.submit(agents.family(60), Expect(lines=60, status="DONE"), retry=HOUSE)
    r.wait_step(id, "running")
    stage = r.wait_target(id, "stage")
    r.ground.strike(stage, STOP)
    r.moment(0.1)
    r.ground.strike(r.ground.targets(id, "runner"), KILL)


def everything_killed(r):
    id = r.stepped(Expect(lines=40, status="DONE|ERROR"), retry=BOTH)
    if r.wait_step(id, r.pick_step()):
        r.moment(r.rng.choice((0, 0.005)))
        order = ["server", "runner", "init", "agent", "gateway", "stage"]
        r.rng.shuffle(order)
        pids = [p for what in order for p in r.ground.targets(id, what)]
        r.ground.strike(pids, KILL)
        r.ground.away = True
        let_pass(r.rng.choice((0, 0, 1)))
    r.ground.ensure_up()


# --- what agents do by themselves

def wild_agents(r):
    """Each harms only itself: the neighbour's run goes on."""
    wild = {
        "flood": (agents.flood(40000), Expect(lines=40000, status="DONE"), {}),
        "flood over the limit": (agents.flood(60000), Expect(lines=60000, status="DONE", prefix=True), {"limits": {"output": 65536}}),
        "family": (agents.family(), Expect(lines=40, status="DONE"), {}),
        "memory": (agents.MEMORY, Expect(status="ERROR", reason="out_of_memory|agent_exited"), {"limits": {"memory": "64M"}}),
        "forks": (agents.FORKS, Expect(status="DONE|ERROR"), {"limits": {"pids": 40}}),
        "file size": (agents.DISK, Expect(status="DONE|ERROR"), {"limits": {"file_size": "1M"}}),
        "stubborn": (agents.stubborn(), Expect(status="TIMEOUT", reason="run_timeout"), {"timeout_ms": 1200}),
    }
    if r.ground.road != "root":
        del wild["memory"]  # without a cgroup nothing limits it: that task would harm the machine
    r.counting(Expect(lines=60, status="DONE", runs=1))
    for name in r.rng.sample(sorted(wild), 2):
        prompt, want, more = wild[name]
        r.note(name)
        r.submit(prompt, want, **more)


def cancel_races(r):
    """Finish, cancel, time-out and restart meet: one of them wins."""
    ids = []
    for _ in range(6):
        more = {"timeout_ms": 1000} if r.rng.random() < 0.5 else {}
        prompt = r.rng.choice((agents.numbered(30, every=1, pause=0.025), agents.stubborn(), agents.numbered(5, every=1, pause=0.01)))
        ids.append(r.submit(prompt, Expect(status="DONE|CANCELED|TIMEOUT"), **(more or {"timeout_ms": 4000})))

    def cancel(id, after):
        let_pass(after)
        for _ in range(20):
            status, _ = r.ground.try_call("POST", f"/v1/tasks/{id}/cancel", {})
            if status:
                return
            let_pass(0.05)
    threads = [threading.Thread(target=cancel, args=(id, r.rng.choice((r.rng.uniform(0, 0.1), r.rng.uniform(0.8, 1.1))))) for id in ids if r.rng.random() < 0.8]
    for t in threads:
        t.start()
    if r.rng.random() < 0.5:
        r.moment(1.0)
        r.ground.restart()
    for t in threads:
        t.join()


def cancel_at_step(r):
    id = r.stepped(Expect(lines=40, status="DONE|CANCELED"))
    if r.wait_step(id, r.pick_step()):
        r.ground.try_call("POST", f"/v1/tasks/{id}/cancel", {})


# --- the ground

def served_within(r):
    """How long somebody who asks little waits for his answer, in seconds; None when he gets none."""
    begun = time.monotonic()
    status, _ = r.ground.try_call("GET", "/version")
    return time.monotonic() - begun if status == 200 else None


def readers_stalled(r):
    id = r.submit(agents.flood(30000), Expect(lines=30000, status="DONE", runs=1))
    r.counting(Expect(lines=60, status="DONE", runs=1))
    readers, before = [], served_within(r)  # what this machine needs now, whatever else it does
    for _ in range(60):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(OSError):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            s.settimeout(5)
            s.connect(str(r.ground.site.runtime / "signalbox.sock"))
            s.sendall(f"GET /v1/tasks/{id}/events?after=0 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode())
        readers.append(s)
    beside = served_within(r)
    if before is None or beside is None or beside > before + SERVED_S:
        r.observer.lie(f"with 60 stalled readers nobody else is served: {beside} s (None: never) after {before} s without them")
    while not r.over(id):
        let_pass(0.05)
    for s in readers:
        s.close()


def descriptors_gone(r):
    r.counting(Expect(lines=60, status="DONE"))
    r.ground.limit_files(r.rng.choice((0, 1, 3, 6)))
    try:
        for _ in range(4):
            r.submit(agents.numbered(10), Expect(lines=10, status="DONE"), retry=HOUSE)
        let_pass(r.rng.uniform(0.1, 0.8))
    finally:
        r.ground.limit_files(None)
    r.note(f"{r.refused} refused")
    r.counting(Expect(lines=60, status="DONE"))


def disk_full(r):
    """Nothing is acknowledged that is not there; when there is room again all goes on."""
    filler = r.ground.site.data / "filler"
    r.counting(Expect(lines=60, status="DONE|ERROR"))
    r.moment(0.3)
    r.observer.paused = True
    try:
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as f:
            while f.write(b"\0" * 65536):
                pass
        for _ in range(3):
            r.submit(agents.numbered(10), Expect(lines=10, status="DONE|ERROR"), retry=HOUSE)
        let_pass(r.rng.uniform(0.2, 1.5))
        if r.rng.random() < 0.3:
            r.note("server killed")
            r.ground.kill_server()
    finally:
        filler.unlink(missing_ok=True)
        r.observer.paused = False
    r.ground.ensure_up()
    r.note(f"{r.refused} refused")
    r.counting(Expect(lines=60, status="DONE"))


def clock_jumps(r):
    for _ in range(2):
        r.counting(Expect(lines=60, status="DONE", runs=1), timeout_ms=30000, stall_timeout_ms=20000)
    late = r.submit("sleep 30", Expect(status="TIMEOUT", reason="run_timeout"), timeout_ms=1500)
    begun = time.monotonic()
    for _ in range(2):
        r.moment(0.6)
        offset = r.rng.choice(("+1d", "-1d", "+0", "+1h", "-1h"))
        r.note(offset)
        r.ground.set_clock(offset)
    r.counting(Expect(lines=60, status="DONE", runs=1))
    while not r.over(late) and time.monotonic() - begun < BOUNDED_S:
        let_pass(0.05)
    if not 1.4 <= time.monotonic() - begun < BOUNDED_S:
        r.observer.lie(f"a limit of 1.5 s held for {time.monotonic() - begun:.1f} s while the clock jumped")


# --- the model, with the real Codex

def codex_struck(r):
    """A real agent whose server, gateway or runner is struck goes on, or resumes its session."""
    what = r.rng.choice(("server", "gateway", "runner", "gateway stopped"))
    r.note(what)
    id = r.codex("numbered", Expect(status="DONE"), retry=BOTH)
    r.wait_step(id, "running")
    r.moment(1.2)
    if what == "server":
        r.ground.restart()
    elif what == "gateway stopped":
        freeze(r, r.ground.targets(id, "gateway"), r.rng.uniform(0.1, 1.5))
    else:
        r.ground.strike(r.ground.targets(id, what), KILL)


MODEL = {  # scenario: status, reason, what the error must say, and in which time
    "error-500": ("ERROR", "agent_failed", "500", 60),
    "error-429": ("ERROR", "agent_failed", "429", 60),
    "error-400": ("ERROR", "agent_failed", "not acceptable|400", 60),
    "error-401": ("ERROR", "agent_failed", "401|wrong key", 60),
    "usage-limit": ("ERROR", "agent_failed", "plan is used up|429|usage limit", 60),
    "cut": ("ERROR", "agent_failed", ".", 60),
    "garbage": ("ERROR", "agent_failed", ".", 60),
    "hang": ("TIMEOUT", "stall_timeout", "silent", 60),
    "hang-after-headers": ("TIMEOUT", "stall_timeout", "silent", 60),
    "ill-twice": ("DONE", None, None, 60),
    "broken-off-once": ("DONE", None, None, 60),
}


def model_fails(r):
    name = r.rng.choice(sorted(MODEL))
    status, reason, error, within = MODEL[name]
    r.note(name)
    id = r.codex(name, Expect(status=status, reason=reason, error=error, within_s=within), stall_timeout_ms=HANG_STALL_MS if "hang" in name else 60000)
    if name == "hang":
        until = time.monotonic() + BOUNDED_S
        while time.monotonic() < until and not r.over(id):
            doc = r.observer.read_state(id)
            if doc and doc[1].get("heartbeat", {}).get("cause") == "waiting on model":
                r.note("waiting on model")
                return
            let_pass(0.02)
        r.observer.lie(f"{id}: the heartbeat never said 'waiting on model' of a model that never answers")


def model_refused(r):
    r.codex("numbered", Expect(status="ERROR", reason="agent_failed", error=".", within_s=60), stall_timeout_ms=60000)


# name: (function, weight, ground, what it takes)
FAULTS = {
    "server killed": (server_killed, 10, "plain"),
    "server killed at a step": (server_killed_at_step, 16, "plain"),
    "server killed during submits": (server_killed_while_submitting, 5, "plain"),
    "server stopped, continued": (server_stopped, 5, "plain"),
    "server frozen past the heartbeat": (server_frozen, 2, "plain"),
    "server away while runs end": (server_away, 5, "plain"),
    "server drained under load": (server_drained, 5, "plain"),
    "runner killed": (runner_killed, 10, "plain"),
    "runner killed at a step": (runner_killed_at_step, 16, "plain"),
    "runner stopped, continued": (runner_stopped, 6, "plain"),
    "runner frozen past the heartbeat": (runner_frozen, 3, "plain"),
    "inside killed": (inside_killed, 8, "plain"),
    "inside stopped, continued": (inside_stopped, 5, "plain"),
    "agent frozen": (agent_frozen, 4, "plain"),
    "stage stopped, runner killed": (stage_stopped_runner_killed, 3, "plain"),
    "everything killed at a step": (everything_killed, 10, "plain"),
    "wild agents": (wild_agents, 10, "plain"),
    "cancel, finish, time-out race": (cancel_races, 8, "plain"),
    "cancel at a step": (cancel_at_step, 8, "plain"),
    "readers stalled": (readers_stalled, 3, "plain"),
    "descriptors taken": (descriptors_gone, 4, "plain"),
    "disk full": (disk_full, 4, "disk"),
    "clock jumps": (clock_jumps, 5, "clock"),
    "codex struck": (codex_struck, 5, "plain"),
    "gate and codex struck": (gate_struck, 8, "plain"),
    "codex at a gate, clock jumps": (gate_while_the_clock_jumps, 4, "clock"),
    "model fails codex": (model_fails, 5, "plain"),
    "model refuses connections": (model_refused, 1, "refused"),
}


def is_possible(name, codex):
    kind = FAULTS[name][2]
    if kind == "disk" and not IS_ROOT:
        return False
    if kind == "clock" and not FAKETIME:
        return False
    return codex or not ("codex" in name or kind == "refused")
