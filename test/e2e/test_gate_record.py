"""What a task's directory says of its gates, for scripts and people without a server: whatever settles a gate is in its file, and all who are asked say the same."""
import json
import os
import signal
import threading

import pytest
import yaml
from e2e_site import CODEX, is_alive, wait_for
from gate_steps import ALWAYS, decide, ended, open_gate, open_gates, runner_pid, submit

SCENARIOS = """
  - match: "[scenario touch]"
    steps:
      - shell: "echo made >> made.txt"
      - final: "It is decided."
  - match: "[scenario unsure]"
    steps:
      - final: {status: blocked, summary: "Which one?", questions: ["Which one?"]}
  - match: "the second"
    steps:
      - final: "The second it is."
"""
SITE = {"scenarios": SCENARIOS}
pytestmark = pytest.mark.skipif(not CODEX.exists(), reason="Codex is not installed")


def decision_file(site, gate):
    return site.directory(gate["task"]) / "gates" / f"{gate['id']}.decision"


def decided(site, gate, what):
    """The decision in the file, once there; the row, the log, the lists and the task's own files say the same."""
    path = decision_file(site, gate)
    wait_for(f"the decision of {gate['id']}", path.exists)
    file = json.loads(path.read_text())
    row = site.get(f"/v1/gates/{gate['id']}")
    state = {"cancel": "canceled", "approve": "approved"}[what]
    assert (file["decision"], file["gate"], row["state"]) == (what, gate["id"], state), (file, row)
    assert (row["decision"], row["actor"]) == (file, file["actor"])
    (event,) = [e for e in site.log_file(gate["task"]) if e["type"] == f"gate.{state}"]
    assert event["data"]["decision"] == file
    assert open_gates(site, gate["task"]) == [] and gate["id"] not in site.cli("gates").stdout
    wait_for("task.yaml", lambda: yaml.safe_load((site.directory(gate["task"]) / "task.yaml").read_text())["gates"] == [])
    return file


def kill_runner(site, task):
    runner = runner_pid(site, task)
    os.kill(runner, signal.SIGKILL)
    wait_for("its end", lambda: not is_alive(runner))
    wait_for("the task to wait alone", lambda: site.task(task)["status"] == "WAITING" and site.events(task, "run.ended"))


def state_file(site, task):
    return json.loads((site.directory(task) / "agents/main/state.json").read_text())


def assert_canceled(site, task):
    assert ended(site, task)["status"] == "CANCELED", site.story(task)
    wait_for("state.json", lambda: (state_file(site, task)["status"], state_file(site, task).get("error")) == ("ERROR", "canceled"))


@pytest.fixture
def remove(request):
    """A run that was killed has not saved its workspace, which stays as long as its task."""
    ids = []
    yield lambda site, task: ids.append((site, task))
    for site, task in ids:
        assert site.call("DELETE", f"/v1/tasks/{task}")[0] == 204


def test_a_cancel_writes_the_decision_of_the_gate_it_closes(site):
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    gate = open_gate(site, task)
    assert site.call("POST", f"/v1/tasks/{task}/cancel", {})[0] == 202
    assert_canceled(site, task)
    decided(site, gate, "cancel")
    assert decide(site, gate)[0] == 409


def test_so_does_the_cancel_of_a_task_that_waits_without_a_run(site, remove):
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    remove(site, task)
    gate = open_gate(site, task)
    kill_runner(site, task)
    assert site.call("POST", f"/v1/tasks/{task}/cancel", {})[0] == 202
    assert_canceled(site, task)
    assert decided(site, gate, "cancel")["actor"] == site.task(task)["created_by"]


def test_the_runner_writes_it_when_no_server_is_there(new_site):
    site = new_site(scenarios=SCENARIOS)
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    gate = open_gate(site, task)
    runner = runner_pid(site, task)
    site.kill_server()
    os.kill(runner, signal.SIGINT)  # a person's wish that the run end
    wait_for("the decision", decision_file(site, gate).exists)
    wait_for("its end", lambda: not is_alive(runner))
    written = decision_file(site, gate).read_text()
    assert json.loads(written)["decision"] == "cancel"
    site.start_server()
    assert_canceled(site, task)
    assert decided(site, gate, "cancel") == json.loads(written)


def linked(site, gate, decision, actor):
    """What a server leaves that was killed after it settled the gate and before its commit."""
    at = site.get("/v1/gates/" + gate["id"])["created_at"] if site.server.poll() is None else gate["created_at"]
    path = decision_file(site, gate)
    path.write_text(json.dumps({"id": gate["id"], "gate": gate["id"], "decision": decision, "actor": actor, "at": at}))
    site.own(path.parent)


def test_what_was_linked_before_the_cancel_counts(site, remove):
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    remove(site, task)
    gate = open_gate(site, task)
    kill_runner(site, task)
    linked(site, gate, "approve", "somebody")
    assert site.call("POST", f"/v1/tasks/{task}/cancel", {})[0] == 202
    assert ended(site, task)["status"] == "CANCELED", site.story(task)
    assert decided(site, gate, "approve")["actor"] == "somebody"


def test_a_reply_and_a_cancel_at_the_same_moment_agree(site, remove):
    tasks = [submit(site, "[scenario touch]", approvals=ALWAYS) for _ in range(4)]
    gates = [open_gate(site, task) for task in tasks]
    for task in tasks:
        remove(site, task)
        kill_runner(site, task)
    together = threading.Barrier(2 * len(tasks))

    def at_once(call):
        together.wait()
        call()
    threads = [threading.Thread(target=at_once, args=(call,)) for gate in gates for call in
               (lambda g=gate: decide(site, g), lambda g=gate: site.call("POST", f"/v1/tasks/{g['task']}/cancel", {}))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for gate in gates:
        assert site.call("POST", f"/v1/tasks/{gate['task']}/cancel", {})[0] in (200, 202)
        assert ended(site, gate["task"])["status"] in ("CANCELED", "DONE"), site.story(gate["task"])
        row = site.get(f"/v1/gates/{gate['id']}")
        decided(site, gate, {"canceled": "cancel", "approved": "approve"}[row["state"]])


def test_a_cancel_that_was_killed_before_its_commit_is_made_up_for(new_site, remove):
    site = new_site(scenarios=SCENARIOS)
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    remove(site, task)
    gate = open_gate(site, task)
    kill_runner(site, task)
    site.kill_server()
    linked(site, gate, "cancel", "somebody")
    site.start_server()
    assert_canceled(site, task)
    assert decided(site, gate, "cancel")["actor"] == "somebody"


def test_a_decision_that_could_not_be_written_is_written_by_the_next_server(new_site):
    site = new_site(scenarios=SCENARIOS)
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    gate = open_gate(site, task)
    assert site.call("POST", f"/v1/tasks/{task}/cancel", {})[0] == 202
    assert_canceled(site, task)
    decided(site, gate, "cancel")
    site.stop_server()
    decision_file(site, gate).unlink()
    site.start_server()
    decided(site, gate, "cancel")


def test_a_question_of_the_last_words_has_its_file_too_and_is_answered_by_one(site):
    task = submit(site, "[scenario unsure]")
    gate = open_gate(site, task)
    path = site.directory(task) / "gates" / f"{gate['id']}.yaml"
    wait_for("the question's file", path.exists)
    asked = yaml.safe_load(path.read_text())
    assert (asked["id"], asked["kind"], asked["data"]["title"]) == (gate["id"], "question", "Which one?")
    answer = site.directory(task) / "inbox" / f"{gate['id']}.yaml"
    answer.with_name(".half").write_text('decision: answer\nanswer: "the second"\n')
    site.own(answer.parent)
    answer.with_name(".half").rename(answer)
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert json.loads(decision_file(site, gate).read_text())["answers"] == {"q1": ["the second"]}
