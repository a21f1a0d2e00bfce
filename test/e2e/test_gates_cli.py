"""Gates at the command line, with the real Codex: decided by words, at a terminal, by somebody else meanwhile."""
import json
import os
import pathlib
import sys

import pytest
from e2e_site import CODEX, PROGRAM, wait_for
from gate_steps import ALWAYS, ended, open_gate, submit
from test_gates import SCENARIOS, SECRET_ANSWER

sys.path.append(str(pathlib.Path(__file__).parent.parent / "cli"))
from desk import desks  # noqa: E402

# Ends its turn with a question; the next one begins with the answer.
ASKER = """grep -q 'The answer: blue' "$SIGNALBOX_PROMPT" && exec echo "It is blue."
echo '{"status": "blocked", "summary": "A question.", "questions": ["Which colour?"]}' > "$SIGNALBOX_FINAL" """
SCENARIOS_MORE = SCENARIOS + """
  - match: "[scenario shell] make all"
    steps:
      - shell: "make all"
      - final: "Made."
  - match: "[scenario shell] git push"
    steps:
      - shell: "cd . && git push origin main"
      - final: "Without it."
"""
SITE = {"scenarios": SCENARIOS_MORE, "config": {"agents": {"asker": {"adapter": "command", "command": ["sh", "-c", ASKER]}}, "environments": {"careful": {"approvals": {"ask": "always", "rules": [
    {"name": "no-pushing", "deny": {"command": "git push **"}}, {"name": "making", "allow": {"command": "make **"}}]}}}}}
pytestmark = pytest.mark.skipif(not CODEX.exists(), reason="Codex is not installed")


@pytest.fixture
def desk(site):
    with desks(PROGRAM, site.environment(), site.dir, **site.identity()) as start:
        yield start


def test_words_list_show_and_settle(site):
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    gate = open_gate(site, task)
    r = site.cli("gates", "--task", task)
    assert r.stdout.split("\t")[0] == gate["id"] and "echo made" in r.stdout
    assert "signalbox approve --session" in site.cli("gates", gate["id"]).stdout
    assert site.cli("approve", gate["id"], "--note", "fine").returncode == 0
    assert ended(site, task)["status"] == "DONE"
    again = site.cli("reject", gate["id"])
    assert again.returncode == 6 and "approved" in again.stderr
    shown = json.loads(site.cli("gates", gate["id"], "--json").stdout)
    assert shown["decision"]["note"] == "fine" and shown["delivered_at"]


def test_an_answer_in_words_must_fit_the_options(site):
    task = submit(site, "[scenario colour]")
    gate = open_gate(site, task)
    r = site.cli("answer", gate["id"], "green")
    assert r.returncode == 2 and "answer." in r.stderr and "red" in r.stderr
    assert site.cli("answer", task, "--option", "2").returncode == 0
    assert ended(site, task)["status"] == "DONE"


def test_a_secret_reaches_the_agent_from_standard_input_and_nobody_else(site):
    task = submit(site, "[scenario password]")
    gate = open_gate(site, task)
    assert site.cli("answer", gate["id"], SECRET_ANSWER).returncode == 2
    assert site.cli("answer", gate["id"], "-", stdin=SECRET_ANSWER + "\n").returncode == 0
    assert ended(site, task)["status"] == "DONE"
    assert SECRET_ANSWER not in site.cli("gates", gate["id"]).stdout + site.cli("events", task).stdout


def test_run_at_a_terminal_asks_and_goes_on_to_the_end(site, desk):
    d = desk("run", "--repo", "-", "--agent", "codex", "--approvals", "always", "[scenario two]")
    d.type("y\n")
    d.type("y\n")
    d.until("Both are decided.")
    assert d.finish() == 0


def test_what_is_approved_for_the_session_is_asked_once(site, desk):
    d = desk("run", "--repo", "-", "--agent", "codex", "--approvals", "always", "[scenario touch]")
    d.type("s\n")
    d.until("approved for the session")
    assert d.finish() == 0


def test_a_secret_typed_at_a_terminal_opens_and_is_not_seen(site, desk):
    d = desk("run", "--repo", "-", "--agent", "codex", "[scenario password]")
    d.until("\n> ")
    assert not d.echoes()
    os.write(d.master, SECRET_ANSWER.encode() + b"\n")
    d.until("It is open.")
    assert d.finish() == 0
    assert SECRET_ANSWER not in d.text


def test_answered_elsewhere_the_question_leaves_the_terminal(site, desk):
    d = desk("run", "--repo", "-", "--agent", "codex", "--approvals", "always", "--name", "elsewhere", "[scenario touch]")
    d.until("\n> ")
    assert site.cli("approve", "elsewhere").returncode == 0
    d.until("approved by")
    d.until("It is decided.")
    assert d.finish() == 0


def test_an_agent_that_ended_its_turn_with_a_question_goes_on_with_the_answer(site, desk):
    d = desk("run", "--repo", "-", "--agent", "asker", "x")
    d.until("Which colour?")
    d.type("blue\n")
    d.until("It is blue.")
    assert d.finish() == 0


def test_a_question_left_at_the_terminal_still_waits(site, desk):
    d = desk("run", "--repo", "-", "--agent", "codex", "--name", "later", "[scenario name]")
    d.type("\x04")
    assert d.finish() == 9
    task = json.loads(site.cli("show", "later", "--json").stdout)["id"]
    assert site.cli("answer", "later", "Rumpelstilzchen").returncode == 0
    assert ended(site, task)["status"] == "DONE"


def test_attach_asks_what_is_open_and_speaks_the_rest(site, desk):
    task = submit(site, "[scenario colour]")
    open_gate(site, task)
    d = desk("attach", task)
    d.until("A number.")
    d.type("blue\n")
    d.until("The door is blue.")
    assert d.finish() == 0


def test_the_rules_of_an_environment_decide_and_are_named_in_the_log(site):
    for prompt, rule, decision in [("[scenario shell] make all", "making", "approve"), ("[scenario shell] git push", "no-pushing", "reject")]:
        task = submit(site, prompt, environment="careful")
        assert ended(site, task)["status"] == "DONE"
        decided = site.events(task, of="policy.decided")
        assert [(e["data"]["rule"], e["data"]["decision"]) for e in decided] == [(rule, decision)]


def test_a_task_whose_agent_lacks_what_is_required_is_refused(site):
    r = site.cli("start", "--repo", "-", "--agent", "codex-exec", "--require", "steer", "x")
    assert r.returncode != 0 and "steer" in r.stderr


def test_say_steers_and_interrupt_ends_a_running_turn(site):
    task = submit(site, "[scenario wait]")
    wait_for("the command", lambda: site.events(task, "command.started"))
    r = site.cli("say", task, "[steer left]")
    assert r.returncode == 0 and "told at once" in r.stderr
    r = site.cli("say", task, "--queue", "[scenario more]")
    assert r.returncode == 0 and "when this turn has ended" in r.stderr
    assert site.cli("interrupt", task).returncode == 0
    assert ended(site, task)["status"] in ("DONE", "CANCELED")


def test_ls_tells_a_running_command_as_it_was_typed(site):
    task = submit(site, "[scenario wait]")
    wait_for("the command", lambda: [line for line in site.cli("ls").stdout.splitlines() if line.startswith(task) and "running echo begun > begun.txt" in line])
    assert site.cli("interrupt", task).returncode == 0
    assert ended(site, task)["status"] == "CANCELED"


def test_what_is_typed_while_attached_steers_the_turn_that_runs(site, desk):
    task = submit(site, "[scenario wait]")
    wait_for("the command", lambda: site.events(task, "command.started"))
    d = desk("attach", task)
    d.until("running")
    os.write(d.master, b"[steer left]\n")
    d.until("said at once")
    assert not site.events(task, "message.queued") and site.events(task, "message.sent")
    assert site.cli("interrupt", task).returncode == 0
    d.until("CANCELED")
    assert d.finish() == 3


def test_a_gate_is_found_by_the_beginning_of_its_tasks_id_and_ls_tells_the_request(site):
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    open_gate(site, task)
    row = [line for line in site.cli("ls").stdout.splitlines() if line.startswith(task)]
    assert row and row[0].endswith("[scenario touch]") and "waiting_human\t" in row[0]
    assert "progress" not in site.cli("show", task).stdout
    r = site.cli("approve", task[:25])
    assert r.returncode == 0, r.stderr
    assert ended(site, task)["status"] == "DONE"


def test_todos_are_the_plan_as_it_is_and_as_it_came_to_be(site):
    task = submit(site, "[scenario plan]")
    assert ended(site, task)["status"] == "DONE"
    rows = [line.split("\t") for line in site.cli("todos", task).stdout.splitlines()]
    assert [row[2:] for row in rows] == [["completed", "Look"], ["in_progress", "Mend"]]
    history = site.cli("todos", task, "--history").stdout
    assert "plan" in history and "change" in history
