"""What no good WebSocket client would send: it is closed with the code that fits, costs a bounded amount, and nobody else notices."""
import contextlib
import json
import pathlib
import struct
import sys

import pytest
import raw
from attack_site import MIB

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "suite"))
from ws_client import BINARY, CLOSE, CONTINUATION, PING, TEXT, Closed, Refused, WebSocket, frame, handshake  # noqa: E402

MESSAGE_MAX = 256 << 10


def channel(site, **more):
    return WebSocket(site.runtime / "signalbox.sock", **more)


def closing_code(w, data, most=1 << 20):
    """Says it and reads until the server closes; its code."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        w.sock.sendall(data)
    return code_of(w)


def code_of(w):
    """1006: the connection ended without a word."""
    try:
        while True:
            opcode, payload = next_frame(w)
            if opcode == CLOSE:
                return struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else 1005
    except (Closed, ConnectionResetError):
        return 1006


def next_frame(w):
    """Of the server: never masked, never in pieces that we care about."""
    while len(w.buffer) < 2:
        w.more()
    n, at = w.buffer[1] & 127, 2
    if n >= 126:
        size = 2 if n == 126 else 8
        while len(w.buffer) < at + size:
            w.more()
        n, at = int.from_bytes(w.buffer[at:at + size], "big"), at + size
    while len(w.buffer) < at + n:
        w.more()
    opcode, payload, w.buffer = w.buffer[0] & 15, w.buffer[at:at + n], w.buffer[at + n:]
    return opcode, payload


def still_served(site):
    w = channel(site)
    w.sock.sendall(frame(TEXT, b'{"type":"subscribe","tasks":["*"],"ref":1}'))
    assert next_frame(w)[0] == TEXT
    w.sock.close()


BREACHES = {
    "no mask": (frame(TEXT, b"{}", mask=False), 1002), "reserved bits": (frame(TEXT, b"{}", rsv=4), 1002), "unknown opcode 3": (frame(3, b""), 1002), "unknown control 11": (frame(11, b""), 1002), "unknown control 15": (frame(15, b""), 1002),
    "ping in pieces": (frame(PING, b"", fin=False), 1002), "ping too long": (frame(PING, b"x" * 126), 1002), "close of one byte": (frame(CLOSE, b"x"), (1002, 1005)), "close with a code that is none": (frame(CLOSE, struct.pack(">H", 999)), 1002),
    "close with a reserved code": (frame(CLOSE, struct.pack(">H", 1005)), 1002), "close with a bad reason": (frame(CLOSE, struct.pack(">H", 1000) + b"\xff\xfe"), (1002, 1007)), "continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "text within text": (frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002), "text that is none": (frame(TEXT, b"\xff\xfe"), 1007), "text cut in a character": (frame(TEXT, b"\xc3"), 1007), "surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "length of 2^63": (b"\x81\xff" + struct.pack(">Q", 1 << 63) + b"maskx", (1002, 1009)), "length of 2^62": (b"\x81\xff" + struct.pack(">Q", 1 << 62) + b"maskx", 1009), "length of 4 GiB": (b"\x81\xff" + struct.pack(">Q", 1 << 32) + b"maskx", 1009),
    "one byte too long": (b"\x81\xff" + struct.pack(">Q", MESSAGE_MAX + 1) + b"maskx", 1009), "length spelled too long": (b"\x81\xfe\x00\x05mask" + b"12345", (1002, 1007, 1003, None)), "not minimal 64": (b"\x81\xff" + struct.pack(">Q", 5) + b"mask" + b"12345", (1002, 1007, 1003, None)),
    "binary": (frame(BINARY, b"\x00\x01"), (1003, None)), "HTTP again": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1002), "zeros": (bytes(1000), 1002), "ones": (b"\xff" * 1000, 1002),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_is_closed_with_its_code(site, name):
    data, codes = BREACHES[name]
    codes = codes if isinstance(codes, tuple) else (codes,)
    with contextlib.closing(channel(site).sock) as sock:
        w = channel(site)
        sock.close()
        if None in codes:  # may be taken: then it answers, and is there
            w.sock.sendall(data + frame(CLOSE, struct.pack(">H", 1000)))
            assert code_of(w) in (*codes, 1000)
        else:
            assert closing_code(w, data) in codes
        w.sock.close()
    still_served(site)


@pytest.mark.parametrize("piece", [b"", b"x", b"x" * 125])
def test_a_flood_of_fragments_ends_at_the_limit_of_a_message(site, piece):
    with site.bounded(8 * MIB):
        w = channel(site)
        data = frame(TEXT, piece, fin=False) + frame(CONTINUATION, piece, fin=False) * 20000
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            for _ in range(10 if piece else 3):
                w.sock.sendall(data)
        if len(piece) * 20000 > MESSAGE_MAX:
            assert code_of(w) in (1009, 1006)
        w.sock.close()
    still_served(site)


def test_a_flood_of_pings_that_reads_no_answer_is_held_back_or_let_go(site):
    with site.bounded(8 * MIB):
        w = channel(site, receive_buffer=4096)
        w.sock.settimeout(0.5)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            for _ in range(200):
                w.sock.sendall(frame(PING, b"x" * 125) * 1000)
        still_served(site)
        w.sock.close()


def test_a_flood_of_questions_that_reads_no_answer_is_held_back_or_let_go(site):
    with site.bounded(8 * MIB):
        w = channel(site, receive_buffer=4096)
        w.sock.settimeout(0.5)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            for i in range(200):
                w.sock.sendall(frame(TEXT, json.dumps({"type": "heartbeat", "taskId": "nobody" + "x" * 1000, "ref": i}).encode()) * 100)
        still_served(site)
        w.sock.close()


@pytest.mark.parametrize("text", [b"", b" ", b"[]", b"null", b'"x"', b"{", b'{"type":' * 10000, b"[" * 200000, b'{"type":"subscribe","tasks":["*"' + b',"*"' * 10000 + b"]}", b'{"type":"subscribe","tasks":[%s]}' % b",".join(b'"t%d"' % i for i in range(1000)),
                                  b'{"type":"' + b"x" * 100000 + b'"}', b'{"type":"subscribe","ref":' + b"[" * 60 + b"]" * 60 + b',"tasks":["*"]}', b'{"type":"\\u0000"}', b'{"type":"register","type":"heartbeat"}', b'{"a":1e400}'],
                         ids=lambda t: repr(t[:24]))
def test_a_bad_message_is_an_error_and_the_channel_goes_on(site, text):
    w = channel(site)
    w.sock.sendall(frame(TEXT, text))
    opcode, payload = next_frame(w)
    assert opcode == TEXT and json.loads(payload)["type"] == "error" and len(payload) < 65536, payload[:200]
    w.sock.sendall(frame(TEXT, b'{"type":"subscribe","tasks":["*"],"ref":7}'))
    assert any(json.loads(next_frame(w)[1]).get("ref") == 7 for _ in range(3))
    w.sock.close()


def test_many_channels_that_say_nothing_cost_little(site):
    with contextlib.ExitStack() as stack, site.bounded(1000 * 24 + 8 * MIB):
        for _ in range(1000):
            stack.enter_context(contextlib.closing(channel(site).sock))
        still_served(site)


def test_half_handshakes_and_odd_ones_are_no_way_in(site):
    text, _ = handshake()
    for i in range(0, len(text) - 1, 7):
        with raw.dial(site.runtime / "signalbox.sock") as s:
            s.sendall(text[:i].encode())
    for odd in ({"Sec_WebSocket_Key": "x"}, {"Sec_WebSocket_Key": None}, {"Upgrade": "websocket, h2c" * 500}, {"Connection": "close"}, {"Sec_WebSocket_Version": "13, 8"}, {"Sec_WebSocket_Protocol": "signalbox.v1\x0b"},
                {"Sec_WebSocket_Extensions": "permessage-deflate; " * 300}, {"Content_Length": "5", "first": b"hello"}, {"Transfer_Encoding": "chunked", "first": b"0\r\n\r\n"}):
        with contextlib.suppress(Refused, Closed, AssertionError, ConnectionResetError):
            channel(site, **odd).sock.close()
    still_served(site)
