"""Repositories made to hurt whoever fetches them: whatever they hold, nothing of theirs runs, nothing outside the cache is written, and what is
refused is refused with what was wrong.  Over each road: as a directory's URL, and from a server of theirs."""
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import threading

import pytest
from test_source import NEUTRAL, Failure, GitHttp, commit, fingerprint, git, git_http, hostile_settings, read_tree_of, repo, tool, write_objects  # noqa: F401

IGNORED_BY_HFS = ["\u200c", "\u200d", "\u200e", "\u200f", "\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u206a", "\u206b", "\u206c", "\u206d", "\u206e", "\u206f", "\ufeff"]
DISGUISED = [".git", ".GIT", ".Git", ".gIT", "git~1", "GIT~1", "Git~1", ".git ", ".git.", ".git. .", ".git ...", ".GIT.", ".git::$INDEX_ALLOCATION", ".git:x", ".GIT::$index_allocation",
             "..", "."] + [f".g{c}it" for c in IGNORED_BY_HFS] + [f"{c}.git" for c in IGNORED_BY_HFS[:3]] + [f".git{c}" for c in IGNORED_BY_HFS[:3]] + [".G\u200cI\u200dT", "a/b", "../x", "/etc", ".git/hooks"]
KINDS = ["tree", "file", "link", "submodule"]


@pytest.fixture(params=["file", "http"])
def road(request, tool, repo, tmp_path):  # noqa: F811
    """fetch(ref) of `repo` over one of the roads."""
    if request.param == "file":
        yield lambda **more: tool.fetch(kind="git", url=str(repo), ref=None, **more)
    else:
        url, _ = request.getfixturevalue("git_http")
        yield lambda **more: tool.fetch(kind="git", url=f"{url}/repo/.git", ref=None, **more)


@pytest.fixture
def outside(tmp_path):
    """What must not change, and what must not appear: made before, looked at after."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "config").write_text("untouched\n")
    before = fingerprint(place)
    yield place
    assert fingerprint(place) == before
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


def checked_out(tool):  # noqa: F811
    trees = tool.cache / "trees"
    return [n for n in os.listdir(trees) if not n.startswith(".lock")] if trees.exists() else []


def inner_tree(path, outside):
    """A git directory of theirs, with a hook and a configuration that runs things."""
    blob = git(path, "hash-object", "-w", "a.txt")
    script = subprocess.run(["git", "hash-object", "-w", "--stdin"], cwd=path, input=f"[core]\n\tfsmonitor = touch {outside.parent}/ran\n".encode(), capture_output=True, check=True, env=NEUTRAL).stdout.decode().strip()
    hooks = subprocess.run(["git", "mktree"], cwd=path, input=f"100755 blob {blob}\tpost-checkout\n".encode(), capture_output=True, check=True, env=NEUTRAL).stdout.decode().strip()
    return subprocess.run(["git", "mktree"], cwd=path, input=f"100644 blob {script}\tconfig\n040000 tree {hooks}\thooks\n".encode(), capture_output=True, check=True, env=NEUTRAL).stdout.decode().strip()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DISGUISED)
def test_a_disguised_git_directory_is_refused(tool, repo, road, outside, name, kind):  # noqa: F811
    target = subprocess.run(["git", "hash-object", "-w", "--stdin"], cwd=repo, input=str(outside).encode(), capture_output=True, check=True, env=NEUTRAL).stdout.decode().strip()
    mode, id = {"tree": ("40000", inner_tree(repo, outside)), "file": ("100644", target), "link": ("120000", target), "submodule": ("160000", git(repo, "rev-parse", "HEAD"))}[kind]
    write_objects(repo, [(mode, name, id)])
    with pytest.raises(Failure) as failed:
        road()
    assert failed.value.code in ("invalid", "failed") and failed.value.text
    assert not checked_out(tool)


@pytest.mark.parametrize("name", ["git/hooks", ".gitmodules", ".gitattributes", ".gitignore", ".mailmap"])
def test_a_symbolic_link_in_place_of_gits_own_files_leads_nowhere(tool, repo, road, outside, name):  # noqa: F811
    target = subprocess.run(["git", "hash-object", "-w", "--stdin"], cwd=repo, input=str(outside / "config").encode(), capture_output=True, check=True, env=NEUTRAL).stdout.decode().strip()
    write_objects(repo, [("120000", name, target)])
    try:
        result = road()
    except Failure as failed:
        assert failed.text
    else:
        for top, dirs, files in os.walk(result["checkout"]):
            assert not [f for f in dirs + files if os.path.realpath(os.path.join(top, f)).startswith(str(outside)) and not os.path.islink(os.path.join(top, f))]


def entries_behind_a_link(repo, outside):  # noqa: F811
    """`x` is a link to the outside and a directory at once."""
    blob = git(repo, "hash-object", "-w", "a.txt")
    link = subprocess.run(["git", "hash-object", "-w", "--stdin"], cwd=repo, input=str(outside).encode(), capture_output=True, check=True, env=NEUTRAL).stdout.decode().strip()
    tree = subprocess.run(["git", "mktree"], cwd=repo, input=f"100644 blob {blob}\tconfig\n".encode(), capture_output=True, check=True, env=NEUTRAL).stdout.decode().strip()
    return link, tree, blob


@pytest.mark.parametrize("order", [("120000 x", "40000 x"), ("40000 x", "120000 x"), ("120000 x", "100644 x"), ("120000 x", "40000 X"), ("120000 x", "100644 x/config"), ("120000 x/", "40000 x"), ("120000 x", "120000 x")])
def test_one_name_twice_does_not_write_through_a_link(tool, repo, road, outside, order):  # noqa: F811
    link, tree, blob = entries_behind_a_link(repo, outside)
    ids = {"120000": link, "40000": tree, "100644": blob}
    write_objects(repo, [(o.split()[0], o.split(" ", 1)[1], ids[o.split()[0]]) for o in order])
    try:
        result = road()
    except Failure as failed:
        assert failed.text
    else:
        assert order == ("120000 x", "40000 X"), "two names that differ are two things here"
        assert os.path.islink(pathlib.Path(result["checkout"]) / "x")


GITMODULES = {
    "ext": '[submodule "s"]\n\tpath = s\n\turl = ext::sh -c "touch {ran}"\n', "option": '[submodule "s"]\n\tpath = s\n\turl = --upload-pack=touch {ran}\n', "dashes": '[submodule "s"]\n\tpath = s\n\turl = -u./x\n',
    "update": '[submodule "s"]\n\tpath = s\n\turl = {ok}\n\tupdate = !touch {ran}\n', "name": '[submodule "../../../hooks"]\n\tpath = s\n\turl = {ok}\n', "path": '[submodule "s"]\n\tpath = ../outside\n\turl = {ok}\n',
    "absolute": '[submodule "s"]\n\tpath = {outside}\n\turl = {ok}\n', "dotgit": '[submodule "s"]\n\tpath = .git/hooks\n\turl = {ok}\n', "metadata": '[submodule "s"]\n\tpath = s\n\turl = http://169.254.169.254/x\n',
    "decimal": '[submodule "s"]\n\tpath = s\n\turl = http://2852039166/x\n', "newline": '[submodule "s"]\n\tpath = s\n\turl = "https://x/\\n-oProxyCommand=touch {ran}"\n', "helper": '[submodule "s"]\n\tpath = s\n\turl = fd::3,4\n',
    "relative": '[submodule "s"]\n\tpath = s\n\turl = ../../../../../../../../etc\n', "shell": '[submodule "s"]\n\tpath = s\n\turl = "ssh://-oProxyCommand=touch%20{ran}/x"\n', "dash path": '[submodule "s"]\n\tpath = -x\n\turl = {ok}\n',
    "include": '[include]\n\tpath = {outside}/config\n[submodule "s"]\n\tpath = s\n\turl = {ok}\n', "garbage": "\x01\x02[[[", "credentials": '[submodule "s"]\n\tpath = s\n\turl = https://u:p@localhost/x\n',
}


@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("trick", GITMODULES)
def test_hostile_submodules_run_nothing_and_lead_nowhere(tool, repo, road, outside, tmp_path, trick, on):  # noqa: F811
    ok = tmp_path / "repo"
    (repo / ".gitmodules").write_text(GITMODULES[trick].format(ran=tmp_path / "ran", ok=ok, outside=outside))
    git(repo, "add", ".gitmodules")
    git(repo, "update-index", "--add", "--cacheinfo", f"160000,{git(repo, 'rev-parse', 'HEAD')},s")
    git(repo, "commit", "-qm", "sub")
    try:
        result = road(submodules=on)
    except Failure as failed:
        assert failed.text and failed.code in ("invalid", "denied", "failed", "unreachable", "not_found")
    else:
        inside = pathlib.Path(result["checkout"]) / "s"
        assert inside.is_dir() and not inside.is_symlink()
        assert on and trick in ("update", "include") or not list(inside.iterdir())
        assert not (pathlib.Path(result["checkout"]) / ".git/hooks").exists() and not (pathlib.Path(result["checkout"]) / ".git/modules").exists()


@pytest.mark.parametrize("attributes", ["* filter=evil", "* ident", "late.txt working-tree-encoding=UTF-16", "* text eol=crlf", "* -text", "* export-subst", "* merge=evil diff=evil", "* filter=lfs diff=lfs merge=lfs -text", "[attr]x filter=evil\n* x"])
def test_attributes_change_nothing_and_run_nothing(tool, repo, road, outside, tmp_path, attributes):  # noqa: F811
    (repo / ".gitattributes").write_text(attributes + "\n")
    (repo / "u.txt").write_text("$Id$\nplain\n")
    (repo / "late.txt").write_text("late\n", encoding="utf-16")
    commit(repo, "attributes")
    hostile_settings(repo, tmp_path / "ran")
    try:
        result = road()
    except Failure as failed:
        assert "working-tree-encoding" in attributes or "UTF-16" in failed.text
    else:
        tree = pathlib.Path(result["checkout"])
        assert (tree / "a.txt").read_bytes().replace(b"\r", b"") == b"one\ntwo\nthree\n" or "working-tree" in attributes


@pytest.mark.parametrize("name", ["refs/heads/-x", "refs/heads/--upload-pack", "refs/heads/HEAD", "refs/tags/HEAD", "refs/heads/refs/heads/main", "refs/heads/" + "x" * 200, "refs/heads/a'b", "refs/heads/$(id)", "refs/heads/`id`",
                                  "refs/heads/;id", "refs/heads/\u202e", "refs/heads/ü", "refs/tags/main", "refs/heads/%00", "refs/heads/&"])
def test_refs_with_hostile_names_are_names_only(tool, repo, road, outside, name):  # noqa: F811
    git(repo, "update-ref", name, "HEAD")
    result = road()
    assert result["commit"] == git(repo, "rev-parse", "refs/heads/main")
    assert read_tree_of(result)("status", "--porcelain") == ""


def pkt(text):
    data = text if isinstance(text, bytes) else text.encode()
    return f"{len(data) + 4:04x}".encode() + data


ID = "1" * 40
V0 = pkt("# service=git-upload-pack\n") + b"0000"
LISTINGS = {
    "nothing": b"", "not git": b"<html>hello</html>", "a huge length": b"ffff" + b"x" * 10, "a bad length": b"zzzz", "a length below four": b"0001x", "cut in the middle": V0 + pkt(f"{ID} HEAD\0\n")[:20],
    "a ref that leads up": V0 + pkt(f"{ID} refs/heads/../../../../tmp/x\0side-band-64k\n") + b"0000", "a ref with a newline": V0 + pkt(f"{ID} refs/heads/a\nb\0side-band-64k\n") + b"0000",
    "a ref with NUL": V0 + pkt(f"{ID} refs/heads/x\0\0\0\n") + b"0000", "an absolute ref": V0 + pkt(f"{ID} /etc/passwd\0side-band-64k\n") + b"0000", "a bad id": V0 + pkt("zz refs/heads/main\0x\n") + b"0000",
    "a ref that is an option": V0 + pkt(f"{ID} --upload-pack=id\0side-band-64k\n") + b"0000", "terminal escapes": V0 + pkt("ERR \x1b]0;owned\x07\x1b[2J\u202eevil\n") + b"0000",
    "an error": V0 + pkt("ERR go away\n") + b"0000", "many refs and no pack": V0 + b"".join(pkt(f"{i:040x} refs/heads/b{i}\0side-band-64k\n" if i == 0 else f"{i:040x} refs/heads/b{i}\n") for i in range(5000)) + b"0000",
    "a symref out of refs": V0 + pkt(f"{ID} HEAD\0symref=HEAD:refs/heads/../../x side-band-64k\n") + pkt(f"{ID} refs/heads/main\n") + b"0000",
    "a head that is a config": V0 + pkt(f"{ID} HEAD\0symref=HEAD:config\n") + pkt(f"{ID} refs/heads/main\n") + b"0000", "sha256": V0 + pkt(f"{'1' * 64} HEAD\0object-format=sha256\n") + b"0000",
}


@pytest.mark.parametrize("answer", LISTINGS)
def test_a_server_that_answers_nonsense_is_told_so_and_leaves_nothing(tool, outside, answer):  # noqa: F811
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
            self.end_headers()
            self.wfile.write(LISTINGS[answer])

        def do_POST(self):
            self.send_response(200)
            self.send_header("Content-Type", "application/x-git-upload-pack-result")
            self.end_headers()
            self.wfile.write(b"0008NAK\n" + pkt(b"\x01PACK\0\0\0\2\xff\xff\xff\xff" + b"x" * 100) + b"0000")

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(Failure) as failed:
            tool.fetch(kind="git", url=f"http://127.0.0.1:{server.server_address[1]}/x.git", ref=None)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert failed.value.text and "\x1b" not in failed.value.text and "\u202e" not in failed.value.text
    assert not checked_out(tool)


# ---- submodules that are what they say ----

@pytest.fixture
def family(tmp_path, repo):  # noqa: F811
    """repo has lib as a submodule, which has core as one."""
    core, lib = tmp_path / "core", tmp_path / "lib"
    for path in (core, lib):
        path.mkdir()
        git(path, "init", "-q")
        (path / "name.txt").write_text(path.name + "\n")
        commit(path, path.name)
    git(lib, "submodule", "--quiet", "add", "../core", "inner/core")
    commit(lib, "with core")
    git(repo, "submodule", "--quiet", "add", "../lib", "deps/lib")
    commit(repo, "with lib")
    return repo


@pytest.fixture(params=["file", "http"])
def parent(request, tool, family):  # noqa: F811
    if request.param == "file":
        return str(family)
    return request.getfixturevalue("git_http")[0] + "/repo"


def test_submodules_are_there_for_those_who_ask(tool, family, parent):  # noqa: F811
    off = tool.fetch(kind="git", url=parent, ref=None)
    assert not list((pathlib.Path(off["checkout"]) / "deps/lib").iterdir()) and "deps/lib" in off["warnings"][0]
    on = tool.fetch(kind="git", url=parent, ref=None, submodules=True)
    tree = pathlib.Path(on["checkout"])
    assert (tree / "deps/lib/name.txt").read_text() == "lib\n" and (tree / "deps/lib/inner/core/name.txt").read_text() == "core\n"
    assert on["checkout"] != off["checkout"] and on["commit"] == off["commit"] and on["warnings"] == []
    assert not list(tree.glob("**/.git/modules")) and read_tree_of(on)("status", "--porcelain") == ""
    assert tool.fetch(kind="git", url=parent, ref=None, submodules=True)["reused"] is True


def test_a_submodule_on_this_machine_is_refused_to_a_repository_of_another_host(tool, repo, git_http, tmp_path):  # noqa: F811
    url, _ = git_http
    for target in (str(tmp_path / "repo"), f"file://{tmp_path}/repo", "/etc"):
        (repo / ".gitmodules").write_text(f'[submodule "s"]\n\tpath = s\n\turl = {target}\n')
        git(repo, "add", ".gitmodules")
        git(repo, "update-index", "--add", "--cacheinfo", f"160000,{git(repo, 'rev-parse', 'HEAD')},s")
        git(repo, "commit", "-qm", "sub")
        with pytest.raises(Failure) as failed:
            tool.fetch(kind="git", url=f"{url}/repo/.git", ref=None, submodules=True)
        assert failed.value.code == "denied" and "'s'" in failed.value.text and "this machine" in failed.value.text


def test_submodules_in_each_other_come_to_an_end(tool, repo, git_http):  # noqa: F811
    (repo / ".gitmodules").write_text('[submodule "s"]\n\tpath = s\n\turl = ./\n')
    git(repo, "add", ".gitmodules")
    for _ in range(8):
        git(repo, "update-index", "--add", "--cacheinfo", f"160000,{git(repo, 'rev-parse', 'HEAD')},s")
        git(repo, "commit", "-qm", "deeper")
    with pytest.raises(Failure) as failed:
        tool.fetch(kind="git", url=f"{git_http[0]}/repo/.git", ref=None, submodules=True)
    assert failed.value.code == "limit" and "deep" in failed.value.text


def test_only_so_much_history_comes_when_so_much_is_asked_for(tool, repo, git_http):  # noqa: F811
    for i in range(5):
        (repo / "a.txt").write_text(f"{i}\n")
        newest = commit(repo, f"c{i}")
    shallow = tool.fetch(kind="git", url=f"{git_http[0]}/repo/.git", ref=None, depth=2)
    full = tool.fetch(kind="git", url=f"{git_http[0]}/repo/.git", ref=None)
    assert shallow["commit"] == full["commit"] == newest and shallow["store"] != full["store"]
    assert len(read_tree_of(shallow)("log", "--format=%h").split()) == 2 and len(read_tree_of(full)("log", "--format=%h").split()) == 6
    (repo / "a.txt").write_text("more\n")
    newest = commit(repo, "more")
    assert tool.fetch(kind="git", url=f"{git_http[0]}/repo/.git", ref=None, depth=2)["commit"] == newest


# ---- git-lfs ----

class LfsHttp(GitHttp):
    """git's backend, and the two calls of git-lfs beside it."""
    objects, links, asked = {}, {}, []

    def answer(self):
        if self.path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.asked.append(wanted)
            base = f"http://127.0.0.1:{self.server.server_address[1]}/objects/"
            reply = [{"oid": o["oid"], "size": o["size"], "actions": {"download": {"href": self.links.get(o["oid"], base + o["oid"]), "header": {"X-Way": "yes"}}}} for o in wanted["objects"]]
            self.give(200, json.dumps({"transfer": "basic", "objects": reply}).encode())
        elif self.path.startswith("/objects/"):
            assert self.headers["X-Way"] == "yes"
            data = self.objects.get(self.path.rsplit("/", 1)[1])
            self.give(200 if data is not None else 404, data or b"")
        elif self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", "/objects/x")
            self.end_headers()
        else:
            super().answer()

    def give(self, status, data):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer


@pytest.fixture
def lfs(repo, tmp_path):  # noqa: F811
    handler = type("H", (LfsHttp,), {"root": tmp_path, "seen": [], "objects": {}, "links": {}, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    handler.url = f"http://127.0.0.1:{server.server_address[1]}/repo/.git"
    handler.place = lambda path, data, **more: place(repo, handler, path, data, **more)
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def place(repo, handler, path, data, keep=True):  # noqa: F811
    oid = hashlib.sha256(data).hexdigest()
    (repo / path).parent.mkdir(parents=True, exist_ok=True)
    (repo / path).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n")
    (repo / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    if keep:
        handler.objects[oid] = data
    commit(repo, path)
    return oid


def test_lfs_files_are_there_for_those_who_ask_and_git_finds_them_unchanged(tool, repo, lfs):  # noqa: F811
    big = os.urandom(3 << 20)
    lfs.place("a.bin", b"small\n")
    lfs.place("deep/b.bin", big)
    (repo / "talk.txt").write_text("version https://git-lfs.github.com/spec/v1 is what pointers begin with\n")
    (repo / ".lfsconfig").write_text("[lfs]\n\turl = http://169.254.169.254/x\n")
    commit(repo, "talk")
    off = tool.fetch(kind="git", url=lfs.url, ref=None)
    assert (pathlib.Path(off["checkout"]) / "a.bin").read_text().startswith("version https://git-lfs") and not lfs.asked
    on = tool.fetch(kind="git", url=lfs.url, ref=None, lfs=True)
    tree = pathlib.Path(on["checkout"])
    assert (tree / "a.bin").read_bytes() == b"small\n" and (tree / "deep/b.bin").read_bytes() == big and on["tree"] == off["tree"]
    assert read_tree_of(on)("status", "--porcelain") == "" and read_tree_of(off)("status", "--porcelain") == ""
    assert on["checkout"] != off["checkout"] and (pathlib.Path(off["checkout"]) / "a.bin").read_text().startswith("version")
    asked = len(lfs.asked)
    (repo / "a.txt").write_text("next\n")
    commit(repo, "next")
    after = tool.fetch(kind="git", url=lfs.url, ref=None, lfs=True)
    assert (pathlib.Path(after["checkout"]) / "deep/b.bin").read_bytes() == big and len(lfs.asked) == asked, "what is kept is not asked for again"
    plain = tool.fetch(kind="git", url=lfs.url, ref=None)
    assert (pathlib.Path(plain["checkout"]) / "a.bin").read_text().startswith("version https://git-lfs")


@pytest.mark.parametrize("link,code", [("http://169.254.169.254/x", "denied"), ("http://2130706433/x", "invalid"), ("file:///etc/passwd", "denied"), ("gopher://127.0.0.1/x", "invalid"), ("https://u:p@127.0.0.1/x", "invalid"),
                                       ("/objects/x", "denied"), ("away", "denied"), ("missing", "not_found"), ("wrong", "invalid"), ("long", "unreachable"), ("-o/etc/x", "invalid")])
def test_where_an_lfs_server_leads_is_judged_like_any_url_and_what_comes_is_proven(tool, lfs, outside, link, code):  # noqa: F811
    oid = lfs.place("a.bin", b"x" * 1000, keep=False)
    base = lfs.url.split("/repo")[0]
    lfs.links[oid] = {"away": f"{base}/away/x", "missing": f"{base}/objects/missing", "wrong": f"{base}/objects/wrong", "long": f"{base}/objects/long"}.get(link, link)
    lfs.objects.update(wrong=b"y" * 1000, long=b"x" * 5000)
    with pytest.raises(Failure) as failed:
        tool.fetch(kind="git", url=lfs.url, ref=None, lfs=True)
    assert failed.value.code == code and "a.bin" in failed.value.text, (failed.value.code, failed.value.text)
    assert not checked_out(tool) and not list(tool.cache.glob("git/*/lfs/*"))


def test_lfs_needs_https(tool, lfs, repo):  # noqa: F811
    lfs.place("a.bin", b"x")
    with pytest.raises(Failure) as failed:
        tool.fetch(kind="git", url=str(repo), ref=None, lfs=True)
    assert failed.value.code == "unsupported" and "https" in failed.value.text and failed.value.hint
