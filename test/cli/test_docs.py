"""Completion scripts and manual pages: made from the tables, accepted by the programs that read them."""
import os
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


def complete_bash(room, line, **more):
    """What bash would offer for the last word of that line."""
    words = line.split(" ")
    script = (f'eval "$("{PROGRAM}" completion bash)"; COMP_WORDS=({" ".join(repr(w) for w in words)}); COMP_CWORD={len(words) - 1}; _signalbox; printf "%s\\n" "${{COMPREPLY[@]}}"')
    done = subprocess.run(["bash", "-c", script], cwd=room, capture_output=True, text=True, timeout=DEADLINE, **more)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.split()


def complete_fish(signalbox, room, line, **more):
    need("fish")
    script = signalbox("completion", "fish").stdout + f"\ncomplete -C '{line}'\n"
    done = subprocess.run(["fish", "--no-config"], input=script, cwd=room, capture_output=True, text=True, timeout=DEADLINE, **more)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return [l.split("\t")[0] for l in done.stdout.splitlines()]


def run_zsh(signalbox, room, commands, **more):
    """The script's functions, called outside of zsh's own machinery: `compadd` and `_arguments` tell what they were given."""
    need("zsh")
    script = 'eval "$(cat)"; compadd() { print -rl -- $found }; _arguments() { print -rl -- "$@" }\n' + commands
    done = subprocess.run(["zsh", "-f", "-c", script], input=signalbox("completion", "zsh").stdout, cwd=room, capture_output=True, text=True, timeout=DEADLINE, **more)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()


EVIL = ["git:h/$(touch${IFS}x)", "`touch${IFS}x`", "a;touch${IFS}x", "${x:=$(touch${IFS}x)}", "*", "'", '"', "-rf"]
LISTS = {
    "secret ls": "git:github.com/acme\tPAT\tfile\tnow\n" + "".join(f"{e}\tPAT\tfile\tnow\n" for e in EVIL),
    "token ls": "t-1\tci\tdefault\tvalid\n" + "".join(f"t-2\t{e}\tdefault\tvalid\n" for e in EVIL),
    "context ls": "*\twork\thttps://one.example\n\thome\thttps://two.example\n" + "".join(f"\t{e}\thttps://evil.example\n" for e in EVIL),
    "ls": "01kaexample\tT-1\tDONE\tdone\n" + "".join(f"01kaexamplf\t{e}\tDONE\tdone\n" for e in EVIL),
    "gates": "01kagate\tT-1\tcommand\n" + "".join(f"01kagatf\t{e}\tcommand\n" for e in EVIL),
}


@pytest.fixture
def lists(room):
    """An environment in which `signalbox` lists names that others chose."""
    stub = os.path.join(room, "bin", "signalbox")
    os.mkdir(os.path.dirname(stub))
    with open(stub, "w") as f:
        f.write('#!/bin/sh\nexec cat "$(dirname "$0")/$*"\n')
    os.chmod(stub, 0o755)
    for words, text in LISTS.items():
        with open(os.path.join(room, "bin", words), "w") as f:
            f.write(text)
    return {**os.environ, "HOME": room, "PATH": os.path.dirname(stub) + ":" + os.environ["PATH"]}


@pytest.mark.parametrize("line,offered", [
    ("signalbox secret rm ", {"git:github.com/acme"}), ("signalbox secret rm git:", {"git:github.com/acme"}), ("signalbox secret rm P", set()), ("signalbox token revoke ", {"t-1", "ci", "t-2"}),
    ("signalbox context use ", {"work", "home"}), ("signalbox --quiet context rm h", {"home"}), ("signalbox show ", {"01kaexample", "T-1", "01kaexamplf"}), ("signalbox rm T", {"T-1"}), ("signalbox approve 01kagate", {"01kagate"})])
def test_bash_offers_names_that_others_chose_and_never_runs_what_stands_in_them(room, lists, line, offered):
    assert set(complete_bash(room, line, env=lists)) == offered
    assert not os.path.exists(os.path.join(room, "x"))


def test_fish_and_zsh_offer_names_that_others_chose_and_never_run_what_stands_in_them(signalbox, room, lists):
    need("fish")
    expected = {"01kaexample", "T-1", "01kaexamplf"}
    assert expected == set(complete_fish(signalbox, room, "signalbox show ", env=lists))
    assert expected == set(run_zsh(signalbox, room, "_signalbox_list ls", env=lists))
    assert not os.path.exists(os.path.join(room, "x"))


@pytest.mark.parametrize("line,verbs", [("signalbox secret rm ", "set ls rm"), ("signalbox context rm ", "ls use rm"), ("signalbox --server x server start ", "status start stop reload")])
def test_a_commands_verb_is_not_taken_for_the_command_of_that_name(signalbox, room, lists, line, verbs):
    words = line.split(" ")
    given = run_zsh(signalbox, room, f"words=({' '.join(w or chr(39) * 2 for w in words)}); CURRENT={len(words)}; _signalbox", env=lists)
    assert f"2: :({verbs})" in given and not any("_signalbox_list" in g for g in given) and not any(g.startswith("--agent") for g in given)
    offered = complete_fish(signalbox, room, line, env=lists)
    assert "T-1" not in offered
    assert "--force" not in complete_fish(signalbox, room, line + "--f", env=lists) and "--agent" not in complete_fish(signalbox, room, line + "--a", env=lists)


def test_fish_and_zsh_know_the_command_behind_options_with_values(signalbox, room, lists):
    assert "T-1" in complete_fish(signalbox, room, "signalbox --server secret rm ", env=lists)
    given = run_zsh(signalbox, room, "words=(signalbox --server secret rm ''); CURRENT=5; _signalbox", env=lists)
    assert "*: :{_signalbox_list ls}" in given


@pytest.mark.parametrize("line,offered", [
    ("signalbox con", ["context", "config"]), ("signalbox ls --se", ["--search", "--server"]), ("signalbox --json ls --lab", ["--label"]), ("signalbox help atta", ["attach"]),
    ("signalbox run --mode ", ["code", "ask", "plan"]), ("signalbox start --approvals ", ["always", "on-request", "never"]), ("signalbox wait --for ", ["terminal", "gate"]), ("signalbox ls --state DO", ["DONE"]),
    ("signalbox server ", ["status", "start", "stop", "reload"]), ("signalbox secret ", ["set", "ls", "rm"]), ("signalbox completion z", ["zsh"])])
def test_bash_offers_what_can_follow(room, line, offered):
    assert set(offered) <= set(complete_bash(room, line))


@pytest.mark.parametrize("line,offered", [("signalbox con", ["context", "config"]), ("signalbox ls --lab", ["--label"]), ("signalbox server --ru", ["--runs", "--runtime"]),
                                          ("signalbox run --mode ", ["code", "ask", "plan"]), ("signalbox server ", ["status", "start", "stop", "reload"])])
def test_fish_offers_what_can_follow(signalbox, room, line, offered):
    assert set(offered) <= set(complete_fish(signalbox, room, line))


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
