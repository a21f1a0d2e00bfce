"""Sources from outside: fetch (git, snapshot, checkout), diff and apply, with real git and real overlay mounts."""
import base64
import hashlib
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SIGNALBOX_BUILD", ROOT / "build"))


def find_tool():
    named = os.environ.get("SIGNALBOX_SOURCE_TOOL")
    for path in [named] if named else [BUILD / "source_tool", BUILD / "test" / "source_tool", BUILD / "test" / "tools" / "source_tool"]:
        if path and os.access(path, os.X_OK):
            return str(path)
    pytest.skip("source_tool is not built")


NEUTRAL = {
    "PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t",
}


def git(where, *args, env=None, text=True, **kw):
    done = subprocess.run(["git", "-c", "safe.directory=*", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *args],
                          cwd=where, env={**NEUTRAL, **(env or {})}, capture_output=True, timeout=120, **kw)
    assert done.returncode == 0, (args, done.stderr)
    return done.stdout.decode().strip() if text else done.stdout


# What these tests stand on: directories, and servers of their own on this machine. The rules themselves have tests of theirs.
OPEN_RULES = {"schemes": ["https", "http", "ssh", "file"], "private": True, "ssh_config": True}


class Failure(Exception):
    def __init__(self, error):
        super().__init__(error["text"])
        self.code, self.text, self.hint = error["code"], error["text"], error["hint"]


class Tool:
    def __init__(self, base):
        self.path = find_tool()
        self.base = base
        self.cache = base / "cache"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(base / "home"), "TMPDIR": str(base)}
        (base / "home").mkdir()

    def run(self, *args, job=None, **kw):
        return subprocess.run([self.path, *map(str, args)], input=json.dumps(job).encode() if job is not None else b"",
                              capture_output=True, env=self.env, timeout=120, **kw)

    def fetch(self, **job):
        rules = {"rules": OPEN_RULES} if job["kind"] in ("git", "prove") else {}
        done = self.run("fetch", job={"cache": str(self.cache), **rules, **job})
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert lines, done.stderr
        self.progress = [line["progress"] for line in lines[:-1]]
        if "error" in lines[-1]:
            assert done.returncode == 1
            raise Failure(lines[-1]["error"])
        assert done.returncode == 0
        return lines[-1]["result"]

    def checkout(self, snapshot):
        return self.fetch(kind="checkout", **{k: snapshot[k] for k in ("store", "commit", "head", "branch")})


@pytest.fixture
def tool(tmp_path):
    made = Tool(tmp_path)
    yield made
    subprocess.run(["chmod", "-R", "u+rwX", tmp_path], check=False)


@pytest.fixture
def repo(tmp_path):
    path = tmp_path / "repo"
    path.mkdir()
    git(path, "init", "-q")
    (path / "a.txt").write_text("one\ntwo\nthree\n")
    (path / "sub").mkdir()
    (path / "sub" / "b.txt").write_text("b\n")
    (path / "run.sh").write_text("#!/bin/sh\n")
    (path / "run.sh").chmod(0o755)
    (path / "link").symlink_to("a.txt")
    (path / ".gitignore").write_text("*.ign\nbuild/\n")
    commit(path, "first")
    return path


def commit(path, message):
    git(path, "add", "-A")
    git(path, "commit", "-q", "--allow-empty", "-m", message)
    return git(path, "rev-parse", "HEAD")


def read_tree_of(result):
    """git inside a cached tree, with the store's objects where a sandbox would have them."""
    def run(*args, **kw):
        return git(result["checkout"], *args, env={"GIT_ALTERNATE_OBJECT_DIRECTORIES": result["store"] + "/objects", "GIT_OPTIONAL_LOCKS": "0"}, **kw)
    return run


def fingerprint(path):
    """Every name, type, mode, time and content below path."""
    found = []
    for at, dirs, files in sorted(os.walk(path)):
        for name in sorted(dirs + files):
            full = os.path.join(at, name)
            st = os.lstat(full)
            content = os.readlink(full) if os.path.islink(full) else hashlib.sha1(open(full, "rb").read()).hexdigest() if os.path.isfile(full) else ""
            found.append((full, st.st_mode, st.st_mtime_ns, content))
    return found


# ---- git URLs ----

def test_a_branch_a_tag_a_commit_and_the_default_branch_are_found(tool, repo):
    first = git(repo, "rev-parse", "HEAD")
    git(repo, "tag", "-a", "v1", "-m", "one")
    git(repo, "checkout", "-q", "-b", "feature/x")
    (repo / "a.txt").write_text("changed\n")
    second = commit(repo, "second")
    git(repo, "checkout", "-q", "main")
    expected = {None: (first, "main"), "HEAD": (first, "main"), "main": (first, "main"), "feature/x": (second, "feature/x"), "refs/heads/feature/x": (second, "feature/x"),
                "v1": (first, None), "refs/tags/v1": (first, None), second: (second, None), second[:8]: (second, None)}
    for ref, (commit_id, branch) in expected.items():
        for url in (str(repo), f"file://{repo}", f"file://localhost{repo}/.git"):
            result = tool.fetch(kind="git", url=url, ref=ref)
            assert (result["commit"], result["head"], result["branch"]) == (commit_id, commit_id, branch), (ref, url)
            assert result["tree"] == git(repo, "rev-parse", commit_id + "^{tree}")


def test_a_checkout_has_the_files_and_a_clean_status_inside(tool, repo):
    result = tool.fetch(kind="git", url=str(repo), ref=None)
    tree = pathlib.Path(result["checkout"])
    assert (tree / "a.txt").read_text() == "one\ntwo\nthree\n"
    assert os.readlink(tree / "link") == "a.txt"
    assert (tree / "run.sh").stat().st_mode & 0o111
    inside = read_tree_of(result)
    assert inside("status", "--porcelain", "--branch") == "## main"
    assert inside("log", "--format=%s") == "first"
    assert inside("branch", "-a", "--format=%(refname)").split() == ["refs/heads/main", "refs/remotes/origin/main"]
    assert (tree / ".git/objects/info/alternates").read_text() == "/run/signalbox/objects\n"
    assert result["files"] == 5 and result["reused"] is False
    assert tool.fetch(kind="git", url=str(repo), ref=None) == {**result, "reused": True}


def test_new_commits_are_fetched_and_deleted_branches_are_forgotten(tool, repo):
    git(repo, "branch", "old")
    tool.fetch(kind="git", url=str(repo), ref="old")
    git(repo, "branch", "-D", "old")
    (repo / "a.txt").write_text("new\n")
    newest = commit(repo, "second")
    assert tool.fetch(kind="git", url=str(repo), ref="main")["commit"] == newest
    with pytest.raises(Failure) as failed:
        tool.fetch(kind="git", url=str(repo), ref="old")
    assert failed.value.code == "not_found"


def test_a_second_commit_starts_from_the_first_ones_tree_and_leaves_it_as_it_was(tool, repo):
    for i in range(50):
        (repo / f"f{i}").write_text(f"{i}\n")
    commit(repo, "many")
    old = tool.fetch(kind="git", url=str(repo), ref=None)
    before = fingerprint(old["checkout"])
    (repo / "f1").write_text("changed\n")
    (repo / "f2").unlink()
    (repo / "f3").chmod(0o755)
    (repo / "f4").unlink()
    (repo / "f4").mkdir()
    (repo / "f4" / "inner").write_text("x\n")
    shutil.rmtree(repo / "sub")
    (repo / "sub").write_text("a file now\n")
    commit(repo, "next")
    new = tool.fetch(kind="git", url=str(repo), ref=None)
    assert fingerprint(old["checkout"]) == before
    same = [os.stat(pathlib.Path(r["checkout"], "f10")).st_ino for r in (old, new)]
    assert same[0] == same[1], "unchanged files are hard links"
    assert read_tree_of(new)("status", "--porcelain") == ""
    assert (pathlib.Path(new["checkout"]) / "f1").read_text() == "changed\n"
    assert (pathlib.Path(new["checkout"]) / "sub").read_text() == "a file now\n"
    summary, _ = diff_after(tool, new, "echo more >> f10; chmod +x f11; rm f12; mv f13 moved")
    assert sorted((f["path"], f["status"]) for f in summary["files"]) == [("f10", "M"), ("f11", "M"), ("f12", "D"), ("moved", "R")]
    assert fingerprint(old["checkout"]) == before


def test_a_pull_requests_ref_and_a_commit_only_its_id_names_are_found(tool, repo):
    first = git(repo, "rev-parse", "HEAD")
    (repo / "a.txt").write_text("pr\n")
    hidden = commit(repo, "hidden")
    git(repo, "update-ref", "refs/pull/7/head", hidden)
    git(repo, "reset", "-q", "--hard", first)
    tool.fetch(kind="git", url=str(repo), ref=None)
    assert tool.fetch(kind="git", url=str(repo), ref="refs/pull/7/head")["commit"] == hidden
    (repo / "a.txt").write_text("lost\n")
    lost = commit(repo, "lost")
    git(repo, "reset", "-q", "--hard", first)
    assert tool.fetch(kind="git", url=str(repo), ref=lost)["commit"] == lost


def test_a_known_commit_needs_no_other_end(tool, repo):
    known = git(repo, "rev-parse", "HEAD")
    url = f"file://{repo}"
    tool.fetch(kind="git", url=url, ref=None)
    shutil.rmtree(repo / ".git" / "refs")
    shutil.rmtree(repo / ".git" / "objects")
    assert tool.fetch(kind="git", url=url, ref=known)["commit"] == known


def test_an_unknown_ref_is_named_and_the_nearest_are_listed(tool, repo):
    git(repo, "branch", "feature/login")
    with pytest.raises(Failure) as failed:
        tool.fetch(kind="git", url=str(repo), ref="login")
    assert failed.value.code == "not_found"
    assert "'login'" in failed.value.text and str(repo) in failed.value.text
    assert "feature/login" in failed.value.hint.split(": ")[1].split(", ")[0]
    for ref in ("0" * 40, "deadbeef"):
        with pytest.raises(Failure) as failed:
            tool.fetch(kind="git", url=str(repo), ref=ref)
        assert failed.value.code == "not_found" and ref in failed.value.text


def test_what_cannot_be_fetched_says_why(tool, repo, tmp_path):
    empty = tmp_path / "empty"
    git(tmp_path, "init", "-q", "--bare", str(empty))
    plain = tmp_path / "plain"
    plain.mkdir()
    headless = tmp_path / "headless"
    git(tmp_path, "clone", "-q", "--bare", str(repo), str(headless))
    git(headless, "symbolic-ref", "HEAD", "refs/heads/nowhere")
    for url, code, words in [
        (str(empty), "not_found", "no commit yet"),
        (str(plain), "not_found", "not a git repository"),
        (str(tmp_path / "absent"), "not_found", "absent"),
        (str(headless), "not_found", "no default branch"),
        ("http://127.0.0.1:1/x.git", "unreachable", "127.0.0.1:1"),
        ("ssh://127.0.0.1:1/x.git", "unreachable", "127.0.0.1:1"),
    ]:
        with pytest.raises(Failure) as failed:
            tool.fetch(kind="git", url=url, ref=None)
        assert failed.value.code == code and words in failed.value.text, (url, failed.value.text)
        assert failed.value.hint, url
    assert not [name for name in os.listdir(tool.cache / "trees") if not name.startswith(".lock")] if (tool.cache / "trees").exists() else True


def test_ssh_goes_through_ssh_with_the_path_quoted(tool, repo, tmp_path):
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    strange = tmp_path / "it's $(touch ran) here"
    shutil.copytree(repo, strange, symlinks=True)
    (bin_dir / "ssh").write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/args\nfor last; do :; done\ncd {tmp_path}\nexec sh -c \"$last\"\n")
    (bin_dir / "ssh").chmod(0o755)
    tool.env["PATH"] = f"{bin_dir}:{tool.env['PATH']}"
    for url in (f"me@example.org:{strange}", f"ssh://me@example.org:2222{strange}".replace(" ", "%20")):
        result = tool.fetch(kind="git", url=url, ref="main")
        assert result["commit"] == git(repo, "rev-parse", "HEAD")
        args = (tmp_path / "args").read_text().splitlines()
        assert "me@example.org" in args and args[args.index("me@example.org") - 1] == "--"
    assert "2222" in args
    assert not (tmp_path / "ran").exists()


class GitHttp(http.server.BaseHTTPRequestHandler):
    """git http-backend behind a server that can also refuse, ask for a login, and redirect."""
    root = None
    seen = None

    def log_message(self, *_):
        pass

    def answer(self):
        path, _, query = self.path.partition("?")
        self.seen.append((path, self.headers.get("Authorization"), self.headers.get("Git-Protocol")))
        if path.startswith("/login/"):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()
            return
        if path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", f"file://{self.root}/" + path[len("/away/"):] + "?" + query)
            self.end_headers()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        env = {**NEUTRAL, "GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command,
               "CONTENT_TYPE": self.headers.get("Content-Type", ""), "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "GIT_CONFIG_COUNT": "1",
               "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*", "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", "")}
        head, _, rest = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, timeout=120).stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(rest)

    do_GET = do_POST = answer


@pytest.fixture
def git_http(tmp_path):
    handler = type("Handler", (GitHttp,), {"root": tmp_path, "seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler.seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_http_works_without_credentials_and_says_what_is_refused(tool, repo, git_http):
    url, seen = git_http
    (pathlib.Path(tool.env["HOME"]) / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    result = tool.fetch(kind="git", url=f"{url}/repo/.git", ref=None)
    assert result["commit"] == git(repo, "rev-parse", "HEAD") and result["branch"] == "main"
    (repo / "a.txt").write_text("more\n")
    newest = commit(repo, "more")
    assert tool.fetch(kind="git", url=f"{url}/repo/.git", ref="main")["commit"] == newest
    for path, code in (("/login/x.git", "denied"), ("/absent.git", "not_found"), ("/away/repo/.git", "denied")):
        with pytest.raises(Failure) as failed:
            tool.fetch(kind="git", url=url + path, ref=None)
        assert failed.value.code == code, (path, failed.value.text)
        assert failed.value.hint
    assert not [auth for _, auth, _ in seen if auth]


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_fetch_takes_its_children_with_it(tool, repo, tmp_path):
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    os.mkfifo(tmp_path / "pids")
    (bin_dir / "ssh").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pids\nexec cat /dev/zero > /dev/null\n")
    (bin_dir / "ssh").chmod(0o755)
    env = {**tool.env, "PATH": f"{bin_dir}:{tool.env['PATH']}"}
    job = {"kind": "git", "url": "me@host:x", "ref": None, "cache": str(tool.cache), "rules": OPEN_RULES}
    fetch = subprocess.Popen([tool.path, "fetch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    fetch.stdin.write(json.dumps(job).encode())
    fetch.stdin.close()
    pid = int((tmp_path / "pids").read_text())
    assert is_running(pid)
    fetch.kill()
    fetch.wait()
    fetch.stdout.close()
    deadline = time.monotonic() + 30
    while is_running(pid) and time.monotonic() < deadline:
        os.sched_yield()
    assert not is_running(pid)


def test_a_fetch_killed_at_any_point_leaves_nothing_that_hurts_the_next_one(tool, repo):
    for i in range(300):
        (repo / f"f{i}").write_text(f"{i}\n" * 50)
    wanted = commit(repo, "many")
    job = json.dumps({"kind": "git", "url": str(repo), "ref": None, "cache": str(tool.cache), "rules": OPEN_RULES}).encode()
    for lines in range(12):
        fetch = subprocess.Popen([tool.path, "fetch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=tool.env)
        fetch.stdin.write(job)
        fetch.stdin.close()
        for _ in range(lines):
            if not fetch.stdout.readline():
                break
        fetch.kill()
        fetch.wait()
        fetch.stdout.close()
    result = tool.fetch(kind="git", url=str(repo), ref=None)
    assert result["commit"] == wanted and read_tree_of(result)("status", "--porcelain") == ""
    assert not [n for n in os.listdir(tool.cache / "trees") if n.startswith(".tmp")]


def test_two_fetches_of_one_commit_at_once_make_one_tree(tool, repo):
    results, threads = [], []
    for _ in range(4):
        threads.append(threading.Thread(target=lambda: results.append(tool.fetch(kind="git", url=str(repo), ref=None))))
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 4 and len({r["checkout"] for r in results}) == 1
    assert [r["reused"] for r in results].count(False) == 1


def test_what_a_killed_fetch_left_is_cleaned_up(tool, repo):
    result = tool.fetch(kind="git", url=str(repo), ref=None)
    store = pathlib.Path(result["store"])
    (store.parent / "busy").touch()
    (store / "packed-refs.lock").touch()
    (store / "refs" / "heads" / "main.lock").touch()
    orphan = tool.cache / "trees" / (".tmp-" + "1" * 40 + "-a-b")
    (orphan / "x").mkdir(parents=True)
    (repo / "a.txt").write_text("again\n")
    newest = commit(repo, "again")
    assert tool.fetch(kind="git", url=str(repo), ref=None)["commit"] == newest
    assert not orphan.exists() and not (store.parent / "busy").exists()


# ---- hostile URLs, refs and repositories ----

@pytest.mark.parametrize("url", [
    "ext::sh -c 'touch ran'", "-oProxyCommand=touch ran", "--upload-pack=touch ran", "ssh://-oProxyCommand=touch/x", "ssh://me@-x/y", "-x:y", "host:-x",
    "fd::3,4", "file::/x", "git://example.org/x", "ftp://example.org/x", "http://u:pa55w0rd@example.org/x", "https://pa55w0rd@example.org/x", "ssh://u:pa55w0rd@h/x",
    "relative/path", "", "https://example.org/a\nb", "https://example.org/a%0ab", "https://example.org/a%00b", "https://", "https:///x", "file://other/x", "http://ex ample/x",
    "https://example.org/\x1b[2J", "/tmp/a\nb", "x" * 5000,
])
def test_a_hostile_url_is_refused_at_the_door_and_nothing_runs(tool, tmp_path, url):
    done = tool.run("check", job={"kind": "git", "url": url}, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith(b"invalid: "), done.stderr
    assert b"pa55w0rd" not in done.stderr
    with pytest.raises(Failure) as failed:
        tool.fetch(kind="git", url=url, ref=None)
    assert failed.value.code == "invalid"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("ref", ["-x", "--upload-pack=x", "a..b", "a b", "main~1", "main^", "a:b", "@{1}", "@", "x.lock", "/x", "x/", "a//b", ".x", "a/.b", "a\nb", "a\x7f", "", "x" * 300, "a*", "a\\b", "a["])
def test_a_hostile_ref_is_refused(tool, repo, ref):
    with pytest.raises(Failure) as failed:
        tool.fetch(kind="git", url=str(repo), ref=ref)
    assert failed.value.code == "invalid"


def test_invalid_utf8_in_a_url_is_refused(tool):
    done = tool.run("check", job=None)
    assert done.returncode == 1
    done = subprocess.run([tool.path, "check"], input=b'{"kind":"git","url":"/tmp/\xff"}', capture_output=True, env=tool.env, timeout=120)
    assert done.returncode == 1 and done.stderr.startswith(b"invalid: ")


@pytest.mark.parametrize("source,words", [
    ({"kind": "svn"}, "svn"), ({}, "source.kind"), ({"kind": "git"}, "url"), ({"kind": "git", "url": "/x", "branch": "y"}, "branch"),
    ({"kind": "local"}, "dir"), ({"kind": "local", "dir": "x"}, "absolute"), ({"kind": "local", "dir": "/nonexistent/x"}, "/nonexistent/x"),
    ({"kind": "local", "dir": "/a\nb"}, "newline"), ({"kind": "git", "url": 7}, "url"),
])
def test_a_bad_source_is_refused_with_what_is_wrong(tool, source, words):
    done = tool.run("check", job=source)
    assert done.returncode == 1 and words in done.stderr.decode()


def test_one_repository_has_one_key(tool, repo):
    def key(**source):
        done = tool.run("key", job=source)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()
    assert len({key(kind="git", url=u) for u in (
        "https://Example.org/a/b", "https://example.org:443/a/b.git", "ssh://git@example.org/a/b.git", "git@example.org:a/b", "https://example.org/a/b/")}) == 1
    assert key(kind="git", url="https://example.org:8443/a/b") != key(kind="git", url="https://example.org/a/b")
    assert len({key(kind="local", dir=str(repo)), key(kind="local", dir=str(repo / "sub")), key(kind="git", url=f"file://{repo}/.git"), key(kind="git", url=str(repo))}) == 1


def hostile_settings(path, mark):
    """Everything a repository's own files can name to be run."""
    script = path / ".git" / "evil.sh"
    script.write_text(f"#!/bin/sh\necho \"$0 $*\" >> {mark}\ncat\n")
    script.chmod(0o755)
    hooks = path / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("post-checkout", "post-index-change", "pre-commit", "reference-transaction", "post-merge", "pre-receive", "post-update", "fsmonitor-watchman"):
        shutil.copy(script, hooks / hook)
    for key, value in {
        "core.fsmonitor": script, "core.hooksPath": hooks, "filter.evil.clean": script, "filter.evil.smudge": script, "filter.evil.process": script,
        "filter.evil.required": "true", "diff.evil.textconv": script, "diff.evil.command": script, "diff.external": script, "core.sshCommand": script,
        "core.pager": script, "core.editor": script, "credential.helper": script, "uploadpack.packObjectsHook": script, "core.gitProxy": script,
        "core.alternateRefsCommand": script, "gpg.program": script, "commit.gpgSign": "true", "core.askPass": script, "protocol.ext.allow": "always",
        "remote.origin.url": f"ext::{script}", "remote.origin.promisor": "true", "core.attributesFile": path / "attrs", "merge.evil.driver": script,
    }.items():
        subprocess.run(["git", "config", "--file", path / ".git" / "config", key, str(value)], check=True)
    (path / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")


@pytest.mark.parametrize("kind", ["git", "snapshot"])
def test_nothing_that_a_repository_names_is_run(tool, repo, tmp_path, kind):
    mark = tmp_path / "ran"
    (repo / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    commit(repo, "attributes")
    hostile_settings(repo, mark)
    (repo / "a.txt").write_text("dirty\n")
    (repo / "new.txt").write_text("new\n")
    if kind == "git":
        result = tool.fetch(kind="git", url=str(repo), ref=None)
    else:
        result = tool.checkout(tool.fetch(kind="snapshot", dir=str(repo)))
        assert (pathlib.Path(result["checkout"]) / "a.txt").read_text() == "dirty\n"
    assert not mark.exists(), mark.read_text()
    assert not (pathlib.Path(result["checkout"]) / ".git" / "hooks").exists()


def write_objects(path, entries):
    """A commit whose tree git itself would refuse to make."""
    raw = b"".join(f"{mode} {name}".encode() + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
    tree = subprocess.run(["git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally"], cwd=path, input=raw, capture_output=True, check=True, env=NEUTRAL).stdout.decode().strip()
    made = git(path, "commit-tree", tree, "-m", "evil")
    git(path, "update-ref", "refs/heads/main", made)
    return made


@pytest.mark.parametrize("name", [".git", ".GIT", ".Git", "git~1", ".git ", ".git.", ".g\u200cit", "..", "."])
def test_a_tree_with_a_disguised_git_directory_is_refused(tool, repo, name):
    blob = git(repo, "hash-object", "-w", "a.txt")
    inner = subprocess.run(["git", "mktree"], cwd=repo, input=f"100644 blob {blob}\tconfig\n".encode(), capture_output=True, check=True, env=NEUTRAL).stdout.decode().strip()
    write_objects(repo, [("40000", name, inner)])
    with pytest.raises(Failure):
        tool.fetch(kind="git", url=str(repo), ref=None)
    trees = tool.cache / "trees"
    assert not trees.exists() or not [n for n in os.listdir(trees) if not n.startswith(".lock")]


def test_a_path_behind_a_symbolic_link_is_not_written(tool, repo, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = subprocess.run(["git", "hash-object", "-w", "--stdin"], cwd=repo, input=str(outside).encode(), capture_output=True, check=True, env=NEUTRAL).stdout.decode().strip()
    blob = git(repo, "hash-object", "-w", "a.txt")
    inner = subprocess.run(["git", "mktree"], cwd=repo, input=f"100644 blob {blob}\tpwned\n".encode(), capture_output=True, check=True, env=NEUTRAL).stdout.decode().strip()
    write_objects(repo, [("120000", "x", link), ("40000", "x", inner)])
    with pytest.raises(Failure):
        tool.fetch(kind="git", url=str(repo), ref=None)
    assert os.listdir(outside) == []


def test_submodules_are_left_empty_and_named(tool, repo, tmp_path):
    other = tmp_path / "other"
    git(tmp_path, "init", "-q", str(other))
    (other / "x").write_text("x\n")
    commit(other, "x")
    git(repo, "submodule", "add", "-q", str(other), "mod")
    commit(repo, "submodule")
    result = tool.fetch(kind="git", url=str(repo), ref=None)
    assert os.listdir(pathlib.Path(result["checkout"]) / "mod") == []
    assert any("mod" in w for w in result["warnings"])


# ---- local directories ----

def test_a_snapshot_holds_staged_unstaged_and_untracked_changes_and_touches_nothing(tool, repo):
    head = git(repo, "rev-parse", "HEAD")
    (repo / "a.txt").write_text("unstaged\n")
    (repo / "staged").write_text("staged\n")
    git(repo, "add", "staged")
    (repo / "untracked").write_text("u\n")
    (repo / "x.ign").write_text("ignored\n")
    (repo / "run.sh").unlink()
    (repo / ".codex" / "tasks").mkdir(parents=True)
    (repo / ".codex" / "tasks" / "T-1.json").write_text("{}")
    (repo / "odd\nname").write_text("odd\n")
    os.mkfifo(repo / "pipe")
    before = fingerprint(repo / ".git")
    snapshot = tool.fetch(kind="snapshot", dir=str(repo))
    assert fingerprint(repo / ".git") == before
    assert (snapshot["head"], snapshot["branch"], snapshot["prefix"]) == (head, "main", "")
    assert snapshot["commit"] != head
    result = tool.checkout(snapshot)
    tree = pathlib.Path(result["checkout"])
    assert sorted(p.name for p in tree.iterdir()) == sorted([".git", ".gitignore", "a.txt", "link", "odd\nname", "staged", "sub", "untracked"])
    assert result["tree"] == snapshot["tree"]
    status = read_tree_of(result)("status", "--porcelain", "-z", text=False).split(b"\0")
    assert sorted(status) == sorted([b" M a.txt", b" D run.sh", b"?? staged", b"?? untracked", b"?? odd\nname", b""])
    assert tool.fetch(kind="snapshot", dir=str(repo)) == snapshot, "the same state is the same commit"


def test_a_clean_directory_is_its_head(tool, repo):
    snapshot = tool.fetch(kind="snapshot", dir=str(repo))
    assert snapshot["commit"] == snapshot["head"] == git(repo, "rev-parse", "HEAD")


def test_a_subdirectory_stands_for_its_repository(tool, repo):
    snapshot = tool.fetch(kind="snapshot", dir=str(repo / "sub"))
    assert snapshot["prefix"] == "sub/" and snapshot["tree"] == git(repo, "rev-parse", "HEAD^{tree}")


def test_a_directory_without_git_works_and_knows_what_is_ignored(tool, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "a").write_text("a\n")
    (plain / "b.o").write_text("o\n")
    (plain / ".gitignore").write_text("*.o\n")
    for content in ("a\n", "changed\n", "changed\n"):
        (plain / "a").write_text(content)
        snapshot = tool.fetch(kind="snapshot", dir=str(plain))
        assert snapshot["head"] is None and snapshot["branch"] is None
        result = tool.checkout(snapshot)
        assert (pathlib.Path(result["checkout"]) / "a").read_text() == content
        assert not (pathlib.Path(result["checkout"]) / "b.o").exists()
        assert read_tree_of(result)("status", "--porcelain") == ""
    assert not (plain / ".git").exists()


def test_an_empty_directory_and_an_unborn_head_work(tool, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert tool.checkout(tool.fetch(kind="snapshot", dir=str(empty)))["files"] == 0
    git(tmp_path, "init", "-q", str(tmp_path / "unborn"))
    (tmp_path / "unborn" / "a").write_text("a\n")
    snapshot = tool.fetch(kind="snapshot", dir=str(tmp_path / "unborn"))
    assert snapshot["head"] is None and snapshot["branch"] == "main"
    assert tool.checkout(snapshot)["files"] == 1


def test_linked_worktrees_detached_heads_shallow_clones_and_split_indexes_work(tool, repo, tmp_path):
    (repo / "a.txt").write_text("2\n")
    commit(repo, "second")
    git(repo, "worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    (tmp_path / "linked" / "new").write_text("n\n")
    snapshot = tool.fetch(kind="snapshot", dir=str(tmp_path / "linked"))
    assert snapshot["branch"] is None and snapshot["head"] == git(repo, "rev-parse", "HEAD")
    assert read_tree_of(tool.checkout(snapshot))("status", "--porcelain") == "?? new"

    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repo}", "shallow")
    (tmp_path / "shallow" / "new").write_text("n\n")
    result = tool.checkout(tool.fetch(kind="snapshot", dir=str(tmp_path / "shallow")))
    assert read_tree_of(result)("log", "--format=%s") == "second"
    assert read_tree_of(result)("status", "--porcelain") == "?? new"

    git(repo, "update-index", "--split-index")
    (repo / "a.txt").write_text("3\n")
    git(repo, "update-index", "a.txt")
    (repo / "new").write_text("n\n")
    snapshot = tool.fetch(kind="snapshot", dir=str(repo))
    assert git(snapshot["store"], "ls-tree", "-r", "--name-only", snapshot["commit"]).split("\n") == [".gitignore", "a.txt", "link", "new", "run.sh", "sub/b.txt"]
    assert git(snapshot["store"], "show", snapshot["commit"] + ":a.txt") == "3"


def test_a_partial_clone_gives_at_least_its_last_commit(tool, repo, tmp_path):
    (repo / "a.txt").write_text("2\n")
    commit(repo, "second")
    git(repo, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{repo}", "partial")
    shutil.move(repo, tmp_path / "away")
    (tmp_path / "partial" / "new").write_text("n\n")
    snapshot = tool.fetch(kind="snapshot", dir=str(tmp_path / "partial"))
    assert snapshot["warnings"]
    assert read_tree_of(tool.checkout(snapshot))("status", "--porcelain") == "?? new"


def test_types_that_changed_in_the_work_tree_are_taken_as_they_are(tool, repo):
    shutil.rmtree(repo / "sub")
    (repo / "sub").symlink_to("/etc")
    (repo / "a.txt").unlink()
    (repo / "a.txt").mkdir()
    (repo / "a.txt" / "in").write_text("in\n")
    (repo / "run.sh").unlink()
    os.mkfifo(repo / "run.sh")
    (repo / "link").unlink()
    (repo / "link").write_text("a file\n")
    snapshot = tool.fetch(kind="snapshot", dir=str(repo))
    assert git(snapshot["store"], "ls-tree", "-r", snapshot["commit"], "--format=%(objectmode) %(path)").split("\n") == [
        "100644 .gitignore", "100644 a.txt/in", "100644 link", "120000 sub"]


def test_repositories_inside_are_left_out_and_named(tool, repo):
    git(repo, "init", "-q", "inner")
    (repo / "inner" / "x").write_text("x\n")
    commit(repo / "inner", "x")
    snapshot = tool.fetch(kind="snapshot", dir=str(repo))
    assert any("inner/" in w for w in snapshot["warnings"])
    assert snapshot["commit"] == snapshot["head"]


def test_the_users_own_exclude_rules_hold(tool, repo):
    (repo / ".git" / "info" / "exclude").write_text("mine.txt\n")
    home = tool.base / "home"
    if os.geteuid() != 0:
        (home / ".config" / "git").mkdir(parents=True)
        (home / ".config" / "git" / "ignore").write_text("*.swp\n")
    (repo / "mine.txt").write_text("x\n")
    snapshot = tool.fetch(kind="snapshot", dir=str(repo))
    assert snapshot["commit"] == snapshot["head"]
    result = tool.checkout(snapshot)
    assert "mine.txt" in (pathlib.Path(result["checkout"]) / ".git" / "info" / "exclude").read_text()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_named(tool, repo):
    (repo / "secret").write_text("x\n")
    (repo / "secret").chmod(0)
    with pytest.raises(Failure) as failed:
        tool.fetch(kind="snapshot", dir=str(repo))
    assert "secret" in failed.value.text and failed.value.code == "denied"
    (repo / "secret").unlink()
    (repo / "closed").mkdir()
    (repo / "closed" / "x").write_text("x\n")
    (repo / "closed").chmod(0)
    with pytest.raises(Failure) as failed:
        tool.fetch(kind="snapshot", dir=str(repo))
    (repo / "closed").chmod(0o755)
    assert "closed" in failed.value.text


def test_a_bare_repository_a_file_and_an_absent_directory_are_refused(tool, repo, tmp_path):
    git(tmp_path, "clone", "-q", "--bare", str(repo), "bare")
    for path, code in ((tmp_path / "bare", "invalid"), (repo / ".git", "invalid"), (repo / "a.txt", "invalid"), (tmp_path / "absent", "not_found")):
        with pytest.raises(Failure) as failed:
            tool.fetch(kind="snapshot", dir=str(path))
        assert failed.value.code == code, path
        assert str(path) in failed.value.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has two identities")
def test_root_reads_as_the_owner_and_leaves_the_cache_to_its_user(tool, repo, tmp_path):
    for at, dirs, files in os.walk(repo):
        for name in [at] + [os.path.join(at, n) for n in dirs + files]:
            os.lchown(name, 4242, 4242)
    for path in [tmp_path, *tmp_path.parents]:
        if path.stat().st_mode & 0o005 != 0o005 and str(path) != "/":
            path.chmod(0o755)
    (repo / "a.txt").write_text("dirty\n")
    (repo / "only-mine").write_text("m\n")
    os.chown(repo / "only-mine", 4242, 4242)
    (repo / "only-mine").chmod(0o600)
    repo.chmod(0o700)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    tool.env["TMPDIR"] = str(tmp_path / "tmp")
    tool.env["ASAN_OPTIONS"] = "detect_leaks=0"  # its leak check cannot trace a process that changed its ids
    ids = {"uid": 4343, "gid": 4343}
    tool.cache.mkdir()
    os.chown(tool.cache, 4343, 4343)
    snapshot = tool.fetch(kind="snapshot", dir=str(repo), **ids)
    result = tool.fetch(kind="checkout", **ids, **{k: snapshot[k] for k in ("store", "commit", "head", "branch")})
    assert (pathlib.Path(result["checkout"]) / "only-mine").read_text() == "m\n"
    assert tool.fetch(kind="git", url=f"file://{repo}", ref=None, **ids)["commit"] == snapshot["head"]
    owners = {os.lstat(os.path.join(at, n)).st_uid for at, dirs, files in os.walk(tool.cache) for n in dirs + files}
    assert owners == {4343}
    assert os.listdir(tmp_path / "tmp") == []


# ---- what the agent did ----

AGENT = r"""
set -e
echo more >> a.txt
mkdir -p new/deep && echo n > new/deep/file
rm del.txt
mv old.txt renamed.txt
chmod +x mode.sh
ln -s a.txt newlink
rm link && ln -s elsewhere link
printf '\000\001\002binary' > bin.dat
printf '\000\001\003changed' > oldbin.dat
rm f2d && mkdir f2d && echo in > f2d/in
rm -r d2f && echo file > d2f
rm -r redo && mkdir redo && echo fresh > redo/fresh && echo same > redo/same
rm -r gone
rm l2f && echo file > l2f
rm f2l && ln -s a.txt f2l
rm -r d2l && ln -s redo d2l
: > empty.new
printf 'no newline' > nonl.txt
printf 'x\r\ny\r\n' > crlf.txt
ln a.txt hard.txt
echo odd > "$(printf 'new\nline')"
echo odd > 'quo"te'
echo odd > "$(printf 'bad\377utf8')"
echo odd > ':(glob)colon'
mkdir -p build && echo ignored > build/out && echo ignored > x.ign && echo kept > build/tracked
echo same-size > touchy && touch -d '2001-09-09 01:46:40 UTC' touchy
mv sub moved
rm -r 'del-x' && echo 1 > del-y
"""
AGENT_INSIDE = AGENT + r"""
mkfifo pipe
git add -A && git -c user.name=a -c user.email=a@a commit -q -m inside && git checkout -q -b mine && rm -rf .git/refs/heads/main
git init -q nested && echo n > nested/file && (cd nested && git add -A && git -c user.name=a -c user.email=a@a commit -q -m n)
printf '[core]\n\tfsmonitor = touch %s\n\thooksPath = /evil\n[filter "x"]\n\tclean = touch %s\n' "$MARK" "$MARK" >> .git/config
echo '* filter=x' > .gitattributes
mkdir -p locked && echo l > locked/file && chmod 000 locked/file locked
"""
SETUP = r"""
set -e
echo noise > setup-noise.txt
mkdir -p node_modules/x && echo m > node_modules/x/y
echo noise >> noisy-tracked.txt
rm setup-deletes.txt
"""


@pytest.fixture
def busy_repo(repo):
    files = {"del.txt": "d\n", "old.txt": "".join(f"line {i}\n" for i in range(40)), "mode.sh": "#!/bin/sh\n", "oldbin.dat": b"\0\1\2old", "f2d": "f\n", "d2f/x": "x\n", "d2f/y/z": "z\n",
             "redo/old": "o\n", "redo/same": "same\n", "redo/deep/er": "e\n", "gone/x": "x\n", "gone/y/z": "z\n", "f2l": "f\n", "d2l/x": "x\n", "crlf.txt": "x\r\nz\r\n", "nonl.txt": "was\n",
             "build/tracked": "t\n", "touchy": "size-same\n", "noisy-tracked.txt": "n\n", "setup-deletes.txt": "s\n", "del-x/a": "a\n", "del-y": "0\n", "untouched/x": "x\n"}
    for name, content in files.items():
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (repo / "l2f").symlink_to("a.txt")
    git(repo, "add", "-f", "build/tracked")
    commit(repo, "busy")
    return repo


def in_overlay(base, lowers, name, script, after=(), env=None):
    """Runs script (sh) in an overlay of its own, then the `after` command, both in one private mount namespace."""
    for part in ("upper", "work", "merged"):
        (base / name / part).mkdir(parents=True)
    layers = base / name
    options = f"lowerdir={':'.join(map(str, lowers))},upperdir={layers}/upper,workdir={layers}/work,userxattr,index=on"
    inner = 'mount -t overlay overlay -o "$1" "$2" && (cd "$2" && sh -c "$3") && shift 3 && { [ $# = 0 ] || exec "$@"; }'
    enter = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    done = subprocess.run([*enter, "sh", "-c", inner, "sh", options, str(layers / "merged"), script, *map(str, after)], capture_output=True, timeout=120,
                          env={**NEUTRAL, "MARK": str(base / "ran"), **(env or {})})
    if b"mount:" in done.stderr and not after:
        pytest.skip("no overlay mounts here: " + done.stderr.decode(errors="replace"))
    return done


def diff_after(tool, result, script, name="agent", lowers=None, max_bytes=1 << 28):
    base = tool.base
    scratch = base / f"{name}.scratch"
    scratch.mkdir()
    job = base / f"{name}.json"
    job.write_text(json.dumps({"store": result["store"], "commit": result["commit"], "checkout": result["checkout"], "upper": str(base / name / "upper"),
                               "worktree": str(base / name / "merged"), "scratch": str(scratch), "patch_path": str(base / f"{name}.patch"), "max_bytes": max_bytes}))
    done = in_overlay(base, lowers or [result["checkout"]], name, script, ["sh", "-c", f"exec {tool.path} diff < {job}"],
                      env={"GIT_ALTERNATE_OBJECT_DIRECTORIES": result["store"] + "/objects"})
    assert done.returncode == 0, done.stderr
    assert not (base / "ran").exists()
    return json.loads(done.stdout), base / f"{name}.patch"


def diff_after_in_a_copy(tool, result, script):
    """Where there is no overlay: the workspace is a copy of the cached tree."""
    work, patch, scratch = tool.base / "copy", tool.base / "copy.patch", tool.base / "copy.scratch"
    scratch.mkdir()
    subprocess.run(["cp", "-a", result["checkout"], work], check=True)
    subprocess.run(["sh", "-c", script], cwd=work, check=True, env=NEUTRAL)
    done = tool.run("diff", job={"store": result["store"], "commit": result["commit"], "checkout": result["checkout"], "worktree": str(work),
                                 "scratch": str(scratch), "patch_path": str(patch)})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), patch


def expected_tree(base, store, commit_id, script, name="expected"):
    """The same work done on a plain checkout, added by plain git."""
    where = base / name
    git(base, "clone", "-q", "--no-checkout", store, str(where))
    git(where, "checkout", "-q", "--detach", commit_id)
    done = subprocess.run(["sh", "-c", script], cwd=where, capture_output=True, env=NEUTRAL)
    assert done.returncode == 0, done.stderr
    git(where, "add", "-A")
    return git(where, "write-tree")


def apply_to_commit(base, store, commit_id, patch, name="applied"):
    where = base / name
    git(base, "clone", "-q", "--no-checkout", store, str(where))
    git(where, "checkout", "-q", "--detach", commit_id)
    if patch.stat().st_size:
        git(where, "apply", "--index", "--whitespace=nowarn", str(patch))
    return git(where, "write-tree")


@pytest.mark.parametrize("kind", ["git", "dirty"])
def test_the_diff_holds_exactly_what_the_agent_did(tool, busy_repo, kind):
    if kind == "git":
        result = tool.fetch(kind="git", url=str(busy_repo), ref=None)
    else:
        (busy_repo / "a.txt").write_text("dirty before\n")
        (busy_repo / "untracked.txt").write_text("u\n")
        result = tool.checkout(tool.fetch(kind="snapshot", dir=str(busy_repo)))
    in_overlay(tool.base, [result["checkout"]], "setup", SETUP)
    before = fingerprint(result["checkout"])
    summary, patch = diff_after(tool, result, AGENT_INSIDE, lowers=[tool.base / "setup" / "upper", result["checkout"]])
    assert fingerprint(result["checkout"]) == before
    git(busy_repo, "branch", "-f", "snap", result["commit"]) if kind == "git" else None
    source = str(busy_repo) if kind == "git" else result["store"]
    if kind == "dirty":
        git(result["store"], "update-ref", "refs/heads/snap", result["commit"])
    wanted = expected_tree(tool.base, source, result["commit"],
                           AGENT + "mkdir nested locked && echo n > nested/file && echo '* filter=x' > .gitattributes && echo l > locked/file\n")
    assert summary["tree"] == wanted
    assert apply_to_commit(tool.base, source, result["commit"], patch) == wanted
    files = {f.get("path_base64") or f["path"]: f for f in summary["files"]}
    assert files["renamed.txt"]["status"] == "R" and files["renamed.txt"]["old_path"] == "old.txt"
    assert files["del.txt"]["status"] == "D" and files["new/deep/file"]["status"] == "A"
    assert files["bin.dat"]["binary"] and files["bin.dat"]["added"] is None
    assert files["mode.sh"]["status"] == "M" and files["mode.sh"]["added"] == 0
    assert files["f2l"]["status"] == "T" or files["f2l"]["status"] in "AD"
    assert base64.b64encode(b"bad\xffutf8").decode() in files
    assert files["touchy"]["added"] == 1
    assert not [p for p in files if "noise" in p or "node_modules" in p or "setup-" in p or "untouched" in p]
    assert {s["path"] for s in summary["skipped"]} == {"pipe"}
    assert summary["bytes"] == patch.stat().st_size
    assert summary["added"] == sum(f["added"] or 0 for f in summary["files"])


RANDOM_WORK = r"""
import os, random, shutil, sys
random.seed(int(sys.argv[1]))
NAMES = ["a", "b", "c", "a-b", "a.b"]
def anywhere():
    return "/".join(random.choice(NAMES) for _ in range(random.randint(1, 4)))
def clear(path):
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)
def parents(path):
    at = ""
    for part in path.split("/")[:-1]:
        at = os.path.join(at, part)
        if os.path.islink(at) or os.path.isfile(at):
            os.unlink(at)
        os.makedirs(at, exist_ok=True)
def put(path, text):
    clear(path); parents(path)
    open(path, "w").write(text)
for _ in range(int(sys.argv[2])):
    path, what = anywhere(), random.randrange(8)
    if what < 3:
        put(path, "".join(random.choice("xyz") + "\\n" for _ in range(random.randint(0, 30))))
        os.chmod(path, random.choice([0o644, 0o755]))
    elif what == 3:
        clear(path); parents(path); os.symlink(random.choice(["gone", "/etc", "../x"]), path)  # no loops: git apply itself gives up on those
    elif what == 4:
        parents(path); clear(path)
    elif what == 5:
        clear(path); parents(path); os.makedirs(path)
    elif what == 6:
        to = anywhere()
        if os.path.lexists(path) and not (to + "/").startswith(path + "/") and not (path + "/").startswith(to + "/"):
            clear(to); parents(to)
            if os.path.lexists(path):
                shutil.move(path, to)
    elif os.path.isfile(path) and not os.path.islink(path):
        open(path, "a").write("more\\n")
"""


@pytest.mark.parametrize("mode", ["overlay", "plain"])
@pytest.mark.parametrize("seed", range(int(os.environ.get("SIGNALBOX_SOURCE_SEEDS", "5"))))
def test_whatever_is_done_to_a_tree_the_diff_leads_there(tool, tmp_path, seed, mode):
    repo, script = tmp_path / "random", tmp_path / "work.py"
    script.write_text(RANDOM_WORK)
    repo.mkdir()
    git(repo, "init", "-q")
    subprocess.run([sys.executable, str(script), str(seed), "60"], cwd=repo, check=True)
    commit(repo, "start")
    result = tool.fetch(kind="git", url=str(repo), ref=None)
    work = f"{sys.executable} {script} {seed + 1000} 25"
    summary, patch = (diff_after if mode == "overlay" else diff_after_in_a_copy)(tool, result, work)
    wanted = expected_tree(tool.base, str(repo), result["commit"], work)
    assert summary["tree"] == wanted and summary["skipped"] == []
    assert apply_to_commit(tool.base, str(repo), result["commit"], patch) == wanted


def test_a_repository_of_one_file_works(tool, tmp_path):
    repo = tmp_path / "one"
    repo.mkdir()
    git(repo, "init", "-q")
    (repo / "a").write_text("1\n")
    commit(repo, "one")
    result = tool.fetch(kind="git", url=str(repo), ref=None)
    summary, _ = diff_after(tool, result, "echo 2 >> a")
    assert [f["path"] for f in summary["files"]] == ["a"]


def test_an_agent_that_did_nothing_gives_an_empty_patch(tool, repo):
    result = tool.fetch(kind="git", url=str(repo), ref=None)
    summary, patch = diff_after(tool, result, "git status > /dev/null; touch a.txt; chmod 600 run.sh; chmod 700 run.sh")
    assert summary["files"] == [] and patch.stat().st_size == 0 and summary["tree"] == result["tree"]


def test_the_agents_own_git_directory_has_no_say(tool, repo):
    result = tool.fetch(kind="git", url=str(repo), ref=None)
    summary, _ = diff_after(tool, result, "echo x >> a.txt; rm -rf .git; git init -q; git add -A; mkdir -p sub/.git sub/.GIT; echo evil > sub/.git/config; echo evil > sub/.GIT/config; echo y > 'git~1'")
    assert [f["path"] for f in summary["files"]] == ["a.txt"]
    assert {s["path"] for s in summary["skipped"]} == {"sub/.GIT", "git~1"}


def test_a_diff_over_its_limit_is_an_error_and_leaves_no_file(tool, repo):
    result = tool.fetch(kind="git", url=str(repo), ref=None)
    with pytest.raises(AssertionError) as failed:
        diff_after(tool, result, "seq 1 100000 > big", max_bytes=1000)
    assert "limit" in str(failed.value)
    assert not list(tool.base.glob("agent.patch*"))


def test_files_in_a_submodules_place_are_skipped_and_said(tool, repo, tmp_path):
    other = tmp_path / "other"
    git(tmp_path, "init", "-q", str(other))
    (other / "x").write_text("x\n")
    commit(other, "x")
    git(repo, "submodule", "add", "-q", str(other), "mod")
    commit(repo, "submodule")
    result = tool.fetch(kind="git", url=str(repo), ref=None)
    summary, _ = diff_after(tool, result, "echo x > mod/file; echo y >> a.txt")
    assert [f["path"] for f in summary["files"]] == ["a.txt"]
    assert [s["path"] for s in summary["skipped"]] == ["mod"]


def test_many_new_files_are_all_in_the_diff(tool, repo):
    result = tool.fetch(kind="git", url=str(repo), ref=None)
    summary, patch = diff_after(tool, result, "mkdir many && cd many && seq 1 3000 | while read i; do echo $i > f$i; done")
    assert len(summary["files"]) == 3000 and summary["added"] == 3000
    assert apply_to_commit(tool.base, str(repo), result["commit"], patch) == summary["tree"]


def test_without_overlay_the_whole_workspace_is_compared_and_setup_does_not_count(tool, busy_repo):
    result = tool.fetch(kind="git", url=str(busy_repo), ref=None)
    work = tool.base / "work"
    subprocess.run(["cp", "-a", result["checkout"], work], check=True)
    objects = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": result["store"] + "/objects"}
    scratch = tool.base / "scratch"
    scratch.mkdir()
    job = {"store": result["store"], "commit": result["commit"], "checkout": result["checkout"], "worktree": str(work), "scratch": str(scratch), "patch_path": str(tool.base / "p.patch")}
    subprocess.run(["sh", "-c", SETUP], cwd=work, check=True, env=NEUTRAL)
    after_setup = tool.run("snapshot-tree", job=job)
    assert after_setup.returncode == 0, after_setup.stderr
    tree = after_setup.stdout.decode().strip()
    done = subprocess.run(["sh", "-c", AGENT_INSIDE], cwd=work, env={**NEUTRAL, **objects, "MARK": str(tool.base / "ran")}, capture_output=True)
    assert done.returncode == 0, done.stderr
    done = tool.run("diff", job={**job, "base_tree": tree})
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert not (tool.base / "ran").exists()
    names = {f["path"] for f in summary["files"]}
    assert "setup-noise.txt" not in names and "noisy-tracked.txt" not in names
    wanted = expected_tree(tool.base, str(busy_repo), result["commit"],
                           AGENT + "mkdir nested locked && echo n > nested/file && echo '* filter=x' > .gitattributes && echo l > locked/file\n")
    assert summary["tree"] == wanted, "the agent's work on the snapshot, without what the setup left"
    assert apply_to_commit(tool.base, str(busy_repo), result["commit"], tool.base / "p.patch") == wanted


# ---- apply ----

def make_patch(tool, repo, script):
    result = tool.checkout(tool.fetch(kind="snapshot", dir=str(repo)))
    return diff_after(tool, result, script)


def test_apply_puts_exactly_the_agents_changes_on_a_dirty_tree_and_leaves_the_index(tool, busy_repo):
    (busy_repo / "a.txt").write_text("dirty before\n")
    (busy_repo / "untracked.txt").write_text("u\n")
    (busy_repo / "staged.txt").write_text("s\n")
    git(busy_repo, "add", "staged.txt")
    summary, patch = make_patch(tool, busy_repo, AGENT)
    index = (busy_repo / ".git" / "index").read_bytes()
    assert tool.run("check-apply", busy_repo, patch).returncode == 0
    done = tool.run("apply", busy_repo, patch)
    assert done.returncode == 0, done.stderr
    assert (busy_repo / ".git" / "index").read_bytes() == index
    assert tool.fetch(kind="snapshot", dir=str(busy_repo))["tree"] == summary["tree"]
    assert (busy_repo / "a.txt").read_text() == "dirty before\nmore\n"


def test_apply_refuses_as_a_whole_and_names_the_files_when_something_does_not_fit(tool, busy_repo):
    _, patch = make_patch(tool, busy_repo, AGENT)
    (busy_repo / "a.txt").write_text("something else entirely\n")
    (busy_repo / "bin.dat").write_text("in the way\n")
    before = fingerprint(busy_repo)
    for verb in ("check-apply", "apply"):
        done = tool.run(verb, busy_repo, patch)
        assert done.returncode == 1 and done.stderr.startswith(b"conflict: ")
        assert b"a.txt" in done.stderr and b"bin.dat" in done.stderr
    assert fingerprint(busy_repo) == before


def test_apply_works_without_git_and_runs_nothing_of_the_repositorys(tool, repo, tmp_path):
    _, patch = make_patch(tool, repo, "echo more >> a.txt; printf '\\000\\001' > b.dat; rm run.sh")
    plain = tmp_path / "plain"
    shutil.copytree(repo, plain, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    hostile_settings(repo, tmp_path / "ran")
    for target in (plain, repo):
        done = tool.run("apply", target, patch)
        assert done.returncode == 0, done.stderr
        assert (target / "a.txt").read_text().endswith("more\n") and (target / "b.dat").read_bytes() == b"\0\1" and not (target / "run.sh").exists()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../outside", ".git/hooks/pre-commit", "/etc/passwd.signalbox", "link/../../x"])
def test_apply_refuses_a_patch_that_leads_outside(tool, repo, tmp_path, name):
    patch = tmp_path / "evil.patch"
    patch.write_text(f"diff --git a/{name} b/{name}\nnew file mode 100755\nindex 0000000..1111111\n--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+evil\n")
    before = fingerprint(repo)
    assert tool.run("apply", repo, patch).returncode == 1
    assert fingerprint(repo) == before and not (tmp_path / "outside").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_apply_puts_everything_back_when_writing_fails_in_the_middle(tool, busy_repo):
    _, patch = make_patch(tool, busy_repo, AGENT + "echo x >> untouched/x\n")
    (busy_repo / "untouched").chmod(0o555)
    before = fingerprint(busy_repo)
    done = tool.run("apply", busy_repo, patch)
    assert done.returncode == 1 and b"untouched/x" in done.stderr, done.stderr
    after = fingerprint(busy_repo)
    assert [(n, m, c) for n, m, _, c in after] == [(n, m, c) for n, m, _, c in before]


def test_apply_does_not_write_through_a_symbolic_link(tool, repo, tmp_path):
    (repo / "out").symlink_to(tmp_path)
    patch = tmp_path / "evil.patch"
    patch.write_text("diff --git a/out/x b/out/x\nnew file mode 100644\nindex 0000000..1111111\n--- /dev/null\n+++ b/out/x\n@@ -0,0 +1 @@\n+evil\n")
    assert tool.run("apply", repo, patch).returncode == 1
    assert not (tmp_path / "x").exists()


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
