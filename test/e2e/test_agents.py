"""The other agents that can be spoken with, in the real walls: Claude Code by its own protocol and by ACP, Codex by ACP; the same story for each."""
import os
import signal

import pytest
from e2e_site import ROOT, descendants, proc_text, wait_for
from gate_steps import ALWAYS, decide, ended, open_gate, runner_pid, say

MODULES = ROOT / "node_modules"
PROGRAMS = {
    "claude": MODULES / "@anthropic-ai/claude-code-linux-x64/claude",
    "claude-acp": MODULES / "@agentclientprotocol/claude-agent-acp/dist/index.js",
    "codex-acp": MODULES / "@agentclientprotocol/codex-acp/dist/index.js",
}
SCENARIOS = "".join((ROOT / "test/data/scenarios/agents.yaml").read_text().split("scenarios:\n", 1)[1])
SITE = {"scenarios": SCENARIOS, "config": {"agents": {f"the-{name}": {"adapter": name, "path": str(path)} for name, path in PROGRAMS.items()}}}
pytestmark = pytest.mark.skipif(not all(p.exists() for p in PROGRAMS.values()), reason="the agents are not installed (npm ci)")
ALL = pytest.mark.parametrize("name", PROGRAMS)
CLAUDES = pytest.mark.parametrize("name", ["claude", "claude-acp"])


def settle(site, gate, *words, **more):
    status, settled = decide(site, gate, *words, **more)
    assert status == 200, settled


@ALL
def test_what_is_approved_is_done_and_in_the_diff(site, name):
    task = site.submit("[agents approve]", agent=f"the-{name}", approvals=ALWAYS)
    seen = []
    for _ in range(2 if name == "codex-acp" else 3):
        gate = open_gate(site, task, [g["id"] for g in seen])
        seen.append(gate)
        settle(site, gate)
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert [g["kind"] for g in seen] == (["patch", "patch"] if name == "codex-acp" else ["command", "patch", "patch"])
    assert b"+one line\n+three\n" in site.patch(task)
    assert [(s["text"], s["status"]) for s in site.get(f"/v1/tasks/{task}/todos")["data"]] == [("Make a file", "completed"), ("Change it", "completed")]
    usage = site.task(task)["result"]["usage"]
    assert usage["requests"] > 3 and usage["input_tokens"] >= 1000 and usage["cached_input_tokens"] == 400 and usage["output_tokens"] > 0, usage
    assert sum(e["data"]["input_tokens"] for e in site.events(task, "usage.added")) == usage["input_tokens"]


@ALL
def test_without_approvals_it_works_alone(site, name):
    task = site.submit("[agents approve]", agent=f"the-{name}")
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert b"+one line\n+three\n" in site.patch(task) and b"made.txt" in site.patch(task)
    assert not site.get(f"/v1/gates?task={task}")["data"]


@CLAUDES
def test_a_question_is_answered(site, name):
    task = site.submit("[agents question]", agent=f"the-{name}")
    gate = open_gate(site, task)
    assert gate["kind"] == "question" and gate["data"]["questions"][0]["text"] == "Which colour shall the door have?"
    settle(site, gate, "answer", answer="blue")
    end = ended(site, task)
    assert end["status"] == "DONE" and "The door is blue." in str(end), site.story(task)


@ALL
def test_a_follow_up_goes_on_in_the_same_session(site, name):
    task = site.submit("[agents remember]", agent=f"the-{name}")
    assert ended(site, task)["status"] == "DONE", site.story(task)
    before = len(site.asked())
    status, reply = say(site, task, "[agents again]")
    assert status in (200, 201, 202), reply
    wait_for("the second run", lambda: len(site.events(task, "run.session")) >= 1 and site.task(task)["status"] == "DONE" and len(site.events(task, "run.turn")) == 2)
    sessions = {e["data"]["session"] for e in site.events(task, "run.session")}
    assert len(sessions) == 1, sessions
    assert any("[agents remember]" in asked and "[agents again]" in asked for asked in site.asked()[before:])  # not the last: a title may be asked for beside the turn


@ALL
def test_an_interrupt_ends_the_turn_and_nothing_is_left(site, name):
    task = site.submit("[agents interrupt]", agent=f"the-{name}")
    wait_for("the command", lambda: site.events(task, "command.started"))
    status, reply = site.call("POST", f"/v1/tasks/{task}/interrupt", {})
    assert status in (200, 202), reply
    assert ended(site, task)["status"] == "CANCELED", site.story(task)


@ALL
def test_a_cancel_while_it_waits_for_a_person_leaves_nothing(site, name):
    task = site.submit("[agents reject]", agent=f"the-{name}", approvals=ALWAYS)
    gate = open_gate(site, task)
    site.call("POST", f"/v1/tasks/{task}/cancel", {})
    assert ended(site, task)["status"] == "CANCELED"
    assert site.get(f"/v1/gates/{gate['id']}")["state"] == "canceled"


def agent_pid(site, task, which):
    """A process of the agent inside the walls: the first is the one that we started, the second the one that it started, if any (what comes behind are its short-lived helpers)."""
    runner = runner_pid(site, task)

    def there():
        found = [p for p in descendants(runner) if proc_text(p, "cmdline").split(b"\0")[0].endswith((b"/claude", b"/node", b"/codex")) and proc_text(p, "comm").strip() in (b"claude", b"node", b"MainThread", b"codex")]
        return found[min(which, len(found) - 1)] if found else None
    return wait_for("the agent's process", there)


@pytest.mark.parametrize("which", [0, 1])
@ALL
def test_a_gate_survives_the_agents_death_and_its_decision_arrives(site, name, which):
    task = site.submit("[agents reject]", agent=f"the-{name}", approvals=ALWAYS)
    gate = open_gate(site, task)
    os.kill(agent_pid(site, task, which), signal.SIGKILL)
    wait_for("the run's end", lambda: site.events(task, "run.result"))
    assert open_gate(site, task)["id"] == gate["id"]
    settle(site, gate)
    assert ended(site, task)["status"] == "DONE", site.story(task)
    assert b"+never\n" in site.patch(task)
    settled = site.get(f"/v1/gates/{gate['id']}")
    assert settled["state"] == "approved" and settled["delivered_at"] and len(site.events(task, "gate.approved")) == 1
    assert len(site.get(f"/v1/gates?task={task}")["data"]) == 1
