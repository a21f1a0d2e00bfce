"""One repository by six roads: public URL, private URL behind nginx, ssh URL, directory, zip and tar.zst. The agent finds the same tree, and what
it does to it is the same diff, byte for byte."""
import base64
import contextlib
import os
import pwd
import subprocess

import pytest
from e2e_site import IS_ROOT, ordinary_user
from git_servers import NGINX, SSHD, TOKEN, GitHttp, Nginx, Sshd
from test_archives import archive, upload
from test_private import Watch, closing, lines_of, nowhere, refused, store

LOGIN = "x-access-token"  # whom a token without a user is sent for
FILES = r"""
printf 'one\ntwo\nthree\n' > a.txt
printf 'one\r\ntwo\r\n' > dos.txt
printf '*.bat text eol=crlf\n' > .gitattributes; printf 'echo dos\r\n' > run.bat
printf '#!/bin/sh\necho run\n' > run.sh; chmod 755 run.sh
printf '\000\001\002\377\376binary\000\n' > blob.bin; head -c 20000 /dev/urandom >> blob.bin
mkdir -p deep/er/est; echo deep > deep/er/est/file
printf 'gr\303\274n\n' > 'grün – 日本.txt'
ln -s deep/er/est/file link; ln -s deep folder; echo gone > gone.txt; : > empty
"""
EDITS = r"""set -e
[ "$(readlink link)" = deep/er/est/file ]; [ "$(cat link folder/er/est/file)" = "$(echo deep; echo deep)" ]
[ "$(./run.sh)" = run ]; [ -f 'grün – 日本.txt' ]; [ "$(tr -cd '\r' < dos.txt | wc -c)" -eq 2 ]; [ "$(tr -cd '\r' < run.bat | wc -c)" -eq 1 ]
echo four >> a.txt; printf 'three\r\n' >> dos.txt; printf 'echo more\r\n' >> run.bat; chmod -x run.sh; printf '\000more' >> blob.bin
echo deeper >> deep/er/est/file; mv 'grün – 日本.txt' 'blå.txt'; ln -sf a.txt link; rm gone.txt
mkdir -p new/dir; printf 'new' > new/dir/file; printf '#!/bin/sh\n' > new/run; chmod +x new/run; ln -s ../a.txt new/link
"""


@pytest.fixture
def repository(new_site):
    """A site that has not begun, a repository, and a bare clone that servers show."""
    site = new_site(model=False, start=False)
    at = site.path("work") / "app"
    at.mkdir(mode=0o755)
    site.sh(FILES + "git init -qb main; git add -A; git commit -qm first; git status --porcelain | wc -l | grep -qx 0", at)
    served = site.path("served")
    site.sh(f"git clone -q --bare {at} repo.git", served)
    return site, at, served


def packed(site, at):
    """The directory as people pack it: zip of what is in it, tar of itself."""
    site.sh("zip -qry ../packed.zip . && tar --zstd -cf ../packed.tar.zst -C .. app", at)
    files = {kind: at.parent / f"packed.{kind}" for kind in ("zip", "tar.zst")}
    return {kind: archive(upload(site, path.read_bytes(), name=path.name)["id"]) for kind, path in files.items()}


def ssh_road(site, stack, served, user):
    """The URL of a copy that an sshd shows, whose key the site knows, and what must be seen nowhere."""
    keys = site.path("keys")
    sshd = stack.enter_context(closing(Sshd(keys, user)))
    hosts = site.dir / "known_hosts"
    hosts.write_text(sshd.known_hosts)
    site.own(hosts)
    store(site, f"ssh:127.0.0.1:{sshd.port}", sshd.key, "--known-hosts", hosts)
    subprocess.run(["cp", "-r", served / "repo.git", keys / "repo.git"], check=True)
    subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", keys / "repo.git"], check=True)  # git wants its repository to be its user's
    return {"kind": "git", "url": sshd.url(keys / "repo.git")}, lines_of(sshd.key)


@pytest.mark.skipif(not (SSHD and NGINX), reason="there is no sshd or no nginx")
def test_six_roads_to_one_repository_give_one_tree_and_one_diff(repository):
    site, at, served = repository
    user = site.user or (ordinary_user() if IS_ROOT else pwd.getpwuid(os.geteuid()))
    with contextlib.ExitStack() as stack:
        public, behind = (stack.enter_context(closing(GitHttp(served))) for _ in range(2))
        door = stack.enter_context(closing(Nginx(site.path("nginx"), user, behind.url, LOGIN, TOKEN)))
        site.start_server(env=site.environment(GIT_SSL_CAINFO=door.tls["cert"]))
        private = {"kind": "git", "url": f"{door.url}/repo.git"}
        name = f"git:localhost:{door.port}"
        assert "secret set git:" in refused(site, private)["hint"]
        store(site, name, "another-token")
        refused(site, private)
        assert not behind.seen and set(door.answers()) == {401}, "nobody comes past nginx without the token"
        store(site, name, TOKEN)
        ssh, needles = ssh_road(site, stack, served, user)
        needles += [TOKEN, base64.b64encode(f"{LOGIN}:{TOKEN}".encode()).decode()]
        sources = {"public": {"kind": "git", "url": f"{public.url}/repo.git"}, "private": private, "ssh": ssh, "directory": {"kind": "local", "dir": str(at)}, **packed(site, at)}
        watch = stack.enter_context(closing(Watch(*needles)))
        tasks = {road: site.run(EDITS, source) for road, source in sources.items()}
        assert watch.looks > 3 and not watch.found, watch.found
        assert 200 in door.answers() and behind.seen and not any(login for _, _, login in public.seen + behind.seen)
    trees = {road: (t["source"]["tree"], t["result"]["tree"]) for road, t in tasks.items()}
    patches = {road: site.patch(t["id"]) for road, t in tasks.items()}
    assert len(trees) == 6 and len(set(trees.values())) == 1, trees
    assert len(set(patches.values())) == 1, {road: len(patch) for road, patch in patches.items()}
    assert {len(t["result"]["files"]) for t in tasks.values()} == {12}, tasks["zip"]["result"]["files"]
    before, after = trees["public"]
    assert site.sh("git rev-parse HEAD^{tree}", at).strip() == before
    check = site.path("check")
    (check / "patch").write_bytes(patches["zip"])
    made = site.sh(f"git clone -q {served}/repo.git copy && cd copy && git apply --index ../patch && git write-tree", check)
    assert made.strip() == after, "what the diff makes of the repository is the tree that the agent left"
    nowhere(site, *needles)
