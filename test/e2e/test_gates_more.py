"""More of the human in the loop: lists, replies that do not fit, what is remembered, the inbox, what is lost and comes back, and secrets that are nowhere."""
import http.server
import json
import os
import signal
import threading

import pytest
from e2e_site import CODEX, is_alive, wait_for
from gate_steps import ALWAYS, database, decide, ended, files_with, made, open_gate, open_gates, runner_pid, submit

PASSWORD = 'swordfish "0815-4711" \\ \u00e9'
SCENARIOS = """
  - match: "[scenario touch]"
    steps:
      - shell: "echo made >> made.txt"
      - final: "It is decided."
  - match: "[scenario again]"
    steps:
      - shell: "echo same >> made.txt"
      - shell: "echo same >> made.txt"
      - shell: "echo other >> made.txt"
      - final: "Three times."
  - match: "[scenario colour]"
    steps:
      - ask: {tool: askuser, arguments: {question: "Which colour?", options: [red, blue], free_text: false}}
      - final: "It has a colour."
  - match: "[scenario wait]"
    steps:
      - shell: "echo begun > begun.txt; until [ -e ~/go ]; do sleep 0.05; done; echo ended"
      - expect: "ended"
      - final: "It waited."
  - match: "[message one]"
    steps:
      - shell: "echo one >> said.txt"
      - final: "One was said."
  - match: "[scenario password]"
    steps:
      - ask: {tool: askuser, arguments: {question: "What is the password?", secret: true}}
      - shell: "echo 'swordfish \\"0815-4711\\" \\\\ \u00e9' > /dev/null"
      - final: "The password is: swordfish \\"0815-4711\\" \\\\ \u00e9"
  - match: "[scenario tell]"
    steps:
      - shell: "echo 'swordfish \\"0815-4711\\" \\\\ \u00e9'"
      - final: "It still is: swordfish \\"0815-4711\\" \\\\ \u00e9"
"""
SITE = {"scenarios": SCENARIOS}
pytestmark = pytest.mark.skipif(not CODEX.exists(), reason="Codex is not installed")


def lose_database(site):
    for path in site.data.glob("signalbox.db*"):
        path.unlink()


# --- lists

def test_a_thousand_gates_are_listed_page_by_page(new_site):
    site = new_site(model=False)
    tasks = [site.run("true")["id"] for _ in range(2)]
    site.kill_server()
    states = ["blocked", "approved", "rejected", "answered", "expired", "canceled"]
    ids = [f"01k{i:04d}aaaaaaaaaaaaaaaaaaa" for i in range(1000)]
    with database(site) as db:
        db.executemany("INSERT INTO gates(id,task,run,request,kind,state,data,created_at,turn) VALUES(?,?,?,'1','command',?,?,1,1)",
                       [(id, tasks[i % 2], f"{tasks[i % 2]}.main.1", states[i % 6], json.dumps({"title": f"gate {i}", "choices": ["approve"]})) for i, id in enumerate(ids)])
    site.start_server()
    page = site.get("/v1/gates?limit=1000")
    assert [g["id"] for g in page["data"]] == ids[::-1]  # the newest first, in one request
    assert page["data"][0]["data"]["title"] == "gate 999"
    for query, wanted in [(f"task={tasks[0]}", ids[::2]), ("state=blocked", ids[::6]), (f"task={tasks[1]}&state=approved", [id for i, id in enumerate(ids) if i % 2 and i % 6 == 1])]:
        seen, after = [], ""
        while after is not None:
            page = site.get(f"/v1/gates?{query}&limit=70" + (f"&after={after}" if after else ""))
            assert len(page["data"]) <= 70
            seen += [g["id"] for g in page["data"]]
            after = page["next_cursor"]
        assert seen == wanted[::-1], query


@pytest.mark.parametrize("query, status", [("state=open", 400), ("limit=0", 400), ("limit=1001", 400), ("limit=x", 400), ("task=nobody", 404), ("state=blocked&task=", 404)])
def test_a_list_that_cannot_be_is_refused(site, query, status):
    assert site.call("GET", f"/v1/gates?{query}")[0] == status


@pytest.mark.parametrize("id", ["01k0000aaaaaaaaaaaaaaaaaaa", "nobody", "..%2F..%2Fetc", "x" * 300])
def test_an_unknown_gate_is_not_found_and_the_way_to_the_list_is_told(site, id):
    for method, path, body in (("GET", f"/v1/gates/{id}", None), ("POST", f"/v1/gates/{id}/decision", {"decision": "approve"})):
        status, problem = site.call(method, path, body)
        assert status == 404 and "signalbox gates" in problem["hint"], problem


# --- replies that do not fit

COMMAND_BODIES = [
    ({}, 400, "decision"), ([], 400, ""), ({"decision": "perhaps"}, 400, "decision"), ({"decision": None}, 400, "decision"), ({"decision": ["approve"]}, 400, "decision"),
    ({"decision": "expire"}, 400, "decision"), ({"decision": "cancel"}, 400, "decision"), ({"decision": "approve", "scope": "ever"}, 400, "scope"),
    ({"decision": "approve", "actor": "me"}, 400, "actor"), ({"decision": "approve", "note": 7}, 400, "note"), ({"decision": "answer", "answer": "x"}, 422, "decision"),
    ({"decision": "approve", "note": "x" * 70000}, 422, "note"), (b"{", 400, ""), (b"", 400, ""), (b'"approve"', 400, ""),
]
QUESTION_BODIES = [
    ({"decision": "approve"}, 422, "decision"), ({"decision": "answer"}, 400, "answer"), ({"decision": "answer", "answer": "green"}, 422, "answer."),
    ({"decision": "answer", "answer": ""}, 422, "answer."), ({"decision": "answer", "answer": 7}, 422, "answer."), ({"decision": "answer", "answer": []}, 422, "answer."),
    ({"decision": "answer", "answer": {"nobody": "red"}}, 422, "answer."), ({"decision": "answer", "answer": ["red", None]}, 422, "answer."),
]


@pytest.mark.parametrize("prompt, bodies, good", [("[scenario touch]", COMMAND_BODIES, {"decision": "reject"}), ("[scenario colour]", QUESTION_BODIES, {"decision": "answer", "answer": "red"})])
def test_a_reply_that_does_not_fit_says_where_and_settles_nothing(site, prompt, bodies, good):
    task = submit(site, prompt, approvals=ALWAYS)
    gate = open_gate(site, task)
    for body, status, place in bodies:
        got, problem = site.call("POST", f"/v1/gates/{gate['id']}/decision", body, headers={"Content-Type": "application/json"})
        assert (got, place in problem["detail"]) == (status, True), (body, got, problem)
    assert site.get(f"/v1/gates/{gate['id']}")["state"] == "blocked"
    assert site.call("POST", f"/v1/gates/{gate['id']}/decision", good)[0] == 200
    ended(site, task)
    assert len([e for e in site.events(task) if e["type"] in ("gate.rejected", "gate.answered")]) == 1


# --- what is remembered, and in what order

def test_what_was_approved_for_the_session_is_not_asked_again_but_another_command_is(site):
    task = submit(site, "[scenario again]", approvals=ALWAYS)
    first = open_gate(site, task)
    assert decide(site, first, scope="session")[0] == 200
    second = open_gate(site, task, [first["id"]])
    assert "other" in second["data"]["command"]
    assert decide(site, second)[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert made(site, task) == ["same", "same", "other"]
    assert len(site.get(f"/v1/gates?task={task}")["data"]) == 2


def test_the_log_tells_of_a_gate_in_order_and_task_yaml_shows_the_open_ones(site):
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    gate = open_gate(site, task)
    shown = site.directory(task) / "task.yaml"
    wait_for("the gate in task.yaml", lambda: shown.exists() and f'id: {gate["id"]}' in shown.read_text().split("gates:")[-1])
    text = shown.read_text().split("gates:")[-1]
    assert "kind: command" in text and "state: blocked" in text and "title:" in text
    assert decide(site, gate)[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)
    lines = site.log_file(task)
    assert [e["type"] for e in lines if e["type"].startswith("gate.")] == ["gate.blocked", "gate.approved", "gate.delivered"]
    assert [e["seq"] for e in lines] == list(range(1, len(lines) + 1))
    ids = {e["data"]["decision"]["id"] if "decision" in e["data"] else e["data"].get("decision_id") for e in lines if e["type"] in ("gate.approved", "gate.delivered")}
    assert len(ids) == 1
    wait_for("the end in task.yaml", lambda: "gates: []" in shown.read_text())


FINAL = json.dumps({"status": "success", "summary": "All done.", "questions": [], "nextActions": [], "testsRun": 0, "testsPassed": 0})


class Model(http.server.ThreadingHTTPServer):
    """A model that asks for several commands at once, and is content with whatever comes back."""
    def __init__(self, commands):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.commands, self.thread = commands, threading.Thread(target=self.serve_forever)
        self.thread.start()

    def stop(self):
        self.shutdown()
        self.thread.join()
        self.server_close()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            doc = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if any(i.get("type") == "function_call_output" for i in doc["input"]):
                items = [{"type": "message", "role": "assistant", "id": "m", "content": [{"type": "output_text", "text": FINAL}]}]
            else:
                items = [{"type": "function_call", "id": f"f{n}", "call_id": f"c{n}", "name": "exec_command", "arguments": json.dumps({"cmd": c})}
                         for n, c in enumerate(self.server.commands)]
            usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
            events = [{"type": "response.created", "response": {"id": "r"}}] + [{"type": "response.output_item.done", "item": i} for i in items]
            events += [{"type": "response.completed", "response": {"id": "r", "status": "completed", "output": items, "usage": usage}}]
            data = b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


def test_several_gates_are_open_at_once_and_each_is_decided_for_itself(new_site):
    model = Model(["echo one >> one.txt", "echo two >> two.txt", "echo three >> three.txt"])
    try:
        site = new_site(model=False, config={"model": {"default_provider": "own", "providers": {"own": {"base_url": f"http://127.0.0.1:{model.server_port}/v1", "key": "k"}}}})
        task = submit(site, "Do three things.", approvals=ALWAYS)
        wait_for("three gates", lambda: len(open_gates(site, task)) == 3)
        gates = {next(w for w in ("one", "two", "three") if w in g["data"]["command"]): g for g in open_gates(site, task)}
        assert decide(site, gates["two"], "reject")[0] == 200
        assert site.task(task)["status"] == "WAITING"
        assert decide(site, gates["three"])[0] == 200 and decide(site, gates["one"])[0] == 200
        assert ended(site, task)["status"] == "DONE", site.story(task)
        assert (made(site, task, "one.txt"), made(site, task, "two.txt"), made(site, task, "three.txt")) == (["one"], [], ["three"])
        assert len(site.events(task, "gate.delivered")) == 3
    finally:
        model.stop()


# --- messages

def test_a_message_in_the_inbox_is_the_next_turn(site):
    task = submit(site, "[scenario wait]")
    wait_for("the command", lambda: site.events(task, "command.started"))
    inbox = site.directory(task) / "inbox"
    (inbox / "message.md").write_text("[message one]\n")
    queued = wait_for("the message", lambda: site.events(task, "message.queued"))
    assert queued[0]["data"]["text"] == "[message one]\n" and queued[0]["actor"].startswith("file:")
    assert site.task(task)["status"] == "RUNNING" and (inbox / "done/message.md").exists()
    site.release(task)
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert made(site, task, "said.txt") == ["one"] and site.task(task)["run_n"] == 2
    (inbox / "message.md").write_text("[message one]\n")  # to one that is over, too
    wait_for("the third run", lambda: site.task(task)["run_n"] == 3)
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert made(site, task, "said.txt") == ["one", "one"]


def test_words_that_come_too_late_to_steer_are_the_next_turn(site):
    task = submit(site, "[scenario wait]")
    wait_for("the command", lambda: site.events(task, "command.started"))
    runner, asked = runner_pid(site, task), len(site.asked())
    os.kill(runner, signal.SIGSTOP)
    try:
        status, said = site.call("POST", f"/v1/tasks/{task}/messages", {"text": "[message one]", "id": "late"})
        assert status == 202 and said["message"]["how"] == "steering"
        site.release(task)
        wait_for("the turn's last words", lambda: len(site.asked()) > asked)
    finally:
        os.kill(runner, signal.SIGCONT)
    assert ended(site, task)["status"] == "DONE", site.story(task)
    wait_for("its words", lambda: made(site, task, "said.txt") == ["one"])
    assert len([e for e in site.events(task) if e["type"] == "message.sent"]) == 1


# --- a lost database

def test_a_lost_database_keeps_settled_gates_and_their_decisions(new_site):
    site = new_site(scenarios=SCENARIOS)
    task = submit(site, "[scenario password]", approvals=ALWAYS)
    gate = open_gate(site, task)
    assert decide(site, gate, "answer", answer=PASSWORD)[0] == 200
    command = open_gate(site, task)
    assert decide(site, command, note="go on")[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)
    site.log_file(task)
    before = {g["id"]: g for g in site.get(f"/v1/gates?task={task}")["data"]}
    site.kill_server()
    lose_database(site)
    site.start_server()
    wait_for("the import", lambda: site.call("GET", f"/v1/tasks/{task}")[0] == 200)
    assert site.task(task)["status"] == "DONE"
    after = {g["id"]: g for g in site.get(f"/v1/gates?task={task}")["data"]}
    same = ("id", "task", "run", "worker", "kind", "state", "data", "created_at", "actor", "decision")
    assert {i: {k: g[k] for k in same} for i, g in after.items()} == {i: {k: g[k] for k in same} for i, g in before.items()}
    assert all(g["delivered_at"] for g in after.values())
    assert decide(site, gate, "answer", answer=PASSWORD)[0] == 200  # what was sealed is known again
    assert decide(site, gate, "answer", answer="another")[0] == 409


@pytest.mark.parametrize("runner_lives", [True, False])
def test_a_lost_database_keeps_the_question_and_the_answer_goes_on(new_site, runner_lives):
    site = new_site(scenarios=SCENARIOS)
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    gate = open_gate(site, task)
    runner = runner_pid(site, task)
    wait_for("the log", lambda: any(e["type"] == "gate.blocked" for e in site.log_file(task)))
    site.kill_server()
    if not runner_lives:
        os.kill(runner, signal.SIGKILL)
        wait_for("its end", lambda: not is_alive(runner))
    lose_database(site)
    site.start_server()
    wait_for("the import", lambda: site.call("GET", f"/v1/tasks/{task}")[0] == 200)
    assert (site.task(task)["status"], site.task(task)["reason"]) == ("WAITING", "record_lost")
    assert open_gate(site, task)["id"] == gate["id"]
    assert decide(site, gate)[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert made(site, task) == ["made"]
    assert not is_alive(runner)
    assert [e["type"] for e in site.events(task) if e["type"] in ("gate.blocked", "gate.approved")] == ["gate.blocked", "gate.approved"]


# --- secrets

def test_a_secret_that_the_agent_repeats_is_nowhere_in_this_turn_and_the_next(new_site):
    site = new_site(scenarios=SCENARIOS)
    task = submit(site, "[scenario password]")
    gate = open_gate(site, task)
    assert decide(site, gate, "answer", answer=PASSWORD)[0] == 200
    end = ended(site, task)
    assert end["status"] == "DONE" and end["result"]["summary"] == "The password is: ***", site.story(task)
    assert site.call("POST", f"/v1/tasks/{task}/messages", {"text": "[scenario tell]"})[0] == 202
    wait_for("the next turn", lambda: site.task(task)["run_n"] == 2)
    end = ended(site, task)
    assert end["status"] == "DONE" and end["result"]["summary"] == "It still is: ***", site.story(task)
    assert any("swordfish" in asked for asked in site.asked())
    assert "swordfish" not in json.dumps(site.events(task)) + json.dumps(end)
    wait_for("the record to be written", lambda: (site.directory(task) / "agents/main/runs/2/artifacts/exchanges.jsonl").exists())
    for piece in ("swordfish", "0815-4711"):  # what streams comes in pieces
        assert files_with(site, piece) == []


def test_a_new_gateway_hides_what_the_old_one_did(new_site):
    site = new_site(scenarios=SCENARIOS)
    task = submit(site, "[scenario password]", approvals=ALWAYS)
    gate = open_gate(site, task)
    assert decide(site, gate, "answer", answer=PASSWORD)[0] == 200
    command = open_gate(site, task)
    first = site.gateway_pid()
    os.kill(first, signal.SIGKILL)
    wait_for("another gateway", lambda: site.gateway_pid() not in (None, first))
    assert decide(site, command)[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert len(site.asked()) >= 3
    second = site.gateway_pid()
    site.stop_server()
    site.start_server()
    assert site.gateway_pid() == second  # secrets make no other configuration of it
    assert files_with(site, "swordfish") == []


def test_while_the_gateway_cannot_be_told_a_secret_is_not_handed_out(new_site):
    site = new_site(scenarios=SCENARIOS)
    task = submit(site, "[scenario password]")
    gate = open_gate(site, task)
    stopped = site.gateway_pid()
    os.kill(stopped, signal.SIGSTOP)
    try:
        assert decide(site, gate, "answer", answer=PASSWORD)[0] == 200
        wait_for("the warning", lambda: "is not handed out now" in site.log("server"))
        assert not site.events(task, "gate.delivered")
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert files_with(site, "swordfish") == []
