"""What the struck agents do.  All of them count aloud; the count is also written where the lab can read it without Signalbox: in the
agent's home.  A lock in the home tells when two of them are in one workspace."""

GUARD = "exec 9>>/home/agent/lock; flock -n 9 || echo double >> /home/agent/double; echo start >> /home/agent/numbers; "
ENDLESS = "while :; do sleep 1; done"


def numbered(lines=60, every=6, pause=0.03, before="", after="echo made > made.txt"):
    count = f"i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo $i >> /home/agent/numbers; echo line $i; [ $((i % {every})) = 0 ] && sleep {pause}; done; "
    return GUARD + before + count + after


def family(lines=40):
    """Children that left the session, ignore TERM and keep the lock."""
    kids = "for k in 1 2 3; do (setsid sh -c 'trap \"\" TERM INT HUP; sleep 3600' </dev/null >/dev/null 2>&1 &); done; trap '' TERM INT HUP; "
    return numbered(lines, before=kids)


def stubborn(lines=20):
    """Says its lines, then neither ends nor listens."""
    return numbered(lines, before="trap '' TERM INT HUP; (setsid sh -c 'trap \"\" TERM INT; sleep 3600' >/dev/null 2>&1 &); ", after=ENDLESS)


def flood(lines):
    return f"seq -f 'line %.0f' 1 {lines}; echo made > made.txt"


MEMORY = "echo line 1; tail /dev/zero"
FORKS = "echo line 1; f() { f | f & }; f 2>/dev/null; sleep 0.3; exit 0"
DISK = "echo line 1; head -c 3000000 /dev/zero > big; head -c 3000000 /dev/zero > big2; exit 0"
