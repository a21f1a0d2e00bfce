"""Streams: the log of all tasks, cursors that outlive the server, crowds of readers, and readers that stop reading."""
import contextlib
import http.client
import json
import random
import re
import selectors
import socket
import sqlite3
import threading

import pytest
from concurrent.futures import ThreadPoolExecutor
from e2e_site import DEADLINE, proc_text, wait_for
from test_api import jsonl, read_sse, sse

SITE = {"model": False}
HOLD = "until [ -e ~/go ]; do sleep 0.02; done"
READERS = 240
STALLED = 24
EVENTS = 6000  # of the past; then as many as the agent tells
TOLD = 300
READER_BYTES = 24 << 10  # what one reader may cost the server, whether it reads or not
RECONNECTS = 360  # of all readers together
JOIN_S = 120  # far more than a join takes: it must come at all while the others are served


def follow_all(site, **query):
    """Events of all tasks as (cursor, event), until the stream ends; control events as (None, (name, data))."""
    asked = "&".join(f"{k}={v}" for k, v in query.items())
    conn, reply = site.open("GET", f"/v1/events?{asked}", headers={"Accept": "application/jsonl"})
    assert reply.status == 200
    try:
        for line in iter(reply.readline, b""):
            event = json.loads(line)
            if "seq" in event:
                yield event.pop("cursor"), event
            elif not event.get("live"):
                yield None, (event["type"], event)
    finally:
        conn.close()


def pages_of_all(site, after="0", limit=50):
    out = []
    while after is not None:
        page = site.get(f"/v1/events?after={after}&limit={limit}")
        assert len(page["data"]) <= limit
        out += [(e.pop("cursor"), e) for e in page["data"]]
        after = page["next_cursor"]
    return out


def by_task(pairs):
    tasks = {}
    for _, event in pairs:
        tasks.setdefault(event["task"], []).append(event)
    return tasks


def test_the_log_of_all_tasks_has_every_tasks_log_in_order(site):
    ids = [site.run(f"echo {n}; echo again")["id"] for n in range(3)]
    pages = pages_of_all(site)
    assert len({c for c, _ in pages}) == len(pages)
    for id in ids:
        assert by_task(pages)[id] == site.events(id)
    assert pages == pages_of_all(site, limit=7) == list(follow_all(site, after="0"))
    for cut in (0, 1, len(pages) // 2, len(pages) - 1):
        assert pages_of_all(site, after=pages[cut][0]) == pages[cut + 1:]
    assert site.get("/v1/events?after=end")["data"] == []


def test_who_follows_all_tasks_sees_new_ones_from_their_first_event(site):
    got, started = [], threading.Event()

    def read():
        for cursor, event in follow_all(site, after="end", follow=1):
            got.append((cursor, event))
            if cursor is None and event[0] == "sync":
                started.set()
            if len([e for c, e in got if c and e["type"] == "task.done"]) == 4:
                return

    thread = threading.Thread(target=read)
    thread.start()
    assert started.wait(DEADLINE)
    ids = [site.submit(f"echo {n}") for n in range(4)]
    [site.wait(id) for id in ids]
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert [e[0] for c, e in got if c is None] == ["hello", "sync"]
    events = [(c, e) for c, e in got if c]
    for id in ids:
        assert by_task(events)[id] == site.events(id)[:len(by_task(events)[id])] and by_task(events)[id][0]["type"] == "task.created"
    assert pages_of_all(site, after=events[0][0])[:len(events) - 1] == events[1:]


def test_the_log_of_all_tasks_as_sse_resumes_behind_its_id(site):
    site.run("echo one")
    pages = pages_of_all(site)
    conn, reply = site.open("GET", "/v1/events", headers={"Accept": "text/event-stream", "Last-Event-ID": pages[-3][0]})
    raw = b""
    while b"event: sync" not in raw:
        raw += reply.readline()
    conn.close()
    assert re.findall(rb"^id: (\S+)$", raw, re.M) == [p[0].encode() for p in pages[-2:]]
    assert b'"cursor":"' + pages[-1][0].encode() + b'"' in raw and raw.count(b"event: hello") == 1


def test_cursors_of_all_tasks_hold_over_a_restart_and_a_foreign_one_is_gone(new_site):
    site = new_site(**SITE)
    site.run("echo one")
    before = pages_of_all(site)
    site.kill_server()
    site.start_server()
    assert pages_of_all(site, after=before[3][0])[:len(before) - 4] == before[4:]
    site.run("echo two")
    after = pages_of_all(site)
    assert after[:len(before)] == before and len(after) > len(before)
    number = before[3][0].split("-")[0]
    for cursor, status in ((f"{number}-ZZZZZZ", 410), (f"{10 ** 9}-ABCDEF", 410), ("7", 400), ("x-y", 400), ("-", 400), ("1-", 400), ("1-ABCDEFG", 400)):
        assert site.call("GET", f"/v1/events?after={cursor}")[0] == status, cursor
    gone = site.call("GET", f"/v1/events?after={number}-ZZZZZZ")[1]
    assert gone["code"] == "gone" and "after=0" in gone["hint"]


def test_lines_of_a_removed_task_are_passed_over(site):
    first, second = site.run("echo one")["id"], site.run("echo two")["id"]
    cursor = [c for c, e in pages_of_all(site) if e["task"] == first][2]
    assert site.call("DELETE", f"/v1/tasks/{first}")[0] == 204
    rest = pages_of_all(site, after=cursor, limit=1)
    assert first not in by_task(rest) and by_task(rest)[second] == site.events(second)
    site.tasks.discard(first)


def test_a_follower_is_told_when_the_server_stops(new_site):
    site = new_site(**SITE)
    id = site.submit(HOLD)
    got = []
    threads = [threading.Thread(target=lambda: got.append(list(follow_all(site, after="0", follow=1)))),
               threading.Thread(target=lambda: got.append([(None, (e.get("type"), e)) for e in jsonl(site, id, "follow=1") if "seq" not in e]))]
    [t.start() for t in threads]
    wait_for("both", lambda: 'signalbox_http_streams 2\n' in site.call("GET", "/metrics")[1])
    site.stop_server()
    [t.join(DEADLINE) for t in threads]
    said = [[e[0] for c, e in lines if c is None and e[0] in ("hello", "sync", "lagged", "end", "stopping")] for lines in got]
    assert len(said) == 2 and all(words in (["hello", "sync", "stopping"], ["hello", "stopping"]) for words in said), said  # it may stop before one has caught up
    site.start_server()
    site.release(id)
    site.wait(id)


# --- coming back

def by_header(site, id, after):
    return ((seq, data) for event, seq, data in sse(site, id, last=after) if event is None)


def by_query(site, id, after):
    return ((seq, data) for event, seq, data in sse(site, id, after=after) if event is None)


def by_lines(site, id, after):
    conn, reply = site.open("GET", f"/v1/tasks/{id}/events?after={after}&follow=1", headers={"Accept": "application/jsonl"})
    with contextlib.closing(conn):
        for event in map(json.loads, iter(reply.readline, b"")):
            if "seq" in event:
                yield event["seq"], event


def of_all(site, _, after):
    return (pair for pair in follow_all(site, after=after, follow=1) if pair[0])


class Returner:
    """A reader that goes after a few events and comes back at any cursor that it has been given."""

    def __init__(self, site, id, stream, seed):
        self.site, self.id, self.stream, self.rng, self.known, self.times = site, id, stream, random.Random(seed), [], 0

    def look(self):
        n = self.rng.choice((len(self.known), self.rng.randint(0, len(self.known))))
        most, got = self.rng.randint(1, 20), []
        with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError):  # killed in the middle of a line
            with contextlib.closing(self.stream(self.site, self.id, self.known[n - 1][0] if n else 0)) as events:
                for pair in events:
                    got.append(pair)
                    if len(got) == most:
                        break
        again = self.known[n:n + len(got)]
        assert got[:len(again)] == again, "what was told once is told again, and so"
        self.known += got[len(again):]
        return bool(got)

    def read(self, times):
        while self.times < times:
            if self.look():
                self.times += 1
            else:
                wait_for("the server", self.site.is_up)


def test_readers_that_come_back_anywhere_while_events_come_see_exactly_the_log_also_across_a_kill(new_site):
    site = new_site(**SITE)
    id = site.submit("i=0; until [ -e ~/go ]; do i=$((i+1)); echo line $i; sleep 0.01; done")
    wait_for("a first word", lambda: site.events(id, "message.done"))
    readers = [Returner(site, id, stream, seed) for seed, stream in enumerate((by_header, by_query, by_lines, of_all) * 2)]
    with ThreadPoolExecutor(len(readers)) as pool:
        over = [pool.submit(r.read, RECONNECTS // len(readers)) for r in readers]
        wait_for("a third of it", lambda: sum(r.times for r in readers) > RECONNECTS // 3 or any(f.done() for f in over))
        site.kill_server()
        site.start_server()
        [f.result() for f in over]
    site.release(id)
    assert site.wait(id)["status"] == "DONE"
    log, pages = [(e["seq"], e) for e in site.events(id)], pages_of_all(site)
    assert [e["seq"] for _, e in log] == list(range(1, len(log) + 1)) and len({e["data"]["text"] for _, e in log if e["type"] == "message.done"}) > 20
    for r in readers:
        whole = pages if r.stream is of_all else log
        assert len(r.known) > 20 and r.known == whole[:len(r.known)]
        rest = pages_of_all(site, after=r.known[-1][0]) if r.stream is of_all else [(e["seq"], e) for e in jsonl(site, id, f"after={r.known[-1][0]}") if "seq" in e]
        assert r.known + rest == whole


# --- crowds

def add_past(site, id, texts):
    """Events that a task has had, put where the server keeps them: thousands in a moment."""
    with contextlib.closing(sqlite3.connect(site.data / "signalbox.db", timeout=120)) as db, db:
        db.execute("BEGIN IMMEDIATE")
        (last,) = db.execute("SELECT last_seq FROM tasks WHERE id=?", (id,)).fetchone()
        for n, text in enumerate(texts, last + 1):
            line = json.dumps({"seq": n, "at": "2026-01-01T00:00:00.000Z", "type": "message.done", "task": id, "worker": "main", "run": 1, "actor": "agent", "data": {"text": text}},
                              separators=(",", ":"))
            db.execute("INSERT INTO events(task,seq,at,type,line) VALUES(?,?,0,'message.done',?)", (id, n, line))
            db.execute("INSERT INTO feed(task,seq) VALUES(?,?)", (id, n))
        db.execute("UPDATE tasks SET last_seq=? WHERE id=?", (last + len(texts), id))


class Reader:
    """One SSE connection that is only looked at: whether its ids follow on each other."""

    def __init__(self, site, id, after, window=None):
        self.site, self.id, self.window, self.next, self.socket = site, id, window, after + 1, None
        self.come()

    def come(self):
        """For the first time, or again behind the last id that it has seen."""
        if self.socket:
            self.socket.close()
        self.tail, self.over, self.ended, self.lagged = b"", False, False, False
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if self.window:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.window)
        self.socket.connect(str(self.site.runtime / "signalbox.sock"))
        self.socket.sendall(f"GET /v1/tasks/{self.id}/events?after={self.next - 1} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode())
        self.socket.setblocking(False)

    def read(self):
        with contextlib.suppress(BlockingIOError):
            data = self.socket.recv(1 << 16)
            self.over = self.over or not data
            text = self.tail + data
            whole = text.rfind(b"\n\n") + 2 if b"\n\n" in text else 0
            self.tail = text[whole:]
            frames = re.sub(rb"\r\n[0-9A-Fa-f]+\r\n", b"", text[:whole])  # chunks begin and end anywhere
            for n in re.findall(rb"^id: (\d+)$", frames, re.M):
                assert int(n) == self.next
                self.next += 1
            words = re.findall(rb"^event: (\w+)$", frames, re.M)
            self.ended, self.lagged = self.ended or b"end" in words, self.lagged or b"lagged" in words
            self.over = self.over or self.ended


def rss(pid):
    return int(re.search(rb"VmRSS:\s+(\d+)", proc_text(pid, "status"))[1]) << 10


def read_until(readers, done, come_back=False):
    """On a machine that is slow enough we lag ourselves, are told so and let go: who comes back then goes on where he was.  He has no other reason to."""
    with selectors.DefaultSelector() as ready:
        for r in readers:
            ready.register(r.socket, selectors.EVENT_READ, r)
        while not done():
            for key, _ in ready.select(5):
                r = key.data
                r.read()
                if r.over:
                    ready.unregister(key.fileobj)
                if r.over and not r.ended and come_back:
                    assert r.lagged, f"a stream was broken off behind {r.next - 1}: {r.tail[-200:]!r}"
                    r.come()
                    ready.register(r.socket, selectors.EVENT_READ, r)


def test_a_crowd_reads_without_gaps_beside_readers_that_stop_and_the_server_stays_small(new_site):
    site = new_site(**SITE)
    id = site.submit(f"{HOLD}; i=0; while [ $i -lt {TOLD} ]; do i=$((i+1)); echo line $i; sleep 0.002; done")
    wait_for("the agent", lambda: site.task(id)["phase"] == "running")
    add_past(site, id, [f"what was said {n}" for n in range(EVENTS)])
    before = rss(site.server.pid)
    stalled = [Reader(site, id, 0, window=4096) for _ in range(STALLED)]
    readers = [Reader(site, id, EVENTS * n // READERS) for n in range(READERS)]
    read_until(readers, lambda: all(r.next > EVENTS for r in readers), come_back=True)
    site.release(id)
    joined = []

    def join():
        r = Reader(site, id, EVENTS)
        r.socket.settimeout(JOIN_S)
        joined.append(r.socket.recv(1 << 12))
        r.socket.close()

    joins = [threading.Thread(target=join) for _ in range(20)]
    [t.start() for t in joins]
    read_until(readers, lambda: all(r.ended for r in readers), come_back=True)
    [t.join(JOIN_S) for t in joins]
    grown = rss(site.server.pid) - before
    last = site.task(id)["last_seq"]
    assert {r.next - 1 for r in readers} == {last} and last > EVENTS + TOLD // 10
    assert len(joined) == 20 and all(j.startswith(b"HTTP/1.1 200") for j in joined)
    assert grown < (32 << 20) + (READERS + STALLED) * READER_BYTES
    for r in stalled[:3]:  # what it did not take waits where it was; where this takes long it is let go, and comes back: without a gap
        read_until([r], lambda: r.over)
        while r.next - 1 < last:
            seen = r.next
            r.come()
            read_until([r], lambda: r.over)
            assert r.next > seen
    assert {r.next - 1 for r in stalled[:3]} == {last}
    for r in stalled + readers:
        r.socket.close()
    assert site.wait(id)["status"] == "DONE"


@pytest.mark.parametrize("accept", ["text/event-stream", "application/jsonl"])
def test_lines_longer_than_any_buffer_arrive_whole(site, accept):
    id = site.submit(f"{HOLD}; for n in 1 2 3; do head -c 100000 /dev/zero | tr '\\0' x; echo; done")
    wait_for("the agent", lambda: site.task(id)["phase"] == "running")
    add_past(site, id, ["x" * n for n in (100, 7900, 9000, 12000, 16384, 60000, 200000, 3)])
    conn, reply = site.open("GET", f"/v1/tasks/{id}/events?follow=1", headers={"Accept": accept})
    site.release(id)
    if "jsonl" in accept:
        got = [e for e in map(json.loads, reply.read().splitlines()) if "seq" in e]
    else:
        got = [data for event, _, data in read_sse(reply) if event is None]
    conn.close()
    assert got == site.events(id) and max(len(json.dumps(e)) for e in got) > 200000
