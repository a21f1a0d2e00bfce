"""The steps that every story of the human in the loop is made of: what is submitted, waited for, asked, decided and said, and what came of it."""
import contextlib
import json
import os
import pathlib
import sqlite3

from e2e_site import TERMINAL, wait_for

ALWAYS = {"ask": "always"}
ASKING_AGENT = r"""
import json, os, pathlib, subprocess, sys
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
        if start in DIES_AT:
            os._exit(1)  # it has spoken, and heard nothing of its task
        send(id=said["id"], result={"sessionId": "s1"})
    elif method == "session/prompt" and start == 1:
        options = [{"optionId": "y", "name": "Yes", "kind": "allow_once"}, {"optionId": "n", "name": "No", "kind": "reject_once"}]
        if CHILD:
            subprocess.Popen(["/usr/bin/sleep", "infinity"])
        for i, title in enumerate(TITLES):
            call = {"toolCallId": f"c{i}", "title": title, "kind": "execute", "rawInput": {"command": title}}
            send(id=900 + i, method="session/request_permission", params={"sessionId": "s1", "toolCall": call, "options": options})
        if GIVES_UP:
            send(id=said["id"], result={"stopReason": "end_turn"})
    elif method == "session/prompt":
        told = "approved: do it" in json.dumps(said["params"]["prompt"])
        text = {"type": "text", "text": "It was told." if told else "It was not told."}
        send(method="session/update", params={"sessionId": "s1", "update": {"sessionUpdate": "agent_message_chunk", "content": text}})
        send(id=said["id"], result={"stopReason": "end_turn"})
"""


def asking_agent(titles=("make test",), dies_at=(), child=False, gives_up=False):
    """A program that speaks ACP: asks leave when it is first started, tells what it was told when it is started again.  It dies at the starts of `dies_at`, and behind `child` it only drives.
    One that gives up ends its turn without waiting for the answer."""
    return f"TITLES, DIES_AT, CHILD, GIVES_UP = {titles!r}, {dies_at!r}, {child!r}, {gives_up!r}\n{ASKING_AGENT}"


def submit(site, prompt, **more):
    return site.submit(prompt, agent="codex", **more)


def ended(site, task):
    """The task when it is over; a wait of Site's ends at a gate."""
    wait_for(f"the end of {task}", lambda: site.task(task)["status"] in TERMINAL)
    return site.wait(task)


def open_gates(site, task):
    return site.get(f"/v1/gates?state=blocked&task={task}")["data"]


def open_gate(site, task, other_than=()):
    """The gate that the task waits at, none of those that were seen before."""
    def there():
        assert site.task(task)["status"] not in TERMINAL, site.story(task)
        return next((g for g in open_gates(site, task) if g["id"] not in other_than), None)
    return wait_for(f"a gate of {task}", there)


def decide(site, gate, decision="approve", **more):
    return site.call("POST", f"/v1/gates/{gate['id']}/decision", {"decision": decision, **more})


def say(site, task, text, **more):
    return site.call("POST", f"/v1/tasks/{task}/messages", {"text": text, **more})


def runner_pid(site, task, n=1):
    path = site.run_dir(task, n) / "runner.json"
    return wait_for("the runner", lambda: json.loads(path.read_text())["pid"] if path.exists() else None)


def made(site, task, name=None):
    """The lines that the task's diff adds, or those of one file."""
    files = [f for f in site.patch(task).decode().split("diff --git") if name is None or f"b/{name}" in f]
    return [line[1:] for f in files for line in f.splitlines() if line.startswith("+") and not line.startswith("+++")]


def files_with(site, text):
    """What is kept of the tasks and holds this text; the agent's own home, its memory, is its own."""
    found = []
    for top, _, names in os.walk(site.data):
        for path in (pathlib.Path(top, name) for name in names):
            with contextlib.suppress(FileNotFoundError):  # a run that is being put away
                if "/agents/main/home/" not in str(path) and path.is_file() and text.encode() in path.read_bytes():
                    found.append(str(path))
    return found


@contextlib.contextmanager
def database(site):
    """The database while no server has it."""
    with contextlib.closing(sqlite3.connect(site.data / "signalbox.db")) as db, db:
        yield db
    site.own(site.data) if site.user else None
