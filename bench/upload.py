"""An upload of 1 GiB beside `cp` of the same file, both until it is on disk; and what the server's memory is meanwhile."""
import json
import os
import subprocess
import time

from bench_site import pss_kb

SIZE_MIB = 1024
LOOK_S = 0.02


def make_file(site):
    path = site.path("upload.bin")
    with open(path, "wb") as f:
        for _ in range(SIZE_MIB):
            f.write(os.urandom(1 << 20))
    subprocess.run(["sync", path], check=True)
    return path


def copy_s(site, path):
    """Seconds of cp, and of cp with what makes it durable."""
    to = site.path("copy.bin")
    begun = time.monotonic()
    subprocess.run(["cp", path, to], check=True)
    copied = time.monotonic() - begun
    subprocess.run(["sync", to, os.path.dirname(to)], check=True)
    durable = time.monotonic() - begun
    os.unlink(to)
    return copied, durable


def send_s(site, c, path):
    """Seconds until the upload is acknowledged, and the server's memory at its highest (PSS, kB)."""
    argv = ["curl", "-sf", "--unix-socket", site.socket, "-X", "POST", "-H", "Expect:", "-T", path, "http://localhost/v1/uploads"]
    begun, peak = time.monotonic(), 0
    child = subprocess.Popen(argv, stdout=subprocess.PIPE)
    while child.poll() is None:
        peak = max(peak, pss_kb(site.server.pid))
        time.sleep(LOOK_S)
    took = time.monotonic() - begun
    reply = json.loads(child.stdout.read())
    assert child.returncode == 0 and reply["state"] == "complete" and reply["received"] == SIZE_MIB << 20, reply
    c.request("DELETE", f"/v1/uploads/{reply['id']}")
    c.getresponse().read()
    return took, peak


def rounds(site, count):
    """[(cp, cp and sync, upload, peak kB)], one after the other."""
    c, path, out = site.http(), make_file(site), []
    for _ in range(count):
        out.append((*copy_s(site, path), *send_s(site, c, path)))
    os.unlink(path)
    return out
