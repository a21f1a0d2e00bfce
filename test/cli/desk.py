"""A program at a terminal, and somebody who types there."""

import codecs
import contextlib
import os
import pty
import re
import select
import subprocess
import termios
import time

COLOURS = re.compile(r"\x1b\[[0-9;]*[mK]")
DEADLINE = 180  # seconds for the next words to come


class Desk:
    """A child whose standard input, output and error are one terminal, and somebody who types there."""

    def __init__(self, argv, env, cwd, **more):
        self.master, slave = pty.openpty()
        self.child = subprocess.Popen(argv, env={**env, "TERM": "xterm"}, cwd=cwd, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, **more)
        self.slave = slave
        self.text, self.raw, self.decoder = "", "", codecs.getincrementaldecoder("utf-8")()
        self.seen = 0

    def read(self):
        if not select.select([self.master], [], [], DEADLINE)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.raw += self.decoder.decode(data)
        self.text = COLOURS.sub("", self.raw)  # a piece may end within a character or a colour
        return bool(data)

    def until(self, words):
        """What stands between the last place and these words."""
        end = time.monotonic() + DEADLINE
        while words not in self.text[self.seen:] and time.monotonic() < end and self.read():
            pass
        assert words in self.text[self.seen:], self.text
        place = self.text.index(words, self.seen) + len(words)
        before, self.seen = self.text[self.seen:place], place
        return before

    def type(self, line):
        self.until("\n> ")
        os.write(self.master, line.encode())

    def echoes(self):
        return bool(termios.tcgetattr(self.slave)[3] & termios.ECHO)

    def finish(self):
        os.close(self.slave)
        while self.read():
            pass
        os.close(self.master)
        return self.child.wait(DEADLINE)


@contextlib.contextmanager
def desks(program, env, cwd, **more):
    """Gives desk(WORD...); whoever still sits at one when the test is over is sent home."""
    taken = []

    def start(*words):
        taken.append(Desk([str(program), *words], env, str(cwd), **more))
        return taken[-1]

    yield start
    for desk in taken:
        if desk.child.poll() is None:
            desk.child.kill()
            desk.child.wait()
