"""Keys and tokens stay where they belong: a provider that says its key again, an agent that prints all it can find, and every file afterwards."""
import hashlib
import json
import pathlib
import re
import sqlite3
import sys

import pytest
import raw
from attack_site import AttackSite
from e2e_site import bytes_of, files_below, proc_text

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "suite"))
from gateway_site import Upstream  # noqa: E402

KEY = "sk-sk-proj-sk-never-anywhere-0123456789abcdef"  # its beginning comes again within it
STARS = "*" * len(KEY)


def stream(conn, pieces, status="200 OK", type="text/event-stream", more=""):
    """An answer in just these pieces, each a chunk of its own."""
    conn.sendall(f"HTTP/1.1 {status}\r\nContent-Type: {type}\r\n{more}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode())
    for piece in pieces:
        conn.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    conn.sendall(b"0\r\n\r\n")


class Parrot:
    """A provider that says its key in every place and way it can; the request's number chooses how it is cut."""

    def __init__(self):
        self.asked = 0
        self.upstream = Upstream(self.answer)
        self.port = self.upstream.port

    def answer(self, conn, headers, body):
        assert headers["authorization"] == "Bearer " + KEY
        n, self.asked = self.asked, self.asked + 1
        item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": f"the key is {KEY}, {KEY[:9]}{KEY} {KEY[:-1]} and Bearer {KEY}"}]}
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in ({"type": "response.output_text.delta", "delta": KEY}, {"type": "response.output_item.done", "item": item}, {
            "type": "response.completed", "response": {"id": KEY, "output": [item], "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}}})).encode()
        if n % 4 == 3:
            stream(conn, cut(json.dumps({"error": {"message": f"no: {KEY}"}}).encode(), n), "400 Bad Request", "application/json")
        else:
            stream(conn, cut(text, n), more=f"X-Request-Id: {KEY}\r\n")

    def close(self):
        self.upstream.close()


def cut(text, n):
    """In pieces of n bytes, the first shorter: over many n every place is a cut somewhere."""
    size, first = 1 + n % 61, n % 7
    return [p for p in [text[:first]] + [text[i:i + size] for i in range(first, len(text), size)] if p]


@pytest.fixture(scope="module")
def parrot():
    p = Parrot()
    yield p
    p.close()


@pytest.fixture(scope="module")
def site(parrot):
    s = AttackSite(config={"model": {"default_provider": "parrot", "providers": {"parrot": {"base_url": f"http://127.0.0.1:{parrot.port}/v1", "key": KEY}}}})
    yield s
    s.close()


ASK = r"""
for i in $(seq 1 130); do
	curl -sS -N -i "$OPENAI_BASE_URL/responses" -H "Authorization: Bearer $OPENAI_API_KEY" -H 'Content-Type: application/json' -d '{"model":"m","stream":true,"input":"x"}' | tee -a seen.txt
done
echo; echo =everything=
env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\0' '\n'
for d in / /run /etc "$HOME" /tmp /workspace; do find "$d" -xdev -type f -size -64k \( -path '/usr/*' -o -path '/proc/*' -o -path '/sys/*' \) -prune -o -xdev -type f -size -64k -readable -print 2>/dev/null; done | sort -u | head -2000 | while read -r f; do grep -aoE '[A-Za-z0-9_-]{20,}' "$f" 2>/dev/null; done | sort -u | head -4000
for fd in /proc/*/fd/*; do readlink "$fd"; done 2>/dev/null | sort -u
"""


@pytest.fixture(scope="module")
def nosy(site):
    """A task whose agent asked the model often and has printed, and written to a file, whatever it could read."""
    task = site.run(ASK, limits={"output": "64M"}, timeout_ms=120000)
    return task["id"]


def test_what_the_provider_says_of_its_key_reaches_nobody(site, parrot, nosy):
    assert parrot.asked >= 130
    said = (site.run_dir(nosy) / "runtime/events.jsonl").read_bytes()
    assert said.count(STARS.encode()) > 100 and b"=everything=" in said
    assert KEY.encode() not in said
    seen = site.patch(nosy)
    assert STARS.encode() in seen and KEY.encode() not in seen
    assert KEY[:-1].encode() in seen  # what only begins like it is not touched


def test_no_file_event_or_log_has_the_key(site, nosy):
    for path in files_below(site.data, site.runtime, site.home):
        assert KEY.encode() not in bytes_of(path), path
    assert KEY not in json.dumps(site.events(nosy)) and KEY not in json.dumps(site.get(f"/v1/tasks/{nosy}"))
    for path in ("/metrics", "/readyz?verbose", "/v1/doctor", "/v1/agents", "/version"):
        assert KEY not in json.dumps(site.call("GET", path)[1]), path
    for words in (["show", nosy], ["logs", nosy], ["events", nosy], ["doctor"], ["config"], ["diff", nosy]):
        done = site.cli(*words)
        assert KEY not in done.stdout + done.stderr, words
    assert KEY not in site.log("server")


def test_no_process_shows_the_key(site, nosy):
    for pid in (site.server.pid, site.gateway_pid()):
        assert proc_text(pid, "cmdline")
        for name in ("cmdline", "environ"):  # the gateway's is for root's eyes only
            assert KEY.encode() not in proc_text(pid, name), (pid, name)


def test_the_runners_token_is_nowhere_that_the_agent_or_the_record_could_tell(site, nosy):
    """Its hash is in the database: every word that could be it is tried."""
    with sqlite3.connect(f"file:{site.data}/signalbox.db?mode=ro", uri=True) as db:
        hashes = {row[0] for row in db.execute("SELECT token_hash FROM runs")}
    assert hashes
    words = set()
    for path in files_below(site.data, site.runtime):
        if path.name.startswith("signalbox.db"):
            continue
        words |= set(re.findall(rb"[A-Za-z0-9_-]{16,}", bytes_of(path)))
    words |= set(re.findall(rb"[A-Za-z0-9_-]{16,}", site.log("server").encode()))
    assert len(words) > 100
    assert not [w for w in words if hashlib.sha256(w).hexdigest() in hashes]


def test_a_run_token_opens_nothing_but_the_model(site, nosy):
    """The agent's own key is no way into the server, and no other run's way to the model."""
    said = (site.run_dir(nosy) / "runtime/events.jsonl").read_text(errors="replace")
    tokens = set(re.findall(r"sbx1\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", said))
    assert tokens
    for token in tokens:
        (answer,), _ = raw.say(site.tcp()[0], f"GET /v1/tasks HTTP/1.1\r\nHost: {site.tcp()[1]}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode())
        assert answer.status in (401, 403), answer


def test_a_key_that_is_offered_later_is_kept_in_memory_only(site):
    later = "sk-offered-later-fedcba9876543210"
    status, body = site.call("POST", "/v1/keys", {"provider": "parrot", "key": later})
    assert status < 500 and later not in json.dumps(body)
    site.call("POST", "/v1/keys", {"provider": "nobody", "key": later})
    site.call("POST", "/v1/keys", {"provider": "parrot", "key": later, "more": later})
    for path in files_below(site.data, site.runtime):
        assert later.encode() not in bytes_of(path), path
    assert later not in site.log("server")
