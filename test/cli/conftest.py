"""The program from outside: the real binary against a small server with canned answers.

The fake speaks just enough of the API to show what the command line makes of it; that the real server
answers so is for the tests in test/e2e."""

import http.server
import json
import os
import re
import shutil
import socketserver
import subprocess
import tempfile
import threading
import urllib.parse

import pytest

BUILD = os.environ.get("SIGNALBOX_BUILD", os.path.join(os.path.dirname(__file__), "..", "..", "build"))
PROGRAM = os.path.abspath(os.path.join(BUILD, "signalbox"))
DEADLINE = 120  # seconds a command may take before the test calls it stuck

TASK_ID = "01kaexample000000000000001"


def make_task(**members):
    task = {
        "id": TASK_ID, "name": None, "project": "default", "created_by": "me", "session_id": "s-1",
        "status": "QUEUED", "phase": "queued", "reason": None, "error": None, "progress": None,
        "prompt": "do it", "agent": "fake", "model": None, "environment": "default", "priority": 0, "labels": {},
        "source": {"kind": "none"}, "repo": "none", "created_at": "2026-11-20T10:00:00.000Z", "started_at": None,
        "completed_at": None, "last_heartbeat": None, "last_seq": 0, "run": None, "queue_position": None, "result": None,
        "directory": "/data/tasks/" + TASK_ID, "url": "http://localhost/t/" + TASK_ID,
    }
    task.update(members)
    return task


def make_event(seq, type, data=None, at="2026-11-20T10:00:01.000Z"):
    return {"seq": seq, "at": at, "type": type, "task": TASK_ID, "worker": "main", "run": "r1", "actor": "runner", "data": data or {}}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def address_string(self):
        return "unix"

    def send_bytes(self, status, kind, data):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send_json(self, status, value):
        self.send_bytes(status, "application/json", json.dumps(value).encode())

    def problem(self, status, code, detail, hint=""):
        self.send_bytes(status, "application/problem+json",
                        json.dumps({"title": code, "status": status, "code": code, "detail": detail, "hint": hint}).encode())

    def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        fake = self.server.fake
        fake.requests.append((self.command, self.path, json.loads(body) if body else None, dict(self.headers)))
        for method, pattern, answer in fake.routes:
            match = re.fullmatch(pattern, url.path)
            if method == self.command and match:
                answer(self, query, *match.groups())
                return
        self.problem(404, "not_found", f"nothing at {url.path}")

    do_GET = do_POST = do_DELETE = handle_any


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass  # a client that detaches is part of the tests


class Fake:
    """Routes are looked up newest first, so a test overrides what it cares about."""

    def __init__(self, path):
        self.path = path
        self.tasks = {TASK_ID: make_task()}
        self.events = []
        self.requests = []
        self.routes = []
        self.on("GET", r"/v1/tasks/([^/]+)", self.get_task)
        self.on("GET", r"/v1/tasks/([^/]+)/wait", self.get_task)
        self.on("GET", r"/v1/tasks/([^/]+)/events", self.get_events)
        self.on("POST", r"/v1/tasks", self.post_task)
        self.on("GET", r"/v1/tasks", lambda h, q: h.send_json(200, {"data": list(self.tasks.values()), "next_cursor": None}))
        self.on("GET", r"/version", lambda h, q: h.send_json(200, {"version": "0.1.0"}))
        self.server = Server(path, Handler)
        self.server.fake = self
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def on(self, method, pattern, answer):
        self.routes.insert(0, (method, pattern, answer))

    def find(self, ref):
        for task in self.tasks.values():
            if ref in (task["id"], task["name"]):
                return task
        return None

    def get_task(self, handler, query, ref):
        task = self.find(ref)
        if task is None:
            handler.problem(404, "not_found", f"task '{ref}' does not exist")
        else:
            done = task["status"] in ("DONE", "ERROR", "TIMEOUT", "CANCELED")
            handler.send_json(200, dict(task, done=done) if "/wait" in handler.path else task)

    def post_task(self, handler, query):
        handler.send_json(201, self.tasks[TASK_ID])

    def get_events(self, handler, query, ref):
        rest = [e for e in self.events if e.get("seq", 1 << 60) > int(query.get("after", 0))]
        if "json" in handler.headers["Accept"] and "jsonl" not in handler.headers["Accept"]:
            handler.send_json(200, {"data": rest, "next_cursor": None, "head": len(self.events)})
        else:
            handler.send_bytes(200, "application/jsonl", "".join(json.dumps(e) + "\n" for e in rest).encode())

    def settle(self, status, **members):
        """The task has ended: its row and its log say so."""
        task = self.tasks[TASK_ID]
        task.update(status=status, last_seq=len(self.events), completed_at="2026-11-20T10:00:42.000Z", **members)

    def sent(self, method, path):
        return [body for m, p, body, _ in self.requests if m == method and p.split("?")[0] == path]

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def room():
    """A directory of the test's own, short enough for a socket's path."""
    path = tempfile.mkdtemp(prefix="sbcli-")
    os.chmod(path, 0o755)  # a root server's sandboxes are another uid and must reach the data below it
    yield path
    shutil.rmtree(path)


@pytest.fixture
def fake(room):
    os.mkdir(os.path.join(room, "run"), 0o700)
    server = Fake(os.path.join(room, "run", "signalbox.sock"))
    yield server
    server.close()


@pytest.fixture
def environment(room):
    work = os.path.join(room, "work")
    os.mkdir(work)
    return {
        "PATH": os.environ["PATH"], "HOME": room, "LANG": "C.UTF-8", "TMPDIR": room,
        "SIGNALBOX_RUNTIME": os.path.join(room, "run"), "SIGNALBOX_DATA": os.path.join(room, "data"),
        **{k: v for k, v in os.environ.items() if k in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS")},
    }


@pytest.fixture
def signalbox(room, environment):
    """signalbox("ls", "--json", env={...}) -> CompletedProcess with text."""

    def call(*words, env=None, cwd=None, stdin=""):
        return subprocess.run([PROGRAM, *words], env={**environment, **(env or {})}, cwd=cwd or os.path.join(room, "work"),
                              input=stdin, capture_output=True, text=True, timeout=DEADLINE)

    return call
