"""Two hundred tasks with real runners and walls, eight at a time."""
import os
import threading

import pytest
from e2e_site import proc_text, processes, wait_for

MANY = int(os.environ.get("SIGNALBOX_MANY", "200"))
CAP = 8


class Watch:
    """The highest number of this site's runners that were seen alive at once, and of agents."""

    def __init__(self, site):
        self.site, self.most, self.stopped = site, 0, threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        # The server's own children only: a runner's stages are copies of it with the same words.
        needle, parent = str(self.site.data).encode(), str(self.site.server.pid).encode()
        while not self.stopped.wait(0.01):
            alive = 0
            for pid in processes():
                words = proc_text(pid, "cmdline")
                stat = proc_text(pid, "stat").rsplit(b")", 1)[-1].split()
                alive += b"signalbox-runner" in words and needle in words and stat[:1] not in ([], [b"Z"]) and stat[1] == parent
            self.most = max(self.most, alive)

    def close(self):
        self.stopped.set()
        self.thread.join()
        return self.most


def overlap(intervals):
    """How many of the intervals were open at once at most."""
    marks = sorted([(begin, 1) for begin, _ in intervals] + [(end, -1) for _, end in intervals])
    now = most = 0
    for _, step in marks:
        now += step
        most = max(most, now)
    return most


def everything(site):
    """The events of all tasks in the order in which they were committed: several may bear one millisecond."""
    after = "0"
    while after is not None:
        page = site.get(f"/v1/events?after={after}&limit=1000")
        yield from page["data"]
        after = page["next_cursor"]


def test_two_hundred_tasks_run_to_their_end_eight_at_a_time_by_priority_and_leave_nothing(new_site):
    site = new_site(model=False, config={"limits": {"running": CAP, "running_per_repository": 100}})
    repo = site.path("repo")
    site.sh("echo a > a.txt; git init -q; git add -A; git commit -qm x", repo)
    # Eight that hold all places until everything is queued.
    holders = [site.submit("until [ -e ~/go ]; do sleep 0.05; done") for _ in range(CAP)]
    for id in holders:
        wait_for("the holders", lambda: site.task(id)["phase"] == "running")
    ids, priority = [], {}
    for n in range(MANY):
        source = {"kind": "local", "dir": str(repo)} if n % 4 == 0 else {"kind": "none"}
        id = site.submit(f"echo {n}; date +%s.%N; echo {n} > made{n}.txt; date +%s.%N", source, priority=n % 5, labels={"n": str(n)})
        ids.append(id)
        priority[id] = n % 5
    assert {site.task(id)["status"] for id in ids} == {"QUEUED"}
    watch = Watch(site)
    for id in holders:
        site.release(id)
    tasks = [site.wait(id, 300) for id in ids]
    most = watch.close()
    assert {t["status"] for t in tasks} == {"DONE"}, [site.story(t["id"]) for t in tasks if t["status"] != "DONE"][:1]
    for n, task in enumerate(tasks):
        assert [f["path"] for f in task["result"]["files"]] == [f"made{n}.txt"]

    # Places: by the record, a run holds one from its claim to its end.
    spans = []
    for id in holders + ids:
        events = site.events(id)
        assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
        at = {e["type"]: e["at"] for e in events}
        spans.append((at["task.claimed"], at["task.done"]))
    assert overlap(spans) <= CAP
    assert 1 < most <= CAP, most

    # Priorities: nobody is claimed while somebody more important waits; all were queued before the first claim.
    claims = [e["task"] for e in everything(site) if e["type"] == "task.claimed" and e["task"] in priority]
    order = [priority[id] for id in claims]
    assert len(order) == MANY and order == sorted(order, reverse=True)
    # ... and who is equally important is served in the order of asking.
    for p in range(5):
        mine = [id for id in claims if priority[id] == p]
        assert mine == sorted(mine, key=ids.index)
    site.assert_clean()


def test_one_repository_does_not_take_all_places(new_site):
    site = new_site(model=False, config={"limits": {"running": 4, "running_per_repository": 2}})
    repo = site.path("repo")
    site.sh("echo a > a.txt; git init -q; git add -A; git commit -qm x", repo)
    held = "until [ -e ~/go ]; do sleep 0.05; done"
    same = [site.submit(held, {"kind": "local", "dir": str(repo)}) for _ in range(4)]
    other = site.submit(held)
    wait_for("the other repository's task", lambda: site.task(other)["phase"] == "running")
    wait_for("two of the first", lambda: sum(site.task(id)["phase"] == "running" for id in same) == 2)
    assert [site.task(id)["status"] for id in same] == ["RUNNING", "RUNNING", "QUEUED", "QUEUED"]
    for id in same:
        wait_for("its turn", lambda: site.task(id)["phase"] == "running")
        site.release(id)
        site.wait(id)
    site.release(other)
    site.wait(other)


@pytest.mark.parametrize("count", [20])
def test_tasks_that_are_submitted_all_at_once_are_all_taken(new_site, count):
    site = new_site(model=False)
    ids, threads = [], [threading.Thread(target=lambda n=n: ids.append(site.submit(f"echo {n}"))) for n in range(count)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(set(ids)) == count
    assert {site.wait(id)["status"] for id in ids} == {"DONE"}
