"""Requests that two readers could take for different ones: at our door, and at our door behind nginx. What is uncertain is refused and ends the
connection; what both of us see is counted, and must be the same."""
import contextlib
import os
import pathlib
import shutil
import subprocess

import pytest
import raw
from attack_site import wait_for
from e2e_site import ROOT

B = b'{"prompt":""}'  # refused with 400 when it arrives whole
REFUSED, SERVED, EITHER = "refused", "served", "either"


def get(target=b"/healthz", version=b"HTTP/1.1", method=b"GET"):
    return method + b" " + target + b" " + version + b"\r\nHOST\r\n"


def post(*lines, body=b""):
    return b"POST /v1/tasks HTTP/1.1\r\nHOST\r\nContent-Type: application/json\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"
WHOLE = b"d\r\n" + B + b"\r\n" + LAST
# name: (what is said, what becomes of it); HOST stands for the headers that let us in.
VECTORS = {
    "an ordinary request": (get() + b"\r\n", SERVED), "an ordinary body": (post(b"Content-Length: 13", body=B), SERVED), "an ordinary chunked body": (post(CHUNKED, body=WHOLE), SERVED),
    "bare LF": (get().replace(b"\r\n", b"\n") + b"\n", EITHER), "bare LF in the end only": (get() + b"\n", EITHER), "leading empty lines": (b"\r\n\r\n" + get() + b"\r\n", EITHER),
    "CL and TE": (post(b"Content-Length: 5", CHUNKED, body=LAST), REFUSED), "TE and CL": (post(CHUNKED, b"Content-Length: 3", body=b"8\r\nSMUGGLED\r\n" + LAST), REFUSED),
    "CL twice, same": (post(b"Content-Length: 13", b"Content-Length: 13", body=B), REFUSED), "CL twice, other": (post(b"Content-Length: 13", b"Content-Length: 5", body=B), REFUSED), "CL list": (post(b"Content-Length: 13, 13", body=B), REFUSED),
    "CL plus": (post(b"Content-Length: +13", body=B), REFUSED), "CL minus": (post(b"Content-Length: -13", body=B), REFUSED), "CL hex": (post(b"Content-Length: 0xd", body=B), REFUSED), "CL in words": (post(b"Content-Length: thirteen", body=B), REFUSED),
    "CL with a space": (post(b"Content-Length: 1 3", body=B), REFUSED), "CL empty": (post(b"Content-Length:", body=B), REFUSED), "CL with more": (post(b"Content-Length: 13abc", body=B), REFUSED), "CL real": (post(b"Content-Length: 13.0", body=B), REFUSED),
    "CL beyond 64 bits": (post(b"Content-Length: 99999999999999999999999", body=B), REFUSED), "CL of all bits": (post(b"Content-Length: 18446744073709551615", body=B), REFUSED), "CL of 63 bits": (post(b"Content-Length: 9223372036854775808", body=B), REFUSED),
    "CL wraps": (post(b"Content-Length: 18446744073709551629", body=B), REFUSED), "CL NUL": (post(b"Content-Length: 13\x00 5", body=B), REFUSED), "CL vertical tab": (post(b"Content-Length: \x0b13", body=B), REFUSED),
    "CL space before colon": (post(b"Content-Length : 13", body=B), REFUSED), "CL tab before colon": (post(b"Content-Length\t: 13", body=B), REFUSED), "CL folded": (post(b"Content-Length:\r\n 13", body=B), REFUSED), "CL folded on": (post(b"Content-Length: 1\r\n 3", body=B), REFUSED),
    "CL with underscore": (post(b"Content_Length: 13", body=b""), EITHER), "CL leading zeros": (post(b"Content-Length: 0013", body=B), EITHER),
    "TE space before colon": (post(b"Transfer-Encoding : chunked", body=LAST), REFUSED), "TE folded": (post(b"Transfer-Encoding:\r\n chunked", body=LAST), REFUSED), "TE unknown": (post(b"Transfer-Encoding: xchunked", body=LAST), REFUSED),
    "TE list": (post(b"Transfer-Encoding: gzip, chunked", body=LAST), REFUSED), "TE chunked not last": (post(b"Transfer-Encoding: chunked, identity", body=LAST), REFUSED), "TE identity and CL": (post(b"Transfer-Encoding: identity", b"Content-Length: 13", body=B), REFUSED),
    "TE vertical tab": (post(b"Transfer-Encoding: \x0bchunked", body=LAST), REFUSED), "TE quoted": (post(b'Transfer-Encoding: "chunked"', body=LAST), REFUSED), "TE twice": (post(CHUNKED, CHUNKED, body=LAST), REFUSED),
    "TE twice, other first": (post(b"Transfer-Encoding: x", CHUNKED, body=LAST), REFUSED), "TE NUL": (post(b"Transfer-Encoding: chunked\x00x", body=LAST), REFUSED), "TE bare CR": (post(b"X: y\rTransfer-Encoding: chunked", body=b""), REFUSED),
    "TE in HTTP/1.0": (post(CHUNKED, body=WHOLE).replace(b"HTTP/1.1", b"HTTP/1.0"), EITHER), "TE capitals": (post(b"TRANSFER-ENCODING: CHUNKED", body=WHOLE), SERVED), "TE tab": (post(b"Transfer-Encoding:\tchunked", body=WHOLE), EITHER), "TE semicolon": (post(b"Transfer-Encoding: chunked;q=1", body=LAST), REFUSED),
    "chunk 0x": (post(CHUNKED, body=b"0xd\r\n" + B + b"\r\n" + LAST), REFUSED), "chunk plus": (post(CHUNKED, body=b"+d\r\n" + B + b"\r\n" + LAST), REFUSED), "chunk minus": (post(CHUNKED, body=b"-d\r\n" + B + b"\r\n" + LAST), REFUSED),
    "chunk space first": (post(CHUNKED, body=b" d\r\n" + B + b"\r\n" + LAST), REFUSED), "chunk without size": (post(CHUNKED, body=b"\r\n" + B + b"\r\n" + LAST), REFUSED), "chunk of words": (post(CHUNKED, body=b"zz\r\n" + B + b"\r\n" + LAST), REFUSED),
    "chunk beyond 64 bits": (post(CHUNKED, body=b"fffffffffffffffff\r\n" + B + b"\r\n" + LAST), REFUSED), "chunk wraps": (post(CHUNKED, body=b"1000000000000000d\r\n" + B + b"\r\n" + LAST), REFUSED),
    "chunk without its end": (post(CHUNKED, body=b"d\r\n" + B + LAST), REFUSED), "chunk longer than told": (post(CHUNKED, body=b"d\r\n" + B + b"XX" + LAST), REFUSED), "chunk NUL": (post(CHUNKED, body=b"d\x00\r\n" + B + b"\r\n" + LAST), REFUSED),
    "chunk extension": (post(CHUNKED, body=b"d;a=b\r\n" + B + b"\r\n" + LAST), EITHER), "chunk extension with LF": (post(CHUNKED, body=b"d;a\nb\r\n" + B + b"\r\n" + LAST), REFUSED), "chunk LF": (post(CHUNKED, body=b"d\n" + B + b"\n0\n\n"), EITHER),
    "chunk extension flood": (post(CHUNKED, body=b"d;" + b"a" * 100000 + b"\r\n" + B + b"\r\n" + LAST), EITHER), "trailers that are headers": (post(CHUNKED, body=b"d\r\n" + B + b"\r\n0\r\nContent-Length: 5\r\nHost: evil\r\n\r\n"), EITHER),
    "folded header": (get() + b"X: a\r\n b\r\n\r\n", REFUSED), "folded by a tab": (get() + b"X: a\r\n\tb\r\n\r\n", REFUSED), "folded first line": (b"GET /healthz HTTP/1.1\r\n X: y\r\nHOST\r\n\r\n", REFUSED),
    "bare CR in a header": (get() + b"X: a\rb\r\n\r\n", REFUSED), "NUL in a header": (get() + b"X: a\x00b\r\n\r\n", REFUSED), "NUL in a name": (get() + b"X\x00Y: b\r\n\r\n", REFUSED), "control in a header": (get() + b"X: a\x01\r\n\r\n", REFUSED),
    "header without colon": (get() + b"garbage\r\n\r\n", REFUSED), "header without name": (get() + b": x\r\n\r\n", REFUSED), "header name with a bracket": (get() + b"X(y): x\r\n\r\n", REFUSED), "header name of umlauts": (get() + "ä: x\r\n\r\n".encode(), REFUSED),
    "second Host": (get() + b"Host: evil\r\n\r\n", REFUSED), "no Host": (b"GET /healthz HTTP/1.1\r\n\r\n", REFUSED), "target elsewhere": (get(b"http://evil/healthz") + b"\r\n", REFUSED), "target with a user": (get(b"http://u:p@evil/healthz") + b"\r\n", REFUSED),
    "target is *": (get(b"*", method=b"OPTIONS") + b"\r\n", EITHER), "CONNECT": (get(b"evil:80", method=b"CONNECT") + b"\r\n", EITHER), "TRACE": (get(method=b"TRACE") + b"\r\n", EITHER), "method of junk": (get(method=b"G(T") + b"\r\n", EITHER),
    "HTTP/0.9": (b"GET /healthz\r\n\r\n", REFUSED), "HTTP/2.0": (get(version=b"HTTP/2.0") + b"\r\n", REFUSED), "HTTP/1.11": (get(version=b"HTTP/1.11") + b"\r\n", REFUSED), "version of junk": (get(version=b"HTTP/1.1x") + b"\r\n", REFUSED), "preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", REFUSED),
    "space in the target": (get(b"/heal thz") + b"\r\n", REFUSED), "two spaces": (b"GET  /healthz HTTP/1.1\r\nHOST\r\n\r\n", REFUSED), "tabs for spaces": (b"GET\t/healthz\tHTTP/1.1\r\nHOST\r\n\r\n", REFUSED), "NUL in the target": (get(b"/healthz\x00x") + b"\r\n", REFUSED),
    "NUL in the method": (get(method=b"G\x00ET") + b"\r\n", REFUSED), "TLS": (bytes.fromhex("16030100c8010000c40303") + bytes(50) + b"\r\n\r\n", REFUSED), "head too long": (get() + b"X: " + b"a" * 8200 + b"\r\n\r\n", EITHER), "head much too long": (get() + b"X: " + b"a" * 70000 + b"\r\n\r\n", REFUSED),
    "too many headers": (get() + b"".join(b"X%d: y\r\n" % i for i in range(2000)) + b"\r\n", REFUSED), "GET with a body": (get() + b"Content-Length: 5\r\n\r\nhello", EITHER), "GET with chunks": (get() + CHUNKED + b"\r\n\r\n5\r\nhello\r\n" + LAST, EITHER),
    "Expect": (post(b"Content-Length: 13", b"Expect: 100-continue", body=B), EITHER), "Expect of junk": (post(b"Content-Length: 13", b"Expect: a-miracle", body=B), EITHER), "Upgrade to h2c": (get() + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", EITHER),
    "Connection names Host": (get() + b"Connection: close, Host\r\n\r\n", EITHER), "Connection names the length": (post(b"Content-Length: 13", b"Connection: Content-Length", body=B), EITHER),
}
MARK = b"GET /nothing/behind HTTP/1.1\r\nHOST\r\nConnection: close\r\n\r\n"


def filled(text, host):
    lf = b"HOST\n" in text
    return text.replace(b"HOST\n", host.replace(b"\r\n", b"\n")) if lf else text.replace(b"HOST\r\n", host)


@pytest.mark.parametrize("name", VECTORS)
def test_at_our_door(site, name):
    text, outcome = VECTORS[name]
    address, host = site.tcp()[0], site.head()
    answers, closed = raw.say(address, filled(text, host) + MARK.replace(b"HOST\r\n", host))
    known = (501, 505, 500) if name == "chunk extension flood" else (501, 505)  # MHD's own answer to what does not fit its buffer
    assert closed and all(a.status < 500 or a.status in known for a in answers), answers
    behind = [a for a in answers if b"/nothing/behind" in a.body]
    if outcome == SERVED:
        assert len(answers) == 2 and len(behind) == 1, answers
    elif outcome == REFUSED:
        assert len(answers) <= 1 and not behind and all(a.status >= 400 for a in answers), answers
    else:  # as one request, as none, but never as two
        assert len(answers) <= 2 and len(behind) <= 1 and (not answers or len(answers) == 1 or behind), answers


@pytest.mark.parametrize("path", ["/logs/{}/..%2f..%2ftoken", "/logs/{}/../../../token", "/v1/tasks/{}/artifacts/../../../../token", "/v1/tasks/{}/artifacts/%2e%2e/%2e%2e/%2e%2e/token", "/v1/tasks/{}/artifacts/..%2f..%2f..%2f..%2ftoken",
                                  "/v1/tasks/{}/artifacts/.%2e/token", "/v1/tasks/{}/artifacts//etc/passwd", "/v1/tasks/{}/artifacts/%2fetc%2fpasswd", "/v1/tasks/{}/artifacts/..", "/v1/tasks/{}/artifacts/.", "/v1/tasks/{}/artifacts/%5c..%5c..",
                                  "/v1/tasks/{}/artifacts/final.json%00.txt", "/v1/tasks/{}/artifacts/a/../final.json", "/v1/tasks/..%2f..%2ftoken", "/v1/tasks/%2e%2e", "/v1/tasks/{}/artifacts/link", "/v1/tasks/{}/artifacts/linked/passwd", "/v1/tasks/{}/artifacts/fifo", "/../healthz",
                                  "/./healthz", "/v1/../healthz", "//healthz", "/healthz/", "/healthz%00", "/healthz%2f", "/v1/tasks/{}/artifacts/" + "a/" * 2000, "/v1/tasks/{}/artifacts/%c0%ae%c0%ae/token", "/v1/tasks/{}/artifacts/\uff0e\uff0e/token"])
def test_no_path_leads_out(site, path):
    id = getattr(site, "plain", None) or site.run("echo x")["id"]
    site.plain = id
    at = site.run_dir(id) / "artifacts"
    for name, make in (("link", lambda p: p.symlink_to("/etc/passwd")), ("linked", lambda p: p.symlink_to("/etc")), ("fifo", os.mkfifo)):
        if not (at / name).is_symlink() and not (at / name).exists():
            make(at / name)  # as a sandbox could
    request = b"GET " + path.format(id).encode() + b" HTTP/1.1\r\n" + site.head() + b"Connection: close\r\n\r\n"
    answers, closed = raw.say(site.tcp()[0], request)
    assert closed and len(answers) == 1 and 400 <= answers[0].status < 500, answers
    assert b"root:" not in answers[0].body and site.token().encode() not in answers[0].body


WHERE = shutil.which("nginx"), "/usr/sbin/nginx", ROOT / ".nginx/usr/sbin/nginx"
PROGRAM = next((p for p in WHERE if p and pathlib.Path(p).exists()), None)
NGINX = """daemon off; master_process off; worker_processes 1; error_log {dir}/error.log; pid {dir}/pid;
events {{ worker_connections 256; }}
http {{
	log_format counted '$request_method $upstream_status "$request"';
	access_log {dir}/access.log counted;
	client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
	upstream box {{ server {address}; keepalive 4; }}
	server {{
		listen unix:{dir}/sock;
		large_client_header_buffers 4 64k; client_max_body_size 0; underscores_in_headers on; ignore_invalid_headers off; merge_slashes off;
		location / {{
			proxy_pass http://box; proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off; proxy_ignore_client_abort on;
			proxy_set_header Host {host}; proxy_set_header Connection ""; proxy_set_header Authorization "Bearer {token}";
		}}
	}}
}}
"""


class Nginx:
    """As lenient as it can be told to be, with connections to us that it uses again."""

    def __init__(self, site):
        self.dir = site.path("nginx")
        (self.dir / "conf").write_text(NGINX.format(dir=self.dir, address=site.tcp()[1], host=site.tcp()[1], token=site.token()))
        self.socket = self.dir / "sock"
        self.child = subprocess.Popen([PROGRAM, "-p", str(self.dir), "-c", str(self.dir / "conf")], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("nginx", lambda: self.listens() or self.child.poll() is not None)
        assert self.child.poll() is None, (self.dir / "error.log").read_text()

    def listens(self):
        with contextlib.suppress(OSError), raw.dial(self.socket):  # its file is there a moment before
            return True
        return False

    def passed_on(self):
        """How many requests it has given to us."""
        log = self.dir / "access.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return sum(1 for line in lines if line.split('"')[0].split()[1:] != ["-"])

    def close(self):
        self.child.terminate()
        self.child.wait()


@pytest.fixture(scope="module")
def nginx(site):
    if not PROGRAM:
        pytest.skip("there is no nginx")
    with contextlib.closing(Nginx(site)) as n:
        yield n


def requests(site):
    """How many requests have reached us, this one not counted."""
    n = next(line for line in site.get("/metrics").splitlines() if line.startswith("signalbox_http_requests_total "))
    site.looks = getattr(site, "looks", 0) + 1
    return int(n.split()[1]) - site.looks


@pytest.mark.parametrize("name", VECTORS)
def test_behind_nginx_both_count_the_same(site, nginx, name):
    text, _ = VECTORS[name]
    before = requests(site), nginx.passed_on()
    answers, _ = raw.say(nginx.socket, filled(text, b"Host: x\r\n") + MARK.replace(b"HOST", b"Host: x"), timeout=10, half_close=True)

    def agreed():
        ours, theirs = requests(site) - before[0], nginx.passed_on() - before[1]
        return ours == theirs and (ours, theirs) or None
    ours, theirs = wait_for("the same count", agreed)
    assert ours <= 2 and sum(1 for a in answers if b"/nothing/behind" in a.body) <= 1, answers
    # Whoever comes next on the connections that nginx keeps gets his own answer.
    for path in (b"/healthz", b"/version"):
        (answer,), _ = raw.say(nginx.socket, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.status == 200 and (b'"name":"signalbox"' in answer.body) == (path == b"/version"), answer
    wait_for("the same count again", agreed)  # its log is written after the answer
