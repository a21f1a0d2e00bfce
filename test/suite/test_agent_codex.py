"""The real `codex app-server` through its adapter: what is asked and how it is decided, questions, todos, steering, interrupts, resuming, failures."""
import json
import shutil

import pytest
from agent_site import DRIVE, ROOT, Model, Worker
from gateway_site import CODEX

pytestmark = [pytest.mark.skipif(not CODEX.exists(), reason="Codex is not installed (npm ci)"), pytest.mark.skipif(not DRIVE.exists(), reason="agent_drive is not built"),
              pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")]

ALWAYS = ("--approvals", "always")


@pytest.fixture(scope="module")
def model():
    one = Model("app-server", "fix-test", "tools", "failures")
    yield one
    one.close()


@pytest.fixture
def worker(model):
    one = Worker(model, "codex")
    (one.workspace / "old.txt").write_text("before\n")
    yield one
    one.close()


def text(worker, name):
    path = worker.workspace / name
    return path.read_text() if path.exists() else None


def test_what_is_approved_is_done(worker):
    turn = worker.turn("[scenario approve]", *ALWAYS, decide="approve")
    assert turn.outcome["outcome"] == "success", turn.outcome
    assert [a["ask"] for a in turn.asks] == ["command", "patch", "command"]
    command, patch = turn.asks[0]["data"], turn.asks[1]["data"]
    assert command["command"] == "echo made > made.txt && echo 'it''s done'" and command["cwd"] == "/workspace"
    assert command["choices"] == ["approve", "approve_session", "reject", "abort"] and command["title"].startswith("Run: echo made")
    assert patch["files"] == [{"path": "added.txt", "kind": "add"}, {"path": "old.txt", "kind": "update"}]
    assert "+one line\n" in patch["diff"] and "-before\n+after\n" in patch["diff"] and "--- a/old.txt\n+++ b/old.txt\n" in patch["diff"]
    assert (text(worker, "made.txt"), text(worker, "added.txt"), text(worker, "old.txt")) == ("made\n", "one line\n", "after\n")
    assert len({a["request"] for a in turn.asks}) == 3


def test_a_command_is_told_as_started_when_it_was_approved_and_not_before(worker):
    turn = worker.turn("[scenario approve]", *ALWAYS, decide="approve")
    story = [name for name in turn.story() if name.startswith(("ask", "command", "file"))]
    assert story == ["ask command", "command.started", "command.finished", "ask patch", "file.changed", "ask command", "command.started", "command.finished"]
    commands = turn.data("command.finished")
    assert commands[0]["exit_code"] == 0 and commands[1]["output"] == "made\none line\nafter\n"
    assert turn.data("file.changed")[0]["changes"] == [{"path": "/workspace/added.txt", "kind": "add"}, {"path": "/workspace/old.txt", "kind": "update"}]
    assert turn.live("turn.diff")


def test_a_rule_may_decide_while_it_is_being_asked(worker):
    turn = worker.turn("[scenario approve]", *ALWAYS, decide="now approve")
    assert turn.outcome["outcome"] == "success" and text(worker, "made.txt") == "made\n"


def test_what_is_rejected_is_not_done_and_the_agent_goes_on(worker):
    turn = worker.turn("[scenario approve]", *ALWAYS, decide=["reject", "reject", "approve"])
    assert turn.outcome["outcome"] == "success"
    assert text(worker, "made.txt") is None and text(worker, "added.txt") is None and text(worker, "old.txt") == "before\n"
    assert turn.data("command.finished")[0]["status"] == "declined" and turn.data("file.changed")[0]["status"] == "declined"
    assert turn.story().count("command.started") == 1


def test_the_words_of_a_refusal_reach_the_agent(worker):
    turn = worker.turn("[scenario approve]", *ALWAYS, decide=["reject: [steer left] instead"])
    assert turn.outcome["final"]["summary"] == "It turned left." and text(worker, "made.txt") is None


def test_nobody_in_time_is_a_refusal(worker):
    turn = worker.turn("[scenario approve]", *ALWAYS, decide="expire")
    assert turn.outcome["outcome"] == "success" and text(worker, "made.txt") is None and len(turn.asks) == 3


@pytest.mark.parametrize("word", ["abort", "cancel"])
def test_an_abort_ends_the_turn(worker, word):
    turn = worker.turn("[scenario approve]", *ALWAYS, decide=word)
    assert (turn.outcome["outcome"], turn.outcome["reason"]) == ("failed", "interrupted") and "a person" in turn.outcome["error"]
    assert len(turn.asks) == 1 and text(worker, "made.txt") is None
    assert turn.data("run.turn")[0]["status"] == "interrupted"


def test_a_second_decision_of_the_same_request_changes_nothing(worker):
    turn = worker.turn("[scenario approve]", *ALWAYS, decide="twice approve")
    assert turn.outcome["outcome"] == "success"
    assert len([m for m in turn.sent if "result" in m]) == 3


def test_for_this_session_is_understood_by_codex(worker):
    turn = worker.turn("[scenario approve]", *ALWAYS, decide="approve session")
    assert turn.outcome["outcome"] == "success" and {m["result"]["decision"] for m in turn.sent if "result" in m} == {"acceptForSession"}


def test_on_request_asks_only_what_the_agent_itself_wants_asked(worker):
    turn = worker.turn("[scenario escalate]", "--approvals", "on-request", decide="approve")
    assert [a["data"]["command"] for a in turn.asks] == ["echo wanted > asked.txt"] and turn.asks[0]["data"]["reason"] == "It reaches outside."
    assert text(worker, "plain.txt") == "by-itself\n" and text(worker, "asked.txt") == "wanted\n"


def test_without_approvals_nothing_is_asked(worker):
    turn = worker.turn("[scenario approve]")
    assert turn.outcome["outcome"] == "success" and turn.asks == [] and text(worker, "made.txt") == "made\n"
    assert [name for name in turn.story() if name.startswith("command")] == ["command.started", "command.finished"] * 2


def test_a_question_is_answered_by_one_of_its_options(worker):
    turn = worker.turn("[scenario askuser]", decide="answer: blue")
    assert turn.outcome["final"]["summary"] == "The door is blue."
    question = turn.asks[0]["data"]
    assert question["title"] == "Which colour shall the door have?" and question["choices"] == ["answer", "reject", "abort"]
    assert question["questions"] == [{"id": "answer", "header": "Door", "text": "Which colour shall the door have?", "free_text": True, "secret": False,
                                      "options": [{"label": "red"}, {"label": "blue"}]}]


def test_a_question_is_answered_freely(worker):
    assert worker.turn("[scenario askuser-free]", decide="answer: Rumpelstilzchen, of course").outcome["outcome"] == "success"


def test_only_the_options_when_the_agent_says_so(worker):
    turn = worker.turn("[scenario askuser-any]", decide="answer: a")
    assert turn.outcome["outcome"] == "success" and turn.asks[0]["data"]["questions"][0]["free_text"] is False


def test_a_secret_is_in_no_event(worker):
    turn = worker.turn("[scenario askuser-secret]", decide="answer: open-sesame")
    assert turn.outcome["outcome"] == "success" and turn.asks[0]["data"]["questions"][0]["secret"] is True
    assert "open-sesame" not in json.dumps([line for line in turn.lines if "event" in line or "live" in line or "outcome" in line])


@pytest.mark.parametrize("decision,words", [("reject", "does not answer"), ("reject: ask my aunt", "ask my aunt"), ("expire", "Nobody answered in time")])
def test_a_question_that_is_not_answered_says_so_in_words(worker, model, decision, words):
    before = len(model.asked())
    turn = worker.turn("[scenario askuser-any]", decide=decision)
    assert turn.outcome["outcome"] == "success" and words in json.dumps(model.asked()[before:])


def test_an_aborted_question_ends_the_turn(worker):
    turn = worker.turn("[scenario askuser-any]", decide="abort")
    assert turn.outcome["reason"] == "interrupted" and len(turn.asks) == 1


def test_a_wrong_question_is_corrected_and_bothers_nobody(worker):
    turn = worker.turn("[scenario askuser-wrong]")
    assert turn.outcome["outcome"] == "success" and turn.asks == []


def test_codex_own_question_tool_works_in_its_plan_mode(worker):
    turn = worker.turn("[scenario user-input]", decide="answer: blue", agent={"mode": "plan"})
    assert turn.outcome["final"]["summary"] == "Asked."
    assert turn.asks[0]["data"]["questions"] == [{"id": "colour", "header": "Colour", "text": "Which colour?", "free_text": True, "secret": False,
                                                  "options": [{"label": "red", "description": "like fire"}, {"label": "blue", "description": "like water"}]}]


@pytest.mark.parametrize("decision,granted", [("approve", {"network": {"enabled": True}}), ("approve session", {"network": {"enabled": True}}), ("reject", {}), ("expire", {})])
def test_more_permissions_are_granted_or_not(worker, decision, granted):
    turn = worker.turn("[scenario permissions]", *ALWAYS, decide=decision, agent={"config": {"features.request_permissions_tool": True}})
    assert turn.outcome["outcome"] == "success" and turn.asks[0]["ask"] == "permission" and turn.asks[0]["data"]["reason"] == "It has to look something up."
    answer = next(m["result"] for m in turn.sent if "result" in m)
    assert answer == {"permissions": granted, "scope": "session" if decision == "approve session" else "turn"}


BOOK_SERVER = """
import json, sys

def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

call = None
for line in sys.stdin:
    message = json.loads(line)
    method, id = message.get("method"), message.get("id")
    if method == "initialize":
        send(id=id, result={"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": {"name": "books", "version": "1"}})
    elif method == "tools/list":
        send(id=id, result={"tools": [{"name": "book", "description": "Books a table", "inputSchema": {"type": "object", "properties": {}}}]})
    elif method == "tools/call":
        call = id
        send(id=99, method="elicitation/create", params={"message": "Which day?", "requestedSchema": {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]}})
    elif id == 99:
        send(id=call, result={"content": [{"type": "text", "text": "booked: " + json.dumps(message["result"])}]})
    elif method and id is not None:
        send(id=id, result={})
"""


@pytest.fixture
def books(worker):
    """The settings of an agent that has a tool server; its model is none that Codex knows, so that it offers the server's tools at once."""
    (worker.workspace / "books.py").write_text(BOOK_SERVER)
    return {"model": "scripted", "config": {"mcp_servers.books.command": "/usr/bin/python3", "mcp_servers.books.args": ["/workspace/books.py"]}}


MONDAY = 'json: {"decision": "answer", "content": {"day": "monday"}}'


def test_what_a_tool_asks_is_an_elicitation_also_where_nothing_needs_approval(worker, books):
    turn = worker.turn("[scenario elicit]", decide=MONDAY, agent=books)
    assert turn.outcome["outcome"] == "success" and [a["ask"] for a in turn.asks] == ["elicitation"]
    asked = turn.asks[0]["data"]
    assert asked["server"] == "books" and asked["message"] == "Which day?" and asked["choices"] == ["answer", "reject", "abort"] and "day" in asked["schema"]["properties"]
    assert "monday" in json.dumps(turn.data("tool.finished"))


def test_the_call_of_a_tool_is_approved_first_where_everything_is_asked(worker, books):
    turn = worker.turn("[scenario elicit]", *ALWAYS, decide=["approve session", MONDAY, "approve"], agent=books)
    assert turn.outcome["outcome"] == "success" and [a["ask"] for a in turn.asks] == ["elicitation", "elicitation", "command"]
    assert turn.asks[0]["data"]["choices"] == ["approve", "approve_session", "reject", "abort"] and "book" in turn.asks[0]["data"]["title"]


@pytest.mark.parametrize("decision,heard", [("reject", "decline"), ("expire", "decline")])
def test_an_elicitation_that_is_refused_is_declined(worker, books, decision, heard):
    turn = worker.turn("[scenario elicit]", decide=decision, agent=books)
    assert turn.outcome["outcome"] == "success" and heard in json.dumps(turn.data("tool.finished"))


def test_an_aborted_elicitation_ends_the_turn(worker, books):
    assert worker.turn("[scenario elicit]", decide="abort", agent=books).outcome["reason"] == "interrupted"


def test_a_plan_becomes_todos_whose_ids_stay(worker):
    turn = worker.turn("[scenario plan-twice]")
    told = [(line["event"], line["data"]) for line in turn.lines if line.get("event", "").startswith("todo.")]
    assert [type for type, _ in told] == ["todo.snapshot", "todo.update", "todo.update", "todo.snapshot"]
    first, last = told[0][1]["items"], told[-1][1]["items"]
    assert {(d["id"], d["text"], d["was"], d["status"]) for _, d in told[1:3]} == {("1", "Look", "in_progress", "completed"), ("2", "Mend", "pending", "in_progress")}
    assert [(s["id"], s["text"]) for s in first] == [("1", "Look"), ("2", "Mend")]
    assert [(s["id"], s["text"], s["status"]) for s in last] == [("1", "Look", "completed"), ("3", "Ask", "in_progress"), ("2", "Mend", "pending")]


def test_words_for_the_running_turn_change_its_outcome(worker):
    turn = worker.turn("[scenario wait]", "--say", "ask: [steer left] and make it go", *ALWAYS, decide="reject")
    assert {"said": "m1", "refused": None} in turn.lines
    assert turn.outcome["final"]["summary"] == "It turned left."


def test_words_that_come_too_late_are_refused(worker):
    turn = worker.turn("[scenario shell]", "--say", "run.turn: one more thing")
    assert turn.outcome["outcome"] == "success" and [line for line in turn.lines if "said" in line][0]["refused"]


def test_an_interrupt_ends_the_turn_while_a_command_runs(worker):
    turn = worker.turn("[scenario wait]", "--interrupt", "command.started")
    assert (turn.outcome["outcome"], turn.outcome["reason"]) == ("failed", "interrupted")
    assert any("until [ -e go ]" in command for command in turn.running) and turn.running[-1] == ""


def test_an_interrupt_takes_back_what_was_asked(worker):
    turn = worker.turn("[scenario approve]", "--interrupt", "ask", *ALWAYS, decide="hold")
    assert turn.outcome["reason"] == "interrupted" and {"withdraw": turn.asks[0]["request"]} in turn.lines


def test_an_interrupt_before_the_turn_has_begun_ends_it_all_the_same(worker):
    turn = worker.turn("[scenario wait]", "--interrupt", "run.session")
    assert turn.outcome["reason"] == "interrupted" and turn.data("command.started") == []


def test_a_thread_is_resumed_by_another_process(worker, model):
    first = worker.turn("[scenario askuser-free]", decide="answer: Rumpelstilzchen")
    before = len(model.asked())
    second = worker.turn("[scenario askuser]", "--session", first.outcome["session"], decide="answer: blue")
    assert second.outcome["outcome"] == "success" and second.outcome["session"] == first.outcome["session"]
    assert "Rumpelstilzchen" in json.dumps(model.asked()[before]), "the first turn is part of what the model hears"
    assert second.data("run.session")[0]["session"] == first.outcome["session"]


def test_a_resumed_thread_asks_as_this_run_wants_it(worker):
    first = worker.turn("[scenario shell]")
    second = worker.turn("[scenario approve]", "--session", first.outcome["session"], *ALWAYS, decide="approve")
    assert first.asks == [] and len(second.asks) == 3
    third = worker.turn("[scenario approve]", "--session", first.outcome["session"])
    assert third.asks == [] and third.outcome["outcome"] == "success"


def test_a_process_that_was_killed_while_it_asked_is_resumed_and_told_the_decision(worker, model):
    first = worker.turn("[scenario askuser]", "--kill", "ask", decide="hold")
    assert (first.outcome["outcome"], first.outcome["reason"]) == ("failed", "agent_exited") and "withdraw" not in first.story()
    session = first.data("run.session")[0]["session"]
    before = len(model.asked())
    second = worker.turn("[steer left] You asked which colour the door shall have. The answer is blue.", "--session", session)
    assert second.outcome["final"]["summary"] == "It turned left."
    assert "[scenario askuser]" in json.dumps(model.asked()[before])


def test_a_process_that_was_killed_in_a_command_is_resumed(worker):
    first = worker.turn("[scenario wait]", "--kill", "command.started")
    assert first.outcome["reason"] == "agent_exited"
    assert worker.turn("[scenario shell]", "--session", first.data("run.session")[0]["session"]).outcome["outcome"] == "success"


@pytest.mark.parametrize("session", ["01a1f92f-45bc-71e1-af16-b14ca90a1851", "nonsense"])
def test_a_thread_that_is_gone_is_said_to_be_lost(worker, session):
    turn = worker.turn("[scenario shell]", "--session", session)
    assert (turn.outcome["outcome"], turn.outcome["reason"]) == ("failed", "session_lost") and "could not resume" in turn.outcome["error"]
    assert "session" not in turn.outcome


FAILURES = {"error-400": "the request is not acceptable", "error-429": "too many requests", "error-500": "high demand", "cut": "", "garbage": ""}


@pytest.mark.parametrize("scenario", FAILURES)
def test_a_model_that_fails_is_told_in_its_words(worker, scenario):
    turn = worker.turn(f"[scenario {scenario}]")
    assert (turn.outcome["outcome"], turn.outcome["reason"]) == ("failed", "agent_failed"), turn.outcome
    assert FAILURES[scenario] in turn.outcome["error"].lower() and turn.data("agent.error")
    assert turn.data("run.turn")[0]["status"] == "failed"


@pytest.mark.parametrize("scenario", ["error-500-twice", "error-429-once", "cut-once"])
def test_failures_that_pass_are_none(worker, scenario):
    turn = worker.turn(f"[scenario {scenario}]")
    assert turn.data("run.turn")[0]["status"] == "completed" and turn.data("message.done")


def test_the_usage_is_what_the_model_said(worker):
    usage = {"input_tokens": 2200, "cached_input_tokens": 1600, "cache_write_input_tokens": 0, "output_tokens": 80, "reasoning_output_tokens": 25}
    first = worker.turn("[scenario usage]")
    assert first.data("run.turn")[0]["usage"] == usage
    again = worker.turn("[scenario usage]", "--session", first.outcome["session"])
    assert again.data("run.turn")[0]["usage"] == usage, "of this turn, not of the whole thread"


def test_a_blocked_answer_and_one_that_is_none(worker):
    assert worker.turn("[scenario blocked]").outcome["final"]["questions"] == ["Which of the two names shall stay?"]
    assert worker.turn("[scenario refuse]").outcome["reason"] == "final_invalid"


def test_a_whole_task_as_codex_exec_tells_it(worker):
    (worker.workspace / "add.c").write_text("int add(int a, int b)\n{\n\treturn a - b;\n}\n")
    (worker.workspace / "Makefile").write_text("test:\n\t@grep -q 'a + b' add.c && echo PASS || { echo FAIL; exit 1; }\n")
    turn = worker.turn("[scenario fix-test] repair add()")
    assert turn.outcome["outcome"] == "success"
    assert {"run.session", "reasoning.done", "message.done", "todo.snapshot", "command.started", "command.finished", "file.changed", "run.turn"} <= set(turn.story())
    assert "agent.raw" not in turn.story() and turn.live("message.delta")
