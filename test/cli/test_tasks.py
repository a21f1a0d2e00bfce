"""Submitting, listing and results, against canned answers."""

import json
import os
import subprocess

import pytest
from conftest import TASK_ID, make_event, make_task

PATCH = """diff --git a/a.txt b/a.txt
index 78981922613b2afb6025042ff6bd878ac1994e85..61780798228d17af2d34fce4cfbdf35556832472 100644
--- a/a.txt
+++ b/a.txt
@@ -1 +1 @@
-a
+b
"""
RESULT = {
    "outcome": "success", "summary": "Changed a to b.", "questions": [], "next_actions": [],
    "files": [{"path": "a.txt", "status": "M", "added": 1, "deleted": 1, "binary": False}], "added": 1, "deleted": 1,
    "patch_bytes": len(PATCH), "tree": "x", "verify": {"command": "make test", "exit_code": 0, "ms": 1200},
    "claims": {"tests_run": 12, "tests_passed": 12},
    "usage": {"input_tokens": 100, "cached_input_tokens": 10, "output_tokens": 20, "requests": 2},
}


@pytest.fixture
def repo(room):
    path = os.path.join(room, "repo")
    os.makedirs(os.path.join(path, "sub"))
    git = {"cwd": path, "check": True, "env": {"PATH": os.environ["PATH"], "HOME": room, "GIT_CONFIG_NOSYSTEM": "1"}}
    subprocess.run(["git", "init", "-q", "-b", "main"], **git)
    with open(os.path.join(path, "a.txt"), "w") as f:
        f.write("a\n")
    return path


@pytest.fixture
def done(fake):
    fake.tasks[TASK_ID].update(status="DONE", name="T-1", result=RESULT, completed_at="2026-11-20T10:00:42.000Z")
    fake.on("GET", r"/v1/tasks/([^/]+)/diff", lambda h, q, t: h.send_bytes(200, "text/x-diff", PATCH.encode()))
    return fake


def submitted(fake):
    return fake.sent("POST", "/v1/tasks")[-1]


def test_start_prints_id_session_and_url(fake, signalbox):
    r = signalbox("start", "do it", "--repo", "-")
    assert r.returncode == 0
    assert r.stdout == f"{TASK_ID}\ts-1\thttp://localhost/t/{TASK_ID}\n"
    assert submitted(fake) == {"prompt": "do it", "source": {"kind": "none"}}


def test_the_default_source_is_the_repository_around_the_current_directory(fake, signalbox, repo):
    assert signalbox("start", "x", cwd=os.path.join(repo, "sub")).returncode == 0
    assert submitted(fake)["source"] == {"kind": "local", "dir": repo}


def test_a_ref_of_a_local_repository_is_fetched_as_a_repository(fake, signalbox, repo):
    assert signalbox("start", "x", "--ref", "v1", cwd=repo).returncode == 0
    assert submitted(fake)["source"] == {"kind": "local", "dir": repo, "ref": "v1"}


def test_outside_a_repository_the_source_must_be_named(fake, signalbox):
    r = signalbox("start", "x")
    assert r.returncode == 2
    assert "not inside a repository" in r.stderr and "--repo" in r.stderr
    assert fake.sent("POST", "/v1/tasks") == []


@pytest.mark.parametrize("url", ["https://example.org/x.git", "git@example.org:x/y.git", "ssh://example.org/x"])
def test_a_git_url_is_a_git_source(fake, signalbox, url):
    assert signalbox("start", "x", "--repo", url, "--ref", "main").returncode == 0
    assert submitted(fake)["source"] == {"kind": "git", "url": url, "ref": "main"}


def test_a_repo_that_is_neither_directory_nor_url_is_refused(fake, signalbox):
    r = signalbox("start", "x", "--repo", "nowhere")
    assert r.returncode == 2 and "neither a directory nor a URL" in r.stderr


def test_every_option_of_start_reaches_the_request(fake, signalbox, room):
    script = os.path.join(room, "setup.sh")
    with open(script, "w") as f:
        f.write("npm ci\n")
    r = signalbox("start", "--name", "T-9", "--repo", "-", "--agent", "codex-exec", "--model", "m", "--mode", "ask", "--environment", "node",
                  "-e", "A=1", "-e", "FROM_OURS", "--setup", script, "--setup-network", "host", "--verify", "make test", "--timeout", "1h",
                  "--stall-timeout", "5m", "--setup-timeout", "10m", "--priority", "7", "--label", "k=v", "--limit", "memory=2G",
                  "--limit", "pids=100", "do it", env={"FROM_OURS": "ours"})
    assert r.returncode == 0, r.stderr
    assert submitted(fake) == {
        "name": "T-9", "source": {"kind": "none"}, "prompt": "do it", "agent": "codex-exec", "model": "m", "mode": "ask", "environment": "node",
        "env": {"A": "1", "FROM_OURS": "ours"}, "setup": "npm ci\n", "setup_network": "host", "verify": "make test", "priority": 7,
        "labels": {"k": "v"}, "timeout_ms": 3600000, "stall_timeout_ms": 300000, "setup_timeout_ms": 600000,
        "limits": {"memory": 2 << 30, "pids": 100},
    }


def test_the_prompt_may_come_from_a_file_or_standard_input(fake, signalbox, room):
    path = os.path.join(room, "p.txt")
    with open(path, "w") as f:
        f.write("from the file\n")
    assert signalbox("start", "--repo", "-", "-F", path).returncode == 0
    assert submitted(fake)["prompt"] == "from the file\n"
    assert signalbox("start", "--repo", "-", "-", stdin="from the pipe ü").returncode == 0
    assert submitted(fake)["prompt"] == "from the pipe ü"


@pytest.mark.parametrize("words", [["--limit", "speed=1"], ["--limit", "memory=lots"], ["--env", "NOWHERE_SET"], ["--label", "novalue"], ["--priority", "x"],
                                   ["--timeout", "soon"]])
def test_a_value_that_makes_no_sense_is_a_usage_error(fake, signalbox, words):
    r = signalbox("start", "--repo", "-", "x", *words)
    assert r.returncode == 2, r.stderr
    assert fake.sent("POST", "/v1/tasks") == []


def test_a_refusal_of_the_server_is_told_with_its_hint_and_status(fake, signalbox):
    fake.on("POST", r"/v1/tasks", lambda h, q: h.problem(409, "conflict", "the name 'T-1' is taken by task x", "signalbox show T-1"))
    r = signalbox("start", "--repo", "-", "--name", "T-1", "x")
    assert r.returncode == 6
    assert r.stderr == "signalbox: start: the name 'T-1' is taken by task x\n  try: signalbox show T-1\n"


def test_an_exported_key_is_offered_to_a_running_server(fake, signalbox):
    fake.on("POST", r"/v1/keys", lambda h, q: h.send_bytes(204, "text/plain", b""))
    assert signalbox("start", "--repo", "-", "x", env={"OPENAI_API_KEY": "sk-test"}).returncode == 0
    assert fake.sent("POST", "/v1/keys") == [{"provider": "openai", "key": "sk-test"}]
    r = signalbox("start", "--repo", "-", "x")
    assert r.returncode == 0 and len(fake.sent("POST", "/v1/keys")) == 1


def test_a_server_that_takes_no_keys_is_no_trouble(fake, signalbox):
    r = signalbox("start", "--repo", "-", "x", env={"OPENAI_API_KEY": "sk-test"})
    assert r.returncode == 0 and r.stderr == ""


def test_ls_in_a_pipe_is_tab_separated_without_a_header(fake, signalbox):
    fake.tasks["2"] = make_task(id="2", name="ü", status="RUNNING", phase="running", prompt="two\nlines\there")
    lines = signalbox("ls").stdout.splitlines()
    assert lines[0].split("\t") == [TASK_ID, "", "QUEUED", "queued", "2026-11-20T10:00:00.000Z", "fake", "do it"]
    assert lines[1].split("\t")[-1] == "two lines here"


def test_ls_asks_for_states_labels_and_follows_pages(fake, signalbox):
    pages = {None: ([make_task(id="1"), make_task(id="2")], "c2"), "c2": ([make_task(id="3")], None)}

    def answer(handler, query):
        tasks, cursor = pages[query.get("after")]
        handler.send_json(200, {"data": tasks, "next_cursor": cursor})

    fake.on("GET", r"/v1/tasks", answer)
    r = signalbox("ls", "--state", "running,queued", "--label", "k=v", "--json")
    assert [t["id"] for t in json.loads(r.stdout)["data"]] == ["1", "2", "3"]
    assert "state=RUNNING%2CQUEUED" in fake.requests[0][1] and "label=k%3Dv" in fake.requests[0][1]


def test_show_tells_members_and_the_result_with_claims_apart_from_what_was_verified(done, signalbox):
    text = signalbox("show", "T-1").stdout
    assert f"id\t{TASK_ID}\n" in text
    assert "Changed a to b." in text
    assert "verify  passed  make test  [exit 0" in text
    assert "claims  12 tests run, 12 passed  (the agent says so; not checked)" in text
    assert " a.txt | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)\n" in text


def test_json_of_show_is_the_task_itself(done, signalbox):
    assert json.loads(signalbox("show", "T-1", "--json").stdout)["result"] == RESULT


def test_a_task_that_does_not_exist_is_exit_status_5(fake, signalbox):
    for words in (["show"], ["diff"], ["apply"], ["cancel"], ["rm"], ["logs"], ["events"], ["wait"], ["artifacts"]):
        r = signalbox(*words, "nobody")
        assert r.returncode == 5, words
        assert "task 'nobody' does not exist" in r.stderr and "try: signalbox ls" in r.stderr


def test_a_name_of_two_repositories_means_the_one_we_stand_in(fake, signalbox, repo):
    def answer(handler, query, ref):
        if "repo" in query:
            handler.send_json(200, make_task(name="T-1"))
        else:
            handler.problem(409, "conflict", "the name 'T-1' is used in two repositories", "use an id: 1, 2")

    fake.on("GET", r"/v1/tasks/(T-1)", answer)
    assert signalbox("show", "T-1", cwd=repo).returncode == 0
    outside = signalbox("show", "T-1")
    assert outside.returncode == 6 and "use an id: 1, 2" in outside.stderr


def test_diff_in_a_pipe_is_the_patch_byte_for_byte(done, signalbox):
    assert signalbox("diff", "T-1").stdout == PATCH


def test_diff_stat_and_its_json(done, signalbox):
    assert signalbox("diff", "--stat", "T-1").stdout == " a.txt | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)\n"
    assert json.loads(signalbox("diff", "--stat", "--json", "T-1").stdout)["added"] == 1


def test_diff_of_a_task_that_runs_says_when_it_will_be_there(fake, signalbox):
    fake.tasks[TASK_ID].update(status="RUNNING")
    for words in (["diff"], ["diff", "--stat"], ["apply", "--dir", "."]):
        r = signalbox(*words, TASK_ID)
        assert r.returncode == 6 and "RUNNING" in r.stderr and "signalbox wait" in r.stderr, words


def test_apply_changes_the_directory_the_task_came_from(done, signalbox, repo):
    done.tasks[TASK_ID]["source"] = {"kind": "local", "dir": repo}
    r = signalbox("apply", "T-1")
    assert r.returncode == 0, r.stderr
    with open(os.path.join(repo, "a.txt")) as f:
        assert f.read() == "b\n"


def test_apply_check_changes_nothing(done, signalbox, repo):
    r = signalbox("apply", "--check", "--json", "T-1", cwd=repo)
    assert r.returncode == 0, r.stderr
    assert json.loads(r.stdout)["applied"] is False
    with open(os.path.join(repo, "a.txt")) as f:
        assert f.read() == "a\n"


def test_apply_that_does_not_fit_is_refused_with_the_reason_and_changes_nothing(done, signalbox, repo, room):
    with open(os.path.join(repo, "a.txt"), "w") as f:
        f.write("something else\n")
    r = signalbox("apply", "T-1", cwd=repo)
    assert r.returncode == 6
    assert "a.txt" in r.stderr
    with open(os.path.join(repo, "a.txt")) as f:
        assert f.read() == "something else\n"
    assert [n for n in os.listdir(room) if n.startswith("signalbox-apply-")] == []


def test_artifacts_are_listed_and_fetched(done, signalbox, room):
    done.on("GET", r"/v1/tasks/([^/]+)/artifacts", lambda h, q, t: h.send_json(200, {"data": [{"path": "a/b c.bin", "size": 3, "mime": "x/y"}]}))
    done.on("GET", r"/v1/tasks/([^/]+)/artifacts/(.*)", lambda h, q, t, p: h.send_bytes(200, "x/y", b"\x00\xff" + p.encode()))
    assert signalbox("artifacts", "T-1").stdout == "3\tx/y\ta/b c.bin\n"
    out = os.path.join(room, "out")
    assert signalbox("artifacts", "T-1", "a/b c.bin", "-o", out).returncode == 0
    with open(out, "rb") as f:
        assert f.read() == b"\x00\xffa/b%20c.bin"


def test_cancel_prints_the_new_status(fake, signalbox):
    fake.on("POST", r"/v1/tasks/([^/]+)/cancel", lambda h, q, t: h.send_json(202, make_task(status="CANCELED")))
    r = signalbox("cancel", TASK_ID)
    assert (r.returncode, r.stdout) == (0, f"{TASK_ID}\tCANCELED\n")


def test_cancel_of_a_task_that_had_ended_is_exit_status_6(done, signalbox):
    done.on("POST", r"/v1/tasks/([^/]+)/cancel", lambda h, q, t: h.send_json(200, done.tasks[TASK_ID]))
    r = signalbox("cancel", "T-1")
    assert r.returncode == 6 and "already ended" in r.stderr


def test_rm_of_a_live_task_is_refused_and_says_how(fake, signalbox):
    fake.on("DELETE", r"/v1/tasks/([^/]+)", lambda h, q, t: h.problem(409, "conflict", "task is RUNNING"))
    r = signalbox("rm", TASK_ID)
    assert r.returncode == 6 and "rm --force" in r.stderr


def test_rm_force_cancels_waits_and_removes(fake, signalbox):
    def cancel(handler, query, ref):
        fake.settle("CANCELED")
        handler.send_json(202, fake.tasks[TASK_ID])

    fake.on("POST", r"/v1/tasks/([^/]+)/cancel", cancel)
    fake.on("DELETE", r"/v1/tasks/([^/]+)", lambda h, q, t: h.send_bytes(204, "text/plain", b""))
    r = signalbox("rm", "-f", TASK_ID)
    assert r.returncode == 0, r.stderr
    assert [m for m, _, _, _ in fake.requests] == ["GET", "POST", "GET", "DELETE"]


def test_logs_is_the_agents_text_with_commands_and_output(fake, signalbox):
    fake.events = [
        make_event(1, "task.created"), make_event(2, "message.done", {"text": "I look."}),
        make_event(3, "command.finished", {"id": "c", "command": "/bin/bash -lc 'npm test'", "exit_code": 1, "output": "1 failed\n"}),
    ]
    assert signalbox("logs", TASK_ID).stdout == "I look.\n$ npm test\n1 failed\n[exit 1]\n"


def test_logs_of_the_other_kinds_are_the_stable_files(fake, signalbox):
    fake.on("GET", r"/logs/([^/]+)/(.*)", lambda h, q, t, name: h.send_bytes(200, "text/plain", name.encode()))
    for which, name in (("prompt", "prompt.txt"), ("response", "llm_response.txt"), ("setup", "setup.log"), ("diff", "diff.patch")):
        assert signalbox("logs", TASK_ID, which).stdout == name + "\n"
    assert signalbox("logs", TASK_ID, "other").returncode == 2


def test_nobody_at_the_server_is_exit_status_7(signalbox, room):
    r = signalbox("ls", "--server", os.path.join(room, "none.sock"))
    assert r.returncode == 7 and "no server answers" in r.stderr
    assert signalbox("ls", "--server", "http://127.0.0.1:1").returncode == 7
    assert signalbox("ls", env={"SIGNALBOX_AUTOSTART": "0"}).returncode == 7


def test_hostile_text_reaches_a_terminal_only_as_text(fake, signalbox):
    fake.tasks[TASK_ID].update(prompt="\x1b]0;evil\x07 \x1b[2J", name=None)
    for words in (["ls"], ["show", TASK_ID]):
        assert "\x1b" not in signalbox(*words).stdout


def test_a_directory_is_not_offered_to_a_server_on_another_machine(signalbox, repo):
    r = signalbox("start", "x", "--server", "https://signalbox.example.org", cwd=repo)
    assert r.returncode == 2 and "another machine" in r.stderr and "--repo URL" in r.stderr


def test_a_submit_whose_connection_breaks_is_sent_again_under_the_same_key(signalbox, fake):
    keys = []

    def post(handler, query):
        keys.append(handler.headers["Idempotency-Key"])
        if len(keys) < 3:
            handler.close_connection = True  # no answer
            handler.connection.close()
        else:
            handler.send_json(201, fake.tasks[TASK_ID])
    fake.on("POST", r"/v1/tasks", post)
    done = signalbox("start", "--repo", "-", "x")
    assert done.returncode == 0, done.stderr
    assert len(keys) == 3 and len(set(keys)) == 1
