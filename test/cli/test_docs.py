"""Completion scripts and manual pages: made from the tables, accepted by the programs that read them."""
import re
import shutil
import subprocess

import pytest
from conftest import DEADLINE, PROGRAM


def commands(signalbox):
    return re.findall(r"^  ([a-z]{2,})  ", signalbox("help").stdout, re.M)


def options(signalbox, name):
    return set(re.findall(r"^\s+(?:-\w, )?--([a-z-]+)", signalbox("help", name).stdout, re.M))


def need(tool):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_that_the_shell_accepts_and_names_every_command_and_option(signalbox, shell):
    need(shell)
    script = signalbox("completion", shell).stdout
    done = subprocess.run([shell, "-n"] + (["/dev/stdin"] if shell != "bash" else []), input=script, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0 and not done.stderr, done.stderr
    for name in commands(signalbox):
        assert re.search(rf"\b{name}\b", script), name
        for option in options(signalbox, name):
            assert option in script, (name, option)


def complete_bash(room, line):
    """What bash would offer for the last word of that line."""
    words = line.split(" ")
    script = (f'eval "$("{PROGRAM}" completion bash)"; COMP_WORDS=({" ".join(repr(w) for w in words)}); COMP_CWORD={len(words) - 1}; _signalbox; printf "%s\\n" "${{COMPREPLY[@]}}"')
    return subprocess.run(["bash", "-c", script], cwd=room, capture_output=True, text=True, timeout=DEADLINE).stdout.split()


@pytest.mark.parametrize("line,offered", [
    ("signalbox con", ["context", "config"]), ("signalbox ls --se", ["--search", "--server"]), ("signalbox --json ls --lab", ["--label"]), ("signalbox help atta", ["attach"]),
    ("signalbox run --mode ", ["code", "ask", "plan"]), ("signalbox start --approvals ", ["always", "on-request", "never"]), ("signalbox wait --for ", ["terminal", "gate"]), ("signalbox ls --state DO", ["DONE"]),
    ("signalbox server ", ["status", "start", "stop", "reload"]), ("signalbox secret ", ["set", "ls", "rm"]), ("signalbox completion z", ["zsh"])])
def test_bash_offers_what_can_follow(room, line, offered):
    assert set(offered) <= set(complete_bash(room, line))


@pytest.mark.parametrize("line,offered", [("signalbox con", ["context", "config"]), ("signalbox ls --lab", ["--label"]), ("signalbox server --ru", ["--runs", "--runtime"]),
                                          ("signalbox run --mode ", ["code", "ask", "plan"]), ("signalbox server ", ["status", "start", "stop", "reload"])])
def test_fish_offers_what_can_follow(signalbox, room, line, offered):
    need("fish")
    script = signalbox("completion", "fish").stdout + f"\ncomplete -C '{line}'\n"
    done = subprocess.run(["fish", "--no-config"], input=script, cwd=room, capture_output=True, text=True, timeout=DEADLINE)
    assert set(offered) <= {l.split("\t")[0] for l in done.stdout.splitlines()}, done.stdout + done.stderr


def test_bash_offers_no_option_where_a_value_is_due(room):
    assert complete_bash(room, "signalbox run --name ") == [] and complete_bash(room, "signalbox wait --timeout ") == []


def test_zsh_loads_it_by_name_and_by_eval(signalbox, room):
    need("zsh")
    script = signalbox("completion", "zsh").stdout
    assert script.startswith("#compdef signalbox\n")
    done = subprocess.run(["zsh", "-f", "-c", 'autoload -U compinit && compinit -u -D && eval "$(cat)" && print -r -- $_comps[signalbox]'], input=script, cwd=room,
                          capture_output=True, text=True, timeout=DEADLINE)
    assert done.stdout.strip() == "_signalbox", done.stdout + done.stderr


def test_every_command_has_a_manual_page_without_faults(signalbox):
    need("mandoc")
    for name in [None, *commands(signalbox)]:
        page = signalbox("help", "--man", *([name] if name else [])).stdout
        done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning"], input=page, capture_output=True, text=True, timeout=DEADLINE)
        assert done.returncode == 0, (name, done.stdout)
        text = subprocess.run(["mandoc", "-T", "utf8"], input=page, capture_output=True, text=True, timeout=DEADLINE).stdout
        text = re.sub(".\b", "", text)
        for option in options(signalbox, name) if name else []:
            assert f"--{option}" in text, (name, option)
        assert ("signalbox-" + name if name else "signalbox") in text


def test_the_manual_page_of_the_whole_names_commands_variables_and_statuses(signalbox):
    page = signalbox("help", "--man").stdout
    for word in [*commands(signalbox), "SIGNALBOX_SERVER", "SIGNALBOX_TOKEN", "124", "130", "servers.json"]:
        assert word in page, word


def test_another_shell_is_told_which_there_are(signalbox):
    done = signalbox("completion", "csh")
    assert done.returncode == 2 and "fish" in done.stderr
