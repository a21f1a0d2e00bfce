"""The model gateway outlives the server for as long as a run needs it, and not for ever."""
import base64
import contextlib
import hashlib
import hmac
import json
import os
import random
import signal
import socket
import subprocess
import time

import pytest
from e2e_site import CODEX, DEADLINE, UnixConnection, is_alive, wait_for
from gate_steps import ALWAYS, decide, ended, open_gate, runner_pid, submit

LINGER_S = 1
CONFIG = {"limits": {"gateway_linger": f"{LINGER_S}s"}}
SCENARIOS = """
  - match: "[scenario wait]"
    steps:
      - shell: "echo begun > begun.txt; until [ -e ~/go ]; do sleep 0.05; done; echo ended"
      - expect: "ended"
      - final: "It waited."
  - match: "[scenario touch]"
    steps:
      - shell: "echo made >> made.txt"
      - final: "It is decided."
"""
needs_codex = pytest.mark.skipif(not CODEX.exists(), reason="Codex is not installed")


def gone(pid):
    wait_for("the gateway's own end", lambda: not is_alive(pid))


def the_gateway(site):
    return wait_for("a gateway", site.gateway_pid)


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_gateway_without_a_server_and_without_runs_ends_by_itself(new_site, how):
    site = new_site(config=CONFIG)
    gateway = the_gateway(site)
    (site.stop_server if how == "stopped" else site.kill_server)()
    gone(gateway)
    site.start_server()
    assert the_gateway(site) != gateway


def test_what_a_killed_gateway_left_while_it_took_the_sockets_over_is_removed(new_site):
    site = new_site(model=False)
    site.stop_server()
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    left = [site.runtime / f"gateway/model.sock.{ended.pid}", site.runtime / f"gateway-control.sock.{ended.pid}", site.runtime / f"gateway-control.sock.{ended.pid}.old"]
    kept = [site.runtime / f"gateway/model.sock.{os.getpid()}", site.runtime / "gateway-control.sock.mine"]
    with contextlib.ExitStack() as sockets:
        for path in left + kept:
            sockets.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
        text = site.runtime / f"gateway/model.sock.{ended.pid}.old"
        text.write_text("no socket")
        site.start_server()
        assert [path.exists() for path in left + kept + [text]] == [False] * 3 + [True] * 3
    the_gateway(site)


@needs_codex
def test_a_run_keeps_its_gateway_while_the_server_is_away(new_site):
    site = new_site(config=CONFIG, scenarios=SCENARIOS)
    task = submit(site, "[scenario wait]")
    wait_for("the command", lambda: site.events(task, "command.started"))
    runner, gateway, asked = runner_pid(site, task), the_gateway(site), len(site.asked())
    site.kill_server()
    away = time.monotonic()
    wait_for("thrice the time in which it would have ended", lambda: time.monotonic() - away > 3 * LINGER_S)
    assert site.gateway_pid() == gateway
    site.release(task)
    wait_for("the model to be asked again", lambda: len(site.asked()) > asked)
    wait_for("the run's end", lambda: not is_alive(runner))
    gone(gateway)
    site.start_server()
    assert site.wait(task)["status"] == "DONE", site.story(task)


@needs_codex
def test_so_does_one_that_waits_for_a_person_and_is_killed_then(new_site):
    site = new_site(config=CONFIG, scenarios=SCENARIOS)
    task = submit(site, "[scenario touch]", approvals=ALWAYS)
    gate = open_gate(site, task)
    runner, gateway = runner_pid(site, task), the_gateway(site)
    site.stop_server()
    away = time.monotonic()
    wait_for("thrice the time in which it would have ended", lambda: time.monotonic() - away > 3 * LINGER_S)
    assert site.gateway_pid() == gateway
    os.kill(runner, signal.SIGKILL)
    gone(gateway)
    site.start_server()
    wait_for("the task to wait", lambda: site.task(task)["status"] == "WAITING" and site.events(task, "run.ended"))
    assert decide(site, gate)[0] == 200
    assert ended(site, task)["status"] == "DONE", site.story(task)


@needs_codex
def test_a_server_that_comes_back_at_any_moment_has_a_gateway(new_site):
    site = new_site(config=CONFIG, scenarios=SCENARIOS)
    seed = random.SystemRandom().randrange(1 << 31)
    rng = random.Random(seed)
    for _ in range(6):
        site.kill_server()
        away, moment = time.monotonic(), rng.uniform(0.8, 1.4) * LINGER_S
        wait_for("a moment about the gateway's end", lambda: time.monotonic() - away > moment)
        site.start_server()
        assert the_gateway(site), f"seed {seed}"
    task = submit(site, "[scenario touch]")
    assert ended(site, task)["status"] == "DONE", (seed, site.story(task))

def of_run(site, run):
    """What a run's agent asks the model with, as the server signs it."""
    claims = json.dumps({"run": run, "provider": "scripted", "exp": int(time.time()) + 3600, "limits": {}}).encode()
    text = "sbx1." + base64.urlsafe_b64encode(claims).decode().rstrip("=")
    mac = hmac.new((site.data / "gateway" / "token.key").read_bytes(), text.encode(), hashlib.sha256).digest()
    return text + "." + base64.urlsafe_b64encode(mac).decode().rstrip("=")


def ask_model(site, run):
    conn = UnixConnection(site.runtime / "gateway" / "model.sock", DEADLINE)
    with contextlib.closing(conn):
        conn.request("POST", "/v1/responses", json.dumps({"model": "m", "input": "[scenario wait]", "stream": True}),
                     {"Authorization": f"Bearer {of_run(site, run)}", "Content-Type": "application/json"})
        reply = conn.getresponse()
        reply.read()
        return reply.status


def answers(site, run):
    with contextlib.suppress(OSError):
        return ask_model(site, run)


def test_a_runs_token_opens_the_gateway_while_it_lives_and_never_again(new_site):
    site = new_site(config=CONFIG, scenarios=SCENARIOS)
    task = site.submit("until [ -e go ]; do sleep 0.05; done")
    wait_for("the run", lambda: any(e["data"]["to"] == "running" for e in site.events(task, "run.phase")))
    run = f"{task}.main.1"
    assert ask_model(site, run) == 200
    assert ask_model(site, f"{task}.main.2") == 401  # there is no such run
    site.call("POST", f"/v1/tasks/{task}/cancel", {})
    site.wait(task)
    wait_for("the end of its token", lambda: ask_model(site, run) == 401)
    asked = len(site.asked())
    site.kill_server()
    os.kill(the_gateway(site), signal.SIGKILL)
    site.start_server()
    wait_for("another gateway's answer", lambda: answers(site, run) == 401)
    assert site.call("DELETE", f"/v1/tasks/{task}")[0] == 204
    site.tasks.discard(task)
    assert ask_model(site, run) == 401 and len(site.asked()) == asked
