"""Words in, errors and exit statuses out: nothing here talks to a server."""

import json
import os
import subprocess

import pytest
from conftest import PROGRAM

COMMANDS = "run start wait cancel ls show logs events diff apply artifacts rm doctor config version completion help".split()


def test_help_lists_every_command(signalbox):
    text = signalbox("help").stdout
    for name in COMMANDS + ["serve", "gateway"]:
        assert f"\n  {name} " in text


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_the_same_by_both_ways(signalbox, name):
    one, other = signalbox("help", name), signalbox(name, "--help")
    assert one.returncode == other.returncode == 0
    assert one.stdout == other.stdout
    assert one.stdout.startswith(f"signalbox {name}")
    assert "--json" in one.stdout


def test_no_command_prints_help_on_stderr_and_is_a_usage_error(signalbox):
    r = signalbox()
    assert r.returncode == 2
    assert r.stdout == ""
    assert "signalbox run" in r.stderr


def test_an_unknown_command_suggests_the_nearest(signalbox):
    r = signalbox("staart", "x")
    assert r.returncode == 2
    assert "did you mean 'start'" in r.stderr
    assert "try: signalbox help start" in r.stderr


def test_an_unknown_command_with_control_characters_is_shown_harmless(signalbox):
    r = signalbox("a\x1b]0;evil\x07b")
    assert r.returncode == 2
    assert "\x1b]" not in r.stderr


def test_an_unknown_option_suggests_the_nearest(signalbox):
    r = signalbox("run", "--verfy", "make", "x")
    assert r.returncode == 2
    assert "--verify" in r.stderr


def test_a_prompt_that_was_not_quoted_is_refused_with_the_reason(signalbox):
    r = signalbox("run", "fix", "the", "test")
    assert r.returncode == 2
    assert "quote it" in r.stderr


def test_a_missing_task_argument_is_a_usage_error(signalbox):
    for name in ("show", "wait", "cancel", "diff", "apply", "rm", "logs", "events"):
        r = signalbox(name)
        assert r.returncode == 2, name
        assert "needs TASK" in r.stderr


def test_global_options_come_before_or_after_the_verb(signalbox):
    before, after = signalbox("--json", "version"), signalbox("version", "--json")
    assert before.stdout == after.stdout
    assert json.loads(before.stdout) == {"version": "0.1.0", "server": None}


def test_version_alone_needs_nothing(signalbox):
    assert signalbox("--version").stdout == "signalbox 0.1.0\n"


def test_the_completion_script_is_bash_and_knows_commands_and_options(signalbox, room):
    script = signalbox("completion", "bash").stdout
    path = os.path.join(room, "c.bash")
    with open(path, "w") as f:
        f.write(script)

    def complete(*words):
        line = "source {}; COMP_WORDS=({}); COMP_CWORD={}; _signalbox; echo \"${{COMPREPLY[@]}}\"".format(
            path, " ".join(f"'{w}'" for w in words), len(words) - 1)
        return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout.split()

    assert complete("signalbox", "can") == ["cancel"]
    assert complete("signalbox", "run", "--ver") == ["--verify"]
    assert "--json" in complete("signalbox", "ls", "--")
    assert complete("signalbox", "--data", "x", "he") == ["help"]


def test_settings_come_from_flag_before_variable_before_project_before_user(signalbox, room):
    user = os.path.join(room, ".config", "signalbox")
    os.makedirs(user)
    with open(os.path.join(user, "config.yaml"), "w") as f:
        f.write("run:\n  agent: user\n  model: user\n  mode: user\n  priority: 3\n")
    with open(os.path.join(room, "work", ".signalbox.yaml"), "w") as f:
        f.write("run:\n  agent: project\n  model: project\n")
    found = json.loads(signalbox("config", "--json", env={"SIGNALBOX_AGENT": "variable"}).stdout)["settings"]
    assert (found["run.agent"]["value"], found["run.agent"]["from"]) == ("variable", "SIGNALBOX_AGENT")
    assert (found["run.model"]["value"], found["run.model"]["from"]) == ("project", ".signalbox.yaml")
    assert found["run.mode"]["value"] == "user"
    assert found["run.priority"]["value"] == "3"
    assert found["run.mode"]["from"].endswith(".config/signalbox/config.yaml")
    assert signalbox("config", "--data", "/flag", "client.data").stdout == "/flag\n"


def test_a_projects_file_cannot_say_whom_we_talk_to(signalbox, room):
    with open(os.path.join(room, "work", ".signalbox.yaml"), "w") as f:
        f.write("client:\n  server: http://127.0.0.1:1\n  token: x\n")
    r = signalbox("config", "--json")
    assert json.loads(r.stdout)["settings"]["client.server"]["value"] is None
    assert "may not set client.server" in r.stderr


@pytest.mark.parametrize("text, words", [("run:\n  agnt: command\n", "run.agnt"), ("client:\n  sever: x\n", "client.sever"), ("run:\n  \"a\\e[2Jb\": 1\n", "run.")])
def test_a_setting_that_there_is_not_is_told(signalbox, room, text, words):
    with open(os.path.join(room, "work", ".signalbox.yaml"), "w") as f:
        f.write(text)
    r = signalbox("config")
    assert r.returncode == 0 and "there is no setting " + words in r.stderr and "\x1b" not in r.stderr


def test_config_never_shows_the_token(signalbox):
    r = signalbox("config", env={"SIGNALBOX_TOKEN": "hush-hush"})
    assert "hush-hush" not in r.stdout + r.stderr
    assert "(set)" in r.stdout


def test_broken_settings_are_told_with_their_file(signalbox, room):
    with open(os.path.join(room, "work", ".signalbox.yaml"), "w") as f:
        f.write("run: [")
    r = signalbox("ls")
    assert r.returncode == 2
    assert ".signalbox.yaml" in r.stderr


def test_output_in_a_pipe_has_no_colour_unless_forced(signalbox):
    assert "\x1b" not in signalbox("help").stdout
    assert "\x1b" in signalbox("help", env={"CLICOLOR_FORCE": "1"}).stdout
    assert "\x1b" not in signalbox("help", env={"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}).stdout


def test_doctor_checks_each_thing_and_says_how_to_mend(signalbox, room):
    r = signalbox("doctor", "--json")
    answer = json.loads(r.stdout)
    names = [c["name"] for c in answer["checks"]]
    assert names[:20] == ("bwrap git codex agents namespaces overlay seccomp cgroup disk inodes memory files clock login service settings provider "
                          "socket server gateway").split()
    assert r.returncode == (0 if answer["ok"] else 1)
    for check in answer["checks"]:
        assert check["verdict"] == "ok" or check["hint"], check


def test_doctor_without_bubblewrap_fails_and_names_the_package(signalbox, room):
    empty = os.path.join(room, "bin")
    os.mkdir(empty)
    r = signalbox("doctor", env={"PATH": empty})
    assert r.returncode == 1
    line = next(l for l in r.stdout.splitlines() if "\tbwrap\t" in l)
    assert line.startswith("fail\t") and "bubblewrap" in line
