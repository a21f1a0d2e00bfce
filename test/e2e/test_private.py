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
from e2e_site import IS_ROOT, file_url, ordinary_user, processes, proc_text, wait_for
from git_servers import SSHD, TOKEN, GitHttp, Sshd, make_certificate

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


def metric(site, name):
    conn, reply = site.open("GET", "/metrics")
    try:
        return float(next(line.split()[-1] for line in reply.read().decode().splitlines() if line.startswith(name + " ")))
    finally:
        conn.close()


def refused(site, source, status=403):
    got, problem = site.call("POST", "/v1/tasks", {"prompt": "echo x", "agent": "command", "source": source})
    assert got == status, problem
    return problem


def store(site, name, secret, *more, status=0):
    done = site.cli("secret", "set", name, *more, stdin=secret)
    assert done.returncode == status, done.stderr
    return done


def test_what_is_cached_is_served_to_nobody_who_cannot_read_it(site, repository):
    _, served = repository
    with closing(GitHttp(served, token=TOKEN)) as private:
        name = f"git:127.0.0.1:{private.port}"
        commit = site.sh("git rev-parse main", served / "repo.git").strip()
        for ref in ("main", commit):
            source = {"kind": "git", "url": f"{private.url}/repo.git", "ref": ref}
            store(site, name, TOKEN)
            assert site.run("cat a.txt", source)["source"]["commit"] == commit
            hits = metric(site, "signalbox_cache_hits_total")
            site.run("cat a.txt", source)
            assert metric(site, "signalbox_cache_hits_total") == hits + 1
            assert site.cli("secret", "rm", name).returncode == 0
            assert "secret set git:" in refused(site, source)["hint"]
            store(site, name, "another-token")
            problem = refused(site, source)
            assert problem["code"] == "denied" and TOKEN not in str(problem) and "another-token" not in str(problem)
            assert site.cli("secret", "rm", name).returncode == 0
            assert site.cli("secret", "rm", name).returncode == 5
    assert len(list((site.data / "cache/default/git").iterdir())) >= 1
    nowhere(site, TOKEN)


def test_a_token_is_for_its_host_and_path_alone(site, repository):
    _, served = repository
    for org in ("a", "a-b", "b"):
        site.sh(f"mkdir -p {org}; cp -r repo.git {org}/code.git", served)
    with closing(GitHttp(served, token=TOKEN)) as private, closing(GitHttp(served, token=TOKEN)) as other:
        store(site, f"git:127.0.0.1:{private.port}/a", TOKEN)
        site.run("true", {"kind": "git", "url": f"{private.url}/a/code.git"})
        for url in (f"{private.url}/a-b/code.git", f"{private.url}/b/code.git", f"{private.url}/repo.git", f"{other.url}/a/code.git"):
            refused(site, {"kind": "git", "url": url})
        refused(site, {"kind": "git", "url": f"{private.url}/a/../b/code.git"}, 400)
        assert not [login for _, _, login in other.seen if login] and not [path for _, path, login in private.seen if login and not path.startswith("/a/code.git")]
        store(site, f"git:127.0.0.1:{private.port}/a/code", "a-longer-name-wins")
        refused(site, {"kind": "git", "url": f"{private.url}/a/code.git"})
        for name in (f"git:127.0.0.1:{private.port}/a", f"git:127.0.0.1:{private.port}/a/code"):
            assert site.cli("secret", "rm", name).returncode == 0


def test_a_task_goes_on_with_the_credential_that_holds_now(site, repository):
    _, served = repository
    with closing(GitHttp(served, token=TOKEN)) as private:
        name, url = f"git:127.0.0.1:{private.port}", f"{private.url}/repo.git"
        store(site, name, TOKEN)
        task = site.run("echo one > one", {"kind": "git", "url": url})
        private.token = "the-next-token"
        store(site, name, private.token)
        status, _ = site.call("POST", f"/v1/tasks/{task['id']}/messages", {"text": "ls one && cat a.txt"})
        assert status == 202
        again = site.wait(task["id"])
        assert again["status"] == "DONE" and again["source"]["commit"] == task["source"]["commit"], site.story(task["id"])
        assert again["source"]["credential"]["fingerprint"] != task["source"]["credential"]["fingerprint"]
        assert site.cli("secret", "rm", name).returncode == 0
        nowhere(site, TOKEN, "the-next-token")


def agents_directories():
    return set(pathlib.Path("/tmp").glob("signalbox-ssh*"))


def test_an_ssh_host_must_be_the_one_that_was_stored(site, repository):
    if not SSHD:
        pytest.skip("there is no sshd")
    user = site.user or (ordinary_user() if IS_ROOT else pwd.getpwuid(os.geteuid()))
    keys, other, before = site.path("keys"), site.path("keys"), agents_directories()
    with closing(Sshd(keys, user)) as sshd, closing(Sshd(other, user)) as wrong:
        subprocess.run(["cp", "-r", repository[1] / "repo.git", keys / "repo.git"], check=True)
        subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", keys / "repo.git"], check=True)
        source = {"kind": "git", "url": sshd.url(keys / "repo.git")}
        hosts = site.dir / "hosts"
        for lines, key, words in ((wrong.known_hosts.replace(str(wrong.port), str(sshd.port)), sshd.key, "host"), ("", sshd.key, "host"), (sshd.known_hosts, wrong.key, "key")):
            hosts.write_text(lines)
            site.own(hosts)
            store(site, f"ssh:127.0.0.1:{sshd.port}", key, "--known-hosts", hosts)
            problem = refused(site, source)
            assert problem["code"] == "denied" and words in problem["detail"], problem
        hosts.write_text(sshd.known_hosts)
        store(site, f"ssh:127.0.0.1:{sshd.port}", sshd.key, "--known-hosts", hosts)
        site.run("true", source)
        assert site.cli("secret", "rm", f"ssh:127.0.0.1:{sshd.port}").returncode == 0
        nowhere(site, *lines_of(sshd.key), *lines_of(wrong.key))
    made = agents_directories() - before  # others are tested beside us: theirs go as well
    wait_for("the agent's directory to go", lambda: not made & agents_directories())


@pytest.mark.parametrize("name, secret, words", [
    ("github.com", "x", "not a secret's name"), ("git:", "x", "not a secret's name"), ("git:-x", "x", "not a secret's name"), ("git:h/../x", "x", "not a secret's name"), ("git:2130706433", "x", "not a secret's name"),
    ("git:u@github.com", "x", "not a secret's name"), ("ftp:github.com", "x", "not a secret's name"), ("git:github.com", "two\nlines", "one line"), ("ssh:github.com", "no key", "private ssh key"), ("git:github.com", "", "no secret"),
    ("ssh:github.com", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nx\n-----END RSA PRIVATE KEY-----\n", "passphrase")])
def test_a_secret_that_makes_no_sense_is_refused_and_not_repeated(site, name, secret, words):
    done = store(site, name, secret, status=2)
    assert words in done.stderr and (len(secret) < 5 or secret not in done.stderr + done.stdout)


def test_the_configuration_can_hold_credentials(new_site, road):
    site = new_site(start=False)
    work, served = site.path("work"), site.path("served")
    site.sh("echo a > a.txt; git init -qb main; git add -A; git commit -qm x", work)
    site.sh(f"git clone -q --bare {work} repo.git", served)
    with closing(GitHttp(served, token=TOKEN)) as private:
        token = site.dir / "token"
        token.write_text(TOKEN + "\n")
        site.own(token)
        token.chmod(0o600)
        site.config["source"] = {"private": ["127.0.0.0/8"], "credentials": {f"git:127.0.0.1:{private.port}": {"user": "me", "key_file": str(token)}}}
        site.write_config()
        site.start_server()
        site.run("cat a.txt", {"kind": "git", "url": f"{private.url}/repo.git"})
        assert base64.b64encode(f"me:{TOKEN}".encode()).decode() in {(login or "").removeprefix("Basic ") for _, _, login in private.seen}
        assert site.get("/v1/secrets")["data"] == [{"name": f"git:127.0.0.1:{private.port}", "kind": "password", "from": "configuration"}]
        refused(site, {"kind": "git", "url": file_url(work)})
        refused(site, {"kind": "git", "url": "https://10.0.0.1/x"})
        token.unlink()
        nowhere(site, TOKEN)


def test_over_tls_the_host_is_the_one_that_its_certificate_names(new_site):
    site = new_site(start=False)
    work, served = site.path("work"), site.path("served")
    site.sh("echo a > a.txt; git init -qb main; git add -A; git commit -qm x", work)
    site.sh(f"git clone -q --bare {work} repo.git", served)
    tls = make_certificate(site.path("tls"))
    site.own(pathlib.Path(tls["cert"]).parent)
    with closing(GitHttp(served, token=TOKEN, tls=tls)) as host:
        site.start_server(env=site.environment(GIT_SSL_CAINFO=tls["cert"]))
        store(site, f"git:localhost:{host.port}", TOKEN)
        site.run("cat a.txt", {"kind": "git", "url": f"{host.url}/repo.git"})
        task = site.wait(site.submit("true", {"kind": "git", "url": f"https://127.0.0.1:{host.port}/repo.git"}))
        assert task["status"] == "ERROR" and "certificate" in task["error"], site.story(task["id"])
        nowhere(site, TOKEN)


def test_what_a_branch_was_at_submit_is_what_the_agent_gets(new_site):
    site = new_site(config={"limits": {"running": 1}})
    work, served = site.path("work"), site.path("served")
    site.sh("echo a > a.txt; git init -qb main; git add -A; git commit -qm x", work)
    site.sh(f"git clone -q --bare {work} repo.git", served)
    with closing(GitHttp(served)) as host:
        first = site.submit("until [ -e ~/go ]; do sleep 0.02; done")
        second = site.submit("cat a.txt", {"kind": "git", "url": f"{host.url}/repo.git", "ref": "main"})
        was = site.sh("git rev-parse main", work).strip()
        site.sh(f"echo b > a.txt; git commit -qam y; git push -q {served}/repo.git main", work)
        site.release(first)
        assert site.wait(first)["status"] == "DONE"
        assert site.wait(second)["source"]["commit"] == was
        assert [e["data"]["text"] for e in site.events(second, "message.done")][0].strip() == "a"


def age(site, days=30):
    """As if nobody had used the cache since."""
    long_ago = __import__("time").time() - days * 86400
    for path in (site.data / "cache").glob("*/*/*"):
        for lock in (path / "lock", path.parent / f".lock-{path.name}", path):
            if lock.exists():
                os.utime(lock, (long_ago, long_ago), follow_symlinks=False)


def prune(site, *options):
    done = site.cli("prune", "--json", *options)
    assert done.returncode == 0, done.stderr
    return __import__("json").loads(done.stdout)


def sized(site, name, kilobytes):
    at = site.path(name)
    site.sh(f"head -c {kilobytes}K /dev/urandom > blob; git init -qb main; git add -A; git commit -qm x", at)
    return {"kind": "git", "url": file_url(at), "ref": "main"}


def test_prune_takes_what_nothing_needs_and_says_why_the_rest_stays(new_site):
    site = new_site()
    sources = [sized(site, f"r{i}", 200) for i in range(3)]
    over, ended = site.run("true", sources[0]), site.run("echo x >> blob", sources[1])
    running = site.submit("until [ -e ~/go ]; do sleep 0.02; done", sources[2])
    wait_for("the agent", lambda: site.task(running)["phase"] == "running")
    nothing = site.run("true")["id"]  # the server remembers the snapshot of nothing
    site.call("DELETE", f"/v1/tasks/{nothing}")
    site.tasks.discard(nothing)
    half = site.data / "cache/default/trees/.tmp-half"
    half.mkdir()
    assert {k["why"] for k in prune(site)["kept"]} >= {"a task that is not over needs it", "an ended task can be gone on with from it"}
    age(site)
    site.call("DELETE", f"/v1/tasks/{over['id']}")
    site.tasks.discard(over["id"])
    (site.data / "cache/default/trees/.tmp-half2").mkdir()
    looked = prune(site, "--dry-run")
    assert looked["dry_run"] and looked["removed"] and all(pathlib.Path(r["path"]).exists() for r in looked["removed"])
    done = prune(site)
    assert [(r["kind"], r["path"]) for r in done["removed"]] == [(r["kind"], r["path"]) for r in looked["removed"]]
    assert not [r for r in done["removed"] if pathlib.Path(r["path"]).exists()]
    gone = {r["what"] for r in done["removed"]}
    assert over["source"]["commit"] in gone and sources[0]["url"] in gone and not {ended["source"]["commit"], sources[1]["url"], sources[2]["url"]} & gone
    assert not list((site.data / "cache/default").glob("*/.gone-*")) and not list((site.data / "cache/default").glob("*/.tmp-*"))
    assert metric(site, "signalbox_cache_evictions_total") >= 3
    site.release(running)
    assert site.wait(running)["status"] == "DONE"
    assert site.run("true")["status"] == "DONE"
    status, _ = site.call("POST", f"/v1/tasks/{ended['id']}/messages", {"text": "cat blob | wc -c"})
    assert status == 202 and site.wait(ended["id"])["status"] == "DONE", site.story(ended["id"])
    text = site.cli("prune", "-n").stdout
    assert "stays" in text


def test_the_cache_keeps_its_limit_and_the_least_recently_used_go_first(new_site):
    site = new_site(config={"cache": {"max_bytes": "2M"}})
    sources = [sized(site, f"r{i}", 600) for i in range(4)]
    tasks = [site.run("true", s) for s in sources]
    for t in tasks[:3]:
        site.call("DELETE", f"/v1/tasks/{t['id']}")
        site.tasks.discard(t["id"])
    age(site)
    one = site.submit("until [ -e ~/go ]; do sleep 0.02; done", sources[0])  # used just now, and needed
    wait_for("the agent", lambda: site.task(one)["phase"] == "running")
    site.stop_server()
    site.start_server()  # the first comparison is made at start
    wait_for("room", lambda: metric(site, "signalbox_cache_evictions_total") >= 2)
    commits = {p.name[:40] for p in (site.data / "cache/default/trees").iterdir() if not p.name.startswith(".")}
    assert tasks[0]["source"]["commit"] in commits and tasks[3]["source"]["commit"] in commits
    assert tasks[1]["source"]["commit"] not in commits or tasks[2]["source"]["commit"] not in commits
    assert metric(site, "signalbox_cache_limit_bytes") == 2 << 20
    site.release(one)
    assert site.wait(one)["status"] == "DONE"
    assert site.run("true", sources[1])["status"] == "DONE"
