"""A scripted model, a gateway before it, and ways to talk to both; everything lives in one temporary directory."""
import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SIGNALBOX_BUILD", ROOT / "build"))
PROGRAM = BUILD / "signalbox"
CODEX = ROOT / "node_modules/@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex"
SCENARIOS = ROOT / "test/data/scenarios"
KEY = bytes(range(32))
PROVIDER_KEY = "sk-the-real-provider-key"
WAIT_S = 120  # whoever needs them has failed; a machine may be slow, so nothing is concluded from a wait that is long


def b64(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def token(key=KEY, **claims):
    claims = {"run": "run1", "project": "default", "exp": int(time.time()) + 3600, **claims}
    text = "sbx1." + b64(json.dumps(claims).encode())
    return text + "." + b64(hmac.new(key, text.encode(), hashlib.sha256).digest())


def wait_for(what, condition, timeout=WAIT_S):
    """Looks again until it is so; the thing itself is waited for, not a time.  The last look is after the time is up: the machine may have stood still."""
    end, late = time.monotonic() + timeout, False
    while not late:
        late = time.monotonic() >= end
        result = condition()
        if result:
            return result
        select.select([], [], [], 0.01)
    raise AssertionError(f"waited in vain for {what}")


def whole_lines(path):
    """The lines of a file that is being written; the last one counts when it has its end."""
    data = path.read_bytes() if path.exists() else b""
    return data[:data.rfind(b"\n") + 1].decode().splitlines()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=WAIT_S):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def body(text="hello", stream=True, **more):
    return {"model": "gpt-5.5", "stream": stream, "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}], **more}


def events(data):
    """The JSON events of an event stream."""
    return [json.loads(line[6:]) for line in data.decode().split("\n") if line.startswith("data: ")]


class Upstream:
    """A provider of our own: one function answers each connection by hand."""

    def __init__(self, answer):
        self.answer, self.requests, self.threads = answer, [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                conn, _ = self.listener.accept()
                thread = threading.Thread(target=self.serve, args=(conn,), daemon=True)
                thread.start()
                self.threads.append(thread)

    def serve(self, conn):
        with contextlib.suppress(OSError), conn:
            conn.settimeout(WAIT_S)
            data = b""
            while b"\r\n\r\n" not in data:
                piece = conn.recv(65536)
                if not piece:
                    return
                data += piece
            head, rest = data.split(b"\r\n\r\n", 1)
            lines = head.decode().split("\r\n")
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
            while len(rest) < int(headers.get("content-length", 0)):
                rest += conn.recv(65536)
            self.requests.append((lines[0], headers, rest))
            self.answer(conn, headers, rest)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(WAIT_S)
        for thread in self.threads:
            thread.join(WAIT_S)


class Shim:
    """127.0.0.1 -> the gateway's unix socket, as the sandbox's init does it."""

    def __init__(self, path):
        self.path = str(path)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                conn, _ = self.listener.accept()
                threading.Thread(target=self.forward, args=(conn,), daemon=True).start()

    def forward(self, conn):
        with conn, socket.socket(socket.AF_UNIX) as there, contextlib.suppress(OSError):
            there.connect(self.path)
            ends = {conn: there, there: conn}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Site:
    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="gw"))
        self.dir.chmod(0o755)
        self.children, self.closers = [], []
        self.socket, self.control = self.dir / "s" / "model.sock", self.dir / "control.sock"
        self.records = self.dir / "records"
        self.providers, self.limits, self.more = {}, {}, {}

    def spawn(self, *argv, name, **more):
        err = open(self.dir / f"{name}.err", "ab")
        out = open(self.dir / f"{name}.out", "ab")
        child = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=out, stderr=err, **more)
        out.close(), err.close()
        self.children.append(child)
        return child

    def model(self, *options, script=None):
        """Starts a scripted model and makes it the default provider; gives its port."""
        script = script or self.all_scenarios()
        keyfile, port = self.dir / "provider.key", self.dir / "model.port"
        keyfile.write_text(PROVIDER_KEY + "\n")
        child = self.spawn(PROGRAM, "model", "--script", script, "--listen", "127.0.0.1:0", "--port-file", port, "--key", keyfile, "--log", *options, name="model")
        wait_for("the model's port", lambda: port.exists() or child.poll() is not None)
        assert child.poll() is None, (self.dir / "model.err").read_text()
        self.port = int(port.read_text())
        self.provider("scripted", self.port)
        return self.port

    def all_scenarios(self):
        path = self.dir / "all.yaml"
        parts = [(SCENARIOS / f"{name}.yaml").read_text().split("scenarios:\n", 1)[1] for name in ("fix-test", "tools", "failures")]
        path.write_text("scenarios:\n" + "".join(parts))
        return path

    def upstream(self, answer):
        up = Upstream(answer)
        self.closers.append(up)
        self.provider("own", up.port)
        return up

    def provider(self, name, port, **more):
        self.providers[name] = {"base_url": f"http://127.0.0.1:{port}/v1", "key": PROVIDER_KEY, "wire": "responses", **more}

    def config(self):
        path = self.dir / "gateway.json"
        doc = {"socket": str(self.socket), "control": str(self.control), "key": b64(KEY), "record_dir": str(self.records),
               "providers": self.providers, "default_provider": next(iter(self.providers)), "limits": self.limits, **self.more}
        path.touch(0o600)
        path.write_text(json.dumps(doc))
        return path

    def gateway(self, name="gateway"):
        child = self.spawn(PROGRAM, "gateway", "--config", self.config(), name=name)
        wait_for("the gateway", lambda: child.poll() is not None or self.version().get("pid") == child.pid)
        assert child.poll() is None, (self.dir / f"{name}.err").read_text()
        return child

    def version(self):
        try:
            return self.call("GET", "/version", path=self.control)[1]
        except OSError:
            return {}

    def open(self, method="POST", url="/v1/responses", doc=None, auth=None, headers=None, path=None):
        conn = UnixConnection(path or self.socket)
        head = {"Content-Type": "application/json", **(headers or {})}
        if auth is not None:
            head["Authorization"] = "Bearer " + auth
        data = doc if isinstance(doc, bytes) else json.dumps(doc).encode() if doc is not None else None
        conn.request(method, url, body=data, headers=head if data is not None else {k: v for k, v in head.items() if k != "Content-Type"})
        return conn, conn.getresponse()

    def call(self, *args, **more):
        conn, reply = self.open(*args, **more)
        try:
            data = reply.read()
        finally:
            conn.close()
        with contextlib.suppress(ValueError):
            return reply.status, json.loads(data)
        return reply.status, data

    def ask(self, text="hello", stream=True, auth=None, **more):
        return self.call(doc=body(text, stream, **more), auth=auth or token())

    def record(self, run="run1"):
        path = self.records / f"{run}.jsonl"
        return [json.loads(line) for line in whole_lines(path)]

    def ended(self, count=1, run="run1"):
        """The end lines of a run, once there are so many."""
        return wait_for(f"{count} ended exchanges", lambda: (lambda ends: len(ends) >= count and ends)([r for r in self.record(run) if r["phase"] == "end"]))

    def asked(self):
        """What the scripted model was asked so far."""
        return [json.loads(line) for line in whole_lines(self.dir / "model.out") if line.startswith("{")]

    def close(self):
        for child in self.children:
            if child.poll() is None:
                child.terminate()
        for child in self.children:
            try:
                child.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for closer in self.closers:
            closer.close()
        problems = [p.read_text() for p in self.dir.glob("*.err") if "Sanitizer" in p.read_text() or "runtime error" in p.read_text()]
        shutil.rmtree(self.dir)
        assert not problems, problems[0]

    def codex(self, prompt, auth, *options, timeout=240, idle_ms=300000, port=None, home=None, work=None):
        """The real Codex CLI against the gateway: (exit status, its lines)."""
        if port is None:
            shim = Shim(self.socket)
            self.closers.append(shim)
            port = shim.port
        home = home or self.dir / "codex-home"
        work = work or self.dir / "work"
        home.mkdir(exist_ok=True)
        work.mkdir(exist_ok=True)
        (home / "config.toml").write_text(CODEX_CONFIG.format(port=port, idle_ms=idle_ms))
        env = {"PATH": os.environ["PATH"], "HOME": str(home), "CODEX_HOME": str(home), "LANG": "C.UTF-8", "SIGNALBOX_MODEL_TOKEN": auth}
        argv = [CODEX, "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "-C", work, *options, prompt]
        done = subprocess.run([str(a) for a in argv], cwd=work, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


CODEX_CONFIG = """\
model = "gpt-5.5"
model_provider = "gateway"
check_for_update_on_startup = false
allow_login_shell = false
[analytics]
enabled = false
[feedback]
enabled = false
[otel]
exporter = "none"
metrics_exporter = "none"
trace_exporter = "none"
[features]
plugins = false
apps = false
remote_plugin = false
shell_snapshot = false
unbounded_connection_retries = false
[tools.update_plan]
enabled = true
[model_providers.gateway]
name = "gateway"
base_url = "http://127.0.0.1:{port}/v1"
env_key = "SIGNALBOX_MODEL_TOKEN"
wire_api = "responses"
request_max_retries = 2
stream_max_retries = 2
stream_idle_timeout_ms = {idle_ms}
supports_websockets = false
"""
