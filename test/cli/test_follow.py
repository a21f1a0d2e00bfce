"""run, wait and events -f: the stream, its interruptions, and the exit statuses."""

import json
import os
import signal
import subprocess
import threading

import pytest
from conftest import DEADLINE, PROGRAM, TASK_ID, make_event, make_task

STEPS = [
    ("task.created", {"name": None, "agent": "fake"}), ("task.queued", {"position": 1}), ("run.started", {"n": 1, "attempt": 1}),
    ("run.phase", {"from": "claimed", "to": "fetching"}), ("workspace.fetched", {"commit": "8c2ab1c0ffee0000", "branch": "main", "files": 3}),
    ("run.phase", {"from": "preparing", "to": "running"}), ("message.done", {"text": "I look at it."}),
    ("command.started", {"id": "c1", "command": "/bin/bash -lc 'npm test'"}),
    ("command.finished", {"id": "c1", "exit_code": 1, "status": "failed", "output": "x"}),
    ("file.changed", {"changes": [{"path": "/workspace/a.txt", "kind": "update"}, {"path": "b.txt", "kind": "add"}]}),
    ("todo.snapshot", {"items": [{"id": "1", "text": "read", "status": "completed"}, {"id": "2", "text": "fix", "status": "in_progress"}]}),
    ("todo.snapshot", {"items": [{"id": "1", "text": "read", "status": "completed"}, {"id": "2", "text": "fix", "status": "completed"}]}),
    ("message.done", {"text": json.dumps({"status": "success", "summary": "Done."})}),
    ("command.finished", {"id": "v", "step": "verify", "command": "make test", "exit_code": 2, "ms": 70, "output_tail": "one\ntwo\n"}),
    ("task.done", {"status": "DONE"}),
]


def story(fake, status="DONE", **members):
    fake.events = [make_event(i + 1, type, data, f"2026-11-20T10:00:{i:02}.000Z") for i, (type, data) in enumerate(STEPS)]
    fake.settle(status, result={"outcome": "success", "summary": "Done.", "files": [], "added": 0, "deleted": 0}, **members)


def test_run_tells_each_step_on_stderr_and_the_result_on_stdout(fake, signalbox):
    story(fake)
    r = signalbox("run", "--repo", "-", "do it")
    assert r.returncode == 0
    assert r.stdout == f"DONE  {TASK_ID}  in 42 s\n\nDone.\n" or r.stdout.startswith(f"DONE  {TASK_ID}  in ")
    lines = r.stderr.splitlines()
    assert lines[0].startswith(f"task {TASK_ID}")
    assert "  0:04  code 8c2ab1c0ff on main, 3 files" in lines
    assert "  0:06  > I look at it." in lines
    assert any(l.startswith("  0:08  $ npm test  [exit 1, 1") for l in lines), r.stderr
    assert "  0:09  ~ a.txt  + b.txt" in lines
    assert "  0:10  [x] read" in lines and "        [>] fix" in lines
    assert lines[lines.index("        [>] fix") + 1] == "  0:11  [x] fix"
    assert not any("summary" in l for l in lines)
    at = lines.index("  0:13  verify $ make test  [exit 2, 70 ms]")
    assert lines[at + 1:at + 3] == ["          one", "          two"]
    assert f"  more    signalbox show {TASK_ID}" in lines


PEOPLE = [
    ("gate.answered", {"gate": "g", "decision": {"decision": "answer", "actor": "user:ann", "answers": {"colour": ["blue"], "size": ["L", "XL"]}}}, "answered by user:ann: blue; L; XL"),
    ("gate.answered", {"gate": "g", "decision": {"decision": "answer", "actor": "user:ann", "answers": {"pw": ["***"]}}}, "answered by user:ann: ***"),
    ("gate.expired", {"gate": "g", "decision": {"decision": "expire", "then": "answer", "actor": "signalbox", "answers": {"c": ["red"]}}}, "expired by signalbox, answered: red"),
    ("gate.expired", {"gate": "g", "decision": {"decision": "expire", "then": "reject", "actor": "signalbox"}}, "expired by signalbox, goes on without"),
    ("gate.expired", {"gate": "g", "decision": {"decision": "expire", "then": "fail", "actor": "signalbox"}}, "expired by signalbox, the task ends"),
    ("message.refused", {"message": 2, "refused": "no turn of the agent is running"}, "not told now, but as the next turn: no turn of the agent is running"),
    ("task.interrupt_asked", {}, "asked to end its turn by runner"),
    ("agent.truncated", {"what": "line", "bytes": 3145728}, "a line of the agent was too long and is not read: 3 MB"),
    ("agent.truncated", {"what": "output", "bytes": 3145728, "kept": 67108864}, "the record of the agent's output is full, dropped: 3 MB"),
]


@pytest.mark.parametrize("type, data, line", PEOPLE)
def test_what_people_and_agents_have_to_say_to_each_other_is_told(fake, signalbox, type, data, line):
    fake.events = [make_event(1, type, data, "2026-11-20T10:00:00.000Z"), make_event(2, "task.done", {"status": "DONE"}, "2026-11-20T10:00:01.000Z")]
    fake.settle("DONE", result={"outcome": "success", "summary": "Done.", "files": [], "added": 0, "deleted": 0})
    shown = [l.strip().split("  ", 1)[-1] for l in signalbox("run", "--repo", "-", "x").stderr.splitlines()]
    assert line in shown, shown
    assert line.split(" by ")[0] in signalbox("events", TASK_ID).stdout


def test_what_is_typed_at_a_task_that_has_ended_is_told_as_not_said(fake, signalbox):
    fake.events = [make_event(1, "task.done", {"status": "DONE"}, "2026-11-20T10:00:00.000Z")]
    fake.settle("DONE", result={"outcome": "success", "summary": "Done.", "files": [], "added": 0, "deleted": 0})
    r = signalbox("attach", "-i", TASK_ID, stdin="go left\n")
    assert r.returncode == 0 and f"signalbox say {TASK_ID}" in r.stderr and not fake.sent("POST", f"/v1/tasks/{TASK_ID}/messages")


def test_run_with_json_prints_only_the_final_task_on_stdout(fake, signalbox):
    story(fake)
    r = signalbox("run", "--repo", "-", "--json", "-q", "do it")
    assert json.loads(r.stdout)["status"] == "DONE"
    assert r.stderr == ""


@pytest.mark.parametrize("status, reason, expected", [
    ("DONE", None, 0), ("ERROR", "agent_failed", 1), ("CANCELED", None, 3), ("TIMEOUT", None, 124), ("ERROR", "heartbeat_timeout", 125), ("WAITING", None, 9)])
def test_the_exit_status_tells_the_outcome(fake, signalbox, status, reason, expected):
    story(fake, status, reason=reason)
    assert signalbox("run", "--repo", "-", "x").returncode == expected
    assert signalbox("wait", TASK_ID).returncode == expected
    if status != "WAITING":  # there `events -f` goes on looking
        assert signalbox("events", "-f", TASK_ID).returncode == expected


def test_a_question_to_a_human_ends_run_with_the_gates_id_on_stdout(fake, signalbox):
    fake.events = [make_event(1, "gate.blocked", {"gate": "g-1", "text": "Blocked.", "questions": ["May I?"]}), make_event(2, "task.waiting", {})]
    fake.settle("WAITING", result={"questions": ["May I?"]})
    r = signalbox("run", "--repo", "-", "x")
    assert r.returncode == 9
    assert r.stdout.splitlines()[0] == "g-1"
    assert "May I?" in r.stdout


def test_a_stream_that_breaks_is_resumed_after_the_last_event_and_nothing_is_shown_twice(fake, signalbox):
    story(fake)
    cuts = []

    def broken(handler, query, ref):
        after = int(query["after"])
        cuts.append(after)
        rest = [e for e in fake.events if e["seq"] > after]
        handler.send_response(200)
        handler.send_header("Content-Type", "application/jsonl")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for event in rest[:5]:
            line = (json.dumps(event) + "\n").encode()
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        if len(rest) <= 5:
            handler.wfile.write(b"0\r\n\r\n")
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.shutdown(2) if len(rest) > 5 else None

    fake.on("GET", r"/v1/tasks/([^/]+)/events", broken)
    r = signalbox("events", "-f", TASK_ID)
    assert r.returncode == 0, r.stderr
    assert [int(l.split("\t")[0]) for l in r.stdout.splitlines()] == list(range(1, len(STEPS) + 1))
    assert cuts == [0, 5, 10]
    assert len(fake.sent("POST", "/v1/tasks")) == 0


def test_a_log_that_was_rebuilt_is_read_from_its_beginning(fake, signalbox):
    story(fake)
    normal = fake.get_events

    def gone(handler, query, ref):
        if query["after"] == "99":
            handler.problem(410, "gone", "the cursor is gone")
        else:
            normal(handler, query, ref)

    fake.on("GET", r"/v1/tasks/([^/]+)/events", gone)
    r = signalbox("events", "-f", "--after", "99", TASK_ID)
    assert r.returncode == 0 and r.stdout.startswith("1\t")


def test_events_with_json_are_the_lines_as_they_came(fake, signalbox):
    story(fake)
    for words in (["events"], ["events", "-f"]):
        lines = signalbox(*words, TASK_ID, "--json").stdout.splitlines()
        assert [json.loads(l) for l in lines] == fake.events


def test_events_after_a_number_leave_out_what_was_before(fake, signalbox):
    story(fake)
    assert signalbox("events", "--after", "12", TASK_ID).stdout.splitlines()[0].startswith("13\t")


def endless(fake):
    """A task whose stream says one thing and then stays open."""
    fake.tasks[TASK_ID].update(status="RUNNING", name="T-1")
    reached, leave = threading.Event(), threading.Event()

    def stream(handler, query, ref):
        handler.send_response(200)
        handler.send_header("Content-Type", "application/jsonl")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write((json.dumps(make_event(1, "message.done", {"text": "thinking"})) + "\n").encode())
        handler.wfile.flush()
        reached.set()
        leave.wait(DEADLINE)
        handler.close_connection = True

    def wait(handler, query, ref):
        reached.set()
        leave.wait(DEADLINE)
        handler.send_json(200, dict(fake.tasks[TASK_ID], done=False))

    fake.on("GET", r"/v1/tasks/([^/]+)/events", stream)
    fake.on("GET", r"/v1/tasks/([^/]+)/wait", wait)
    return reached, leave


@pytest.mark.parametrize("words, back", [
    (["run", "--repo", "-", "x"], "signalbox events -f T-1"), (["events", "-f", "T-1"], "signalbox events -f T-1"),
    (["wait", "T-1"], "signalbox wait T-1"), (["wait", "--any", "T-1", "T-1"], "signalbox wait T-1"), (["logs", "-f", "T-1"], "signalbox logs -f T-1")])
def test_an_interrupt_detaches_with_130_and_says_how_to_come_back(fake, environment, room, words, back):
    reached, leave = endless(fake)
    p = subprocess.Popen([PROGRAM, *words], env=environment, cwd=os.path.join(room, "work"), stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert reached.wait(DEADLINE)
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=DEADLINE)
    finally:
        leave.set()
        p.kill()
        p.wait()
    assert p.returncode == 130, err
    assert back in err
    assert fake.sent("POST", f"/v1/tasks/{TASK_ID}/cancel") == []


def test_wait_prints_each_task_with_its_status(fake, signalbox):
    fake.tasks = {"1": make_task(id="1", name="one", status="DONE"), "2": make_task(id="2", status="ERROR", error="it broke")}
    r = signalbox("wait", "one", "2")
    assert r.returncode == 1
    assert r.stdout == "one\tDONE\t1\t\n2\tERROR\t2\tit broke\n"


def test_wait_for_any_prints_the_one_that_is_done(fake, signalbox):
    fake.tasks = {"1": make_task(id="1", status="RUNNING"), "2": make_task(id="2", status="DONE")}
    leave = threading.Event()

    def wait(handler, query, ref):
        if ref == "1":
            leave.wait(DEADLINE)
        handler.send_json(200, fake.tasks[ref])

    fake.on("GET", r"/v1/tasks/([^/]+)/wait", wait)
    r = signalbox("wait", "--any", "1", "2")
    leave.set()
    assert (r.returncode, r.stdout.split("\t")[:2]) == (0, ["2", "DONE"])


def test_waits_own_time_is_exit_status_8_and_the_task_goes_on(fake, signalbox):
    fake.tasks[TASK_ID].update(status="RUNNING")
    r = signalbox("wait", "--timeout", "50ms", TASK_ID)
    assert r.returncode == 8 and "not done" in r.stderr
    r = signalbox("wait", "--any", "--timeout", "50ms", TASK_ID, TASK_ID)
    assert r.returncode == 8


def test_wait_for_terminal_goes_on_through_a_question(fake, signalbox):
    fake.tasks[TASK_ID].update(status="WAITING", last_seq=3)

    def stream(handler, query, ref):
        assert query["after"] == "3"
        fake.tasks[TASK_ID].update(status="DONE", last_seq=4)
        handler.send_bytes(200, "application/jsonl", (json.dumps(make_event(4, "task.done")) + "\n").encode())

    fake.on("GET", r"/v1/tasks/([^/]+)/events", stream)
    assert signalbox("wait", "--for", "gate", TASK_ID).returncode == 9
    assert signalbox("wait", "--for", "terminal", TASK_ID).returncode == 0
    assert signalbox("wait", "--for", "lunch", TASK_ID).returncode == 2


def test_a_stream_that_stays_open_while_a_human_is_asked_does_not_hold_run(fake, signalbox):
    fake.tasks[TASK_ID].update(status="RUNNING")
    events = [make_event(1, "message.done", {"text": "hm"}), make_event(2, "task.waiting"), make_event(3, "run.ended", {"outcome": "succeeded"})]
    leave = threading.Event()

    def stream(handler, query, ref):
        handler.send_response(200)
        handler.send_header("Content-Type", "application/jsonl")
        handler.send_header("Connection", "close")
        handler.end_headers()
        fake.tasks[TASK_ID].update(status="WAITING", last_seq=3)
        handler.wfile.write("".join(json.dumps(e) + "\n" for e in events if e["seq"] > int(query["after"])).encode())
        handler.wfile.flush()
        leave.wait(DEADLINE)

    fake.on("GET", r"/v1/tasks/([^/]+)/events", stream)
    r = signalbox("run", "--repo", "-", "x")
    leave.set()
    assert r.returncode == 9
