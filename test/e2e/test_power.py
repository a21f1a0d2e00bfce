"""What is promised by a file, not by the database, is on disk when it is promised: first what is in it, then its name, then the answer."""
import collections
import json
import re

import pytest
from e2e_site import BUILD, CODEX
from gate_steps import ALWAYS, decide, ended, open_gate, submit

WATCH = BUILD / "test" / "libsync_watch.so"
SCENARIOS = """
  - match: "[scenario touch]"
    steps:
      - shell: "echo made >> made.txt"
      - final: "It is decided."
"""
Step = collections.namedtuple("Step", "what file state path")
OPTIONS = {o["name"]: o["value"] for o in json.loads((BUILD / "meson-info" / "intro-buildoptions.json").read_text())}
pytestmark = pytest.mark.skipif(OPTIONS["b_sanitize"] != "none", reason="a sanitizer must be loaded first")


@pytest.fixture
def watched(new_site):
    """A site whose server's syncs and names are written down."""
    site = new_site(scenarios=SCENARIOS, start=False)
    site.watch = site.runtime / "syncs"
    site.start_server(env=site.environment(LD_PRELOAD=str(WATCH), SYNC_WATCH=str(site.watch)))
    return site


def steps(site):
    found = []
    for line in site.watch.read_text().splitlines():
        what, file, size, mtime, path = line.split(" ", 4)
        found.append(Step(what, file, (size, mtime), path))
    return found


def check_named_on_disk(site, pattern):
    """Each file that bears such a name got it after it was synced as it is, and then its directory was."""
    all_steps = steps(site)
    named = [(i, s) for i, s in enumerate(all_steps) if s.what == "name" and re.search(pattern, s.path)]
    assert named, pattern
    for i, step in named:
        assert any(s.what == "sync" and (s.file, s.state) == (step.file, step.state) for s in all_steps[:i]), f"{step.path} was named before it was synced"
        directory = step.path.rpartition("/")[0]
        assert any(s.what == "sync" and s.path == directory for s in all_steps[i:]), f"the directory of {step.path} was not synced"


def test_the_keys_are_on_disk_when_the_server_is_up(watched):
    for key in ("seal.key", "gateway.key"):
        if list(watched.data.rglob(key)):
            check_named_on_disk(watched, re.escape("/" + key) + "$")
    assert list(watched.data.rglob("seal.key"))


def test_an_upload_is_on_disk_when_it_is_acknowledged(watched):
    status, one = watched.call("POST", "/v1/uploads", b"x" * 300_000, {"Content-Type": "application/octet-stream"})
    assert status == 201, one
    check_named_on_disk(watched, rf"/{one['id']}\.data$")
    check_named_on_disk(watched, rf"/{one['id']}\.json$")
    assert watched.call("DELETE", f"/v1/uploads/{one['id']}")[0] == 204


def test_the_part_of_an_upload_that_is_acknowledged_is_on_disk(watched):
    status, one = watched.call("POST", "/v1/uploads?size=600000")
    assert status == 201, one
    check_named_on_disk(watched, rf"/{one['id']}\.json$")
    part = watched.data / "uploads" / f"{one['id']}.part"
    assert watched.call("PATCH", f"/v1/uploads/{one['id']}?offset=0", b"x" * 400_000)[0] == 200
    st = part.stat()
    state = (str(st.st_size), str(st.st_mtime_ns))
    all_steps = steps(watched)
    assert st.st_size == 400_000 and any(s.what == "sync" and s.path == str(part) and s.state == state for s in all_steps)
    assert any(s.what == "sync" and s.path == str(part.parent) for s in all_steps), "its name was not synced"
    assert watched.call("PATCH", f"/v1/uploads/{one['id']}?offset=400000", b"x" * 200_000)[1]["state"] == "complete"
    check_named_on_disk(watched, rf"/{one['id']}\.data$")
    assert watched.call("DELETE", f"/v1/uploads/{one['id']}")[0] == 204


@pytest.mark.skipif(not CODEX.exists(), reason="Codex is not installed")
def test_a_decision_is_on_disk_when_it_is_acknowledged(watched):
    task = submit(watched, "[scenario touch]", approvals=ALWAYS)
    gate = open_gate(watched, task)
    status, reply = decide(watched, gate)
    assert status == 200, reply
    check_named_on_disk(watched, rf"/{gate['id']}\.decision$")
    assert ended(watched, task)["status"] == "DONE"
