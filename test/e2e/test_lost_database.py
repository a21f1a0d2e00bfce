"""A database that is lost takes nothing along that is in the tasks' directories: the conversation, the plan, questions and their answers; and the task goes on."""
import os
import signal

import pytest
from e2e_site import CODEX, is_alive, wait_for
from gate_steps import ALWAYS, decide, ended, made, open_gate, runner_pid, say, submit

SCENARIOS = """
  - match: "[scenario two]"
    steps:
      - plan: [{step: Look, status: in_progress}, {step: Mend, status: pending}]
      - plan: [{step: Look, status: completed}, {step: Mend, status: in_progress}]
      - shell: "echo one >> made.txt"
      - shell: "echo two >> made.txt"
      - final: "Both are decided."
  - match: "[scenario wait]"
    steps:
      - plan: [{step: Wait, status: in_progress}]
      - shell: "until [ -e ~/go ]; do sleep 0.05; done; echo ended"
      - final: "It waited."
  - match: "[message one]"
    steps:
      - shell: "echo said >> made.txt"
      - final: "One was said."
"""
pytestmark = pytest.mark.skipif(not CODEX.exists(), reason="Codex is not installed")


def lose_database(site, task):
    """All that was acknowledged is in the log by then; the server is killed, and what it had beside the directories is gone."""
    head = site.task(task)["last_seq"]
    wait_for("the log", lambda: site.log_file(task)[-1]["seq"] >= head)
    site.kill_server()
    for path in site.data.glob("signalbox.db*"):
        path.unlink()


def plan(site, task):
    return [(t["id"], t["text"], t["status"]) for t in site.get(f"/v1/tasks/{task}/todos")["data"]]


def imported(site, task):
    site.start_server()
    wait_for("the import", lambda: site.call("GET", f"/v1/tasks/{task}")[0] == 200)


@pytest.mark.parametrize("runner_lives", [True, False], ids=["runner lives", "runner dead"])
def test_a_lost_database_keeps_messages_the_plan_and_gates_and_the_run_goes_on(new_site, runner_lives):
    site = new_site(scenarios=SCENARIOS)
    task = submit(site, "[scenario two]", approvals=ALWAYS)
    first = open_gate(site, task)
    assert decide(site, first)[0] == 200
    second = open_gate(site, task, other_than=[first["id"]])
    assert say(site, task, "[message one]", queue=True, id="m-1")[0] == 202
    steps = plan(site, task)
    assert [s[1:] for s in steps] == [("Look", "completed"), ("Mend", "in_progress")]
    settled = site.get(f"/v1/gates/{first['id']}")
    runner = runner_pid(site, task)
    lose_database(site, task)
    if not runner_lives:
        os.kill(runner, signal.SIGKILL)
        wait_for("its end", lambda: not is_alive(runner))
    imported(site, task)
    assert plan(site, task) == steps
    again = site.get(f"/v1/gates/{first['id']}")
    assert (again["state"], again["decision"]) == ("approved", settled["decision"])
    assert open_gate(site, task)["id"] == second["id"]
    assert say(site, task, "[message one]", queue=True, id="m-1")[0] == 202  # the same again: it was taken before
    assert decide(site, second)[0] == 200
    wait_for("the next turn", lambda: site.events(task, "task.turn"))
    assert decide(site, open_gate(site, task, other_than=[first["id"], second["id"]]))[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)
    (turn,) = site.events(task, "task.turn")
    assert (turn["data"]["text"], turn["data"]["messages"]) == ("[message one]", [{"message": 1, "id": "m-1"}])
    lines = made(site, task)
    assert lines[-1] == "said" and lines.count("two") == 1, lines
    assert len([e for e in site.events(task) if e["type"] == "message.queued"]) == 1


def test_a_lost_database_keeps_labels_the_name_and_the_priority(new_site):
    site = new_site(model=False)
    task = site.submit("true", name="first", labels={"team": "red", "no": "007"}, priority=3)
    untouched = site.submit("true", name="untouched", labels={"team": "red"})
    for one in (task, untouched):
        assert ended(site, one)["status"] == "DONE"
    status, changed = site.call("PATCH", f"/v1/tasks/{task}", {"name": "second", "labels": {"team": "blue"}, "priority": -4})
    assert status == 200, changed
    lose_database(site, task)
    imported(site, task)
    wait_for("the other import", lambda: site.call("GET", f"/v1/tasks/{untouched}")[0] == 200)
    assert [t["id"] for t in site.get("/v1/tasks?label=team=blue")["data"]] == [task]
    assert [t["id"] for t in site.get("/v1/tasks?label=team=red")["data"]] == [untouched]
    after = site.task(task)
    assert (after["name"], after["labels"], after["priority"]) == ("second", {"team": "blue", "no": "007"}, -4)


def test_a_message_to_a_running_task_is_its_next_turn_after_the_loss(new_site):
    site = new_site(scenarios=SCENARIOS)
    task = submit(site, "[scenario wait]")
    wait_for("the plan", lambda: plan(site, task))
    steps = plan(site, task)
    assert say(site, task, "[message one]", queue=True)[0] == 202
    runner = runner_pid(site, task)
    lose_database(site, task)
    imported(site, task)
    wait_for("the next turn", lambda: site.task(task)["run_n"] == 2)
    assert not is_alive(runner)
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert made(site, task) == ["said"] and plan(site, task) == steps


def test_a_turn_that_a_message_began_is_known_after_the_loss(new_site):
    site = new_site(scenarios=SCENARIOS)
    task = submit(site, "[scenario two]", approvals={"ask": "never"})
    assert ended(site, task)["status"] == "DONE"
    assert say(site, task, "[message one]", id="m-1")[0] == 202
    wait_for("the next turn", lambda: site.task(task)["run_n"] == 2)
    assert ended(site, task)["status"] == "DONE", site.story(task)
    lose_database(site, task)
    imported(site, task)
    assert (site.task(task)["status"], site.task(task)["run_n"]) == ("DONE", 2)
    assert say(site, task, "[message one]", id="m-1")[0] == 202
    assert len(site.events(task, "task.turn")) == 1  # the same again begins nothing
    assert say(site, task, "[message other]", id="m-1")[0] == 422


def test_a_later_turn_that_waits_goes_on_with_its_own_words(new_site):
    site = new_site(scenarios=SCENARIOS)
    task = submit(site, "[scenario two]", approvals=ALWAYS)
    seen = []
    for _ in range(2):
        seen.append(open_gate(site, task, other_than=seen)["id"])
        assert site.call("POST", f"/v1/gates/{seen[-1]}/decision", {"decision": "approve"})[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert say(site, task, "[message one]")[0] == 202
    gate = open_gate(site, task, other_than=seen)
    runner = runner_pid(site, task, 2)
    lose_database(site, task)
    os.kill(runner, signal.SIGKILL)
    wait_for("its end", lambda: not is_alive(runner))
    imported(site, task)
    assert decide(site, gate)[0] == 200
    end = ended(site, task)
    assert (end["status"], end["result"]["summary"]) == ("DONE", "One was said."), site.story(task)
    assert made(site, task) == ["one", "two", "said"]
