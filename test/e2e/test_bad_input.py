"""What bad input gets: one clear error that names the thing and the next step, and never a half-written workspace."""
import contextlib
import json
import os

import pytest
from e2e_site import ROADS, SECRET, file_url, files_below, rss_kib, wait_for

ASK = {"prompt": "echo x", "agent": "command", "source": {"kind": "none"}}


def refused(site, status, words, **more):
    """A submit that is refused at the door: nothing is on record, nothing on disk."""
    before = {t["id"] for t in site.get("/v1/tasks?limit=200")["data"]}
    doc = {**ASK, **more}
    got, body = site.call("POST", "/v1/tasks", {k: v for k, v in doc.items() if v is not ...})
    assert got in (status, 413, 429), body  # 413 and 429: it is a limit that says no
    assert {"title", "status", "code", "detail"} <= set(body), body
    text = body["detail"] + " " + body.get("hint", "")
    for word in words if isinstance(words, (list, tuple)) else [words]:
        assert word in text, text
    assert {t["id"] for t in site.get("/v1/tasks?limit=200")["data"]} == before
    return body


def ended(site, words, source):
    """A task whose source cannot be had: an ERROR in words, no workspace, no agent."""
    task = site.run("echo x", source, status="ERROR")
    assert task["reason"].startswith("source_"), task
    for word in words if isinstance(words, (list, tuple)) else [words]:
        assert word in task["error"], task["error"]
    assert [e for e in site.events(task["id"]) if e["type"] in ("workspace.ready", "run.started")] == []
    wait_for("the work directory to go", lambda: not (site.data / "work" / f"{task['id']}.main").exists())
    return task


@pytest.mark.parametrize("more, words", [
    ({"agent": "nobody"}, ["unknown agent 'nobody'", "command"]),
    ({"environment": "mars"}, ["unknown environment 'mars'", "default"]),
    ({"colour": "red"}, "colour"),
    ({"limits": {"speed": 1}}, "speed"),
    ({"source": {"kind": "none", "extra": 1}}, "extra"),
    ({"source": {"kind": "ftp"}}, "kind"),
    ({"source": {"kind": "git"}}, "url"),
    ({"source": {"kind": "git", "url": "gopher://x/y"}}, "gopher"),
    ({"source": {"kind": "git", "url": "ext::sh -c true"}}, "ext::sh -c true"),
    ({"source": {"kind": "git", "url": "--upload-pack=touch /tmp/x"}}, "--upload-pack=touch /tmp/x"),
    ({"source": {"kind": "local", "dir": "relative/dir"}}, "relative/dir"),
    ({"source": "x"}, "source"),
    ({"prompt": ...}, "prompt"), ({"prompt": ""}, "prompt"), ({"prompt": 7}, "prompt"), ({"prompt": ["a"]}, "prompt"),
    ({"name": "has space"}, "has space"), ({"name": "../up"}, "../up"), ({"name": "-x"}, "-x"), ({"name": "n" * 65}, "name"), ({"name": 5}, "name"),
    ({"labels": {"a": 1}}, "labels.a"), ({"labels": ["a"]}, "labels"), ({"labels": {"a": "x" * 300}}, "labels.a"),
    ({"env": {"A=B": "x"}}, "A=B"), ({"env": {"A": 1}}, "env.A"), ({"env": "A=B"}, "env"),
    ({"priority": "high"}, "priority"), ({"priority": 1 << 40}, "priority"), ({"priority": 1.5}, "priority"),
    ({"timeout_ms": -1}, "timeout_ms"), ({"timeout_ms": 1 << 60}, "timeout_ms"), ({"timeout_ms": "1h"}, "timeout_ms"),
    ({"limits": {"memory": "lots"}}, "memory"), ({"limits": {"memory": 1}}, "memory"), ({"limits": {"pids": -5}}, "pids"), ({"limits": 3}, "limits"),
    ({"mode": "wild"}, "wild"), ({"setup_network": "all"}, "all"), ({"setup": 1}, "setup"), ({"verify": {}}, "verify"), ({"model": 1}, "model"),
], ids=lambda v: json.dumps(v, default=lambda o: "absent")[:40] if isinstance(v, dict) else "")
def test_a_request_that_makes_no_sense_is_refused_with_the_name_of_what_is_wrong(site, more, words):
    refused(site, 400, words, **more)


def test_a_prompt_that_is_too_long_is_refused_with_the_limit(site):
    refused(site, 413, ["prompt", "1048576"], prompt="x" * ((1 << 20) + 1))


def test_a_body_that_is_too_large_or_not_json_is_refused(site):
    for data, status in ((b"{" * 100, 400), (b'{"prompt": "\xff\xfe"}', 400), (b'["x"]', 400), (b"", 400), (b'{"a":' * 5000 + b"1" + b"}" * 5000, 400)):
        got, body = site.call("POST", "/v1/tasks", data)
        assert got == status and body["detail"], (data[:20], got, body)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may hang up before it was told everything
        assert site.call("POST", "/v1/tasks", b" " * (5 << 20))[0] == 413
    assert site.is_up()


def test_a_name_that_is_taken_is_a_conflict_on_the_command_line_too(site):
    site.run("echo x", name="taken")
    refused(site, 409, "taken", name="taken")
    done = site.cli("start", "--repo", "-", "--agent", "command", "--name", "taken", "echo x")
    assert done.returncode == 6 and "taken" in done.stderr, done.stderr


def test_a_ref_that_does_not_exist_is_named(site):
    repo = site.path("repo")
    site.sh("echo a > a; git init -qb main; git add -A; git commit -qm x", repo)
    ended(site, ["nowhere-branch"], {"kind": "git", "url": file_url(repo), "ref": "nowhere-branch"})
    ended(site, ["0123456789abcdef0123456789abcdef01234567"], {"kind": "git", "url": file_url(repo), "ref": "0123456789abcdef0123456789abcdef01234567"})
    for ref in ("--upload-pack=x", "a..b", "a b", "-x", "a\nb", "refs/heads/../x"):
        refused(site, 400, "ref", source={"kind": "git", "url": file_url(repo), "ref": ref})


def test_a_repository_that_is_not_there_or_empty_is_named(site):
    nothing = site.path("nothing")
    ended(site, [nothing.name], {"kind": "git", "url": file_url(nothing)})
    ended(site, ["not-there"], {"kind": "git", "url": file_url(site.dir / "not-there")})
    site.sh("git init -qb main", nothing)
    ended(site, [nothing.name], {"kind": "git", "url": file_url(nothing)})


def test_an_empty_local_repository_is_a_source_like_another(site):
    empty = site.path("empty")
    site.sh("git init -qb main", empty)
    task = site.run("echo x > made.txt", {"kind": "local", "dir": str(empty)})
    assert [f["path"] for f in task["result"]["files"]] == ["made.txt"]


@pytest.mark.parametrize("url, words", [("http://127.0.0.1:1/x.git", "127.0.0.1"), ("http://host.invalid/x.git", "host.invalid"), ("ssh://host.invalid/x.git", "host.invalid")])
def test_a_host_that_cannot_be_reached_is_named(site, url, words):
    ended(site, [words], {"kind": "git", "url": url})


def test_a_directory_that_is_missing_a_file_or_not_ours_is_named(site):
    refused(site, 404, "not-there", source={"kind": "local", "dir": str(site.dir / "not-there")})
    file = site.dir / "a-file"
    file.write_text("x")
    assert site.call("POST", "/v1/tasks", {**ASK, "source": {"kind": "local", "dir": str(file)}})[0] in (400, 404)
    if site.user:
        status, body = site.call("POST", "/v1/tasks", {**ASK, "source": {"kind": "local", "dir": "/root"}})
        assert status in (400, 403, 404) and "/root" in body["detail"], body


def test_names_with_newlines_and_bytes_that_are_no_text_are_kept_or_named(site):
    odd = site.path("odd")
    names = [b"new\nline", b"tab\there", b"quote\"d", b"latin-\xe9", b" lead", b"-dash", b"uml\xc3\xa4ut"]
    for name in names:
        (odd / os.fsdecode(name)).write_text("one\n")
    site.own(odd)
    before = sorted(os.listdir(os.fsencode(odd)))
    task = site.run("for f in *; do echo two >> \"./$f\"; done; ls | wc -l", {"kind": "local", "dir": str(odd)})
    assert [n for n in sorted(os.listdir(os.fsencode(odd))) if n != b".codex"] == before
    assert len(task["result"]["files"]) + len(task["result"].get("skipped", [])) == len(names), task["result"]
    done = site.cli("apply", task["id"], cwd=odd)
    assert done.returncode == 0, done.stderr
    changed = [n for n in names if (odd / os.fsdecode(n)).read_text() == "one\ntwo\n"]
    assert len(changed) == len(task["result"]["files"])


@pytest.mark.parametrize("words, status, says", [
    (["run", "--agent", "nobody", "--repo", "-", "x"], 2, ["nobody", "command"]),
    (["run", "--frobnicate", "x"], 2, ["--frobnicate"]),
    (["frobnicate"], 2, ["frobnicate"]),
    (["run", "--repo", "-"], 2, ["PROMPT"]),
    (["show", "no-such-task"], 5, ["no-such-task"]),
    (["cancel", "no-such-task"], 5, ["no-such-task"]),
    (["diff", "no-such-task"], 5, ["no-such-task"]),
    (["wait", "no-such-task"], 5, ["no-such-task"]),
    (["run", "--repo", "-", "--timeout", "soon", "x"], 2, ["soon"]),
    (["run", "--repo", "-", "--limit", "speed=1", "x"], 2, ["speed=1", "memory"]),
    (["run", "--repo", "/nowhere/at/all", "x"], 2, ["/nowhere/at/all"]),
    (["--server", "unix:/nowhere/s.sock", "ls"], 7, ["/nowhere/s.sock"]),
], ids=lambda v: " ".join(v)[:30] if isinstance(v, list) else "")
def test_the_command_line_says_what_is_wrong_with_its_exit_status_and_the_next_step(site, words, status, says):
    done = site.cli(*words)
    assert done.returncode == status, (done.returncode, done.stderr)
    assert done.stdout == "" and all(word in done.stderr for word in says), done.stderr
    assert SECRET not in done.stderr and len(done.stderr.splitlines()) <= 8, done.stderr


def test_a_server_that_is_not_there_is_an_exit_status_of_its_own(new_site):
    site = new_site(model=False, start=False)
    done = site.cli("ls")
    assert done.returncode == 7 and str(site.runtime / "signalbox.sock") in done.stderr and "signalbox serve" in done.stderr, done.stderr


@pytest.mark.parametrize("config, words", [
    ({"limits": {"running": 0}}, "running"), ({"limits": {"memory": "a lot"}}, "memory"), ({"limits": {"speed": 5}}, "speed"), ({"limits": {"timeout": "-3s"}}, "timeout"),
    ({"modell": {}}, "modell"), ({"model": {"providers": {"p": {"url": "x"}}}}, "url"), ({"sandbox": {"layers": "onion"}}, "onion"), ({"agents": {"a": {"adaptor": "x"}}}, "adaptor"),
], ids=lambda v: json.dumps(v)[:30] if isinstance(v, dict) else "")
def test_a_configuration_that_makes_no_sense_stops_the_server_with_its_name(new_site, config, words):
    site = new_site(model=False, start=False, config=config)
    server = site.start_server(wait=False)
    assert server.wait(120) != 0
    assert words in site.log("server") and str(site.config_file) in site.log("server"), site.log("server")
    assert not (site.data / "signalbox.db").exists()


def without_bwrap(site):
    """A PATH that has everything but bubblewrap."""
    at = site.path("bin")
    for directory in ("/usr/bin", "/usr/sbin"):
        for name in os.listdir(directory):
            if name != "bwrap" and not (at / name).exists():
                (at / name).symlink_to(os.path.join(directory, name))
    return str(at)


def test_without_bubblewrap_it_is_named_with_the_next_step_and_nothing_is_left(new_site):
    site = new_site(model=False, start=False)
    site.start_server(env=site.environment(PATH=without_bwrap(site)))
    status, body = site.call("GET", "/readyz?verbose")
    assert status == 503 and any("bubblewrap" in (c["text"] or "") for c in body["checks"] if not c["ok"]), body
    done = site.cli("run", "--repo", "-", "--agent", "command", "echo x")
    told = done.stdout + done.stderr
    assert done.returncode == 1 and ("bubblewrap" in told or "bwrap" in told), told
    site.tasks |= {t["id"] for t in site.get("/v1/tasks")["data"]}
    assert "install" in told, "no next step: " + told


# A user namespace of our own in which no other may be made: what a hardened host is for an ordinary user.
NO_NAMESPACES = ["unshare", "-U", "--map-current-user", "--keep-caps", "bash", "-c",
                 'echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --ambient-caps -all --inh-caps -all "$@"', "-"]


def test_without_user_namespaces_they_are_named_with_the_next_step_and_nothing_is_left(new_site, road):
    if road == "root":
        pytest.skip("root there could not become another uid, which is another story")
    site = new_site(model=False, start=False)
    site.start_server(prefix=NO_NAMESPACES, wait=False)  # it does not know our root: only its user may ask
    wait_for("the server", lambda: site.cli("ls").returncode == 0)
    doctor = site.cli("doctor")
    assert doctor.returncode != 0 and "user namespaces" in doctor.stdout + doctor.stderr and "allow" in doctor.stdout + doctor.stderr, doctor
    done = site.cli("run", "--repo", "-", "--agent", "command", "echo x")
    told = done.stdout + done.stderr
    assert done.returncode == 1 and "namespace" in told, told
    wait_for("the work directory to go", lambda: not list((site.data / "work").iterdir()))
    site.stop_server()


def size_of(path):
    total = 0
    for file in files_below(path):
        with contextlib.suppress(FileNotFoundError):  # its runner puts the workspace away still
            total += file.stat().st_size
    return total


def test_an_agent_that_writes_a_gigabyte_costs_bounded_disk_and_memory_and_is_counted(site):
    size = 1 << 30 if site.road == ROADS[0] else 1 << 27  # once the whole; what is kept and counted is the same code on each road
    # Held first, so that the runner can be watched from the beginning.
    id = site.submit("until [ -e ~/go ]; do sleep 0.02; done; yes 'a line of some length that is written again and again' | " f"head -c {size}; echo; echo the end",
                     limits={"output": "4M"}, timeout_ms=400000)
    wait_for("the agent", lambda: site.task(id)["phase"] == "running" and (site.task(id)["run"] or {}).get("pid"))
    runner = site.task(id)["run"]["pid"]
    site.release(id)
    most = [0, 0]

    def over():
        most[0], most[1] = max(most[0], rss_kib(runner)), max(most[1], rss_kib(site.server.pid))
        return site.task(id)["completed_at"]
    wait_for("the flood's end", over, 400)
    task = site.wait(id)
    assert task["status"] == "DONE", site.story(id)
    cut = [e["data"] for e in site.events(id, "agent.truncated")]
    assert sum(c["bytes"] for c in cut if c.get("what") == "output") + (site.run_dir(id) / "runtime/events.jsonl").stat().st_size == size + len("\nthe end\n")
    assert size_of(site.directory(id)) < 64 << 20, size_of(site.directory(id))
    assert most[0] < 64 << 10 and most[1] < 200 << 10, f"KiB at most: runner {most[0]}, server {most[1]}"


def test_one_line_without_end_costs_bounded_memory_too(site):
    task = site.run("head -c 67108864 /dev/zero | tr '\\0' x; echo; echo the end", limits={"output": "4M"}, timeout_ms=170000)
    assert site.events(task["id"], "agent.truncated")
    assert size_of(site.directory(task["id"])) < 64 << 20
