"""The steps that every story of the human in the loop is made of: what is submitted, waited for, asked, decided and said, and what came of it."""
import contextlib
import json
import os
import pathlib
import sqlite3

from e2e_site import TERMINAL, wait_for

ALWAYS = {"ask": "always"}


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
