"""A project beside the owner's own: what its token reaches over TCP."""
import contextlib
import http.client
import json
import sys

from e2e_site import DEADLINE, ROOT, wait_for

sys.path.insert(0, str(ROOT / "test" / "suite"))
from ws_client import WebSocket  # noqa: E402

ASKS = """echo '{"status": "blocked", "summary": "A question.", "questions": ["Which colour?"]}' > "$SIGNALBOX_FINAL" """


def port_of(site):
    return int(wait_for("the address", lambda: next((l for l in reversed(site.log("server").splitlines()) if l.startswith("http://127.0.0.1:")), None)).rsplit(":", 1)[1])


class Project:
    """Calls as the holder of a token.  `token` None: nobody's."""

    def __init__(self, site, name=None, token="make"):
        self.site, self.name = site, name
        self.token = self.make(name) if token == "make" else token

    def make(self, project, called=None):
        called = called or f"t-{project or 'plain'}-{Project.made}"
        Project.made += 1
        status, token = self.site.call("POST", "/v1/tokens", {"name": called, **({"project": project} if project else {})})
        assert status == 201, token
        assert token["project"] == (project or "default")
        self.called = called
        return token["token"]

    made = 0

    def head(self, **headers):
        head = {"Host": f"127.0.0.1:{port_of(self.site)}", **({"Authorization": f"Bearer {self.token}"} if self.token else {}), **headers}
        return {k.replace("_", "-"): v for k, v in head.items()}

    def ask(self, method, path, body=None, **headers):
        """(status, body as JSON where it is); each answer is what the description says."""
        self.connection = http.client.HTTPConnection("127.0.0.1", port_of(self.site), timeout=DEADLINE)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        with contextlib.closing(self.connection) as conn:
            conn.request(method, path, body=data, headers=self.head(**({"Content-Type": "application/json"} if data is not None and not isinstance(body, bytes) else {}), **headers))
            reply = conn.getresponse()
            text = reply.read()
        self.headers = reply.headers
        self.site.check_described(method, path, reply, text)
        with contextlib.suppress(ValueError):
            return reply.status, json.loads(text)
        return reply.status, text.decode(errors="replace")

    def stream(self, path, accept="text/event-stream"):
        conn = http.client.HTTPConnection("127.0.0.1", port_of(self.site), timeout=DEADLINE)
        conn.request("GET", path, headers=self.head(Accept=accept))
        return conn, conn.getresponse()

    def ws(self):
        return WebSocket(("127.0.0.1", port_of(self.site)), **self.head())

    def get(self, path):
        status, body = self.ask("GET", path)
        assert status == 200, (path, status, body)
        return body

    def submit(self, prompt, source=None, **more):
        status, task = self.ask("POST", "/v1/tasks", {"prompt": prompt, "agent": "command", "source": source or {"kind": "none"}, **more})
        assert status == 201, (status, task)
        assert task["project"] == (self.name or "default") and task["created_by"] == f"token:{self.called}"
        self.site.tasks.add(task["id"])
        return task["id"]

    def wait(self, id):
        def over():
            status, task = self.ask("GET", f"/v1/tasks/{id}/wait?timeout=5")
            assert status == 200, task
            return (task["done"] or task["status"] == "WAITING") and task
        return wait_for(f"the end of task {id}", over)

    def run(self, prompt, source=None, status="DONE", **more):
        task = self.wait(self.submit(prompt, source, **more))
        assert task["status"] == status, (task, self.site.log("server")[-2000:])
        return task

    def remove_tasks(self):
        """They are not the owner's to look at, so whoever made them takes them away."""
        for task in self.get("/v1/tasks?limit=200")["data"]:
            if task["status"] in ("QUEUED", "RUNNING", "WAITING"):
                self.ask("POST", f"/v1/tasks/{task['id']}/cancel", {})
                self.wait(task["id"])
            assert self.ask("DELETE", f"/v1/tasks/{task['id']}")[0] == 204
            self.site.tasks.discard(task["id"])
