"""What people see: columns, colour and the live line, on a real pseudo-terminal of a known width."""

import codecs
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

import pytest
from conftest import DEADLINE, PROGRAM, TASK_ID, make_event, make_task
from test_tasks import PATCH

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Screen:
    """A child whose stdout and stderr are one terminal."""

    def __init__(self, words, env, cwd, columns=60):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.child = subprocess.Popen([PROGRAM, *words], env={**env, "TERM": "xterm"}, cwd=cwd, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave)
        os.close(slave)
        self.text, self.decoder = "", codecs.getincrementaldecoder("utf-8")()

    def read(self):
        if not select.select([self.master], [], [], DEADLINE)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the last writer has gone
            return False
        self.text += self.decoder.decode(data)  # a piece may end within a character
        return bool(data)

    def until(self, words):
        end = time.monotonic() + DEADLINE
        while words not in self.text and time.monotonic() < end and self.read():
            pass
        assert words in self.text

    def finish(self):
        while self.read():
            pass
        os.close(self.master)
        self.status = self.child.wait(DEADLINE)
        return self.text.replace("\r\n", "\n")


@pytest.fixture
def screen(room, environment):
    screens = []

    def start(*words, env=None, columns=60):
        screens.append(Screen(words, {**environment, **(env or {})}, os.path.join(room, "work"), columns))
        return screens[-1]

    yield start
    for s in screens:
        if s.child.poll() is None:
            s.child.kill()
            s.child.wait()


def shown(text):
    """What is left on the screen's lines after carriage returns and erasures."""
    lines = []
    for line in COLOURS.sub("", text).split("\n"):
        lines.append(line.split("\r\x1b[K")[-1])
    return lines


def columns_of(text):
    import unicodedata

    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def test_a_table_has_titles_and_its_columns_line_up_under_wide_characters(fake, screen):
    fake.tasks = {"1": make_task(id="1", name="日本", prompt="first"), "2": make_task(id="2", name="plain", prompt="second"),
                  "3": make_task(id="3", name="e\u0301te\u0301", prompt="third")}
    lines = shown(screen("ls", columns=120).finish())
    at = [columns_of(line[:line.index(word)]) for line, word in zip(lines, ["STATUS", "QUEUED", "QUEUED", "QUEUED"])]
    assert len(set(at)) == 1, lines
    assert re.search(r"  \d+ (s|min|h|d)  ", lines[1])


def test_no_line_of_a_table_is_longer_than_the_terminal_where_the_last_column_can_give(fake, screen):
    fake.tasks = {"1": make_task(id="1", prompt="ü日" * 200)}
    for line in shown(screen("ls", columns=100).finish()):
        assert columns_of(line) <= 100


def test_a_diff_on_a_terminal_is_coloured_and_harmless(fake, screen):
    fake.tasks[TASK_ID].update(status="DONE")
    fake.on("GET", r"/v1/tasks/([^/]+)/diff", lambda h, q, t: h.send_bytes(200, "text/x-diff", PATCH.encode() + b"+\x1b]0;evil\x07\n"))
    text = screen("diff", TASK_ID, env={"PAGER": "cat"}).finish()
    assert "\x1b[32m+b\x1b[0m" in text and "\x1b[31m-a\x1b[0m" in text
    assert "\x1b]" not in text
    assert COLOURS.search(screen("--no-color", "diff", TASK_ID, env={"PAGER": "cat"}).finish()) is None


def test_a_diff_on_a_terminal_goes_through_the_pager(fake, screen):
    fake.tasks[TASK_ID].update(status="DONE")
    fake.on("GET", r"/v1/tasks/([^/]+)/diff", lambda h, q, t: h.send_bytes(200, "text/x-diff", PATCH.encode()))
    assert "paged: diff" in COLOURS.sub("", screen("diff", TASK_ID, env={"SIGNALBOX_PAGER": "sed 's/^/paged: /'"}).finish().replace("\x1b[1m", ""))


def test_the_live_line_shows_what_goes_on_and_is_gone_at_the_end(fake, screen):
    import threading

    more = threading.Event()
    fake.tasks[TASK_ID].update(status="RUNNING")
    long = "x" * 300

    def send(handler, event):
        line = (json.dumps(event) + "\n").encode()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        handler.wfile.flush()

    def stream(handler, query, ref):
        handler.send_response(200)
        handler.send_header("Content-Type", "application/jsonl")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        send(handler, {"live": True, "type": "workspace.progress", "data": {"step": "clone", "percent": 45, "text": long}})
        more.wait(DEADLINE)
        send(handler, make_event(1, "message.done", {"text": "hello"}))
        fake.tasks[TASK_ID].update(status="DONE", last_seq=1, result={"summary": "All well."})
        handler.wfile.write(b"0\r\n\r\n")

    fake.on("GET", r"/v1/tasks/([^/]+)/events", stream)
    s = screen("run", "--repo", "-", "x")
    s.until("clone 45 %")
    more.set()
    text = s.finish()
    assert s.status == 0
    live = [COLOURS.sub("", part) for part in text.split("\r\x1b[K") if "clone 45 %" in part]
    assert live and all(columns_of(part) < 60 for part in live)
    left = shown(text)
    assert any(line.endswith("> hello") for line in left)
    assert "All well." in left
    assert not any("clone" in line for line in left)


def test_quiet_draws_no_live_line(fake, screen):
    fake.settle("DONE")
    assert "\x1b[K" not in screen("run", "-q", "--repo", "-", "x").finish()


def test_an_interrupt_clears_the_live_line(fake, screen):
    import signal
    import threading

    leave = threading.Event()
    fake.tasks[TASK_ID].update(status="RUNNING")

    def stream(handler, query, ref):
        handler.send_response(200)
        handler.send_header("Content-Type", "application/jsonl")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write((json.dumps(make_event(1, "message.done", {"text": "hello"})) + "\n").encode())
        handler.wfile.flush()
        leave.wait(DEADLINE)

    fake.on("GET", r"/v1/tasks/([^/]+)/events", stream)
    s = screen("run", "--repo", "-", "x")
    s.until("hello")
    s.child.send_signal(signal.SIGINT)
    text = s.finish()
    leave.set()
    assert s.status == 130
    assert "detached; the task goes on" in shown(text)


NAUGHTY = "\x1b]0;evil\x07\x1b[2J\x9b31m\x7f\u202egnp.exe\r\x08\u2066 ü日e\u0301"
HARMLESS_STYLES = re.compile(r"\x1b\[(0|1|2|3[1-6])m|\r\x1b\[K|\r\n")


def naughty(value):
    """The same shape with every text made hostile, but for what steers the program."""
    keep = ("id", "status", "seq", "at", "type", "created_at", "completed_at", "kind", "layers")
    if isinstance(value, dict):
        return {k: v if k in keep else naughty(v) for k, v in value.items()}
    if isinstance(value, list):
        return [naughty(v) for v in value]
    return NAUGHTY if isinstance(value, str) else value


@pytest.mark.parametrize("words", [["ls"], ["show", TASK_ID], ["events", TASK_ID], ["events", "-f", TASK_ID], ["logs", TASK_ID], ["logs", TASK_ID, "prompt"],
                                   ["diff", TASK_ID], ["diff", "--stat", TASK_ID], ["artifacts", TASK_ID], ["wait", TASK_ID], ["cancel", TASK_ID],
                                   ["run", "--repo", "-", "x"], ["start", "--repo", "-", "x"], ["doctor"], ["version"]], ids=" ".join)
def test_hostile_text_in_any_field_is_shown_as_text(fake, screen, words):
    from test_follow import STEPS
    from test_tasks import RESULT

    fake.events = [naughty(make_event(i + 1, type, data)) for i, (type, data) in enumerate(STEPS)]
    for type in ("gate.blocked", "workspace.warning", "agent.error", "tool.finished", "agent.raw", "reasoning.done", "run.ended", "run.result"):
        fake.events.append(naughty(make_event(len(fake.events) + 1, type, {
            "text": "x", "message": "x", "server": "x", "tool": "x", "status2": "x", "line": "x", "outcome": "x", "reason": "x", "error": "x",
            "questions": ["x"], "result": {"outcome": "x", "summary": "x"}})))
    fake.tasks[TASK_ID] = naughty(make_task(name="x", reason="x", error="x", progress="x", labels={"k": "v"}, result=dict(RESULT, questions=["x"], next_actions=["x"]),
                                            source={"kind": "git", "url": "x", "ref": "x", "commit": "x"}))
    fake.settle("ERROR")
    evil = NAUGHTY.encode()
    fake.on("GET", r"/v1/tasks/([^/]+)/diff", lambda h, q, t: h.send_bytes(200, "text/x-diff", evil + b"\n+" + evil))
    fake.on("GET", r"/logs/([^/]+)/(.*)", lambda h, q, t, n: h.send_bytes(200, "text/plain", evil))
    fake.on("GET", r"/v1/tasks/([^/]+)/artifacts", lambda h, q, t: h.send_json(200, {"data": [{"path": NAUGHTY, "size": 1, "mime": NAUGHTY}]}))
    fake.on("GET", r"/v1/doctor", lambda h, q: h.send_json(200, {"checks": [{"name": NAUGHTY, "ok": False, "text": NAUGHTY, "hint": NAUGHTY}]}))
    fake.on("GET", r"/version", lambda h, q: h.send_json(200, {"version": NAUGHTY}))
    fake.on("POST", r"/v1/tasks/([^/]+)/cancel", lambda h, q, t: h.send_json(202, fake.tasks[TASK_ID]))
    s = screen(*words, env={"PAGER": "cat"}, columns=100)
    s.finish()
    rest = HARMLESS_STYLES.sub("", s.text)
    bad = [c for c in rest if (ord(c) < 0x20 and c not in "\n\t") or 0x7f <= ord(c) < 0xa0 or c in "\u202e\u2066"]
    assert bad == [], repr(rest)


@pytest.mark.parametrize("words", [["show", TASK_ID], ["start", "--repo", "-", "x"]], ids=" ".join)
def test_hostile_words_of_a_refusal_are_shown_as_text(fake, screen, words):
    fake.on("GET", r"/v1/tasks/([^/]+)", lambda h, q, t: h.problem(409, "conflict", NAUGHTY, NAUGHTY))
    fake.on("POST", r"/v1/tasks", lambda h, q: h.problem(409, "conflict", NAUGHTY, NAUGHTY))
    s = screen(*words)
    s.finish()
    assert s.status == 6
    assert "\x1b]" not in s.text and "\u202e" not in s.text and "\x9b" not in s.text
