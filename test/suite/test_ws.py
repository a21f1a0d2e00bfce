"""The real-time channel from outside: the handshake, what is subscribed to, and what breaks the rules."""
import base64
import contextlib
import json
import os
import socket
import struct
import threading

import pytest
from channel_site import new_site, site  # noqa: F401  (fixtures)
from e2e_site import rss_kib, wait_for
from ws_client import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Closed, Refused, WebSocket, frame, handshake


def seqs(messages):
    return [m["seq"] for m in messages if "seq" in m]


def fill(site, task, n, start=0, size=8):
    """n further events, over a channel of its own since that is quick."""
    with site.ws() as w:
        for i in range(start, start + n):
            w.send({"type": "progress", "taskId": task, "progress": f"{i:08d}" + "x" * (size - 8)})
            if i % 50 == 49:
                while w.has_news():
                    assert w.receive()["type"] == "ok"
        w.until_ok = w.ask("heartbeat", taskId=task)


# --- the handshake

@pytest.mark.parametrize("headers, status", [
    ({"Upgrade": None}, 426), ({"Upgrade": "h2c"}, 426), ({"Connection": "keep-alive"}, 426),
    ({"Sec_WebSocket_Version": "8"}, 426), ({"Sec_WebSocket_Version": None}, 426),
    ({"Sec_WebSocket_Key": None}, 400), ({"Sec_WebSocket_Key": "short"}, 400), ({"Sec_WebSocket_Key": "!" * 22 + "=="}, 400),
    ({"Sec_WebSocket_Protocol": None}, 400), ({"Sec_WebSocket_Protocol": "chat, signalbox.v2"}, 400), ({"Sec_WebSocket_Protocol": "signalbox.v1x"}, 400),
])
def test_what_is_no_handshake_for_us_is_refused_with_a_reason(site, headers, status):
    with pytest.raises(Refused) as refused:
        site.ws(**headers)
    assert refused.value.status == status
    assert json.loads(refused.value.body)["code"] == "invalid"
    if status == 426:
        assert "upgrade" in refused.value.headers or refused.value.headers.get("sec-websocket-version") == "13"


def test_the_subprotocol_is_found_among_others_and_connection_may_name_more(site):
    with site.ws(Sec_WebSocket_Protocol="chat, signalbox.v1", Connection="keep-alive, Upgrade") as w:
        assert w.headers["sec-websocket-protocol"] == "signalbox.v1"
        assert w.close() == 1000


def test_http_1_0_and_other_methods_are_no_way_in(site):
    for text, status in ((handshake()[0].replace("HTTP/1.1", "HTTP/1.0"), (400, 426)), (handshake()[0].replace("GET", "POST"), (405,)), (handshake()[0].replace("GET", "HEAD"), (400,))):
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(site.runtime / "signalbox.sock"))
        s.settimeout(30)
        s.sendall(text.encode())
        assert int(s.recv(65536).split()[1]) in status
        s.close()


def test_over_tcp_it_wants_host_token_and_an_origin_of_ours(site):
    address, host, token = site.tcp()
    good = {"Host": host, "Authorization": "Bearer " + token}
    for bad in ({"Authorization": None}, {"Authorization": "Bearer x" + token}, {"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        with pytest.raises(Refused) as refused:
            WebSocket(address, **{**good, **bad})
        assert refused.value.status in (401, 403), bad
    for fine in ({}, {"Origin": "http://" + host}):
        with WebSocket(address, **good, **fine) as w:
            assert w.ask("subscribe", tasks=["*"])["type"] == "ok"
            assert w.close() == 1000


def test_what_is_sent_with_the_handshake_is_not_lost(site):
    with site.ws(first=frame(TEXT, b'{"type":"subscribe","tasks":["*"],"ref":1}') + frame(PING, b"early")) as w:
        got = [w.frame() for _ in range(4)]
        assert json.loads(got[[op for op, _ in got].index(TEXT)][1])["ref"] == 1 and (PONG, b"early") in got


# --- frames that break the rules

@pytest.mark.parametrize("bytes_, code", [pytest.param(bytes_, code, id=f"{i}-{code}") for i, (bytes_, code) in enumerate([
    (frame(TEXT, b"\xff\xfe"), 1007), (frame(TEXT, b"\xed\xa0\x80"), 1007), (frame(BINARY, b"{}"), 1003), (frame(TEXT, b"{}", mask=False), 1002),
    (frame(TEXT, b"{}", rsv=4), 1002), (frame(3, b""), 1002), (frame(CONTINUATION, b"{}"), 1002), (frame(PING, b"x" * 126), 1002), (frame(PING, b"", fin=False), 1002),
    (frame(TEXT, b"x" * (256 * 1024 + 1)), 1009), (frame(CLOSE, struct.pack(">H", 999)), 1002), (frame(CLOSE, b"x"), 1002),
])])
def test_a_breach_of_the_protocol_closes_with_its_code(site, bytes_, code):
    with site.ws() as w:
        with contextlib.suppress(ConnectionError):
            w.sock.sendall(bytes_)
        assert w.expect_close()[0] == code


def test_a_message_in_fragments_with_a_ping_between_is_one_message(site):
    with site.ws() as w:
        text = '{"type":"x","ref":"ü"}'.encode()
        w.sock.sendall(frame(TEXT, text[:18], fin=False) + frame(PING, b"p") + frame(CONTINUATION, text[18:20], fin=False) + frame(CONTINUATION, text[20:]))
        frames = [w.frame(), w.frame()]
        assert (PONG, b"p") in frames and [json.loads(p)["ref"] for op, p in frames if op == TEXT] == ["ü"]


def test_the_largest_message_is_taken(site):
    with site.ws() as w:
        text = '{"type":"x","ref":1,"fill":"'
        w.send_text(text + "y" * (256 * 1024 - len(text) - 2) + '"}')
        assert w.receive()["code"] == "invalid"


def test_a_client_that_is_cut_off_in_the_middle_leaves_nothing(site):
    before = site.metric("signalbox_stream_subscribers")
    for _ in range(20):
        w = site.ws()
        w.ask("subscribe", tasks=["*"])
        w.sock.sendall(frame(TEXT, b'{"type":')[:5])
        w.sock.close()
    wait_for("the subscribers to be gone", lambda: site.metric("signalbox_stream_subscribers") == before)


# --- messages

@pytest.mark.parametrize("text", [
    "", "x", "[]", "1", "{}", '{"type":1}', '{"type":"nonsense"}', '{"type":"subscribe"}', '{"type":"subscribe","tasks":"T"}', '{"type":"subscribe","tasks":[]}',
    '{"type":"subscribe","tasks":[1]}', '{"type":"subscribe","tasks":["*"],"after":-1}', '{"type":"subscribe","tasks":["*"],"after":7}',
    '{"type":"subscribe","tasks":["*"],"after":"1"}', '{"type":"subscribe","tasks":["*"],"after":{"a":"b"}}', '{"type":"subscribe","tasks":["*"],"more":1}',
    '{"type":"interrupt"}', '{"type":"interrupt","task":7}', '{"type":"heartbeat"}', '{"type":"register","taskId":"a"}',
    '{"type":"subscribe","tasks":["*"],"ref":{}}', "[" * 100, '{"type":"x"}\x00', "\x00" * 64, '{"type":"heartbeat","taskId":"\\u0000"}',
])
def test_a_bad_message_is_answered_with_an_error_and_the_channel_goes_on(site, text):
    with site.ws() as w:
        w.send_text(text)
        reply = w.receive()
        assert reply["type"] == "error" and reply["code"] == "invalid" and reply["detail"] and "ref" in reply
        assert w.ask("subscribe", tasks=["*"])["type"] == "ok"


def test_unknown_tasks_are_named_and_nothing_is_subscribed(site):
    site.external("known")
    with site.ws() as w:
        reply = w.ask("subscribe", tasks=["known", "unknown"])
        assert reply["code"] == "not_found" and "unknown" in reply["detail"]
        assert w.ask("subscribe", tasks=["known"])["type"] == "ok"
        w.until(type="sync")
        assert w.ask("subscribe", tasks=["known"])["code"] == "conflict"
        assert w.ask("subscribe", tasks=["known"], after={"other": 1})["type"] == "error"
    site.report("canceled", taskId="known")


# --- subscriptions

def test_a_subscriber_gets_hello_the_past_sync_what_comes_and_the_end(site):
    task = site.external("whole", progress="a")
    with site.ws() as w:
        assert w.ask("subscribe", tasks=["whole"])["tasks"] == [task]
        past = w.until(type="sync")
        assert past[0] == {"type": "hello", "task": task, "head": 3, "oldest": 1, "generation": past[0]["generation"]}
        assert seqs(past) == [1, 2, 3] and past[1]["type"] == "task.created"
        site.report("progress", taskId="whole", progress="b")
        assert w.receive()["data"] == {"text": "b"}
        site.report("complete", taskId="whole", summary="done")
        rest = w.until(type="end")
        assert rest[-1] == {"type": "end", "task": task, "status": "DONE", "reason": None}
        assert [m["type"] for m in rest[:-1]] == ["run.result", "task.done"]
        assert w.ask("unsubscribe", tasks=[task])["code"] == "not_found", "the end has ended it"
        log = site.events(task)
        assert past[1:-1] + [log[3]] + rest[:-1] == log


def test_cursors_are_taken_by_name_by_id_or_as_one_number(site):
    task = site.external("cursor", progress="a")
    for after, expected in ((2, [3]), ({"cursor": 1}, [2, 3]), ({task: 3}, []), (None, [1, 2, 3])):
        with site.ws() as w:
            assert w.ask("subscribe", tasks=["cursor"], after=after)["type"] == "ok"
            assert seqs(w.until(type="sync")) == expected
    with site.ws() as w:
        assert w.ask("subscribe", tasks=["cursor"], after=4)["code"] == "gone", "past the end"
    site.report("canceled", taskId="cursor")


def test_after_unsubscribe_nothing_comes(site):
    site.external("quiet")
    with site.ws() as w:
        w.ask("subscribe", tasks=["quiet"])
        w.until(type="sync")
        assert w.ask("unsubscribe", tasks=["quiet"])["type"] == "ok"
        site.report("progress", taskId="quiet", progress="a")
        assert w.ask("unsubscribe", tasks=["quiet"])["code"] == "not_found" and w.between == []
    site.report("canceled", taskId="quiet")


def test_a_long_log_comes_whole_and_in_order_while_it_grows(site):
    task = site.external("long")
    fill(site, "long", 1500)
    with site.ws() as w:
        w.ask("subscribe", tasks=["long"])
        writer = threading.Thread(target=lambda: (fill(site, "long", 500, 1500), site.report("complete", taskId="long")))
        writer.start()
        got = seqs(w.until(type="end"))
        writer.join()
    assert got == list(range(1, len(got) + 1)) and len(got) == site.task(task)["last_seq"]


def test_resumed_at_any_cursor_the_rest_comes_once(site):
    task = site.external("resume")
    fill(site, "resume", 60)
    site.report("complete", taskId="resume")
    total = site.task(task)["last_seq"]
    for after in range(0, total + 1):
        with site.ws() as w:
            w.ask("subscribe", tasks=[task], after=after)
            assert seqs(w.until(type="end")) == list(range(after + 1, total + 1))


def test_a_run_of_signalbox_is_seen_from_the_beginning_with_live_lines_of_its_task(site):
    task = site.submit("echo one; echo two")
    with site.ws() as w:
        w.ask("subscribe", tasks=[task])
        got = w.until(type="end")
    events = [m for m in got if "seq" in m]
    assert events == site.events(task) and got[-1]["status"] == "DONE", site.story(task)
    assert all(m["task"] == task for m in got if m.get("live"))


def test_all_tasks_are_watched_at_once_from_now_on(site):
    site.external("old")
    with site.ws() as w:
        w.ask("subscribe", tasks=["*"])
        hello, sync = w.receive(), w.receive()
        assert hello["task"] == "*" and hello["heads"][site.task("old")["id"]] == 2 and sync == {"type": "sync", "task": "*"}
        young = site.external("young")
        site.report("progress", taskId="old", progress="x")
        got = w.until(type="task.progress")
        assert [(m["task"], m["seq"]) for m in got] == [(young, 1), (young, 2), (site.task("old")["id"], 3)]
        run = site.submit("true")
        got = w.until(type="task.done", task=run)
        assert [m["seq"] for m in got if m.get("task") == run and "seq" in m] == list(range(1, len(site.events(run)) + 1))
        assert w.ask("unsubscribe", tasks=["*"])["type"] == "ok"
    for name in ("old", "young"):
        site.report("canceled", taskId=name)


def test_all_tasks_are_resumed_by_their_cursors_with_what_came_and_went_meanwhile(site):
    first = site.external("first")
    with site.ws() as w:
        w.ask("subscribe", tasks=["*"])
        heads = w.receive()["heads"]
    site.report("progress", taskId="first", progress="missed")
    gone = site.external("gone")
    site.report("complete", taskId="gone")
    with site.ws() as w:
        w.ask("subscribe", tasks=["*"], after=heads)
        got = [(m["task"], m["seq"]) for m in w.until(type="sync") if "seq" in m]
    assert sorted(got) == sorted([(first, 3)] + [(gone, n) for n in range(1, site.task(gone)["last_seq"] + 1)])
    site.report("canceled", taskId="first")


def test_a_watcher_of_all_that_fell_out_of_the_ring_still_gets_everything(site):
    task = site.external("flood")
    with site.ws(receive_buffer=4096) as w:
        w.ask("subscribe", tasks=["*"])
        w.until(type="sync")
        fill(site, "flood", 3000, size=1000)
        site.report("complete", taskId="flood")
        got = [m["seq"] for m in w.until(type="task.done", task=task) if m.get("task") == task and "seq" in m]
    assert got == list(range(3, site.task(task)["last_seq"] + 1))


def test_interrupt_of_a_run_of_ours_cancels_it_and_says_so(site):
    task = site.submit("sleep 600")
    wait_for("the run", lambda: site.task(task)["phase"] == "running")
    with site.ws() as w:
        reply = w.ask("interrupt", task=task)
        assert reply["action"] == "cancel" and reply["task"] == task
        assert w.ask("interrupt", task="nobody")["code"] == "not_found"
    assert site.wait(task)["status"] == "CANCELED"


# --- readers

def test_many_readers_get_the_same(site):
    task = site.external("many")
    readers = [site.ws() for _ in range(100)]
    for w in readers:
        w.send({"type": "subscribe", "tasks": [task]})
    fill(site, "many", 300)
    site.report("complete", taskId="many")
    total = site.task(task)["last_seq"]
    for w in readers:
        assert seqs(w.until(type="end")) == list(range(1, total + 1))
        w.sock.close()


def test_a_reader_that_takes_nothing_is_let_go_as_lagged_and_others_are_not_held_up(new_site):
    site = new_site()
    task = site.external("slow")
    fill(site, "slow", 3000, size=1000)
    site.report("complete", taskId="slow")
    before = rss_kib(site.server.pid)
    slow = site.ws(receive_buffer=4096)
    slow.send({"type": "subscribe", "tasks": [task]})
    with site.ws() as w:
        w.ask("subscribe", tasks=[task])
        assert len(seqs(w.until(type="end"))) == site.task(task)["last_seq"]
    wait_for("the slow reader to be let go", lambda: site.metric("signalbox_stream_subscribers") == 0)
    code, reason = slow.expect_close()
    assert (code, reason) in ((1013, "lagged"), (None, "")), "told when it still listens; cut when its socket is full"
    assert rss_kib(site.server.pid) - before < 32 * 1024


def test_one_who_asks_and_never_listens_costs_a_bounded_amount(site):
    before = rss_kib(site.server.pid)
    with site.ws(receive_buffer=4096) as w:
        w.sock.settimeout(2)
        with pytest.raises(TimeoutError):
            while True:  # until nobody takes it any more
                w.sock.sendall(frame(TEXT, b'{"type":"nonsense"}') * 200 + frame(PING, b"x" * 100) * 200)
    assert rss_kib(site.server.pid) - before < 32 * 1024


# --- the end

def test_a_server_that_stops_says_goodbye(new_site):
    site = new_site()
    idle, busy = site.ws(), site.ws()
    busy.ask("subscribe", tasks=["*"])
    site.server.terminate()
    assert idle.expect_close()[0] == 1001 and busy.expect_close()[0] == 1001
    assert site.server.wait(120) == 0


def test_after_a_restart_a_subscriber_goes_on_where_it_was(new_site):
    site = new_site()
    task = site.external("survivor")
    with site.ws() as w:
        w.ask("subscribe", tasks=[task])
        last = seqs(w.until(type="sync"))[-1]
        site.kill_server()
        with contextlib.suppress(Closed, ConnectionError):
            w.receive()
    site.start_server()
    with site.ws() as w:
        w.ask("subscribe", tasks=[task], after=last)
        site.report("complete", taskId="survivor")
        assert seqs(w.until(type="end")) == list(range(last + 1, site.task(task)["last_seq"] + 1))
