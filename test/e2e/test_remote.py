"""A server elsewhere: who may come in by TCP, for each route; tokens, login, contexts, and every verb of the command line over a URL, also behind TLS."""
import contextlib
import http.client
import json
import os
import pty
import select
import socket
import ssl
import stat
import subprocess
import threading

import pytest
from e2e_site import DEADLINE, PROGRAM, bytes_of, files_below, tcp_call, wait_for

SITE = {"model": False, "listen": "127.0.0.1:0"}


def port_of(site):
    return int(wait_for("the address", lambda: next((l for l in site.log("server").splitlines() if l.startswith("http://127.0.0.1:")), None)).rsplit(":", 1)[1])


def make_token(site, name, **more):
    status, token = site.call("POST", "/v1/tokens", {"name": name, **more})
    assert status == 201, token
    return token["token"]


def ask(site, method, path, token=None, **headers):
    port = port_of(site)
    head = {"Host": f"127.0.0.1:{port}", **({"Authorization": f"Bearer {token}"} if token else {}), **headers}
    return tcp_call(port, method, path, {k: v for k, v in head.items() if v is not None})


@pytest.fixture(scope="module")
def tokens(site):
    good, revoked = make_token(site, "good"), make_token(site, "revoked")
    assert site.call("DELETE", "/v1/tokens/revoked")[0] == 204
    return {"good": good, "revoked": revoked, "wrong": "sbt_" + "A" * 43, "none": None}


def routes(site):
    """(method, path, open to all, for the owner) of every route, with something in the place of each parameter."""
    for path, item in site.get("/v1/openapi.json")["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path.replace("{", "x").replace("}", "x"), operation.get("security") == [], "owner, by its socket" in operation["description"]


def test_each_route_opens_to_nobody_without_a_token_that_holds(site, tokens):
    for method, path, is_open, for_owner in routes(site):
        for which in ("none", "wrong", "revoked"):
            status, body = ask(site, method, path, tokens[which])
            if is_open:
                assert status in (200, 503), (method, path, which, status)
                continue
            problem = json.loads(body)
            assert status == 401 and problem["code"] == "unauthenticated" and problem["hint"], (method, path, which, status)
        status, body = ask(site, method, path, tokens["good"])
        assert status == 403 if for_owner and not is_open else status not in (401, 403), (method, path, status, body)
    assert site.get("/v1/tasks")["data"] == []


def test_each_route_is_closed_to_names_and_origins_that_are_not_its_own(site, tokens):
    port = port_of(site)
    for method, path, _, _ in routes(site):
        for head in ({"Host": "evil.example"}, {"Host": f"evil.example:{port}"}, {"Host": ""}, {"Host": f"127.0.0.1.evil.example:{port}"}, {"Host": "127.0.0.1:1"},
                     {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": f"http://127.0.0.1:{port}@evil.example"}, {"Origin": f"ftp://127.0.0.1:{port}"}):
            status, body = ask(site, method, path, tokens["good"], **head)
            assert status in (400, 403), (method, path, head, status)
            assert tokens["good"].encode() not in body
    for head in ({"Host": f"localhost:{port}"}, {"Host": f"127.0.0.1:{port}"}, {"Host": f"[::1]:{port}"}, {"Origin": f"http://localhost:{port}"}):
        assert ask(site, "GET", "/v1/tasks", tokens["good"], **head)[0] == 200, head


def test_a_401_says_how_to_be_let_in(site):
    conn = http.client.HTTPConnection("127.0.0.1", port_of(site), timeout=DEADLINE)
    conn.request("GET", "/v1/tasks")
    reply = conn.getresponse()
    assert reply.status == 401 and reply.getheader("WWW-Authenticate") == "Bearer" and "login" in json.loads(reply.read())["hint"]
    conn.close()


def test_a_token_is_told_once_and_kept_as_a_hash(site):
    text = make_token(site, "hashed")
    assert "hashed" in [t["name"] for t in site.get("/v1/tokens")["data"]] and text not in json.dumps(site.get("/v1/tokens"))
    for path in files_below(site.data):
        assert text.encode() not in bytes_of(path), path
    assert text not in site.log("server")


def test_a_token_names_who_did_it_and_ends_with_its_time(site):
    text = make_token(site, "robot")
    port = port_of(site)
    status, body = tcp_call(port, "POST", "/v1/tasks", {"Host": f"127.0.0.1:{port}", "Authorization": f"Bearer {text}", "Content-Type": "application/json"},
                            json.dumps({"prompt": "true", "agent": "command", "source": {"kind": "none"}}).encode())
    task = json.loads(body)
    site.tasks.add(task["id"])
    assert status == 201 and task["created_by"] == "token:robot" and site.events(task["id"])[0]["actor"] == "token:robot"
    assert site.call("POST", "/v1/tokens", {"name": "robot"})[0] == 409
    site.wait(task["id"])
    short = make_token(site, "short", expires_in=1)
    wait_for("its end", lambda: ask(site, "GET", "/v1/tasks", short)[0] == 401)
    assert make_token(site, "short") != short, "an expired token's name can be given again"


def test_keys_of_one_token_are_nobody_elses(site):
    made = []
    for name in ("alice", "bob"):
        port, text = port_of(site), make_token(site, name)
        status, body = tcp_call(port, "POST", "/v1/tasks", {"Host": f"127.0.0.1:{port}", "Authorization": f"Bearer {text}", "Content-Type": "application/json", "Idempotency-Key": "the-same"},
                                json.dumps({"prompt": "true", "agent": "command", "source": {"kind": "none"}}).encode())
        assert status == 201, body
        made.append(json.loads(body)["id"])
    site.tasks |= set(made)
    assert made[0] != made[1]


def test_tokens_hold_across_a_kill_and_revoked_ones_do_not(new_site):
    site = new_site(**SITE)
    good, bad = make_token(site, "good"), make_token(site, "bad")
    assert site.call("DELETE", "/v1/tokens/bad")[0] == 204
    site.kill_server()
    (site.dir / "server.log").unlink()
    site.start_server()
    assert ask(site, "GET", "/v1/tasks", good)[0] == 200 and ask(site, "GET", "/v1/tasks", bad)[0] == 401


# --- the command line

def remote(site, *words, env=None, **more):
    return site.cli(*words, env={"SIGNALBOX_DATA": None, "SIGNALBOX_RUNTIME": str(site.home / "nowhere"), **(env or {})}, **more)


def own(site, *words):
    """On the server's machine, whatever the current context is."""
    return site.cli("--context", "local", *words)


@pytest.fixture(scope="module")
def login(site):
    token = site.cli("token", "create", "laptop")
    assert token.returncode == 0 and token.stdout.startswith("sbt_") and len(token.stdout.splitlines()) == 1, token.stderr
    url = f"http://127.0.0.1:{port_of(site)}"
    done = remote(site, "login", url, "--name", "work", stdin=token.stdout)
    assert done.returncode == 0, done.stderr
    return url, token.stdout.strip()


def test_login_keeps_the_token_for_oneself(site, login):
    path = site.home / ".config/signalbox/servers.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    doc = json.loads(path.read_text())
    assert doc == {"servers": {"work": {"url": login[0], "token": login[1]}}, "current": "work"}
    path.chmod(0o644)
    done = remote(site, "ls")
    path.chmod(0o600)
    assert done.returncode == 4 and "chmod 600" in done.stderr


def test_every_verb_works_at_a_distance(site, login):
    done = remote(site, "run", "--repo", "-", "--agent", "command", "--name", "far", "--label", "where=there", "echo hello; echo x > made; false || true")
    assert done.returncode == 0, done.stderr
    site.tasks |= {t["id"] for t in site.get("/v1/tasks?limit=200")["data"]}
    started = remote(site, "start", "--repo", "-", "--agent", "command", "--name", "near", "until [ -e ~/go ]; do sleep 0.02; done")
    assert started.returncode == 0, started.stderr
    site.tasks |= {t["id"] for t in site.get("/v1/tasks?limit=200")["data"]}
    for words, status, text in (
            (["ls", "--label", "where=there"], 0, "far"), (["ls", "--search", "hello", "--json"], 0, "far"), (["show", "far"], 0, "far"), (["logs", "far"], 0, "hello"),
            (["events", "far"], 0, "task.done"), (["diff", "far"], 0, "+x"), (["artifacts", "far"], 0, "diff.patch"), (["wait", "far"], 0, "DONE"), (["open", "far"], 0, "tasks"),
            (["gates"], 0, ""), (["cancel", "near"], 0, "CANCELED"), (["retry", "far"], 0, "far"), (["wait", "far"], 0, "DONE"), (["say", "far", "true"], 0, ""), (["wait", "far"], 0, "DONE"),
            (["version", "--json"], 0, "server"), (["doctor"], None, "server"), (["attach", "far"], 0, ""), (["rm", "near"], 0, ""), (["show", "near"], 5, ""), (["ls", "--name", "near"], 0, "")):
        done = remote(site, *words)
        assert status is None or done.returncode == status, (words, done.stdout, done.stderr)
        assert text in done.stdout, (words, done.stdout, done.stderr)


def test_a_directory_here_is_not_sent_to_a_server_elsewhere_in_silence(site, login):
    repo = site.path("repo")
    site.sh("git init -q && echo a > a && git add -A && git commit -qm a", repo)
    # 127.0.0.1 is this machine; its other names are not known to be.
    done = remote(site, "--server", "http://elsewhere.invalid", "run", "--agent", "command", "true", cwd=repo)
    assert done.returncode == 2 and "cannot see" in done.stderr and "--repo" in done.stderr


def test_contexts_are_listed_used_and_removed(site, login):
    url, token = login
    assert remote(site, "login", url, "--name", "second", stdin=token + "\n").returncode == 0
    rows = [line.split("\t") for line in remote(site, "context", "ls").stdout.splitlines()]
    assert [r[1] for r in rows] == ["local", "work", "second"] and [r[0] for r in rows] == ["", "", "*"]
    assert remote(site, "context", "use", "work").returncode == 0
    assert remote(site, "context", "rm", "second").returncode == 0
    assert remote(site, "context", "use", "second").returncode == 5
    assert json.loads(remote(site, "context", "--json").stdout)["data"][1] == {"name": "work", "url": url, "current": True}
    assert remote(site, "context", "use", "local").returncode == 0
    here = remote(site, "ls")
    assert here.returncode == 7, "one's own server is meant, and none runs there"
    assert remote(site, "--context", "work", "ls").returncode == 0
    assert remote(site, "ls", env={"SIGNALBOX_CONTEXT": "work"}).returncode == 0
    assert remote(site, "ls", env={"SIGNALBOX_SERVER": url, "SIGNALBOX_TOKEN": token}).returncode == 0
    assert remote(site, "--server", url, "ls").returncode == 0, "the token of a login goes to its own URL"
    assert remote(site, "--context", "nope", "ls").returncode == 5
    assert remote(site, "context", "use", "work").returncode == 0
    named = remote(site, "--runtime", str(site.home / "nowhere"), "ls")
    assert named.returncode == 7 and "nowhere" in named.stderr, "one's own server, told by its directory, is stronger than the context that is in use"


def test_a_token_that_was_kept_goes_to_no_other_address(site, login):
    heard = []
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        def answer():
            conn, _ = listener.accept()
            with conn:
                heard.append(conn.recv(65536))
                conn.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        thread = threading.Thread(target=answer)
        thread.start()
        remote(site, "--server", f"http://127.0.0.1:{listener.getsockname()[1]}", "ls")
        thread.join(DEADLINE)
    assert heard and b"GET /v1/tasks" in heard[0] and login[1].encode() not in heard[0] and b"Authorization" not in heard[0]


def test_errors_of_the_way_say_what_to_do(site, login):
    url, token = login
    for words, env, stdin, status, told in (
            (["--server", url, "--token", "wrong", "ls"], {}, "", 4, ["token", "token create"]),
            (["--server", "http://127.0.0.1:1", "ls"], {}, "", 7, ["127.0.0.1:1"]),
            (["--server", url.replace("http:", "https:"), "ls"], {}, "", 7, ["http://"]),
            (["--server", "http://no.such.host.invalid", "ls"], {}, "", 7, ["name"]),
            (["--server", "ftp://x", "ls"], {}, "", 7, ["ftp://x"]),
            (["login", url], {}, "wrong\n", 4, ["token"]),
            (["login", url], {}, "", 2, ["standard input"]),
            (["login", "ftp://x"], {}, token, 2, ["https://"]),
            (["token", "ls"], {}, "", 4, ["own machine"]),
            (["server", "stop"], {}, "", 2, ["machine"])):
        done = remote(site, *words, env=env, stdin=stdin)
        assert done.returncode == status, (words, done.returncode, done.stderr)
        assert all(t in done.stderr for t in told), (words, done.stderr)
        assert token not in done.stderr + done.stdout


def test_a_revoked_token_is_told_apart_from_none(site, login):
    lost = own(site, "token", "create", "lost").stdout.strip()
    assert remote(site, "--server", login[0], "--token", lost, "ls").returncode == 0
    assert own(site, "token", "revoke", "lost").returncode == 0
    done = remote(site, "--server", login[0], "--token", lost, "ls")
    assert done.returncode == 4 and "revoked" in done.stderr
    assert own(site, "token", "revoke", "never").returncode == 5
    assert "revoked" in own(site, "token", "ls").stdout
    assert own(site, "token", "create", "laptop").returncode == 6 and own(site, "token", "create").returncode == 2


def test_login_on_a_terminal_does_not_show_the_token(site, login):
    primary, secondary = pty.openpty()
    child = subprocess.Popen([str(PROGRAM), "login", login[0], "--name", "typed"], stdin=secondary, stdout=secondary, stderr=secondary, cwd=site.home,
                             env=site.environment(SIGNALBOX_DATA=None, SIGNALBOX_RUNTIME=str(site.home / "nowhere")), start_new_session=True, **site.identity())
    os.close(secondary)
    seen, sent = b"", False
    with contextlib.suppress(OSError):
        while select.select([primary], [], [], DEADLINE)[0]:
            seen += os.read(primary, 4096)
            if b"Token for" in seen and b"): " in seen and not sent:
                os.write(primary, login[1].encode() + b"\n")
                sent = True
    os.close(primary)
    assert child.wait(DEADLINE) == 0, seen
    assert sent and login[1].encode() not in seen
    assert remote(site, "context", "rm", "typed").returncode == 0 and remote(site, "context", "use", "work").returncode == 0


# --- behind a proxy that speaks TLS

class Proxy:
    """Ends TLS and passes the bytes on, as a reverse proxy does that keeps the Host header."""

    def __init__(self, site, port):
        self.cert, self.key = site.dir / "cert.pem", site.dir / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost", "-keyout", self.key, "-out", self.cert], check=True, capture_output=True)
        self.cert.chmod(0o644)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.cert, self.key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.to, self.open = self.listener.getsockname()[1], port, True
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while self.open:
            with contextlib.suppress(OSError):
                threading.Thread(target=self.carry, args=(self.listener.accept()[0],), daemon=True).start()

    def carry(self, raw):
        with contextlib.suppress(OSError), self.context.wrap_socket(raw, server_side=True) as near, socket.create_connection(("127.0.0.1", self.to)) as far:
            back = threading.Thread(target=self.copy, args=(far, near), daemon=True)
            back.start()
            self.copy(near, far)
            back.join(DEADLINE)

    @staticmethod
    def copy(a, b):
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                b.sendall(data)
        with contextlib.suppress(OSError):
            b.shutdown(socket.SHUT_WR)

    def close(self):
        self.open = False
        self.listener.close()


def test_behind_tls_by_a_proxy_the_certificate_and_the_name_are_checked(new_site):
    site = new_site(model=False, listen="127.0.0.1:0", config={"server": {"hosts": ["localhost"]}})
    proxy = Proxy(site, port_of(site))
    try:
        token = site.cli("token", "create", "tls").stdout.strip()
        url, trust = f"https://localhost:{proxy.port}", {"SSL_CERT_FILE": str(proxy.cert)}
        refused = remote(site, "login", url, stdin=token)
        assert refused.returncode == 7 and "certificate" in refused.stderr.lower(), refused.stderr
        wrong_name = remote(site, "login", f"https://127.0.0.1:{proxy.port}", stdin=token, env=trust)
        assert wrong_name.returncode == 7 and "name" in wrong_name.stderr, wrong_name.stderr
        assert remote(site, "login", f"localhost:{proxy.port}", stdin=token, env=trust).returncode == 0, "without a scheme it is https"
        done = remote(site, "run", "--repo", "-", "--agent", "command", "echo through the wall", env=trust)
        assert done.returncode == 0 and "through the wall" in done.stdout + done.stderr, done.stderr
        plain = remote(site, "--server", f"http://localhost:{proxy.port}", "--token", token, "ls", env=trust)
        assert plain.returncode == 7 and "https" in plain.stderr, plain.stderr
    finally:
        proxy.close()


def test_a_name_that_the_server_was_not_told_is_refused_with_the_remedy(new_site):
    site = new_site(model=False, listen="127.0.0.1:0")
    proxy = Proxy(site, port_of(site))
    try:
        done = remote(site, "login", f"https://localhost:{proxy.port}", stdin=make_token(site, "x"), env={"SSL_CERT_FILE": str(proxy.cert)})
        assert done.returncode == 4 and "--host" in done.stderr and "server.hosts" in done.stderr, done.stderr
        site.config = {"server": {"hosts": ["localhost"]}}
        site.write_config()
        assert "changed\tserver.hosts" in site.cli("server", "reload").stdout
        assert remote(site, "login", f"https://localhost:{proxy.port}", stdin=make_token(site, "y"), env={"SSL_CERT_FILE": str(proxy.cert)}).returncode == 0
    finally:
        proxy.close()
