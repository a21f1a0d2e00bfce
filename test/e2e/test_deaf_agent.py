"""An agent that does not take a decision that it was given: what drives it lives, itself it is dead.  No decision is lost to that."""
import os
import signal

import pytest
from e2e_site import descendants, proc_text, wait_for
from gate_steps import ALWAYS, asking_agent, decide, ended, open_gate, runner_pid


@pytest.fixture
def deaf(new_site):
    site = new_site(model=False, config={"agents": {"own": {"adapter": "acp", "command": ["/usr/bin/python3", "-c", asking_agent()]}}})
    task = site.submit("Work.", agent="own", approvals=ALWAYS, stall_timeout_ms=8000)
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


def driving_site(new_site, **how):
    site = new_site(model=False, start=False)
    program = site.path("packages") / "node_modules/own/agent"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/usr/bin/python3\n{asking_agent(child=True, **how)}")
    program.chmod(0o755)
    site.config["agents"] = {"own": {"adapter": "claude-acp", "path": str(program)}}
    site.write_config()
    site.start_server()
    return site


@pytest.fixture
def driven(new_site):
    """A task that asks, and the process that its agent is to the program that drives it, which never looks after it."""
    site = driving_site(new_site)
    task = site.submit("Work.", agent="own", approvals=ALWAYS)
    gate = open_gate(site, task)
    child = next(p for p in descendants(runner_pid(site, task)) if proc_text(p, "comm").strip() == b"sleep")
    return site, task, gate, child


def was_told_afterwards(site, task):
    end = ended(site, task)
    assert (end["status"], end["result"]["summary"]) == ("DONE", "It was told."), site.story(task)
    first = next(e for e in site.events(task, "run.ended") if e["run"] == 1)
    assert first["data"]["reason"] == "agent_exited" and "died while it was asking" in first["data"]["error"], first
    assert [e["run"] for e in site.events(task, "gate.delivered")] == [2]


def test_an_agent_that_dies_while_it_asks_is_missed_though_what_drives_it_lives(driven):
    site, task, gate, child = driven
    os.kill(child, signal.SIGKILL)
    wait_for("the run's end", lambda: site.events(task, "run.result"))
    assert open_gate(site, task)["id"] == gate["id"]
    assert decide(site, gate)[0] == 200
    was_told_afterwards(site, task)


def test_a_decision_that_comes_when_the_agent_has_just_died_is_told_to_the_next_attempt(driven):
    site, task, gate, child = driven
    os.kill(child, signal.SIGKILL)
    assert decide(site, gate)[0] == 200
    was_told_afterwards(site, task)


def test_a_run_whose_asking_agent_is_dead_can_be_canceled(driven):
    site, task, gate, child = driven
    os.kill(child, signal.SIGKILL)
    assert site.call("POST", f"/v1/tasks/{task}/cancel", {})[0] == 202
    assert ended(site, task)["status"] == "CANCELED", site.story(task)
    assert site.get(f"/v1/gates/{gate['id']}")["state"] == "canceled"


def test_the_check_after_an_agent_that_ended_its_turn_while_it_asked_is_not_taken_for_its_death(new_site):
    site = driving_site(new_site, gives_up=True)
    task = site.submit("Work.", agent="own", approvals=ALWAYS, verify="sleep 4")  # longer than a dead agent is given
    end = ended(site, task)
    assert (end["status"], end["run_n"]) == ("DONE", 1), site.story(task)
