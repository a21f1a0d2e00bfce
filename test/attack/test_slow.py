"""Clients that take their time, and crowds of them: others are served meanwhile, the slow are let go, and all of it costs a bounded amount."""
import contextlib
import json
import os
import resource
import select
import socket

import pytest
import raw
from attack_site import MIB, wait_for

CROWD = 3300  # more than three quarters of the connections that the server takes
HEAD_S = 60  # HTTP_HEAD_TIMEOUT_S: nobody may take longer to end his head
RECONCILE_S = 60  # RECONCILE_INTERVAL_MS: what is left over is cleared up by the next one
MARGIN_S = 60  # for a busy machine: one round that was lost may hide in it, the next is seen
POOL_KIB = 16  # what one connection may cost: MHD's memory of 10 KiB and what stands around it


@pytest.fixture(scope="module", autouse=True)
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Many connections that have each said something, and then say a byte whenever they are told to."""

    def __init__(self, address, n, words):
        self.sockets, self.poll = {}, select.poll()
        for _ in range(n):
            s = raw.dial(address)
            s.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                s.send(words)
            self.sockets[s.fileno()] = s
            self.poll.register(s, select.POLLIN)

    def dribble(self, byte=b"a"):
        """A byte from each that is still there; how many are."""
        for fd, _ in self.poll.poll(0):
            s = self.sockets[fd]
            with contextlib.suppress(BlockingIOError, ConnectionError):
                if s.recv(65536):
                    continue
            self.poll.unregister(fd)
            self.sockets.pop(fd).close()
        for s in self.sockets.values():
            with contextlib.suppress(BlockingIOError, ConnectionError):
                s.send(byte)
        return len(self.sockets)

    def close(self):
        for s in self.sockets.values():
            s.close()
        self.sockets = {}


def served(site, address):
    """Somebody who has nothing to do with it gets his answer, on a new connection."""
    (answer,), closed = raw.say(address, b"GET /healthz HTTP/1.1\r\n" + site.head() + b"Connection: close\r\n\r\n")
    assert answer.status == 200 and closed
    return True


@pytest.mark.parametrize("words", [b"", b"G", b"GET /healthz HTTP/1.1\r\nX: "], ids=["nothing", "one byte", "a head without end"])
def test_a_crowd_that_never_ends_its_heads_is_let_go_and_others_are_served(site, words):
    address, before = site.tcp()[0], site.pss()
    with contextlib.closing(Crowd(address, CROWD, words)) as crowd:
        most = 0

        def gone():
            nonlocal most
            left = crowd.dribble(b"a" if words else b"")
            most = max(most, site.pss())
            return served(site, address) and left == 0
        wait_for("all of them to be let go", gone, HEAD_S + MARGIN_S)
    assert most - before < CROWD * POOL_KIB + 16 * MIB, (before, most)


def test_bodies_that_never_end_cost_no_more_than_the_limit_of_all_bodies(site):
    size, n, address, before = 4 * MIB * 1024, 80, site.runtime / "signalbox.sock", site.pss()
    head = b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
    part = b" " * (size - 1)
    with contextlib.ExitStack() as stack:
        statuses = []
        for _ in range(n):
            s = stack.enter_context(contextlib.closing(raw.dial(address)))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                s.sendall(head + part)
            if select.select([s], [], [], 0)[0]:
                statuses.append(raw.Reader(s).answer().status)
        served(site, address)
        held = wait_for("all that was sent to be read", lambda: site.pss())
        assert held - before < (256 + 48) * MIB, (before, held)
        last = stack.enter_context(contextlib.closing(raw.dial(address)))
        last.sendall(head + b" " * size)
        answer = raw.Reader(last).answer()
        assert answer.status in (400, 503), answer  # 400: empty JSON, when there was room
        if n * size > 256 * MIB * 1024:
            assert answer.status == 503 and answer.headers["retry-after"], answer
    wait_for("the memory to be given back", lambda: site.pss() - before < 64 * MIB)
    served(site, address)


def test_readers_that_do_not_read_cost_no_more_than_their_answers(site):
    id = site.call("POST", "/v1/external", {"type": "register", "taskId": "talker", "sessionId": "s"})[1]["task"]
    for i in range(400):
        site.call("POST", "/v1/external", {"type": "progress", "taskId": "talker", "progress": f"{i} " + "x" * 1000})
    page = len(json.dumps(site.get(f"/v1/tasks/{id}/events?limit=1000", headers={"Accept": "application/json"})))
    ask, address, before, n = f"GET /v1/tasks/{id}/events?limit=1000 HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n".encode(), site.runtime / "signalbox.sock", site.pss(), 100
    with contextlib.ExitStack() as stack:
        for _ in range(n):
            s = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX)))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(str(address))
            s.sendall(ask * 20)
        for _ in range(50):
            served(site, address)
        grown = site.pss() - before
        assert grown < n * page * 2 // 1024 + 32 * MIB, (grown, page)
    site.call("POST", "/v1/external", {"type": "canceled", "taskId": "talker"})
    wait_for("the connections to be closed", lambda: raw.connections(site.server.pid) < n)


def test_requests_in_a_row_are_answered_in_their_order_however_many(site):
    with raw.dial(site.tcp()[0]) as s:
        reader, head, n = raw.Reader(s), site.head(), 2000
        text = b"".join(b"GET /v1/tasks/pipelined-%d HTTP/1.1\r\n" % i + head + b"\r\n" for i in range(n))
        sent = 0
        for i in range(n):
            while sent < len(text) and select.select([], [s], [], 0)[1]:
                sent += s.send(text[sent:sent + 65536])
            answer = reader.answer()
            assert answer and answer.status == 404 and f"pipelined-{i}'" in answer.body.decode(), (i, answer)


HOG = r"""
import os, resource, socket, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
path = next(os.path.join(d, f) for d, _, names in os.walk("/run") for f in names if f.endswith(".sock"))
home, made, kept = os.path.expanduser("~"), 0, []
while not os.path.exists(home + "/go"):
    try:
        s = socket.socket(socket.AF_UNIX)
        s.setblocking(False)
        s.connect(path)
        s.send(b"POST /v1/responses HTTP/1.1\r\nX: ")
        kept.append(s)
        made += 1
    except OSError:
        time.sleep(0.002)
    if len(kept) > 9000:
        for s in kept[:3000]:
            s.close()
        del kept[:3000]
    if made == 5000:
        open(home + "/made", "w").close()
"""


def test_one_sandbox_cannot_take_the_gateways_connections_from_another(new_site):
    site = new_site(model=True)
    hog = site.submit("python3 - <<'END'\n" + HOG + "\nEND", timeout_ms=600000)
    made = site.directory(hog) / "agents/main/home/made"
    wait_for("thousands of connections", lambda: made.exists() or site.task(hog)["completed_at"])
    assert made.exists(), site.story(hog)
    ask = """curl -sS -m 120 -i "$OPENAI_BASE_URL/responses" -H "Authorization: Bearer $OPENAI_API_KEY" -H 'Content-Type: application/json' -d '{"model":"m","input":"[scenario fix-test]"}'"""
    for _ in range(5):
        task = site.run(ask)
        said = (site.run_dir(task["id"]) / "runtime/events.jsonl").read_text()
        assert said.startswith("HTTP/1.1 200"), said[:500]
    gateway = site.gateway_pid()
    assert len(os.listdir(f"/proc/{gateway}/task")) < 400 and raw.pss_kib(gateway) < 32 * MIB
    site.release(hog)
    assert site.wait(hog)["status"] == "DONE"


def test_a_server_without_free_descriptors_refuses_nobody_it_has_and_recovers(new_site, dead_port):
    site = new_site()
    site.run("echo x")
    site.assert_clean()
    used = len(os.listdir(f"/proc/{site.server.pid}/fd"))
    old = resource.prlimit(site.server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(site.server.pid, resource.RLIMIT_NOFILE, (used + 8, old[1]))
    kept, acknowledged = [], []
    with contextlib.ExitStack() as stack:
        for _ in range(40):  # more than there are places for
            s = stack.enter_context(contextlib.closing(raw.dial(site.runtime / "signalbox.sock", 5)))
            kept.append(s)
        for s in kept[:4]:
            body = json.dumps({"prompt": "true", "agent": "command", "source": {"kind": "git", "url": f"http://127.0.0.1:{dead_port}/x.git"}}).encode()
            s.sendall(b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            with contextlib.suppress(socket.timeout):
                answer = raw.Reader(s).answer()
                assert answer is None or answer.status in (201, 429, 503, 500), answer
                if answer and answer.status == 201:
                    acknowledged.append(json.loads(answer.body)["id"])
        assert site.server.poll() is None
    resource.prlimit(site.server.pid, resource.RLIMIT_NOFILE, old)
    wait_for("the server to serve again", site.is_up)
    for one in acknowledged:
        assert site.task(one)["id"] == one
        site.call("POST", f"/v1/tasks/{one}/cancel", {})
    site.run("echo again")
    wait_for("what could not be cleared up without descriptors", lambda: not site.left_of_runs(), RECONCILE_S + MARGIN_S)
