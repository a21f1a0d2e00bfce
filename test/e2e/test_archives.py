"""Archives from the upload to the diff: by the API in one piece, in several, as a form, and by the command line."""
import contextlib
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

import pytest
from e2e_site import IS_ROOT, PROGRAM, ROOT, UnixConnection, descendants, proc_text, rss_kib, tcp_call, wait_for

sys.path.insert(0, str(ROOT / "test" / "suite"))
from archive_site import FORMATS, GOOD, compress, entry, hard, header, link, pack, tar, zip_of  # noqa: E402

HOSTILE = [
    ("evil", tar(GOOD, link("evil", "../../etc/passwd")), 400, "leads out"), ("../evil", tar(GOOD, entry("../evil")), 400, "leads out"), ("evil", tar(GOOD, header(b"evil", 0, b"3")), 400, "character device"),
    (".GIT/hooks/post-checkout", zip_of((".GIT/hooks/post-checkout", b"#!/bin/sh\ntouch /var/tmp/escaped\n", 0o100755)), 400, ".git"), ("good.txt", tar(GOOD, GOOD), 400, "twice"),
    ("evil", tar(GOOD, hard("evil", "/etc/shadow")), 400, "hard link"), ("zeros", compress(tar(*[entry(f"zeros{i}", b"\0" * (8 << 20)) for i in range(12)]), "gz"), 413, "limits.archive_ratio"),
]
SITE = {"model": False, "config": {"limits": {"archive_ratio": 100, "upload_bytes": "300M"}}}


def upload(site, data, **query):
    words = "&".join(f"{k}={v}" for k, v in query.items())
    status, body = site.call("POST", f"/v1/uploads?{words}", data, {"Content-Type": "application/octet-stream"})
    assert status == 201, body
    return body


def call_early(site, method, path, data):
    """For what may be answered before all of it was sent: then the server has closed its ear."""
    conn = UnixConnection(site.runtime / "signalbox.sock", 60)
    with contextlib.closing(conn):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            conn.request(method, path, body=data, headers={"Content-Type": "application/octet-stream"})
        reply = conn.getresponse()
        return reply.status, json.loads(reply.read())


def archive(id, **more):
    return {"kind": "archive", "upload": id, **more}


def form(*parts):
    """(name, filename or None, bytes) -> body and headers."""
    out = b""
    for name, filename, data in parts:
        file = f'; filename="{filename}"' if filename else ""
        out += f'--B0undary\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data + b"\r\n"
    return out + b"--B0undary--\r\n", {"Content-Type": "multipart/form-data; boundary=B0undary"}


def project(site):
    at = site.path("project") / "app"
    at.mkdir()
    site.sh("""git init -q; mkdir -p src/deep; printf 'one\\ntwo\\n' > src/a.txt; printf '#!/bin/sh\\necho run\\n' > run.sh; chmod +x run.sh
        printf 'crlf\\r\\n' > dos.bat; printf '*.bat text eol=crlf\\n' > .gitattributes; ln -s src/a.txt link; printf 'build/\\n' > .gitignore
        head -c 30000 /dev/urandom > src/deep/blob; git add -A; git commit -qm 1; mkdir build; echo o > build/o; echo dirty >> src/a.txt""", at)
    return at


def kept(site):
    return {u["id"]: u for u in site.get("/v1/uploads")["data"]}


@pytest.fixture(autouse=True)
def no_uploads_left(request):
    yield
    if "site" in request.fixturenames:
        site = request.getfixturevalue("site")
        for id in kept(site):
            assert site.call("DELETE", f"/v1/uploads/{id}")[0] == 204


def test_a_directory_and_its_archives_give_one_tree_and_one_diff(site):
    at = project(site)
    change = "echo three >> src/a.txt; rm link; chmod -x run.sh; printf 'new\\n' > new.txt; echo x >> dos.bat"
    sources = {"directory": {"kind": "local", "dir": str(at)}}
    for kind in FORMATS:
        packed = pack(at, kind, prefix="app" if kind.startswith("tar.") else "")
        sources[kind] = archive(upload(site, packed.read_bytes(), name=packed.name)["id"])
    site.own(at.parent)
    done = {kind: site.run(change, source) for kind, source in sources.items()}
    assert len({t["source"]["tree"] for t in done.values()}) == 1, {k: t["source"]["tree"] for k, t in done.items()}
    patches = {kind: site.patch(t["id"]) for kind, t in done.items()}
    assert len(set(patches.values())) == 1 and b"new.txt" in patches["zip"] and b"old mode 100755" in patches["zip"]
    for task in done.values():
        assert len(task["result"]["files"]) == 5, task["result"]


@pytest.mark.parametrize("name,data,status,rule", HOSTILE, ids=[f"{h[0]} {h[3]}" for h in HOSTILE])
def test_a_hostile_archive_is_refused_at_submit_with_the_entry_and_the_rule(site, name, data, status, rule):
    id = upload(site, data, name="evil.zip")["id"]
    got, problem = site.call("POST", "/v1/tasks", {"prompt": "true", "agent": "command", "source": archive(id)})
    assert got == status and name in problem["detail"] and rule in problem["detail"] and "evil.zip" in problem["detail"] and problem["hint"], problem
    assert not pathlib.Path("/var/tmp/escaped").exists()


def test_a_piece_at_a_time_arrives_whole(site):
    data = tar(GOOD, entry("b", os.urandom(300000)))
    one = upload(site, None, size=len(data), name="pieces.tar")
    assert one["state"] == "partial" and one["received"] == 0
    path = f"/v1/uploads/{one['id']}"
    at = 0
    for n in (1, 511, 70000, 200000):
        status, reply = site.call("PATCH", f"{path}?offset={at}", data[at:at + n], {"Content-Type": "application/octet-stream"})
        at += n
        assert status == 200 and reply["received"] == at and reply["state"] == "partial"
        conn, head = site.open("HEAD", path)
        assert head.status == 200 and head.getheader("Upload-Offset") == str(at) and head.getheader("Upload-Length") == str(len(data))
        conn.close()
    assert call_early(site, "PATCH", f"{path}?offset={at - 1}", data[at - 1:])[0] == 409
    assert call_early(site, "PATCH", f"{path}?offset={at + 1}", data[at + 1:])[0] == 409
    assert call_early(site, "PATCH", f"{path}?offset={at}", data[at:] + b"x")[0] == 400
    assert call_early(site, "PATCH", path, data[at:])[0] == 400
    status, problem = site.call("POST", "/v1/tasks", {"prompt": "true", "agent": "command", "source": archive(one["id"])})
    assert status == 409 and "not complete" in problem["detail"], problem
    assert site.call("PATCH", f"{path}?offset={at}", data[at:])[1]["state"] == "complete"
    assert call_early(site, "PATCH", f"{path}?offset=0", data)[0] == 409
    assert site.run("grep -q good good.txt", archive(one["id"]))["source"]["name"] == "pieces.tar"


def cut_upload(site, method, path, declared, sent):
    """Sends the beginning and goes away."""
    s = socket.socket(socket.AF_UNIX)
    s.connect(str(site.runtime / "signalbox.sock"))
    s.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {declared}\r\n\r\n".encode() + sent)
    return s


def test_a_connection_that_breaks_leaves_what_can_be_gone_on_with_and_nothing_else(site):
    data = tar(GOOD, entry("b", os.urandom(2_000_000)))
    one = upload(site, None, size=len(data))
    path = f"/v1/uploads/{one['id']}"
    cut_upload(site, "PATCH", f"{path}?offset=0", len(data), data[:1_000_000]).close()

    def go_on():
        at = site.get(path)["received"]
        return at and call_early(site, "PATCH", f"{path}?offset={at}", data[at:])[0] == 200
    wait_for("the rest to be taken", go_on)
    assert site.run("wc -c b", archive(one["id"]))
    cut_upload(site, "POST", "/v1/uploads", len(data), data[:1_000_000]).close()
    files = site.data / "uploads"
    wait_for("the torn upload to be gone", lambda: sorted(p.suffix for p in files.iterdir()) == [".data", ".json"])


def test_two_requests_cannot_send_one_upload_at_once(site):
    data = tar(GOOD)
    one = upload(site, None, size=len(data))
    s = cut_upload(site, "PATCH", f"/v1/uploads/{one['id']}?offset=0", len(data), data[:10])
    wait_for("the first to be at it", lambda: "another request" in site.call("PATCH", f"/v1/uploads/{one['id']}?offset=5", b"x")[1]["detail"])
    assert site.call("DELETE", f"/v1/uploads/{one['id']}")[0] == 409
    s.close()
    wait_for("the first to be gone", lambda: site.call("DELETE", f"/v1/uploads/{one['id']}")[0] == 204)


def test_what_was_acknowledged_survives_the_server(new_site):
    site = new_site(model=False)
    data = tar(GOOD, entry("b", os.urandom(1_000_000)))
    whole, half = upload(site, data, name="whole.tar"), upload(site, None, size=len(data))
    assert site.call("PATCH", f"/v1/uploads/{half['id']}?offset=0", data[:700_000])[0] == 200
    torn = cut_upload(site, "POST", "/v1/uploads", len(data), data[:500_000])
    wait_for("the third to come", lambda: len(list((site.data / "uploads").glob("*.part"))) == 2)
    site.kill_server()
    torn.close()
    site.start_server()
    assert set(kept(site)) == {whole["id"], half["id"]} and len(list((site.data / "uploads").iterdir())) == 4
    assert site.get(f"/v1/uploads/{half['id']}")["received"] == 700_000
    assert site.call("PATCH", f"/v1/uploads/{half['id']}?offset=700000", data[700_000:])[1]["state"] == "complete"
    trees = {site.run("true", archive(u["id"]))["source"]["tree"] for u in (whole, half)}
    assert len(trees) == 1


def test_limits_are_told_before_anything_is_sent_and_later_tries_are_told_when(new_site):
    site = new_site(model=False, config={"limits": {"upload_bytes": "1M", "uploads": 3, "uploads_per_minute": 12, "uploads_bytes": "2M"}})
    status, problem = call_early(site, "POST", "/v1/uploads", b"x" * 1_100_000)
    assert status == 413 and "limits.upload_bytes" in problem["detail"]
    assert site.call("POST", "/v1/uploads?size=2000000")[0] == 413
    conn, reply = site.open("POST", "/v1/uploads", None)
    assert reply.status == 400 and b"empty" in reply.read()
    conn.close()
    for _ in range(3):
        upload(site, b"x" * 1000)
    conn, reply = site.open("POST", "/v1/uploads", b"x")
    assert reply.status == 429 and reply.getheader("Retry-After") and b"limits.uploads" in reply.read()
    conn.close()
    for id in kept(site):
        assert site.call("DELETE", f"/v1/uploads/{id}")[0] == 204
    upload(site, None, size=1_000_000)
    upload(site, None, size=1_000_000)
    status, problem = site.call("POST", "/v1/uploads?size=1000000")
    assert status == 429 and "uploads_bytes" in problem["detail"], "what was announced counts"
    statuses = []
    for id in kept(site):
        site.call("DELETE", f"/v1/uploads/{id}")
    while 429 not in statuses and len(statuses) < 40:
        status, reply = site.call("POST", "/v1/uploads", b"x")
        statuses.append(status)
        if status == 201:
            site.call("DELETE", f"/v1/uploads/{reply['id']}")
    assert 429 in statuses and "within a minute" in reply["detail"]


def test_a_chunked_upload_that_grows_too_long_is_refused(new_site):
    site = new_site(model=False, config={"limits": {"upload_bytes": "1M"}})
    body = b"".join(b"%x\r\n" % 60000 + b"x" * 60000 + b"\r\n" for _ in range(30)) + b"0\r\n\r\n"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as s:
        s.connect(str(site.runtime / "signalbox.sock"))
        s.sendall(b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + body)
        reply = http.client.HTTPResponse(s)
        reply.begin()
        assert reply.status == 413 and b"limits.upload_bytes" in reply.read()
    wait_for("nothing to be kept", lambda: not list((site.data / "uploads").iterdir()))


def test_a_disk_without_room_says_so(new_site):
    site = new_site(model=False, config={"limits": {"upload_bytes": "900G", "uploads_bytes": "900G"}})
    stat = os.statvfs(site.data)
    if stat.f_bavail * stat.f_frsize > 800 << 30:
        pytest.skip("this disk is too large for the test")
    status, problem = site.call("POST", f"/v1/uploads?size={850 << 30}")
    assert status == 507 and "no room" in problem["detail"]


def test_an_old_upload_goes_unless_a_living_task_is_of_it(new_site):
    site = new_site(model=False, config={"limits": {"upload_age": "1h"}})
    used, unused, fresh = (upload(site, tar(GOOD, entry(f"n{i}"))) for i in range(3))
    task = site.submit("until [ -e ~/go ]; do sleep 0.02; done", archive(used["id"]))
    for one in (used, unused):
        os.utime(site.data / "uploads" / f"{one['id']}.data", (1e9, 1e9))
    site.stop_server()
    site.start_server()  # what a reconcile pass does, one does at the start too
    wait_for("the unused one to go", lambda: set(kept(site)) == {used["id"], fresh["id"]})
    wait_for("its files to go", lambda: not list((site.data / "uploads").glob(f"{unused['id']}*")))
    site.release(task)
    assert site.wait(task)["status"] == "DONE"
    site.stop_server()
    site.start_server()
    wait_for("the other to go", lambda: set(kept(site)) == {fresh["id"]})
    status, problem = site.call("POST", "/v1/tasks", {"prompt": "true", "agent": "command", "source": archive(used["id"])})
    assert status == 404 and problem["hint"]


def test_a_form_brings_the_task_and_its_archive(site):
    data = tar(GOOD, entry("b", os.urandom(200_000)))
    task = json.dumps({"prompt": "cat good.txt", "agent": "command"}).encode()
    for parts in [(("archive", "f.tar", data), ("task", None, task)), (("task", None, task), ("archive", "f.tar", data))]:
        status, reply = site.call("POST", "/v1/tasks", *form(*parts))
        assert status == 201 and reply["source"]["name"] == "f.tar", reply
        site.tasks.add(reply["id"])
        assert site.wait(reply["id"])["status"] == "DONE"
    before = set(kept(site))
    bad = [((("task", None, task),), "no part 'archive'"), ((("archive", "f", data),), "no part 'task'"), ((("task", None, task), ("other", None, b"x")), "'other'"),
           ((("task", None, b"{"), ("archive", "f", data)), "part 'task'"), ((("task", None, b"[]"), ("archive", "f", data)), "no object"),
           ((("task", None, task), ("archive", "f", data), ("archive", "g", data)), "two parts"),
           ((("task", None, json.dumps({"prompt": "x", "source": {"kind": "none"}}).encode()), ("archive", "f", data)), "another source"),
           ((("task", None, task), ("archive", "f", tar(GOOD, entry("../evil")))), "leads out")]
    for parts, words in bad:
        status, problem = site.call("POST", "/v1/tasks", *form(*parts))
        assert status == 400 and words in problem["detail"], problem
    body, headers = form(("task", None, task), ("archive", "f", data))
    assert site.call("POST", "/v1/tasks", body[:-20], headers)[0] == 400
    assert set(kept(site)) == before, "an upload that no task came of is not kept"


def test_the_same_form_with_the_same_key_is_one_task(site):
    task = json.dumps({"prompt": "true", "agent": "command"}).encode()
    body, headers = form(("task", None, task), ("archive", "f.tar", tar(GOOD)))
    replies = [site.call("POST", "/v1/tasks", body, {**headers, "Idempotency-Key": "form-1"}) for _ in range(2)]
    assert [r[0] for r in replies] == [201, 201] and replies[0][1]["id"] == replies[1][1]["id"]
    site.tasks.add(replies[0][1]["id"])
    site.wait(replies[0][1]["id"])
    assert len(kept(site)) == 1
    assert "signalbox_uploads 1\n" in site.get("/metrics")


def test_a_long_form_brings_its_task_as_a_short_one_does(site):
    task = json.dumps({"prompt": "cksum noise", "agent": "command"}).encode()
    noise = os.urandom(5 << 20)
    body, headers = form(("task", None, task), ("archive", "f.tar", tar(GOOD, entry("noise", noise))))
    replies = [site.call("POST", "/v1/tasks", body, {**headers, "Idempotency-Key": "form-2"}) for _ in range(2)]
    assert [r[0] for r in replies] == [201, 201] and replies[0][1]["id"] == replies[1][1]["id"], replies
    site.tasks.add(replies[0][1]["id"])
    assert site.wait(replies[0][1]["id"])["status"] == "DONE"
    assert len(kept(site)) == 1


def test_a_long_upload_that_was_cut_goes_on_where_it_stood(site):
    data = os.urandom(9 << 20)
    path = f"/v1/uploads/{site.call('POST', f'/v1/uploads?size={len(data)}')[1]['id']}"
    cut_upload(site, "PATCH", f"{path}?offset=0", len(data), data[:5_000_001]).close()
    wait_for("all that came", lambda: site.get(path)["received"] == 5_000_001)
    wait_for("the rest", lambda: call_early(site, "PATCH", f"{path}?offset=5000001", data[5_000_001:])[0] == 200)  # the first may still be leaving
    assert site.get(path)["state"] == "complete"
    (stored,) = (site.data / "uploads").glob("*.data")
    assert stored.read_bytes() == data


def test_a_large_upload_costs_little_memory(site):
    before = rss_kib(site.server.pid)
    noise = os.urandom(1 << 20)
    one = upload(site, noise * 200, name="large")
    assert one["size"] == 200 << 20
    assert rss_kib(site.server.pid) - before < 16 << 10


def test_uploads_need_the_same_rights_as_all_else(new_site):
    site = new_site(model=False, listen="127.0.0.1:0")
    port = int(wait_for("the port", lambda: next((line.rsplit(":", 1)[1] for line in site.log("server").splitlines() if line.startswith("http://127.0.0.1:")), None)))
    host = {"Host": f"127.0.0.1:{port}"}
    for method, path in (("POST", "/v1/uploads"), ("GET", "/v1/uploads"), ("PATCH", "/v1/uploads/x?offset=0"), ("DELETE", "/v1/uploads/x")):
        assert tcp_call(port, method, path, host, b"x" if method in ("POST", "PATCH") else None)[0] == 401
    token = {**host, "Authorization": "Bearer " + (site.data / "token").read_text().strip()}
    status, body = tcp_call(port, "POST", "/v1/uploads", token, tar(GOOD))
    assert status == 201, body
    assert site.run("grep good good.txt", archive(json.loads(body)["id"]))["status"] == "DONE"


def test_the_command_line_sends_files_and_pipes(site):
    at = project(site)
    packed = pack(at, "tar.zst", prefix="app")
    site.own(at.parent)
    done = site.cli("run", "--agent", "command", "--archive", packed, "--json", "cat src/a.txt; echo x > made")
    assert done.returncode == 0, done.stderr
    task = json.loads(done.stdout)
    site.tasks.add(task["id"])
    assert task["source"]["kind"] == "archive" and task["source"]["name"] == packed.name and task["source"]["top"] == "app"
    plain = site.sh(f"cat {packed} | {sys.executable} -c 'import sys; sys.stdout.write(sys.stdin.buffer.read().hex()[:8])'", at.parent)
    assert plain == "28b52ffd"
    script = f"cat '{packed}' | \"$0\" start --agent command --archive - --keep-top --json 'cat app/src/a.txt'"
    piped = subprocess.run(["/bin/sh", "-c", script, str(PROGRAM)], cwd=site.home, env=site.environment(), capture_output=True, text=True, timeout=120, **site.identity())
    assert piped.returncode == 0, piped.stderr
    second = json.loads(piped.stdout)
    site.tasks.add(second["id"])
    assert site.wait(second["id"])["status"] == "DONE" and second["source"]["name"] == "stdin" and not second["source"].get("top")


def test_the_command_line_says_what_is_wrong_with_an_archive(site):
    evil = site.dir / "evil.tar"
    evil.write_bytes(tar(GOOD, link("evil", "/etc/passwd")))
    site.own(evil)
    before = set(kept(site))
    done = site.cli("run", "--agent", "command", "--archive", evil, "true")
    assert done.returncode == 2 and "evil.tar" in done.stderr and "entry 'evil' is a link that leads out" in done.stderr, done.stderr
    assert set(kept(site)) == before
    for words, says in [(["--archive", "/no/such"], "No such file"), (["--archive", str(site.home)], "is a directory"), (["--archive", str(evil), "--repo", "."], "of its own"),
                        (["--keep-top"], "without --archive"), (["--archive", "-", "--prompt-file", "-"], "not both")]:
        prompt = [] if "--prompt-file" in words else ["true"]
        done = site.cli("start", "--agent", "command", *words, *prompt)
        assert done.returncode in (2, 5) and says in done.stderr, (words, done.stderr)


def test_the_command_line_goes_on_when_the_server_comes_back(new_site):
    """The server is killed while the archive comes, and started again."""
    site = new_site(model=False)
    big = site.dir / "big.tar"
    big.write_bytes(tar(GOOD, entry(".git/objects/pack", os.urandom(1 << 20) * 150)))
    site.own(big)
    child = subprocess.Popen([str(PROGRAM), "start", "--agent", "command", "--archive", str(big), "--json", "cat good.txt"], cwd=site.home, env=site.environment(),
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **site.identity())

    def is_coming():
        with contextlib.suppress(FileNotFoundError):  # it has come altogether
            return any(p.stat().st_size > 1 << 20 for p in (site.data / "uploads").glob("*.part")) or child.poll() is not None
    wait_for("the archive to come", is_coming)
    site.kill_server()
    site.start_server()
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    task = json.loads(out)
    site.tasks.add(task["id"])
    assert site.wait(task["id"])["status"] == "DONE" and [u["state"] for u in kept(site).values()] == ["complete"]


def test_progress_is_a_line_on_a_terminal_and_nothing_in_a_pipe(site):
    import pty
    big = site.dir / "shown.tar"
    big.write_bytes(tar(GOOD, entry(".git/objects/pack", os.urandom(1 << 20) * 60)))
    site.own(big)
    argv = [str(PROGRAM), "start", "--agent", "command", "--archive", str(big), "--json", "cat good.txt"]
    main, side = pty.openpty()
    child = subprocess.Popen(argv, cwd=site.home, env=site.environment(TERM="xterm"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=side, text=True, **site.identity())
    os.close(side)
    seen = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(main, 65536):
            seen += chunk
    os.close(main)
    first = json.loads(child.communicate(timeout=120)[0])
    second = site.cli(*argv[1:])
    assert child.returncode == 0 and b"sending shown.tar" in seen, seen
    assert second.returncode == 0 and "sending" not in second.stderr, second.stderr
    for id in (first["id"], json.loads(second.stdout)["id"]):
        site.tasks.add(id)
        assert site.wait(id)["status"] == "DONE"


def network_of(pid):
    """Its network namespace; of a process that has shut itself off, only root is told."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except PermissionError:
        assert not IS_ROOT
        return "not told"


def test_who_unpacks_has_no_network_and_none_of_the_servers_variables(new_site):
    """Of all processes that work on an archive, looked at while they do."""
    site = new_site(model=False, start=False)
    site.start_server(env=site.environment(OPENAI_API_KEY="sk-of-the-server", SSH_AUTH_SOCK="/agent.sock", http_proxy="http://user:password@proxy:1"))
    noise = os.urandom(1 << 20)
    id = upload(site, compress(tar(*[entry(f"f{i}", noise[i:] + noise[:i]) for i in range(40)]), "xz"))["id"]
    task, seen, unpackers = {}, {}, set()
    sender = threading.Thread(target=lambda: task.update(reply=site.call("POST", "/v1/tasks", {"prompt": "true", "agent": "command", "source": archive(id)})))
    sender.start()
    while sender.is_alive():
        for pid in descendants(site.server.pid):
            words = proc_text(pid, "cmdline").split(b"\0")
            name = b"unpack" if b"signalbox-unpack" in words[0] else b"import" if b"fast-import" in words else b"fetch" if b"fetch" in words else None
            if name:
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    look = network_of(pid), proc_text(pid, "environ"), pid
                    seen.setdefault(name, []).append(look)
                    if name == b"unpack":  # started by the fetch that is meant; the run has one of its own, for its checkout
                        unpackers.add(int(proc_text(pid, "stat").rsplit(b")", 1)[-1].split()[1]))
    sender.join()
    status, reply = task["reply"]
    assert status == 201, reply
    site.tasks.add(reply["id"])
    site.wait(reply["id"])
    ours = os.readlink("/proc/self/ns/net")
    assert set(seen) == {b"fetch", b"import", b"unpack"}, set(seen)
    for name, looks in seen.items():
        last = [net for net, _, pid in looks if name != b"fetch" or pid in unpackers][-1]
        assert last != ours, name
        for secret in (b"sk-of-the-server", b"agent.sock", b"password"):
            assert not any(secret in env for _, env, pid in looks if name != b"fetch" or pid in unpackers), name
