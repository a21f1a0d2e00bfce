"""The API of the real server: pages, streams, waits, cancels, removals, filters, and who may come in by TCP."""
import contextlib
import json
import os
import socket
import threading

import pytest
from e2e_site import tcp_call, wait_for

SITE = {"model": False, "listen": "127.0.0.1:0"}
HOLD = "until [ -e ~/go ]; do sleep 0.02; done"


def read_sse(reply):
    """The events of a stream as (event, id, data), until it ends."""
    event, id, data = None, None, []
    for line in iter(reply.readline, b""):
        line = line.decode().rstrip("\n")
        if line.startswith("event: "):
            event = line[7:]
        elif line.startswith("id: "):
            id = int(line[4:])
        elif line.startswith("data: "):
            data.append(line[6:])
        elif not line and data:
            yield event, id, json.loads("\n".join(data))
            event, id, data = None, None, []


def sse(site, id, after=None, last=None):
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(last)} if last is not None else {})}
    conn, reply = site.open("GET", f"/v1/tasks/{id}/events" + (f"?after={after}" if after is not None else ""), headers=headers)
    assert reply.status == 200 and reply.getheader("Content-Type").startswith("text/event-stream")
    try:
        yield from read_sse(reply)
    finally:
        conn.close()


def jsonl(site, id, query):
    conn, reply = site.open("GET", f"/v1/tasks/{id}/events?{query}", headers={"Accept": "application/jsonl"})
    try:
        return [json.loads(line) for line in reply.read().splitlines()]
    finally:
        conn.close()


def test_a_stream_says_hello_then_every_event_with_its_id_then_sync_and_end(site):
    id = site.run("for i in 1 2 3; do echo $i; done")["id"]
    log = site.events(id)
    got = list(sse(site, id))
    assert got[0][0] == "hello" and got[0][2]["head"] == len(log) and got[0][2]["oldest"] == 1
    assert [(i, d) for e, i, d in got if e is None] == [(e["seq"], e) for e in log]
    assert [e for e, _, _ in got if e not in (None, "live")] == ["hello", "sync", "end"]
    assert got[-1][2]["status"] == "DONE"


def test_a_stream_that_is_opened_while_the_task_runs_shows_the_whole_log_once(site):
    id = site.submit(f"echo one; {HOLD}; echo two")
    got = []
    thread = threading.Thread(target=lambda: got.extend(sse(site, id)))
    thread.start()
    wait_for("the stream to catch up", lambda: any(e == "sync" for e, _, _ in got))
    site.release(id)
    thread.join(120)
    assert [i for e, i, _ in got if e is None] == [e["seq"] for e in site.events(id)]
    assert got[-1][0] == "end"


@pytest.mark.parametrize("by", ["last", "after"])
def test_a_stream_resumes_behind_a_cursor(site, by):
    id = site.run("for i in 1 2 3; do echo $i; done")["id"]
    log = site.events(id)
    for cut in (0, 1, 5, len(log) - 1, len(log)):
        assert [i for e, i, _ in sse(site, id, **{by: cut}) if e is None] == [e["seq"] for e in log[cut:]]


def test_readers_that_come_and_go_see_together_exactly_the_log(site):
    id = site.submit("i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo line $i; [ $((i % 20)) = 0 ] && sleep 0.02; done")
    seen, cursor, over = [], 0, False
    while not over:
        for count, (event, seq, data) in enumerate(sse(site, id, last=cursor)):
            if event is None:
                seen.append(data)
                cursor = seq
            over = event == "end"
            if over or count >= 7:
                break
    assert seen == site.events(id)


def test_jsonl_gives_what_there_is_or_follows_to_the_end(site):
    id = site.submit(f"echo one; {HOLD}; echo two")
    wait_for("a first word", lambda: site.events(id, "message.done"))
    now = jsonl(site, id, "after=0")
    assert [e["seq"] for e in now] == list(range(1, len(now) + 1)) and now[-1]["type"] != "task.done"
    got = []
    thread = threading.Thread(target=lambda: got.extend(jsonl(site, id, "after=2&follow=1")))
    thread.start()
    site.release(id)
    thread.join(120)
    log = site.events(id)
    assert [e for e in got if "seq" in e] == log[2:] and log[-1]["type"] == "task.done"
    assert [e["type"] for e in got if "seq" not in e and not e.get("live")] == ["hello", "sync", "end"] and got[-1] == {"type": "end", "status": "DONE"}


def test_pages_have_a_cursor_and_a_head(site):
    id = site.run("for i in 1 2 3; do echo $i; done")["id"]
    log, got, after = site.events(id), [], 0
    while after is not None:
        page = site.get(f"/v1/tasks/{id}/events?after={after}&limit=3")
        assert len(page["data"]) <= 3 and page["head"] == len(log)
        got += page["data"]
        after = page["next_cursor"]
    assert got == log
    for query in ("after=x", "limit=0", "limit=100000", "after=-1"):
        assert site.call("GET", f"/v1/tasks/{id}/events?{query}")[0] == 400, query


def test_wait_answers_at_the_end_or_when_its_time_is_up(site):
    id = site.submit(HOLD)
    task = site.get(f"/v1/tasks/{id}/wait?timeout=0")
    assert task["done"] is False
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(site.get(f"/v1/tasks/{id}/wait?timeout=120"))) for _ in range(40)]
    [t.start() for t in threads]
    site.release(id)
    [t.join(120) for t in threads]
    assert len(answers) == 40 and all(a["done"] and a["status"] == "DONE" for a in answers)


def test_who_waited_for_an_end_finds_all_of_it_in_the_tasks_directory(site):
    ids = [site.submit(f"echo {n} > made.txt") for n in range(12)]
    wrong = []

    def look(id):
        task = site.get(f"/v1/tasks/{id}/wait?timeout=120")
        last = (site.directory(id) / "events.jsonl").read_text().splitlines()[-1]
        whole = json.loads(last)["type"] == "task.done" and "status: DONE" in (site.directory(id) / "task.yaml").read_text()
        if not (task["done"] and whole and (site.directory(id) / "artifacts/diff.patch").read_bytes() == site.patch(id)):
            wrong.append((id, task["status"], last))
    threads = [threading.Thread(target=look, args=[id]) for id in ids]
    [t.start() for t in threads]
    [t.join(120) for t in threads]
    assert not wrong and not any(t.is_alive() for t in threads), wrong


def test_a_task_is_shown_with_all_its_members(site):
    task = site.run("echo hello > f", name="shown", labels={"team": "a"}, priority=3)
    assert {"id", "name", "project", "created_by", "session_id", "status", "phase", "reason", "error", "progress", "prompt", "agent", "model", "environment", "priority",
            "labels", "source", "repo", "created_at", "started_at", "completed_at", "last_heartbeat", "last_seq", "run", "result", "directory"} <= set(task)
    assert task["created_at"] <= task["started_at"] <= task["completed_at"] and task["created_at"].endswith("Z")
    assert task["progress"] is None  # "collecting" was its last
    status, gone = site.call("GET", f"/v1/tasks/shown/events?after={task['last_seq'] + 1}")
    assert (status, gone["code"], gone["oldest"]) == (410, "gone", 1)
    assert site.get("/v1/tasks/shown")["id"] == task["id"]
    runs = site.get(f"/v1/tasks/{task['id']}/runs")["data"]
    assert len(runs) == 1 and site.get(f"/v1/runs/{runs[0]['id']}")["task"] == task["id"]
    listed = {a["path"] for a in site.get(f"/v1/tasks/{task['id']}/artifacts")["data"]}
    assert {"diff.patch", "prompt.txt"} <= listed, listed
    for name in listed:
        assert site.call("GET", f"/v1/tasks/{task['id']}/artifacts/{name}")[0] == 200, name
    assert site.call("GET", f"/logs/shown/prompt.txt")[1] == "echo hello > f"
    for path in ("../task.yaml", "..%2Ftask.yaml", "%2e%2e/%2e%2e/spec.json", "nothing.txt", "/etc/passwd"):
        assert site.call("GET", f"/v1/tasks/{task['id']}/artifacts/{path}")[0] in (400, 404), path


def test_lists_are_newest_first_in_pages_and_can_be_filtered(site):
    ids = [site.run(f"echo {n}", labels={"set": "listed", "n": str(n)})["id"] for n in range(5)]
    held = site.submit(HOLD, labels={"set": "listed"})
    wait_for("it to run", lambda: site.task(held)["status"] == "RUNNING")
    got, after = [], ""
    while after is not None:
        page = site.get(f"/v1/tasks?label=set%3Dlisted&limit=2&after={after}")
        assert len(page["data"]) <= 2
        got += [t["id"] for t in page["data"]]
        after = page["next_cursor"]
    assert got == [held, *reversed(ids)]
    assert [t["id"] for t in site.get("/v1/tasks?label=n%3D3")["data"]] == [ids[3]]
    assert [t["id"] for t in site.get("/v1/tasks?state=RUNNING,QUEUED")["data"]] == [held]
    assert held not in [t["id"] for t in site.get("/v1/tasks?state=DONE&limit=100")["data"]]
    assert site.call("GET", "/v1/tasks?state=ASLEEP")[0] == 400
    site.release(held)
    site.wait(held)


def test_a_name_that_two_repositories_use_is_asked_back(site):
    repos = [site.path("one"), site.path("two")]
    ids = []
    for repo in repos:
        site.sh("echo a > a; git init -q; git add -A; git commit -qm x", repo)
        ids.append(site.run("echo x", {"kind": "local", "dir": str(repo)}, name="twice")["id"])
    status, body = site.call("GET", "/v1/tasks/twice")
    assert status == 409 and all(id in body["hint"] for id in ids), body


def test_a_queued_task_says_what_it_waits_for(new_site):
    site = new_site(model=False, config={"limits": {"running": 2, "running_per_repository": 1}})
    repo = site.path("one")
    site.sh("echo a > a; git init -q; git add -A; git commit -qm x", repo)
    here = {"kind": "local", "dir": str(repo)}
    held = [site.submit(HOLD, here)]
    wait_for("the first", lambda: site.task(held[0])["status"] == "RUNNING")
    second = site.submit("true", here)
    assert site.task(second)["waits_for"] == "a place in its repository: 1 tasks are at work there (limits.running_per_repository 1)"
    held.append(site.submit(HOLD))
    wait_for("the other", lambda: site.task(held[1])["status"] == "RUNNING")
    assert site.task(second)["waits_for"] == "a place: 2 tasks are at work (limits.running 2)"
    assert "a place: 2 tasks are at work" in site.cli("show", second).stdout
    assert site.task(held[0])["waits_for"] is None
    for id in held:
        site.release(id)
    assert site.wait(second)["status"] == "DONE" and site.task(second)["waits_for"] is None
    paused = site.submit("exit 7", retry={"attempts": 1, "initial_ms": 60000, "cap_ms": 60000, "jitter_percent": 0})
    task = wait_for("its pause", lambda: (t := site.task(paused))["status"] == "QUEUED" and t["run"] and t["waits_for"] and "attempt" in t["waits_for"] and t)
    assert task["waits_for"].startswith("its next attempt, in "), task
    site.call("POST", f"/v1/tasks/{paused}/cancel", {})


def test_cancel_in_the_queue_during_the_setup_and_during_the_run_keeps_what_was_done(new_site):
    site = new_site(model=False, config={"limits": {"running": 1}})
    running = site.submit(f"echo made > made.txt; echo said; {HOLD}")
    wait_for("the agent", lambda: site.events(running, "message.done"))
    queued = site.submit("echo never")
    assert site.task(queued)["status"] == "QUEUED" and site.task(queued)["queue_position"] == 1
    status, task = site.call("POST", f"/v1/tasks/{queued}/cancel", {})
    assert status in (200, 202) and site.task(queued)["status"] == "CANCELED"
    status, task = site.call("POST", f"/v1/tasks/{running}/cancel", {})
    assert status == 202
    task = site.wait(running)
    assert task["status"] == "CANCELED", site.story(running)
    assert [f["path"] for f in task["result"]["files"]] == ["made.txt"] and b"made.txt" in site.patch(running)
    assert site.call("POST", f"/v1/tasks/{running}/cancel", {})[0] == 200
    setup = site.submit("echo never", setup=f"echo preparing; {HOLD}")
    wait_for("the setup", lambda: site.task(setup)["phase"] == "setup")
    assert site.call("POST", f"/v1/tasks/{setup}/cancel", {})[0] == 202
    task = site.wait(setup)
    assert task["status"] == "CANCELED" and site.events(setup, "run.started") == [], site.story(setup)
    for id in (queued, running, setup):
        assert [e["type"] for e in site.events(id)].count("task.done") == 1
    assert site.cli("wait", running).returncode == 3


def test_an_agent_that_ignores_the_cancel_is_ended_all_the_same(site):
    id = site.submit("trap '' INT TERM; echo said; while :; do sleep 0.05; done")
    wait_for("the agent", lambda: site.events(id, "message.done"))
    site.call("POST", f"/v1/tasks/{id}/cancel", {})
    assert site.wait(id)["status"] == "CANCELED"


def test_a_timeout_is_told_as_one(site):
    task = site.run("echo made > made.txt; sleep 1000", status="TIMEOUT", timeout_ms=10000)
    assert task["reason"] == "run_timeout" and b"made.txt" in site.patch(task["id"])
    assert site.cli("wait", task["id"]).returncode == 124


def test_delete_is_refused_while_it_lives_and_removes_everything_afterwards(site):
    id = site.submit(f"echo said; {HOLD}")
    wait_for("the agent", lambda: site.events(id, "message.done"))
    status, body = site.call("DELETE", f"/v1/tasks/{id}")
    assert status == 409 and "cancel" in body["hint"], body
    site.release(id)
    site.wait(id)
    assert site.call("DELETE", f"/v1/tasks/{id}")[0] == 204
    assert site.call("GET", f"/v1/tasks/{id}")[0] == 404 and site.call("GET", f"/v1/tasks/{id}/events")[0] == 404
    wait_for("its directory to go", lambda: not site.directory(id).exists())


def test_health_readiness_version_and_metrics(site):
    assert site.call("GET", "/healthz") == (200, "ok\n")
    assert site.get("/readyz")["ready"] is True
    checks = {c["name"]: c for c in site.get("/readyz?verbose")["checks"]}
    assert {"database", "disk", "walls", "layers", "limits"} <= set(checks) and checks["walls"]["ok"]
    assert site.get("/version")["pid"] == site.server.pid
    text = site.get("/metrics")
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert {"signalbox_tasks_submitted_total", "signalbox_runs_ended_total", "signalbox_events_ingested_total"} <= names
    assert all(len(line.rsplit(" ", 1)) == 2 and float(line.rsplit(" ", 1)[1]) >= 0 for line in text.splitlines() if not line.startswith("#"))


def test_what_is_not_there_and_what_is_not_allowed_is_told_as_a_problem(site):
    for method, path, wanted in (("GET", "/v1/nothing", 404), ("GET", "/v1/tasks/none", 404), ("PUT", "/v1/tasks", 405), ("POST", "/v1/tasks/none/cancel", 404), ("GET", "/v1/runs/none", 404)):
        status, body = site.call(method, path, {} if method in ("PUT", "POST") else None)
        assert status == wanted and body["status"] == wanted and body["code"] and body["detail"], (path, status, body)


def tcp(site):
    line = wait_for("the address", lambda: next((l for l in site.log("server").splitlines() if l.startswith("http://127.0.0.1:")), None))
    port = int(line.rsplit(":", 1)[1])
    return port, (site.data / "token").read_text().strip()


def test_tcp_wants_a_token_a_host_and_an_origin_of_its_own(site):
    port, token = tcp(site)
    host, auth = {"Host": f"127.0.0.1:{port}"}, {"Authorization": f"Bearer {token}"}
    assert os.stat(site.data / "token").st_mode & 0o777 == 0o600
    assert tcp_call(port, "GET", "/v1/tasks", {**host, **auth})[0] == 200
    assert tcp_call(port, "GET", "/v1/tasks", {"Host": f"localhost:{port}", **auth})[0] == 200
    assert tcp_call(port, "GET", "/healthz", host)[0] == 200
    for headers in (host, {**host, "Authorization": "Bearer wrong"}, {**host, "Authorization": f"Basic {token}"}, {**host, "Authorization": f"Bearer {token}x"},
                    {"Host": "evil.example", **auth}, {"Host": f"evil.example:{port}", **auth}, auth,
                    {**host, **auth, "Origin": "http://evil.example"}, {**host, **auth, "Origin": "null"}, {**host, **auth, "Origin": f"http://127.0.0.1:{port}.evil.example"}):
        status, body = tcp_call(port, "GET", "/v1/tasks", headers)
        assert status in (400, 401, 403), (headers, status)
        assert token.encode() not in body
    assert tcp_call(port, "GET", "/v1/tasks", {**host, **auth, "Origin": f"http://127.0.0.1:{port}"})[0] == 200
    for path in ("/metrics", "/v1/doctor", "/logs/x/prompt.txt", "/v1/agents"):
        assert tcp_call(port, "GET", path, host)[0] in (401, 403), path
    assert tcp_call(port, "POST", "/runner/v1/runs/x/events", {**host, **auth}, b"{}")[0] == 404, "runners have a door of their own"


def test_the_command_line_reaches_a_server_by_tcp_with_its_token(site):
    port, token = tcp(site)
    url = f"http://127.0.0.1:{port}"
    done = site.cli("--server", url, "--token", token, "run", "--repo", "-", "--agent", "command", "echo hello")
    assert done.returncode == 0, done.stderr
    denied = site.cli("--server", url, "--token", "wrong", "ls")
    assert denied.returncode == 4 and "token" in denied.stderr, denied.stderr
    site.tasks |= {t["id"] for t in site.get("/v1/tasks?limit=5")["data"]}


def test_the_socket_is_for_its_owner(site):
    mode = os.stat(site.runtime / "signalbox.sock").st_mode
    assert mode & 0o077 == 0


def test_readers_that_stall_or_vanish_do_no_harm(site):
    id = site.submit(f"echo one; {HOLD}; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo a line of some length that fills buffers $i; done")
    stalled = []
    for _ in range(30):
        s = socket.socket(socket.AF_UNIX)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(str(site.runtime / "signalbox.sock"))
        s.sendall(f"GET /v1/tasks/{id}/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode())
        stalled.append(s)
    wait_for("the agent", lambda: site.events(id, "message.done"))
    site.release(id)
    assert site.wait(id)["status"] == "DONE"
    assert [i for e, i, _ in sse(site, id) if e is None] == [e["seq"] for e in site.events(id)]
    for s in stalled:
        with contextlib.suppress(OSError):
            s.close()
    assert site.is_up()
