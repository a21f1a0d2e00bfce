"""README and doc/: the commands that they show exist with the options that they show, and what they point to is there."""
import pathlib
import re
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "doc").glob("*.md"))]


def lines_of_code(text):
    """What is indented, in a fence, or between back ticks: lines of code with their end cut at a comment."""
    text = text.replace("\\\n", " ")
    code = re.findall(r"^    (.*)$", text, re.M) + "\n".join(re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.M | re.S)).split("\n") + re.findall(r"`([^`\n]+)`", text)
    return [re.split(r"\s#\s", line)[0] for line in code]


def uses(text):
    """(command, its words) of each call of the program in them."""
    for line in lines_of_code(text):
        for part in re.split(r";|&&|\|\||\s\|\s", line):
            place = re.search(r"(?:^|\s|/)signalbox\s+([a-z]+)\b(.*)", part.strip())
            if place:
                yield place[1], place[2]


def options_of(signalbox, command):
    text = signalbox("help", command).stdout
    return set(re.findall(r"^\s+(?:-\w, )?(--[a-z-]+)", text, re.M)) | set(re.findall(r"^\s+(-\w), --", text, re.M))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_each_command_that_is_shown_exists_with_its_options(signalbox, page):
    known, seen = {}, 0
    for command, rest in uses(page.read_text()):
        if command not in known:
            known[command] = options_of(signalbox, command)
        assert known[command], f"signalbox {command}"
        words = re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", re.sub(r"\"[^\"]*\"|'[^']*'", "", rest.split(" -- ")[0]))
        wrong = [w for w in words if w not in known[command]]
        assert not wrong, f"signalbox {command}{rest}: {wrong}"
        seen += 1
    assert seen or page.name in ("streams.md", "channel.md", "performance.md"), "no command was found"


def configurations():
    for page in PAGES:
        for block in map(textwrap.dedent, re.findall(r"(?:^    .*\n)+", page.read_text(), re.M)):
            if re.match(r"(model|agents|environments|source|limits|server):", block):
                yield pytest.param(block, id=f"{page.stem}: {block.split(':')[0]}")


@pytest.mark.parametrize("text", configurations())
def test_each_configuration_that_is_shown_is_taken(signalbox, room, text):
    path = pathlib.Path(room, "config.yaml")
    path.write_text(text)
    found = [line.split("\t") for line in signalbox("doctor", env={"SIGNALBOX_CONFIG": str(path), "SIGNALBOX_AUTOSTART": "false"}).stdout.splitlines() if "\tsettings\t" in line]
    assert found and found[0][0] == "ok", found


@pytest.mark.parametrize("page", [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "STYLE.md"], ids=lambda p: p.name)
def test_what_a_page_points_to_is_there(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert re.match("https?://", target) or (page.parent / target).exists(), target
    for target in re.findall(r"\b(?:doc|deploy|test/data|tools|bench)/[\w./-]*\w", text):
        assert (ROOT / target).exists(), target


def test_the_index_has_every_page():
    text = (ROOT / "doc/README.md").read_text()
    for path in (ROOT / "doc").iterdir():
        assert path.is_dir() or path.name == "README.md" or f"({path.name})" in text, path.name


def test_each_make_target_that_is_shown_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    shown = {w for p in (ROOT / "README.md", ROOT / "doc/performance.md") for line in lines_of_code(p.read_text()) for w in re.findall(r"^make ([a-z-]+)", line)}
    assert {"demo", "test", "install", "bench", "fault", "fuzz"} <= shown <= targets, shown - targets


def test_setup_installs_what_the_tests_import():
    files = [p for top in ("test", "bench") for p in (ROOT / top).rglob("*.py") if "node_modules" not in p.parts]
    names = {word.strip().split(".")[0].split(" ")[0] for p in files for line in re.findall(r"^\s*import ([\w., ]+)$|^\s*from ([\w.]+) import ", p.read_text(), re.M)
             for word in "".join(line).split(",")}
    foreign = names - sys.stdlib_module_names - {p.stem for p in files}
    text = (ROOT / "tools/setup").read_text()
    assert {"pytest", "jsonschema"} <= foreign and not [n for n in foreign if f"python3-{n}" not in text], foreign
