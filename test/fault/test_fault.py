"""A slice of the fault lab for every day: a fixed number of rounds of each kind, the seed printed.  `make fault N=1000` is the whole."""
import os
import pathlib
import random
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from faults import FAULTS, is_possible  # noqa: E402
from e2e_site import BUILD, CODEX  # noqa: E402

SEED = int(os.environ.get("SIGNALBOX_SEED", random.SystemRandom().randrange(1, 1 << 31)))
SLICE = {
    "the server": (["server killed", "server killed at a step", "server killed during submits", "server stopped, continued", "server drained under load"], 12),
    "the runner": (["runner killed", "runner killed at a step", "runner stopped, continued", "stage stopped, runner killed"], 12),
    "what is inside": (["inside killed", "inside stopped, continued", "wild agents", "everything killed at a step"], 10),
    "ends that meet": (["cancel, finish, time-out race", "cancel at a step"], 6),
    "the ground": (["disk full", "clock jumps", "descriptors taken", "readers stalled"], 8),
    "silence": (["server frozen past the heartbeat", "runner frozen past the heartbeat"], 2),
    "the model": (["model fails codex", "codex struck"], 3),
}


@pytest.mark.parametrize("part", SLICE)
def test_nothing_is_lost_doubled_left_or_lied_about_when_faults_strike(part):
    names, rounds = SLICE[part]
    names = [n for n in names if n in FAULTS and is_possible(n, CODEX.exists())]
    if not names:
        pytest.skip("what this needs is not installed here")
    faults = [w for n in names for w in ("--fault", n)]
    done = subprocess.run([sys.executable, str(HERE / "lab.py"), str(BUILD), "--rounds", str(rounds), "--seed", str(SEED), "--jobs", "1", *faults],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"seed {SEED}\n{done.stdout}\n{done.stderr[-12000:]}"
