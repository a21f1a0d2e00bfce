"""The human in the loop at its seams: what was told twice, struck twice, refused in vain, or came in the wrong moment."""
import os
import signal

import pytest
from e2e_site import CODEX, TERMINAL, is_alive, wait_for
from gate_steps import ALWAYS, asking_agent, database, decide, ended, open_gate, open_gates, runner_pid, say

SCENARIOS = """
  - match: "[scenario touch]"
    steps:
      - shell: "echo made >> made.txt"
      - final: "It is decided."
  - match: "[scenario any]"
    steps:
      - ask: {tool: askuser, arguments: {question: "Which one?", options: [first, second]}}
      - final: "It went on."
  - match: "[scenario password]"
    steps:
      - ask: {tool: askuser, arguments: {question: "What is the password?", secret: true}}
      - final: "It is open."
"""
SITE = {"scenarios": SCENARIOS}
ASK = """echo '{"status": "blocked", "summary": "A question.", "questions": ["Which colour?"]}' > "$SIGNALBOX_FINAL" """
needs_codex = pytest.mark.skipif(not CODEX.exists(), reason="Codex is not installed")


def decider_looked(site, task):
    """A decision file that came later than all else was found: those that were there before have had their look."""
    other = site.submit(ASK)
    gate = open_gate(site, other)
    (site.directory(other) / "inbox" / f"{gate['id']}.yaml").write_text("decision: reject\n")
    wait_for("the other file", lambda: site.get(f"/v1/gates/{gate['id']}")["state"] == "rejected")


# --- messages

def test_a_message_that_is_sent_again_does_not_answer_the_next_question(site):
    task = site.submit(ASK)
    first = open_gate(site, task)
    assert say(site, task, ASK, id="m-1")[0] == 202
    second = open_gate(site, task, [first["id"]])
    wait_for("the run's end", lambda: site.task(task)["run"]["ended_at"])
    status, again = say(site, task, ASK, id="m-1")
    assert status == 202 and again["message"]["n"] == 1
    assert say(site, task, "another text", id="m-1")[0] == 422
    assert not (site.directory(task) / "gates" / f"{second['id']}.decision").exists()
    assert site.get(f"/v1/gates/{second['id']}")["state"] == "blocked"


def test_messages_that_an_interrupted_run_left_come_before_later_ones(site):
    task = site.submit("until [ -e ~/go ]; do sleep 0.05; done")
    wait_for("its start", lambda: site.events(task, "run.started"))
    assert say(site, task, "echo one >> said.txt", queue=True)[0] == 202
    assert site.call("POST", f"/v1/tasks/{task}/interrupt", {})[0] == 202
    assert ended(site, task)["status"] == "CANCELED", site.story(task)
    assert say(site, task, "echo two >> said.txt")[0] == 202
    wait_for("all that was said", lambda: site.task(task)["status"] == "DONE")
    assert [e["data"]["text"] for e in site.events(task, "task.turn")] == ["echo one >> said.txt\n\necho two >> said.txt"]
    assert site.task(task)["run_n"] == 2


def test_a_task_that_was_asked_to_end_begins_no_further_turn(new_site):
    site = new_site()
    task = site.submit("until [ -e ~/go ]; do sleep 0.05; done")
    wait_for("its start", lambda: site.events(task, "run.started"))
    runner = runner_pid(site, task)
    assert say(site, task, "echo more > more.txt", queue=True)[0] == 202
    site.kill_server()
    site.release(task)
    wait_for("the end of the run", lambda: not is_alive(runner))
    with database(site) as db:
        db.execute("UPDATE tasks SET cancel_asked=1 WHERE id=?", (task,))  # acknowledged, when the run had just ended
    site.start_server()
    ended(site, task)
    assert site.events(task, "task.turn") == [] and site.task(task)["run_n"] == 1


@needs_codex
def test_many_long_messages_do_not_make_a_runner_deaf(site):
    text = "x" * 250000
    task = site.submit("[scenario touch]", agent="codex", approvals=ALWAYS)
    open_gate(site, task)
    runner = runner_pid(site, task)
    os.kill(runner, signal.SIGSTOP)
    try:
        for _ in range(24):
            assert say(site, task, text)[0] == 202
        assert site.call("POST", f"/v1/tasks/{task}/cancel", {})[0] == 202
    finally:
        os.kill(runner, signal.SIGCONT)
    assert ended(site, task)["status"] == "CANCELED", site.story(task)


# --- struck twice

@needs_codex
def test_a_decision_outlives_the_second_run_that_dies_too(new_site):
    site = new_site(scenarios=SCENARIOS)
    task = site.submit("[scenario touch]", agent="codex", approvals=ALWAYS)
    gate = open_gate(site, task)
    runner = runner_pid(site, task)
    os.kill(runner, signal.SIGSTOP)
    assert decide(site, gate)[0] == 200
    os.kill(runner, signal.SIGKILL)
    os.kill(runner_pid(site, task, 2), signal.SIGKILL)
    end = ended(site, task)
    assert end["status"] == "DONE", site.story(task)
    assert site.get(f"/v1/gates/{gate['id']}")["delivered_at"]


@needs_codex
def test_a_runner_that_is_asked_to_end_leaves_its_question_open(new_site):
    site = new_site(scenarios=SCENARIOS)
    task = site.submit("[scenario touch]", agent="codex", approvals=ALWAYS)
    gate = open_gate(site, task)
    os.kill(runner_pid(site, task), signal.SIGTERM)  # as a machine does that shuts down
    wait_for("the run's end", lambda: site.task(task)["run"]["ended_at"])
    assert site.task(task)["status"] == "WAITING", site.story(task)
    assert site.get(f"/v1/gates/{gate['id']}")["state"] == "blocked"
    assert decide(site, gate)[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert len(site.get(f"/v1/gates?task={task}")["data"]) == 1


def test_an_agent_that_dies_before_it_heard_its_task_has_not_got_the_decision(new_site):
    site = new_site(model=False, config={"agents": {"own": {"adapter": "acp", "command": ["/usr/bin/python3", "-c", asking_agent(dies_at=(2,))]}}})
    task = site.submit("Work.", agent="own", approvals=ALWAYS)
    gate = open_gate(site, task)
    runner = runner_pid(site, task)
    os.kill(runner, signal.SIGSTOP)
    assert decide(site, gate)[0] == 200
    os.kill(runner, signal.SIGKILL)
    end = ended(site, task)
    assert end["status"] == "DONE" and end["result"]["summary"] == "It was told.", site.story(task)
    assert [e["run"] for e in site.events(task, "gate.delivered")] == [3], site.story(task)


def test_a_message_after_a_death_does_not_drop_what_was_decided_before(new_site):
    site = new_site(model=False, config={"agents": {"own": {"adapter": "acp", "command": ["/usr/bin/python3", "-c", asking_agent(("other", "make test"))]}}})
    task = site.submit("Work.", agent="own", approvals=ALWAYS)
    wait_for("both gates", lambda: len(open_gates(site, task)) == 2)
    gate = open_gate(site, task)
    runner = runner_pid(site, task)
    os.kill(runner, signal.SIGSTOP)
    assert decide(site, gate)[0] == 200
    os.kill(runner, signal.SIGKILL)
    wait_for("its end", lambda: site.task(task)["run"]["ended_at"])
    assert site.task(task)["status"] == "WAITING", site.story(task)
    assert say(site, task, "As you like.")[0] == 202
    end = ended(site, task)
    assert end["status"] == "DONE" and end["result"]["summary"] == "It was told.", site.story(task)
    assert site.get(f"/v1/gates/{gate['id']}")["delivered_at"]


# --- by a person's wish

@needs_codex
def test_after_an_abort_a_retry_asks_again(site):
    task = site.submit("[scenario touch]", agent="codex", approvals=ALWAYS)
    first = open_gate(site, task)
    assert decide(site, first, "abort")[0] == 200
    assert ended(site, task)["status"] == "CANCELED", site.story(task)
    assert site.call("POST", f"/v1/tasks/{task}/retry", {})[0] == 202
    assert decide(site, open_gate(site, task, [first["id"]]))[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)


@needs_codex
def test_an_interrupt_closes_the_open_gate(site):
    task = site.submit("[scenario touch]", agent="codex", approvals=ALWAYS)
    gate = open_gate(site, task)
    assert site.call("POST", f"/v1/tasks/{task}/interrupt", {})[0] == 202
    end = ended(site, task)
    assert (end["status"], end["reason"]) == ("CANCELED", "interrupted"), site.story(task)
    assert site.get(f"/v1/gates/{gate['id']}")["state"] == "canceled"


def test_an_agent_that_does_not_hear_an_interrupt_is_ended_however_often_it_is_asked(new_site):
    site = new_site(model=False, config={"agents": {"own": {"adapter": "acp", "command": ["/usr/bin/python3", "-c", asking_agent(dies_at=(2,))]}}})
    task = site.submit("Work.", agent="own", approvals=ALWAYS)
    gate = open_gate(site, task)

    def over():
        site.call("POST", f"/v1/tasks/{task}/interrupt", {})
        return site.task(task)["status"] in TERMINAL
    wait_for("its end", over)
    assert (site.task(task)["status"], site.task(task)["reason"]) == ("CANCELED", "interrupted"), site.story(task)
    assert site.get(f"/v1/gates/{gate['id']}")["state"] == "canceled"


# --- secrets

@needs_codex
def test_a_secret_that_is_long_once_it_is_spelt_does_not_keep_runs_from_starting(new_site):
    site = new_site(scenarios=SCENARIOS)
    task = site.submit("[scenario password]", agent="codex")
    assert decide(site, open_gate(site, task), "answer", answer="\x01" * 15000)[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert say(site, task, "[scenario any]")[0] == 202
    assert decide(site, open_gate(site, task), "answer", answer="first")[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)
    site.run("true")


# --- files

@needs_codex
@pytest.mark.parametrize("by", ["file", "deadline"])
def test_a_decision_that_could_not_be_written_is_tried_again(new_site, by):
    site = new_site(scenarios=SCENARIOS)
    approvals = ALWAYS if by == "file" else {"ask": "always", "deadline": "20s", "at_deadline": "reject"}
    task = site.submit("[scenario touch]", agent="codex", approvals=approvals)
    gate = open_gate(site, task)
    gates, inbox = site.directory(task) / "gates", site.directory(task) / "inbox"
    runner = runner_pid(site, task)
    site.kill_server()
    gates.rename(gates.with_name("gates.away"))
    if by == "file":
        (inbox / f"{gate['id']}.yaml").write_text("decision: approve\n")
    log = site.run_dir(task) / "runtime/runner.log"
    wait_for("the failure", lambda: f"gate {gate['id']}" in log.read_text())
    gates.with_name("gates.away").rename(gates)
    wait_for("the decision", (gates / f"{gate['id']}.decision").exists)
    wait_for("its end", lambda: not is_alive(runner))
    site.start_server()
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert site.get(f"/v1/gates/{gate['id']}")["state"] == ("approved" if by == "file" else "expired")


@needs_codex
def test_a_file_that_is_no_decision_settles_nothing_and_ends_nothing(site):
    task = site.submit("[scenario touch]", agent="codex", approvals={"ask": "always", "deadline": "20s", "at_deadline": "reject"})
    gate = open_gate(site, task)
    decision = site.directory(task) / "gates" / f"{gate['id']}.decision"
    decision.write_text('{"decision": "approved"}\n')
    log = site.run_dir(task) / "runtime/runner.log"
    wait_for("the warning", lambda: f"gate {gate['id']}" in log.read_text())
    decision.unlink()
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert site.get(f"/v1/gates/{gate['id']}")["state"] == "expired"
    assert site.task(task)["run_n"] == 1


def test_a_file_with_a_long_name_is_refused_once(site):
    task = site.submit(ASK)
    open_gate(site, task)
    inbox = site.directory(task) / "inbox"
    (inbox / ("n" * 250)).write_text("x")
    wait_for("the refusal", lambda: site.events(task, "inbox.refused"))
    decider_looked(site, task)
    assert len(site.events(task, "inbox.refused")) == 1
    assert not (inbox / ("n" * 250)).exists()


def test_the_last_of_many_waiting_tasks_is_looked_after_too(new_site):
    site = new_site(model=False)
    task = site.submit(ASK)
    gate = open_gate(site, task)
    wait_for("the run's end", lambda: site.task(task)["run"]["ended_at"])
    site.kill_server()
    with database(site) as db:
        kept = ",".join(c[1] for c in db.execute("PRAGMA table_info(tasks)") if c[1] not in ("id", "name"))
        of_run = ",".join(c[1] for c in db.execute("PRAGMA table_info(runs)") if c[1] not in ("id", "task"))
        for i in range(600):  # older ones, which wait as well
            id = f"01a{i:023d}"
            db.execute(f"INSERT INTO tasks(id,{kept}) SELECT ?, {kept} FROM tasks WHERE id=?", (id, task))
            db.execute(f"INSERT INTO runs(id,task,{of_run}) SELECT ?, ?, {of_run} FROM runs WHERE task=?", (f"{id}.main.1", id, task))
    site.start_server()
    (site.directory(task) / "inbox" / f"{gate['id']}.yaml").write_text("decision: reject\n")
    wait_for("the decision", lambda: site.get(f"/v1/gates/{gate['id']}")["state"] == "rejected")
    site.kill_server()
    with database(site) as db:
        db.execute("DELETE FROM tasks WHERE id LIKE '01a0%'")
        db.execute("DELETE FROM runs WHERE id LIKE '01a0%'")
    site.start_server()
