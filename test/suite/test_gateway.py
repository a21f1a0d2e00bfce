"""The model gateway from outside: who gets in, what goes through, what is on record, how it ends."""
import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import threading

import pytest
from gateway_site import CODEX, PROGRAM, PROVIDER_KEY, Site, body, events, token, wait_for

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"{PROGRAM} is not built")
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
DONE = b'data: {"type":"response.completed","response":{"status":"completed","output":[],"usage":{"input_tokens":5,"output_tokens":2}}}\n\n'


@pytest.fixture
def site():
    one = Site()
    yield one
    one.close()


@pytest.fixture
def up(site):
    """A scripted model with a gateway before it."""
    site.model()
    site.gateway()
    return site


def reply_json(conn, status, doc, *headers):
    data = json.dumps(doc).encode()
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(data)}", "Connection: close", *headers]
    conn.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)


def until_closed(conn):
    with contextlib.suppress(ConnectionResetError):
        while conn.recv(4096):
            pass


# ---- who gets in

def test_a_run_token_opens_the_model_and_the_key_is_put_in_there(up):
    status, data = up.ask()
    assert status == 200
    assert events(data)[-1]["type"] == "response.completed"
    assert up.asked()[-1]["status"] == 200


@pytest.mark.parametrize("auth", [None, "", "nonsense", "sbx1.e30.AAAA", PROVIDER_KEY])
def test_without_a_run_token_nobody_gets_in(up, auth):
    status, reply = up.call(doc=body(), auth=auth)
    assert (status, reply["error"]["code"]) == (401, "invalid_api_key")
    assert up.asked() == []


def test_an_expired_token_and_one_of_another_key_are_refused(up):
    assert up.ask(auth=token(exp=1))[0] == 401
    assert up.ask(auth=token(key=b"x" * 32))[0] == 401


def test_the_run_token_is_no_key_at_the_model_itself(up):
    conn = http.client.HTTPConnection("127.0.0.1", up.port, timeout=120)
    conn.request("POST", "/v1/responses", json.dumps(body()), {"Content-Type": "application/json", "Authorization": "Bearer " + token()})
    assert conn.getresponse().status == 401
    conn.close()


@pytest.mark.parametrize("method,url", [("GET", "/v1/models"), ("GET", "/"), ("POST", "/v1/files"), ("DELETE", "/v1/responses"), ("GET", "/version")])
def test_every_other_path_is_refused_in_the_agents_language(up, method, url):
    status, reply = up.call(method, url, auth=token())
    assert status in (404, 405)
    if status == 404:
        assert reply["error"]["code"] == "not_found"


@pytest.mark.parametrize("doc", [b"", b"[1]", b"{", b'"x"', b"\xff"])
def test_a_body_that_is_no_json_object_is_refused(up, doc):
    status, reply = up.call(doc=doc, auth=token())
    assert (status, reply["error"]["code"]) == (400, "invalid_json")


def test_only_the_provider_and_the_model_of_the_token_may_be_used(up):
    assert up.ask(auth=token(provider="other"))[1]["error"]["code"] == "provider_not_found"
    assert up.ask(auth=token(model="cheap"))[1]["error"]["code"] == "model_not_allowed"
    assert up.ask(auth=token(model="gpt-5.5"))[0] == 200


def test_a_provider_may_give_every_request_another_models_name(site):
    site.model()
    site.provider("scripted", site.port, model="house-model")
    site.gateway()
    assert site.ask()[0] == 200
    assert site.asked()[-1]["model"] == "house-model"


def test_requests_and_tokens_of_a_run_are_limited(up):
    one = token(run="few", limits={"requests": 1})
    assert up.ask(auth=one)[0] == 200
    status, reply = up.ask(auth=one)
    assert (status, reply["error"]["code"]) == (403, "run_limit_reached")
    spent = token(run="spent", limits={"tokens": 1})
    assert up.ask(auth=spent)[0] == 200
    up.ended(run="spent")
    assert "tokens it may use" in up.ask(auth=spent)[1]["error"]["message"]


# ---- what goes through

def test_bytes_come_as_they_are_sent_not_at_the_end(up):
    conn, reply = up.open(doc=body("[scenario hang-after-headers]"), auth=token())
    data = b""
    while b"A word, then silence." not in data:
        data += reply.read1(4096)
    assert b"response.completed" not in data
    conn.close()


def test_a_plain_reply_goes_through_too(up):
    status, reply = up.ask(stream=False)
    assert (status, reply["status"]) == (200, "completed")
    assert up.ended()[-1]["usage"]["total_tokens"] > 0


def test_only_listed_headers_pass_in_either_direction(site):
    up = site.upstream(lambda conn, head, data: reply_json(conn, 200, {"status": "completed"}, "X-Request-Id: abc", "Set-Cookie: a=b", "X-Secret: 1"))
    site.gateway()
    conn, reply = site.open(doc=body(stream=False), auth=token(), headers={"X-Codex-Turn-Metadata": "{}", "Cookie": "c=d", "OpenAI-Beta": "responses=v1", "X-Forwarded-For": "1.2.3.4"})
    reply.read()
    conn.close()
    assert reply.headers["X-Request-Id"] == "abc"
    assert reply.headers["Set-Cookie"] is None and reply.headers["X-Secret"] is None
    line, head, _ = up.requests[0]
    assert line == "POST /v1/responses HTTP/1.1"
    assert head["authorization"] == "Bearer " + PROVIDER_KEY
    assert head["openai-beta"] == "responses=v1"
    assert not {"cookie", "x-codex-turn-metadata", "x-forwarded-for"} & set(head)


def test_the_request_arrives_byte_for_byte(site):
    up = site.upstream(lambda conn, head, data: reply_json(conn, 200, {}))
    site.gateway()
    odd = b'{"input" : "\\u00e4", "a":1, "a":2, "big": "' + b"x" * 3_000_000 + b'"}'
    assert site.call(doc=odd, auth=token())[0] == 200
    assert up.requests[0][2] == odd


def test_an_agent_that_goes_away_cancels_the_upstream(site):
    site.limits = {"probe_ms": 50}
    closed = threading.Event()

    def answer(conn, head, data):
        conn.sendall(SSE_HEAD + b"\r\ndata: {}\n\n")
        until_closed(conn)
        closed.set()

    site.upstream(answer)
    site.gateway()
    conn, reply = site.open(doc=body(), auth=token())
    assert reply.read1(100)
    conn.close()
    reply.close()
    assert closed.wait(120)
    assert "went away" in site.ended()[0]["error"]


def test_an_agent_that_goes_away_before_the_first_byte_cancels_too(site):
    site.limits = {"probe_ms": 50, "early_ms": 50}
    closed = threading.Event()

    def answer(conn, head, data):
        until_closed(conn)
        closed.set()

    site.upstream(answer)
    site.gateway()
    conn, reply = site.open(doc=body(), auth=token())
    assert reply.status == 200 and reply.read1(100).startswith(b": waiting")
    conn.close()
    reply.close()
    assert closed.wait(120)


def test_a_slow_reader_holds_up_the_upstream_instead_of_filling_memory(site):
    held = threading.Event()

    def answer(conn, head, data):
        conn.settimeout(2)
        conn.sendall(SSE_HEAD + b"\r\n")
        try:
            for _ in range(4096):
                conn.sendall(b"data: " + b"x" * 65530 + b"\n\n")
        except TimeoutError:
            held.set()

    site.upstream(answer)
    gateway = site.gateway()
    conn, reply = site.open(doc=body(), auth=token())
    assert held.wait(120)
    status = pathlib.Path(f"/proc/{gateway.pid}/status").read_text()
    if "asan" not in str(PROGRAM):
        assert int(status.split("VmRSS:")[1].split()[0]) < 64 * 1024
    conn.close()
    reply.close()


# ---- what goes wrong upstream

@pytest.fixture
def dead_port():
    """A port that nobody listens on, and that nobody else is given meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_an_upstream_that_is_not_there_is_named_and_the_key_is_not(site, dead_port):
    site.provider("dead", dead_port)
    site.gateway()
    status, reply = site.ask()
    assert (status, reply["error"]["code"]) == (502, "provider_unreachable")
    assert f"127.0.0.1:{dead_port}" in reply["error"]["message"]
    assert PROVIDER_KEY not in json.dumps(reply)
    assert site.ended()[-1]["status"] == 502 and "refused" in site.ended()[-1]["error"]


def test_a_silent_upstream_is_given_up_after_the_idle_limit(site):
    site.limits = {"idle_ms": 300}
    site.upstream(lambda conn, head, data: until_closed(conn))
    site.gateway()
    status, reply = site.ask()
    assert (status, reply["error"]["code"]) == (504, "provider_timeout")


def test_a_slow_answer_gets_its_head_in_advance_and_then_its_events(site):
    site.limits = {"early_ms": 50, "probe_ms": 50}
    go = threading.Event()

    def answer(conn, head, data):
        go.wait(120)
        conn.sendall(SSE_HEAD + b"\r\n" + DONE)

    site.upstream(answer)
    site.gateway()
    conn, reply = site.open(doc=body(), auth=token())
    assert reply.status == 200
    assert reply.read1(100).startswith(b": waiting for the model\n\n")
    go.set()
    assert events(reply.read())[-1]["type"] == "response.completed"
    conn.close()
    assert site.ended()[0]["usage"]["total_tokens"] == 7


def test_an_error_after_the_advance_is_told_inside_the_stream(site):
    site.limits = {"early_ms": 50, "probe_ms": 50}
    go = threading.Event()

    def answer(conn, head, data):
        go.wait(120)
        reply_json(conn, 529, {"error": {"message": "overloaded"}})

    site.upstream(answer)
    site.gateway()
    conn, reply = site.open(doc=body(), auth=token())
    assert reply.read1(100).startswith(b": waiting")
    go.set()
    last = events(reply.read())[-1]
    conn.close()
    assert last["type"] == "response.failed" and "529" in last["response"]["error"]["message"] and "overloaded" in last["response"]["error"]["message"]
    assert site.ended()[0]["status"] == 529


def test_white_space_keeps_a_slow_plain_reply_alive(site):
    site.limits = {"early_ms": 50, "probe_ms": 50}
    go = threading.Event()

    def answer(conn, head, data):
        go.wait(120)
        reply_json(conn, 200, {"status": "completed", "output": []})

    site.upstream(answer)
    site.gateway()
    conn, reply = site.open(doc=body(stream=False), auth=token())
    first = reply.read1(1)
    go.set()
    assert first == b" " and json.loads(first + reply.read())["status"] == "completed"
    conn.close()


def test_a_stream_that_is_cut_is_cut_for_the_agent_and_on_record(up):
    conn, reply = up.open(doc=body("[scenario cut]"), auth=token())
    with pytest.raises(http.client.IncompleteRead):
        reply.read()
    conn.close()
    end = up.ended()[0]
    assert "broke off" in end["error"]
    assert end["output"][0]["content"][0]["text"].startswith("This sentence")


def test_a_stream_that_ends_early_but_politely_is_on_record_as_incomplete(site):
    site.upstream(lambda conn, head, data: conn.sendall(SSE_HEAD + b"\r\ndata: {}\n\n"))
    site.gateway()
    assert site.ask()[0] == 200
    assert "before it was complete" in site.ended()[0]["error"]


@pytest.mark.parametrize("name,status", [("error-500", 500), ("error-429", 429), ("error-400", 400)])
def test_the_models_own_errors_pass_with_their_words(up, name, status):
    conn, reply = up.open(doc=body(f"[scenario {name}]"), auth=token())
    message = json.loads(reply.read())["error"]["message"]
    conn.close()
    assert reply.status == status
    assert reply.headers["Retry-After"] == ("1" if status == 429 else None)
    assert up.ended()[0]["error"] == message


@pytest.mark.parametrize("asked,told", [("3", "3"), ("7200", "60"), ("Fri, 31 Dec 2999 23:59:59 GMT", "60")])
def test_a_provider_cannot_make_an_agent_wait_for_hours(site, asked, told):
    site.upstream(lambda conn, head, data: reply_json(conn, 429, {"error": {"message": "later"}}, f"Retry-After: {asked}"))
    site.gateway()
    conn, reply = site.open(doc=body(), auth=token())
    reply.read()
    conn.close()
    assert reply.headers["Retry-After"] == told


def test_a_refused_provider_key_is_not_quoted_to_the_agent(site):
    site.upstream(lambda conn, head, data: reply_json(conn, 401, {"error": {"message": f"Incorrect API key: {PROVIDER_KEY}"}}))
    site.gateway()
    status, reply = site.ask()
    assert (status, reply["error"]["code"]) == (403, "provider_refused_key")
    assert PROVIDER_KEY not in json.dumps(reply) + json.dumps(site.record())


def test_redirects_are_not_followed(site):
    other = site.upstream(lambda conn, head, data: reply_json(conn, 200, {}))
    site.upstream(lambda conn, head, data: reply_json(conn, 302, {}, f"Location: http://127.0.0.1:{other.port}/v1/responses"))
    site.gateway()
    status, reply = site.ask()
    assert (status, reply["error"]["code"]) == (502, "provider_redirects")
    assert other.requests == []


@pytest.mark.parametrize("garbage", [b"", b"\x00\xff\xfe", b"HTTP/1.1 999999 x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", b"SSH-2.0-x\r\n"])
def test_an_upstream_that_talks_nonsense_is_an_error_not_a_crash(site, garbage):
    site.upstream(lambda conn, head, data: conn.sendall(garbage))
    gateway = site.gateway()
    with contextlib.suppress(http.client.IncompleteRead):
        assert site.ask(stream=False)[0] in (200, 502)
    assert site.ended()[0]["error"]
    assert gateway.poll() is None


def test_one_run_cannot_take_all_connections(up):
    held = [up.open(doc=body("[scenario hang-after-headers]"), auth=token(run="greedy")) for _ in range(16)]
    status, reply = up.ask(auth=token(run="greedy"))
    assert (status, reply["error"]["code"]) == (429, "run_busy")
    assert up.ask(auth=token(run="modest"))[0] == 200
    for conn, reply in held:
        conn.close()
        reply.close()


def test_a_silent_stream_with_crlf_is_probed_between_its_events(site):
    site.limits = {"probe_ms": 50}
    site.upstream(lambda conn, head, data: (conn.sendall(SSE_HEAD + b"\r\ndata: {}\r\n\r\n"), until_closed(conn)))
    site.gateway()
    conn, reply = site.open(doc=body(), auth=token())
    data = b""
    while data.count(b"waiting") < 2:
        data += reply.read1(100)
    assert data.startswith(b"data: {}\r\n\r\n: waiting for the model\n\n")
    conn.close()
    reply.close()


def test_a_silent_stream_is_not_probed_within_an_event(site):
    site.limits = {"probe_ms": 50, "idle_ms": 1500}
    site.upstream(lambda conn, head, data: (conn.sendall(SSE_HEAD + b"\r\ndata: {"), until_closed(conn)))
    site.gateway()
    conn, reply = site.open(doc=body(), auth=token())
    with pytest.raises(http.client.IncompleteRead) as cut:
        reply.read()
    assert cut.value.partial == b"data: {"
    conn.close()
    assert "silent for too long" in site.ended()[0]["error"]


# ---- what is on record

def test_the_record_reads_as_one_conversation(up):
    first = body("[scenario shell]", tools=[{"type": "function", "name": "exec_command"}])
    status, data = up.call(doc=first, auth=token())
    call = events(data)[-1]["response"]["output"][0]
    first["input"] += [call, {"type": "function_call_output", "call_id": call["call_id"], "output": "from-the-shell"}]
    status, data = up.call(doc=first, auth=token())
    up.ended(2)
    lines = up.record()
    assert [(r["n"], r["phase"]) for r in lines] == [(1, "start"), (1, "end"), (2, "start"), (2, "end")]
    assert lines[1]["output"] == [call] and lines[1]["error"] is None
    assert [i["type"] for i in lines[2]["input_delta"]] == ["function_call_output"]
    assert lines[2]["input_from"] == 1 and lines[2]["input_echoed"] == 1
    assert lines[3]["output"][0]["content"][0]["text"] == "The shell works."
    assert set(lines[3]["usage"]) == {"input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens", "total_tokens"}


def test_numbers_and_limits_go_on_after_the_gateway_was_killed(site):
    site.model()
    gateway = site.gateway()
    once = token(limits={"requests": 2})
    assert site.ask(auth=once)[0] == 200
    site.ended(1)
    gateway.kill()
    gateway.wait()
    with open(site.records / "run1.jsonl", "a") as f:
        f.write('{"n":77,"phase":"st')
    site.gateway("second")
    assert site.ask(auth=once)[0] == 200
    assert site.ended(2)[1]["n"] == 2
    assert site.ask(auth=once)[1]["error"]["code"] == "run_limit_reached"


def test_what_the_gateway_is_told_to_hide_is_not_in_its_record(up):
    secret = 'open-"sesame"'
    for texts in ([secret, "nothing"], [secret]):  # the same again is harmless
        assert up.call("POST", "/hide", {"task": "run1", "texts": texts}, path=up.control)[0] == 204
    assert up.ask(secret, auth=token(run="run1.main.2"))[0] == 200
    assert up.ask(secret, auth=token(run="run2.main.1"))[0] == 200
    up.ended(1, run="run1.main.2")
    assert "sesame" not in (up.records / "run1.main.2.jsonl").read_text()
    assert "sesame" in (up.records / "run2.main.1.jsonl").read_text()  # of that task nothing is secret
    assert "sesame" in json.dumps(up.asked())  # the model was told as it was asked


@pytest.mark.parametrize("doc", [{}, {"task": "t"}, {"task": "", "texts": []}, {"task": "t.main.1", "texts": []}, {"task": 7, "texts": []},
                                 {"task": "t", "texts": "x"}, {"task": "t", "texts": [], "more": 1}, {"task": "t" * 65, "texts": []}, []])
def test_what_cannot_be_hidden_is_refused(up, doc):
    assert up.call("POST", "/hide", doc, path=up.control)[0] == 400


def test_a_new_gateway_hides_from_its_first_request_on_and_is_the_same_by_its_hash(site):
    site.model()
    site.more["hide"] = {"run1": ["sesame"]}
    site.gateway()
    first = site.version()["config_hash"]
    assert site.ask("sesame")[0] == 200
    site.ended(1)
    assert "sesame" not in (site.records / "run1.jsonl").read_text()
    site.more["hide"] = {"run1": ["sesame", "another"], "run2": ["more"]}
    site.gateway("second")
    assert site.version()["config_hash"] == first and site.version()["hides"]


def test_runs_have_records_of_their_own(up):
    for run in ("a", "b"):
        assert up.ask(auth=token(run=run))[0] == 200
    assert up.ended(run="a")[0]["n"] == up.ended(run="b")[0]["n"] == 1
    assert stat.S_IMODE((up.records / "a.jsonl").stat().st_mode) == 0o600


def test_what_cannot_be_recorded_is_not_asked(up):
    (up.records / "dir.jsonl").mkdir()
    status, reply = up.ask(auth=token(run="dir"))
    assert (status, reply["error"]["code"]) == (503, "record_failed")
    assert up.asked() == []


def test_many_runs_at_once_are_kept_apart(up):
    failures = []

    def work(i):
        for n in range(5):
            status, data = up.ask(f"[scenario slow-{i}-{n}]", auth=token(run=f"many-{i}"))
            if status != 200 or events(data)[-1]["type"] != "response.completed":
                failures.append((i, n, status))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(20)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failures
    for i in range(20):
        ends = up.ended(5, run=f"many-{i}")
        assert sorted(r["n"] for r in ends) == [1, 2, 3, 4, 5]


# ---- the process

def test_the_key_is_nowhere_outside_the_process(up):
    up.ask()
    up.ended()
    pid = up.version()["pid"]
    for name in ("cmdline", "environ"):
        with contextlib.suppress(PermissionError):  # an ordinary user may not even look, since the process is not dumpable
            assert PROVIDER_KEY.encode() not in pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
    for path in [*up.records.iterdir(), up.dir / "gateway.err", up.dir / "gateway.out"]:
        assert PROVIDER_KEY not in path.read_text()


def test_the_sockets_let_in_whom_they_are_for(up):
    assert stat.S_IMODE(up.socket.stat().st_mode) == 0o666
    assert stat.S_IMODE(up.control.stat().st_mode) == 0o600
    assert stat.S_IMODE(up.socket.parent.stat().st_mode) & 0o111 == 0o111
    assert up.call("GET", "/healthz", path=up.control) == (200, {"status": "ok"})


def test_a_configuration_that_others_can_read_is_refused(site):
    site.provider("x", 1)
    path = site.config()
    path.chmod(0o644)
    done = subprocess.run([PROGRAM, "gateway", "--config", path], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "0600" in done.stderr


@pytest.mark.parametrize("change,words", [
    ({"key": "short"}, "key: expected 32 bytes"),
    ({"sokcet": "x"}, "sokcet"),
    ({"socket": ""}, "socket: missing"),
    ({"providers": {}}, "providers: expected an object"),
    ({"providers": {"a": {"base_url": "file:///etc/passwd"}}}, "providers.a.base_url"),
    ({"providers": {"a": {"base_url": "https://user:pw@host/v1"}}}, "providers.a.base_url"),
    ({"providers": {"a": {"base_url": "http://h/v1", "wire": "chat"}}}, "providers.a.wire: 'chat' is not known"),
    ({"default_provider": "b"}, "default_provider: there is no provider 'b'"),
    ({"limits": {"idle_ms": -1}}, "limits.idle_ms"),
    ({"uid": 5}, "uid and gid"),
])
def test_a_bad_configuration_is_named_by_its_place(site, change, words):
    site.provider("x", 1)
    site.more = change
    done = subprocess.run([PROGRAM, "gateway", "--config", site.config()], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert words in done.stderr


def test_the_configuration_may_come_by_a_descriptor(site):
    site.model()
    path = site.config()
    fd = os.open(path, os.O_RDONLY)
    child = site.spawn(PROGRAM, "gateway", "--config-fd", fd, name="gateway", pass_fds=[fd])
    os.close(fd)
    path.unlink()
    wait_for("the gateway", lambda: site.version().get("pid") == child.pid)
    assert site.ask()[0] == 200


def test_hup_reads_the_configuration_again(up):
    before = up.version()["config_hash"]
    up.providers["scripted"]["model"] = "another"
    up.config()
    os.kill(up.version()["pid"], signal.SIGHUP)
    wait_for("the new configuration", lambda: up.version()["config_hash"] != before)
    assert up.ask()[0] == 200
    assert up.asked()[-1]["model"] == "another"


def test_a_bad_new_configuration_changes_nothing(up):
    before = up.version()
    up.config().write_text("{")
    os.kill(before["pid"], signal.SIGHUP)
    wait_for("the complaint", lambda: "stays as it was" in (up.dir / "gateway.err").read_text())
    assert up.version()["config_hash"] == before["config_hash"]
    assert up.ask()[0] == 200


@pytest.mark.parametrize("how", ["signal", "call"])
def test_draining_lets_a_running_stream_finish(site, how):
    go = threading.Event()

    def answer(conn, head, data):
        conn.sendall(SSE_HEAD + b"\r\ndata: {}\n\n")
        go.wait(120)
        conn.sendall(DONE)

    site.upstream(answer)
    gateway = site.gateway()
    conn, reply = site.open(doc=body(), auth=token())
    assert reply.read1(100)
    if how == "signal":
        gateway.terminate()
    else:
        assert site.call("POST", "/drain", path=site.control)[0] == 202
    wait_for("draining", lambda: site.version().get("draining"))
    assert gateway.poll() is None
    go.set()
    assert events(reply.read())[-1]["type"] == "response.completed"
    conn.close()
    assert gateway.wait(120) == 0
    assert not site.socket.exists() and not site.control.exists()
    assert site.ended()[0]["error"] is None


def test_draining_ends_at_its_limit_and_at_a_second_signal(site):
    site.limits = {"drain_ms": 200}
    site.upstream(lambda conn, head, data: (conn.sendall(SSE_HEAD + b"\r\ndata: {}\n\n"), until_closed(conn)))
    gateway = site.gateway()
    conn, reply = site.open(doc=body(), auth=token())
    assert reply.read1(100)
    gateway.terminate()
    assert gateway.wait(120) == 0
    conn.close()
    reply.close()
    assert "ending" in site.ended()[0]["error"]
    site.limits = {}
    gateway = site.gateway("second")
    conn, reply = site.open(doc=body(), auth=token())
    assert reply.read1(100)
    gateway.terminate()
    wait_for("draining", lambda: site.version().get("draining"))
    gateway.terminate()
    assert gateway.wait(120) == 0
    conn.close()
    reply.close()


def test_a_new_gateway_takes_over_without_a_gap(site):
    go = threading.Event()

    def answer(conn, head, data):
        conn.sendall(SSE_HEAD + b"\r\ndata: {}\n\n")
        if b"old" in data:
            go.wait(120)
        conn.sendall(DONE)

    site.upstream(answer)
    old = site.gateway()
    conn, reply = site.open(doc=body("old"), auth=token())
    assert reply.read1(100)
    stop, refused, served = threading.Event(), [], []

    def knock():
        while not stop.is_set():
            try:
                served.append(site.ask("new", auth=token(run="knock"))[0])
            except OSError as e:
                refused.append(e)

    thread = threading.Thread(target=knock)
    thread.start()
    wait_for("the first answers", lambda: len(served) > 3)
    new = site.gateway("second")
    wait_for("answers of the new one", lambda: site.version()["pid"] == new.pid and len(served) > 20)
    stop.set()
    thread.join()
    go.set()
    assert events(reply.read())[-1]["type"] == "response.completed"
    conn.close()
    assert old.wait(120) == 0
    assert site.socket.exists() and site.control.exists()
    assert not refused and set(served) <= {200, 503}
    assert site.ask()[0] == 200
    ends = site.ended(len(served) and 1, run="knock")
    assert len({r["n"] for r in ends}) == len(ends)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_root_gateway_becomes_the_given_user(site):
    site.model()
    site.more = {"uid": 65534, "gid": 65534}
    gateway = site.gateway()
    status = pathlib.Path(f"/proc/{gateway.pid}/status").read_text()
    assert status.split("Uid:")[1].split()[:4] == ["65534"] * 4
    assert status.split("Groups:")[1].split("\n")[0].strip() == ""
    assert site.ask()[0] == 200
    site.ended()
    assert (site.records / "run1.jsonl").stat().st_uid == 65534
    # A process that may be dumped would belong to its user.
    assert pathlib.Path(f"/proc/{gateway.pid}/environ").stat().st_uid == 0
    as_user = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", f"/proc/{gateway.pid}/environ"], capture_output=True)
    assert as_user.returncode != 0


# ---- the real Codex CLI

codex = pytest.mark.skipif(not CODEX.exists(), reason="Codex is not installed (npm ci)")


def fixture_repository(path):
    path.mkdir()
    (path / "add.c").write_text("int add(int a, int b)\n{\n\treturn a - b;\n}\n")
    (path / "test.c").write_text("#include <stdio.h>\nint add(int, int);\nint main(void) { int ok = add(2, 3) == 5; puts(ok ? \"PASS\" : \"FAIL\"); return !ok; }\n")
    (path / "Makefile").write_text("test:\n\t@cc -o t add.c test.c && ./t; r=$$?; rm -f t; exit $$r\n")


@codex
def test_codex_repairs_a_test_through_the_gateway(up):
    fixture_repository(up.dir / "work")
    schema = {"type": "object", "additionalProperties": False, "required": ["status", "summary"],
              "properties": {"status": {"type": "string", "enum": ["success", "blocked", "failed"]}, "summary": {"type": "string"}}}
    (up.dir / "schema.json").write_text(json.dumps(schema))
    rc, lines = up.codex("Repair it [scenario fix-test]", token(run="fix"), "--output-schema", up.dir / "schema.json", "-o", up.dir / "final.txt")
    assert rc == 0
    assert lines[-1]["type"] == "turn.completed"
    items = [line["item"] for line in lines if line["type"] == "item.completed"]
    assert {"reasoning", "agent_message", "command_execution", "file_change", "todo_list"} <= {i["type"] for i in items}
    assert json.loads((up.dir / "final.txt").read_text())["status"] == "success"
    assert "a + b" in (up.dir / "work/add.c").read_text()
    ends = up.ended(7, run="fix")
    assert sum(r["usage"]["input_tokens"] for r in ends) == lines[-1]["usage"]["input_tokens"]
    assert ends[-1]["usage"]["cached_input_tokens"] == 3000


@codex
@pytest.mark.parametrize("name,words", [
    ("error-500", "high demand"), ("error-429", "429"), ("usage-limit", "usage limit"), ("error-400", "not acceptable"),
    ("error-401", "refused the gateway's key"), ("context-too-long", "context window"), ("cut", "stream disconnected"), ("garbage", "stream disconnected"),
])
def test_codex_ends_with_the_cause_when_the_model_fails(up, name, words):
    rc, lines = up.codex(f"do [scenario {name}]", token(run=name))
    assert rc == 1
    assert lines[-1]["type"] == "turn.failed" and words in lines[-1]["error"]["message"]
    assert up.ended(run=name)[-1]["error"]


@codex
@pytest.mark.parametrize("name,words", [("error-500-twice", "third try"), ("error-429-once", "limit is over"), ("cut-once", "second try")])
def test_codex_gets_over_a_failure_that_passes(up, name, words):
    rc, lines = up.codex(f"do [scenario {name}]", token(run=name))
    assert rc == 0
    assert any(words in line.get("item", {}).get("text", "") for line in lines)


@codex
@pytest.mark.parametrize("name", ["hang", "hang-after-headers"])
def test_codex_ends_when_the_model_never_answers(site, name):
    site.limits = {"early_ms": 100, "probe_ms": 100}
    site.model()
    site.gateway()
    rc, lines = site.codex(f"do [scenario {name}]", token(run=name), idle_ms=500)
    assert rc == 1
    assert "idle timeout" in lines[-1]["error"]["message"]


@codex
def test_codex_ends_when_there_is_no_provider_and_when_there_is_no_gateway(site, dead_port):
    site.provider("dead", dead_port)
    site.gateway()
    rc, lines = site.codex("hello", token())
    assert rc == 1 and "the model provider at 127.0.0.1" in lines[-1]["error"]["message"]
    rc, lines = site.codex("hello", token(), port=dead_port)
    assert rc == 1 and "Connection failed" in lines[-1]["error"]["message"]
