"""The main job: a repository and a request go in; exactly the agent's changes and their record come out."""
import contextlib
import http.server
import json
import os
import shutil
import stat
import subprocess
import threading

import pytest
from e2e_site import ROADS, Site, file_url, wait_for

LAYERS = ["overlay", "plain"]

# A tree with something for each kind of change.
MAKE_TREE = r"""
printf 'one\ntwo\nthree\n' > edit.txt
echo gone > delete.txt
printf 'a file that\nis long enough\nto be found again\nunder another name\n' > rename-me.txt
echo '#!/bin/sh' > mode.sh; chmod 644 mode.sh
mkdir -p tofile/deep again/sub; echo a > tofile/a; echo b > tofile/deep/b
echo was a file > todir
echo x > again/x; echo y > again/y; echo z > again/sub/z
echo keep > keep.txt
printf 'crlf\r\nfile\r\n' > crlf.txt
printf 'no newline at the end' > noeol.txt
head -c 300 /dev/zero > zeros.bin
ln -s keep.txt oldlink
echo lock 1 > lock.txt
printf '*.log\nignored/\n' > .gitignore
"""

# What the agent does. It also runs outside, on a copy, to know what must come out.
AGENT = r"""
printf 'four\n' >> edit.txt; sed -i s/one/ONE/ edit.txt
rm delete.txt
mv rename-me.txt renamed.txt
chmod +x mode.sh
ln -s edit.txt link; ln -sfn edit.txt oldlink
python3 -c 'import sys; sys.stdout.buffer.write(bytes(range(256)) * 12)' > blob.bin
rm -r tofile; echo now a file > tofile
rm todir; mkdir -p todir/sub; echo inner > todir/sub/inner
rm -r again; mkdir again; echo x2 > again/x; echo w > again/w
printf 'changed\r\nfile\r\n' > crlf.txt
printf 'still no newline' > noeol.txt
printf 'x' >> zeros.bin
: > empty.txt
echo new > 'sp ace é "q".txt'
git add -A; git -c user.name=a -c user.email=a@b commit -qm inside
echo after the commit >> edit.txt
echo not to be seen > debug.log
"""

# What a setup leaves behind: new files, touched files, a tracked file that it changed.
SETUP = r"""
echo noise > noise.txt; mkdir -p node_modules/x; echo noise > node_modules/x/index.js
touch -d '2001-01-01' keep.txt edit.txt
echo lock 2 > lock.txt
echo setup was here
"""

DIRTY = r"""
echo staged > staged.txt; git add staged.txt
printf 'staged edit\n' >> keep.txt; git add keep.txt
printf 'unstaged\n' >> edit.txt
echo untracked > untracked.txt
mkdir -p ignored; echo secret > ignored/secret; echo x > trace.log
"""


@pytest.fixture(scope="module", params=[f"{road}-{layers}" for road in ROADS for layers in LAYERS])
def site(request):
    road, layers = request.param.split("-")
    s = Site(road, config={"sandbox": {"layers": layers}})
    s.layers = layers
    yield s
    s.close()


def make_repository(site):
    at = site.path("repo")
    site.sh(f"{MAKE_TREE}\ngit init -qb main; git add -A; git commit -qm first", at)
    return at


def tree_of(site, directory):
    """The tree id of a directory's files, as they would be committed."""
    return site.sh("git add -A . ':!.codex'; git write-tree", directory).strip()


def copy_of(site, directory):
    at = site.path("copy")
    subprocess.run(["cp", "-a", f"{directory}/.", at], check=True)
    shutil.rmtree(at / ".codex", ignore_errors=True)
    return at


def expected_tree(site, directory, script=AGENT):
    at = copy_of(site, directory)
    site.sh(script, at)
    return tree_of(site, at)


def tree_by_patch(site, directory, patch):
    """`git apply --index` of the patch on a copy whose index is its files."""
    at = copy_of(site, directory)
    (site.dir / "the.patch").write_bytes(patch)
    os.chmod(site.dir / "the.patch", 0o644)
    site.sh(f"git add -A; git apply --index --binary {site.dir}/the.patch", at)
    return site.sh("git write-tree", at).strip()


def files_of(directory):
    """Every file with its kind, mode and bytes, but for git's and our own."""
    found = {}
    for top, dirs, files in os.walk(directory):
        dirs[:] = [d for d in dirs if d not in (".git", ".codex")]
        for name in files + [d for d in dirs if os.path.islink(os.path.join(top, d))]:
            path = os.path.join(top, name)
            mode = os.lstat(path).st_mode
            data = os.readlink(path) if stat.S_ISLNK(mode) else open(path, "rb").read()
            found[os.path.relpath(path, directory)] = (stat.S_IFMT(mode), mode & 0o111, data)
    return found


def check_record(site, task, files):
    result = task["result"]
    assert {f["path"]: f["status"] for f in result["files"]} == files
    assert result["walls"]["layers"] == site.layers
    assert result["outcome"] == "success" and result["exit_code"] == 0
    assert result["patch_bytes"] == len(site.patch(task["id"]))
    events = site.log_file(task["id"])
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert [e["type"] for e in events].count("task.done") == 1
    assert {"task.created", "task.claimed", "workspace.fetched", "workspace.ready", "run.started", "artifact.written", "run.result", "run.ended", "task.done"} <= {e["type"] for e in events}
    assert events == site.events(task["id"])


CHANGES = {
    "edit.txt": "M", "delete.txt": "D", "renamed.txt": "R", "mode.sh": "M", "link": "A", "oldlink": "M",
    "blob.bin": "A", "tofile": "A", "tofile/a": "D", "tofile/deep/b": "D", "todir": "D", "todir/sub/inner": "A",
    "again/x": "M", "again/w": "A", "again/y": "D", "again/sub/z": "D", "crlf.txt": "M", "noeol.txt": "M",
    "zeros.bin": "M", "empty.txt": "A", 'sp ace é "q".txt': "A",
}


class GitHttp:
    """`git http-backend` on loopback, at a port of the kernel's choice."""

    def __init__(self, root):
        outer = self
        self.seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def answer(self):
                outer.seen.append(self.path)
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                env = {"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
                       "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
                       "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""), "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                       "REMOTE_ADDR": "127.0.0.1", "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
                out = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True).stdout
                head, _, data = out.partition(b"\r\n\r\n")
                lines = [line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line]
                status = next((int(v.split()[0]) for k, v in lines if k == "Status"), 200)
                self.send_response(status)
                for key, value in lines:
                    if key != "Status":
                        self.send_header(key, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = answer

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@contextlib.contextmanager
def served(site, repository, how):
    if how == "file":
        yield file_url(repository)
        return
    git = GitHttp(repository.parent)
    try:
        yield f"{git.url}/{repository.name}"
        assert git.seen, "nobody asked the git server"
    finally:
        git.close()


@pytest.mark.parametrize("how", ["file", "http"])
def test_from_a_git_url_the_diff_is_exactly_the_agents_changes(site, how):
    repo = make_repository(site)
    with served(site, repo, how) as url:
        task = site.run(AGENT, {"kind": "git", "url": url, "ref": "main"}, setup=SETUP)
    assert task["source"]["commit"] == site.sh("git rev-parse HEAD", repo).strip()
    assert task["source"]["tree"] == site.sh("git rev-parse HEAD^{tree}", repo).strip()
    check_record(site, task, CHANGES)
    patch = site.patch(task["id"])
    assert task["result"]["tree"] == expected_tree(site, repo)
    assert tree_by_patch(site, repo, patch) == task["result"]["tree"]
    assert b"noise" not in patch and b"lock" not in patch and b"not to be seen" not in patch
    assert "setup was here" in (site.run_dir(task["id"]) / "setup.log").read_text()


@pytest.mark.parametrize("ref", ["side", "v1", "commit"])
def test_a_ref_is_a_branch_a_tag_or_a_commit(site, ref):
    repo = make_repository(site)
    site.sh("git checkout -qb side; echo side > side.txt; git add -A; git commit -qm side; git tag v1; git checkout -q main", repo)
    commit = site.sh("git rev-parse side", repo).strip()
    task = site.run("cat side.txt; git log --format=%s; git status --porcelain", {"kind": "git", "url": file_url(repo), "ref": commit if ref == "commit" else ref})
    assert task["source"]["commit"] == commit
    said = "\n".join(e["data"]["text"] for e in site.events(task["id"], "message.done"))
    assert said.split() == ["side", "side", "first"]


def test_from_a_dirty_directory_the_diff_is_exactly_the_agents_changes_and_apply_adds_just_them(site):
    repo = make_repository(site)
    site.sh(DIRTY, repo)
    before, git_before = files_of(repo), files_of(repo / ".git")
    status = site.sh("GIT_OPTIONAL_LOCKS=0 git status --porcelain", repo)
    git_before = files_of(repo / ".git")
    task = site.run(AGENT, {"kind": "local", "dir": str(repo)}, setup=SETUP, name="T-1")
    assert files_of(repo) == before and files_of(repo / ".git") == git_before, "the person's directory was touched"
    check_record(site, task, CHANGES)
    assert task["source"]["tree"] == tree_of(site, copy_of(site, repo))
    assert task["result"]["tree"] == expected_tree(site, repo)
    assert tree_by_patch(site, repo, site.patch(task["id"])) == task["result"]["tree"]

    after = copy_of(site, repo)
    site.sh(AGENT.replace("git add -A; git -c user.name=a -c user.email=a@b commit -qm inside", "").replace("echo not to be seen > debug.log", ""), after)
    done = site.cli("apply", "T-1", cwd=repo)
    assert done.returncode == 0, done.stderr
    assert files_of(repo) == files_of(after)
    staged = site.sh("git diff --cached --name-only", repo).split()
    assert staged == ["keep.txt", "staged.txt"], "what was staged stays staged, and nothing else is"
    assert "A  staged.txt" in status


def test_what_is_ignored_stays_at_home_and_what_is_untracked_comes_along(site):
    repo = make_repository(site)
    site.sh(DIRTY, repo)
    task = site.run("ls -A | sort; git status --porcelain; cat keep.txt staged.txt untracked.txt", {"kind": "local", "dir": str(repo)})
    said = "\n".join(e["data"]["text"] for e in site.events(task["id"], "message.done")).split("\n")
    assert "ignored" not in said and "trace.log" not in said
    assert said[-4:] == ["keep", "staged edit", "staged", "untracked"], said


def test_apply_refuses_what_does_not_fit_any_more_and_changes_nothing(site):
    repo = make_repository(site)
    site.sh(DIRTY, repo)
    task = site.run("sed -i s/two/TWO/ edit.txt; echo new > brand-new.txt; rm delete.txt", {"kind": "local", "dir": str(repo)})
    site.sh("sed -i s/two/zwei/ edit.txt", repo)
    before = files_of(repo)
    done = site.cli("apply", task["id"], cwd=repo)
    assert done.returncode == 6 and "edit.txt" in done.stderr, (done.returncode, done.stderr)
    assert files_of(repo) == before
    site.sh("sed -i s/zwei/two/ edit.txt", repo)
    assert site.cli("apply", "--check", task["id"], cwd=repo).returncode == 0
    assert files_of(repo) != before and not (repo / "brand-new.txt").exists()
    done = site.cli("apply", task["id"], cwd=repo)
    assert done.returncode == 0 and (repo / "brand-new.txt").exists() and not (repo / "delete.txt").exists(), done.stderr
    assert site.cli("apply", task["id"], cwd=repo).returncode == 6, "applied twice"


def test_a_directory_without_git_is_a_source(site):
    plain = site.path("plain")
    site.sh(MAKE_TREE + "rm .gitignore", plain)
    before = files_of(plain)
    task = site.run(AGENT.replace("echo not to be seen > debug.log", ""), {"kind": "local", "dir": str(plain)}, setup=SETUP)
    assert files_of(plain) == before and not (plain / ".git").exists()
    check_record(site, task, CHANGES)
    done = site.cli("apply", task["id"], cwd=plain)
    assert done.returncode == 0, done.stderr
    twin = site.path("twin")
    site.sh(MAKE_TREE + "rm .gitignore; git init -q; git add -A; git commit -qm x;" + AGENT.replace("echo not to be seen > debug.log", ""), twin)
    assert files_of(plain) == files_of(twin)


def test_without_a_source_the_workspace_is_empty_and_the_diff_holds_what_was_made(site):
    task = site.run("ls -A | grep -v '^.git$'; mkdir d; echo made > d/file; git status --porcelain")
    assert site.patch(task["id"]).count(b"diff --git") == 1
    assert [f["path"] for f in task["result"]["files"]] == ["d/file"]


def test_an_agent_that_goes_on_with_what_the_setup_left_gives_a_diff_that_applies_to_the_snapshot(site):
    repo = make_repository(site)
    task = site.run("echo agent >> lock.txt; echo agent >> noise.txt; rm -r node_modules", {"kind": "local", "dir": str(repo)}, setup=SETUP)
    assert {f["path"]: f["status"] for f in task["result"]["files"]} == {"lock.txt": "M", "noise.txt": "A"}
    assert tree_by_patch(site, repo, site.patch(task["id"])) == task["result"]["tree"]


def test_an_agent_that_changes_nothing_leaves_an_empty_diff(site):
    repo = make_repository(site)
    task = site.run("cat edit.txt > /dev/null; touch keep.txt", {"kind": "local", "dir": str(repo)}, setup=SETUP)
    assert site.patch(task["id"]) == b"" and task["result"]["files"] == []


def test_the_agents_own_git_does_not_matter(site):
    repo = make_repository(site)
    for script in ("rm -rf .git; echo new >> edit.txt", "rm -rf .git; git init -q; git add -A; git -c user.name=a -c user.email=a@b commit -qm x; echo new >> edit.txt",
                   "git checkout -qb other; echo new >> edit.txt; git -c user.name=a -c user.email=a@b commit -qam x; git gc -q --prune=now",
                   "echo new >> edit.txt; git -c user.name=a -c user.email=a@b stash -q; git stash apply -q; printf garbage > .git/index"):
        task = site.run(script, {"kind": "local", "dir": str(repo)})
        assert [(f["path"], f["status"]) for f in task["result"]["files"]] == [("edit.txt", "M")], script
        assert tree_by_patch(site, repo, site.patch(task["id"])) == expected_tree(site, repo, "echo new >> edit.txt")


def test_a_setup_that_fails_ends_the_run_with_its_last_lines(site):
    repo = make_repository(site)
    task = site.run("echo never", {"kind": "local", "dir": str(repo)}, status="ERROR", setup="echo preparing; echo no such package >&2; exit 3")
    assert task["reason"] == "setup_failed" and "no such package" in task["error"] and "3" in task["error"]
    assert "preparing" in (site.run_dir(task["id"]) / "setup.log").read_text()
    assert site.events(task["id"], "run.started") == []


@pytest.mark.parametrize("name", ["setup.sh", ".signalbox/setup.sh"])
def test_the_repositorys_own_setup_runs_before_the_agent_without_network(site, name):
    repo = make_repository(site)
    site.sh(f"mkdir -p .signalbox; echo 'echo prepared > /workspace/prepared.txt; ls /sys/class/net 2>/dev/null; cat /proc/net/dev | grep -c :' > {name}; git add -A; git commit -qm s", repo)
    task = site.run("cat prepared.txt; echo $TASK_ID $SESSION_ID", {"kind": "git", "url": file_url(repo)})
    said = "\n".join(e["data"]["text"] for e in site.events(task["id"], "message.done"))
    assert said.split() == ["prepared", task["id"], task["session_id"]]
    assert (site.run_dir(task["id"]) / "setup.log").read_text().split()[-1] == "1", "more than the loopback device"


def test_verify_decides_and_its_exit_code_is_ours(site):
    repo = make_repository(site)
    good = site.run("echo x > made.txt", {"kind": "local", "dir": str(repo)}, verify="test -f made.txt")
    assert good["result"]["verify"]["exit_code"] == 0
    bad = site.run("echo x > made.txt", {"kind": "local", "dir": str(repo)}, status="ERROR", verify="echo checked; echo spoilt > made.txt; exit 7")
    assert bad["result"]["verify"]["exit_code"] == 7 and bad["reason"] == "verify_failed"
    assert b"spoilt" not in site.patch(bad["id"]), "what the check did is no change of the agent's"


def test_the_heartbeat_file_of_a_local_directory_tells_the_end(site):
    repo = make_repository(site)
    task = site.run("echo x > made.txt", {"kind": "local", "dir": str(repo)}, name="T-2")
    path = repo / ".codex/tasks/T-2.json"
    doc = wait_for("the heartbeat file's end", lambda: (lambda d: d["status"] != "RUNNING" and d)(json.loads(path.read_text())))
    assert doc["taskId"] in (task["id"], "T-2") and doc["sessionId"] == task["session_id"] and doc["status"] == "DONE"
    assert doc["result"]["filesChanged"] == ["made.txt"]
    assert site.sh("git status --porcelain", repo) == ""


def test_run_on_the_command_line_follows_to_the_end_and_says_what_to_do_next(site):
    repo = make_repository(site)
    done = site.cli("run", "--agent", "command", "echo hello; echo more >> edit.txt", cwd=repo)
    assert done.returncode == 0, done.stderr
    assert "edit.txt" in done.stdout + done.stderr and "signalbox apply" in done.stdout + done.stderr
    shown = site.call("GET", "/v1/tasks?limit=1")[1]["data"][0]
    site.tasks.add(shown["id"])
    assert site.cli("diff", shown["id"]).stdout.encode() == site.patch(shown["id"])
