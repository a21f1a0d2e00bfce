"""A WebSocket client of our own (RFC 6455), so that tests can also say what no good client would."""
import base64
import hashlib
import json
import os
import select
import socket
import struct
import time

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
DEADLINE = 120  # seconds; whoever needs them has failed


class Refused(Exception):
    def __init__(self, status, headers, body):
        super().__init__(f"{status} {body!r}")
        self.status, self.headers, self.body = status, headers, body


class Closed(Exception):
    def __init__(self, code=None, reason=""):
        super().__init__(f"closed: {code} {reason}")
        self.code, self.reason = code, reason


def handshake(path="/v1/ws", key=None, **headers):
    """A GET that asks for a WebSocket; a header given as None is left out."""
    all_headers = {"Host": "localhost", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
                   "Sec-WebSocket-Key": key or base64.b64encode(os.urandom(16)).decode(), "Sec-WebSocket-Protocol": "signalbox.v1"}
    all_headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    lines = [f"{name}: {value}" for name, value in all_headers.items() if value is not None]
    return f"GET {path} HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n", all_headers["Sec-WebSocket-Key"]


def frame(opcode, payload=b"", fin=True, mask=True, rsv=0):
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    n, bit = len(payload), 0x80 if mask else 0
    head += bytes([bit | n]) if n < 126 else bytes([bit | 126]) + struct.pack(">H", n) if n < 65536 else bytes([bit | 127]) + struct.pack(">Q", n)
    if not mask:
        return head + payload
    key = os.urandom(4)
    repeated = (key * (n // 4 + 1))[:n]
    return head + key + (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(n, "big")


class WebSocket:
    def __init__(self, address, first=b"", receive_buffer=None, **headers):
        """address: a unix socket's path or (host, port). `first` is sent in the same write as the handshake."""
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(address if isinstance(address, tuple) else str(address))
        self.buffer, self.pings, self.auto_pong = b"", 0, True
        text, key = handshake(**headers)
        self.sock.sendall(text.encode() + first)
        head = self.read_until(b"\r\n\r\n").decode("latin-1")
        self.status = int(head.split()[1])
        self.headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)}
        if self.status != 101:
            n = int(self.headers.get("content-length", 0))
            while len(self.buffer) < n:
                self.more()
            self.sock.close()
            raise Refused(self.status, self.headers, self.buffer[:n].decode())
        wanted = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        assert self.headers["sec-websocket-accept"] == wanted and self.headers["sec-websocket-protocol"] == "signalbox.v1", head

    def more(self):
        data = self.sock.recv(65536)
        if not data:
            raise Closed()
        self.buffer += data

    def read_until(self, end):
        while end not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(end, 1)
        return head

    def take(self, n):
        while len(self.buffer) < n:
            self.more()
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def frame(self):
        """The next frame, whatever it is: (opcode, payload)."""
        one, two = self.take(2)
        assert one & 0x80 and not two & 0x80, "the server sends whole, unmasked frames"
        n = two & 0x7f
        n = struct.unpack(">H", self.take(2))[0] if n == 126 else struct.unpack(">Q", self.take(8))[0] if n == 127 else n
        return one & 0x0f, self.take(n)

    def receive(self):
        """The next message; pings are answered on the way."""
        while True:
            opcode, payload = self.frame()
            if opcode == TEXT:
                return json.loads(payload)
            if opcode == PING:
                self.pings += 1
                if self.auto_pong:
                    self.sock.sendall(frame(PONG, payload))
            if opcode == CLOSE:
                code = struct.unpack(">H", payload[:2])[0] if payload else None
                raise Closed(code, payload[2:].decode())

    def until(self, **members):
        """Messages up to the first that has these members, that one last."""
        seen = []
        while True:
            seen.append(self.receive())
            if all(seen[-1].get(k) == v for k, v in members.items()):
                return seen

    def has_news(self, timeout=0):
        return bool(self.buffer) or bool(select.select([self.sock], [], [], timeout)[0])

    def send(self, message):
        self.send_text(json.dumps(message))

    def send_text(self, text):
        self.sock.sendall(frame(TEXT, text.encode() if isinstance(text, str) else text))

    def ask(self, type, **members):
        """A message and its reply; what comes between is kept for `between`."""
        ref = f"r{time.monotonic_ns()}"
        self.send({"type": type, "ref": ref, **members})
        self.between = self.until(ref=ref)
        return self.between.pop()

    def expect_close(self):
        """Reads on until the server closes; the close's code and reason, or None when it just hung up."""
        try:
            while True:
                self.receive()
        except Closed as e:
            return e.code, e.reason
        except ConnectionError:
            return None, ""

    def close(self, code=1000):
        """The close handshake from our side; the code that comes back."""
        self.sock.sendall(frame(CLOSE, struct.pack(">H", code)))
        try:
            return self.expect_close()[0]
        finally:
            self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()
