"""Many short tasks through a cap of 16 while runners, what is inside, and the server are killed all the time: every one ends once."""
import json
import signal
import threading
import time

import agents
from check import Expect, check_left, check_task, need, settle
from faults import HOUSE
from world import TERMINAL, Violation, let_pass, processes, proc_text

KILL_EVERY_S = 0.5  # on average; and at most one kill for so many tasks, so that a slow machine comes to an end too
TASKS_PER_KILL = 5
SERVER_EVERY_S = 10
SUBMITTERS = 8
TASK_S = 0.5  # generous: what a task may cost here, under fire


def kill_at_random(ground, rng, stop, count, most):
    needle = str(ground.site.dir).encode()
    next_server = time.monotonic() + SERVER_EVERY_S
    while not stop.is_set() and count["runner"] < most:
        let_pass(rng.uniform(0, 2 * KILL_EVERY_S))
        if time.monotonic() > next_server:
            next_server = time.monotonic() + SERVER_EVERY_S
            ground.restart(rng.choice((0, 0, 1)))
            count["server"] += 1
            continue
        ours = [p for p in processes() if b"signalbox-runner" in (words := proc_text(p, "cmdline")) and needle in words]
        if ours:
            count["runner"] += ground.strike([rng.choice(ours)], signal.SIGKILL)  # a runner or its stage


def submit_all(ground, observer, share, made, lock):
    for _ in range(share):
        id = None
        while not id:
            id = ground.submit(agents.numbered(5, every=5, pause=0.01), retry=dict(HOUSE, house_attempts=20, attempts=20))
            if not id:
                let_pass(0.02)
        with lock:
            made.append(id)


def storm(ground, observer, rng, tasks):
    made, lock, stop, wrong, count = [], threading.Lock(), threading.Event(), [], {"server": 0, "runner": 0}
    killer = threading.Thread(target=kill_at_random, args=(ground, rng, stop, count, tasks // TASKS_PER_KILL), daemon=True)
    submitters = [threading.Thread(target=submit_all, args=(ground, observer, tasks // SUBMITTERS, made, lock), daemon=True) for _ in range(SUBMITTERS)]
    for t in [killer] + submitters:
        t.start()
    for t in submitters:
        t.join()
    until = time.monotonic() + 60 + tasks * TASK_S
    try:
        while time.monotonic() < until:
            status, page = ground.try_call("GET", "/v1/tasks?state=QUEUED,RUNNING&limit=1")
            if status == 200 and not page["data"]:
                break
            let_pass(0.2)
        stop.set()
        killer.join()
        ground.ensure_up()
        ended = settle(ground, made, 60)
        check_left(ground, set(made[-200:]), observer.lag)
        for id, task in ended.items():
            try:
                check_task(ground, task, Expect(lines=5, status="DONE|ERROR"))
            except Violation as e:
                wrong.append(str(e))
        states = [t["status"] for t in ended.values()]
        need(len(ended) == len(made), f"{len(made)} submits, {len(ended)} ends")
        need(all(s in TERMINAL for s in states), "not all ended")
        notes = [f"{len(made)} tasks", f"{count['runner']} runners and {count['server']} servers killed", json.dumps({s: states.count(s) for s in set(states)}), *sorted({f"{t['reason']}: {t['error']}" for t in ended.values() if t["status"] != "DONE"})]
    except Violation as e:
        wrong.append(str(e))
        notes = []
    finally:
        stop.set()
    wrong += observer.take()
    return wrong, notes
