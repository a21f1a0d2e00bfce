"""A hostile agent through the whole system: it finds every door closed, and what it leaves behind is never executed or believed."""
import contextlib
import os
import pty
import shutil
import socket
import subprocess

import pytest
from e2e_site import BUILD, PROGRAM, ROOT, file_url, wait_for

CANARY = "signalbox-canary"


def hostile_program():
    for top, _, files in os.walk(BUILD):
        if "hostile" in files and os.access(os.path.join(top, "hostile"), os.X_OK):
            return os.path.join(top, "hostile")
    return None


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The program of test/suite/hostile, as it was built or built now."""
    found = hostile_program()
    if found:
        return found
    out = tmp_path_factory.mktemp("hostile") / "hostile"
    subprocess.run(["cc", "-O1", "-D_GNU_SOURCE", "-o", str(out), str(ROOT / "test/suite/hostile/hostile.c")], check=True)
    return str(out)


def local(path):
    return {"kind": "local", "dir": str(path)}


def said(site, id):
    return (site.run_dir(id) / "runtime/events.jsonl").read_text(errors="replace")


def test_a_hostile_agent_finds_every_door_closed(site, hostile):
    repo = site.path("repo")
    shutil.copy(hostile, repo / "hostile")
    other = site.submit("until [ -e ~/go ]; do sleep 0.05; done", env={"OTHERS_SECRET": "nobody-else-sees-this"})
    wait_for("the other task", lambda: site.task(other)["phase"] == "running")
    others = [str(p) for p in (site.dir, site.data, site.runtime, site.runtime / "signalbox.sock", site.runtime / "runner.sock", site.runtime / "gateway-control.sock",
                               site.directory(other), site.data / "cache", site.data / "signalbox.db", site.config_file, ROOT, "/root", "/home/sbtest")]
    with socket.socket(socket.AF_UNIX) as listener:
        name = f"signalbox-hostile-{os.getpid()}"  # the machine's: others test too
        listener.bind("\0" + name)
        listener.listen()
        task = site.run(f"./hostile {name} {' '.join(others)}; echo ended $?", local(repo))
    lines = said(site, task["id"]).splitlines()
    assert [line for line in lines if line.startswith("OPEN")] == [], "\n".join(lines)
    assert len([line for line in lines if line.startswith("refused")]) > 50 and "ended 0" in lines
    site.release(other)
    site.wait(other)


PROBES = {
    "the server's sockets": "find / -xdev -name '*.sock' -not -path '/proc/*' 2>/dev/null | grep -v /run/signalbox/gateway/model.sock; true",
    "another task's files": "grep -rl OTHERS_MARK / --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr --exclude=prompt.txt 2>/dev/null; true",
    "another task's processes": "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null; done | grep -c '864[3]1' | grep -v '^0$'; true",
    "paths of the host": "(cat /proc/1/cmdline /proc/*/cgroup; grep -o 'lowerdir=.*' /proc/self/mountinfo) 2>/dev/null | tr '\\0' ' ' | grep -o 'sbe2[e][a-z0-9_]*'; true",
    "the network": "cat /proc/net/route /proc/net/dev | grep -v lo: | grep :; getent hosts deb.debian.org; true",
    "passwords": "cat /etc/shadow /etc/gshadow 2>/dev/null; grep -c sbtest /etc/passwd | grep -v '^0$'; true",
    "a place to write": "for d in / /etc /usr /usr/bin /run /dev /var /home /run/signalbox; do touch $d/written 2>/dev/null && echo $d; done; true",
    "root": "id -u | grep '^0$'; sudo -n true 2>/dev/null && echo sudo; unshare -Ur true 2>/dev/null && echo unshare; true",
}


@pytest.mark.parametrize("what", PROBES)
def test_inside_there_is_no_way_to(site, what):
    other = site.submit("echo OTHERS_MARK > ~/mark; echo OTHERS_MARK > mark; sleep 86431 & until [ -e ~/go ]; do sleep 0.05; done")
    wait_for("the other task", lambda: site.task(other)["phase"] == "running" and (site.directory(other) / "agents/main/home/mark").exists())
    task = site.run(f"echo begun; {PROBES[what]}; echo ended")
    assert said(site, task["id"]).split("\n") == ["begun", "ended", ""], what
    site.release(other)
    site.wait(other)


def test_the_mirror_is_read_only_for_the_agent(site):
    repo = site.path("repo")
    site.sh("echo a > a; git init -q; git add -A; git commit -qm x", repo)
    site.run("o=$(sed 's#^#/#' .git/objects/info/alternates | tr -s /); find $o -type f | head -3; touch $o/x $o/pack/x 2>&1; rm -rf $o/* 2>&1; find $o -type f -exec chmod u+w {} + 2>&1; true",
             {"kind": "git", "url": file_url(repo)})
    again = site.run("git fsck --full 2>&1; cat a", {"kind": "git", "url": file_url(repo)})
    assert said(site, again["id"]).split()[-1] == "a"
    bare = [p for p in (site.data / "cache").rglob("HEAD") if (p.parent / "objects").is_dir() and ".git" != p.parent.name]
    assert bare
    for p in bare:
        site.sh(f"git -c safe.directory='*' --git-dir={p.parent} fsck --full", site.home)


# Each leaves something that a careless git, shell or reader outside would run. {c}: what must not run.
TRAPS = {
    "fsmonitor": "git config core.fsmonitor '{c}'; git config core.fsmonitorHookVersion 1",
    "hooks": "mkdir -p .git/hooks; for h in post-checkout pre-commit post-index-change reference-transaction pre-auto-gc post-rewrite; do printf '#!/bin/sh\\n{c}\\n' > .git/hooks/$h; chmod +x .git/hooks/$h; done",
    "hookspath": "mkdir h; for h in post-checkout post-index-change reference-transaction; do printf '#!/bin/sh\\n{c}\\n' > h/$h; chmod +x h/$h; done; git config core.hooksPath /workspace/h",
    "filters": "git config filter.x.clean '{c}'; git config filter.x.smudge '{c}'; git config filter.x.process '{c}'; echo '* filter=x' > .gitattributes; echo '* filter=x' > .git/info/attributes",
    "textconv": "git config diff.x.textconv '{c}'; git config diff.x.command '{c}'; git config diff.external '{c}'; echo '* diff=x' > .gitattributes",
    "pager": "git config core.pager '{c}'; git config pager.diff '{c}'; git config core.editor '{c}'; git config sequence.editor '{c}'; git config core.sshCommand '{c}'; git config credential.helper '!{c}'; git config gpg.program '{c}'",
    "alias": "git config alias.diff '!{c}'; git config alias.diff-index '!{c}'; git config alias.apply '!{c}'; git config include.path /workspace/evil.cfg; printf '[core]\\n fsmonitor = {c}\\n' > evil.cfg",
    "gitdir": "mv .git elsewhere; echo 'gitdir: /workspace/elsewhere' > .git; git config core.fsmonitor '{c}'",
    "worktree": "git config core.worktree /; git config core.fsmonitor '{c}'; git config extensions.worktreeConfig true; printf '[core]\\n fsmonitor = {c}\\n' > .git/config.worktree",
    "submodule": "git init -q sub; git -C sub config core.fsmonitor '{c}'; git -C sub -c user.name=a -c user.email=a@b commit -q --allow-empty -m x; printf '[submodule \"s\"]\\n path = sub\\n url = ext::{c}\\n update = !{c}\\n' > .gitmodules",
    "alternates": "printf '/etc\\n' >> .git/objects/info/alternates; rm -rf .git/objects/pack; ln -s /etc .git/refs/x",
    "home": "printf '[core]\\n fsmonitor = {c}\\n' > ~/.gitconfig; mkdir -p ~/.config/git; cp ~/.gitconfig ~/.config/git/config; printf '{c}\\n' > ~/.bashrc; cp ~/.bashrc ~/.profile; cp ~/.bashrc ~/.bash_profile; cp ~/.bashrc ~/.bash_env",
    "names": "touch -- '$({c})' '`{c}`' ';{c};' '--output={n}' '-c core.fsmonitor={n}' 'a|{c}' \"$(printf 'new\\nline')\"; mkdir -- '--upload-pack={n}'; touch -- '--upload-pack={n}/x'",
    "links": "rm -f edit.txt; ln -s /etc/passwd edit.txt; ln -s /proc/self/environ env; ln -s / root; mkdir d; ln -s ../../../../../../../../../../../../tmp d/tmp; ln -s {p} artifacts",
    "final": "ln -s /etc/passwd ~/final.json; ln -sf /etc/passwd ~/prompt.txt; ln -sf /etc/shadow ~/.codex",
}


@pytest.mark.parametrize("trap", TRAPS)
def test_nothing_that_the_agent_left_is_executed_outside(site, trap):
    place = site.path("canary")
    place.chmod(0o777)
    canary = place / CANARY
    command = f"touch {canary}"
    repo = site.path("repo")
    site.sh("echo one > edit.txt; git init -qb main; git add -A; git commit -qm first", repo)
    script = TRAPS[trap].replace("{c}", command).replace("{n}", CANARY).replace("{p}", str(canary))
    task = site.wait(site.submit(f"echo two >> edit.txt; {script}; true", local(repo), verify="cat edit.txt > /dev/null; git status > /dev/null 2>&1; true", name=f"trap-{trap}"))
    assert task["status"] == "DONE" or trap == "final", site.story(task["id"])
    patch = site.patch(task["id"])
    assert b"root:x:0:0" not in patch and b"root:" not in patch, "a link was followed"
    assert not canary.exists()

    # The person's own next steps: look, list, apply; and another run on what is there now.
    for words in (["diff", task["id"]], ["show", task["id"]], ["logs", task["id"]], ["events", task["id"]], ["artifacts", task["id"]], ["ls"]):
        done = site.cli(*words, cwd=repo)
        assert done.returncode == 0, (words, done.stderr)
        assert "\x1b" not in done.stdout
    applied = site.cli("apply", task["id"], cwd=repo)
    assert applied.returncode in (0, 6), applied.stderr
    assert not canary.exists()
    status, again = site.call("POST", "/v1/tasks", {"prompt": "echo three >> other.txt; git status > /dev/null 2>&1; true", "agent": "command", "source": local(repo)})
    if status == 201:
        site.tasks.add(again["id"])
        assert site.wait(again["id"])["status"] == "DONE", site.story(again["id"])
    else:  # a .gitmodules with such a URL is refused by name
        assert trap == "submodule" and "git's own checks" in again["detail"], again
    found = [top for top, _, files in os.walk(site.dir) if CANARY in files]
    assert found == [], "what the agent wrote was executed"


def test_a_source_that_is_full_of_traps_runs_nothing_either(site):
    place = site.path("canary")
    place.chmod(0o777)
    canary = place / CANARY
    repo = site.path("repo")
    site.sh(f"""echo one > edit.txt; git init -qb main; git add -A; git commit -qm first
        git config core.fsmonitor 'touch {canary}'; git config core.hooksPath {repo}/hooks; git config filter.x.clean 'touch {canary}; cat'; git config filter.x.smudge 'touch {canary}; cat'
        mkdir hooks; for h in post-checkout post-index-change reference-transaction pre-commit; do printf '#!/bin/sh\\ntouch {canary}\\n' > hooks/$h; chmod +x hooks/$h; done
        git config uploadpack.packObjectsHook 'touch {canary}'; echo '* filter=x' > .git/info/attributes; git config core.alternateRefsCommand 'touch {canary}'""", repo)
    with contextlib.suppress(FileNotFoundError):
        canary.unlink()
    site.sh("echo '* filter=x' > .gitattributes; echo dirty >> edit.txt", repo)
    assert not canary.exists()
    for source in (local(repo), {"kind": "git", "url": file_url(repo)}):
        task = site.run("echo two >> edit.txt", source)
        assert not canary.exists(), source
        assert [f["path"] for f in task["result"]["files"]] == ["edit.txt"]


def on_a_terminal(site, *words):
    """What the command line writes when its output is a terminal."""
    here, there = pty.openpty()
    p = subprocess.Popen([str(PROGRAM), *words], stdin=subprocess.DEVNULL, stdout=there, stderr=there, cwd=site.home, env=site.environment(NO_COLOR="1", SIGNALBOX_PAGER="cat", TERM="xterm"), **site.identity())
    os.close(there)
    out = b""
    with contextlib.suppress(OSError):  # the other side was closed
        while piece := os.read(here, 65536):
            out += piece
    os.close(here)
    assert p.wait(120) is not None
    return out


def test_terminal_escapes_of_an_agent_are_shown_as_text(site):
    script = "printf '\\033]0;owned\\007\\033[2J\\033[31mred\\n'; printf 'x' > \"$(printf 'a\\033[2Jb')\"; touch '<script>alert(1)<script>'"
    task = site.run(script, name="escapes")
    for words in (["show", "escapes"], ["logs", "escapes"], ["events", "escapes"], ["artifacts", "escapes"], ["diff", "escapes"], ["ls"], ["run", "--repo", "-", "--agent", "command", script]):
        shown = on_a_terminal(site, *words)
        assert b"\x1b]0" not in shown and b"\x1b[2J" not in shown and b"\x1b[31m" not in shown and b"\x07" not in shown, (words, shown)
    site.tasks |= {t["id"] for t in site.get("/v1/tasks")["data"]}
    assert b"\\033" in site.patch(task["id"])


def test_too_many_processes_and_too_much_memory_harm_only_their_own_run(site):
    """Bounded by what they ask for, so that a wall that is missing costs this machine little."""
    neighbour = site.submit("until [ -e ~/go ]; do sleep 0.02; done; echo well")
    many = site.wait(site.submit("python3 -c 'import subprocess\nn = 0\ntry:\n  for n in range(300): subprocess.Popen([\"sleep\", \"60\"])\nexcept OSError as e: print(\"refused at\", n)'",
                                 timeout_ms=100000, limits={"pids": 64}))
    assert "refused at" in said(site, many["id"]), site.story(many["id"])
    much = site.wait(site.submit("python3 -c 'x = b\"x\" * (400 << 20); print(len(x))'; echo $?", timeout_ms=100000, limits={"memory": "128M"}))
    if much["result"]["walls"]["confinement"] != "rlimits":  # else memory is not limited, and the task says so
        assert str(400 << 20) not in said(site, much["id"]), site.story(much["id"])
    site.release(neighbour)
    assert site.wait(neighbour)["status"] == "DONE"


def test_an_agent_that_ignores_signals_and_daemonizes_is_gone_after_its_run(site):
    task = site.run("trap '' TERM INT HUP QUIT; (setsid sh -c 'trap \"\" TERM; (setsid sleep 86441 &); sleep 86442' &); (nohup sleep 86443 > /dev/null 2>&1 &); echo begun")
    assert task["status"] == "DONE"
    site.assert_clean()
