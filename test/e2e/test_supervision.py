"""A run that cannot be lost and a status that cannot lie: retries, silences, limits, restarts, a record that is rebuilt."""
import contextlib
import datetime
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess


import pytest
from e2e_site import CODEX, DEADLINE, PROGRAM, is_alive, wait_for

QUICK = {"initial_ms": 10, "jitter_percent": 0}
RESUMED = """
  - match: "[scenario two-commands]"
    steps:
      - shell: "echo once >> out.txt; cat out.txt"
      - shell: "until [ -e ~/go ]; do sleep 0.02; done; echo twice >> out.txt; cat out.txt"
      - final: "Both are written."
"""


def runner_pid(site, id, n=1):
    path = site.run_dir(id, n) / "runtime/pid"
    return wait_for("the runner's pid", lambda: path.exists() and path.read_text().strip() and int(path.read_text()))


def phase(site, id):
    return site.task(id)["phase"]


def until_phase(site, id, wanted):
    wait_for(f"the phase {wanted}", lambda: phase(site, id) == wanted)


def until_event(site, id, of):
    return wait_for(f"an event {of}", lambda: site.events(id, of))


def test_a_failing_agent_is_tried_again_as_often_as_asked_and_every_attempt_is_kept(site):
    task = site.run("echo attempt; exit 3", status="ERROR", retry={"attempts": 2, **QUICK})
    assert task["reason"] == "agent_exited" and task["run"]["attempt"] == 3
    events = site.events(task["id"])
    assert [e["type"] for e in events].count("task.done") == 1
    assert [e["data"]["reason"] for e in events if e["type"] == "task.retry_scheduled"] == ["agent_exited"] * 2
    assert all((site.run_dir(task["id"], n) / "runtime/events.jsonl").read_text() == "attempt\n" for n in (1, 2, 3))


def test_pauses_grow_by_the_factor_up_to_the_cap(site):
    task = site.run("exit 1", status="ERROR", retry={"attempts": 4, "initial_ms": 10, "factor_percent": 300, "cap_ms": 60, "jitter_percent": 0})
    assert [e["data"]["pause_ms"] for e in site.events(task["id"], "task.retry_scheduled")] == [10, 30, 60, 60]


def test_what_cannot_get_better_is_not_tried_again(site):
    missing = {"kind": "git", "url": f"file://{site.dir}/nowhere.git"}
    task = site.run("echo x", missing, status="ERROR", retries=3)
    assert task["run"]["attempt"] == 1 and task["reason"] == "source_failed", site.story(task["id"])


def test_an_attempt_that_succeeds_after_a_failure_ends_done(site):
    # The home is the worker's and stays; the workspace of a command starts clean.
    task = site.run("[ ! -e new ] && echo x > new; [ -e ~/seen ] || { touch ~/seen; exit 1; }", retry={"attempts": 1, **QUICK})
    assert task["run"]["attempt"] == 2 and [f["path"] for f in task["result"]["files"]] == ["new"]


def test_a_killed_runner_is_noticed_and_the_next_attempt_goes_on_in_the_agents_session(new_site):
    if not CODEX.exists():
        pytest.skip("Codex is not installed")
    site = new_site(scenarios=RESUMED)
    id = site.submit("[scenario two-commands] write", agent="codex-exec", retry={"house_attempts": 1, **QUICK})
    wait_for("the second command", lambda: len(site.events(id, "command.started")) == 2)
    os.kill(runner_pid(site, id), signal.SIGKILL)
    until_event(site, id, "task.retry_scheduled")
    site.release(id)
    task = site.wait(id)
    assert task["status"] == "DONE" and task["run"]["attempt"] == 2, site.story(id)
    sessions = [e["data"]["session"] for e in site.events(id, "run.session")]
    assert len(sessions) == 2 and sessions[0] == sessions[1]
    assert [e["data"]["from"] for e in site.events(id, "workspace.ready")] == ["clean", "kept"]
    assert b"+once\n+once\n+twice\n" in site.patch(id)  # the first attempt's file was still there
    assert any("Your previous attempt ended early" in body for body in site.asked())


def test_a_resumed_session_finds_its_workspace_even_when_only_the_saved_one_is_left(new_site):
    if not CODEX.exists():
        pytest.skip("Codex is not installed")
    site = new_site(scenarios='  - match: "[scenario half]"\n    steps:\n      - shell: "echo half > half.txt; unlink a.txt"\n      - final: {status: failed, summary: "only half", questions: [], nextActions: [], testsRun: 0, testsPassed: 0}\n')
    repo = site.path("repo")
    site.sh("git init -q -b main; echo a > a.txt; echo b > b.txt; git add -A; git commit -qm one", repo)
    task = site.run("[scenario half] do it", {"kind": "local", "dir": str(repo)}, agent="codex-exec", status="ERROR")
    id = task["id"]
    wait_for("the workspace to be saved and removed", lambda: not list((site.data / "work").iterdir()))
    status, body = site.call("POST", f"/v1/tasks/{id}/retry", {})
    assert status == 202, body
    task = site.wait(id)
    assert [e["data"]["from"] for e in site.events(id, "workspace.ready")] == ["clean", "saved"], site.story(id)
    assert {f["path"]: f["status"] for f in task["result"]["files"]} == {"a.txt": "D", "half.txt": "A"}


def test_a_stopped_runner_is_killed_after_the_heartbeat_limit_and_nothing_of_it_lives(new_site):
    site = new_site(config={"limits": {"heartbeat_timeout": "5s"}}, model=False)
    id = site.submit("while :; do echo x; sleep 0.2; done")
    until_phase(site, id, "running")
    pid = runner_pid(site, id)
    os.kill(pid, signal.SIGSTOP)
    task = site.wait(id)
    site.kept.add(id)
    assert (task["status"], task["reason"]) == ("ERROR", "heartbeat_timeout")
    assert not is_alive(pid)
    assert site.cli("wait", id).returncode == 125


def test_silence_is_ended_at_its_limit_and_named_and_work_without_words_is_not_silence(site):
    quiet = site.submit("sleep 600", stall_timeout_ms=1500)
    busy = site.submit("i=0; while [ $i -lt 2500000 ]; do i=$((i+1)); done", stall_timeout_ms=1500)
    task = site.wait(quiet)
    assert (task["status"], task["reason"]) == ("TIMEOUT", "stall_timeout") and "1.5 s" in task["error"]
    assert site.wait(busy)["status"] == "DONE", site.story(busy)
    assert site.cli("wait", quiet).returncode == 124


@pytest.mark.parametrize("more, reason", [({"timeout_ms": 1000}, "run_timeout"), ({"limits": {"task_timeout": 1}}, "task_timeout"),
                                          ({"setup": "sleep 600", "setup_timeout_ms": 1000}, "setup_timeout")])
def test_each_limit_of_time_is_named_in_the_result(site, more, reason):
    task = site.run("while :; do echo x; sleep 0.1; done", status="TIMEOUT", **more)
    assert task["reason"] == reason, site.story(task["id"])


def test_a_task_that_waits_in_the_queue_for_too_long_is_ended_there(new_site):
    site = new_site(config={"limits": {"running": 1}}, model=False)
    first = site.submit("until [ -e ~/go ]; do sleep 0.02; done")
    until_phase(site, first, "running")
    second = site.submit("echo never", limits={"queue_timeout": 1})
    task = site.wait(second)
    assert (task["status"], task["reason"], task["run"]) == ("TIMEOUT", "queue_timeout", None)
    site.release(first)
    assert site.wait(first)["status"] == "DONE"


@pytest.mark.parametrize("more", [{"timeout_ms": 0}, {"timeout_ms": -1}, {"timeout_ms": 10 * 365 * 86400 * 1000}, {"retries": -1}, {"retries": 1000},
                                  {"retry": {"factor_percent": 1}}, {"retry": {"attemps": 1}}, {"limits": {"memory": 1}}, {"limits": {"stall_timeout": "10y"}}])
def test_nonsense_limits_are_refused_at_submit(site, more):
    status, problem = site.call("POST", "/v1/tasks", {"prompt": "x", "agent": "command", "source": {"kind": "none"}, **more})
    assert status == 400 and problem["code"] == "invalid" and next(iter(more)).split("_")[0] in problem["detail"].replace("limit", "limits"), problem


def test_an_ended_task_can_be_begun_again_and_a_live_one_cannot(site):
    task = site.run("[ -e ~/again ] || { touch ~/again; exit 1; }", status="ERROR")
    assert site.call("POST", f"/v1/tasks/{task['id']}/retry", {})[0] == 202
    assert site.wait(task["id"])["status"] == "DONE"
    types = [e["type"] for e in site.events(task["id"])]
    assert types.count("task.done") == 2 and types.count("task.retried") == 1
    live = site.submit("until [ -e ~/go ]; do sleep 0.02; done")
    status, problem = site.call("POST", f"/v1/tasks/{live}/retry", {})
    assert status == 409 and problem["code"] == "conflict"
    until_phase(site, live, "running")
    site.release(live)
    site.wait(live)


def test_a_poller_that_knows_only_the_heartbeat_file_follows_a_task_to_its_end(site):
    repo = site.path("repo")
    site.sh("git init -q; echo a > a; git add -A; git commit -qm one", repo)
    id = site.submit("until [ -e ~/go ]; do sleep 0.02; done; echo b >> a", {"kind": "local", "dir": str(repo)}, name="T-001")
    path = repo / ".codex/tasks/T-001.json"
    seen = []

    def poll():
        if not path.exists():
            return None
        state = json.loads(path.read_text())  # whole at every moment
        age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(state["lastHeartbeat"].replace("Z", "+00:00"))
        assert age.total_seconds() < 60 and state["taskId"] == id and isinstance(state["sessionId"], str)
        if state["status"] not in seen:
            seen.append(state["status"])
            if state["status"] == "RUNNING" and phase(site, id) == "running":
                site.release(id)
        if "running" == state.get("progress"):
            site.release(id)
        return state if state["status"] in ("DONE", "ERROR", "TIMEOUT") else None
    end = wait_for("the end in the file", poll)
    assert end["status"] == "DONE" and end["result"]["filesChanged"] == ["a"] and seen[-1] == "DONE" and "RUNNING" in seen
    assert site.sh("git status --porcelain", repo) == ""  # the directory ignores itself


def test_the_heartbeat_names_the_cause(site):
    id = site.submit("until [ -e ~/go ]; do sleep 0.02; done")
    until_phase(site, id, "running")
    beat = wait_for("the cause", lambda: (site.task(id)["run"]["heartbeat"] or {}).get("cause") == "running" and site.task(id)["run"]["heartbeat"])
    assert {"alive", "cause", "phase"} <= set(beat)
    site.release(id)
    assert site.wait(id)["status"] == "DONE"


def test_a_lost_database_is_rebuilt_from_the_task_directories(new_site):
    site = new_site(model=False)
    done = site.run("echo one > one.txt", name="kept")
    before = site.log_file(done["id"])
    site.kill_server()
    for path in site.data.glob("signalbox.db*"):
        path.unlink()
    site.start_server()
    task = wait_for("the import", lambda: site.call("GET", "/v1/tasks/kept")[0] == 200 and site.task("kept"))
    assert (task["id"], task["status"], task["prompt"]) == (done["id"], "DONE", "echo one > one.txt")
    assert task["result"]["files"] == done["result"]["files"]
    assert site.events(done["id"])[:len(before)] == before
    wait_for("the finding", lambda: site.get("/v1/reconcile")["counts"].get("task_directory_unknown") == 1)
    assert "one.txt" in site.patch(done["id"]).decode()


def test_rows_that_contradict_each_other_are_mended_and_told(new_site):
    site = new_site(config={"limits": {"running": 1}}, model=False)
    first = site.submit("until [ -e ~/go ]; do sleep 0.02; done")
    until_phase(site, first, "running")
    queued = site.submit("echo late")
    site.kill_server()
    with contextlib.closing(sqlite3.connect(site.data / "signalbox.db")) as db, db:
        db.execute("DELETE FROM queue WHERE task=?", (queued,))
    site.own(site.data) if site.user else None
    site.start_server()
    wait_for("the finding", lambda: site.get("/v1/reconcile")["counts"].get("queue_row_missing") == 1)
    site.release(first)
    assert site.wait(first)["status"] == "DONE" and site.wait(queued)["status"] == "DONE"
    assert 'signalbox_reconcile_findings_total{kind="queue_row_missing"} 1' in site.get("/metrics")


@pytest.mark.parametrize("old", ["task.yaml", "agents/main/state.json"])
def test_an_ended_tasks_record_that_says_running_is_written_again(new_site, old):
    site = new_site(model=False)
    task = site.run("echo one > one.txt")["id"]
    path = site.directory(task) / old
    right = path.read_text()
    site.kill_server()
    path.write_text(right.replace("DONE", "RUNNING"))
    assert path.read_text() != right
    with contextlib.closing(sqlite3.connect(site.data / "signalbox.db")) as db, db:
        db.execute("UPDATE tasks SET completed_at=completed_at-3600000")  # not what is being written just now,
        db.execute("UPDATE runs SET released=1")  # and its runner was seen to be gone
    site.own(site.data) if site.user else None
    site.start_server()
    wait_for("the finding", lambda: site.get("/v1/reconcile")["counts"].get("record_outdated") == 1)
    wait_for("the record", lambda: "RUNNING" not in path.read_text() and "DONE" in path.read_text())


def test_a_stop_tells_the_streams_and_leaves_the_runs_alone(new_site):
    site = new_site(model=False)
    id = site.submit("until [ -e ~/go ]; do sleep 0.02; done; echo finished")
    until_phase(site, id, "running")
    conn, reply = site.open("GET", f"/v1/tasks/{id}/events", headers={"Accept": "text/event-stream"})
    pid = runner_pid(site, id)
    site.server.terminate()
    assert b"event: stopping" in reply.read()
    conn.close()
    assert site.server.wait(DEADLINE) == 0 and is_alive(pid)
    site.release(id)
    wait_for("the runner to end by itself", lambda: not is_alive(pid))
    site.start_server()
    assert site.wait(id)["status"] == "DONE", site.story(id)


def test_a_stop_with_stop_runs_ends_the_runs_with_their_partial_diff(new_site):
    site = new_site(model=False, start=False)
    site.start_server("--stop-runs")
    id = site.submit("echo partial > p.txt; trap 'exit 1' INT; while :; do sleep 0.05; done")
    until_phase(site, id, "running")
    wait_for("the file", lambda: list((site.data / "work").glob("*/upper/p.txt")) or list((site.data / "work").glob("*/plain/p.txt")))
    site.stop_server()
    site.start_server()
    task = site.wait(id)
    assert task["status"] == "CANCELED" and [f["path"] for f in task["result"]["files"]] == ["p.txt"], site.story(id)


def test_a_service_manager_is_told_and_may_hand_over_the_socket(new_site):
    site = new_site(model=False, start=False)
    notify = site.dir / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        told.bind(str(notify))
        told.settimeout(DEADLINE)
        notify.chmod(0o777)
        listening.bind(str(site.runtime / "signalbox.sock"))
        listening.listen(16)
        site.own(site.runtime)
        child = subprocess.Popen(["/bin/bash", "-c", 'exec 3<&"$0"; export LISTEN_PID=$$; exec "$1" serve', str(listening.fileno()), str(PROGRAM)],
                                 env=site.environment(NOTIFY_SOCKET=str(notify), WATCHDOG_USEC="400000", LISTEN_FDS="1"), pass_fds=[listening.fileno()],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(site.dir / "server.log", "ab"), cwd=site.dir, **site.identity())
        site.children.append(child)
        site.server = child
        assert told.recv(100) == b"READY=1"
        wait_for("the handed-over socket to be served", site.is_up)
        assert told.recv(100) == b"WATCHDOG=1"
        child.terminate()
        while (word := told.recv(100)) == b"WATCHDOG=1":
            pass
        assert word == b"STOPPING=1" and child.wait(DEADLINE) == 0


def test_a_wait_costs_no_thread_and_ends_with_the_task(site):
    id = site.submit("until [ -e ~/go ]; do sleep 0.02; done")
    until_phase(site, id, "running")
    conns = []
    for _ in range(60):  # more than the pool has threads
        conn = http.client.HTTPConnection("localhost")
        conn.sock = socket.socket(socket.AF_UNIX)
        conn.sock.connect(str(site.runtime / "signalbox.sock"))
        conn.request("GET", f"/v1/tasks/{id}/wait?timeout=120")
        conns.append(conn)
    assert site.call("GET", "/version")[0] == 200  # others are served meanwhile
    site.release(id)
    assert {json.loads(c.getresponse().read())["status"] for c in conns} == {"DONE"}
    for conn in conns:
        conn.close()


PACE = os.environ.get("SIGNALBOX_PACE", "300ms")  # between the agent's steps; a release plays it over minutes (SIGNALBOX_PACE=20s)
WEB_PAGE = f"""
  - match: "[scenario web-page]"
    steps:
      - plan: [{{step: "Structure", status: in_progress}}, {{step: "Looks", status: pending}}, {{step: "Behaviour", status: pending}}]
      - shell: "mkdir -p site && printf '<!doctype html><title>Counter</title><link rel=stylesheet href=style.css><button id=b>0</button><script src=app.js></script>' > site/index.html"
      - delay: {PACE}
      - say: "The structure stands."
      - shell: "printf 'button {{ font-size: 3rem }}' > site/style.css"
      - delay: {PACE}
      - plan: [{{step: "Structure", status: completed}}, {{step: "Looks", status: completed}}, {{step: "Behaviour", status: in_progress}}]
      - shell: "printf 'let n = 0; b.onclick = () => b.textContent = ++n' > site/app.js"
      - delay: {PACE}
      - shell: "grep -c onclick site/app.js && ls site"
      - expect: "index.html"
      - final: "A page with a button that counts."
"""


def test_a_complex_task_is_followed_to_its_end_by_its_heartbeat_file_alone(new_site):
    if not CODEX.exists():
        pytest.skip("Codex is not installed")
    site = new_site(scenarios=WEB_PAGE)
    repo = site.path("repo")
    site.sh("git init -q; echo x > readme; git add -A; git commit -qm one", repo)
    started = site.cli("start", "--name", "PAGE-1", "--verify", "test -s site/index.html -a -s site/app.js", "[scenario web-page] build a page that counts", cwd=repo)
    assert started.returncode == 0, started.stderr
    id = started.stdout.split()[0]
    site.tasks.add(id)
    path, beats = repo / ".codex/tasks/PAGE-1.json", []

    def poll():
        state = json.loads(path.read_text()) if path.exists() else {"status": "PENDING", "lastHeartbeat": "2026-01-01T00:00:00Z"}
        beats.append((state["status"], state["lastHeartbeat"]))
        return state if state["status"] not in ("PENDING", "RUNNING") else None
    end = wait_for("the end in the file", poll, 600)
    assert end["status"] == "DONE" and sorted(end["result"]["filesChanged"]) == ["site/app.js", "site/index.html", "site/style.css"]
    stamps = [beat for status, beat in beats if status == "RUNNING"]
    assert stamps == sorted(stamps)  # the beat only goes forward
    task = site.wait(id)
    assert task["result"]["verify"]["exit_code"] == 0 and len(site.events(id, "todo.snapshot")) + len(site.events(id, "todo.update")) >= 2


def test_saved_workspaces_are_kept_within_their_space_the_oldest_go_first(new_site):
    site = new_site(config={"limits": {"workspace_bytes": "1M"}}, model=False)
    ids = [site.run("head -c 400000 /dev/urandom > big.bin")["id"] for _ in range(4)]
    wait_for("the last to be saved", lambda: (site.directory(ids[-1]) / "agents/main/workspace/base.json").exists())
    site.stop_server()
    site.start_server()  # looks at once
    kept = lambda: [id for id in ids if (site.directory(id) / "agents/main/workspace/base.json").exists()]  # noqa: E731
    wait_for("room", lambda: kept() == ids[-2:])
    wait_for("the findings", lambda: site.get("/v1/reconcile")["counts"].get("workspace_expired") == 2)
