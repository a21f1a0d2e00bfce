"""One turn of an adapter at a time, driven by test/tools/agent_drive.c against a scripted model on loopback."""
import json
import pathlib
import shutil
import subprocess
import tempfile

from gateway_site import BUILD, CODEX, PROGRAM, ROOT, SCENARIOS, wait_for

DRIVE = BUILD / "test/agent_drive"
TURN_S = 240


class Model:
    """`signalbox model` with the named scenario files one behind the other; what it was asked is kept."""

    def __init__(self, *names):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="am"))
        script, port = self.dir / "all.yaml", self.dir / "port"
        script.write_text("scenarios:\n" + "".join((SCENARIOS / f"{name}.yaml").read_text().split("scenarios:\n", 1)[1] for name in names))
        with open(self.dir / "log", "wb") as log:
            self.child = subprocess.Popen([str(PROGRAM), "model", "--script", str(script), "--listen", "127.0.0.1:0", "--port-file", str(port), "--record", str(self.dir / "asked")],
                                          stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for("the model's port", lambda: port.exists() or self.child.poll() is not None)
        assert self.child.poll() is None, (self.dir / "log").read_text()
        self.url = f"http://127.0.0.1:{port.read_text().strip()}/v1"

    def asked(self):
        return [json.loads(path.read_text()) for path in sorted((self.dir / "asked").glob("*.json"))]

    def close(self):
        self.child.terminate()
        self.child.wait(120)
        shutil.rmtree(self.dir)


class Turn:
    """What one turn printed."""

    def __init__(self, lines, workspace):
        self.lines, self.workspace = lines, workspace

    def data(self, type):
        return [line["data"] for line in self.lines if line.get("event") == type]

    def live(self, type):
        return [line["data"] for line in self.lines if line.get("live") == type]

    def story(self):
        """What happened, in order: event types, kinds of requests, what was taken back."""
        names = [line.get("event") or ("ask " + line["ask"] if "ask" in line else "withdraw" if "withdraw" in line else "said" if "said" in line else None) for line in self.lines]
        return [name for name in names if name]

    @property
    def asks(self):
        return [line for line in self.lines if "ask" in line]

    @property
    def sent(self):
        return [json.loads(line["line"]) for line in self.lines if "sent" in line]

    @property
    def running(self):
        return [line["running"] for line in self.lines if "running" in line]

    @property
    def outcome(self):
        assert "outcome" in self.lines[-1], self.lines[-5:]
        return self.lines[-1]


class Worker:
    """A home and a workspace, for one turn after the other."""

    def __init__(self, model, adapter):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="aw"))
        self.home, self.workspace = self.dir / "home", self.dir / "workspace"
        self.home.mkdir(), self.workspace.mkdir()
        self.model, self.adapter, self.raw = model, adapter, self.dir / "raw.jsonl"

    def argv(self, prompt, *options, decide=(), agent=None):
        argv = [DRIVE, "--adapter", self.adapter, "--home", self.home, "--workspace", self.workspace, "--model-url", self.model.url, "--prompt", prompt,
                "--codex", CODEX, "--raw", self.raw, "--wire"]
        for words in [decide] if isinstance(decide, str) else decide:
            argv += ["--decide", words]
        if agent:
            argv += ["--agent", json.dumps(agent)]
        return [str(a) for a in (*argv, *options)]

    def turn(self, prompt, *options, **more):
        done = subprocess.run(self.argv(prompt, *options, **more), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TURN_S)
        assert done.returncode == 0, done.stderr
        return Turn([json.loads(line) for line in done.stdout.splitlines()], self.workspace)

    def close(self):
        shutil.rmtree(self.dir)
