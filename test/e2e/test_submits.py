"""Submits in a crowd: nobody's answer holds a thread, each has its own fate, and what was acknowledged is there."""
import contextlib
import http.client
import json
import socket
import threading

import pytest
from e2e_site import DEADLINE, wait_for

CROWD = 24
EACH = 25
ASK = {"prompt": "true", "agent": "command", "source": {"kind": "none"}}


@pytest.fixture
def full(new_site):
    """The only place is taken: what comes waits in the queue."""
    site = new_site(config={"limits": {"running": 1}})
    first = site.submit("sleep 1000")
    wait_for("the first run", lambda: site.task(first)["phase"] == "running")
    yield site
    if not site.is_up():
        site.start_server()
    for task in queued(site) + [{"id": first}]:  # the first last, so that no other takes its place
        site.call("POST", f"/v1/tasks/{task['id']}/cancel")
    site.wait(first)


def queued(site):
    tasks, after = [], ""
    while after is not None:
        page = site.get(f"/v1/tasks?state=QUEUED&limit=200{after and '&after=' + after}")
        tasks += page["data"]
        after = page["next_cursor"]
    return tasks


def crowd(work):
    """work(i) by many at once; what they return."""
    results = [None] * CROWD
    def one(i):
        results[i] = work(i)
    threads = [threading.Thread(target=one, args=(i,)) for i in range(CROWD)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return results


def test_in_a_crowd_each_name_is_given_once_and_the_neighbours_of_a_refusal_go_on(full):
    answers = sum(crowd(lambda i: [full.call("POST", "/v1/tasks", {**ASK, "name": f"shared-{n}" if n % 2 else f"own-{i}-{n}"}) for n in range(EACH)]), [])
    made = [a["name"] for status, a in answers if status == 201]
    assert {status for status, _ in answers} == {201, 409}
    wanted = {f"shared-{n}" for n in range(1, EACH, 2)} | {f"own-{i}-{n}" for i in range(CROWD) for n in range(0, EACH, 2)}
    assert sorted(made) == sorted(wanted)
    assert {t["name"] for t in queued(full)} == wanted


def test_in_a_crowd_the_same_key_makes_one_task_and_gives_one_answer(full):
    answers = crowd(lambda i: [full.call("POST", "/v1/tasks", {**ASK, "name": f"once-{n}"}, headers={"Idempotency-Key": f"key-{n}"}) for n in range(EACH)])
    for n in range(EACH):
        assert all(a[n] == answers[0][n] and a[n][0] == 201 for a in answers)
    assert sorted(t["name"] for t in queued(full)) == sorted(f"once-{n}" for n in range(EACH))


def test_who_hangs_up_after_a_submit_leaves_a_whole_task_or_none(full):
    names = [f"gone-{i}" for i in range(CROWD * 4)]
    for name in names:
        body = json.dumps({**ASK, "name": name}).encode()
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(full.runtime / "signalbox.sock"))
            s.sendall(b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    here = {full.task(full.submit("true"))["id"] for _ in range(CROWD)}
    tasks = queued(full)
    assert here <= {t["id"] for t in tasks} and {t["name"] for t in tasks if t["name"]} <= set(names)
    assert all([e["type"] for e in full.events(t["id"])] == ["task.created"] for t in tasks)
    full.stop_server()


def test_a_server_that_is_stopped_or_killed_among_submits_has_lost_none_that_it_acknowledged(full):
    for end in (full.stop_server, full.kill_server):
        acknowledged, some = [], threading.Event()
        def post_until_it_ends(i):
            with contextlib.suppress(OSError, http.client.HTTPException, TimeoutError):
                while True:
                    status, task = full.call("POST", "/v1/tasks", ASK)
                    if status != 201:
                        return
                    acknowledged.append(task["id"])
                    if len(acknowledged) > CROWD * 4:
                        some.set()
        posting = threading.Thread(target=crowd, args=(post_until_it_ends,))
        posting.start()
        assert some.wait(DEADLINE)
        end()
        posting.join()
        full.start_server()
        assert set(acknowledged) <= {t["id"] for t in queued(full)}
