"""The human in the loop with the real Codex app-server: asked, decided, delivered; also when server, runner or agent are killed on the way."""
import os
import signal
import threading

import pytest
from e2e_site import CODEX, descendants, proc_text, wait_for
from gate_steps import ALWAYS, decide, ended, files_with, made, open_gate, runner_pid, submit

SECRET_ANSWER = 'open-"sesame"-4711'
SCENARIOS = f"""
  - match: "[scenario touch]"
    steps:
      - shell: "echo made >> made.txt"
      - final: "It is decided."
  - match: "[scenario two]"
    steps:
      - shell: "echo one >> made.txt"
      - shell: "echo two >> made.txt"
      - final: "Both are decided."
  - match: "[scenario thrice]"
    steps:
      - shell: "echo one >> made.txt"
      - shell: "echo two >> made.txt"
      - shell: "echo one >> made.txt"
      - final: "Thrice."
  - match: "[scenario colour]"
    steps:
      - ask: {{tool: askuser, arguments: {{question: "Which colour?", options: [red, blue], free_text: false}}}}
      - expect: "blue"
      - shell: "echo blue > door.txt"
      - final: "The door is blue."
  - match: "[scenario name]"
    steps:
      - ask: {{tool: askuser, arguments: {{question: "What is it called?"}}}}
      - expect: "Rumpelstilzchen"
      - final: "It has a name."
  - match: "[scenario any]"
    steps:
      - ask: {{tool: askuser, arguments: {{question: "Which one?", options: [first, second]}}}}
      - shell: "true"
      - final: "It went on."
  - match: "[scenario password]"
    steps:
      - ask: {{tool: askuser, arguments: {{question: "What is the password?", secret: true}}}}
      - shell: "echo told"
      - final: "It is open."
  - match: "[scenario wait]"
    steps:
      - shell: "echo begun > begun.txt; until [ -e go ]; do sleep 0.05; done; echo ended"
      - expect: "ended"
      - final: "It waited."
  - match: "[steer left]"
    steps:
      - shell: "echo left > left.txt"
      - final: "It turned left."
  - match: "not that one"
    steps:
      - shell: "echo two >> made.txt"
      - final: "So the other one."
  - match: "refused by the rule"
    steps:
      - final: "Without it."
  - match: "[scenario more]"
    steps:
      - shell: "echo more >> made.txt"
      - final: "There is more."
  - match: "[scenario plan]"
    steps:
      - plan: [{{step: Look, status: in_progress}}, {{step: Mend, status: pending}}]
      - plan: [{{step: Look, status: completed}}, {{step: Mend, status: in_progress}}]
      - final: "Planned."
"""
SITE = {"scenarios": SCENARIOS}
pytestmark = pytest.mark.skipif(not CODEX.exists(), reason="Codex is not installed")


def agent_pid(site, task, n=1):
    """The app-server inside the walls."""
    def there():
        found = [p for p in descendants(runner_pid(site, task, n)) if b"app-server" in proc_text(p, "cmdline") and b"codex" in proc_text(p, "comm")]
        return found[-1] if found else None
    return wait_for("the agent's process", there)


def test_an_approved_command_runs_and_waiting_is_shown(site):
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    gate = open_gate(site, task)
    assert gate["kind"] == "command" and "made.txt" in gate["data"]["command"] and gate["data"]["choices"] == ["approve", "approve_session", "reject", "abort"]
    assert site.task(task)["status"] == "WAITING"
    text = (site.directory(task) / "gates" / f"{gate['id']}.yaml").read_text()
    assert "made.txt" in text and "# decision: approve" in text
    status, settled = decide(site, gate)
    assert status == 200 and settled["state"] == "approved" and settled["actor"]
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert made(site, task) == ["made"]
    after = site.get(f"/v1/gates/{gate['id']}")
    assert after["delivered_at"] and after["decision"]["decision"] == "approve"
    assert [e["type"] for e in site.events(task) if e["type"].startswith("gate.")] == ["gate.blocked", "gate.approved", "gate.delivered"]


def test_a_refused_command_does_not_run_and_the_agent_goes_on(site):
    task = submit(site, "[scenario two]", approvals=ALWAYS)
    first = open_gate(site, task)
    assert decide(site, first, "reject", note="not that one")[0] == 200
    second = open_gate(site, task, [first["id"]])
    assert decide(site, second)[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert made(site, task) == ["two"]


def test_abort_ends_the_turn(site):
    task = submit(site, "[scenario two]", approvals=ALWAYS)
    assert decide(site, open_gate(site, task), "abort")[0] == 200
    end = ended(site, task)
    assert end["status"] == "CANCELED" and end["reason"] == "interrupted", site.story(task)


def test_for_this_session_is_asked_once(site):
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    decide(site, open_gate(site, task), "approve", scope="session")
    assert ended(site, task)["status"] == "DONE", site.story(task)


def test_rules_decide_and_every_decision_is_an_event(site):
    rules = [{"name": "notes", "allow": {"command": "echo one"}}, {"name": "no-two", "deny": {"command": "echo two"}}]
    task = submit(site, "[scenario two]", approvals={"ask": "never", "rules": rules})
    assert ended(site, task)["status"] == "DONE", site.story(task)
    said = [(e["data"]["rule"], e["data"]["decision"]) for e in site.events(task, "policy.decided")]
    assert ("no-two", "reject") in said and all(e["actor"] == "policy" for e in site.events(task, "policy.decided")), said
    assert made(site, task) == ["one"]


def test_questions_are_answered_by_option_and_by_words(site):
    task = submit(site, "[scenario colour]")
    gate = open_gate(site, task)
    status, problem = decide(site, gate, "answer", answer="green")
    assert status == 422 and "answer.q1" in problem["detail"] or "answer." in problem["detail"], problem
    assert decide(site, gate, "approve")[0] == 422
    assert decide(site, gate, "answer", answer="blue")[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)
    other = submit(site, "[scenario name]")
    assert decide(site, open_gate(site, other), "answer", answer="Rumpelstilzchen")[0] == 200
    assert ended(site, other)["status"] == "DONE", site.story(other)


def test_the_same_reply_again_is_harmless_and_another_learns_who_was_first(site):
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    gate = open_gate(site, task)
    replies = []

    def reply(i):
        replies.append((i % 2, decide(site, gate, "approve" if i % 2 else "reject")))
    threads = [threading.Thread(target=reply, args=(i,)) for i in range(100)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    settled = site.get(f"/v1/gates/{gate['id']}")
    won = 1 if settled["decision"]["decision"] == "approve" else 0
    assert {(side, status) for side, (status, _) in replies} == {(won, 200), (1 - won, 409)}
    refused = next(body for side, (status, body) in replies if status == 409)
    assert "user" in refused["detail"] and settled["decision"]["at"] in refused["detail"], refused
    ended(site, task)
    events = [e for e in site.events(task) if e["type"] in ("gate.approved", "gate.rejected")]
    assert len(events) == 1 and len(site.events(task, "gate.delivered")) == 1
    assert made(site, task) == (["made"] if won else [])


def test_cancel_closes_the_open_gate(site):
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    gate = open_gate(site, task)
    assert site.call("POST", f"/v1/tasks/{task}/cancel", {})[0] == 202
    assert ended(site, task)["status"] == "CANCELED", site.story(task)
    assert site.get(f"/v1/gates/{gate['id']}")["state"] == "canceled"
    assert decide(site, gate)[0] == 409


@pytest.mark.parametrize("then, status, reason", [("reject", "DONE", None), ("fail", "ERROR", "gate_expired")])
def test_a_deadline_decides_when_nobody_does(site, then, status, reason):
    task = submit(site, "[scenario touch]", approvals={"ask": "always", "deadline": "1s", "at_deadline": then})
    (gate,) = wait_for("the gate", lambda: site.get(f"/v1/gates?task={task}")["data"])  # open or not: a moment may be longer than its deadline
    assert gate["deadline_at"] and gate["at_deadline"] == then
    end = ended(site, task)
    assert (end["status"], end["reason"]) == (status, reason), site.story(task)
    assert site.get(f"/v1/gates/{gate['id']}")["state"] == "expired"
    assert made(site, task) == []


def test_a_deadline_may_have_a_default_answer(site):
    task = submit(site, "[scenario any]", approvals={"deadline": "1s", "at_deadline": "default"})
    end = ended(site, task)
    assert end["status"] == "DONE", site.story(task)
    (gate,) = site.get(f"/v1/gates?task={task}")["data"]
    assert gate["state"] == "expired" and list(gate["decision"]["answers"].values()) == [["first"]]


def test_a_secret_answer_is_nowhere(site):
    task = submit(site, "[scenario password]")
    gate = open_gate(site, task)
    status, shown = decide(site, gate, "answer", answer=SECRET_ANSWER)
    assert status == 200 and "sesame" not in str(shown)
    assert decide(site, gate, "answer", answer=SECRET_ANSWER)[0] == 200
    assert decide(site, gate, "answer", answer="another")[0] == 409
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert any("sesame" in str(asked) for asked in site.asked())  # the agent did get it
    site.release(task)
    assert files_with(site, "sesame") == []


@pytest.mark.parametrize("struck", ["server", "runner", "agent", "all"])
@pytest.mark.parametrize("when", ["open", "settled"])
def test_a_gate_survives_kill(new_site, struck, when):
    site = new_site(scenarios=SCENARIOS)
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    gate = open_gate(site, task)
    runner, agent = runner_pid(site, task), agent_pid(site, task)
    victims = {"server": [], "runner": [runner], "agent": [agent], "all": [agent, runner]}[struck]
    if when == "settled":  # the runner is held, so that the reply cannot be delivered before the blow
        os.kill(runner, signal.SIGSTOP)
        assert decide(site, gate)[0] == 200
    if struck in ("server", "all"):
        site.kill_server()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    if when == "settled" and runner not in victims:
        os.kill(runner, signal.SIGCONT)
    if struck in ("server", "all"):
        site.start_server()
    if when == "open":
        again = open_gate(site, task)
        assert again["id"] == gate["id"]
        wait_for("the task to wait", lambda: site.task(task)["status"] == "WAITING")
        assert decide(site, gate)[0] == 200
    end = ended(site, task)
    assert end["status"] == "DONE", site.story(task)
    assert made(site, task) == ["made"]
    settled = site.get(f"/v1/gates/{gate['id']}")
    assert settled["state"] == "approved" and settled["delivered_at"]
    assert len(site.events(task, "gate.approved")) == 1
    ids = {e["data"]["decision_id"] for e in site.events(task, "gate.delivered")}
    assert ids == {settled["decision"]["id"]}


def test_what_was_approved_for_the_session_stays_so_when_the_runner_dies(new_site):
    site = new_site(scenarios=SCENARIOS)
    task = submit(site, "[scenario thrice]", approvals=ALWAYS)
    first = open_gate(site, task)
    assert decide(site, first, "approve", scope="session")[0] == 200
    second = open_gate(site, task, [first["id"]])
    os.kill(runner_pid(site, task), signal.SIGKILL)
    wait_for("the run's end", lambda: site.events(task, "run.ended"))
    assert decide(site, second)[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert len(site.get(f"/v1/gates?task={task}")["data"]) == 2  # the third command was the first once more
    assert "session" in {e["data"]["rule"] for e in site.events(task, "policy.decided")}


def test_without_a_server_a_file_decides(new_site):
    site = new_site(scenarios=SCENARIOS)
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    gate = open_gate(site, task)
    site.kill_server()
    (site.directory(task) / "inbox" / f"{gate['id']}.yaml").write_text("decision: approve\nnote: by hand\n")
    decision = site.directory(task) / "gates" / f"{gate['id']}.decision"
    wait_for("the decision", decision.exists)
    wait_for("the end of the run", lambda: '"type":"run.result"' in (site.run_dir(task) / "spool.jsonl").read_text())
    site.start_server()
    assert ended(site, task)["status"] == "DONE", site.story(task)
    settled = site.get(f"/v1/gates/{gate['id']}")
    assert settled["state"] == "approved" and settled["decision"]["note"] == "by hand" and settled["actor"].startswith("file:")
    assert (site.directory(task) / "inbox/done" / f"{gate['id']}.yaml").exists()


def test_with_a_server_a_file_decides_too_and_a_wrong_one_is_told(site):
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    gate = open_gate(site, task)
    inbox = site.directory(task) / "inbox"
    (inbox / f"{gate['id']}.yaml").write_text("decision: answer\nanswer: what?\n")
    (event,) = wait_for("the refusal", lambda: site.events(task, "inbox.refused"))
    assert "answer" in event["data"]["problem"] and (inbox / "done" / f"{gate['id']}.yaml.refused").exists()
    (inbox / f"{gate['id']}.yaml").write_text("decision: approve\n")
    assert ended(site, task)["status"] == "DONE", site.story(task)


def test_words_steer_the_running_turn(site):
    task = submit(site, "[scenario wait]")
    wait_for("the command", lambda: site.events(task, "command.started"))
    status, said = site.call("POST", f"/v1/tasks/{task}/messages", {"text": "[steer left]", "id": "m-1"})
    assert status == 202 and said["message"]["how"] == "steering"
    wait_for("the message", lambda: site.events(task, "message.steered"))
    status, again = site.call("POST", f"/v1/tasks/{task}/messages", {"text": "[steer left]", "id": "m-1"})
    assert status == 202 and again["message"] == {"n": said["message"]["n"], "id": "m-1", "again": True}
    assert site.call("POST", f"/v1/tasks/{task}/messages", {"text": "else", "id": "m-1"})[0] == 422
    site.call("POST", f"/v1/tasks/{task}/interrupt", {})
    end = ended(site, task)
    assert end["status"] == "CANCELED" and end["reason"] == "interrupted", site.story(task)
    assert len(site.events(task, "message.sent")) == 1


def test_an_interrupt_leaves_no_process_and_a_message_goes_on(site):
    task = submit(site, "[scenario wait]")
    wait_for("the command", lambda: site.events(task, "command.started"))
    assert site.call("POST", f"/v1/tasks/{task}/interrupt", {})[0] == 202
    end = ended(site, task)
    assert (end["status"], end["reason"]) == ("CANCELED", "interrupted"), site.story(task)
    wait_for("its processes to be gone", lambda: not site.left_of_runs())
    assert site.call("POST", f"/v1/tasks/{task}/messages", {"text": "[scenario more]"})[0] == 202
    end = ended(site, task)
    assert end["status"] == "DONE", site.story(task)
    assert "begun" in made(site, task) and "more" in made(site, task)


def test_a_follow_up_continues_the_thread_and_extends_the_diff(site):
    task = submit(site, "[scenario touch]")
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert site.call("POST", f"/v1/tasks/{task}/messages", {"text": "[scenario more]"})[0] == 202
    end = ended(site, task)
    assert end["status"] == "DONE" and end["run_n"] == 2, site.story(task)
    assert made(site, task) == ["made", "more"]
    assert len({e["data"]["session"] for e in site.events(task, "run.session")}) == 1


def test_todos_have_ids_that_stay(site):
    task = submit(site, "[scenario plan]")
    assert ended(site, task)["status"] == "DONE", site.story(task)
    todos = site.get(f"/v1/tasks/{task}/todos")["data"]
    assert [(t["text"], t["status"]) for t in todos] == [("Look", "completed"), ("Mend", "in_progress")]
    history = site.get(f"/v1/tasks/{task}/todos/events")["data"]
    assert history[0]["type"] == "todo.snapshot" and {e["data"]["id"] for e in history if e["type"] == "todo.update"} == {t["id"] for t in todos}


def test_what_an_agent_cannot_do_is_refused_at_submit(site):
    status, problem = site.call("POST", "/v1/tasks", {"prompt": "x", "agent": "command", "require": ["gates"]})
    assert status == 501 and "gates" in problem["detail"]
    status, problem = site.call("POST", "/v1/tasks", {"prompt": "x", "agent": "codex", "require": ["flying"]})
    assert status == 400 and "flying" in problem["detail"]
    status, problem = site.call("POST", "/v1/tasks", {"prompt": "x", "agent": "codex", "approvals": {"ask": "sometimes"}})
    assert status == 400 and "approvals.ask" in problem["detail"]


def test_an_agent_that_writes_a_decision_inside_its_walls_changes_nothing(site):
    script = "mkdir -p inbox gates ../inbox 2>/dev/null; echo 'decision: approve' > inbox/x.yaml; ls / /workspace; ls -d /*/tasks /*/*/tasks 2>/dev/null; true"
    task = site.run(script, agent="command")
    assert site.get(f"/v1/gates?task={task['id']}")["data"] == []
    assert list((site.directory(task["id"]) / "inbox").iterdir()) == [site.directory(task["id"]) / "inbox/done"]
