"""The real Codex CLI in the walls, against a scripted model: what it does is on record, and the key is nowhere near it."""
import contextlib
import json
import os
import pathlib

import pytest
from e2e_site import CODEX, SECRET, descendants, proc_text, wait_for

pytestmark = pytest.mark.skipif(not CODEX.exists(), reason="Codex is not installed (npm ci)")

MAKE_ADD = r"""
printf 'int add(int a, int b)\n{\n\treturn a - b;\n}\n' > add.c
printf '#include <stdio.h>\nint add(int, int);\nint main(void) { int ok = add(2, 2) == 4; puts(ok ? "PASS" : "FAIL"); return !ok; }\n' > test.c
printf 'test:\n\t@cc -o check test.c add.c && ./check\n\n.PHONY: test\n' > Makefile
echo check > .gitignore
echo 'Always speak of the purple elephant.' > AGENTS.md
git init -qb main; git add -A; git commit -qm first
"""

SITE = {"scenarios": """
  - match: "[scenario linger]"
    steps:
      - shell: "echo begun; until [ -e /home/agent/go ]; do sleep 0.05; done"
      - final: "It went on."
  - match: "[scenario third-try]"
    steps:
      - error: {status: 500, times: 2}
      - final: "It works at the third try."
"""}


@pytest.fixture
def repo(site):
    at = site.path("add")
    site.sh(MAKE_ADD, at)
    return at


def codex(site, prompt, repo, **more):
    return site.run(prompt, {"kind": "local", "dir": str(repo)} if repo else None, agent="codex-exec", **more)


def test_the_real_codex_repairs_a_test_and_everything_is_on_record(site, repo):
    task = codex(site, "[scenario fix-test] repair add()", repo, verify="make test", name="fix")
    result, id = task["result"], task["id"]
    assert result["outcome"] == "success" and result["verify"]["exit_code"] == 0
    assert [(f["path"], f["status"], f["added"], f["deleted"]) for f in result["files"]] == [("add.c", "M", 1, 1)]
    assert b"-\treturn a - b;\n+\treturn a + b;\n" in site.patch(id)
    assert result["claims"] == {"tests_run": 1, "tests_passed": 1}
    assert "sum" in result["summary"]

    events = site.events(id)
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    types = [e["type"] for e in events]
    for wanted in ("message.done", "reasoning.done", "command.started", "command.finished", "file.changed", "todo.snapshot", "usage.added", "run.result", "task.done"):
        assert wanted in types, wanted
    commands = [e["data"] for e in events if e["type"] == "command.finished" and e["data"].get("step") is None]
    assert any("FAIL" in c["output"] for c in commands) and any("PASS" in c["output"] for c in commands)
    todos = {}
    for event in (e for e in events if e["type"].startswith("todo.")):
        for step in event["data"].get("items", [event["data"]]):
            todos[step["id"]] = step
    assert [i["text"] for i in todos.values()] == ["Run the test", "Repair add()", "Run the test again"]
    assert {i["status"] for i in todos.values()} == {"completed"}
    assert {e["actor"] for e in events if e["type"] == "message.done"} == {"agent"}

    run = site.run_dir(id)
    final = json.loads((run / "artifacts/final.json").read_text())
    assert final["status"] == "success" and final["testsRun"] == 1
    assert (run / "artifacts/prompt.txt").read_text() == "[scenario fix-test] repair add()"
    assert "sum" in (run / "artifacts/llm_response.txt").read_text()
    raw = [json.loads(line) for line in (run / "runtime/events.jsonl").read_text().splitlines()]
    assert raw[0]["type"] == "thread.started" and raw[-1]["type"] == "turn.completed"


def test_tokens_are_counted_by_the_gateway_and_the_exchanges_are_kept(site, repo):
    task = codex(site, "[scenario fix-test] repair add()", repo)
    asked = [json.loads(body) for body in site.asked() if task["id"] in body or "[scenario fix-test]" in body]
    usage = task["result"]["usage"]
    assert usage["requests"] > 3 and usage["input_tokens"] >= 4200 and usage["output_tokens"] >= 180 and usage["cached_input_tokens"] >= 3000
    counted = [e["data"] for e in site.events(task["id"], "usage.added")]
    assert sum(c["input_tokens"] for c in counted) == usage["input_tokens"]
    exchanges = site.run_dir(task["id"]) / "artifacts/exchanges.jsonl"
    lines = [json.loads(line) for line in exchanges.read_text().splitlines()]
    assert sum(line.get("phase") == "end" for line in lines) == usage["requests"]
    assert len(asked) >= usage["requests"]
    assert SECRET not in exchanges.read_text()


def test_agents_md_and_what_the_repository_says_reach_the_model(site, repo):
    before = len(site.asked())
    codex(site, "[scenario shell] look", repo)
    assert any("purple elephant" in body for body in site.asked()[before:])


def test_human_notes_reach_the_agent_with_the_request(site, repo):
    id = site.submit("[scenario shell] look", {"kind": "local", "dir": str(repo)}, agent="codex-exec", setup="until [ -e ~/go ]; do sleep 0.02; done")
    wait_for("the setup", lambda: site.task(id)["phase"] == "setup")
    (site.directory(id) / "shared/human-notes.md").write_text("Mind the green giraffe.\n")
    before = len(site.asked())
    site.release(id)
    assert site.wait(id)["status"] == "DONE", site.story(id)
    assert any("green giraffe" in body for body in site.asked()[before:])
    assert "green giraffe" in (site.run_dir(id) / "artifacts/prompt.txt").read_text()


def test_a_final_answer_that_says_blocked_waits_for_a_human(site, repo):
    task = codex(site, "[scenario blocked] go", repo, status="WAITING")
    assert task["result"]["questions"] == ["Which of the two names shall stay?"]
    site.call("POST", f"/v1/tasks/{task['id']}/cancel", {})
    assert site.task(task["id"])["status"] == "CANCELED"


def files_with(place, secret):
    """Files below place that hold the secret; what the server clears away meanwhile holds nothing."""
    for directory, _, names in os.walk(place):
        for path in (pathlib.Path(directory, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink() and secret in path.read_bytes():
                    yield str(path)


def test_the_key_is_in_the_gateways_memory_and_nowhere_else(site, repo):
    id = site.submit("[scenario linger] go", {"kind": "local", "dir": str(repo)}, agent="codex-exec")
    wait_for("the agent's command", lambda: site.events(id, "command.started"))
    runner = site.task(id)["run"]["pid"]
    family = [runner, *descendants(runner)]
    assert any(b"codex" in proc_text(pid, "cmdline") for pid in family)
    for pid in [*family, site.server.pid, site.gateway_pid()]:
        for name in ("cmdline", "environ"):
            assert SECRET.encode() not in proc_text(pid, name), (pid, name)
    site.release(id)
    assert site.wait(id)["status"] == "DONE", site.story(id)
    for place in (site.data, site.runtime, repo):
        assert list(files_with(place, SECRET.encode())) == [], "the key is in a file"
    for name in ("server", "model"):
        assert SECRET not in site.log(name)


def test_an_agent_that_looks_for_a_key_finds_only_its_runs_token(site, repo):
    task = site.run("env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; "
                    "grep -rl 'sk-n[e]ver' / --exclude-dir=proc --exclude-dir=usr --exclude-dir=sys 2>/dev/null; true", {"kind": "local", "dir": str(repo)})
    said = (site.run_dir(task["id"]) / "runtime/events.jsonl").read_text(errors="replace")
    assert SECRET not in said and "OPENAI_API_KEY=sbx1." in said
    assert str(site.data) not in said and str(site.dir) not in said, "a path of the host is seen inside"


FAILURES = {
    "error-400": "the request is not acceptable", "error-401": "refused the gateway's key", "error-429": "too many requests", "error-500": "the model has a bad day",
    "usage-limit": "the plan is used up", "context-too-long": "context window", "cut": "broke off", "garbage": "stream",
}


@pytest.fixture(scope="module")
def failed(site):
    """All the ways a model fails, at once: each is mostly waiting for another try."""
    ids = {name: site.submit(f"[scenario {name}] go", agent="codex-exec", timeout_ms=170000) for name in FAILURES}
    return lambda name: site.wait(ids[name])


@pytest.mark.parametrize("scenario", FAILURES)
def test_a_model_that_fails_ends_the_run_with_the_cause_in_words(site, failed, scenario):
    task = failed(scenario)
    assert task["status"] == "ERROR" and task["reason"] == "agent_failed", site.story(task["id"])
    assert FAILURES[scenario] in task["error"], task["error"]
    events = site.events(task["id"])
    assert [e["type"] for e in events].count("task.done") == 1
    assert SECRET not in json.dumps(events)


def test_a_model_that_cannot_be_reached_ends_the_run_with_that_cause_in_bounded_time(new_site):
    site = new_site(model=False)
    task = codex(site, "anything", None, status="ERROR", timeout_ms=170000)
    assert task["reason"] == "agent_failed" and "127.0.0.1:1" in task["error"], task["error"]


def test_a_model_that_never_answers_is_ended_by_our_own_clock(site, repo):
    task = codex(site, "[scenario hang] go", repo, status="TIMEOUT", stall_timeout_ms=1500)
    assert task["reason"] == "stall_timeout" and "silent" in task["error"] and "1.5 s" in task["error"], task["error"]


def test_model_failures_that_pass_are_no_failure_of_the_run(site, repo):
    assert codex(site, "[scenario third-try] go", repo)["result"]["outcome"] == "success"


def test_codex_that_is_missing_is_said_at_the_door(new_site):
    site = new_site(config={"codex": {"path": "/nowhere/codex"}})
    status, body = site.call("POST", "/v1/tasks", {"prompt": "x", "agent": "codex-exec", "source": {"kind": "none"}})
    assert status == 501 and "/nowhere/codex" in body["detail"], body
    done = site.cli("run", "--repo", "-", "fix it")
    assert done.returncode == 1 and "/nowhere/codex" in done.stderr, done.stderr
    assert site.get("/v1/tasks")["data"] == []
