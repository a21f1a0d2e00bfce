"""The floors of the house: includes go down only, rooms of one floor do not see each other, backend.h stays in its room,
every header compiles alone, and files and functions keep their limits."""
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
FLOORS = [["base"], ["net"], ["db", "queue", "store", "exec", "agent", "sandbox", "source", "model"], ["core"], ["runner", "gateway", "api"], ["cli"]]
LEVEL = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
FILE_LINES, FUNCTION_LINES = 600, 70
GENERATED = {"version.h", "seccomp_program.h"}


def includes():
    wrong = []
    for path in sorted(SRC.rglob("*.[ch]")):
        room = path.relative_to(SRC).parts[0]
        for target in re.findall(r'^#include "([^"]+)"', path.read_text(), re.M):
            there = target.split("/")[0]
            if there not in LEVEL:
                wrong.append(f"{path}: includes '{target}', which names no room")
            elif there != room and LEVEL[there] >= LEVEL[room]:
                wrong.append(f"{path}: {room} may not see {there} ({target})")
            elif target.endswith("/backend.h") and there != room:
                wrong.append(f"{path}: {target} is {there}'s own")
    return wrong


def headers_alone():
    headers = [h for h in sorted(SRC.rglob("*.h"))]
    with tempfile.TemporaryDirectory() as tmp:
        source = pathlib.Path(tmp) / "one.c"
        wrong = []
        for header in headers:
            source.write_text(f'#include "{header.relative_to(SRC)}"\n')
            done = subprocess.run(["cc", "-std=gnu17", "-D_GNU_SOURCE", f"-I{SRC}", "-fsyntax-only", str(source)], capture_output=True, text=True)
            if done.returncode:
                wrong.append(f"{header}: does not compile alone: {done.stderr.splitlines()[0]}")
    return wrong


def sizes():
    wrong = []
    for path in sorted(SRC.rglob("*.c")):
        lines = path.read_text().splitlines()
        if len(lines) > FILE_LINES:
            wrong.append(f"{path}: {len(lines)} lines, at most {FILE_LINES}")
        start = None
        for i, line in enumerate(lines, 1):
            if line.startswith("{"):
                start = i
            elif line.startswith("}") and start:
                if i - start > FUNCTION_LINES:
                    wrong.append(f"{path}:{start}: a function of {i - start} lines, at most {FUNCTION_LINES}")
                start = None
        if not lines or not lines[0].startswith("/*"):
            wrong.append(f"{path}: does not begin by saying what it is for")
    return wrong


if __name__ == "__main__":
    found = includes() + headers_alone() + sizes()
    print("\n".join(found) or "the floors hold")
    sys.exit(1 if found else 0)
