"""An agent that does not take a decision that it was given: what drives it lives, itself it is dead.  No decision is lost to that."""
import pytest
from gate_steps import ALWAYS, decide, ended, open_gate

AGENT = r"""
import json, os, pathlib, sys, time
count = pathlib.Path.home() / "starts"
start = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(start))
def send(**o):
    print(json.dumps({"jsonrpc": "2.0", **o}), flush=True)
for line in sys.stdin:
    said = json.loads(line)
    method = said.get("method")
    if method == "initialize":
        send(id=said["id"], result={"protocolVersion": 1, "agentCapabilities": {"loadSession": True}})
    elif method in ("session/new", "session/load"):
        send(id=said["id"], result={"sessionId": "s1"})
    elif method == "session/prompt" and start == 1:
        options = [{"optionId": "y", "name": "Yes", "kind": "allow_once"}, {"optionId": "n", "name": "No", "kind": "reject_once"}]
        call = {"toolCallId": "c1", "title": "make test", "kind": "execute", "rawInput": {"command": "make test"}}
        send(id=900, method="session/request_permission", params={"sessionId": "s1", "toolCall": call, "options": options})
    elif method == "session/prompt":
        told = "approved: do it" in json.dumps(said["params"]["prompt"])
        text = {"type": "text", "text": "It was told." if told else "It was not told."}
        send(method="session/update", params={"sessionId": "s1", "update": {"sessionUpdate": "agent_message_chunk", "content": text}})
        send(id=said["id"], result={"stopReason": "end_turn"})
"""


@pytest.fixture
def deaf(new_site):
    site = new_site(model=False, config={"agents": {"own": {"adapter": "acp", "command": ["/usr/bin/python3", "-c", AGENT]}}})
    task = site.submit("Work.", agent="own", approvals=ALWAYS, stall_timeout_ms=1500)
    return site, task, open_gate(site, task)


def test_a_decision_that_an_agent_does_not_take_is_told_to_the_next_attempt(deaf):
    site, task, gate = deaf
    assert decide(site, gate)[0] == 200
    end = ended(site, task)
    assert (end["status"], end["result"]["summary"]) == ("DONE", "It was told."), site.story(task)
    first = next(e for e in site.events(task, "run.ended") if e["run"] == 1)
    assert first["data"]["reason"] == "agent_exited" and "since it was given a decision" in first["data"]["error"]
    assert [e["run"] for e in site.events(task, "gate.delivered")] == [2]
    assert site.task(task)["run_n"] == 2
