"""A task is a conversation: an answer to a blocked agent's question, a follow-up after the end, a message that waits for its turn."""
import os
import signal
import threading

import pytest
from e2e_site import CODEX, wait_for

SCENARIOS = """
  - match: "[scenario which-name]"
    steps:
      - shell: "echo draft > draft.txt"
      - final: {status: blocked, summary: "A decision is needed.", questions: ["Which name shall stay?"], nextActions: [], testsRun: 0, testsPassed: 0}
  - match: "The answer: the short one"
    steps:
      - shell: "echo short >> draft.txt; cat draft.txt"
      - final: "The short one stays."
  - match: "[scenario and-more]"
    steps:
      - shell: "echo more >> draft.txt; cat draft.txt"
      - final: "There is more."
"""


@pytest.fixture
def asked(new_site):
    """A site with a task whose agent is blocked by a question."""
    if not CODEX.exists():
        pytest.skip("Codex is not installed")
    site = new_site(scenarios=SCENARIOS)
    task = site.run("[scenario which-name] rename it", agent="codex-exec", status="WAITING")
    return site, task


def test_an_answer_begins_a_turn_in_the_same_session_and_workspace(asked):
    site, task = asked
    (gate,) = site.get("/v1/gates?state=blocked")["data"]
    assert gate["task"] == task["id"] and [q["text"] for q in gate["data"]["questions"]] == ["Which name shall stay?"]
    assert gate["id"] in site.cli("gates").stdout
    assert site.cli("answer", gate["id"], "the short one").returncode == 0
    end = site.wait(task["id"])
    assert end["status"] == "DONE" and end["run"]["turn"] == 2, site.story(task["id"])
    assert b"+draft\n+short\n" in site.patch(task["id"])  # against the code the task began with
    sessions = {e["data"]["session"] for e in site.events(task["id"], "run.session")}
    assert len(sessions) == 1
    assert site.get("/v1/gates?state=blocked")["data"] == []


def test_a_gate_is_settled_once_however_many_answer(asked):
    site, task = asked
    (gate,) = site.get("/v1/gates?state=blocked")["data"]
    replies = []

    def reply(i):
        replies.append(site.call("POST", f"/v1/gates/{gate['id']}/decision", {"decision": "answer", "answer": "the short one" if i == 0 else f"answer {i}"})[0])
    threads = [threading.Thread(target=reply, args=(i,)) for i in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(replies) == [200] + [409] * 19
    assert len(site.events(task["id"], "gate.answered")) == 1 and len(site.events(task["id"], "task.turn")) == 1
    site.wait(task["id"])
    settled = next(g for g in site.get("/v1/gates")["data"] if g["id"] == gate["id"])
    again = {"decision": "answer", "answer": settled["decision"]["answers"]}
    assert site.call("POST", f"/v1/gates/{gate['id']}/decision", again)[0] == 200  # the same again is harmless


def test_canceling_a_waiting_task_closes_its_question(asked):
    site, task = asked
    assert site.call("POST", f"/v1/tasks/{task['id']}/cancel", {})[0] == 202
    assert site.task(task["id"])["status"] == "CANCELED"
    assert [g["state"] for g in site.get("/v1/gates")["data"]] == ["canceled"]


@pytest.mark.parametrize("body, code", [({"decision": "maybe"}, 400), ({"decision": "answer"}, 400), ({"decision": "answer", "answer": "x", "by": "me"}, 400)])
def test_a_decision_that_does_not_fit_changes_nothing(asked, body, code):
    site, task = asked
    (gate,) = site.get("/v1/gates?state=blocked")["data"]
    assert site.call("POST", f"/v1/gates/{gate['id']}/decision", body)[0] == code
    assert site.task(task["id"])["status"] == "WAITING"
    site.call("POST", f"/v1/tasks/{task['id']}/cancel", {})


def test_a_follow_up_after_the_end_goes_on_in_the_workspace_and_extends_the_diff(site):
    task = site.run("echo one > one.txt")
    # A command's turn is its text: the next program, in the workspace of the first.
    assert site.cli("say", task["id"], "cat one.txt && echo two > two.txt").returncode == 0
    end = site.wait(task["id"])
    assert end["status"] == "DONE" and end["run"]["turn"] == 2, site.story(task["id"])
    assert {f["path"] for f in end["result"]["files"]} == {"one.txt", "two.txt"}
    assert end["prompt"] == "echo one > one.txt"  # the request stays what it was


def test_an_agent_at_work_is_not_steered_but_a_message_can_wait(site):
    id = site.submit("until [ -e ~/go ]; do sleep 0.02; done; echo first > first.txt")
    wait_for("the agent", lambda: site.task(id)["phase"] == "running")
    refused = site.cli("say", id, "echo second > second.txt")
    assert refused.returncode == 6 and "--queue" in refused.stderr
    assert site.cli("say", id, "--queue", "echo second > second.txt").returncode == 0
    site.release(id)
    wait_for("the second turn's end", lambda: site.task(id)["status"] == "DONE" and site.task(id)["run"]["turn"] == 2)
    assert {f["path"] for f in site.task(id)["result"]["files"]} == {"first.txt", "second.txt"}


def test_a_turn_that_was_not_saved_keeps_its_workspace_though_an_earlier_one_was_saved(site):
    id = site.run("echo one > one.txt")["id"]
    wait_for("the first turn to be saved", lambda: (site.directory(id) / "agents/main/workspace/base.json").exists())
    assert site.cli("say", id, "echo two > two.txt; while :; do sleep 0.05; done").returncode == 0
    written = lambda: [p for layer in ("upper", "plain") for p in (site.data / "work" / f"{id}.main").glob(f"{layer}/two.txt")]  # noqa: E731
    wait_for("the second turn's file", written)
    os.kill(int((site.run_dir(id, 2) / "runtime/pid").read_text()), signal.SIGKILL)
    assert site.wait(id)["reason"] == "runner_lost"
    site.kept.add(id)
    site.stop_server()
    site.start_server()  # reconciles at once
    wait_for("the look", lambda: site.get("/v1/reconcile")["last"]["at"])
    assert written(), "what the second turn had done was thrown away"
