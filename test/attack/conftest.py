"""One site for the tests of a file: the whole program, on its socket and on TCP. As root, the server is root's: that is where most is to be lost."""
import pathlib
import socket
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[0] / "e2e")]
from attack_site import AttackSite  # noqa: E402


@pytest.fixture(scope="module")
def site(request):
    s = AttackSite(**getattr(request.module, "SITE", {}))
    yield s
    s.close()


@pytest.fixture
def new_site():
    made = []

    def make(**more):
        made.append(AttackSite(**more))
        return made[-1]
    yield make
    for one in made:
        one.close()


@pytest.fixture
def dead_port():
    """A port that nobody listens on, and that nobody else is given meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture(autouse=True)
def it_goes_on(request):
    """After each test the server is the same process, and serves."""
    if "site" not in request.fixturenames:
        yield
        return
    site = request.getfixturevalue("site")
    before = site.server.pid
    yield
    assert site.server.poll() is None and site.server.pid == before and site.is_up(), site.log("server")[-3000:]
