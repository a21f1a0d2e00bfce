"""HTTP by hand: bytes out, answers in, so that tests can say what no good client would; and what a process costs."""
import contextlib
import pathlib
import re
import socket
import time

DEADLINE = 120  # seconds; whoever needs them has failed


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def __repr__(self):
        return f"{self.status} {self.body[:200]!r}"


def dial(address, timeout=DEADLINE):
    """address: a unix socket's path or (host, port)."""
    s = socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(timeout)
    s.connect(address if isinstance(address, tuple) else str(address))
    return s


class Reader:
    """Takes answers off a connection, one after the other; None at its end."""

    def __init__(self, sock):
        self.sock, self.buffer = sock, b""

    def more(self):
        with contextlib.suppress(ConnectionResetError):
            data = self.sock.recv(65536)
            self.buffer += data
            return bool(data)
        return False

    def answer(self, head_only=False):
        while b"\r\n\r\n" not in self.buffer:
            if not self.more():
                return None
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        assert re.fullmatch(r"HTTP/1\.[01] \d{3} .*", lines[0]), lines[0]
        status, headers = int(lines[0].split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        if head_only or status < 200 or status in (204, 304):
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, self.chunks())
        n = int(headers["content-length"]) if "content-length" in headers else None
        while n is None or len(self.buffer) < n:
            if not self.more():
                break
        n = len(self.buffer) if n is None else n
        body, self.buffer = self.buffer[:n], self.buffer[n:]
        return Answer(status, headers, body)

    def chunks(self):
        out = b""
        while True:
            while b"\r\n" not in self.buffer:
                if not self.more():
                    return out
            line, self.buffer = self.buffer.split(b"\r\n", 1)
            n = int(line.split(b";")[0], 16)
            while len(self.buffer) < n + 2:
                if not self.more():
                    return out + self.buffer
            out, self.buffer = out + self.buffer[:n], self.buffer[n + 2:]
            if n == 0:
                return out

    def answers(self, most=64):
        """All that come until the peer closes."""
        out = []
        while len(out) < most:
            one = self.answer()
            if one is None:
                break
            if one.status != 100:
                out.append(one)
        return out


def say(address, data, timeout=DEADLINE, half_close=False):
    """Sends bytes; the answers until the server closes, or has been quiet for `timeout`."""
    with dial(address, timeout) as s:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            s.sendall(data)
            if half_close:
                s.shutdown(socket.SHUT_WR)
        out, reader = [], Reader(s)
        with contextlib.suppress(socket.timeout):
            while len(out) < 64:
                one = reader.answer()
                if one is None:
                    return out, True
                if one.status != 100:
                    out.append(one)
        return out, False


def pss_kib(pid):
    """What a process holds; with what it shares when only root may look closer, as at the gateway."""
    try:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    except PermissionError:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^(?:Pss|VmRSS):\s+(\d+)", text, re.M).group(1))


def connections(pid):
    return sum(1 for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir() if _is_socket(fd))


def _is_socket(fd):
    with contextlib.suppress(OSError):
        return str(fd.readlink()).startswith("socket:")
    return False


def seconds(since):
    return time.monotonic() - since
