"""Tasks that Signalbox did not start: registered on the channel, over HTTP, by `signalbox report`, or seen in state files."""
import contextlib
import datetime
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading

import pytest
from channel_site import impatient, limit, new_site, site  # noqa: F401  (fixtures)
from e2e_site import PROGRAM, is_alive, wait_for
from ws_client import Closed

ROOT = pathlib.Path(__file__).resolve().parents[2]


def refused(site, code, **message):
    status, problem = site.call("POST", "/v1/external", message)
    assert status >= 400 and problem["code"] == code and problem["detail"], (status, problem)
    return problem


def state(site, task):
    return json.loads((site.directory(task) / "agents/main/state.json").read_text())


@contextlib.contextmanager
def kept_alive(site, *names):
    """Beats for them from a thread until the block ends."""
    stop = threading.Event()

    def beat():
        while not stop.wait(0.5):
            for name in names:
                site.call("POST", "/v1/external", {"type": "heartbeat", "taskId": name})
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# --- messages

def test_a_registered_agent_is_a_task_like_others(site):
    reply = site.report("register", taskId="alike", sessionId="s-1", name="tidy up", progress="reading")
    task = site.task("alike")
    assert reply == {"task": task["id"], "taskId": "alike", "live": True, "interrupt": False}
    assert (task["status"], task["phase"], task["agent"], task["session_id"], task["prompt"], task["progress"], task["run"]) == \
        ("RUNNING", "running", "external", "s-1", "tidy up", "reading", None)
    assert [e["type"] for e in site.events(task["id"])] == ["task.created", "run.phase", "task.progress"]
    wait_for("its state file", lambda: (site.directory(task["id"]) / "agents/main/state.json").exists())
    assert state(site, task["id"])["status"] == "RUNNING" and state(site, task["id"])["progress"] == "reading"
    site.report("complete", taskId="alike", summary="tidied", result={"filesChanged": ["a.c", "b.c"], "testsRun": 3, "testsPassed": 2})
    task = site.wait("alike")
    assert (task["status"], task["phase"], task["reason"]) == ("DONE", "succeeded", None)
    assert task["result"]["summary"] == "tidied" and [f["path"] for f in task["result"]["files"]] == ["a.c", "b.c"]
    assert task["result"]["claims"] == {"tests_run": 3, "tests_passed": 2}
    wait_for("the state file's end", lambda: state(site, task["id"])["status"] == "DONE")
    assert state(site, task["id"])["result"] == {"filesChanged": ["a.c", "b.c"], "testsRun": 3, "testsPassed": 2}
    assert site.log_file(task["id"]) == site.events(task["id"])
    assert (site.directory(task["id"]) / "task.yaml").exists() and site.call("GET", f"/v1/tasks/{task['id']}/runs")[1]["data"] == []


def test_an_error_and_a_cancellation_end_it_with_their_reason(site):
    site.external("failing")
    site.report("error", taskId="failing", error="no compiler")
    task = site.wait("failing")
    assert (task["status"], task["reason"], task["error"]) == ("ERROR", "agent_failed", "no compiler")
    site.external("leaving")
    site.report("canceled", taskId="leaving")
    assert site.wait("leaving")["status"] == "CANCELED"


def test_an_id_in_use_is_refused_and_nothing_changes(site):
    site.external("taken", progress="mine")
    before = site.task("taken")
    refused(site, "conflict", type="register", taskId="taken", sessionId="other", progress="theirs")
    refused(site, "conflict", type="register", taskId="taken", sessionId="s-taken")
    assert {k: v for k, v in site.task("taken").items() if k != "last_heartbeat"} == {k: v for k, v in before.items() if k != "last_heartbeat"}
    site.report("complete", taskId="taken")
    refused(site, "conflict", type="register", taskId="taken", sessionId="s")
    assert site.call("DELETE", "/v1/tasks/taken")[0] == 204
    site.external("taken")
    site.report("complete", taskId="taken")


def test_after_the_end_every_message_is_refused_and_nothing_changes(site):
    site.external("over")
    site.report("complete", taskId="over")
    before = site.task("over")
    for message in ({"type": "heartbeat"}, {"type": "progress", "progress": "x"}, {"type": "complete"}, {"type": "error", "error": "x"}, {"type": "canceled"}):
        assert "has ended (DONE)" in refused(site, "conflict", taskId="over", **message)["detail"]
    assert site.task("over") == before


@pytest.mark.parametrize("message", [
    {}, {"type": "x", "taskId": "bad"}, {"type": 1, "taskId": "bad"}, {"type": "register", "taskId": "bad"}, {"type": "register", "taskId": "bad", "sessionId": 1},
    {"type": "register", "taskId": "", "sessionId": "s"}, {"type": "register", "taskId": "../x", "sessionId": "s"}, {"type": "register", "taskId": "x y", "sessionId": "s"},
    {"type": "register", "taskId": "01m7wcjzbam6bxykmy98px21ej", "sessionId": "s"}, {"type": "register", "taskId": "bad", "sessionId": "s", "more": 1},
    {"type": "register", "taskId": "bad", "sessionId": "s", "dir": "relative"}, {"type": "register", "taskId": "bad", "sessionId": "s", "repo": "file"},
    {"type": "register", "taskId": "bad", "sessionId": "s", "repo": "https://a.example/b", "dir": "/tmp"}, {"type": "register", "taskId": "bad", "sessionId": "s", "progress": 5},
    {"type": "heartbeat", "taskId": 7}, {"type": "heartbeat", "taskId": "live", "progress": []}, {"type": "progress", "taskId": "live"},
    {"type": "error", "taskId": "live"}, {"type": "error", "taskId": "live", "error": ""}, {"type": "complete", "taskId": "live", "result": []},
    {"type": "complete", "taskId": "live", "result": {"filesChanged": "a"}}, {"type": "complete", "taskId": "live", "result": {"filesChanged": [1]}},
    {"type": "complete", "taskId": "live", "result": {"testsRun": -1}}, {"type": "complete", "taskId": "live", "result": {"testsRun": "1"}},
    {"type": "complete", "taskId": "live", "result": {"else": 1}}, {"type": "complete", "taskId": "live", "summary": {}}, {"type": "canceled", "taskId": "live", "why": "x"},
])
def test_a_message_that_is_not_well_formed_is_refused_and_nothing_changes(site, message):
    if site.call("GET", "/v1/tasks/live")[1].get("status") != "RUNNING":
        site.call("DELETE", "/v1/tasks/live")
        site.external("live")
    before = site.task("live")
    refused(site, "invalid", **message)
    assert site.task("live")["last_seq"] == before["last_seq"] and site.task("live")["status"] == "RUNNING"
    assert site.call("GET", "/v1/tasks/bad")[0] == 404


def test_texts_have_limits_that_are_named(site):
    site.external("texts")
    assert "1024" in refused(site, "limit", type="progress", taskId="texts", progress="x" * 1025)["detail"]
    assert "16384" in refused(site, "limit", type="error", taskId="texts", error="x" * 16385)["detail"]
    site.report("canceled", taskId="texts")


def test_another_session_cannot_speak_for_a_task(site):
    site.external("session")
    for type, more in (("heartbeat", {}), ("complete", {}), ("error", {"error": "x"})):
        refused(site, "conflict", type=type, taskId="session", sessionId="another", **more)
    assert site.task("session")["status"] == "RUNNING"
    site.report("complete", taskId="session", sessionId="s-session")


def test_a_run_of_signalbox_is_not_spoken_for(site):
    site.run("true", name="ours")
    assert "Signalbox itself" in refused(site, "conflict", type="heartbeat", taskId="ours")["detail"]
    refused(site, "not_found", type="heartbeat", taskId="nobody")


def test_the_same_name_in_two_places_is_two_tasks_told_apart_by_session_or_id(site):
    a, b = site.path("a"), site.path("b")
    one = site.report("register", taskId="twin", sessionId="1", dir=str(a))["task"]
    two = site.report("register", taskId="twin", sessionId="2", dir=str(b))["task"]
    assert site.report("progress", taskId="twin", sessionId="2", progress="second")["task"] == two
    assert site.report("complete", taskId=one)["task"] == one
    assert site.task(two)["progress"] == "second" and site.task(one)["status"] == "DONE"
    site.report("canceled", taskId=two)


def test_an_agent_in_a_directory_has_its_state_file_there_and_a_strangers_file_is_left_alone(site):
    repo = site.path("repo")
    task = site.external("mirrored", dir=str(repo))
    file = repo / ".codex/tasks/mirrored.json"
    wait_for("the state file", file.exists)
    assert json.loads(file.read_text())["taskId"] == task and (repo / ".codex/tasks/.gitignore").read_text() == "*\n"
    site.report("complete", taskId="mirrored")
    wait_for("its end", lambda: json.loads(file.read_text())["status"] == "DONE")
    theirs = repo / ".codex/tasks/theirs.json"
    theirs.write_text('{"taskId": "theirs", "sessionId": "x", "status": "DONE"}')
    site.external("theirs", dir=str(repo))
    site.report("complete", taskId="theirs")
    wait_for("the record", lambda: state(site, site.task("theirs")["id"])["status"] == "DONE")
    assert json.loads(theirs.read_text())["sessionId"] == "x"


# --- silence, interrupt, restarts

def test_silence_ends_it_as_lost_with_exit_status_125_and_beats_keep_it_alive(impatient):
    impatient.external("silent")
    impatient.external("beating")
    with kept_alive(impatient, "beating"):
        done = impatient.cli("wait", "silent")
        assert done.returncode == 125, done.stderr
        task = impatient.task("silent")
        assert (task["status"], task["phase"], task["reason"]) == ("ERROR", "lost", "heartbeat_timeout")
        wait_for("the state file", lambda: state(impatient, task["id"])["status"] == "ERROR")
        assert impatient.task("beating")["status"] == "RUNNING"
        assert state(impatient, impatient.task("beating")["id"])["status"] == "RUNNING"
    refused(impatient, "conflict", type="heartbeat", taskId="silent")
    impatient.report("complete", taskId="beating")


def test_an_agent_on_the_channel_hears_interrupt_and_ends_canceled_when_it_says_so(site):
    with site.ws() as agent:
        task = agent.ask("register", taskId="asked", sessionId="s")["task"]
        status, reply = site.call("POST", f"/v1/tasks/{task}/cancel", {})
        assert status == 202 and reply["status"] == "RUNNING"
        assert agent.receive() == {"type": "interrupt", "task": task, "taskId": "asked"}
        assert agent.ask("heartbeat", taskId="asked")["interrupt"] is True
        assert agent.ask("error", taskId="asked", error="stopped in the middle")["type"] == "ok"
    task = site.wait(task)
    assert (task["status"], task["reason"], task["error"]) == ("CANCELED", "canceled", "stopped in the middle")


def test_one_that_was_asked_and_falls_silent_is_canceled_and_one_that_completes_all_the_same_is_done(impatient):
    for name in ("mute", "stubborn"):
        impatient.external(name)
        impatient.call("POST", f"/v1/tasks/{name}/cancel", {})
    assert impatient.report("heartbeat", taskId="stubborn")["interrupt"] is True
    impatient.report("complete", taskId="stubborn")
    assert impatient.task("stubborn")["status"] == "DONE"
    assert impatient.wait("mute")["status"] == "CANCELED"


def test_an_agent_that_comes_back_on_a_new_connection_still_hears_interrupt(site):
    with site.ws() as agent:
        agent.ask("register", taskId="roaming", sessionId="s")
    site.call("POST", "/v1/tasks/roaming/cancel", {})
    with site.ws() as agent:
        reply = agent.ask("heartbeat", taskId="roaming")
        assert reply["interrupt"] is True
        assert (agent.between + [agent.receive()])[0]["type"] == "interrupt"
        agent.ask("canceled", taskId="roaming")
    assert site.wait("roaming")["status"] == "CANCELED"


def test_an_agent_on_the_channel_is_told_when_its_task_was_ended_for_silence(impatient):
    with impatient.ws() as agent:
        task = agent.ask("register", taskId="sleepy", sessionId="s")["task"]
        assert agent.until(type="end")[-1] == {"type": "end", "task": task, "taskId": "sleepy", "status": "ERROR", "reason": "heartbeat_timeout"}


def test_it_survives_a_restart_of_the_server_with_a_whole_new_limit(new_site):
    site = new_site(config=limit(15))
    site.external("goes-on", progress="half")
    site.external("stays-silent")
    site.call("POST", "/v1/tasks/goes-on/cancel", {})
    seqs = [e["seq"] for e in site.events("goes-on")]
    site.kill_server()
    site.start_server()
    assert site.task("goes-on")["status"] == "RUNNING" and [e["seq"] for e in site.events("goes-on")] == seqs
    assert site.report("heartbeat", taskId="goes-on")["interrupt"] is True, "that it was asked to end is not forgotten"
    site.report("complete", taskId="goes-on")
    assert site.task("goes-on")["status"] == "DONE"
    assert site.wait("stays-silent")["reason"] == "heartbeat_timeout"


def test_a_thousand_agents_beat_and_end_once(new_site):
    site = new_site(config={})
    with site.ws() as w:
        for i in range(1000):
            w.send({"type": "register", "taskId": f"n-{i}", "sessionId": "s"})
            if i % 100 == 99:
                assert all(w.receive()["type"] == "ok" for _ in range(100))
        for i in range(1000):
            w.send({"type": "heartbeat", "taskId": f"n-{i}"})
            assert w.receive()["live"] is True
        for i in range(1000):
            w.send({"type": "complete", "taskId": f"n-{i}"})
            assert w.until(type="ok")[-1]["live"] is False
    for i in (0, 499, 999):
        assert [e["type"] for e in site.events(f"n-{i}")].count("task.done") == 1


# --- signalbox report

def test_report_does_from_a_shell_what_the_channel_does(site):
    done = site.cli("report", "register", "sh-1", "--title", "by hand", "--session", "me", "--progress", "begun")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [site.task("sh-1")["id"], "me"]
    assert site.cli("report", "progress", "sh-1", "half way").returncode == 0
    assert site.task("sh-1")["progress"] == "half way"
    assert site.cli("report", "heartbeat", "sh-1").returncode == 0
    done = site.cli("report", "complete", "sh-1", "all of it", "--file", "a", "--file", "b", "--tests-run", 2, "--tests-passed", 1)
    assert done.returncode == 0, done.stderr
    task = site.task("sh-1")
    assert task["status"] == "DONE" and [f["path"] for f in task["result"]["files"]] == ["a", "b"] and task["result"]["claims"]["tests_passed"] == 1
    assert site.cli("report", "heartbeat", "sh-1").returncode == 6
    assert site.cli("report", "heartbeat", "nobody").returncode == 5


@pytest.mark.parametrize("words", [["nonsense"], ["register"], ["progress"], ["error", "x"], ["register", "a", "b"], ["run"], ["complete", "a", "b", "c"]])
def test_report_tells_what_it_needs(site, words):
    done = site.cli("report", *words)
    assert done.returncode == 2 and "try:" in done.stderr, done


def test_report_run_reports_the_life_of_a_command(site):
    done = site.cli("report", "run", "--task", "cmd-ok", "--title", "say", "--", "sh", "-c", 'echo "$TASK_ID"; cat', stdin="in")
    assert (done.returncode, done.stdout) == (0, "cmd-ok\nin"), done.stderr
    assert site.task("cmd-ok")["status"] == "DONE" and site.task("cmd-ok")["prompt"] == "say"
    done = site.cli("report", "run", "--task", "cmd-bad", "--", "sh", "-c", "exit 7")
    assert done.returncode == 7 and site.task("cmd-bad")["error"] == "sh ended with status 7"
    done = site.cli("report", "run", "--task", "cmd-none", "--", "/nonexistent/program")
    assert done.returncode != 0 and site.task("cmd-none")["status"] == "ERROR"


def start_report(site, name, script):
    return subprocess.Popen([str(PROGRAM), "report", "run", "--task", name, "--every", "1s", "--", "sh", "-c", script], env=site.environment(), stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_report_run_beats_while_its_command_lives_and_lets_it_be_interrupted(site):
    child = start_report(site, "cmd-long", "trap 'exit 9' INT; echo $$; while :; do sleep 0.1; done")
    pid = int(child.stdout.readline())
    first = wait_for("the task", lambda: site.call("GET", "/v1/tasks/cmd-long")[1].get("last_heartbeat"))
    wait_for("a later beat", lambda: site.get("/v1/external")["data"] and site.task("cmd-long")["last_heartbeat"] > first)
    site.call("POST", "/v1/tasks/cmd-long/cancel", {})
    assert site.wait("cmd-long")["status"] == "CANCELED"
    _, talk = child.communicate(timeout=120)
    assert child.returncode == 9 and "asked to end" in talk and not is_alive(pid)


def test_report_run_that_is_killed_is_lost_and_its_server_may_be_away_meanwhile(new_site):
    site = new_site(config=limit(10))
    killed = start_report(site, "cmd-killed", "echo $$; exec sleep 600")
    pid = int(killed.stdout.readline())
    killed.kill()
    assert killed.wait(120) == -signal.SIGKILL
    os.kill(pid, signal.SIGKILL)
    killed.communicate()
    assert site.wait("cmd-killed")["reason"] == "heartbeat_timeout"
    flag = site.dir / "flag"
    survivor = start_report(site, "cmd-survivor", f"echo on; while [ ! -e {flag} ]; do sleep 0.1; done")
    survivor.stdout.readline()
    site.kill_server()
    flag.write_text("")
    site.start_server()
    _, talk = survivor.communicate(timeout=120)
    assert survivor.returncode == 0 and site.wait("cmd-survivor")["status"] == "DONE", talk


# --- state files of other programs

def now(**ago):
    return (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(**ago)).isoformat()


def put(directory, name, **doc):
    """As a careful program does: written beside and renamed."""
    doc = {"taskId": name, "sessionId": "f-" + name, "status": "RUNNING", "startTime": now(seconds=2), "lastHeartbeat": now(), **doc}
    path = directory / ".codex/tasks" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_suffix(".tmp")
    tmp.write_text(json.dumps(doc))
    tmp.rename(path)
    return path


@pytest.fixture(scope="module")
def watched(site):
    """A repository that the server knows since a task came from it."""
    repo = site.path("watched")
    site.run("true", {"kind": "local", "dir": str(repo)})
    return repo


def shown(site, name, **members):
    """The task of that name, when it is shown with these members."""
    def look():
        site.get("/v1/external")  # has the files looked at
        status, task = site.call("GET", f"/v1/tasks/{name}")
        return status == 200 and all(task.get(k) == v for k, v in members.items()) and task
    return wait_for(f"{name} {members}", look)


class Keeper:
    """A program that keeps state files fresh."""

    def __init__(self, directory, **docs):
        self.directory, self.docs, self.stop = directory, docs, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while True:
            for name, doc in list(self.docs.items()):
                put(self.directory, name, **doc)
            if self.stop.wait(1):
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def test_state_files_are_followed_and_never_written(new_site):
    site = new_site()
    repo = site.path("followed")
    site.run("true", {"kind": "local", "dir": str(repo)})
    with Keeper(repo, **{"f-run": {"progress": "one"}, "f-wait": {"status": "PENDING"}}) as keeper:
        task = shown(site, "f-run", status="RUNNING", phase="running", progress="one")
        assert (task["agent"], task["session_id"], task["created_by"]) == ("external", "f-f-run", "state-file") and task["source"]["dir"] == str(repo)
        assert shown(site, "f-wait")["phase"] == "claimed"
        keeper.docs["f-run"]["progress"] = "two"
        keeper.docs["f-wait"]["status"] = "RUNNING"
        shown(site, "f-run", progress="two")
        shown(site, "f-wait", phase="running")
        refused(site, "conflict", type="heartbeat", taskId="f-run")
        keeper.docs["f-run"].update(status="DONE", completedTime=now(), result={"filesChanged": ["x"], "testsRun": 1, "testsPassed": 1})
        keeper.docs["f-wait"].update(status="ERROR", error="it broke")
        task = shown(site, "f-run", status="DONE")
        assert task["result"]["files"][0]["path"] == "x"
        assert shown(site, "f-wait", status="ERROR")["error"] == "it broke"
    text = (repo / ".codex/tasks/f-run.json").read_text()
    assert json.loads(text)["sessionId"] == "f-f-run", "theirs, as they left it"
    assert site.get("/v1/external")["findings_total"] == 0
    assert [e["type"] for e in site.events(task["id"])].count("task.done") == 1


def test_a_stale_state_file_is_a_lost_task_and_a_canceled_one_ends_when_it_falls_silent(site, watched):
    put(watched, "f-stale", lastHeartbeat=now(minutes=5))
    put(watched, "f-timeout", status="TIMEOUT")
    task = shown(site, "f-stale", status="ERROR")
    assert (task["phase"], task["reason"]) == ("lost", "heartbeat_timeout")
    assert site.cli("wait", "f-stale").returncode == 125
    assert shown(site, "f-timeout", status="TIMEOUT")["phase"] == "timed_out"


def test_garbage_is_ignored_with_one_finding_each(new_site):
    site = new_site()
    repo = site.path("garbage")
    tasks = repo / ".codex/tasks"
    tasks.mkdir(parents=True)
    old = datetime.datetime.now().timestamp() - 60
    bad = {"not-json": "{", "list": "[]", "empty": "", "no-task": '{"status":"RUNNING"}', "bad-status": '{"taskId":"a","status":"FLYING"}',
           "bad-time": '{"taskId":"b","status":"RUNNING","lastHeartbeat":"yesterday"}', "bad-type": '{"taskId":"c","status":"RUNNING","progress":7}',
           "bad-result": '{"taskId":"d","status":"DONE","result":{"testsRun":"many"}}', "utf8": b'{"taskId":"\xff"}', "large": " " * 300_000,
           "nul": '{"taskId":"x\\u0000y","status":"RUNNING"}'}
    for name, text in bad.items():
        (tasks / f"{name}.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    (tasks / "link.json").symlink_to("/etc/passwd")
    os.mkfifo(tasks / "fifo.json")
    (tasks / "directory.json").mkdir()
    for path in tasks.iterdir():
        os.utime(path, (old, old), follow_symlinks=False)
    put(repo, "good")
    site.run("true", {"kind": "local", "dir": str(repo)}, name="ours")
    shown(site, "good")
    expected = len(bad) + 3
    wait_for("the findings", lambda: site.get("/v1/external")["findings_total"] == expected)
    put(repo, "good-2")
    shown(site, "good-2")  # another scan has been
    found = site.get("/v1/external")
    assert found["findings_total"] == expected and {pathlib.Path(f["file"]).stem for f in found["findings"]} == set(bad) | {"link", "fifo", "directory"}
    assert {t["name"] for t in site.get("/v1/tasks")["data"]} == {"ours", "good", "good-2"}
    assert site.metric("signalbox_state_file_findings_total") == expected


def test_a_linked_directory_of_state_files_is_not_entered(new_site):
    site = new_site()
    repo, elsewhere = site.path("linked"), site.path("elsewhere")
    put(elsewhere, "hidden")
    (repo / ".codex").symlink_to(elsewhere / ".codex")
    other = site.path("plain")
    site.run("true", {"kind": "local", "dir": str(repo)})
    site.run("true", {"kind": "local", "dir": str(other)})
    put(other, "plain")
    shown(site, "plain")
    assert site.call("GET", "/v1/tasks/hidden")[0] == 404


def test_followed_files_survive_a_restart_and_are_not_shown_twice(new_site):
    site = new_site()
    repo = site.path("again")
    site.run("true", {"kind": "local", "dir": str(repo)})
    with Keeper(repo, **{"f-again": {}}) as keeper:
        put(repo, "f-ended", status="DONE")
        shown(site, "f-again")
        shown(site, "f-ended", status="DONE")
        site.kill_server()
        site.start_server()
        keeper.docs["f-again"]["progress"] = "after"
        shown(site, "f-again", progress="after")
        keeper.docs["f-again"]["status"] = "DONE"
        shown(site, "f-again", status="DONE")
    assert sorted(t["name"] for t in site.get("/v1/tasks")["data"] if t["name"]) == ["f-again", "f-ended"]
    assert site.get("/v1/external")["findings_total"] == 0


# --- for agents that manage projects

def test_the_shell_functions_of_the_documentation_dispatch_and_wait(impatient):
    repo = impatient.path("dispatch")
    script = f'''
        set -e
        . {ROOT}/doc/dispatch.sh
        id=$(Start_CodexTask T-100 "exit 0" --agent command --repo -)
        Wait_TaskCompletion 100 T-100
        echo "first $?"
        Start_CodexTask T-101 "exit 3" --agent command --repo - > /dev/null
        Wait_TaskCompletion 100 T-101 || echo "second $?"
        Start_CodexTask T-102 "sleep 600" --agent command --repo - > /dev/null
        Wait_TaskCompletion 1 T-102 || echo "third $?"
        signalbox cancel T-102 > /dev/null
        signalbox report register T-103 > /dev/null
        Wait_TaskCompletion 100 T-103 || echo "fourth $?"
        Get_TaskStatus T-100
    '''
    path = f"{PROGRAM.parent}:/usr/bin:/bin"
    for shell in ("dash", "bash"):
        if not shutil.which(shell):
            continue
        for name in ("T-100", "T-101", "T-102", "T-103"):
            impatient.call("DELETE", f"/v1/tasks/{name}")
        done = subprocess.run([shell, "-c", script], cwd=repo, env=impatient.environment(PATH=path), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400)
        lines = done.stdout.splitlines()
        assert [line for line in lines if line.split()[0] in ("first", "second", "third", "fourth")] == ["first 0", "second 1", "third 8", "fourth 125"], done
        assert lines[-1] == "DONE"
    done = subprocess.run(["bash", "-c", f". {ROOT}/doc/dispatch.sh; type Start-CodexTask Wait-TaskCompletion"], capture_output=True, text=True, env=impatient.environment(PATH=path))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("doc, status", [
    ({"status": "DONE"}, 0), ({"status": "ERROR"}, 1), ({"status": "TIMEOUT"}, 124), ({"status": "RUNNING", "lastHeartbeat": now(minutes=2)}, 125),
    ({"status": "RUNNING"}, 8), ({"status": "PENDING"}, 8), (None, 8),
])
def test_the_shell_function_that_knows_only_the_state_file_tells_the_living_from_the_dead(tmp_path, doc, status):
    path = put(tmp_path, "T-1", **doc) if doc else tmp_path / "absent.json"
    done = subprocess.run(["sh", "-c", f". {ROOT}/doc/dispatch.sh; Wait_TaskFile {path} 1"], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done
