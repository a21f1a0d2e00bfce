"""What may be fetched from: hostile URLs are refused before anybody is connected to, names are judged by every address they have and pinned
to what was judged, redirects are not followed, and what one credential may read is not served to another."""
import json
import os
import pathlib
import subprocess

import pytest
from test_source import OPEN_RULES, Failure, GitHttp, commit, git, git_http, repo, tool  # noqa: F401  (fixtures)

ADDRESSES = """
127.0.0.1 127.1 127.0.1 127.0.0.2 127.255.255.254 2130706433 0x7f000001 0x7f.1 0x7f.0x0.0x0.0x1 0177.0.0.1 0177.0.0.01 017700000001 127.0.0.01 127.0.0.1. 127.0.0.1.. 00127.0.0.1
0 0.0.0.0 0x0 1 10.0.0.1 10.1 10.255.255.255 0x0a.1 167772161 172.16.0.1 172.31.255.255 192.168.1.1 192.168.257 3232235777 169.254.169.254 169.254.169.254. 0xA9FEA9FE 2852039166
0251.0376.0251.0376 0xa9.0xfe.0xa9.0xfe 169.16689662 100.64.0.1 100.100.100.200 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1
224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 256.256.256.256 4294967296 999999999999 1.2.3 1.2.3.4.5
[::1] [::] [0:0:0:0:0:0:0:1] [0::1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::FFFF:7F00:0001] [::ffff:10.0.0.1] [::ffff:192.168.0.1] [::ffff:a9fe:a9fe] [::127.0.0.1] [::7f00:1]
[64:ff9b::127.0.0.1] [64:ff9b::a9fe:a9fe] [64:ff9b::10.0.0.1] [64:ff9b:1::1] [2002:7f00:1::] [2002:a9fe:a9fe::1] [2001::1] [2001:0:7f00:1::] [2001:db8::1] [3fff::1] [fe80::1] [fe80::1%25eth0]
[fe80::1%eth0] [::1%25lo] [::1%lo] [fec0::1] [fc00::1] [fd12:3456::1] [fd00:ec2::254] [fd20:ce::254] [ff02::1] [100::1] [5f00::1] [1::1] [::1].x [::1]x [:::1] [::ffff:127.1] [::ffff:0177.0.0.1]
localhost LOCALHOST LocalHost localhost. localhost..
""".split()

# With a scheme each. What a person does not see at first sight: user parts, backslashes, marks, other alphabets, other protocols.
TRICKS = [
    "https://github.com@127.0.0.1/x", "https://github.com:443@127.0.0.1/x", "https://127.0.0.1\\@github.com/x", "https://github.com\\@127.0.0.1/x", "https://github.com#@127.0.0.1/x",
    "https://github.com?@127.0.0.1/x", "https://127.0.0.1#@github.com/x", "https://127.0.0.1?.github.com/x", "https://127.0.0.1%2f@github.com/x", "https://127.0.0.1%00.github.com/x",
    "https://127.0.0.1%09.github.com/x", "https://127.0.0.1%20/x", "https://%31%32%37.0.0.1/x", "https://127。0。0。1/x", "https://１２７.0.0.1/x", "https://①②⑦.⓪.⓪.①/x", "https://ⓛocalhost/x",
    "https://localhost%E3%80%82/x", "https://gïthub.com/x", "https://github.com\u200b/x", "https://github.com\u202e/x", "https://github.com\u3002evil/x", "https://.github.com/x", "https://github..com/x",
    "https://github.com./x", "https://-github.com/x", "https://github.com:99999999/x", "https://github.com:-1/x", "https://github.com:80x/x", "https://github.com:4 43/x", "https://github.com: /x",
    "https://:443/x", "https://@/x", "https://user@/x", "https://[/x", "https://]/x", "https://[]/x", "https://[127.0.0.1]/x", "https://[github.com]/x", "https://[::1/x", "https://::1/x",
    "https://github.com/../x", "https://github.com/a/../../x", "https://github.com/a/%2e%2e/x", "https://github.com/a/%2E./x", "ssh://git@github.com/../x", "git@github.com:../x", "git@github.com:a/../x",
    "https://user:pw@github.com/x", "https://token@github.com/x", "ssh://u:pw@github.com/x", "ssh://-oProxyCommand=id@github.com/x", "ssh://-oProxyCommand=id/x", "ssh://github.com@-x/x",
    "ssh://a b@github.com/x", "ssh://$(id)@github.com/x", "ssh://git@$(id)/x", "ssh://git@`id`/x", "-oProxyCommand=id:x", "git@-oProxyCommand=id:x", "git@github.com:-x", "git@127.0.0.1:x",
    "git@localhost:x", "git@2130706433:x", "git@0x7f.1:x", "127.0.0.1:x", "me@[::1]:x", "[::1]:x", "file:///etc/passwd", "file://localhost/etc", "FILE:///etc", "file:/etc", "file:etc", "/etc", "/proc/self/root",
    "//127.0.0.1/x", "~/x", "./x", "../x", "x", "ext::sh -c id", "EXT::id", "ext::sh%20-c%20id", "fd::0,1", "fd::7", "remote-ext::id", "testgit::/x", "http::https://github.com/x", "git://github.com/x", "git+ssh://github.com/x",
    "ssh+git://github.com/x", "rsync://github.com/x", "ftp://github.com/x", "ftps://github.com/x", "gopher://127.0.0.1:25/x", "dict://127.0.0.1/x", "ldap://127.0.0.1/x", "tftp://127.0.0.1/x", "smb://127.0.0.1/x",
    "javascript:alert(1)", "data:text/plain,x", "jar:https://github.com/x", "unix:///run/x", "bundle:///x", "--upload-pack=id", "--upload-pack=id https://github.com/x", "-u id", "--exec=id", "--config=core.sshCommand=id",
    "https://github.com/x\n127.0.0.1", "https://github.com/\r\nHost: x", "https://github.com/x\t", "\thttps://github.com/x", " https://github.com/x", "https ://github.com/x", "ht\ntps://github.com/x", "https:///127.0.0.1/x",
    "https:/127.0.0.1/x", "https:127.0.0.1/x", "https:\\\\127.0.0.1\\x", "https://127.0.0.1:80/x", "http://127.0.0.1:22/x", "https://github.com/%00", "https://github.com/%0d%0aX", "https://github.com/%zz", "https://" + "a" * 300 + "/x",
]
HOSTILE = [f"{scheme}://{a}/x.git" for a in ADDRESSES for scheme in ("http", "https", "ssh")] + TRICKS


@pytest.fixture
def guard(tool, tmp_path):  # noqa: F811
    """Programs that would connect are replaced by ones that tell that they were started."""
    bin_dir, mark = tmp_path / "bin", tmp_path / "started"
    bin_dir.mkdir()
    for name in ("git", "ssh", "ssh-agent", "ssh-add", "curl", "sh", "git-upload-pack"):
        (bin_dir / name).write_text(f"#!/bin/bash\necho \"$0 $*\" >> {mark}\nexit 1\n")
        (bin_dir / name).chmod(0o755)
    tool.env["PATH"] = str(bin_dir) + ":/usr/bin:/bin"
    return mark


def test_hostile_urls_are_refused_before_anything_is_started(tool, guard):  # noqa: F811
    assert len(HOSTILE) > 400
    for url in HOSTILE:
        for kind in ("prove", "git"):
            with pytest.raises(Failure) as failed:
                tool.fetch(kind=kind, url=url, ref=None, rules={})
            assert failed.value.code in ("invalid", "denied"), (url, failed.value.code, failed.value.text)
            assert failed.value.text and failed.value.hint or failed.value.code == "invalid", url
        assert not guard.exists(), (url, guard.read_text())


def test_what_is_no_secret_of_a_network_is_let_through_to_git(tool, guard):  # noqa: F811
    for url in ("https://8.8.8.8/x.git", "https://[2606:4700::1]/x.git", "ssh://git@1.1.1.1/x.git", "http://93.184.216.34:8080/x", "git@9.9.9.9:a/b", "https://[64:ff9b::8.8.8.8]/x"):
        with pytest.raises(Failure):
            tool.fetch(kind="prove", url=url, ref=None, rules={})
        assert guard.exists(), url
        guard.unlink()


@pytest.mark.parametrize("rules,url,allowed", [
    ({"private": True}, "https://127.0.0.1/x", True), ({"private": True}, "https://10.0.0.1/x", True), ({"private": True}, "https://169.254.169.254/x", False),
    ({"private": True}, "https://[fd00:ec2::254]/x", False), ({"private": True}, "https://[::ffff:169.254.169.254]/x", False), ({"private": True}, "https://0.0.0.0/x", False),
    ({"private": True}, "https://100.100.100.200/x", False), ({"private": ["10.1.0.0/16"]}, "https://10.1.2.3/x", True), ({"private": ["10.1.0.0/16"]}, "https://10.2.0.1/x", False),
    ({"private": ["10.1.0.0/16"]}, "https://127.0.0.1/x", False), ({"private": ["10.1.0.0/16"]}, "https://[::ffff:10.1.2.3]/x", True), ({"private": ["fc00::/7"]}, "https://[fd12::1]/x", True),
    ({"private": ["169.254.169.254"]}, "https://169.254.169.254/x", True), ({"allow_hosts": ["8.8.8.8"]}, "https://8.8.8.8/x", True), ({"allow_hosts": ["github.com"]}, "https://8.8.8.8/x", False),
    ({"allow_hosts": ["*.corp.example"]}, "https://corp.example/x", False), ({"deny_hosts": ["8.8.8.8"]}, "https://8.8.8.8/x", False), ({"deny_hosts": ["*.evil.example"]}, "https://a.evil.example/x", False),
    ({"deny_hosts": ["EVIL.example"]}, "https://evil.EXAMPLE/x", False), ({"schemes": ["ssh"]}, "https://8.8.8.8/x", False), ({"schemes": ["https"]}, "http://8.8.8.8/x", False), ({"schemes": []}, "https://8.8.8.8/x", False),
    ({"schemes": ["https"], "allow_hosts": ["8.8.8.8"], "deny_hosts": ["8.8.8.8"]}, "https://8.8.8.8/x", False),
])
def test_the_rules_of_the_configuration_hold(tool, guard, rules, url, allowed):  # noqa: F811
    with pytest.raises(Failure) as failed:
        tool.fetch(kind="prove", url=url, ref=None, rules=rules)
    assert guard.exists() == allowed, failed.value.text
    assert allowed or failed.value.code == "denied"


RESOLVER = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
/* Names get the addresses that FAKE_DNS lists for the n-th question: "ADDR,ADDR;ADDR" */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **res)
{
	static int asked;
	char *all = strdup(getenv("FAKE_DNS") ? getenv("FAKE_DNS") : ""), *turn = all, *save = NULL;
	struct addrinfo *first = NULL, **next = &first;
	(void)service; (void)hints; (void)node;
	for (int i = 0; i < asked && strchr(turn, ';'); i++)
		turn = strchr(turn, ';') + 1;
	if (strchr(turn, ';'))
		*strchr(turn, ';') = 0;
	asked++;
	for (char *a = strtok_r(turn, ",", &save); a; a = strtok_r(NULL, ",", &save)) {
		struct addrinfo *ai = calloc(1, sizeof(*ai));
		if (strchr(a, ':')) {
			struct sockaddr_in6 *s = calloc(1, sizeof(*s));
			s->sin6_family = AF_INET6;
			inet_pton(AF_INET6, a, &s->sin6_addr);
			ai->ai_family = AF_INET6; ai->ai_addr = (void *)s; ai->ai_addrlen = sizeof(*s);
		} else {
			struct sockaddr_in *s = calloc(1, sizeof(*s));
			s->sin_family = AF_INET;
			inet_pton(AF_INET, a, &s->sin_addr);
			ai->ai_family = AF_INET; ai->ai_addr = (void *)s; ai->ai_addrlen = sizeof(*s);
		}
		*next = ai; next = &ai->ai_next;
	}
	*res = first;
	return first ? 0 : EAI_NONAME;
}
void freeaddrinfo(struct addrinfo *res) { (void)res; }
"""


@pytest.fixture
def fake_dns(tool, tmp_path):  # noqa: F811
    """The name system as an attacker has it, for the fetch alone: git's environment is its own."""
    source, library = tmp_path / "dns.c", tmp_path / "dns.so"
    source.write_text(RESOLVER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)

    def answer(turns):
        tool.env.update(LD_PRELOAD=str(library), FAKE_DNS=turns)
    if "asan" in subprocess.run(["ldd", tool.path], capture_output=True, text=True).stdout:
        pytest.skip("the sanitizer wants to be the first library")
    return answer


@pytest.mark.parametrize("addresses", ["127.0.0.1", "8.8.8.8,127.0.0.1", "8.8.8.8,8.8.4.4,169.254.169.254", "::1", "2606:4700::1,::1", "::ffff:10.0.0.1", "8.8.8.8,fd00:ec2::254", "64:ff9b::7f00:1", "0.0.0.0", "2002:7f00:1::"])
@pytest.mark.parametrize("scheme", ["http", "https", "ssh"])
def test_a_name_with_one_bad_address_is_refused(tool, guard, fake_dns, addresses, scheme):  # noqa: F811
    fake_dns(addresses)
    with pytest.raises(Failure) as failed:
        tool.fetch(kind="prove", url=f"{scheme}://code.example.com/x.git", ref=None, rules={})
    assert failed.value.code == "denied" and "code.example.com" in failed.value.text and not guard.exists()


def test_git_goes_to_the_address_that_was_judged_and_asks_nobody_again(tool, repo, git_http, fake_dns):  # noqa: F811
    url, seen = git_http
    port = url.rsplit(":", 1)[1]
    fake_dns("127.0.0.1;8.8.8.8")  # git itself cannot resolve it at all
    result = tool.fetch(kind="git", url=f"http://code.example.com:{port}/repo/.git", ref=None, rules={"private": True})
    assert result["commit"] == git(repo, "rev-parse", "HEAD")
    assert seen


def test_ssh_is_told_the_address_and_looks_the_key_up_by_the_name(tool, fake_dns, tmp_path):  # noqa: F811
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "ssh").write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/args\nexit 1\n")
    (bin_dir / "ssh").chmod(0o755)
    tool.env["PATH"] = f"{bin_dir}:{tool.env['PATH']}"
    fake_dns("8.8.8.8;127.0.0.1")
    with pytest.raises(Failure):
        tool.fetch(kind="prove", url="ssh://git@code.example.com:2222/x.git", ref=None, rules={})
    args = (tmp_path / "args").read_text().splitlines()
    assert "-oHostName=8.8.8.8" in args and "-oHostKeyAlias=[code.example.com]:2222" in args and "-Fnone" in args and "-oStrictHostKeyChecking=yes" in args
    with pytest.raises(Failure):
        tool.fetch(kind="prove", url="git@code.example.com:x.git", ref=None, rules={"user_keys": False})
    args = (tmp_path / "args").read_text().splitlines()
    assert "-oHostKeyAlias=code.example.com" in args and "-oIdentityAgent=none" in args and "-oIdentityFile=none" in args


class Redirect(GitHttp):
    to = None

    def answer(self):
        self.seen.append((self.path, self.headers.get("Authorization")))
        self.send_response(self.status)
        self.send_header("Location", self.to)
        self.end_headers()

    do_GET = do_POST = answer


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(tool, repo, git_http, status):  # noqa: F811
    import http.server
    import threading
    url, seen = git_http
    handler = type("H", (Redirect,), {"seen": [], "to": f"{url}/repo/.git/info/refs?service=git-upload-pack", "status": status})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(Failure) as failed:
            tool.fetch(kind="git", url=f"http://127.0.0.1:{server.server_address[1]}/x.git", ref=None, rules={"private": True})
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert failed.value.code == "denied" and "elsewhere" in failed.value.text
    assert handler.seen and not seen


# ---- who may read what is cached ----

def with_credential(tool, job, fields):  # noqa: F811
    """A fetch that is given a credential, as the server gives it."""
    read, write = os.pipe()
    os.write(write, b"".join(f.encode() + b"\0" for f in fields))
    os.close(write)
    try:
        done = subprocess.run([tool.path, "fetch"], input=json.dumps({"cache": str(tool.cache), "rules": OPEN_RULES, "secret": True, **job}).encode(), capture_output=True,
                              env=tool.env, timeout=120, preexec_fn=lambda: os.dup2(read, 3), close_fds=False)
    finally:
        os.close(read)
    last = json.loads(done.stdout.splitlines()[-1])
    if "error" in last:
        raise Failure(last["error"])
    return last["result"]


class Login(GitHttp):
    password = "s3cr3t-t0ken"

    def answer(self):
        import base64
        given = self.headers.get("Authorization")
        if not given or base64.b64decode(given.split()[1]).decode() != f"someone:{self.password}":
            self.seen.append((self.path, None, None))
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()
            return
        super().answer()

    do_GET = do_POST = answer


@pytest.fixture
def private_http(tmp_path):
    import http.server
    import threading
    handler = type("Handler", (Login,), {"root": tmp_path, "seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler.seen
    server.shutdown()
    thread.join()
    server.server_close()


GOOD = ("http", "someone", Login.password, "")


def test_a_password_opens_the_repository_and_is_kept_nowhere(tool, repo, private_http):  # noqa: F811
    url, _ = private_http
    job = {"kind": "git", "url": f"{url}/repo/.git", "ref": None, "credential": "aa"}
    result = with_credential(tool, job, GOOD)
    assert result["commit"] == git(repo, "rev-parse", "HEAD")
    assert with_credential(tool, {**job, "kind": "prove"}, GOOD) == {"warnings": [], "proven": True, "commit": result["commit"], "branch": "main"}
    found = subprocess.run(["grep", "-rla", Login.password, tool.base], capture_output=True, text=True).stdout
    assert not found


@pytest.mark.parametrize("fields", [("http", "someone", "wrong", ""), ("http", "other", Login.password, ""), None, ("ssh", "", "-----BEGIN", "")])
def test_another_password_or_none_opens_nothing_also_when_it_is_cached(tool, repo, private_http, fields):  # noqa: F811
    url, _ = private_http
    job = {"kind": "git", "url": f"{url}/repo/.git", "ref": git(repo, "rev-parse", "HEAD"), "credential": "aa"}
    with_credential(tool, job, GOOD)
    for other in ("aa", "bb"):
        with pytest.raises(Failure) as failed:
            if fields:
                with_credential(tool, {**job, "credential": other}, fields)
            else:
                tool.fetch(**job)
        assert failed.value.code == "denied" and Login.password not in failed.value.text


def test_mirrors_and_trees_of_two_credentials_are_two(tool, repo, private_http):  # noqa: F811
    url, _ = private_http
    job = {"kind": "git", "url": f"{url}/repo/.git", "ref": None}
    one, two = with_credential(tool, {**job, "credential": "aa"}, GOOD), with_credential(tool, {**job, "credential": "bb"}, GOOD)
    assert one["store"] != two["store"] and one["checkout"] != two["checkout"] and one["commit"] == two["commit"]
    head = one["commit"]
    peek = {"kind": "git", "url": f"{url}/repo/.git", "ref": head, "proven": True, "commit": head, "branch": "main"}

    def found(cache=tool.cache, **more):
        return tool.run("peek", str(cache), job={**peek, **more}).returncode == 0
    assert found(credential={"fingerprint": "aa"}) and found(credential={"fingerprint": "bb"})
    assert not found(credential={"fingerprint": "cc"}) and not found(), "another credential, or none"
    assert not found(cache=tool.base / "other-project", credential={"fingerprint": "aa"}), "another project"
    assert not found(credential={"fingerprint": "aa"}, proven=False), "nobody has proven anything"


def test_a_question_about_another_host_gets_no_answer(tool, tmp_path):  # noqa: F811
    for question, known in (("Password for 'https://someone@code.example': ", True), ("Password for 'https://code.example': ", True), ("Password for 'https://someone@evil.example': ", False),
                            ("Password for 'https://code.example@evil.example': ", False), ("Username for 'https://code.example': ", False), ("Password for 'https://someone@code.example.evil': ", False)):
        read, write = os.pipe()
        os.write(write, b"the-answer")
        os.close(write)
        done = subprocess.run([tool.path, question], env={"SIGNALBOX_ASKPASS": f"{read} code.example"}, pass_fds=(read,), capture_output=True, timeout=120)
        os.close(read)
        assert (done.stdout == b"the-answer\n") == known, question
        assert known or (done.stdout == b"" and done.returncode != 0)


def test_a_password_is_not_sent_in_the_clear_over_a_network(tool, guard):  # noqa: F811
    with pytest.raises(Failure) as failed:
        with_credential(tool, {"kind": "prove", "url": "http://8.8.8.8/x.git", "ref": None, "credential": "aa"}, GOOD)
    assert failed.value.code == "denied" and "encryption" in failed.value.text and not guard.exists()


def test_a_damaged_mirror_is_made_anew(tool, repo, git_http):  # noqa: F811
    url, _ = git_http
    job = {"kind": "git", "url": f"{url}/repo/.git", "ref": None}
    store = pathlib.Path(tool.fetch(**job)["store"])
    for damage in ("rm -rf objects/*", "for f in $(find objects -type f); do chmod u+w $f; echo garbage > $f; done", "rm -f HEAD config", "for f in $(find refs packed-refs -type f); do : > $f; done",
                   "touch ../busy packed-refs.lock; find objects -type f | head -1 | xargs rm -f"):
        (repo / "a.txt").write_text(damage)
        newest = commit(repo, "next")
        subprocess.run(["sh", "-c", damage], cwd=store, check=True)
        result = tool.fetch(**job)
        assert result["commit"] == newest, damage
        git(store, "rev-list", "--objects", newest)
