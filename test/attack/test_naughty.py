"""Hostile text in every field that takes text: kept as it was sent or refused, never acted upon, and shown as text."""
import contextlib
import copy
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import termios
import urllib.parse

import pytest
import raw
from attack_site import wait_for
from e2e_site import DEADLINE, PROGRAM
from naughty import STRINGS, acts_on_terminal

SITE = {"config": {"limits": {"running": 1}}}
TASK = {"prompt": "true", "agent": "command"}

# (method, path, a good body, the fields that are attacked; "{}" is a member's name). A route that is not there answers 404 or 405.
DOORS = [
    ("POST", "/v1/tasks", TASK, ["prompt", "name", "agent", "model", "mode", "environment", "env.A", "env.{}", "setup", "setup_network", "verify", "labels.a", "labels.{}", "{}", "limits.{}", "limits.memory",
                                 "source.kind", "source.url", "source.ref", "source.dir", "source.{}", "retry.{}", "retry.on", "priority", "timeout_ms", "retries", "approvals"]),
    ("POST", "/v1/tasks/{task}/messages", {"text": "x", "queue": True}, ["text", "queue", "{}"]),
    ("POST", "/v1/tasks/{task}/cancel", {}, ["reason", "{}"]),
    ("POST", "/v1/tasks/{task}/retry", {}, ["prompt", "{}"]),
    ("PATCH", "/v1/tasks/{task}", {}, ["name", "labels.a", "labels.{}", "priority", "{}"]),
    ("POST", "/v1/gates/nothing/decision", {"decision": "answer", "answer": "x"}, ["decision", "answer", "note", "{}"]),
    ("POST", "/v1/external", {"type": "register", "taskId": "ext", "sessionId": "s"}, ["type", "taskId", "sessionId", "name", "repo", "dir", "progress", "{}"]),
    ("POST", "/v1/external", {"type": "progress", "taskId": "ext-live", "progress": "x"}, ["taskId", "sessionId", "progress", "{}"]),
    ("POST", "/v1/external", {"type": "complete", "taskId": "nobody", "summary": "x"}, ["summary", "result.filesChanged", "result.{}", "result.testsRun", "error"]),
    ("POST", "/v1/keys", {"provider": "p", "key": "k"}, ["provider", "key", "{}"]),
]


def put(body, field, value):
    """The body with the value in the (dotted) place; a "{}" is put there as the member's name."""
    body = copy.deepcopy(body)
    at, names = body, field.split(".")
    for name in names[:-1]:
        at = at.setdefault(name, {"kind": "git", "url": "https://example.org/a.git"} if name == "source" else {})
    if names[-1] == "{}":
        at[value] = "x"
    else:
        at[names[-1]] = value
    return body


@pytest.fixture(scope="module", autouse=True)
def a_full_house(site):
    """One task takes the only place, so that all others wait and nothing of them is run."""
    id = site.submit("until [ -e ~/go ]; do sleep 0.02; done")
    wait_for("the first task", lambda: site.task(id)["phase"] == "running")
    site.call("POST", "/v1/external", {"type": "register", "taskId": "ext-live", "sessionId": "s"})
    yield id
    for live in site.get("/v1/external")["data"]:
        site.call("POST", "/v1/external", {"type": "canceled", "taskId": live["task"]})
    for page in iter(lambda: site.get("/v1/tasks?state=QUEUED,RUNNING&limit=200")["data"], []):
        for task in page:
            site.call("POST", f"/v1/tasks/{task['id']}/cancel", {})


class Talker:
    """One connection, and a new one when the server has closed it (a body that is too long is answered and not read)."""

    def __init__(self, path):
        self.path, self.sock = path, None

    def ask(self, request):
        self.sock = self.sock or raw.dial(self.path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(request)
        answer = raw.Reader(self.sock).answer()
        if answer and answer.headers.get("connection") == "close":
            self.close()
        return answer

    def close(self):
        if self.sock:
            self.sock.close()
        self.sock = None


def check_answer(answer, what):
    assert answer and answer.status < 500, (what, answer)
    if answer.status == 204:
        return {}
    assert answer.headers["content-type"].split(";")[0] in ("application/json", "application/problem+json"), (what, answer)
    assert all(c >= 0x20 for c in answer.body), (what, answer.body)  # JSON of one line
    return json.loads(answer.body)


@pytest.mark.parametrize("method, path, body, fields", DOORS, ids=lambda v: v if isinstance(v, str) else None)
def test_each_string_in_each_field_is_kept_or_refused(site, a_full_house, method, path, body, fields):
    kept = refused = 0
    path = path.format(task=a_full_house) if "cancel" not in path else path.format(task="nobody")
    with contextlib.closing(Talker(site.runtime / "signalbox.sock")) as talker:
        for field in fields:
            for name, value in STRINGS.items():
                text = json.dumps(put(body, field, value)).encode()
                answer = talker.ask(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
                doc = check_answer(answer, (field, name))
                kept, refused = kept + (answer.status < 300), refused + (answer.status >= 400)
                if answer.status == 201:
                    same(site, doc, field, value)
    assert kept + refused == len(fields) * len(STRINGS)


def members(schemas, schema, depth=0):
    """The fields of a body, dotted, as its description has them."""
    schema = schemas[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    for part in schema.get("oneOf", []) + schema.get("anyOf", []) + schema.get("allOf", []):
        yield from members(schemas, part, depth)
    for name, inner in schema.get("properties", {}).items():
        yield name
        if depth < 2:
            yield from (f"{name}.{more}" for more in members(schemas, inner, depth + 1))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from ("a", "{}")


def least(schemas, schema):
    """A body with what it must have."""
    schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
    return {name: {"integer": 1, "boolean": True, "object": {}, "array": []}.get(schema["properties"][name].get("type"), "x") for name in schema.get("required", [])}


def test_each_string_in_each_described_field_is_kept_or_refused(site, a_full_house):
    """Every door that the server's own description knows, so that new ones join by themselves."""
    api, tried = site.get("/v1/openapi.json"), 0
    schemas = api["components"]["schemas"]
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema") if method in ("post", "put", "patch") else None
            if not schema or path == "/v1/tasks" or path.endswith(("/cancel", "/interrupt", "/retry")):  # those are above; the last would end the full house
                continue
            at = path.format(task=a_full_house, gate="nothing", secret="example.org", upload="nothing", token="nothing", run="nothing")
            base = least(schemas, schema)
            with contextlib.closing(Talker(site.runtime / "signalbox.sock")) as talker:
                for field in [*dict.fromkeys(members(schemas, schema)), "{}"]:
                    for name, value in STRINGS.items():
                        text = json.dumps(put(base, field, value)).encode()
                        answer = talker.ask(f"{method.upper()} {at} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
                        check_answer(answer, (path, field, name))
                        tried += 1
    assert tried > 1000, tried


def test_each_string_as_a_part_of_a_path_that_is_written_to_is_kept_or_refused(site, a_full_house):
    for method, path, body in (("PUT", "/v1/secrets/{}", {"secret": "x"}), ("DELETE", "/v1/secrets/{}", None), ("DELETE", "/v1/tokens/{}", None), ("DELETE", "/v1/tasks/{}", None), ("DELETE", "/v1/uploads/{}", None),
                               ("PATCH", "/v1/uploads/{}", None), ("POST", "/v1/uploads?name={}", None), ("POST", "/v1/gates/{}/decision", {"decision": "approve"}), ("POST", "/v1/tasks/{}/messages", {"text": "x"}), ("PATCH", "/v1/tasks/{}", {"priority": 1})):
        for name, value in STRINGS.items():
            word = urllib.parse.quote(value.encode()[:600], safe="")
            status, answer = site.call(method, path.replace("{}", word), body)
            assert status < 500, (method, path, name, status, answer)


def same(site, task, field, value):
    """What was taken is there as it was sent."""
    shown = site.task(task["id"])
    if field == "prompt":
        assert shown["prompt"] == value
    if field == "labels.a":
        assert shown["labels"] == {"a": value}
    if field == "labels.{}":
        assert shown["labels"] == {value: "x"}
    if field == "name":
        assert shown["name"] == value
    site.call("POST", f"/v1/tasks/{task['id']}/cancel", {})


@pytest.mark.parametrize("path", ["/v1/tasks?state={}", "/v1/tasks?label={}", "/v1/tasks?q={}", "/v1/tasks?after={}", "/v1/tasks?repo={}", "/v1/tasks?limit={}", "/v1/tasks?{}=1", "/v1/tasks/{}", "/v1/tasks/{}/diff",
                                  "/v1/tasks/{}/artifacts/{}", "/v1/tasks/{}/events?after={}", "/v1/tasks/{}/wait?timeout={}", "/v1/runs/{}", "/v1/gates?state={}", "/logs/{}/{}", "/logs/{}/prompt.txt", "/v1/events?after={}", "/{}"])
def test_each_string_in_a_path_or_a_query_is_nothing_but_a_word(site, a_full_house, path):
    for name, value in STRINGS.items():
        word = urllib.parse.quote(value.encode()[:600], safe="")
        for at in {path.replace("{}", word), path.replace("{}", a_full_house, 1).replace("{}", word)}:
            with contextlib.suppress(json.JSONDecodeError):
                status, body = site.call("GET", at, headers={"Accept": "application/json"}, timeout=DEADLINE)
                assert status < 500, (name, at, status, body)


@pytest.mark.parametrize("header", ["User-Agent", "Accept", "If-Match", "If-None-Match", "Range", "Idempotency-Key", "Origin", "Referer", "Cookie", "Authorization", "Content-Type", "Content-Encoding", "Expect", "Last-Event-ID", "Prefer",
                                    "X-Forwarded-For", "X-HTTP-Method-Override", "Connection", "Upgrade"])
def test_each_string_in_a_header_is_nothing_but_a_header(site, a_full_house, header):
    for name, value in STRINGS.items():
        text = value.encode()[:2000].replace(b"\r", b"").replace(b"\n", b"")  # others are for the tests of heads
        head = f"Host: x\r\n{header}: ".encode() + text + b"\r\n"
        for request in (b"GET /v1/tasks/" + a_full_house.encode() + b" HTTP/1.1\r\n" + head + b"\r\n",
                        b"POST /v1/tasks HTTP/1.1\r\n" + head + (b"" if header == "Content-Type" else b"Content-Type: application/json\r\n") + b"Content-Length: 2\r\n\r\n{}"):
            with raw.dial(site.runtime / "signalbox.sock") as sock:
                sock.sendall(request)
                answer = raw.Reader(sock).answer()
            assert answer and answer.status < 500, (header, name, answer)


def on_terminal(site, words, cwd):
    """What a person sees: stdout and stderr of the program on one pseudo-terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    child = subprocess.Popen([str(PROGRAM), *words], env=site.environment(TERM="xterm", PAGER="cat"), cwd=cwd, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave)
    os.close(slave)
    out = b""
    with contextlib.suppress(OSError):  # the last writer has gone
        while select.select([master], [], [], DEADLINE)[0]:
            data = os.read(master, 65536)
            if not data:
                break
            out += data
    os.close(master)
    assert child.wait(DEADLINE) >= 0, (words, child.returncode)
    return out


ALL = "".join(f"[{name}] {value[:300]}\n" for name, value in STRINGS.items())
SAY = "printf '%s' \"$(cat \"$SIGNALBOX_PROMPT\")\" | tail -n +2; mkdir -p d; for i in 1 2 3 4 5 6; do printf 'x\\n' > \"d/$(printf \"$(sed -n ${i}p /workspace/names)\")\"; done; echo x >&2; exit 0"
NAMES = ["\x1b[31mred", "\x1b]0;owned\x07", "a\u202etxt.exe", "\x9b31m", "bell\x07", "-rf"]


@pytest.fixture(scope="module")
def told(site, a_full_house):
    """A task that has hostile text wherever one may be, and has run: prompt, labels, output, file names, final answer."""
    repo = site.path("repo")
    (repo / "names").write_text("".join(n.replace("\x1b", "\\033").replace("\x07", "\\007") + "\n" for n in NAMES))
    site.sh("git init -qb main; git add -A; git commit -qm x", repo)
    script = SAY + "\n" + "#" + ALL
    final = {"status": "blocked", "summary": ALL[:8000], "questions": [ALL[:3000], "\x1b[31m?"], "nextActions": ["\x1b]0;x\x07"], "testsRun": 0, "testsPassed": 0}
    wrapped = "cat > \"$SIGNALBOX_FINAL\" <<'END'\n" + json.dumps(final) + "\nEND\n" + script
    site.call("POST", f"/v1/tasks/{a_full_house}/cancel", {})
    id = site.submit(wrapped, {"kind": "local", "dir": str(repo)}, name="told", labels={"\x1b[31mkey": "\x1b]0;v\x07", "bidi": "\u202ex"}, env={"A": "\x1b[31m"}, verify="printf '\\033[31mverify\\007'; exit 0")
    task = site.wait(id)
    assert task["status"] == "WAITING", site.story(id)
    return id


VERBS = [["ls"], ["ls", "--all"], ["show", "{}"], ["logs", "{}"], ["events", "{}"], ["diff", "{}"], ["diff", "--stat", "{}"], ["artifacts", "{}"], ["wait", "--timeout", "1s", "{}"], ["gates"], ["apply", "--check", "{}"], ["doctor"],
         ["config"], ["show", "\x1b[31mnobody"], ["cancel", "\x1b]0;x\x07"], ["run", "--repo", "-", "--agent", "\x1b[31mnobody", "x"], ["run", "--repo", "/\x1b[31m", "x"], ["\x1b[31mverb"], ["ls", "--\x1b[31m"],
         ["start", "--name", "\x1b[31m", "x"], ["ls", "--label", "\x1b[31mkey=\u202e"], ["ls", "--state", "\x1b[31m"], ["say", "{}", ""], ["--server", "http://\x1b[31m/", "ls"]]


@pytest.mark.parametrize("words", VERBS, ids=lambda w: " ".join(w).replace("\x1b", "ESC"))
def test_a_terminal_is_sent_text_only(site, told, words):
    words = [w.replace("{}", told) for w in words]
    for more in ([], ["--json"]):
        out = on_terminal(site, words + more, site.home)
        assert not acts_on_terminal(out), (words, acts_on_terminal(out), out[-2000:])


def test_what_runs_is_followed_as_text_too(site, told):
    out = on_terminal(site, ["run", "--repo", "-", "--agent", "command", "cat <<'END'\n" + ALL + "\nEND"], site.home)
    assert b"[escape title]" in out and not acts_on_terminal(out), (acts_on_terminal(out), out[-3000:])
    out = on_terminal(site, ["run", "--repo", "-", "--agent", "command", "printf 'bad \\033]0;owned\\007 \\302\\2331m words' >&2; exit 3"], site.home)
    assert b"words" in out and not acts_on_terminal(out), (acts_on_terminal(out), out[-3000:])


def test_the_log_of_the_server_is_lines_of_text(site, told):
    log = site.log("server")
    assert not acts_on_terminal(log), acts_on_terminal(log)
    assert not [line for line in log.splitlines() if line.startswith("2026-01-01T00:00:00.000Z")]  # the forged one
