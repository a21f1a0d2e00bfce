"""Verbs of the command line on a real server: several tasks at once, attach, open, one's own server, doctor."""
import json
import os
import pty
import select
import subprocess

from e2e_site import DEADLINE, PROGRAM, is_alive, wait_for

SITE = {"model": False}
HOLD = "until [ -e ~/go ]; do sleep 0.02; done"


def test_cancel_retry_and_rm_go_on_past_one_that_is_not_there(site):
    a, b = site.submit(HOLD), site.submit(HOLD)
    wait_for("both to run", lambda: all(site.task(t)["phase"] == "running" for t in (a, b)))
    done = site.cli("cancel", a, "missing", b)
    assert done.returncode == 5 and "missing" in done.stderr
    assert [line.split("\t") for line in done.stdout.splitlines()] == [[a, "CANCELED"], [b, "CANCELED"]]
    done = site.cli("retry", "missing", a)
    assert done.returncode == 5 and a in done.stdout
    done = site.cli("rm", "missing", a, b)
    assert done.returncode in (5, 6) and "missing" in done.stderr and site.call("GET", f"/v1/tasks/{b}")[0] == 404
    assert site.cli("rm", "--force", a).returncode == 0
    site.tasks -= {a, b}
    assert site.cli("rm", "missing").returncode == 5


def test_an_id_may_be_written_by_its_beginning(site):
    id = site.run("echo whole")["id"]
    other = site.run("echo other")["id"]
    short = id[:len(os.path.commonprefix([id, other])) + 1]
    assert site.cli("show", "--json", short).stdout.startswith('{"id":"' + id)
    done = site.cli("show", id[:6])
    assert done.returncode == 6 and id in done.stderr and other in done.stderr


def test_labels_and_words_choose_what_ls_shows(site):
    for n in range(3):
        done = site.cli("run", "--repo", "-", "--agent", "command", "--label", f"n={n}", "--label", "kind=shown", "--name", f"shown-{n}", f"echo mongoose{n}")
        assert done.returncode == 0, done.stderr
    site.tasks |= {t["id"] for t in site.get("/v1/tasks?label=kind=shown")["data"]}

    def names(*words):
        return [line.split("\t")[1] for line in site.cli("ls", *words).stdout.splitlines()]
    assert names("--label", "kind=shown") == ["shown-2", "shown-1", "shown-0"]
    assert names("--label", "kind=shown", "--label", "n=1") == ["shown-1"] == names("--search", "mongoose1") == names("--name", "shown-1")
    assert names("-l", "kind", "-n", "1") == ["shown-2"]
    assert names("--search", "mongoose*", "--state", "error") == []


def test_attach_shows_what_comes_and_ends_with_the_outcome(new_site):
    site = new_site(model=False)
    id = site.submit(f"echo before; {HOLD}; echo after; exit 3")
    wait_for("its first word", lambda: site.events(id, "message.done"))
    child = subprocess.Popen([str(PROGRAM), "attach", "--tail", "0", id], env=site.environment(), cwd=site.home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, **site.identity())
    site.children.append(child)
    wait_for("the stream", lambda: "signalbox_http_streams 1\n" in site.call("GET", "/metrics")[1])
    site.release(id)
    out, err = child.communicate(timeout=DEADLINE)
    assert child.returncode == 1 and "after" in err + out and "before" not in err, (out, err)
    assert site.cli("attach", id).returncode == 1, "one that has ended tells its end"


def test_what_is_said_while_attached_is_the_next_turn(site):
    id = site.submit("echo first")
    site.wait(id)
    again = site.submit(f"{HOLD}; echo first")
    wait_for("it to run", lambda: site.task(again)["phase"] == "running")
    child = subprocess.Popen([str(PROGRAM), "attach", "--input", again], env=site.environment(), cwd=site.home, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, **site.identity())
    site.children.append(child)
    child.stdin.write("echo second\n")
    child.stdin.close()
    wait_for("what was said", lambda: site.events(again, "message.queued") or site.events(again, "task.turn"))
    site.release(again)
    child.stdin = None
    child.communicate(timeout=DEADLINE)
    wait_for("the second turn", lambda: site.events(again, "task.turn"))
    assert site.wait(again)["status"] == "DONE"
    assert site.events(again, "task.turn")[0]["data"]["text"] == "echo second"


def test_ctrl_c_while_attached_only_detaches(site):
    id = site.submit(f"echo spoken; {HOLD}")
    wait_for("its first word", lambda: site.events(id, "message.done"))
    primary, secondary = pty.openpty()
    child = subprocess.Popen([str(PROGRAM), "attach", id], env=site.environment(TERM="xterm"), cwd=site.home, stdin=secondary, stdout=secondary, stderr=secondary,
                             start_new_session=True, **site.identity())
    site.children.append(child)
    os.close(secondary)
    seen, told = b"", False
    while select.select([primary], [], [], DEADLINE)[0]:
        try:
            seen += os.read(primary, 4096)
        except OSError:  # the other side is closed
            break
        if b"spoken" in seen and not told:
            child.send_signal(2)
            told = True
    os.close(primary)
    assert child.wait(DEADLINE) == 130 and b"detached" in seen, seen
    assert site.task(id)["status"] == "RUNNING"
    site.release(id)


def test_open_tells_where_a_task_is(site):
    id = site.run("true")["id"]
    done = site.cli("open", id)
    assert done.returncode == 0 and done.stdout.strip() == str(site.directory(id)) and "no page" in done.stderr
    assert json.loads(site.cli("open", "--json", id).stdout) == {"url": None, "directory": str(site.directory(id))}
    assert site.cli("open", "missing").returncode == 5


def test_ones_own_server_starts_tells_reloads_and_stops(new_site):
    site = new_site(model=False, start=False)
    assert site.cli("server", "status").returncode == 7
    assert site.cli("server", "stop").returncode == 0, "it is stopped already"
    started = site.cli("server", "start", "--json", env={"SIGNALBOX_AUTOSTART": "true"})
    assert started.returncode == 0, started.stderr
    pid = json.loads(started.stdout)["pid"]
    try:
        assert json.loads(site.cli("server", "status", "--json").stdout)["pid"] == pid
        assert "nothing has changed" in site.cli("server", "reload").stderr
        held = site.cli("start", "--repo", "-", "--agent", "command", "--json", HOLD)
        id = json.loads(held.stdout)["id"]
        site.tasks.add(id)
        wait_for("it to run", lambda: site.task(id)["phase"] == "running")
        stopped = site.cli("server", "stop")
        assert stopped.returncode == 0 and not is_alive(pid) and "go on" in stopped.stderr
        again = site.cli("server", "start", "--json", env={"SIGNALBOX_AUTOSTART": "true"})
        pid = json.loads(again.stdout)["pid"]
        assert site.task(id)["status"] == "RUNNING"
        stopped = site.cli("server", "stop", "--runs")
        assert stopped.returncode == 0 and not is_alive(pid) and site.gateway_pid() is None
    finally:
        if is_alive(pid):
            os.kill(pid, 15)
            wait_for("its end", lambda: not is_alive(pid))
    assert site.cli("server", "dance").returncode == 2


def test_doctor_finds_all_that_a_run_needs(site):
    done = site.cli("doctor", "--json")
    checks = {c["name"]: c for c in json.loads(done.stdout)["checks"] if c["where"] == "here"}
    for name in ("disk", "inodes", "memory", "files", "git", "bwrap", "namespaces", "cgroup", "clock", "login", "service", "provider", "gateway", "server"):
        assert checks[name]["ok"], checks[name]
    assert done.returncode == 0, done.stdout
