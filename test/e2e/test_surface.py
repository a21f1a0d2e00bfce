"""The whole surface: lists and filters, words of prompts, changes, beginnings of ids, idempotency keys, problems, and the description of it all."""
import contextlib
import http.client
import json
import os
import pathlib
import random
import signal
import sqlite3
import subprocess
import threading

import pytest
from e2e_site import DEADLINE, ROOT, wait_for
from gateway_site import UnixConnection

SITE = {"model": False}
ASK = {"prompt": "true", "agent": "command", "source": {"kind": "none"}}
NODE = ROOT / "node_modules/.bin"


def ids(site, query):
    """All pages of a list."""
    out, after = [], ""
    while after is not None:
        page = site.get(f"/v1/tasks?{query}{after}")
        out += [t["id"] for t in page["data"]]
        after = "&after=" + page["next_cursor"] if page["next_cursor"] else None
    return out


@pytest.fixture(scope="module")
def shelf(site):
    """Twelve tasks with labels; the newest first, as lists have them."""
    made = []
    for i in range(12):
        prompt = f"echo 'fix the parser, number{i}' {'alpha' if i % 2 else 'beta'}" + (" && exit 3" if i % 6 == 5 else "")
        made.append(site.submit(prompt, labels={"team": "red" if i % 3 else "blue", "n": str(i)}, **({"name": "T-7"} if i == 7 else {})))
    for id in made:
        site.wait(id)
    return made[::-1]


def only(shelf, keep):
    return [id for n, id in enumerate(reversed(shelf)) if keep(n)][::-1]


@pytest.mark.parametrize("query,keep", [
    ("label=team=blue", lambda n: n % 3 == 0),
    ("label=team=blue&label=n=6", lambda n: n == 6),
    ("label=n", lambda n: True),
    ("label=n&state=DONE", lambda n: n % 6 != 5),
    ("state=ERROR", lambda n: n % 6 == 5),
    ("state=ERROR,DONE&label=team=red", lambda n: n % 3),
    ("q=alpha", lambda n: n % 2),
    ("q=alpha+parser&label=team=red", lambda n: n % 2 and n % 3),
    ("q=%22fix+the+parser%22", lambda n: True),
    ("q=%22the+fix%22", lambda n: False),
    ("q=numb*", lambda n: True),
    ("q=NUMBER7", lambda n: n == 7),
    ("q=alpha&state=ERROR", lambda n: n % 6 == 5),
    ("name=T-7", lambda n: n == 7),
    ("name=T-7&state=ERROR", lambda n: False),
])
def test_filters_choose_and_pages_of_any_size_add_up(site, shelf, query, keep):
    wanted = only(shelf, keep)
    for limit in (1, 5, 200):
        got = [id for id in ids(site, f"{query}&limit={limit}") if id in shelf]
        assert got == wanted, (query, limit)


def test_a_repository_is_a_filter(site, shelf):
    key = site.task(shelf[0])["repo"]
    assert set(shelf) <= set(ids(site, f"limit=200&repo={key}"))
    assert ids(site, "repo=/none&limit=200") == []


@pytest.mark.parametrize("q", ['"', "*", "   ", '""', '"*"'])
def test_a_search_without_a_word_is_refused(site, q):
    status, problem = site.call("GET", "/v1/tasks?q=" + "".join(f"%{b:02x}" for b in q.encode()))
    assert status == (200 if q == '"*"' else 400), problem


@pytest.mark.parametrize("q", ["AND", "a OR b", "NOT x", "prompt:x", "x NEAR y", "(", "a)b", "^x", "-x", "+x", "{x}", "'; DROP TABLE tasks", "\\", "x\u0000y".replace("\u0000", ""), "日本語", "*x", "a\"b"])
def test_nothing_in_a_search_is_an_operator_of_the_index(site, q):
    site.get("/v1/tasks?q=" + "".join(f"%{b:02x}" for b in q.encode()))


def test_a_task_is_found_by_its_words_as_soon_as_it_was_acknowledged_and_no_more_when_it_was_removed(site):
    for n in range(20):
        id = site.submit(f"true zebra{n}")
        assert ids(site, f"q=zebra{n}") == [id]
    site.wait(id)
    assert site.call("DELETE", f"/v1/tasks/{id}")[0] == 204
    site.tasks.discard(id)
    assert ids(site, "q=zebra19") == []
    again = site.submit("true zebra19")  # its row may have the number of the one that went
    assert ids(site, "q=zebra19") == [again]


def test_words_and_labels_are_there_after_a_kill(new_site):
    site = new_site(model=False)
    made = [site.submit(f"true giraffe{n}", labels={"animal": "giraffe"}) for n in range(30)]
    site.kill_server()
    site.start_server()
    assert ids(site, "q=giraffe*&limit=7") == made[::-1] == ids(site, "label=animal=giraffe&limit=7")
    assert ids(site, "q=giraffe17") == [made[17]]


def test_a_change_of_name_labels_and_priority_is_an_event_and_seen_by_lists(site):
    id = site.submit("true", labels={"a": "1", "b": "2"})
    task = site.call("PATCH", f"/v1/tasks/{id}", {"name": "renamed", "labels": {"b": None, "c": "3"}, "priority": 7})
    assert task[0] == 200 and (task[1]["name"], task[1]["labels"], task[1]["priority"]) == ("renamed", {"a": "1", "c": "3"}, 7)
    assert ids(site, "label=c=3") == [id] and ids(site, "label=b=2") == [] and site.task("renamed")["id"] == id
    event = site.events(id, "task.changed")[-1]
    assert event["data"] == {"name": "renamed", "labels": {"a": "1", "c": "3"}, "priority": 7} and event["actor"].startswith(("user:", "uid:"))
    before = len(site.events(id, "task.changed"))
    assert site.call("PATCH", f"/v1/tasks/{id}", {"priority": 7})[0] == 200 and len(site.events(id, "task.changed")) == before, "nothing changed, nothing is told"
    merge = {"Content-Type": "application/merge-patch+json"}
    assert site.call("PATCH", f"/v1/tasks/{id}", {"name": None}, headers=merge)[1]["name"] is None
    assert site.call("GET", "/v1/tasks/renamed")[0] == 404


@pytest.mark.parametrize("body,status,word", [
    ({"naem": "x"}, 400, "naem"), ({"name": "a b"}, 400, "name"), ({"name": 1}, 400, "name"), ({"labels": []}, 400, "labels"), ({"labels": {"a": 1}}, 400, "labels.a"),
    ({"labels": {"a": "x" * 300}}, 413, "labels.a"), ({"priority": None}, 400, "priority"), ({"priority": 5000}, 400, "priority"), ({"priority": 1.5}, 400, "priority"),
    ({"labels": {f"l{n}": "x" for n in range(40)}}, 413, "labels"), ({"name": "T-7"}, 409, "T-7")])
def test_a_change_that_makes_no_sense_changes_nothing(site, shelf, body, status, word):
    before = site.task(shelf[0])
    got, problem = site.call("PATCH", f"/v1/tasks/{shelf[0]}", body)
    assert got == status and word in problem["detail"], problem
    assert site.task(shelf[0]) == before


def test_a_task_on_a_directory_keeps_the_name_of_its_heartbeat_file(site):
    repo = site.path("repo")
    site.sh("git init -q && echo a > a && git add -A && git commit -qm a", repo)
    id = site.submit("true", source={"kind": "local", "dir": str(repo)})
    status, problem = site.call("PATCH", f"/v1/tasks/{id}", {"name": "other"})
    assert status == 409 and "heartbeat" in problem["detail"]


def test_a_priority_that_is_raised_lets_a_task_go_first(new_site):
    site = new_site(model=False, config={"limits": {"running": 1}})
    first = site.submit("until [ -e ~/go ]; do sleep 0.02; done")
    wait_for("the first", lambda: site.task(first)["status"] == "RUNNING")
    late = [site.submit("true") for _ in range(3)]
    assert site.call("PATCH", f"/v1/tasks/{late[2]}", {"priority": 5})[0] == 200
    assert site.task(late[2])["queue_position"] == 1 and site.task(late[0])["queue_position"] == 2
    site.release(first)
    ends = {id: site.wait(id)["started_at"] for id in late}
    assert ends[late[2]] < ends[late[0]] <= ends[late[1]]


def test_the_beginning_of_an_id_stands_for_it_while_it_is_the_only_one(site, shelf):
    id, other = (site.run("true")["id"] for _ in range(2))  # not of the same millisecond, as those on the shelf may be
    shared = len(os.path.commonprefix([id, other]))
    assert site.task(id[:25])["id"] == id and site.task(id[:shared + 1])["id"] == id
    for path in ("", "/runs", "/events", "/artifacts", "/wait"):
        assert site.call("GET", f"/v1/tasks/{id[:22]}{path}")[0] == 200, path
    status, problem = site.call("GET", f"/v1/tasks/{id[:4]}")
    assert status == 409 and id in problem["hint"] or len(shelf) > 8
    assert status == 409 and "begin with" in problem["detail"]
    assert site.call("GET", f"/v1/tasks/{id[:3]}")[0] == 404, "too short to mean anything"
    named = site.submit("true", name=id[:10])
    assert site.task(id[:10])["id"] == named, "a name is stronger than a beginning"


# --- idempotency

def post(site, doc, key, path="/v1/tasks"):
    return site.call("POST", path, doc, headers={"Idempotency-Key": key})


def test_the_same_key_gives_the_same_answer_and_makes_one_task(site):
    first = post(site, ASK, "once-1")
    site.tasks.add(first[1]["id"])
    assert first[0] == 201
    site.wait(first[1]["id"])
    assert post(site, ASK, "once-1") == first, "also when the task has gone on meanwhile"
    assert post(site, ASK, "once-2")[1]["id"] != first[1]["id"]


def test_another_body_under_the_same_key_is_refused_and_makes_nothing(site):
    first = post(site, ASK, "other-1")
    before = len(ids(site, "limit=200"))
    for doc in ({**ASK, "prompt": "false"}, {**ASK, "labels": {"a": "b"}}):
        status, problem = post(site, doc, "other-1")
        assert status == 422 and "other-1" in problem["detail"]
    assert post(site, {}, "other-1", f"/v1/tasks/{first[1]['id']}/cancel")[0] == 422, "another request is another request"
    assert len(ids(site, "limit=200")) == before


@pytest.mark.parametrize("key", ["x" * 256, "a b", "\u00e9".encode().decode("latin-1"), ""])
def test_a_key_that_is_none_is_refused(site, key):
    before = len(ids(site, "limit=200"))
    status, problem = post(site, ASK, key)
    assert status == 400 and "Idempotency-Key" in problem["detail"]
    assert len(ids(site, "limit=200")) == before


def test_a_request_that_fails_leaves_its_key_free(site):
    assert post(site, {**ASK, "prompt": ""}, "free-1")[0] == 400
    assert post(site, ASK, "free-1")[0] == 201


def at_once(site, n, ask, told=None):
    """n clients that begin together; what each was told."""
    told, start = [] if told is None else told, threading.Barrier(n)

    def one(i):
        conn = UnixConnection(site.runtime / "signalbox.sock", DEADLINE)
        start.wait()
        with contextlib.suppress(OSError, http.client.HTTPException):
            for doc, key in ask(i):
                conn.request("POST", "/v1/tasks", body=json.dumps(doc).encode(), headers={"Content-Type": "application/json", "Idempotency-Key": key})
                reply = conn.getresponse()
                told.append((key, reply.status, json.loads(reply.read())))
        conn.close()

    threads = [threading.Thread(target=one, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(DEADLINE)
    return told


def test_64_clients_with_the_same_keys_make_one_task_for_each_key(new_site):
    site = new_site(model=False, config={"limits": {"running": 1}})
    keys = [f"key-{n}" for n in range(8)]
    told = at_once(site, 64, lambda i: [(dict(ASK, prompt=f"true {k}"), k) for k in random.sample(keys, 8)])
    assert len(told) == 512 and {s for _, s, _ in told} == {201}
    by_key = {k: {json.dumps(b, sort_keys=True) for key, _, b in told if key == k} for k in keys}
    assert all(len(bodies) == 1 for bodies in by_key.values()), "each has heard the same"
    assert len(ids(site, "limit=200")) == 8


def test_a_thousand_keys_of_64_clients_hold_across_kills_of_the_server(new_site):
    site = new_site(model=False, config={"limits": {"running": 1}})
    acknowledged, total = {}, 1000

    def asked(k, prompt="true"):
        return dict(ASK, prompt=f"{prompt} {k}"), f"key-{k}"

    def heard(told):
        for key, status, body in told:
            assert status == 201 and acknowledged.setdefault(key, body["id"]) == body["id"], (key, status, body)
        return told

    for _ in range(3):
        told, enough = [], random.randint(1, 64 * 20)
        killer = threading.Thread(target=lambda: (wait_for("answers", lambda: len(told) >= enough), site.kill_server()))
        killer.start()
        at_once(site, 64, lambda i: [asked(k) for k in random.sample(range(total), 30)], told)
        killer.join()
        heard(told)
        site.start_server()
    assert len(heard(at_once(site, 64, lambda i: [asked(k) for k in range(i % 32, total, 32)]))) == 2 * total  # each of them by two at once
    refused = at_once(site, 64, lambda i: [asked(k, "false") for k in random.sample(range(total), 4)])
    assert len(refused) == 256 and {status for _, status, _ in refused} == {422}
    listed = ids(site, "limit=200")
    assert sorted(listed) == sorted(acknowledged.values()) and len(listed) == total


def test_a_message_under_a_key_is_said_once(site):
    id = site.run("true")["id"]
    first = post(site, {"text": "true again"}, "say-1", f"/v1/tasks/{id}/messages")
    assert first[0] == 202
    site.wait(id)
    assert post(site, {"text": "true again"}, "say-1", f"/v1/tasks/{id}/messages") == first
    assert post(site, {"text": "true other"}, "say-1", f"/v1/tasks/{id}/messages")[0] == 422
    assert len(site.events(id, "task.turn")) == 1
    assert post(site, {}, "again-1", f"/v1/tasks/{id}/retry")[0] == 202
    site.wait(id)
    assert post(site, {}, "again-1", f"/v1/tasks/{id}/retry")[0] == 202
    assert len(site.events(id, "task.retried")) == 1


def test_a_key_whose_task_was_removed_says_so(site):
    id = post(site, ASK, "gone-1")[1]["id"]
    site.wait(id)
    assert site.call("DELETE", f"/v1/tasks/{id}")[0] == 204
    status, problem = post(site, ASK, "gone-1")
    assert status == 410 and id in problem["detail"]


def test_a_key_is_kept_for_a_day_and_then_swept(new_site):
    site = new_site(model=False)
    day = 24 * 3600 * 1000
    old, young, other = (post(site, ASK, key)[1]["id"] for key in ("old-1", "young-1", "other-boot-1"))
    for id in (old, young, other):
        site.wait(id)
    site.stop_server()
    with contextlib.closing(sqlite3.connect(site.data / "signalbox.db")) as db:
        db.execute("UPDATE idempotency SET created_mono=created_mono-? WHERE key='old-1'", (day + 1000,))
        db.execute("UPDATE idempotency SET created_mono=created_mono-? WHERE key='young-1'", (day - 600000,))
        db.execute("UPDATE idempotency SET boot='another', created_at=created_at-? WHERE key='other-boot-1'", (day + 1000,))
        db.commit()
    site.own(site.data)
    site.start_server()

    def kept():
        with contextlib.closing(sqlite3.connect(f"file:{site.data}/signalbox.db?mode=ro", uri=True)) as db:
            return {key for key, in db.execute("SELECT key FROM idempotency")}
    wait_for("the sweep", lambda: kept() == {"young-1"})
    assert post(site, ASK, "young-1")[1]["id"] == young
    assert post(site, ASK, "old-1")[1]["id"] not in (old, young, other)


# --- problems

def test_each_problem_has_a_code_a_detail_and_the_right_head(site):
    conn, reply = site.open("PUT", "/v1/tasks")
    assert reply.status == 405 and reply.getheader("Allow") == "POST, GET, HEAD" and reply.getheader("Content-Type") == "application/problem+json"
    conn.close()
    for method, path, body, headers, status in (
            ("GET", "/v1/tasks?statee=DONE", None, {}, 400), ("GET", "/v1/tasks?limit=1&limit=2", None, {}, 400), ("GET", "/version?x=1", None, {}, 400),
            ("GET", "/nowhere", None, {}, 404), ("POST", "/v1/tasks", b"{}", {"Content-Type": "text/plain"}, 415), ("POST", "/v1/tasks", b"{", {}, 400),
            ("POST", "/v1/tasks", {**ASK, "limits": {"memroy": 1}}, {}, 400), ("GET", "/v1/tasks", None, {"X-Long": "x" * 8300}, 431), ("GET", "/v1/tasks/%00", None, {}, 400)):
        got, problem = site.call(method, path, body, headers=headers)
        assert got == status and problem["status"] == status and problem["code"] and problem["detail"] and problem["title"] and problem["type"], (path, got, problem)
    assert "memroy" in site.call("POST", "/v1/tasks", {**ASK, "limits": {"memroy": 1}})[1]["detail"]
    assert "label" in site.call("GET", "/v1/tasks?statee=DONE")[1]["hint"]


def test_a_limit_that_passes_says_when_to_come_again(new_site):
    site = new_site(model=False, config={"limits": {"running": 1, "queued": 1}})
    hold = site.submit("until [ -e ~/go ]; do sleep 0.02; done")
    wait_for("it to run", lambda: site.task(hold)["status"] == "RUNNING")
    wait_for("room for one", lambda: site.call("POST", "/v1/tasks", ASK)[0] == 201)  # what is queued is counted each second

    def full():
        conn, reply = site.open("POST", "/v1/tasks", ASK)
        with contextlib.closing(conn):
            return reply.status == 429 and reply.getheader("Retry-After")
    assert wait_for("the limit", full).isdigit()
    site.release(hold)


# --- the description

def test_the_description_names_every_route_and_no_other(site):
    doc = site.get("/v1/openapi.json")
    described = {(m.upper(), p) for p, item in doc["paths"].items() for m in item}
    source = (ROOT / "src/api/routes.c").read_text().split("api_runner_routes")[0]
    lines = [line.split('"') for line in source.splitlines() if line.startswith("\t{ \"")]
    assert described == {(parts[1], parts[3].replace("*}", "}")) for parts in lines}
    assert len({item[m]["operationId"] for item in doc["paths"].values() for m in item}) == len(described)


def lint(site, tool, *words):
    if not (NODE / tool).exists():
        pytest.skip("npm ci has not been run with the tools for development")
    path = site.dir / "openapi.json"
    path.write_text(json.dumps(site.get("/v1/openapi.json")))
    return subprocess.run([NODE / tool, "lint", path, *words], cwd=site.dir, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "CI": "1"})


def test_redocly_finds_nothing_in_the_description(site):
    done = lint(site, "redocly", "--extends", "recommended")
    text = done.stdout + done.stderr
    assert done.returncode == 0 and "warning" not in text.replace("Deprecation warning", ""), text


def test_spectral_finds_nothing_in_the_description(site):
    done = lint(site, "spectral", "-r", str(pathlib.Path(__file__).with_name("spectral.yaml")), "--fail-severity", "hint")
    assert done.returncode == 0, done.stdout + done.stderr


# --- the configuration, read again

def test_a_hangup_has_the_configuration_read_again(new_site):
    site = new_site(model=False, config={"limits": {"running": 1}, "environments": {"one": {"verify": "true"}}})
    assert site.call("POST", "/v1/tasks", {**ASK, "environment": "two"})[0] == 400
    site.config = {"limits": {"running": 3}, "environments": {"two": {"verify": "true"}}, "sandbox": {"layers": "plain"}}
    site.write_config()
    site.server.send_signal(signal.SIGHUP)
    wait_for("the word of it", lambda: "read again" in site.log("server"))
    assert site.run("true", environment="two")["status"] == "DONE"
    site.config = {"limits": {"runing": 3}}
    site.write_config()
    site.server.send_signal(signal.SIGHUP)
    wait_for("the refusal", lambda: "not read again" in site.log("server"))
    assert site.run("true", environment="two")["status"] == "DONE", "the old one holds"
    done = site.cli("server", "reload")
    assert done.returncode == 2 and "runing" in done.stderr
    site.config = {"environments": {"three": {}}, "sandbox": {"layers": "auto"}}
    site.write_config()
    done = site.cli("server", "reload")
    assert done.returncode == 0 and {"changed\tlimits", "changed\tenvironments", "restart\tsandbox"} <= set(done.stdout.splitlines()), done.stdout
