"""The outside observer: it believes nothing that Signalbox says, but samples /proc and the heartbeat files and compares.

It tells a lie when
- the file says that a run has ended and processes of that run live on;
- the file says RUNNING for a run whose runner is dead, although the server is there to know better, or is refreshed after that death;
- processes of two runs of one task live at once, which would be two in one workspace;
- the file is not whole JSON, or lacks a member that pollers need."""
import contextlib
import json
import os
import threading
import time

from datetime import datetime

from world import Eyes, is_alive, let_pass, proc_text, run_of

PERIOD_S = 0.03
GRACE_S = 1.0  # what promise 7 allows after an end; what the machine itself is late is added
RETURN_S = 3.0  # for a server that has just come back
STATUSES = ("PENDING", "RUNNING", "DONE", "ERROR", "TIMEOUT")


def stat_start(pid):
    words = proc_text(pid, "stat").rsplit(b")", 1)[-1].split()
    return int(words[19]) if len(words) > 19 and words[0] not in (b"Z", b"X") else None


class Observer:
    def __init__(self, ground):
        self.ground, self.eyes = ground, Eyes()
        self.lies, self.samples = [], 0
        self.live, self.lock = set(), threading.Lock()
        self.ended, self.dead = {}, {}
        self.paused = False  # the server is stopped, or has no disk: it cannot know better
        self.returned, self.was_away, self.lag = time.monotonic(), True, 0.0
        self.stop = False
        self.thread = threading.Thread(target=self.main, daemon=True)
        self.thread.start()

    def watch(self, task):
        with self.lock:
            self.live.add(task)

    def forget(self, tasks):
        with self.lock:
            self.live -= set(tasks)
        for table in (self.ended, self.dead):
            for key in [k for k in table if k[0] in tasks]:
                table.pop(key, None)

    def take(self):
        with self.lock:
            lies, self.lies = self.lies, []
        return lies

    def lie(self, text):
        with self.lock:
            if text not in self.lies and len(self.lies) < 20:
                self.lies.append(text)

    def close(self):
        self.stop = True
        self.thread.join(5)

    def main(self):
        last = time.monotonic()
        while not self.stop:
            let_pass(PERIOD_S)
            now = time.monotonic()
            self.lag = max(self.lag * 0.9, now - last - PERIOD_S - 0.05, 0)
            last = now
            try:
                self.sample()
            except Exception as e:  # the observer must not die unseen
                self.lie(f"the observer failed: {type(e).__name__}: {e}")

    def grace(self):
        return GRACE_S + 2 * self.lag

    # --- one sample: first the files, then the processes, so that a process seen lives later than what the file said

    def read_state(self, task):
        worker = self.ground.site.directory(task) / "agents/main"
        with contextlib.suppress(OSError):
            n = int(os.readlink(worker / "state.json").split("/")[1])
            path = worker / "runs" / str(n) / "state.json"
            text = path.read_text()
            try:
                doc = json.loads(text)
            except ValueError:
                self.lie(f"the heartbeat file of {task} is not whole: {text[:200]!r}")
                return None
            missing = [k for k in ("taskId", "sessionId", "status", "lastHeartbeat", "startTime") if not isinstance(doc.get(k), str)]
            if missing or doc["status"] not in STATUSES or doc["taskId"] != task:
                self.lie(f"the heartbeat file of {task} lacks or bends {missing}: {text[:300]}")
                return None
            return n, doc
        return None

    def sample(self):
        with self.lock:
            live = set(self.live)
        away = self.ground.away or self.paused
        if self.was_away and not away:
            self.returned = time.monotonic()
        self.was_away = away
        states = {task: self.read_state(task) for task in live}
        before = time.monotonic()
        procs = self.eyes.look()
        by_run = {}
        for p in procs.values():
            of = run_of(procs, p)
            if of and of[0] in live:
                by_run.setdefault(of, []).append(p)
        for task, state in states.items():
            if state:
                self.check_state(task, *state, by_run, before, away)
        self.check_two(by_run)
        self.samples += 1

    def check_state(self, task, n, doc, by_run, before, away):
        key, procs = (task, n), by_run.get((task, n), [])
        agents = [p for p in procs if p.task] + [p for p in by_run.get((task, None), [])]
        if doc["status"] in ("DONE", "ERROR", "TIMEOUT"):
            since = self.ended.setdefault(key, before)
            still = [p for p in agents if stat_start(p.pid) == p.start]
            if still and before - since > self.grace():
                self.lie(f"{task}/{n}: the heartbeat file says {doc['status']} for {before - since:.2f} s and process {still[0].pid} lives: {still[0].cmdline!r}")
            return
        self.ended.pop(key, None)
        if doc["status"] != "RUNNING" or not (self.ground.run_dir(task, n) / "runner.json").exists():
            return
        if self.ground.runner_pid(task, n):
            self.dead.pop(key, None)
            return
        if doc.get("heartbeat", {}).get("cause") == "waiting on human" and list((self.ground.site.directory(task) / "gates").glob("*.yaml")):
            return  # its runner is dead, its question is not: the server says so in the file
        since, wall = self.dead.setdefault(key, (before, time.time()))
        if self.ground.kind != "clock":
            beat = datetime.fromisoformat(doc["lastHeartbeat"].replace("Z", "+00:00")).timestamp()
            if beat > wall + self.grace():
                self.lie(f"{task}/{n}: the heartbeat file was refreshed {beat - wall:.2f} s after its runner's death")
        knew = max(since, self.returned + RETURN_S)
        if not away and time.monotonic() - knew > self.grace():
            again = self.read_state(task)
            if again and again[0] == n and again[1]["status"] == "RUNNING":
                self.lie(f"{task}/{n}: the heartbeat file says RUNNING {time.monotonic() - since:.2f} s after its runner's death")

    def check_two(self, by_run):
        runs = {}
        for (task, n), procs in by_run.items():
            if n is not None:
                runs.setdefault(task, {})[n] = procs
        for task, of in runs.items():
            if len(of) > 1:
                old = [p for n in sorted(of)[:-1] for p in of[n] if stat_start(p.pid) == p.start and is_alive(p.pid)]
                if old:
                    self.lie(f"{task}: runs {sorted(of)} live at once: {old[0].pid} {old[0].cmdline!r}")

