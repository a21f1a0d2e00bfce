"""Private repositories: every road to the same code gives the same snapshot and the same diff; a credential opens its own repository, for
whoever it was given to, and is seen nowhere."""
import base64
import contextlib
import os
import pathlib
import pwd
import subprocess
import threading

import pytest
from e2e_site import DEADLINE, IS_ROOT, file_url, is_alive, ordinary_user, processes, proc_text, wait_for
from git_servers import SSHD, TOKEN, GitHttp, Sshd

AGENT = "echo changed >> a.txt; mkdir -p new; echo made > new/file; rm -f b.txt; chmod +x c.sh"


class Watch:
    """Looks at every process's words and environment again and again, for things that must not be there."""

    def __init__(self, *needles):
        self.needles, self.found, self.looks, self.over = [n.encode() for n in needles], set(), 0, False
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        own = os.getpid()
        while not self.over:
            for pid in processes():
                if pid != own:
                    for name in ("cmdline", "environ"):
                        text = proc_text(pid, name)
                        self.found |= {(name, text[:300]) for n in self.needles if n in text}
            self.looks += 1

    def close(self):
        self.over = True
        self.thread.join()


def nowhere(site, *needles):
    """Not in any file of the site: data directory, logs, events, databases, workspaces; nor in what the API tells."""
    for top, _, files in os.walk(site.dir):
        for name in files:
            path = pathlib.Path(top) / name
            if path.is_symlink() or not path.is_file() or path == site.config_file or "keys-" in top:
                continue
            with contextlib.suppress(FileNotFoundError):
                text = path.read_bytes()
                for needle in needles:
                    assert needle.encode() not in text, path
    for id in site.tasks:
        story = str(site.task(id)) + str(site.events(id))
        for needle in needles:
            assert needle not in story


@contextlib.contextmanager
def closing(thing):
    try:
        yield thing
    finally:
        thing.close()


@pytest.fixture
def repository(site):
    """A repository with two commits, and a bare clone that servers show."""
    at = site.path("work")
    site.sh("printf 'one\\ntwo\\n' > a.txt; echo b > b.txt; echo 'echo c' > c.sh; mkdir d; echo deep > d/deep; ln -s a.txt link; git init -qb main; git add -A; git commit -qm first;"
            "echo three >> a.txt; git commit -qam second; git tag -a v1 -m one", at)
    served = site.path("served")
    site.sh(f"git clone -q --bare {at} repo.git", served)
    return at, served


def lines_of(key):
    """Those of a key's lines that are its own; what stands before is the same in all, or public."""
    return [line for line in key.splitlines() if "-----" not in line][2:4]


def test_url_private_url_ssh_and_directory_give_one_snapshot_and_one_diff(site, repository):
    work, served = repository
    user = site.user or (ordinary_user() if IS_ROOT else pwd.getpwuid(os.geteuid()))
    keys = site.path("keys")
    needles = [TOKEN, base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()]
    with contextlib.ExitStack() as stack:
        public = stack.enter_context(closing(GitHttp(served)))
        private = stack.enter_context(closing(GitHttp(served, token=TOKEN)))
        sources = {"url": {"kind": "git", "url": f"{public.url}/repo.git"}, "private": {"kind": "git", "url": f"{private.url}/repo.git"},
                   "directory": {"kind": "local", "dir": str(work)}, "ref": {"kind": "local", "dir": str(work), "ref": "main"},
                   "file": {"kind": "git", "url": file_url(served / "repo.git"), "ref": "v1"}}
        done = site.cli("secret", "set", f"git:127.0.0.1:{private.port}", stdin=TOKEN + "\n")
        assert done.returncode == 0, done.stderr
        if SSHD:
            sshd = stack.enter_context(closing(Sshd(keys, user)))
            hosts = site.dir / "known_hosts"
            hosts.write_text(sshd.known_hosts)
            site.own(hosts)
            done = site.cli("secret", "set", f"ssh:127.0.0.1:{sshd.port}", "--known-hosts", hosts, stdin=sshd.key)
            assert done.returncode == 0, done.stderr
            needles += lines_of(sshd.key)
            subprocess.run(["cp", "-r", served / "repo.git", keys / "repo.git"], check=True)
            subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", keys / "repo.git"], check=True)
            sources["ssh"] = {"kind": "git", "url": sshd.url(keys / "repo.git")}
        watch = stack.enter_context(closing(Watch(*needles)))
        tasks = {name: site.run(AGENT, source) for name, source in sources.items()}
        assert any(login for _, _, login in private.seen)
        assert watch.looks > 3 and not watch.found, watch.found
    assert len({t["result"]["tree"] for t in tasks.values()}) == 1
    assert len({site.patch(t["id"]) for t in tasks.values()}) == 1
    assert len({t["source"]["tree"] for t in tasks.values()}) == 1 and len({t["source"]["commit"] for t in tasks.values()}) == 1
    listed = site.cli("secret", "ls", "--json").stdout
    assert f"git:127.0.0.1:{private.port}" in listed and not any(n in listed for n in needles)
    nowhere(site, *needles)
