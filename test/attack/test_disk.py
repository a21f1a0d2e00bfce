"""A record on a disk of 16 MiB: when it is full, work is refused and nothing is acknowledged that is not kept; with room again all goes on."""
import contextlib
import http.client
import json
import os
import subprocess

import pytest
from attack_site import AttackSite, wait_for
from e2e_site import IS_ROOT

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="a file system of one's own wants root")
HOLD = 'mount -t tmpfs -o size=16m none "$1"; touch "$1.ready"; exec sleep infinity'


class SmallDisk(AttackSite):
    """Its server sees a small file system where the record is, in a mount namespace that outlives it and ends with the test."""

    def __init__(self, dead_port):
        super().__init__(start=False)
        self.nowhere = f"http://127.0.0.1:{dead_port}/x.git"
        self.data.mkdir(mode=0o711)
        self.holder = subprocess.Popen(["unshare", "-m", "bash", "-ec", HOLD, "-", str(self.data)], stdin=subprocess.DEVNULL)
        self.children.append(self.holder)  # ends with the site
        wait_for("the file system", (self.dir / "data.ready").exists)
        self.start_server(prefix=("nsenter", "-m", "-t", str(self.holder.pid)))

    def inside(self, *argv):
        return subprocess.run(["nsenter", "-m", "-t", str(self.holder.pid), *map(str, argv)], capture_output=True, text=True)

    def restart(self):
        self.kill_server()
        self.start_server(prefix=("nsenter", "-m", "-t", str(self.holder.pid)))


@pytest.fixture
def small(dead_port):
    s = SmallDisk(dead_port)
    yield s
    s.close()


def submit(site, size):
    body = {"prompt": "true #" + "x" * size, "agent": "command", "source": {"kind": "git", "url": site.nowhere}}
    return site.call("POST", "/v1/tasks", body)


def fill(site, size, most=400):
    """Submits until it is refused; ids of what was acknowledged, and the refusal."""
    kept = []
    for _ in range(most):
        status, body = submit(site, size)
        if status != 201:
            return kept, status, body
        kept.append(body["id"])
    raise AssertionError("never full")


def check_kept(site, kept):
    for id in kept:
        status, task = site.call("GET", f"/v1/tasks/{id}")
        assert status == 200 and task["id"] == id and task["prompt"].startswith("true #x"), (id, status, task)


def test_a_full_disk_refuses_and_what_was_acknowledged_is_there(small):
    kept, status, body = fill(small, 200000)
    assert kept and status in (503, 507) and body["detail"], (status, body)
    check_kept(small, kept)
    assert small.is_up()
    refused = 0
    for size in (200000, 200000, 300000):
        status, body = submit(small, size)
        if status == 201:
            kept.append(body["id"])
        else:
            assert status in (503, 507), (status, body)
            refused += 1
    assert refused
    small.restart()
    check_kept(small, kept)
    wait_for("a readable list", lambda: small.call("GET", "/v1/tasks?limit=5")[0] == 200)


def test_with_room_again_it_takes_work_again_without_a_restart(small):
    room = small.data / "room"
    assert small.inside("dd", "if=/dev/zero", f"of={room}", "bs=1M", "count=10").returncode == 0
    kept, status, body = fill(small, 100000)
    assert status in (503, 507), (status, body)
    assert small.inside("rm", room).returncode == 0

    def taken():
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, body = submit(small, 1000)
            return status == 201 and kept.append(body["id"]) is None
    wait_for("work to be taken again", taken)
    check_kept(small, kept)


def test_a_record_that_cannot_grow_is_told_and_never_torn(small):
    def refused():
        """With the disk full to the last byte; a server that has just started may clear up behind itself meanwhile, and has room again."""
        small.inside("sh", "-c", f"dd if=/dev/zero of={small.data}/room bs=1k count=16384 oflag=append conv=notrunc 2>/dev/null; true")
        status, body = submit(small, 10)
        assert status in (201, 503, 507), (status, body)
        return status != 201
    wait_for("a refusal", refused)
    ready = small.call("GET", "/readyz?verbose")
    assert small.inside("rm", f"{small.data}/room").returncode == 0
    wait_for("work to be taken again", lambda: submit(small, 10)[0] == 201)
    assert json.dumps(ready[1]) and os.path.exists(small.runtime)
