"""The invariants, looked at from outside after a round: by the API, the files, /proc, and what the agents themselves wrote."""
import contextlib
import http.client
import json
import re
import time

from world import SETTLE_S, TERMINAL, Violation, let_pass

FILE_S = 30  # for the record to follow the database, on a machine with a load of 50; half of the minute between two reconciles, which would mend what was lost unseen
LEFT_S = 1.0  # promise 7
ASKED_MAX = 60  # requests for one task of ours, all retries of all attempts included
LINE = re.compile(r"^line (\d+)$")
ENDED = {"DONE": "DONE", "ERROR": "ERROR", "TIMEOUT": "TIMEOUT", "CANCELED": "ERROR"}


class Expect:
    """What must come of a task, beyond what holds for every task."""

    def __init__(self, lines=None, status=None, reason=None, error=None, runs=None, within_s=None, prefix=False):
        self.lines, self.status, self.reason, self.error, self.runs, self.within_s, self.prefix = lines, status, reason, error, runs, within_s, prefix
        self.mark = None  # in all that a model was asked for this task


def need(condition, text):
    if not condition:
        raise Violation(text)


def settle(ground, tasks, deadline_s=SETTLE_S):
    """The tasks as they ended."""
    out, until = {}, time.monotonic() + deadline_s
    for id in tasks:
        while True:
            status, task = ground.try_call("GET", f"/v1/tasks/{id}/wait?timeout=5")
            if status == 200 and task["status"] in TERMINAL:
                out[id] = task
                break
            need(status != 404, f"{id} was acknowledged and is gone")
            if time.monotonic() > until:
                need(False, f"{id} did not end within {deadline_s} s: {json.dumps(task)[:600]}")
            if status != 200:
                ground.ensure_up()
                let_pass(0.05)
    return out


def events_of(ground, id):
    for _ in range(20):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return ground.site.events(id)
        let_pass(0.1)
    raise Violation(f"{id}: its events cannot be had")


def check_record(ground, id, events):
    path = ground.site.directory(id) / "events.jsonl"
    until = time.monotonic() + FILE_S
    while True:
        text = ground.text(path)
        lines = []
        with contextlib.suppress(ValueError):
            lines = [json.loads(line) for line in text.splitlines()]
        if lines == events:
            return
        if time.monotonic() > until:
            have, want = [e.get("seq") for e in lines], [e["seq"] for e in events]
            raise Violation(f"{id}: events.jsonl and the database differ: {len(have)} lines to {have[-1:]}, {len(want)} rows to {want[-1:]}; torn end: {text[-80:]!r}")
        let_pass(0.05)


def said_by(events, n):
    """The numbered lines of one run: of messages, and of commands that a model had run."""
    out = []
    for e in events:
        if e["run"] != n:
            continue
        text = e["data"].get("text", "") if e["type"] == "message.done" else e["data"].get("output", "") if e["type"] == "command.finished" else ""
        out += [int(m[1]) for m in map(LINE.match, (text or "").split("\n")) if m]
    return out


def check_runs(id, task, events):
    """One end a run and one end a task; every run but the last ended before the next was claimed."""
    of = {}
    for e in events:
        if e["type"] in ("task.claimed", "run.ended", "run.result"):
            of.setdefault(e["run"], []).append(e["type"])
    claimed = [e["run"] for e in events if e["type"] == "task.claimed"]
    need(claimed == list(range(1, len(claimed) + 1)), f"{id}: runs were claimed as {claimed}")
    for n, types in of.items():
        need(types.count("run.ended") == 1 and types.count("run.result") <= 1, f"{id}: run {n} has {types}")
        need(types[0] == "task.claimed" and types[-1] == "run.ended", f"{id}: run {n} went {types}")
    ends = [e for e in events if e["type"] == "task.done"]
    need(len(ends) == 1, f"{id}: {len(ends)} ends")
    need(events[-1]["type"] == "task.done", f"{id}: after its end came {events[-1]['type']}")
    need(ends[0]["data"]["status"] == task["status"], f"{id}: the event says {ends[0]['data']['status']}, the task {task['status']}")
    need(task["reason"] != "inconsistent", f"{id}: ended as inconsistent")
    return claimed


def check_lines(ground, id, task, events, claimed, want):
    for n in claimed:
        said = said_by(events, n)
        need(said == list(range(1, len(said) + 1)), f"{id}: run {n} said {said[:5]}...{said[-5:]} ({len(said)} lines), not 1, 2, 3 ...")
        last = n == claimed[-1]
        if want.lines and last and task["status"] == "DONE" and not want.prefix:
            need(len(said) == want.lines, f"{id}: {len(said)} of {want.lines} lines arrived of a run that is DONE")
        if task["agent"] == "command":
            raw = [int(m[1]) for m in map(LINE.match, ground.text(ground.run_dir(id, n) / "runtime/events.jsonl").split("\n")) if m]
            need(raw[:len(said)] == said, f"{id}: run {n}: {len(said)} lines are events, the agent's raw output has {len(raw)}")
    home = ground.site.directory(id) / "agents/main/home"
    need(not (home / "double").exists(), f"{id}: an agent found another one in its workspace")
    starts = ground.text(home / "numbers").split("start\n")[1:]
    need(len(starts) <= sum(e["type"] == "run.started" for e in events), f"{id}: {len(starts)} agents began, fewer runs were said to have started")
    if want.lines and task["status"] == "DONE" and task["agent"] == "command" and not want.prefix and starts:
        need(starts[-1].split() == [str(i) for i in range(1, want.lines + 1)], f"{id}: the agent's own count ends at {starts[-1].split()[-1:]}")


def check_state_files(ground, id, task, claimed):
    until = time.monotonic() + FILE_S
    for n in claimed:
        while True:
            text = ground.text(ground.run_dir(id, n) / "state.json")
            doc = json.loads(text) if text else {}
            last = n == claimed[-1]
            right = doc.get("status") == ENDED[task["status"]] and doc.get("completedTime") if last else doc.get("status") != "RUNNING"
            if right or not text:
                break
            need(time.monotonic() < until, f"{id}: {task['status']}, but the heartbeat file of run {n} of {len(claimed)} says {doc.get('status')}")
            let_pass(0.05)


def check_expected(id, task, events, claimed, want):
    need(not want.status or task["status"] in want.status.split("|"), f"{id}: {task['status']} ({task['reason']}: {task['error']}), expected {want.status}")
    if task["status"] not in ("DONE", "CANCELED"):
        need(not want.reason or re.fullmatch(want.reason, task["reason"] or ""), f"{id}: reason {task['reason']} ({task['error']}), expected {want.reason}")
        need(not want.error or re.search(want.error, task["error"] or ""), f"{id}: the error says {task['error']!r}, expected {want.error}")
        need(task["error"] or task["status"] == "TIMEOUT", f"{id}: {task['status']} without an error")
    need(want.runs is None or len(claimed) <= want.runs, f"{id}: {len(claimed)} runs, expected at most {want.runs}")


def check_model(ground, id, task, want):
    """What the gateway counted against what the model's own log has: it may miss what died with it, but invents nothing; and retries end."""
    usage = (task["result"] or {}).get("usage") or {}
    asked = ground.asked(want.mark)
    need(usage.get("requests", 0) <= asked, f"{id}: {usage.get('requests')} requests were counted, the model saw {asked}")
    need(asked <= ASKED_MAX, f"{id}: the model was asked {asked} times")


def check_left(ground, tasks, lag):
    until = time.monotonic() + LEFT_S + 2 * lag
    while True:
        left = ground.left(tasks)
        if not left:
            return
        late = time.monotonic() > until
        # The workspace is saved after the end is said: its runner may be at that for a while, the agent not.
        saving = all("signalbox-runner" in x or x.startswith(("lock ", "process")) and "tar" in x or x.startswith(("lock ", "cgroup ")) for x in left)
        need(not late or (saving and time.monotonic() < until + FILE_S), f"left {LEFT_S} s after the end: {left[:4]}")
        let_pass(0.02)


def check_task(ground, task, want):
    id = task["id"]
    events = events_of(ground, id)
    need([e["seq"] for e in events] == list(range(1, len(events) + 1)), f"{id}: seq {[e['seq'] for e in events]}")
    claimed = check_runs(id, task, events)
    check_lines(ground, id, task, events, claimed, want)
    if claimed or (ground.site.directory(id)).exists():
        check_record(ground, id, events)
        check_state_files(ground, id, task, claimed)
    check_expected(id, task, events, claimed, want)
    if want.mark and ground.scripted:
        check_model(ground, id, task, want)
