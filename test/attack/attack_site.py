"""The whole Signalbox of the end-to-end tests, with its TCP door open and its memory looked at."""
import contextlib

import raw
from e2e_site import ROADS, Site, wait_for

__all__ = ["AttackSite", "wait_for"]
MIB = 1024  # KiB


class AttackSite(Site):
    def __init__(self, **more):
        more.setdefault("listen", "127.0.0.1:0")
        more.setdefault("model", False)
        super().__init__(ROADS[0], **more)

    def tcp(self):
        """(address, Host header)"""
        line = wait_for("its address", lambda: [line for line in self.log("server").splitlines() if line.startswith("http://")])[-1]
        host = line[len("http://"):]
        return (host.split(":")[0], int(host.split(":")[1])), host

    def token(self):
        return (self.data / "token").read_text().strip()

    def head(self):
        """The two headers without which TCP lets nobody in."""
        return f"Host: {self.tcp()[1]}\r\nAuthorization: Bearer {self.token()}\r\n".encode()

    def pss(self):
        return raw.pss_kib(self.server.pid)

    @contextlib.contextmanager
    def bounded(self, kib):
        """What is done inside may cost the server so much memory, no more."""
        before = self.pss()
        yield
        grown = self.pss() - before
        assert grown < kib, f"grown by {grown} KiB, more than {kib}"
