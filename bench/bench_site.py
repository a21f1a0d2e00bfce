"""What the bench measures on: a server of its own in a directory of its own, a scripted model, repositories, nginx.
Everything that is started here is ended here, by its pid."""

import http.client
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(HERE)
CODEX = os.path.join(SOURCE, "node_modules/@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex")
START_S = 20  # how long a daemon may take to begin or to end
END_S = 20
LIVE = ("PENDING", "QUEUED", "RUNNING", "WAITING")


class UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path, timeout=120):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def ask(self, method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        self.request(method, path, body=data, headers={"Content-Type": "application/json"} if data else {})
        reply = self.getresponse()
        text = reply.read()
        if reply.status >= 400:
            raise RuntimeError(f"{method} {path}: {reply.status} {text[:300].decode(errors='replace')}")
        return json.loads(text) if text.startswith((b"{", b"[")) else text.decode()


def wait_for(what, condition, seconds=START_S, step=0.002):
    until = time.monotonic() + seconds
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > until:
            raise RuntimeError(f"waited {seconds} s for {what}")
        time.sleep(step)


def pss_kb(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        for line in f:
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return [int(n) for n in f.read().split()]
    except OSError:
        return []


class Site:
    """One directory; in it any number of servers, one after the other on the same data."""

    def __init__(self, build, place="/var/tmp"):
        self.build = os.path.abspath(build)
        self.program = os.path.join(self.build, "signalbox")
        # Not below /tmp, which may be memory; a root server's sandboxes are another uid, which must come in here.
        self.dir = tempfile.mkdtemp(prefix="signalbox-bench-", dir=place)
        os.chmod(self.dir, 0o755)
        self.data, self.runtime = self.path("data"), self.path("run")
        self.server, self.gateway, self.model, self.nginx = None, 0, None, None
        self.model_port = 0
        self.agents = {} # more of them, as the configuration has them
        self.codex = CODEX if os.access(CODEX, os.X_OK) else None
        os.mkdir(self.runtime, 0o755)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SIGNALBOX_", "GIT_"))}
        self.env.update(SIGNALBOX_DATA=self.data, SIGNALBOX_RUNTIME=self.runtime, SIGNALBOX_CONFIG=self.path("config.yaml"),
                        GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1", GIT_TERMINAL_PROMPT="0",
                        GIT_AUTHOR_NAME="bench", GIT_AUTHOR_EMAIL="bench@localhost", GIT_COMMITTER_NAME="bench", GIT_COMMITTER_EMAIL="bench@localhost")

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def spawn(self, name, argv):
        with open(self.path(name + ".log"), "ab") as log:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, start_new_session=True, cwd=self.dir)

    def log(self, name):
        with open(self.path(name + ".log"), errors="replace") as f:
            return f.read()[-2000:]

    # ---- the model and the server

    def start_model(self):
        port = self.path("model.port")
        self.model = self.spawn("model", [self.program, "model", "--script", os.path.join(HERE, "model.yaml"), "--listen", "127.0.0.1:0", "--port-file", port])
        self.model_port = int(wait_for("the scripted model", lambda: os.path.exists(port) and open(port).read().strip()))

    def write_config(self, running=128):
        with open(self.path("config.yaml"), "w") as f:
            f.write(f"limits: {{running: {running}, running_per_repository: {running}}}\n"
                    "model:\n  default_provider: scripted\n  providers:\n"
                    f"    scripted: {{base_url: \"http://127.0.0.1:{self.model_port}/v1\", key: sk-bench}}\n"
                    "source: {schemes: [https, http, ssh, file], private: true}\n"
                    + (f"codex: {{path: {self.codex}}}\n" if self.codex else "")
                    + "agents:\n"
                    "  stamp: {adapter: command, command: [/workspace/agent, stamp]}\n"
                    "  hold: {adapter: command, command: [/workspace/agent, hold]}\n"
                    "  sleep: {adapter: command, command: [/workspace/agent, sleep]}\n"
                    "  \"true\": {adapter: command, command: [/bin/true]}\n"
                    + "".join(f"  {name}: {json.dumps(agent)}\n" for name, agent in self.agents.items()))

    def start_server(self):
        self.server = self.spawn("serve", [self.program, "serve"])
        wait_for("the server", self.is_ready, step=0.001)
        return self.server.pid

    def start_gateway(self):
        """The server starts it; it is there a moment later."""
        self.gateway = wait_for("the gateway", self.gateway_pid)

    def is_ready(self):
        if self.server.poll() is not None:
            raise RuntimeError(f"the server ended with {self.server.returncode}:\n" + self.log("serve"))
        try:
            c = self.http()
            c.request("GET", "/readyz")
            ready = c.getresponse().status == 200
            c.close()
            return ready
        except OSError:
            return False

    @property
    def socket(self):
        return os.path.join(self.runtime, "signalbox.sock")

    def http(self):
        return UnixHTTP(self.socket)

    def gateway_pid(self):
        c = UnixHTTP(os.path.join(self.runtime, "gateway-control.sock"))
        try:
            return int(c.ask("GET", "/version")["pid"])
        except OSError:
            return 0
        finally:
            c.close()

    def kill_server(self, how=signal.SIGTERM):
        if self.server and self.server.poll() is None:
            self.server.send_signal(how)
            try:
                self.server.wait(END_S)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
        self.server = None

    # ---- tasks

    def submit(self, c, repo, agent="stamp", prompt="go", **more):
        return c.ask("POST", "/v1/tasks", {"source": {"kind": "git", "url": repo.url, "ref": repo.commit}, "agent": agent, "prompt": prompt, **more})["id"]

    def warm(self, c):
        """What the first task without code makes for all."""
        self.cancel_all(c, [c.ask("POST", "/v1/tasks", {"source": {"kind": "none"}, "agent": "sleep", "prompt": "go"})["id"]])

    def wait(self, c, task, seconds=60):
        reply = c.ask("GET", f"/v1/tasks/{task}/wait?timeout={seconds}")
        if not reply["done"]:
            raise RuntimeError(f"task {task} is not done: {reply['status']} {reply['phase']}")
        return reply

    def run(self, c, repo, **more):
        task = self.wait(c, self.submit(c, repo, **more))
        if task["status"] != "DONE":
            raise RuntimeError(f"task {task['id']}: {task['status']} {task['reason']} {task['error']}")
        return task

    def events(self, c, task):
        events, after = [], 0
        while True:
            page = c.ask("GET", f"/v1/tasks/{task}/events?after={after}&limit=500")
            events += page["data"]
            if page["next_cursor"] is None:
                return events
            after = page["next_cursor"]

    def add_past(self, task, count):
        """Events that a task has had, put where the server keeps them: 100k in a second. Returns the last seq."""
        db = sqlite3.connect(os.path.join(self.data, "signalbox.db"), timeout=60)
        try:
            with db:
                db.execute("BEGIN IMMEDIATE")
                (last,) = db.execute("SELECT last_seq FROM tasks WHERE id=?", (task,)).fetchone()
                line = ('{"seq":%d,"at":"2026-01-01T00:00:00.000Z","type":"message.done","task":"' + task
                        + '","worker":"main","run":1,"actor":"agent","data":{"text":"line %d of the past, about as long as such lines are in the log of a task at work"}}')
                db.executemany("INSERT INTO events(task,seq,at,type,line) VALUES(?,?,0,'message.done',?)", ((task, n, line % (n, n)) for n in range(last + 1, last + count + 1)))
                db.executemany("INSERT INTO feed(task,seq) VALUES(?,?)", ((task, n) for n in range(last + 1, last + count + 1)))
                db.execute("UPDATE tasks SET last_seq=? WHERE id=?", (last + count, task))
            return last + count
        finally:
            db.close()

    def release(self, task):
        """Lets an agent go on that waits for ~/go."""
        open(os.path.join(self.data, "tasks", task, "agents/main/home/go"), "w").close()

    def raw_output(self, task):
        with open(os.path.join(self.data, "tasks", task, "agents/main/runs/1/runtime/events.jsonl")) as f:
            return f.read()

    def runner_pids(self, tasks, c):
        pids = []
        for t in tasks:
            run = c.ask("GET", f"/v1/tasks/{t}").get("run") or {}
            if run.get("pid"):
                pids.append(int(run["pid"]))
        return pids

    def cancel_all(self, c, tasks):
        for t in tasks:
            c.ask("POST", f"/v1/tasks/{t}/cancel", {})
        for t in tasks:
            self.wait(c, t)

    # ---- nginx

    def start_nginx(self, text):
        os.makedirs(self.path("www"), exist_ok=True)
        with open(self.path("www", "status.json"), "w") as f:
            f.write(text)
        user = "user root;\n" if os.geteuid() == 0 else ""
        with open(self.path("nginx.conf"), "w") as f:
            f.write(f"{user}daemon off;\nmaster_process on;\nworker_processes auto;\npid {self.path('nginx.pid')};\nerror_log {self.path('nginx.err')};\n"
                    "events { worker_connections 1024; }\n"
                    "http { access_log off; keepalive_requests 100000000; open_file_cache max=100; default_type application/json;\n"
                    + "".join(f" {w}_temp_path {self.path('nginx-' + w)};\n" for w in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
                    + f" server {{ listen unix:{self.path('nginx.sock')}; root {self.path('www')}; }} }}\n")
        self.nginx = self.spawn("nginx", [shutil.which("nginx") or "/usr/sbin/nginx", "-c", self.path("nginx.conf"), "-p", self.dir])
        wait_for("nginx", lambda: os.path.exists(self.path("nginx.sock")))
        return self.path("nginx.sock")

    def stop_process(self, p):
        if p and p.poll() is None:
            p.terminate()
            try:
                p.wait(END_S)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()

    @staticmethod
    def ask_unix(path, method, what, body, ignore=False):
        c = UnixHTTP(path)
        try:
            return c.ask(method, what, body)
        except RuntimeError:
            if not ignore:
                raise
            return None
        finally:
            c.close()

    # ---- the end

    def leave(self):
        """Ends the server, and the runs that it would leave to the next."""
        if not self.server:
            return
        c = self.http()
        pids = self.runner_pids([t["id"] for t in c.ask("GET", "/v1/tasks?state=RUNNING&limit=100")["data"]], c)
        c.close()
        self.kill_server()
        for p in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(p, signal.SIGTERM)
        for p in pids:
            wait_for("a runner's end", lambda p=p: not is_alive(p), 60)

    def stop_runs(self):
        c = self.http()
        for state in ("QUEUED", "RUNNING", "WAITING"):
            while True:
                page = c.ask("GET", f"/v1/tasks?state={state}&limit=100")["data"]
                if not page:
                    break
                self.cancel_all(c, [t["id"] for t in page])

    def close(self, keep=False):
        gateway = self.gateway_pid() or self.gateway
        self.kill_server()
        if gateway and is_alive(gateway):
            os.kill(gateway, signal.SIGTERM)
            wait_for("the gateway's end", lambda: not is_alive(gateway), END_S)
        for p in (self.model, self.nginx):
            self.stop_process(p)
        if not keep:
            subprocess.run(["rm", "-rf", self.dir], check=False)


class Repo:
    """A repository with `files` small files in directories of 100, and the bench's agent."""

    def __init__(self, site, name, files):
        self.site, self.dir, self.files = site, site.path(name), files
        self.url = self.dir
        self.make()

    def git(self, *args, cwd=None, **more):
        return subprocess.run(["git", *args], cwd=cwd or self.dir, env=self.site.env, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more).stdout

    @staticmethod
    def name_of(i):
        return f"src/d{i // 100:03d}/file{i % 100:02d}.c"

    def make(self):
        os.mkdir(self.dir)
        self.git("init", "-q", "-b", "main")
        with open(os.path.join(self.site.build, "bench/agent"), "rb") as f:
            agent = f.read()
        out = [b"commit refs/heads/main\ncommitter bench <bench@localhost> 1700000000 +0000\ndata 5\nbench\n",
               b"M 100755 inline agent\ndata %d\n" % len(agent), agent, b"\n"]
        for i in range(self.files):
            text = f"/* file {i} */\nint f{i}(int x)\n{{\n\treturn x + {i};\n}}\n".encode()
            out.append(b"M 100644 inline %s\ndata %d\n%s\n" % (self.name_of(i).encode(), len(text), text))
        self.git("fast-import", "--quiet", input=b"".join(out))
        self.git("reset", "-q", "--hard")
        self.commit = self.git("rev-parse", "HEAD").decode().strip()
