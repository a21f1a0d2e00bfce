"""What is told about gates: who decided what and when, in the directory, to the second who replies, in numbers."""
import json
import re

import pytest
from e2e_site import wait_for
from gate_steps import decide, ended, open_gate

# Ends its turn with a question; the next one begins with the answer.
ASKER = """grep -q 'The answer: blue' "$SIGNALBOX_PROMPT" && { echo blue > door.txt; exec echo "It is blue."; }
echo '{"status": "blocked", "summary": "A question.", "questions": ["Which colour?"]}' > "$SIGNALBOX_FINAL" """
SITE = {"model": False, "config": {"agents": {"asker": {"adapter": "command", "command": ["sh", "-c", ASKER]}}}}


@pytest.fixture
def asked(site):
    task = site.submit("paint the door", agent="asker")
    return task, open_gate(site, task)


def settled(site, state):
    return int(re.search(rf'signalbox_gates_settled_total{{state="{state}"}} (\d+)', site.get("/metrics"))[1])


def test_the_directory_of_a_task_that_waits_says_how_to_reply(site, asked):
    task, gate = asked
    readme = site.directory(task) / "README.md"
    wait_for("the question there", lambda: "Waits for you" in readme.read_text())
    text = readme.read_text()
    assert "Which colour?" in text and f"gates/{gate['id']}.yaml" in text and f"inbox/{gate['id']}.yaml" in text
    assert decide(site, gate, "answer", answer="blue")[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)
    wait_for("the question gone", lambda: "Waits for you" not in readme.read_text())


def test_a_decision_has_one_time_wherever_it_is_told(site, asked):
    task, gate = asked
    status, after = decide(site, gate, "answer", answer="blue")
    assert status == 200
    kept = json.loads((site.directory(task) / "gates" / f"{gate['id']}.decision").read_text())
    status, problem = decide(site, gate, "reject")
    assert status == 409 and gate["id"] in problem["hint"]
    assert after["settled_at"] == kept["at"] and kept["at"] in problem["detail"] and after["decision"]["at"] == kept["at"]
    assert ended(site, task)["status"] == "DONE", site.story(task)


def test_settled_gates_are_counted_by_how_they_were(site, asked):
    task, gate = asked
    before = settled(site, "answered"), settled(site, "canceled")
    assert decide(site, gate, "answer", answer="blue")[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert settled(site, "answered") == before[0] + 1
    other = site.submit("paint the door", agent="asker")
    open_gate(site, other)
    assert site.call("POST", f"/v1/tasks/{other}/cancel", {})[0] == 202
    assert ended(site, other)["status"] == "CANCELED"
    assert settled(site, "canceled") == before[1] + 1 and settled(site, "answered") == before[0] + 1


@pytest.mark.parametrize("rule, status, reason", [({"at_deadline": "fail"}, "ERROR", "gate_expired"), ({"at_deadline": "default", "answer": "blue"}, "DONE", None)])
def test_last_words_have_the_deadline_of_the_policy_and_its_end_is_counted(site, rule, status, reason):
    before = settled(site, "expired")
    task = site.submit("paint the door", agent="asker", approvals={"deadline": "1s", **rule})
    (gate,) = wait_for("the question", lambda: site.get(f"/v1/gates?task={task}")["data"])  # open or not: a moment may be longer than its deadline
    assert gate["deadline_at"] and gate["at_deadline"] == rule["at_deadline"]
    end = ended(site, task)
    assert (end["status"], end["reason"]) == (status, reason), site.story(task)
    assert settled(site, "expired") == before + 1


def test_an_agent_that_asks_again_and_again_where_nobody_is_ends(site):
    task = site.submit("paint the door", agent="asker", approvals={"deadline": "1s", "at_deadline": "reject"})
    end = ended(site, task)
    assert (end["status"], end["reason"], end["run_n"]) == ("ERROR", "gate_expired", 5), site.story(task)


def test_two_answers_to_a_question_that_takes_one_change_nothing(site, asked):
    task, gate = asked
    status, problem = decide(site, gate, "answer", answer=["blue", "red"])
    assert status == 422 and problem["detail"].startswith("answer.") and "takes one" in problem["detail"]
    assert open_gate(site, task)["id"] == gate["id"]
    assert decide(site, gate, "answer", answer=["blue"])[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)


def test_a_cursor_that_is_none_is_refused(site):
    status, problem = site.call("GET", "/v1/gates?after=nothing")
    assert status == 400 and "next_cursor" in problem["hint"]


def test_what_takes_no_words_refuses_them(site):
    task = site.run("true")["id"]
    for path in (f"/v1/tasks/{task}/interrupt", "/v1/reload"):
        status, problem = site.call("POST", path, {"now": True})
        assert status == 400 and problem["detail"].startswith("now:"), path


def test_an_interrupt_of_what_has_ended_points_to_the_next_turn(site):
    task = site.run("true")["id"]
    status, problem = site.call("POST", f"/v1/tasks/{task}/interrupt", {})
    assert status == 409 and "signalbox say" in problem["hint"]


def test_the_diff_of_a_run_that_never_was_is_told_so(site):
    task = site.run("echo x > x.txt")["id"]
    assert site.call("GET", f"/v1/tasks/{task}/diff?run=1")[0] == 200
    status, problem = site.call("GET", f"/v1/tasks/{task}/diff?run=7")
    assert status == 404 and "no run 7" in problem["detail"] and "/runs" in problem["hint"]
    r = site.cli("diff", task, "--run", "7")
    assert r.returncode == 5 and "no run 7" in r.stderr


def test_what_the_house_keeps_is_not_told_as_a_tasks(site):
    site.run("true", source={"kind": "none"})
    why = {k["why"] for k in json.loads(site.cli("prune", "-n", "--json").stdout)["kept"]}
    assert "tasks without code begin from it" in why and "a task that is not over needs it" not in why


def test_the_lines_of_the_log_say_what_was_answered(site, asked):
    task, gate = asked
    assert site.cli("answer", gate["id"], "blue").returncode == 0
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert re.search(r"gate\.answered\tanswered by \S+: blue", site.cli("events", task).stdout)
