"""Sites for the tests: one for all tests of a file and road, or one of a test's own."""
import pytest
from e2e_site import ROADS, Site


@pytest.fixture(scope="module", params=ROADS)
def site(request):
    s = Site(request.param, **getattr(request.module, "SITE", {}))
    yield s
    s.close()


@pytest.fixture(params=ROADS)
def road(request):
    return request.param


@pytest.fixture
def new_site(road):
    """new_site(config={...}) -> Site; closed, with all its proofs, when the test ends."""
    made = []

    def make(**more):
        made.append(Site(road, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(autouse=True)
def nothing_left(request):
    """After each test the runs of a shared site have ended and left nothing."""
    yield
    if "site" in request.fixturenames and "failed" not in request.fixturenames:
        site = request.getfixturevalue("site")
        site.end_tasks()
        site.assert_clean()
