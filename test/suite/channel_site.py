"""The real server for the tests of the real-time channel: no model, both ways in."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from e2e_site import Site, wait_for  # noqa: E402
from ws_client import WebSocket  # noqa: E402

SILENCE_S = 5  # the least heartbeat limit that the configuration allows: for tests of what comes after it
PATIENCE_S = 120  # for all others: on a slow machine moments are long, and who is late is not dead


def limit(seconds):
    return {"limits": {"heartbeat_timeout": seconds}}


class ChannelSite(Site):
    def __init__(self, **more):
        more.setdefault("config", limit(PATIENCE_S))
        more.setdefault("listen", "127.0.0.1:0")
        super().__init__("root", model=False, **more)

    def ws(self, **more):
        return WebSocket(self.runtime / "signalbox.sock", **more)

    def tcp(self):
        """(address, Host header, bearer token)"""
        line = wait_for("its address", lambda: [line for line in self.log("server").splitlines() if line.startswith("http://")])[-1]
        host = line[len("http://"):]
        return (host.split(":")[0], int(host.split(":")[1])), host, (self.data / "token").read_text().strip()

    def report(self, type, **members):
        status, reply = self.call("POST", "/v1/external", {"type": type, **members})
        assert status == 200, (type, members, status, reply)
        return reply

    def external(self, name, **members):
        """A registered external task; its id."""
        return self.report("register", taskId=name, sessionId="s-" + name, **members)["task"]

    def metric(self, name):
        return float(next(line for line in self.get("/metrics").splitlines() if line.startswith(name + " ")).split()[1])


@pytest.fixture(scope="module")
def site():
    s = ChannelSite()
    yield s
    s.close()


@pytest.fixture(scope="module")
def impatient():
    s = ChannelSite(config=limit(SILENCE_S))
    yield s
    s.close()


@pytest.fixture
def new_site():
    made = []

    def make(**more):
        made.append(ChannelSite(**more))
        return made[-1]
    yield make
    for one in made:
        one.close()
