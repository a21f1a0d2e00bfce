"""kill -9 of the server and of runners at random moments of real runs: nothing is lost, nothing comes twice, nothing is left.

SIGNALBOX_CASES scales it: unset, a slice for every day; 300 is what a release runs (then the server dies 20 times on each road).
A failure prints its seed; SIGNALBOX_SEED replays it."""
import os
import random
import select
import signal
import subprocess
import time

import pytest
from e2e_site import CODEX, PROGRAM, is_alive, wait_for

CASES = int(os.environ.get("SIGNALBOX_CASES", "40"))
SEED = int(os.environ.get("SIGNALBOX_SEED", str(random.SystemRandom().randrange(1 << 32))))
SERVER_KILLS = max(6, CASES // 15)
LINES = 400
NUMBERED = f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; [ $((i % 25)) = 0 ] && sleep 0.02; done; echo done > made.txt"


@pytest.fixture
def rng():
    print(f"SIGNALBOX_SEED={SEED}")
    return random.Random(SEED)


def let_pass(seconds):
    """The random part of a random moment."""
    end = time.perf_counter() + seconds
    if seconds > 0.003:
        select.select([], [], [], seconds - 0.002)
    while time.perf_counter() < end:
        pass


def check_log(site, id, lines=LINES):
    """The whole log, as the API and as the file tell it: every line once, in order, no gap, one end."""
    events = site.events(id)
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert site.log_file(id) == events
    types = [e["type"] for e in events]
    for once in ("task.created", "task.claimed", "workspace.fetched", "workspace.ready", "run.started", "run.result", "run.ended", "task.done"):
        assert types.count(once) == 1, (once, types.count(once))
    assert types[-1] == "task.done"
    said = [line for e in events if e["type"] == "message.done" for line in e["data"]["text"].split("\n")]
    assert said == [f"line {i}" for i in range(1, lines + 1)]


def test_a_server_that_is_killed_at_random_points_and_started_again_changes_nothing_of_a_run(new_site, rng):
    site = new_site(model=False)
    for case in range(SERVER_KILLS):
        kills = [rng.uniform(0, 0.6) for _ in range(rng.choice((1, 1, 2, 3)))]
        id = site.submit(NUMBERED, setup="echo noise > noise.txt" if case % 2 else None)
        for moment in kills:
            let_pass(moment)
            site.kill_server()
            site.start_server()
        task = site.wait(id)
        assert task["status"] == "DONE" and task["result"]["outcome"] == "success", f"case {case}, kills after {kills}\n{site.story(id)}"
        check_log(site, id)
        assert [f["path"] for f in task["result"]["files"]] == ["made.txt"]
        site.assert_clean()


def test_submits_that_were_acknowledged_before_a_kill_are_all_run(new_site, rng):
    site = new_site(model=False)
    ids = []
    for _ in range(4):
        ids += [site.submit(f"echo {n}") for n in range(5)]
        let_pass(rng.uniform(0, 0.05))
        site.kill_server()
        site.start_server()
    for id in ids:
        assert site.wait(id)["status"] == "DONE", site.story(id)
        check = [e["type"] for e in site.events(id)]
        assert check.count("task.done") == 1 and check.count("run.started") == 1


def test_a_run_that_ends_while_the_server_is_away_is_handed_in_from_disk(new_site):
    site = new_site(model=False)
    id = site.submit("until [ -e ~/go ]; do sleep 0.02; done; " + NUMBERED)
    wait_for("the agent", lambda: site.task(id)["phase"] == "running" and site.task(id)["run"]["pid"])
    runner = site.task(id)["run"]["pid"]
    site.kill_server()
    site.release(id)
    wait_for("the runner's end", lambda: not is_alive(runner))
    site.start_server()
    task = site.wait(id)
    assert task["status"] == "DONE", site.story(id)
    check_log(site, id)


def test_a_server_that_is_asked_to_stop_leaves_its_runs_alive(new_site):
    site = new_site(model=False)
    id = site.submit("until [ -e ~/go ]; do sleep 0.02; done; " + NUMBERED)
    wait_for("the agent", lambda: site.task(id)["phase"] == "running")
    runner, gateway = site.task(id)["run"]["pid"], site.gateway_pid()
    site.stop_server()
    assert is_alive(runner) and is_alive(gateway)
    site.start_server()
    assert site.gateway_pid() == gateway and site.task(id)["run"]["pid"] == runner
    site.release(id)
    assert site.wait(id)["status"] == "DONE", site.story(id)
    check_log(site, id)


@pytest.mark.skipif(not CODEX.exists(), reason="Codex is not installed (npm ci)")
def test_a_codex_run_outlives_the_server_and_the_gateway(new_site):
    site = new_site(scenarios='  - match: "[scenario linger]"\n    steps:\n      - shell: "until [ -e /home/agent/go ]; do sleep 0.02; done"\n      - final: "It went on."\n')
    id = site.submit("[scenario linger]", agent="codex-exec")
    wait_for("the agent's command", lambda: site.events(id, "command.started"))
    gateway = site.gateway_pid()
    os.kill(gateway, signal.SIGKILL)
    site.kill_server()
    wait_for("the gateway's end", lambda: not is_alive(gateway))
    site.start_server()
    wait_for("another gateway", lambda: site.gateway_pid() not in (None, gateway))
    site.release(id)
    task = site.wait(id)
    assert task["status"] == "DONE" and task["result"]["summary"] == "It went on.", site.story(id)
    assert [e["type"] for e in site.events(id)].count("task.done") == 1


def test_only_one_server_owns_a_data_directory(new_site):
    site = new_site(model=False)
    first = site.server
    second = site.start_server("--runtime", str(site.path("other")), wait=False)
    assert second.wait(120) == 6 and "another server" in site.log("server"), site.log("server")
    site.server = first
    assert site.is_up()


def children_of(pid):
    """A process's children, as early as the kernel knows them."""
    found = set()
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{tid}/children") as f:
                found |= set(map(int, f.read().split()))
        except OSError:
            pass
    return found


def spool_of(site, id):
    path = site.run_dir(id) / "spool.jsonl"
    return path.read_text() if path.exists() else ""


AGENT_WITH_FAMILY = "echo begun; (setsid sleep 86411 &) ; sleep 86412 & trap '' TERM INT HUP; mkdir -p d; echo x > d/file; sleep 86413"


def test_a_runner_that_is_killed_at_random_moments_leaves_nothing_and_its_task_says_why(new_site, rng):
    site = new_site(model=False)
    served = site.path("repo")
    site.sh("for i in $(seq 50); do echo $i > f$i; done; git init -q; git add -A; git commit -qm x", served)
    reached = set()
    for case in range(CASES):
        moment = rng.uniform(0, 0.02)
        known = children_of(site.server.pid)
        source = {"kind": "local", "dir": str(served)} if case % 2 else {"kind": "none"}
        id = site.submit(AGENT_WITH_FAMILY, source, setup="sleep 0.02" if case % 4 == 0 else None)
        while not (new := children_of(site.server.pid) - known):
            pass  # spins: the first millisecond matters
        if case % 3 == 0:  # on a crowded machine a moment is no place on the way
            wait_for("its agent's phase", lambda: '"to":"running"' in spool_of(site, id))
        let_pass(moment)
        os.kill(min(new), signal.SIGKILL)
        task = site.wait(id)
        story = f"case {case}, killed after {moment * 1000:.1f} ms\n{site.story(id)}"
        assert task["status"] == "ERROR" and task["reason"] == "runner_lost" and "killed" in task["error"], story
        events = site.events(id)
        assert [e["seq"] for e in events] == list(range(1, len(events) + 1)), story
        assert [e["type"] for e in events].count("task.done") == 1, story
        site.kept.add(id)
        reached.add(next((e["data"]["to"] for e in reversed(events) if e["type"] == "run.phase" and e["data"]["to"] != "lost"), "claimed"))
        try:
            site.assert_clean()
        except AssertionError as e:
            raise AssertionError(f"{story}\n{e}") from None
    assert "running" in reached and len(reached) > 1, f"the moments did not spread: {reached}"
    assert site.run("echo alive; echo new > f1", {"kind": "local", "dir": str(served)})["result"]["files"][0]["path"] == "f1"


def test_a_sandbox_that_is_killed_from_outside_ends_its_run_with_an_error(new_site):
    site = new_site(model=False)
    id = site.submit("echo begun; sleep 86414")
    wait_for("the agent", lambda: site.events(id, "message.done"))
    runner = site.task(id)["run"]["pid"]
    for pid in children_of(runner):
        os.kill(pid, signal.SIGKILL)
    task = site.wait(id)
    assert task["status"] == "ERROR" and task["error"], site.story(id)


def test_the_exit_status_of_run_says_that_the_runner_was_lost(new_site):
    site = new_site(model=False)
    p = subprocess.Popen([str(PROGRAM), "run", "--repo", "-", "--agent", "command", "sleep 86415"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, cwd=site.home, env=site.environment(), **site.identity())
    task = wait_for("the run", lambda: next((t for t in site.get("/v1/tasks")["data"] if t["phase"] == "running" and t["run"]), None))
    site.tasks.add(task["id"])
    os.kill(task["run"]["pid"], signal.SIGKILL)
    out, err = p.communicate(timeout=120)
    site.kept.add(task["id"])
    assert p.returncode == 125, (p.returncode, out, err)
