"""Faults around a gate: server, runner, agent or all of them are killed while a person has not answered, and between the answer and its delivery.

What must hold: every gate is settled once, by one decision; every decision reaches the agent under its own id; what was refused is not done;
what was approved is done; the task ends DONE."""
import json
import signal
import threading
import time

from check import Expect, events_of
from world import TERMINAL, Violation, let_pass

GATE_STEP_S = 120  # a real Codex starts for it, after blows several times, on a machine with a load of 50 and more: what is looked for never ends, and is not slow
LIVES = 3  # blows of one round
SETTLED = ("gate.approved", "gate.rejected", "gate.answered", "gate.expired", "gate.canceled")
VICTIMS = ("server", "runner", "agent", "all")


def _open(r, task, seen):
    """The open gate of the task, or None when it is over or none opens."""
    until = time.monotonic() + GATE_STEP_S
    while time.monotonic() < until:
        status, page = r.ground.try_call("GET", f"/v1/gates?state=blocked&task={task}")
        if status == 200 and page["data"]:
            seen.update({g["id"]: g for g in page["data"]})
            return page["data"][0]
        status, doc = r.ground.try_call("GET", f"/v1/tasks/{task}")
        if status == 200 and doc["status"] in TERMINAL:
            return None
        if status == 0:
            r.ground.ensure_up()
        let_pass(0.02)
    raise Violation(f"{task}: no gate opened within {GATE_STEP_S} s, and it did not end")


def _newest_run(r, task):
    status, doc = r.ground.try_call("GET", f"/v1/tasks/{task}")
    return doc.get("run_n") or 1 if status == 200 else 1


def _strike(r, task, what):
    n = _newest_run(r, task)
    pids = [p for kind in {"all": ("agent", "runner"), "server": ()}.get(what, (what,)) for p in r.ground.targets(task, kind, n)]
    r.note(f"{what}!")
    if what in ("server", "all"):
        r.ground.kill_server()
    r.ground.strike(pids, signal.SIGKILL)
    if what in ("server", "all"):
        let_pass(r.rng.choice((0, 0.2)))


def _by_file(r, task, gate, word):
    inbox = r.ground.site.directory(task) / "inbox"
    new = inbox / f".{gate}.new"
    new.write_text(f"decision: {word}\n")
    new.rename(inbox / f"{gate}.yaml")


def _reply(r, task, gate, word):
    """One decision, by one way or by several at once; an answer that was lost on the way is given again."""
    way = r.rng.choice(("api", "api", "file", "many"))
    r.note(f"{word} by {way}")
    if way == "file":
        _by_file(r, task, gate, word)
        return
    replies = []

    def one(w):
        replies.append((w, r.ground.try_call("POST", f"/v1/gates/{gate}/decision", {"decision": w})[0]))
    words = [word] if way == "api" else [r.rng.choice(("approve", "reject")) for _ in range(8)]
    threads = [threading.Thread(target=one, args=(w,)) for w in words]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    won = {w for w, status in replies if status == 200}
    if len(won) > 1:
        raise Violation(f"{task}: gate {gate} took {sorted(won)}")


def _until_settled(r, gate, task, word):
    until = time.monotonic() + GATE_STEP_S
    while time.monotonic() < until:
        r.ground.ensure_up()
        status, doc = r.ground.try_call("GET", f"/v1/gates/{gate}")
        if status == 200 and doc["state"] != "blocked":
            return
        r.ground.try_call("POST", f"/v1/gates/{gate}/decision", {"decision": word})
        let_pass(0.05)
    raise Violation(f"{task}: gate {gate} could not be settled")


def _check(r, task):
    events = events_of(r.ground, task)
    status, page = r.ground.try_call("GET", f"/v1/gates?task={task}")
    if status != 200:
        raise Violation(f"{task}: its gates cannot be had")
    done = r.ground.site.patch(task).decode()
    for gate in page["data"]:
        settled = [e for e in events if e["type"] in SETTLED and e["data"]["gate"] == gate["id"]]
        given = {e["data"]["decision_id"] for e in events if e["type"] == "gate.delivered" and e["data"]["gate"] == gate["id"]}
        file = json.loads((r.ground.site.directory(task) / "gates" / f"{gate['id']}.decision").read_text())
        if len(settled) != 1 or gate["state"] == "blocked":
            raise Violation(f"{task}: gate {gate['id']} is {gate['state']}, settled {len(settled)} times")
        if given != {gate["decision"]["id"]} or file["id"] != gate["decision"]["id"]:
            raise Violation(f"{task}: gate {gate['id']}: decided {gate['decision']['id']}, file {file['id']}, delivered {sorted(given)}")
        mark = gate["data"]["command"].split()[1]
        if (f"+{mark}" in done) != (gate["state"] == "approved"):
            raise Violation(f"{task}: gate {gate['id']} was {gate['state']}, and '{mark}' {'is' if f'+{mark}' in done else 'is not'} in the diff")
    if not page["data"]:
        raise Violation(f"{task}: no gate was ever opened")


def gate_struck(r):
    want = Expect(status="DONE")
    task = r.codex("gated", want, agent="codex", approvals={"ask": "always"}, retry={"attempts": 8, "house_attempts": 8, "initial_ms": 30, "cap_ms": 200})
    if not task:
        return
    seen, blows = {}, 0
    while True:
        gate = _open(r, task, seen)
        if not gate:
            break
        word = r.rng.choice(("approve", "approve", "reject"))
        if blows < LIVES and r.rng.random() < 0.5:
            _strike(r, task, r.rng.choice(VICTIMS))
            blows += 1
            r.ground.ensure_up() if r.rng.random() < 0.5 else None
        _reply(r, task, gate["id"], word)
        if blows < LIVES and r.rng.random() < 0.6:
            r.moment(0.03)
            _strike(r, task, r.rng.choice(VICTIMS))
            blows += 1
        _until_settled(r, gate["id"], task, word)
    _check(r, task)


def _spec_of(r, task, n):
    path = r.ground.run_dir(task, n) / "spec.json"
    return json.loads(path.read_text()) if path.exists() else None


def _jumps(r, times):
    for _ in range(times):
        offset = r.rng.choice(("+1d", "-1d", "+0", "+1h", "-1h"))
        r.note(offset)
        r.ground.set_clock(offset)
        r.moment(0.4)


def gate_while_the_clock_jumps(r):
    """A deadline is neither early nor late, whoever looks after it: the runner, or the server when that is dead.  And what a task waited for a person is
    what passed, not what the wall clock says: the next attempt has the rest of the task's time."""
    whole_ms, deadline_s = 600_000, 4
    begun = time.monotonic()
    task = r.codex("gated", Expect(status="DONE"), agent="codex", approvals={"ask": "always", "deadline": f"{deadline_s}s", "at_deadline": "reject"},
                   limits={"task_timeout": f"{whole_ms // 1000}s"}, retry={"attempts": 8, "house_attempts": 8, "initial_ms": 30, "cap_ms": 200})
    if not task:
        return
    seen, dead = {}, r.rng.random() < 0.6
    before = asked = time.monotonic()
    while not r.ground.try_call("GET", f"/v1/gates?state=blocked&task={task}")[1]["data"]:
        before, asked = asked, time.monotonic()  # there was none when it was asked then
        if asked - begun > GATE_STEP_S:
            raise Violation(f"{task}: no gate opened within {GATE_STEP_S} s")
    gate = _open(r, task, seen)
    opened = time.monotonic()
    _jumps(r, 1)
    if dead:
        _strike(r, task, "runner")
    _jumps(r, 2)
    while r.ground.try_call("GET", f"/v1/gates/{gate['id']}")[1]["state"] == "blocked":
        if time.monotonic() - opened > deadline_s + GATE_STEP_S:
            raise Violation(f"{task}: a deadline of {deadline_s} s was not kept while the clock jumped")
        let_pass(0.02)
    held = time.monotonic() - before
    if held < deadline_s:
        raise Violation(f"{task}: a deadline of {deadline_s} s held for {held:.1f} s while the clock jumped")
    _jumps(r, 1)
    while dead and not _spec_of(r, task, 2):
        if time.monotonic() - opened > GATE_STEP_S:
            raise Violation(f"{task}: no second run within {GATE_STEP_S} s")
        let_pass(0.02)
    if dead:
        left, lived_ms = _spec_of(r, task, 2)["task_left_ms"], (time.monotonic() - begun) * 1000
        if not whole_ms - lived_ms + (deadline_s - 1) * 1000 <= left <= whole_ms:
            raise Violation(f"{task}: after {lived_ms:.0f} ms, at least {deadline_s - 1} s of them at a gate, {left} of {whole_ms} ms are left")
    while gate := _open(r, task, seen):
        _until_settled(r, gate["id"], task, "approve")
    r.ground.set_clock("+0")
    _check(r, task)
