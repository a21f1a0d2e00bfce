"""A slice of the fault lab for every day: a fixed number of rounds of each kind, the seed printed.  `make fault N=1000` is the whole."""
import os
import pathlib
import random
import signal
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import agents  # noqa: E402
from check import Violation, check_runs  # noqa: E402
from faults import FAULTS, is_possible  # noqa: E402
from observer import Observer  # noqa: E402
from world import IS_ROOT, Ground, wait_for  # noqa: E402
from e2e_site import BUILD, CODEX  # noqa: E402

SEED = int(os.environ.get("SIGNALBOX_SEED", random.SystemRandom().randrange(1, 1 << 31)))
SLICE = {
    "the server": (["server killed", "server killed at a step", "server killed during submits", "server stopped, continued", "server drained under load"], 12),
    "the runner": (["runner killed", "runner killed at a step", "runner stopped, continued", "stage stopped, runner killed"], 12),
    "what is inside": (["inside killed", "inside stopped, continued", "wild agents", "everything killed at a step"], 10),
    "ends that meet": (["cancel, finish, time-out race", "cancel at a step"], 6),
    "the ground": (["disk full", "clock jumps", "descriptors taken", "readers stalled"], 8),
    "silence": (["server frozen past the heartbeat", "runner frozen past the heartbeat"], 2),
    "gates": (["gate and codex struck"], 6),
    "gates and the clock": (["codex at a gate, clock jumps"], 3),
    "the model": (["model fails codex", "codex struck"], 3),
}


@pytest.mark.parametrize("part", SLICE)
def test_nothing_is_lost_doubled_left_or_lied_about_when_faults_strike(part):
    names, rounds = SLICE[part]
    names = [n for n in names if n in FAULTS and is_possible(n, CODEX.exists())]
    if not names:
        pytest.skip("what this needs is not installed here")
    faults = [w for n in names for w in ("--fault", n)]
    done = subprocess.run([sys.executable, str(HERE / "lab.py"), str(BUILD), "--rounds", str(rounds), "--seed", str(SEED), "--jobs", "2" if rounds > 4 else "1", *faults],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"seed {SEED}\n{done.stdout}\n{done.stderr[-12000:]}"


@pytest.fixture
def ground():
    ground = Ground("plain", "root" if IS_ROOT else "user")
    ground.observer = Observer(ground)
    yield ground
    ground.observer.close()
    ground.close()


def begin(ground):
    id = ground.submit(agents.stubborn())
    ground.observer.watch(id)
    wait_for("the agent", lambda: ground.targets(id, "agent"))
    wait_for("the heartbeat file", lambda: (ground.observer.read_state(id) or (0, {}))[1].get("status") == "RUNNING")
    return id


def seen(ground, words):
    assert wait_for("the observer", lambda: [lie for lie in ground.observer.take() if words in lie])


def test_the_observer_sees_an_end_that_is_told_while_the_agent_lives(ground):
    id = begin(ground)
    ground.strike(ground.targets(id, "runner"), signal.SIGSTOP)  # it would write the truth over it
    path = ground.run_dir(id) / "state.json"
    text = path.read_text().replace('"RUNNING"', '"DONE"')
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)
    seen(ground, "the heartbeat file says DONE")


def test_the_observer_sees_a_run_that_is_said_to_run_after_its_runners_death(ground):
    id = begin(ground)
    ground.site.kill_server()  # behind the ground's back: the observer takes it for a server that is there and silent
    ground.strike(ground.targets(id, "runner"), signal.SIGKILL)
    seen(ground, "says RUNNING")
    ground.away = True


def test_the_observer_sees_two_runs_of_a_task_at_once(ground):
    id = begin(ground)
    other = ground.run_dir(id, 2)
    other.mkdir()
    (other / "__main__.py").write_text("import signal; signal.pause()")  # run by Python, the process has a runner's words
    fake = subprocess.Popen(["signalbox-runner", str(other)], executable=sys.executable, stdin=subprocess.DEVNULL, env={})
    try:
        seen(ground, "live at once")
    finally:
        fake.kill()
        fake.wait()


@pytest.mark.parametrize("wrong", ["gap", "twice", "second end", "after the end", "two ends of a run"])
def test_the_checks_see_a_wrong_log(wrong):
    events = [{"seq": i + 1, "type": t, "run": n, "data": {"status": "DONE"}} for i, (t, n) in enumerate(
        [("task.created", 0), ("task.claimed", 1), ("run.started", 1), ("run.result", 1), ("run.ended", 1), ("task.done", 0)])]
    task = {"status": "DONE", "reason": None}
    assert check_runs("t", task, events) == [1]
    if wrong == "gap":
        events[1]["run"] = 2
    elif wrong == "twice":
        events.insert(4, events[3])
    elif wrong == "second end":
        events.append(events[-1])
    elif wrong == "after the end":
        events.append({"seq": 7, "type": "message.done", "run": 1, "data": {}})
    else:
        events.insert(4, events[4])
    with pytest.raises(Violation):
        check_runs("t", task, events)
