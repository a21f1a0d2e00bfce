"""What somebody sees who uses it for the first time: at a narrow terminal, with a server that goes away, with the completion of a shell."""
import os
import socket
import subprocess
import threading

import pytest
from conftest import PROGRAM, TASK_ID, make_event
from desk import Desk


@pytest.fixture
def narrow(room, environment):
    desks = []

    def start(*words, columns=60):
        d = Desk([PROGRAM, *words], {**environment, "COLUMNS": str(columns)}, os.path.join(room, "work"))
        desks.append(d)
        d.finish()
        return d.text.replace("\r\n", "\n")

    yield start
    for d in desks:
        assert d.child.poll() is not None


def test_a_narrow_terminal_cuts_no_path(fake, narrow):
    fake.tasks[TASK_ID]["directory"] = "/data/" + "deep/" * 20 + TASK_ID
    assert fake.tasks[TASK_ID]["directory"] in narrow("show", TASK_ID)


def test_a_list_of_tasks_keeps_its_lines_at_a_narrow_terminal(fake, narrow):
    fake.tasks[TASK_ID].update(status="WAITING", phase="waiting_human", progress="waiting_human", prompt="make the parser accept empty lines")
    lines = narrow("ls").splitlines()
    assert len(lines) == 2 and all(len(line) <= 60 for line in lines) and "make the" in lines[1], lines


def test_config_wraps_and_cuts_nothing_at_a_narrow_terminal(narrow):
    text = narrow("config")
    assert "SIGNALBOX_ENVIRONMENT" in text and "..." not in text


def test_a_server_that_ends_while_it_is_asked_is_told_without_guesses(room, environment, signalbox):
    path = os.path.join(room, "dying.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(8)

        def die():
            while True:
                try:
                    conn, _ = listener.accept()
                except OSError:
                    return
                with conn:
                    conn.recv(1)

        thread = threading.Thread(target=die)
        thread.start()
        done = signalbox("ls", "--server", path)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert done.returncode == 7 and "try again" in done.stderr and "https" not in done.stderr


def test_a_step_of_the_plan_a_turn_and_a_tool_without_a_server_are_told_in_words(fake, signalbox):
    fake.events = [
        make_event(1, "todo.snapshot", {"items": [{"id": "1", "text": "look", "status": "in_progress"}]}),
        make_event(2, "todo.update", {"id": "1", "text": "look", "status": "completed", "was": "in_progress"}),
        make_event(3, "task.turn", {"turn": 2, "text": "now document it"}),
        make_event(6, "task.retry_scheduled", {"pause_ms": 1972, "reason": "agent_exited", "error": "no"}),
        make_event(4, "tool.finished", {"server": "", "tool": "askuser", "status": "completed"}),
        make_event(5, "gate.blocked", {"kind": "question", "title": "Which colour?", "questions": [{"id": "a", "text": "Which colour?"}]}),
    ]
    fake.settle("DONE")
    words = [line.split("\t")[3] for line in signalbox("events", TASK_ID).stdout.splitlines()]
    assert words == ["[>] look", "[x] look", "turn 2: now document it", "tries again in 1.9 s", "tool askuser [completed]", "a human is needed: Which colour?"]


def test_completion_offers_the_open_gates_to_who_decides(fake, room, environment):
    gate = {"id": "01kagate0000000000000000001"[:26], "task": TASK_ID, "name": "painted", "kind": "question", "state": "blocked", "created_at": "2026-11-20T10:00:00.000Z", "data": {"title": "x"}}
    fake.on("GET", r"/v1/gates", lambda h, q: h.send_json(200, {"data": [gate], "next_cursor": None}))
    script = (f'PATH={os.path.dirname(PROGRAM)}:$PATH; eval "$(signalbox completion bash)"; '
              'for verb in approve reject answer gates; do COMP_WORDS=(signalbox $verb ""); COMP_CWORD=2; _signalbox; echo "$verb ${COMPREPLY[*]}"; done')
    done = subprocess.run(["bash", "-c", script], env=environment, cwd=room, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == [w for verb in ("approve", "reject", "answer", "gates") for w in (verb, gate["id"], "painted")], done.stdout + done.stderr
