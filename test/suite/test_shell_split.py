"""The splitter of command lines against real bash: where it is certain, bash runs those commands with those words."""

import json
import os
import random
import shutil
import subprocess

import pytest

BUILD = os.environ.get("SIGNALBOX_BUILD", os.path.join(os.path.dirname(__file__), "..", "..", "build"))
SPLIT = os.path.abspath(os.environ.get("SHELL_SPLIT", os.path.join(BUILD, "test", "shell_split")))
ROUNDS = int(os.environ.get("SHELL_SPLIT_ROUNDS", "3000"))
DEADLINE = 300  # seconds

# Every name that is no command is reported with its words; whatever else the line does, it does in an empty directory.
REPORTER = r"""
PATH=$1; HOME=/h; FUNCNEST=5; X='v w'; Y=; export X Y
exec 9>>"$2"
command_not_found_handle() { local words; printf -v words '%s\037' "$@"; printf '%s\036' "${words//$'\n'/$'\034'}" >&9; return 0; }
while IFS= read -r -d '' line; do
	(eval -- "$line"; wait) >/dev/null 2>&1 </dev/null 3>&-
	printf '\035' >&9
done
"""

PIECES = ["p", "q", "a", "ab", " ", " ", " ", "  ", "\t", "\n", "'", '"', "\\", "\\\n", "$", "$X", "$Y", '"$X"', "${X}", "$'", "\\x41", "\\101", "\\n", ";", "&", "|", "&&",
          "||", "|&", "#", "=", "+=", "{", "}", "(", ")", "~", "*", "?", "[", "]", "!", ",", "2>&1", ">/dev/null", ">&2", "2>", "<", "&>/dev/null", "-p", "time", "command", "1",
          "\u00a0", "\u2003", "\r", "\v", "\f", "\x01", "\u00e9", ":", "^", "%", "@", "$@", '"$@"', "$1", "$#", "$$", "`", "if", "then", "fi", "do", "in", "A=b", "--"]
WORDS = ["p", "q", "ab", "a b", "a'b", 'a"b', "$X", "\\", "a\nb", "", "*", "~", "#", "{}", "!", "=", "A=b", "-x", "&", "a;b", "\u00a0", "\t", "x=~", "a#b", "\r", "[", "[a", "]", "{", "}"]


def quote(rng, word):
    """One of the ways to write a word, whole or in parts."""
    if len(word) > 1 and rng.random() < 0.4:
        cut = rng.randrange(1, len(word))
        return quote(rng, word[:cut]) + rng.choice(["", "\\\n", "''", '""']) + quote(rng, word[cut:])
    how = rng.randrange(4)
    if how == 0 and "'" not in word:
        return "'" + word + "'"
    if how == 1:
        return '"' + "".join("\\" + c if c in '$`"\\' else c for c in word) + '"'
    if how == 2:
        return "$'" + "".join("\\x%02x" % b if b < 0x80 and rng.random() < 0.3 else "\\" + chr(b) if b in b"\\'" else chr(b) for b in word.encode("latin-1", "ignore")) + "'"
    return "".join("\\" + c if not c.isalnum() and c != "\n" else "'\n'" if c == "\n" else c for c in word) or "''"


def sensible_line(rng):
    parts = []
    for _ in range(rng.randrange(1, 5)):
        words = [rng.choice(["p", "q", "r", quote(rng, "pq")])] + [quote(rng, rng.choice(WORDS)) for _ in range(rng.randrange(0, 4))]
        if rng.random() < 0.2:
            words.insert(rng.randrange(len(words)), rng.choice(["2>&1", ">/dev/null", "2> /dev/null", "</dev/null", "&>/dev/null", ">&2"]))
        if rng.random() < 0.2:
            words.insert(0, rng.choice(["A=b", "B=$X", "!", "time", "command", "{", "A+=c", "time -p"]))
        if rng.random() < 0.3:
            words.append(rng.choice(["$X", '"$X"', "*.c", "a*", "{a,b}", "~/x", "x$X", "#c", "}", "a{,b}", "$Y", "[a]b"]))
        command = rng.choice([" ", "  ", "\t", " \\\n"]).join(words)
        parts.append(rng.choice([command, command, command, f"( {command} )", "{ " + command + "; }", f"({command})2>&1"]))
    return "".join(p + rng.choice(["; ", " && ", " | ", " & ", "\n", ";", "|", "\n\n", " |& ", " || ", " # c\n"]) for p in parts[:-1]) + parts[-1]


def wild_line(rng):
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 14)))


def split(lines):
    done = subprocess.run([SPLIT], input="".join(line + "\0" for line in lines).encode(), stdout=subprocess.PIPE, timeout=DEADLINE, check=True)
    return [json.loads(line) for line in done.stdout.decode("utf-8", "replace").splitlines()]


def run_in_bash(lines, room):
    record = os.path.join(room, "record")
    work = os.path.join(room, "work")
    os.makedirs(work, exist_ok=True)
    for name in ("a", "ab", "q"):
        open(os.path.join(work, name), "w").close()
    subprocess.run(["bash", "--norc", "-c", REPORTER, "reporter", os.path.join(room, "nothing"), record], cwd=work, input="".join(line + "\0" for line in lines).encode(),
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=DEADLINE)
    with open(record, "rb") as f:
        text = f.read().decode("utf-8", "replace").replace("\034", "\n")  # a newline would make two writes of one
    return [[command.split("\037")[:-1] for command in line.split("\036")[:-1]] for line in text.split("\035")[:-1]]


def fits(words, ran):
    """The words of a certain command against those that bash gave: open words may be others."""
    if not words:
        return not ran
    w, begins = words[0], bool(ran) and ran[0].startswith(words[0]["begins"])
    if w["open"] == 2:
        return any(fits(words[1:], ran[n:]) for n in range(0 if not w["begins"] else 1 if begins else len(ran) + 1, len(ran) + 1))
    return begins and (w["open"] == 1 or ran[0] == w["text"]) and fits(words[1:], ran[1:])


def is_reported(words):
    return words and words[0]["text"] not in ("[", ":", "command") and "/" not in words[0]["text"]


def pair(told, ran):
    """What is left of told when each command that ran has found its own; None when one finds none."""
    if not ran:
        return told
    for i, words in enumerate(told):
        if fits(words, ran[0]):
            left = pair(told[:i] + told[i + 1:], ran[1:])
            if left is not None:
                return left
    return None


def difference(line, told, ran):
    """None when what bash ran is what was told."""
    told = [c["words"][c["assigns"]:] for c in told["commands"]]
    left = pair([words for words in told if is_reported(words)], ran)
    if left is None:
        return f"bash ran {ran}"
    if left and not any(part in line for part in ("||", "!", "[")):  # what fails may keep the next from running
        return f"bash did not run {[[w['text'] for w in words] for words in left]}"
    return None


@pytest.fixture
def room(tmp_path):
    yield str(tmp_path)
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.parametrize("make, least", [(sensible_line, 0.3), (wild_line, 0.02)])
def test_bash_runs_the_commands_that_a_certain_split_tells(room, make, least):
    seed = int(os.environ.get("SHELL_SPLIT_SEED", "20261120"))
    rng = random.Random(seed)
    lines = [make(rng) for _ in range(ROUNDS)]
    told = split(lines)
    assert len(told) == len(lines)
    certain = [(line, t) for line, t in zip(lines, told) if not t.get("why")]
    ran = run_in_bash([line for line, _ in certain], room)
    assert len(ran) == len(certain)
    wrong = [(line, [[w["text"] for w in c["words"]] for c in t["commands"]], d) for (line, t), r in zip(certain, ran) for d in [difference(line, t, r)] if d]
    assert not wrong[:5], f"{len(wrong)} of {len(certain)} certain lines (seed {seed})"
    assert len(certain) >= least * len(lines)  # it is of use only when it is often certain


RECORDER = r"""#!/bin/sh
printf '%s\037' "${0##*/}" "$@" "$(printf '\036')" >> "$RECORD"
"""
NAMES = {"p", "q", "pq", "r", "a", "ab"}


@pytest.fixture
def recorders(room):
    os.makedirs(os.path.join(room, "bin"))
    for name in NAMES:
        with open(os.path.join(room, "bin", name), "w") as f:
            f.write(RECORDER)
        os.chmod(f.name, 0o755)
    return os.path.join(room, "bin")


def run_with_recorders(shell, line, recorders, room):
    record = os.path.join(room, "record")
    if os.path.exists(record):
        os.unlink(record)
    subprocess.run([shell, "-c", line + "\nwait"], cwd=room, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=DEADLINE,
                   env={"PATH": recorders, "HOME": "/h", "X": "v w", "Y": "", "RECORD": record})
    if not os.path.exists(record):
        return []
    with open(record, "rb") as f:
        return [command.split("\037")[:-1] for command in f.read().decode("utf-8", "replace").split("\036\037")[:-1]]


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_string_of_a_shell_is_read_as_that_shell_does(room, recorders, shell):
    rng = random.Random(4711)
    lines = [(sensible_line if rng.random() < 0.7 else wild_line)(rng) for _ in range(ROUNDS // 6)]
    told = split([shell + " -c '" + line.replace("'", "'\\''") + "'" for line in lines])
    wrong = []
    for line, t in zip(lines, told):
        if t.get("why"):
            continue
        commands = [c["words"][c["assigns"]:] for c in t["commands"]]
        commands = [words for words in commands if words and words[0]["text"] in NAMES]
        left = pair(commands, run_with_recorders("/bin/" + shell, line, recorders, room))
        if left is None or (left and not any(part in line for part in ("||", "&&", "!", "["))):
            wrong.append((line, commands))
    assert not wrong[:5]
    assert sum(not t.get("why") for t in told) > len(told) // 10
