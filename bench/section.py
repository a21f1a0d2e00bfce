"""doc/performance.md has a part per program that measures; each writes its own and leaves the others alone."""

import os
import subprocess
import time

DOC = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "doc/performance.md")


def mark(name, end=False):
    return f"<!-- {'end of ' if end else ''}{name} -->"


def write(name, lines, doc=DOC):
    try:
        with open(doc) as f:
            text = f.read()
    except FileNotFoundError:
        text = "# Performance\n"
    part = "\n".join([mark(name), *lines, mark(name, True)]) + "\n"
    begin, end = text.find(mark(name)), text.find(mark(name, True))
    if begin >= 0 and end >= 0:
        text = text[:begin] + part + text[end + len(mark(name, True)) + 1:]
    else:
        text = text.rstrip("\n") + "\n\n" + part
    with open(doc, "w") as f:
        f.write(text)


def machine():
    with open("/etc/os-release") as f:
        name = next((line.split("=")[1].strip().strip('"') for line in f if line.startswith("PRETTY_NAME")), "Linux")
    return f"{os.cpu_count()} cores, {name.split(' (')[0].replace('GNU/Linux ', '')}"


def file_system(path):
    return subprocess.run(["stat", "-f", "-c", "%T", path], check=True, stdout=subprocess.PIPE).stdout.decode().strip()


def when(place, load):
    busy = f", with others at work on it (load {load:.1f}): only the ratios say anything" if load > os.cpu_count() / 2 else f", load {load:.1f} when it began"
    return f"Measured {time.strftime('%Y-%m-%d', time.gmtime())} on {machine()}, data on {place}{busy}."


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + ["| " + " | ".join(str(c) for c in row) + " |" for row in rows]


def short(x):
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}"


def thousands(x):
    return f"{x / 1e6:.2f}M" if x >= 1e6 else f"{x / 1e3:.1f}k" if x >= 1e3 else f"{x:.0f}"


def quartiles(values):
    """Median and quartiles, by the nearest sample."""
    v = sorted(values)
    at = [v[min(len(v) - 1, int(len(v) * q))] for q in (0.25, 0.5, 0.75)]
    return at[1], at[0], at[2]
