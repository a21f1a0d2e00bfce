"""Gates from the command line: listed, shown, settled by words, and asked at a terminal while a run is followed."""

import json
import os
import signal
import subprocess
import threading

import pytest
from conftest import DEADLINE, PROGRAM, TASK_ID, make_event
from desk import desks

GATE = "01kgate0000000000000000001"
OTHER = "01kgatf0000000000000000002"


def make_gate(gate=GATE, kind="command", choices=("approve", "approve_session", "reject", "abort"), **members):
    data = {"title": "Run: make install", "choices": list(choices)}
    data.update(members.pop("data", {"command": "/bin/bash -lc 'make install'", "cwd": "/workspace", "reason": "It installs."}))
    whole = {"id": gate, "task": TASK_ID, "name": None, "run": TASK_ID + ".main.1", "worker": "main", "kind": kind, "state": "blocked", "data": data,
             "created_at": "2026-11-20T10:00:00.000Z", "deadline_at": None, "at_deadline": None, "settled_at": None, "actor": None, "decision": None, "delivered_at": None}
    whole.update(members)
    return whole


def question(id="q1", text="Which colour?", options=(), **members):
    return {"id": id, "header": "", "text": text, "options": [{"label": o, "description": ""} for o in options], "free_text": not options, "secret": False, **members}


def question_gate(*questions, gate=GATE, **members):
    return make_gate(gate, "question", ("answer", "reject", "abort"), data={"title": questions[0]["text"], "questions": list(questions)}, **members)


class Gates:
    """The fake server's gates: settled once, by whom comes first."""

    def __init__(self, fake):
        self.rows = {}
        self.posts = []
        self.on_decision = lambda gate: None
        self.refuse = None
        fake.on("GET", r"/v1/gates", self.list)
        fake.on("GET", r"/v1/gates/([^/]+)", self.get)
        fake.on("POST", r"/v1/gates/([^/]+)/decision", self.decide)
        self.fake = fake

    def add(self, gate):
        self.rows[gate["id"]] = gate
        return gate

    def list(self, handler, query):
        rows = [g for g in self.rows.values() if query.get("state") in (None, g["state"]) and query.get("task") in (None, g["task"], g["name"])]
        handler.send_json(200, {"data": rows, "next_cursor": None})

    def get(self, handler, query, id):
        if id in self.rows:
            handler.send_json(200, self.rows[id])
        else:
            handler.problem(404, "not_found", f"gate '{id}' does not exist")

    def settle(self, id, state, actor="me", **decision):
        self.rows[id].update(state=state, actor=actor, settled_at="2026-11-20T10:01:00.000Z", decision={"id": "d1", "decision": "approve", **decision})

    def decide(self, handler, query, id):
        body = next(b for m, p, b, _ in reversed(self.fake.requests) if p == f"/v1/gates/{id}/decision")
        gate = self.rows.get(id)
        if gate is None:
            return handler.problem(404, "not_found", f"gate '{id}' does not exist")
        if gate["state"] != "blocked":
            return handler.problem(409, "conflict", f"gate {id} was {gate['state']} by {gate['actor']} at {gate['settled_at']}")
        if self.refuse:
            problem, self.refuse = self.refuse, None
            return handler.problem(422, "unprocessable", problem)
        self.posts.append(body)
        self.settle(id, {"approve": "approved", "reject": "rejected", "abort": "rejected", "answer": "answered"}[body["decision"]], decision=body["decision"], scope=body.get("scope", "once"))
        self.on_decision(gate)
        handler.send_json(200, gate)


@pytest.fixture
def gates(fake):
    return Gates(fake)


def test_gates_lists_what_waits_with_its_question(gates, signalbox):
    gates.add(make_gate(name="T-1", deadline_at="2030-01-01T00:00:00.000Z"))
    gates.add(question_gate(question(), question("q2", "And the size?"), gate=OTHER))
    r = signalbox("gates")
    rows = [line.split("\t") for line in r.stdout.splitlines()]
    assert [(row[0], row[1], row[2], row[4]) for row in rows] == [(GATE, "T-1", "command", "make install"), (OTHER, TASK_ID, "question", "Which colour? (and 1 more)")]
    assert "left" in rows[0][3] and "left" not in rows[1][3]


def test_gates_all_shows_the_settled_ones_as_well(gates, fake, signalbox):
    gates.add(make_gate())
    gates.settle(GATE, "approved")
    assert signalbox("gates").stdout == ""
    assert signalbox("gates", "--all").stdout.split("\t")[3] == "approved"
    signalbox("gates", "--task", "T-9")
    assert any("task=T-9" in path for _, path, _, _ in fake.requests)


def test_one_gate_is_shown_whole_and_nothing_in_it_reaches_the_terminal_raw(gates, signalbox):
    gates.add(make_gate(data={"command": "printf '\x1b[31mred\x1b[0m' \u202e; rm x", "cwd": "/work\x07", "reason": "be\x1bcause", "title": "t\x9bt"}))
    for words in (("gates", GATE), ("gates", "show", GATE), ("gates", "01kgate")):
        r = signalbox(*words)
        assert r.returncode == 0
        assert not set(r.stdout) & set("\x1b\u202e\x07\x9b")
        assert "rm x" in r.stdout and "signalbox approve " + GATE in r.stdout and "signalbox reject --abort " + GATE in r.stdout


def test_a_patch_is_shown_with_its_files_and_its_whole_diff(gates, signalbox):
    diff = "".join(f"+line {i}\n" for i in range(300))
    gates.add(make_gate(kind="patch", data={"files": [{"path": "a.c", "kind": "update"}, {"path": "b.c", "kind": "add"}], "diff": diff, "reason": "needed", "root": "/etc"}))
    out = signalbox("gates", GATE).stdout
    assert "update a.c" in out and "add b.c" in out and "+line 299" in out and "write below /etc" in out


def test_a_settled_gate_tells_by_whom_and_how(gates, signalbox):
    gates.add(question_gate(question()))
    gates.settle(GATE, "answered", actor="ann", decision="answer", answers={"q1": ["blue"]}, note="of course")
    out = signalbox("gates", GATE).stdout
    assert "answered by ann at" in out and "blue" in out and "of course" in out and "To reply" not in out


def test_approve_and_reject_send_what_they_say(gates, signalbox):
    for words, expected in [
        (("approve", GATE), {"decision": "approve"}),
        (("approve", GATE, "--session", "--note", "fine"), {"decision": "approve", "scope": "session", "note": "fine"}),
        (("reject", GATE), {"decision": "reject"}),
        (("reject", GATE, "too risky"), {"decision": "reject", "note": "too risky"}),
        (("reject", "--abort", "--note", "stop", GATE), {"decision": "abort", "note": "stop"}),
    ]:
        gates.add(make_gate())
        r = signalbox(*words)
        assert r.returncode == 0, r.stderr
        assert gates.posts[-1] == expected


def test_a_gate_may_be_named_by_its_beginning_or_by_its_task(gates, signalbox):
    gates.add(make_gate(name="T-1"))
    gates.add(make_gate(OTHER, name="T-2", task="01katask"))
    assert signalbox("approve", "01kgate").returncode == 0
    assert signalbox("approve", "T-2").returncode == 0
    assert [g["state"] for g in gates.rows.values()] == ["approved", "approved"]


def test_a_name_that_fits_several_or_none_is_told_so(gates, signalbox):
    gates.add(make_gate(name="T-1"))
    gates.add(make_gate(OTHER, name="T-1"))
    r = signalbox("approve", "T-1")
    assert r.returncode == 2 and "2 open gates" in r.stderr and "gates --task T-1" in r.stderr
    r = signalbox("approve", "01kgat")
    assert r.returncode == 2 and "2 gates begin" in r.stderr
    assert signalbox("approve", "nobody").returncode == 5
    assert signalbox("approve", "a b/c").returncode == 2
    assert gates.posts == []


def test_a_gate_that_is_settled_tells_who_was_first(gates, signalbox):
    gates.add(make_gate())
    gates.settle(GATE, "rejected", actor="ann")
    r = signalbox("approve", GATE)
    assert r.returncode == 6 and "rejected by ann" in r.stderr
    assert signalbox("approve", "01kgate").returncode == 6


@pytest.mark.parametrize("words, expected", [
    (("blue",), {"q1": ["blue"]}), (("2",), {"q1": ["blue"]}), (("--option", "1"), {"q1": ["red"]}), (("--set", "q1=red"), {"q1": ["red"]}), (("--set", "1=2"), {"q1": ["blue"]}), (("=9",), {"q1": ["9"]}), (("nine",), {"q1": ["nine"]}),
])
def test_an_answer_is_an_options_number_its_label_or_words(gates, signalbox, words, expected):
    gates.add(question_gate(question(options=("red", "blue"))))
    r = signalbox("answer", GATE, *words)
    assert r.returncode == 0, r.stderr
    assert gates.posts == [{"decision": "answer", "answer": expected}]


@pytest.mark.parametrize("words", [("9",), ("0",), ("--set", "q1=3"), ("--option", "3")])
def test_a_number_that_no_option_has_is_no_answer(gates, signalbox, words):
    gates.add(question_gate(question(options=("red", "blue"), free_text=True)))
    r = signalbox("answer", GATE, *words)
    assert r.returncode == 2 and "2 options" in r.stderr and gates.posts == []


def test_where_options_are_numbers_another_number_is_an_answer(gates, signalbox):
    gates.add(question_gate(question(options=("2", "4"), free_text=True)))
    assert signalbox("answer", GATE, "16").returncode == 0
    assert gates.posts == [{"decision": "answer", "answer": {"q1": ["16"]}}]


@pytest.mark.parametrize("typed, expected", [("1,3", ["red", "green"]), ("1, 3", ["red", "green"]), ("2", ["blue"]), ("red, mostly", ["red, mostly"])])
def test_where_several_may_be_chosen_they_are_given_by_their_numbers(gates, signalbox, typed, expected):
    gates.add(question_gate(question(options=("red", "blue", "green"), free_text=True, multiple=True)))
    assert signalbox("answer", GATE, typed).returncode == 0
    assert gates.posts == [{"decision": "answer", "answer": {"q1": expected}}]
    assert "several" in signalbox("gates", GATE).stdout


@pytest.mark.parametrize("typed, expected", [
    ("=10,=20", ["10", "20"]), ("=10,2", ["10", "blue"]), ("1, =10", ["red", "10"]), ("=10", ["10"]), ("=a b,=c", ["a b", "c"]), ("=red, mostly", ["red, mostly"]), ("1,000", ["1,000"]), ("=7", ["=7"]), ("==7", ["=7"])])
def test_where_several_may_be_chosen_what_is_behind_an_equals_sign_is_taken_as_it_is(gates, signalbox, typed, expected):
    gates.add(question_gate(question(options=("red", "blue", "1,000", "=7"), free_text=True, multiple=True)))
    r = signalbox("answer", GATE, typed)
    assert r.returncode == 0, r.stderr
    assert gates.posts == [{"decision": "answer", "answer": {"q1": expected}}]


@pytest.mark.parametrize("typed, why", [("10,20", "=10"), ("=10,20", "=20"), (",", "nothing"), (" , ,", "nothing"), ("", "nothing"), ("=", "nothing follows"), ("=,1", "nothing follows")])
def test_a_list_that_chooses_nothing_or_numbers_that_are_not_there_is_no_answer(gates, signalbox, typed, why):
    gates.add(question_gate(question(options=("red", "blue"), free_text=True, multiple=True)))
    r = signalbox("answer", GATE, typed)
    assert r.returncode == 2 and why in r.stderr and gates.posts == []


@pytest.mark.parametrize("typed, expected", [("=blue, or so", "blue, or so"), ("=2", "2"), ("=x", "x"), ("=7", "=7"), ("1,000", "1,000"), (",", ",")])
def test_an_equals_sign_takes_the_rest_whatever_it_is_unless_it_is_an_options(gates, signalbox, typed, expected):
    gates.add(question_gate(question(options=("red", "1,000", "=7"), free_text=True)))
    assert signalbox("answer", GATE, typed).returncode == 0
    assert gates.posts == [{"decision": "answer", "answer": {"q1": [expected]}}]


def test_without_options_words_are_taken_to_the_letter(gates, signalbox):
    gates.add(question_gate(question()))
    assert signalbox("answer", GATE, "=7").returncode == 0
    assert gates.posts == [{"decision": "answer", "answer": {"q1": ["=7"]}}]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("typed", ["4711", "1", "=4711", "1,2", ",", "="])
def test_a_secret_in_free_words_is_taken_to_the_letter(gates, signalbox, typed, several):
    gates.add(question_gate(question("pw", "Password?", options=("none", "the old one"), free_text=True, secret=True, multiple=several)))
    r = signalbox("answer", GATE, "-", stdin=typed + "\n")
    assert r.returncode == 0, r.stderr
    assert gates.posts == [{"decision": "answer", "answer": {"pw": [typed]}}]


def test_a_secret_that_is_no_option_is_refused_without_telling_it(gates, signalbox):
    gates.add(question_gate(question("pw", "Password?", options=("none", "the old one"), free_text=False, secret=True, multiple=True)))
    for typed in ("4711", "=4711", "1,4711", "sesame-4711"):
        r = signalbox("answer", GATE, "-", stdin=typed + "\n")
        assert r.returncode == 2 and "no such number" in r.stderr and "4711" not in r.stderr + r.stdout
    assert signalbox("answer", GATE, "-", stdin="2\n").returncode == 0
    assert gates.posts == [{"decision": "answer", "answer": {"pw": ["the old one"]}}]


@pytest.mark.parametrize("asked, line", [
    ([question()], " TEXT"), ([question(options=("red", "blue"))], " NUMBER"), ([question(secret=True)], ""), ([question("$(id)"), question("b")], " --set 1=TEXT --set 2=TEXT")])
def test_a_gate_says_how_its_questions_are_answered(gates, signalbox, asked, line):
    gates.add(question_gate(*asked))
    assert f"signalbox answer {GATE}{line}" in [l.strip() for l in signalbox("gates", GATE).stdout.splitlines()]


def test_gates_in_json_are_a_list_as_every_other(gates, signalbox):
    gates.add(make_gate())
    assert [g["id"] for g in json.loads(signalbox("gates", "--json").stdout)["data"]] == [GATE]


def test_an_answer_is_read_from_standard_input(gates, signalbox):
    gates.add(question_gate(question()))
    assert signalbox("answer", GATE, "-", stdin="blue\ngreen\n").returncode == 0
    assert gates.posts[0]["answer"] == {"q1": ["blue\ngreen"]}
    gates.add(question_gate(question(), gate=OTHER))
    assert signalbox("answer", OTHER, "-", stdin="").returncode == 2


def test_several_questions_need_an_answer_each(gates, signalbox):
    gates.add(question_gate(question("colour"), question("size"), question("age")))
    r = signalbox("answer", GATE, "blue")
    assert r.returncode == 2 and "colour, size, age" in r.stderr and "--set" in r.stderr
    r = signalbox("answer", GATE, "--set", "colour=blue", "--set", "nothing=x")
    assert r.returncode == 2 and "no question 'nothing'" in r.stderr
    assert signalbox("answer", GATE, "--set", "colour=blue", "--set", "size=9").returncode == 2
    assert gates.posts == []
    assert signalbox("answer", GATE, "--set", "colour=blue", "--set", "size=a=b", "7").returncode == 0
    assert gates.posts[0]["answer"] == {"colour": ["blue"], "size": ["a=b"], "age": ["7"]}


def test_a_secret_is_never_taken_from_the_words_of_a_command(gates, signalbox):
    gates.add(question_gate(question("pw", "Password?", secret=True)))
    for words in (("sesame",), ("--set", "pw=sesame"), ("--set", "1=sesame")):
        r = signalbox("answer", GATE, *words)
        assert r.returncode == 2 and "secret" in r.stderr and "sesame" not in r.stderr
    assert signalbox("answer", GATE).returncode == 2  # and there is no terminal to ask at
    assert gates.posts == []
    assert signalbox("answer", GATE, "-", stdin="sesame\n").returncode == 0
    assert gates.posts[0]["answer"] == {"pw": ["sesame"]}


def test_a_form_is_answered_with_json(gates, signalbox, room):
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}, "required": ["name"]}
    gates.add(make_gate(kind="elicitation", choices=("answer", "reject", "abort"), data={"server": "book", "message": "Who?", "schema": schema}))
    path = os.path.join(room, "content.json")
    with open(path, "w") as f:
        f.write('{"name": "ann", "n": 3}')
    assert signalbox("answer", GATE, "ann").returncode == 2
    assert signalbox("answer", GATE, "--json-content", path + ".no").returncode != 0
    r = signalbox("answer", GATE, "--json-content", path)
    assert r.returncode == 0, r.stderr
    assert gates.posts == [{"decision": "answer", "answer": {"name": "ann", "n": 3}}]


def test_what_is_no_question_is_not_answered_but_approved(gates, signalbox):
    gates.add(make_gate())
    r = signalbox("answer", GATE, "yes")
    assert r.returncode == 2 and "signalbox approve" in r.stderr and gates.posts == []


def test_an_answer_that_does_not_fit_is_told_with_its_path(gates, signalbox):
    gates.add(question_gate(question()))
    gates.refuse = "answer.q1: 'x' is not one of its options"
    r = signalbox("answer", GATE, "x")
    assert r.returncode == 2 and "answer.q1" in r.stderr


def test_wait_tells_the_gate_that_it_ends_at(fake, gates, signalbox):
    gates.add(make_gate())
    fake.settle("WAITING")
    r = signalbox("wait", TASK_ID, "--for", "gate")
    assert r.returncode == 9 and r.stdout.rstrip().endswith("gate " + GATE)


def test_show_tells_what_a_task_waits_for(fake, gates, signalbox):
    gates.add(make_gate())
    fake.tasks[TASK_ID].update(status="WAITING")
    assert f"Waits for you\n  {GATE}  make install\n" in signalbox("show", TASK_ID).stdout


def test_say_tells_what_became_of_the_words(fake, signalbox):
    for how, words in [("steering", "told at once"), ("queued", "when this turn has ended"), ("turn", "next turn")]:
        fake.on("POST", r"/v1/tasks/([^/]+)/messages", lambda h, q, t, how=how: h.send_json(200, dict(fake.tasks[TASK_ID], message={"n": 1, "id": None, "how": how})))
        r = signalbox("say", TASK_ID, "go left", "--id", "m-1")
        assert r.returncode == 0 and words in r.stderr
    assert fake.sent("POST", f"/v1/tasks/{TASK_ID}/messages")[0] == {"text": "go left", "id": "m-1"}


def test_say_again_is_told_as_said_before(fake, signalbox):
    fake.on("POST", r"/v1/tasks/([^/]+)/messages", lambda h, q, t: h.send_json(200, dict(fake.tasks[TASK_ID], message={"n": 1, "id": "m-1", "again": True})))
    r = signalbox("say", TASK_ID, "go left", "--id", "m-1")
    assert r.returncode == 0 and "had this message before" in r.stderr and "next turn" not in r.stderr


def test_say_to_an_agent_that_cannot_be_steered_offers_the_queue(fake, signalbox):
    fake.on("POST", r"/v1/tasks/([^/]+)/messages", lambda h, q, t: h.problem(409, "conflict", "its agent cannot be steered", "say it again with --queue"))
    r = signalbox("say", TASK_ID, "go left")
    assert r.returncode == 6 and "--queue" in r.stderr


def test_interrupt_asks_for_the_end_of_the_turn(fake, signalbox):
    fake.on("POST", r"/v1/tasks/([^/]+)/interrupt", lambda h, q, t: h.send_json(202, fake.tasks[TASK_ID]))
    r = signalbox("interrupt", TASK_ID)
    assert r.returncode == 0 and "end its turn" in r.stderr
    assert fake.sent("POST", f"/v1/tasks/{TASK_ID}/interrupt")


def test_todos_shows_the_plan_and_its_history(fake, signalbox):
    steps = [{"id": "1", "text": "Look\x1b[2J", "status": "completed", "worker": "main"}, {"id": "2", "text": "Mend", "status": "in_progress", "worker": "main"}]
    fake.on("GET", r"/v1/tasks/([^/]+)/todos", lambda h, q, t: h.send_json(200, {"data": steps, "updated_at": "2026-11-20T10:00:00.000Z"}))
    pages = {0: ([make_event(3, "todo.snapshot", {"items": steps})], 3), 3: ([make_event(5, "todo.update", {"id": "2", "text": "Mend", "status": "completed"})], None)}
    fake.on("GET", r"/v1/tasks/([^/]+)/todos/events", lambda h, q, t: h.send_json(200, {"data": pages[int(q["after"])][0], "next_cursor": pages[int(q["after"])][1]}))
    r = signalbox("todos", TASK_ID)
    assert [line.split("\t")[2:] for line in r.stdout.splitlines()] == [["completed", "Look\\x1b[2J"], ["in_progress", "Mend"]]
    r = signalbox("todos", TASK_ID, "--history")
    assert len(r.stdout.splitlines()) == 3 and "\x1b" not in r.stdout and r.stdout.splitlines()[2].endswith("completed    Mend")


def test_a_task_without_a_plan_says_so(fake, signalbox):
    fake.on("GET", r"/v1/tasks/([^/]+)/todos", lambda h, q, t: h.send_json(200, {"data": [], "updated_at": None}))
    r = signalbox("todos", TASK_ID)
    assert r.returncode == 0 and "no plan" in r.stderr


def test_run_says_what_is_asked_and_what_the_agent_must_be_able_to_do(fake, signalbox):
    fake.events = [make_event(1, "task.done", {"status": "DONE"})]
    fake.settle("DONE")
    assert signalbox("run", "--repo", "-", "--approvals", "on-request", "--require", "gates,steer", "x").returncode == 0
    body = fake.sent("POST", "/v1/tasks")[0]
    assert body["approvals"] == {"ask": "on-request"} and body["require"] == ["gates", "steer"]
    r = signalbox("start", "--repo", "-", "--approvals", "sometimes", "x")
    assert r.returncode == 2 and "always, on-request or never" in r.stderr


# ---- at a terminal


@pytest.fixture
def desk(room, environment):
    with desks(PROGRAM, environment, os.path.join(room, "work")) as start:
        yield start


class Story:
    """A task that asks: its stream stays open until the gate is settled, then the task ends."""

    def __init__(self, fake, gates, *asked):
        self.fake, self.gates = fake, gates
        self.wake = threading.Condition()
        fake.events = []
        for gate in asked:
            gates.add(gate)
            fake.events.append(make_event(len(fake.events) + 1, "gate.blocked", {"gate": gate["id"], "kind": gate["kind"], **gate["data"]}))
        fake.tasks[TASK_ID].update(status="WAITING", last_seq=len(fake.events))
        gates.on_decision = self.end
        fake.on("GET", r"/v1/tasks/([^/]+)/events", self.stream)

    def end(self, gate=None):
        if any(g["state"] == "blocked" for g in self.gates.rows.values()):
            return
        with self.wake:
            self.fake.events.append(make_event(len(self.fake.events) + 1, "task.done", {"status": "DONE"}))
            self.fake.settle("DONE")
            self.wake.notify_all()

    def end_stream(self):
        with self.wake:
            self.fake.settle("DONE")
            self.wake.notify_all()

    def stream(self, handler, query, ref):
        handler.send_response(200)
        handler.send_header("Content-Type", "application/jsonl")
        handler.send_header("Connection", "close")
        handler.end_headers()
        after = int(query["after"])
        with self.wake:
            while True:
                for event in [e for e in self.fake.events if e["seq"] > after]:
                    handler.wfile.write((json.dumps(event) + "\n").encode())
                    after = event["seq"]
                handler.wfile.flush()
                if self.fake.tasks[TASK_ID]["status"] == "DONE" or not self.wake.wait(DEADLINE):
                    break
        handler.close_connection = True


@pytest.mark.parametrize("typed, expected", [
    ("y\n", {"decision": "approve"}), ("s\n", {"decision": "approve", "scope": "session"}), ("n too risky\n", {"decision": "reject", "note": "too risky"}), ("a\n", {"decision": "abort"}), ("approve\n", {"decision": "approve"}),
])
def test_run_asks_at_the_terminal_sends_the_reply_and_goes_on(fake, gates, desk, typed, expected):
    Story(fake, gates, make_gate())
    d = desk("run", "--repo", "-", "x")
    shown = d.until("leaves it for later")
    assert "$ /bin/bash -lc 'make install'" in shown and "because It installs." in shown and "y  yes" in shown
    d.type(typed)
    assert d.finish() == 0
    assert gates.posts == [expected]
    assert "DONE" in d.text


def test_a_letter_that_means_nothing_is_asked_again(fake, gates, desk):
    Story(fake, gates, make_gate(choices=("approve", "reject")))
    d = desk("run", "--repo", "-", "x")
    for nonsense in ("s\n", "\n", "yes please\n"):
        d.type(nonsense)
        d.until("one of the letters")
    d.type("y\n")
    assert d.finish() == 0
    assert gates.posts == [{"decision": "approve"}]


def test_run_asks_questions_by_number_or_in_free_words(fake, gates, desk):
    Story(fake, gates, question_gate(question("c", options=("red", "blue"), free_text=True), question("s", "Size?")))
    d = desk("run", "--repo", "-", "x")
    assert "2) blue" in d.until("own words")
    d.type("2\n")
    d.until("Size?")
    d.type("quite big\n")
    assert d.finish() == 0
    assert gates.posts == [{"decision": "answer", "answer": {"c": ["blue"], "s": ["quite big"]}}]


def test_a_question_may_be_refused_at_the_terminal(fake, gates, desk):
    Story(fake, gates, question_gate(question()))
    d = desk("run", "--repo", "-", "x")
    d.type("/n none of your business\n")
    assert d.finish() == 0
    assert gates.posts == [{"decision": "reject", "note": "none of your business"}]


def test_a_secret_is_typed_without_being_shown(fake, gates, desk):
    Story(fake, gates, question_gate(question("pw", "Password?", secret=True)))
    d = desk("run", "--repo", "-", "x")
    d.until("\n> ")
    assert not d.echoes()
    os.write(d.master, b"open-sesame\n")
    d.until("DONE")
    assert d.echoes()
    assert d.finish() == 0
    assert "open-sesame" not in d.text
    assert gates.posts[0]["answer"] == {"pw": ["open-sesame"]}


def test_a_number_typed_at_a_secret_question_is_not_told_back(fake, gates, desk):
    Story(fake, gates, question_gate(question("pw", "Password?", options=("none", "the old one"), free_text=False, secret=True)))
    d = desk("run", "--repo", "-", "x")
    d.until("\n> ")
    os.write(d.master, b"4711\n")
    d.until("no such number")
    d.until("> ")
    os.write(d.master, b"2\n")
    assert d.finish() == 0
    assert "4711" not in d.text
    assert gates.posts[0]["answer"] == {"pw": ["the old one"]}


@pytest.mark.parametrize("typed, expected", [(b"/n\n", {"decision": "reject"}), (b"/a\n", {"decision": "abort"}), (b"/n too\n", {"decision": "answer", "answer": {"pw": ["/n too"]}})])
def test_a_secret_question_is_refused_by_a_letter_alone_and_words_stay_secret(fake, gates, desk, typed, expected):
    Story(fake, gates, question_gate(question("pw", "Password?", secret=True)))
    d = desk("run", "--repo", "-", "x")
    assert "Words behind a letter" not in d.until("\n> ")
    os.write(d.master, typed)
    assert d.finish() == 0
    assert gates.posts == [expected]


def test_a_form_is_asked_member_by_member(fake, gates, desk):
    schema = {"type": "object", "properties": {"name": {"type": "string", "title": "Your name"}, "n": {"type": "integer"}, "ok": {"type": "boolean"}, "k": {"type": "string", "enum": ["a", "b"]}, "more": {"type": "string"}},
              "required": ["name"]}
    Story(fake, gates, make_gate(kind="elicitation", choices=("answer", "reject", "abort"), data={"server": "book", "message": "Who?", "schema": schema}))
    d = desk("run", "--repo", "-", "x")
    for typed in ("\n", "ann\n", "three\n", "3\n", "yes\n", "2\n", "\n"):
        d.type(typed)
    assert d.finish() == 0
    assert gates.posts == [{"decision": "answer", "answer": {"name": "ann", "n": 3, "ok": True, "k": "b"}}]


def test_what_does_not_fit_is_asked_again(fake, gates, desk):
    Story(fake, gates, question_gate(question()))
    gates.refuse = "answer.q1: longer than it may be"
    d = desk("run", "--repo", "-", "x")
    d.type("blue\n")
    d.until("longer than it may be")
    d.type("red\n")
    assert d.finish() == 0
    assert gates.posts == [{"decision": "answer", "answer": {"q1": ["red"]}}]


def test_answered_elsewhere_the_prompt_goes_away_and_tells_by_whom(fake, gates, desk):
    story = Story(fake, gates, make_gate())
    d = desk("run", "--repo", "-", "x")
    d.until("\n> ")
    gates.settle(GATE, "rejected", actor="ann", decision="reject")
    d.until("rejected by ann")
    story.end()
    assert d.finish() == 0
    assert gates.posts == []


def test_the_first_of_two_replies_counts_and_the_second_is_told(fake, gates, desk):
    story = Story(fake, gates, make_gate())
    d = desk("run", "--repo", "-", "x")
    d.until("\n> ")
    gates.settle(GATE, "rejected", actor="ann", decision="reject")
    os.write(d.master, b"y\n")
    d.until("rejected by ann")
    story.end()
    assert d.finish() == 0
    assert gates.posts == []


def test_a_question_left_for_later_ends_run_as_without_a_terminal(fake, gates, desk):
    Story(fake, gates, make_gate())
    d = desk("run", "--repo", "-", "x")
    d.type("\x04")
    assert d.finish() == 9
    assert "signalbox gates --task" in d.text and gates.posts == []


def test_an_interrupt_at_the_prompt_detaches_and_leaves_the_terminal_as_it_was(fake, gates, desk):
    Story(fake, gates, question_gate(question("pw", "Password?", secret=True)))
    d = desk("run", "--repo", "-", "x")
    d.until("\n> ")
    d.child.send_signal(signal.SIGINT)
    d.until("detached; the task waits for you")
    d.until("signalbox gates " + GATE)
    assert d.echoes()
    assert d.finish() == 130
    assert gates.posts == []


def two_gates_of_which_the_newer_is_settled(fake, gates):
    gates.add(make_gate())
    gates.add(make_gate(OTHER))
    gates.settle(OTHER, "approved")
    fake.events = [make_event(1, "gate.blocked", {"gate": GATE, "kind": "command"}), make_event(2, "gate.blocked", {"gate": OTHER, "kind": "command"}),
                   make_event(3, "gate.approved", {"gate": OTHER, "decision": {"decision": "approve", "actor": "user:ann"}})]


def test_when_the_newer_of_two_gates_is_settled_run_ends_with_the_older_ones_id(fake, gates, signalbox):
    two_gates_of_which_the_newer_is_settled(fake, gates)
    fake.settle("WAITING")
    r = signalbox("run", "--repo", "-", "x")
    assert r.returncode == 9 and r.stdout.splitlines()[0] == GATE


def test_run_asks_the_server_for_the_gate_that_no_event_told_of(fake, gates, signalbox):
    fake.events = [make_event(1, "task.waiting", {})]
    fake.settle("WAITING")
    gates.add(make_gate())
    r = signalbox("run", "--repo", "-", "x")
    assert r.returncode == 9 and r.stdout.splitlines()[0] == GATE


def test_an_interrupt_tells_of_the_older_gate_when_the_newer_one_is_settled(fake, gates, environment, room):
    story = Story(fake, gates)
    two_gates_of_which_the_newer_is_settled(fake, gates)
    fake.tasks[TASK_ID].update(status="RUNNING", last_seq=3)
    with subprocess.Popen([PROGRAM, "run", "--repo", "-", "x"], env=environment, cwd=os.path.join(room, "work"), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        shown = next((line for line in child.stderr if "user:ann" in line), None)
        child.send_signal(signal.SIGINT)
        said = child.stderr.read()
        assert child.wait(DEADLINE) == 130 and shown
    story.end_stream()
    assert "the task waits for you" in said and "signalbox gates " + GATE in said


def test_several_gates_are_asked_one_after_the_other(fake, gates, desk):
    Story(fake, gates, make_gate(), make_gate(OTHER, data={"command": "make clean"}))
    d = desk("run", "--repo", "-", "x")
    d.until("make install")
    d.type("y\n")
    d.until("$ make clean")
    d.type("n\n")
    assert d.finish() == 0
    assert gates.posts == [{"decision": "approve"}, {"decision": "reject"}]


def test_a_gate_that_was_settled_before_is_not_asked(fake, gates, desk):
    story = Story(fake, gates, make_gate())
    gates.settle(GATE, "approved")
    story.end()
    d = desk("run", "--repo", "-", "x")
    assert d.finish() == 0
    assert "> " not in d.text


def test_what_was_typed_before_the_question_is_no_answer_to_it(fake, gates, desk):
    story = Story(fake, gates)
    d = desk("run", "--repo", "-", "x")
    d.until("submitted")
    os.write(d.master, b"y\n")
    d.until("y\r\n")  # the terminal has it
    gate = gates.add(make_gate())
    with story.wake:
        fake.events.append(make_event(1, "gate.blocked", {"gate": GATE, "kind": "command", **gate["data"]}))
        story.wake.notify_all()
    d.until("\n> ")
    assert gates.posts == []
    os.write(d.master, b"n\n")
    assert d.finish() == 0
    assert gates.posts == [{"decision": "reject"}]


def test_answer_at_a_terminal_asks_what_the_words_left_open(gates, desk):
    gates.add(question_gate(question("colour"), question("pw", "Password?", secret=True)))
    d = desk("answer", GATE, "--set", "colour=blue")
    d.until("\n> ")
    assert not d.echoes()
    os.write(d.master, b"sesame\n")
    assert d.finish() == 0
    assert "sesame" not in d.text
    assert gates.posts[0]["answer"] == {"colour": ["blue"], "pw": ["sesame"]}


def test_attach_asks_what_has_waited_since_before_the_events_it_shows(fake, gates, desk):
    story = Story(fake, gates, make_gate())
    for _ in range(30):
        fake.events.append(make_event(len(fake.events) + 1, "message.done", {"text": "still here"}))
    fake.tasks[TASK_ID].update(last_seq=len(fake.events))
    d = desk("attach", TASK_ID)
    d.type("n\n")
    assert d.finish() == 0
    assert gates.posts == [{"decision": "reject"}] and story


def test_attach_asks_and_what_is_typed_there_is_no_message(fake, gates, desk):
    story = Story(fake, gates, make_gate())
    messages = []
    fake.on("POST", r"/v1/tasks/([^/]+)/messages", lambda h, q, t: (messages.append(1), h.send_json(200, dict(fake.tasks[TASK_ID], message={"n": 1, "id": None, "how": "queued"}))))
    decided = threading.Event()
    gates.on_decision = lambda gate: decided.set()
    d = desk("attach", TASK_ID)
    d.type("y\n")
    assert decided.wait(DEADLINE)
    assert gates.posts == [{"decision": "approve"}] and messages == []
    os.write(d.master, b"go on\n")
    d.until("when this turn has ended")
    assert messages == [1]
    story.end()
    assert d.finish() == 0
