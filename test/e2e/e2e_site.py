"""A whole Signalbox in one temporary directory: scripted model, server, command line; and proof that nothing of it is left.

Everything is the real thing.  As root a site can also be an ordinary user's: then each program of it, and all the repositories,
are that user's, and only the test itself is root."""
import contextlib
import http.client
import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test" / "suite"))
from openapi_check import Description  # noqa: E402
from gateway_site import CODEX, SCENARIOS, UnixConnection, wait_for, whole_lines  # noqa: E402  (how to wait and to call a unix socket is known there)

BUILD = pathlib.Path(os.environ.get("SIGNALBOX_BUILD", ROOT / "build")).resolve()
PROGRAM = BUILD / "signalbox"
IS_ROOT = os.geteuid() == 0
ROADS = ["root", "user"] if IS_ROOT else ["user"]
USER = "sbtest"
SECRET = "sk-never-to-be-seen-7d1c9e"  # the model provider's key
DEADLINE = 180  # seconds; whoever needs them has failed
END_S = 60  # for what ends when it is asked to
TERMINAL = ("DONE", "ERROR", "TIMEOUT", "CANCELED")
SANITIZERS = ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS")


def ordinary_user():
    """The ordinary user that a root test becomes; made when it is not there."""
    def found():
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(USER)
    if not found():
        subprocess.run(["useradd", "-m", USER], check=False, capture_output=True)  # another test may be making it too, and not be done
    return wait_for(f"the user {USER}", found, END_S)


def processes():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def proc_text(pid, name):
    """A file of /proc, or nothing when the process is gone or not ours to look at."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def files_below(*tops):
    """The regular files of a place that is lived in: what is cleared away meanwhile is passed over."""
    for top in tops:
        for here, _, names in os.walk(top):
            yield from (path for path in (pathlib.Path(here, name) for name in names) if path.is_file() and not path.is_symlink())


def bytes_of(path):
    """What a file holds; nothing when it was cleared away meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


def namespace_of(pid):
    """A process's mount namespace; nothing when it is gone."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/mnt")
    return None


def is_alive(pid):
    return proc_text(pid, "stat").rsplit(b")", 1)[-1].split()[:1] not in ([], [b"Z"], [b"X"])


class Site:
    def __init__(self, road="root", config=None, scenarios=None, model=True, start=True, listen=None):
        self.user = ordinary_user() if IS_ROOT and road == "user" else None
        self.road = road
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sbe2e", dir="/var/tmp"))
        self.dir.chmod(0o711)
        self.data, self.runtime, self.home = self.dir / "data", self.dir / "run", self.dir / "home"
        self.server, self.children, self.tasks, self.port = None, [], set(), None
        self.kept = set()  # lost tasks: their workspace was not saved, so it stays until they are removed
        self.config_file = self.dir / "config.yaml"
        self.config = config or {}
        self.listen = listen
        self.description = None  # what the server says of its answers; read when the first comes
        for path in (self.runtime, self.home):
            path.mkdir(mode=0o755)
        self.own(self.dir)
        try:
            if model:
                self.start_model(scenarios)
            self.write_config()
            if start:
                self.start_server()
        except BaseException:
            self.destroy()
            raise

    # --- files and programs, as whoever the site is of

    def own(self, path):
        """Gives a tree that the test wrote to the site's user."""
        if self.user:
            self.give(path)
            for top, dirs, files in os.walk(path):
                for name in dirs + files:
                    with contextlib.suppress(FileNotFoundError):
                        self.give(os.path.join(top, name))

    def give(self, path):
        """What is the user's already is left alone: a change of owner is a change to git, whose index remembers the time of the last."""
        if os.lstat(path).st_uid != self.user.pw_uid:
            os.lchown(path, self.user.pw_uid, self.user.pw_gid)

    def identity(self):
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}

    def environment(self, **more):
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(self.home), "LANG": "C.UTF-8",
               "SIGNALBOX_DATA": str(self.data), "SIGNALBOX_RUNTIME": str(self.runtime), "SIGNALBOX_CONFIG": str(self.config_file),
               "SIGNALBOX_AUTOSTART": "false", **{k: os.environ[k] for k in SANITIZERS if k in os.environ}}
        env.update(more)
        return {k: v for k, v in env.items() if v is not None}

    def spawn(self, *argv, name, env=None):
        """Starts a long-lived program with its output in a file."""
        with open(self.dir / f"{name}.log", "ab") as log:
            child = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir,
                                     env=env or self.environment(), start_new_session=True, **self.identity())
        self.children.append(child)
        return child

    def sh(self, script, cwd, check=True, **env):
        """A shell script as the site's user: how repositories are made and looked at."""
        self.own(cwd)
        git = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@b"}
        done = subprocess.run(["/bin/bash", "-euc", script], cwd=cwd, env=self.environment(**git, **env), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=DEADLINE, **self.identity())
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout if check else done

    def path(self, name):
        """A new directory of the site's."""
        at = pathlib.Path(tempfile.mkdtemp(prefix=name + "-", dir=self.dir))
        at.chmod(0o755)
        self.own(at)
        return at

    # --- the model

    def start_model(self, scenarios=None):
        script = self.dir / "scenarios.yaml"
        parts = [(SCENARIOS / f"{name}.yaml").read_text().split("scenarios:\n", 1)[1] for name in ("fix-test", "tools", "failures")]
        script.write_text("scenarios:\n" + (scenarios or "") + "".join(parts))
        port, keyfile = self.dir / "model.port", self.dir / "model.key"
        keyfile.write_text(SECRET + "\n")
        self.own(self.dir)
        self.bodies = self.dir / "bodies"
        self.bodies.mkdir(exist_ok=True)
        self.own(self.bodies)
        child = self.spawn(PROGRAM, "model", "--script", script, "--listen", "127.0.0.1:0", "--port-file", port, "--key", keyfile, "--log",
                           "--record", self.bodies, name="model")
        wait_for("the model's port", lambda: port.exists() or child.poll() is not None)
        assert child.poll() is None, self.log("model")
        self.port = int(port.read_text())

    def asked(self):
        """The bodies of the requests that reached the model."""
        return [p.read_text(errors="replace") for p in sorted(self.bodies.glob("[!.]*"))]  # with a dot: being written

    # --- the server

    def write_config(self):
        doc = dict(self.config)
        port = self.port or 1
        doc.setdefault("model", {"default_provider": "scripted", "providers": {"scripted": {"base_url": f"http://127.0.0.1:{port}/v1", "key": SECRET}}})
        doc.setdefault("source", {"schemes": ["https", "http", "ssh", "file"], "private": True})  # repositories are on this machine
        if not (BUILD.parent / "node_modules").exists() and CODEX.exists():
            doc.setdefault("codex", {"path": str(CODEX)})
        self.config_file.write_text(json.dumps(doc))  # JSON is YAML
        self.config_file.chmod(0o600)
        self.own(self.config_file)

    def start_server(self, *options, wait=True, env=None, prefix=()):
        if self.listen and not options:
            options = ("--listen", self.listen)
        self.server = self.spawn(*prefix, PROGRAM, "serve", *options, name="server", env=env)
        if wait:
            wait_for("the server", lambda: self.is_up() or self.server.poll() is not None)
            assert self.server.poll() is None, self.log("server")
        return self.server

    def is_up(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.call("GET", "/version")[1].get("pid") == self.server.pid
        return False

    def kill_server(self):
        self.server.kill()
        self.server.wait()

    def stop_server(self):
        self.server.terminate()
        assert self.server.wait(DEADLINE) == 0, self.log("server")

    def log(self, name):
        path = self.dir / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # --- the API

    def open(self, method, path, body=None, headers=None, timeout=DEADLINE):
        conn = UnixConnection(self.runtime / "signalbox.sock", timeout)
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        conn.request(method, path, body=data, headers={**({"Content-Type": "application/json"} if data is not None else {}), **(headers or {})})
        return conn, conn.getresponse()

    def call(self, method, path, body=None, headers=None, timeout=DEADLINE):
        conn, reply = self.open(method, path, body, headers, timeout)
        try:
            data = reply.read()
        finally:
            conn.close()
        self.check_described(method, path, reply, data)
        with contextlib.suppress(ValueError):
            return reply.status, json.loads(data)
        return reply.status, data.decode(errors="replace")

    def check_described(self, method, path, reply, data):
        """Each answer that a test receives is what the server's description says of it."""
        if self.description is None:
            conn, doc = self.open("GET", "/v1/openapi.json")
            with contextlib.closing(conn):
                self.description = Description(json.loads(doc.read()))
        self.description.check(method, path, reply.status, reply.getheader("Content-Type"), data)

    def get(self, path, **more):
        status, body = self.call("GET", path, **more)
        assert status == 200, (path, status, body)
        return body

    def submit(self, prompt, source=None, agent="command", **more):
        doc = {"prompt": prompt, "agent": agent, "source": source or {"kind": "none"}, **more}
        status, task = self.call("POST", "/v1/tasks", doc)
        assert status == 201, (status, task)
        self.tasks.add(task["id"])
        return task["id"]

    def task(self, id):
        return self.get(f"/v1/tasks/{id}")

    def wait(self, id, timeout=DEADLINE):
        """The task when it has ended or waits for a human; asked for again while the server is away."""
        def over():
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, task = self.call("GET", f"/v1/tasks/{id}/wait?timeout=5")
                return status == 200 and (task["done"] or task["status"] == "WAITING") and task
        return wait_for(f"the end of task {id}", over, timeout)

    def run(self, prompt, source=None, status="DONE", **more):
        """Submits, waits, and expects that status."""
        task = self.wait(self.submit(prompt, source, **more))
        assert task["status"] == status, self.story(task["id"])
        return task

    def events(self, id, of=None):
        out, after = [], 0
        while after is not None:
            page = self.get(f"/v1/tasks/{id}/events?after={after}&limit=1000", headers={"Accept": "application/json"})
            out += page["data"]
            after = page["next_cursor"]
        return [e for e in out if of is None or e["type"] == of]

    def story(self, id):
        """What happened, for the message of a failed test."""
        with contextlib.suppress(Exception):
            task = self.task(id)
            lines = [json.dumps({k: task[k] for k in ("status", "phase", "reason", "error")})]
            lines += [f'{e["seq"]} {e["type"]} {json.dumps(e["data"])[:400]}' for e in self.events(id)][-40:]
            log = pathlib.Path(task["directory"]) / "agents/main/runtime/runner.log"
            lines += [log.read_text() if log.exists() else ""]
            return "\n".join(lines) + "\n" + self.log("server")[-3000:]
        return self.log("server")[-3000:]

    def directory(self, id):
        return self.data / "tasks" / id

    def run_dir(self, id, n=1):
        return self.directory(id) / "agents/main/runs" / str(n)

    def patch(self, id):
        conn, reply = self.open("GET", f"/v1/tasks/{id}/diff")
        try:
            assert reply.status == 200, reply.read()
            return reply.read()
        finally:
            conn.close()

    def log_file(self, id):
        """events.jsonl once the record has caught up with the database."""
        head = self.task(id)["last_seq"]
        path = self.directory(id) / "events.jsonl"

        def whole():
            lines = [json.loads(line) for line in whole_lines(path)]
            return lines if lines and lines[-1]["seq"] >= head else None
        return wait_for("events.jsonl", whole)

    def release(self, id):
        """Lets an agent or a setup go on that waits for ~/go: `until [ -e ~/go ]; do sleep 0.02; done`."""
        home = self.directory(id) / "agents/main/home"
        wait_for("the agent's home", home.is_dir)
        (home / "go").touch()

    # --- the command line

    def cli(self, *words, cwd=None, stdin="", env=None, timeout=DEADLINE):
        return subprocess.run([str(PROGRAM), *map(str, words)], cwd=cwd or self.home, env=self.environment(**(env or {})), input=stdin,
                              capture_output=True, text=True, timeout=timeout, **self.identity())

    # --- the end

    def gateway_pid(self):
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            conn = UnixConnection(self.runtime / "gateway-control.sock", DEADLINE)
            conn.request("GET", "/version")
            return json.loads(conn.getresponse().read()).get("pid")
        return None

    def ours(self):
        """Processes that have to do with this site: by their words, their environment, or what is mounted for them alone.

        Only to tell what is left: a mount in the namespace of all would make this everybody, so nothing is ever killed by it."""
        needle, found, here = str(self.dir).encode(), [], namespace_of("self")
        for pid in processes():
            if pid == os.getpid() or not is_alive(pid):
                continue
            names = ("cmdline", "environ") if namespace_of(pid) == here else ("cmdline", "environ", "mountinfo")
            if any(needle in proc_text(pid, name) for name in names):
                found.append(pid)
        return found

    def started(self):
        """What this site started and may end: the runners of its own tasks, by their exact command line, and what descends from them."""
        runners = [pid for pid in processes() if self.is_runner(pid)]
        return {pid for runner in runners for pid in (runner, *descendants(runner))} - {os.getpid(), os.getppid(), 1}

    def is_runner(self, pid):
        words = proc_text(pid, "cmdline").split(b"\0")
        return len(words) >= 2 and words[0].endswith(b"/signalbox-runner") and words[1].startswith(str(self.data / "tasks").encode() + b"/")

    def left_of_runs(self):
        """Of ended runs: processes other than server, gateway and model; mounts; cgroups; work directories."""
        known = {c.pid for c in self.children} | {self.gateway_pid()}
        left = [f"process {pid}: {proc_text(pid, 'cmdline')!r}" for pid in self.ours() if pid not in known]
        left += [f"mount {line}" for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if str(self.dir) in line]
        left += [f"cgroup {d}" for d in self.cgroups()]
        work = self.data / "work"
        left += [f"work directory {p}" for p in (work.iterdir() if work.exists() else ()) if p.name.split(".")[0] not in self.kept]
        return left

    def end_tasks(self):
        """What a test that failed left running ends here, so that only its own failure is told."""
        after = ""
        while after is not None:
            page = self.get(f"/v1/tasks?state=QUEUED,RUNNING,WAITING&limit=200{after}")
            with ThreadPoolExecutor(16) as pool:  # a test may leave a thousand
                list(pool.map(lambda task: self.call("POST", f"/v1/tasks/{task['id']}/cancel", {}), page["data"]))
            after = f"&after={page['next_cursor']}" if page["next_cursor"] else None

    def remove_kept(self):
        """Removes the lost tasks, which takes their workspaces along."""
        for id in list(self.kept):
            status, body = self.call("DELETE", f"/v1/tasks/{id}")
            assert status == 204, body
            self.kept.remove(id)

    def cgroups(self):
        """Of this site's runs, whichever hierarchy they are in."""
        out = []
        for top, dirs, _ in os.walk("/sys/fs/cgroup"):
            out += [os.path.join(top, d) for d in dirs if any(t in d for t in self.tasks)]
        return out

    def assert_clean(self):
        wait_for_empty(self.left_of_runs)

    def end(self, pid, what):
        """Asks a process of ours to end, and says when it did not."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)  # a gateway that still drains an answer nobody reads takes the second for "now"
        try:
            wait_for(what, lambda: not is_alive(pid), END_S)
        except AssertionError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return [f"{what} (pid {pid}) did not end when asked"]
        return []

    def destroy(self):
        """Stops everything by its pid; gives what should not have been there."""
        problems = []
        if self.server and self.server.poll() is None:
            problems += self.end_child(self.server, "the server")
        gateway = self.gateway_pid()
        if gateway:
            problems += self.end(gateway, "the gateway")
        for child in self.children:
            problems += self.end_child(child, "a child")
        mine = self.started()
        for pid in set(self.ours()) | mine:
            problems.append(f"left: {pid} {proc_text(pid, 'cmdline')!r}")
        for pid in mine:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        problems += [f"listening: {line}" for line in pathlib.Path("/proc/net/unix").read_text().splitlines() if str(self.dir) in line]
        for log in self.dir.glob("*.log"):
            text = log.read_text(errors="replace")
            if "Sanitizer" in text or "runtime error:" in text:
                problems.append(text)
        mounts = [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if str(self.dir) in line]
        if mounts:  # what is mounted below may be anybody's: not to be removed with us
            return problems + [f"still mounted, so {self.dir} is not removed: {line}" for line in mounts]
        subprocess.run(["chmod", "-R", "u+rwX", str(self.dir)], capture_output=True)
        shutil.rmtree(self.dir, ignore_errors=True)
        if self.dir.exists():
            problems.append(f"{self.dir} could not be removed")
        return problems

    def end_child(self, child, what):
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(END_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                return [f"{what} did not end when asked"]
        return []

    def close(self):
        """The site's end: its runs are over and have left nothing, then everything is stopped and nothing is left."""
        try:
            if self.server and self.server.poll() is None:
                self.end_tasks()
                self.remove_kept()
                self.assert_clean()
        finally:
            problems = self.destroy()
        assert not problems, "\n".join(problems)


def wait_for_empty(look, timeout=END_S):
    """Until a list of what should not be there is empty; fails with the list."""
    last = []

    def empty():
        last[:] = look()
        return not last
    try:
        wait_for("nothing to be left", empty, timeout)
    except AssertionError:
        raise AssertionError("left behind:\n" + "\n".join(last)) from None


def tcp_call(port, method, path, headers=None, body=None):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        conn.putrequest(method, path, skip_host=True)
        for key, value in (headers or {}).items():
            conn.putheader(key, value)
        if body is not None:
            conn.putheader("Content-Length", str(len(body)))
        conn.endheaders(body)
        reply = conn.getresponse()
        return reply.status, reply.read()
    finally:
        conn.close()


def descendants(pid):
    parents = {}
    for p in processes():
        stat = proc_text(p, "stat")
        if stat:
            parents.setdefault(int(stat.rsplit(b")", 1)[1].split()[1]), []).append(p)
    found, todo = [], [pid]
    while todo:
        new = parents.get(todo.pop(), [])
        found += new
        todo += new
    return found


def rss_kib(pid):
    for line in proc_text(pid, "status").decode(errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def file_url(path):
    return "file://" + urllib.parse.quote(str(path))
