"""Private git hosts that live as long as a test: git's own http-backend behind a login, nginx before it, and an sshd of our own."""
import base64
import hashlib
import http.server
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import threading

from e2e_site import ROOT, wait_for

TOKEN = "ghp-never-to-be-seen-51c0ffee77"
SSHD = next((p for p in (pathlib.Path("/usr/sbin/sshd"), ROOT / ".sshd/usr/sbin/sshd") if p.exists()), None)
NGINX = next((p for p in map(pathlib.Path, (shutil.which("nginx") or "/usr/sbin/nginx", "/usr/sbin/nginx", ROOT / ".nginx/usr/sbin/nginx")) if p.exists()), None)
PORT_TRIES = 20
NEUTRAL = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}


class GitHttp:
    """Serves the bare repositories below `root`.  With a token it wants it as the password of any user; `before` may answer first."""

    def __init__(self, root, token=None, before=None, tls=None):
        server = self
        self.token, self.before, self.seen, self.peers = token, before, [], set()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def refuse(self, status, **headers):
                self.send_response(status)
                for name, value in {**headers, "Content-Length": "0"}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while (n := int(self.rfile.readline(), 16)):
                        body += self.rfile.read(n)
                        self.rfile.readline()
                    self.rfile.readline()
                login = self.headers.get("Authorization")
                server.seen.append((self.command, self.path, login))
                if server.before and server.before(self):
                    return
                if server.token and (not login or base64.b64decode(login.split()[1]).decode().split(":", 1)[1] != server.token):
                    self.refuse(401, WWW_Authenticate='Basic realm="git"')
                    return
                self.backend(body)

            def backend(self, body):
                path, _, query = self.path.partition("?")
                env = {**NEUTRAL, "GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
                       "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""), "REMOTE_ADDR": "127.0.0.1",
                       "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""), "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                       "GIT_CONFIG_COUNT": "3", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
                       "GIT_CONFIG_KEY_1": "uploadpack.allowAnySHA1InWant", "GIT_CONFIG_VALUE_1": "true",
                       "GIT_CONFIG_KEY_2": "uploadpack.allowFilter", "GIT_CONFIG_VALUE_2": "true"}
                head, _, data = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, timeout=120).stdout.partition(b"\r\n\r\n")
                lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
                self.send_response(int(lines.pop("Status", "200").split()[0]))
                for name, value in {**lines, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = answer

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls["cert"], tls["key"])
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = f"{'https://localhost' if tls else 'http://127.0.0.1'}:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def make_certificate(directory):
    """For localhost, signed by itself."""
    cert, key = directory / "tls.crt", directory / "tls.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    return {"cert": str(cert), "key": str(key)}


def keygen(path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True, capture_output=True)
    return path.read_text()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Daemon:
    """A server of an ordinary user's, in a directory that is given to it.  It is up when it says so itself: at its port may be another, who was quicker;
    then the next port is tried."""

    def __init__(self, directory, user):
        self.dir, self.user, self.child = directory, user, None
        for path in (directory, *directory.iterdir()):
            os.chown(path, user.pw_uid, user.pw_gid)
        identity = {} if os.geteuid() == user.pw_uid else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        for _ in range(PORT_TRIES):
            self.port = free_port()
            (directory / "config").write_text(self.config())
            with open(directory / "out", "ab") as out:
                self.child = subprocess.Popen(self.argv(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=self.environment(), **identity)
            try:
                wait_for("the server to say that it listens", lambda: self.is_up() or self.child.poll() is not None)
            except AssertionError:
                self.close()
                raise
            if self.is_up():
                return
        raise AssertionError((directory / "out").read_text())

    def environment(self):
        return {"PATH": "/usr/bin:/bin"}

    def close(self):
        if self.child and self.child.poll() is None:
            self.child.terminate()
            self.child.wait()


class Sshd(Daemon):
    """sshd for its own user, with a host key and a login key made for the test."""

    def __init__(self, directory, user):
        self.key = keygen(directory / "login")
        keygen(directory / "host")
        shutil.copy(directory / "login.pub", directory / "authorized")
        super().__init__(directory, user)

    def config(self):
        return (f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.dir}/host\nAuthorizedKeysFile {self.dir}/authorized\nStrictModes no\n"
                f"UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\nLogLevel VERBOSE\n")

    def argv(self):
        return [SSHD, "-D", "-e", "-f", self.dir / "config"]

    def environment(self):
        libraries = [str(p.parent) for p in (ROOT / ".sshd").rglob("libwrap.so.0")]
        return {**super().environment(), "LD_LIBRARY_PATH": ":".join(libraries)}

    def is_up(self):
        return f"Server listening on 127.0.0.1 port {self.port}." in self.log()

    @property
    def known_hosts(self):
        kind, key = (self.dir / "host.pub").read_text().split()[:2]
        return f"[127.0.0.1]:{self.port} {kind} {key}\n"

    def url(self, path):
        return f"ssh://{self.user.pw_name}@127.0.0.1:{self.port}{path}"

    def log(self):
        return (self.dir / "out").read_text()


class Nginx(Daemon):
    """TLS and a login before a server that has neither."""

    CONF = """daemon off; master_process off; error_log {dir}/error.log; pid {dir}/pid;
events {{ worker_connections 64; }}
http {{
	access_log {dir}/access.log;
	client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
	server {{
		listen 127.0.0.1:{port} ssl;
		ssl_certificate {cert}; ssl_certificate_key {key};
		auth_basic git; auth_basic_user_file {dir}/logins; client_max_body_size 0;
		location / {{ proxy_pass {behind}; proxy_http_version 1.1; proxy_set_header Authorization ""; proxy_set_header Connection ""; }}
	}}
}}
"""

    def __init__(self, directory, user, behind, login, token):
        self.behind, self.tls = behind, make_certificate(directory)
        digest = base64.b64encode(hashlib.sha1(token.encode()).digest()).decode()
        (directory / "logins").write_text(f"{login}:{{SHA}}{digest}\n")
        super().__init__(directory, user)

    @property
    def url(self):
        return f"https://localhost:{self.port}"

    def config(self):
        return self.CONF.format(dir=self.dir, port=self.port, behind=self.behind, **self.tls)

    def argv(self):
        return [NGINX, "-p", self.dir, "-c", self.dir / "config", "-e", self.dir / "error.log"]

    def is_up(self):
        return (self.dir / "pid").exists()  # written when it has its port

    def log(self, name):
        path = self.dir / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def answers(self):
        """The statuses that it gave, in order."""
        return [int(line.split('" ')[1].split()[0]) for line in self.log("access").splitlines()]
