"""make fault N=1000: N rounds of faults against real servers, runners and agents, watched from outside.

    lab.py BUILD [--rounds N] [--seed S] [--fault NAME] [--jobs J] [--storm TASKS] [--stop]

Round i of a run with seed S has the seed S+i and draws everything from it: `--seed S+i --rounds 1` plays it again (with the same --fault options).  Ends with a table
(fault, rounds, violations) and with status 1 when an invariant did not hold."""
import argparse
import contextlib
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
STORM_FROM = 1000  # a run of so many rounds ends with the storm
STORM_TASKS = 2000


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("build")
    p.add_argument("--rounds", type=int, default=100)
    p.add_argument("--seed", type=int, default=None)
    p.add_argument("--fault", action="append", help="only this one (may be given again)")
    p.add_argument("--jobs", type=int, default=None, help="rounds at the same time; each has grounds of its own")
    p.add_argument("--storm", type=int, default=None, help="tasks of the storm at the end")
    p.add_argument("--stop", action="store_true", help="stop at the first violation")
    p.add_argument("--seconds", type=int, default=None, help="begin no round after so long")
    p.add_argument("--json", type=int, default=None, metavar="FD", help=argparse.SUPPRESS)  # one of several processes: the seeds come from there
    return p.parse_args()


class Lab:
    def __init__(self, faults, codex, stop=False, seconds=None, say=print):
        self.faults, self.codex, self.stop, self.say = faults, codex, stop, say
        self.until = time.monotonic() + seconds if seconds else None
        self.grounds, self.rows, self.violations = {}, {}, []

    def ground(self, kind, road):
        from observer import Observer
        from world import Ground
        key = (kind, road)
        if kind == "disk" and key in self.grounds and is_half_full(self.grounds[key][0].site.data):
            self.retire(key)  # filled by the tasks of many rounds: nothing would be started there
        if key not in self.grounds:
            ground = Ground(kind, road)
            self.grounds[key] = (ground, Observer(ground))
        return self.grounds[key]

    def drop(self, key):
        """A ground that is not to be trusted any more."""
        ground, observer = self.grounds.pop(key)
        observer.close()
        return ground.close()

    def draw(self, seed):
        from faults import FAULTS
        from world import IS_ROOT
        rng = random.Random(seed)
        names = sorted(self.faults)
        name = rng.choices(names, [FAULTS[n][1] for n in names])[0]
        road = rng.choice(("root", "root", "user")) if IS_ROOT and FAULTS[name][2] == "plain" else "root" if IS_ROOT else "user"
        return rng, name, road

    def play(self, seed):
        from check import Expect, check_left, check_task, need, settle
        from faults import FAULTS, Round
        from world import Violation
        rng, name, road = self.draw(seed)
        fault, _, kind = FAULTS[name]
        begun, wrong, notes, tasks = time.monotonic(), [], [], {}
        ground, observer = self.ground(kind, road)
        try:
            r = Round(ground, observer, rng)
            notes, tasks = r.notes, r.tasks
            fault(r)
            ground.ensure_up()
            ended = settle(ground, list(r.tasks))
            took = time.monotonic() - begun
            lag = observer.lag
            check_left(ground, set(r.tasks), lag)
            for id, task in ended.items():
                want = r.tasks[id] or Expect()
                check_task(ground, task, want)
                need(want.within_s is None or took <= want.within_s + 2 * lag, f"{id}: it took {took:.1f} s, expected at most {want.within_s}")
            ground.ensure_up()
        except Violation as e:
            wrong.append(str(e))
        except Exception:
            wrong.append("the lab itself failed: " + traceback.format_exc()[-1500:])
        wrong += observer.take()
        observer.forget(list(tasks))
        self.count(name, seed, road, wrong, notes, time.monotonic() - begun)
        if wrong:
            self.tell(ground, seed, name, wrong, tasks)
            self.drop((kind, road))
        return wrong

    def count(self, name, seed, road, wrong, notes, seconds):
        row = self.rows.setdefault(name, {"rounds": 0, "violations": 0, "seconds": 0.0})
        row["rounds"] += 1
        row["violations"] += len(wrong)
        row["seconds"] += seconds
        self.violations += [{"seed": seed, "fault": name, "text": w} for w in wrong]
        self.say(f"seed {seed}  {name} [{', '.join([road] + notes)}]  {'VIOLATED' if wrong else 'held'}  {seconds:.1f} s")

    def tell(self, ground, seed, name, wrong, tasks):
        for w in wrong:
            self.say(f"  seed {seed}: {name}: {w}")
        named = [id for id in tasks if any(id in w for w in wrong)][:1]
        for id in named:
            self.say("    " + ground.site.story(id)[-6000:].replace("\n", "\n    "))

    def run(self, seeds):
        for seed in seeds:
            if self.until and time.monotonic() > self.until:
                self.say("time is up")
                break
            if self.play(seed) and self.stop:
                break

    def storm(self, seed, tasks):
        """Many short tasks through the cap while runners, agents and the server are killed: every one ends once."""
        from storm import storm
        begun = time.monotonic()
        ground, observer = self.ground("plain", "root" if os.geteuid() == 0 else "user")
        wrong, notes = storm(ground, observer, random.Random(seed), tasks)
        self.count(f"storm of {tasks} tasks", seed, "", wrong, notes, time.monotonic() - begun)
        for w in wrong:
            self.say(f"  seed {seed}: storm: {w}")

    def retire(self, key):
        """The end of a ground: all that it ever acknowledged is there, and nothing is left behind."""
        ground = self.grounds[key][0]
        try:
            lost = [id for id in ground.acked if ground.try_call("GET", f"/v1/tasks/{id}")[0] != 200]
        except Exception as e:
            lost = [str(e)]
        problems = [f"acknowledged and gone: {lost[:5]}"] * bool(lost) + self.drop(key)
        for p in problems:
            self.say(f"  at the end of {key}: {p}")
            self.violations.append({"seed": None, "fault": "end", "text": p})
            self.rows.setdefault("the end", {"rounds": 1, "violations": 0, "seconds": 0.0})["violations"] += 1

    def close(self):
        for key in list(self.grounds):
            self.retire(key)


def is_half_full(directory):
    disk = os.statvfs(directory)
    return disk.f_bavail * 2 < disk.f_blocks


def table(rows):
    width = max([len(n) for n in rows] + [5])
    lines = [f"{'fault':<{width}}  rounds  violations  seconds"]
    lines += [f"{n:<{width}}  {rows[n]['rounds']:>6}  {rows[n]['violations']:>10}  {rows[n]['seconds']:>7.0f}" for n in sorted(rows)]
    total = {k: sum(r[k] for r in rows.values()) for k in ("rounds", "violations", "seconds")}
    return "\n".join(lines + [f"{'all':<{width}}  {total['rounds']:>6}  {total['violations']:>10}  {total['seconds']:>7.0f}"])


def merge(into, rows):
    for name, row in rows.items():
        have = into.setdefault(name, {"rounds": 0, "violations": 0, "seconds": 0.0})
        for k, v in row.items():
            have[k] += v


def seeds_from(fd):
    while len(data := os.read(fd, struct.calcsize("q"))) == struct.calcsize("q"):
        yield struct.unpack("q", data)[0]


def run_jobs(args, seed, jobs):
    """The rounds are played by several processes, each of which takes the next seed from a pipe; their tables are added up."""
    seeds, source = os.pipe()
    argv = [sys.executable, __file__, args.build, "--json", str(seeds), *(w for f in args.fault or [] for w in ("--fault", f))]
    argv += ["--stop"] * args.stop + (["--seconds", str(args.seconds)] if args.seconds else [])
    children = [subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, pass_fds=[seeds]) for _ in range(jobs)]
    os.close(seeds)
    with os.fdopen(source, "wb") as f, contextlib.suppress(BrokenPipeError):
        for i in range(args.rounds):
            f.write(struct.pack("q", seed + i))
    rows, violations = {}, []
    for child in children:
        last = child.communicate()[0].strip().split("\n")[-1]
        try:
            done = json.loads(last)
        except ValueError:
            done = {"rows": {}, "violations": [{"seed": None, "fault": "lab", "text": f"a process of the lab ended with status {child.returncode}"}]}
        merge(rows, done["rows"])
        violations += done["violations"]
    return rows, violations


def own_mounts():
    """As root: mounts are ours alone, so that no other process of the machine sees the small disk, or is seen through it."""
    if os.geteuid() == 0 and not os.environ.get("SIGNALBOX_LAB_MOUNTS"):
        os.environ["SIGNALBOX_LAB_MOUNTS"] = "own"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])


def main():
    args = arguments()
    own_mounts()
    os.environ["SIGNALBOX_BUILD"] = str(pathlib.Path(args.build).resolve())
    sys.path.insert(0, str(HERE))
    from faults import FAULTS, is_possible
    from e2e_site import CODEX
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1, 1 << 31)
    jobs = args.jobs or max(1, min(3, args.rounds // 20))
    talk = (lambda text: print(text, file=sys.stderr, flush=True))
    faults = [n for n in args.fault or FAULTS if is_possible(n, CODEX.exists())]
    if args.json is None:
        print(f"fault lab: {args.rounds} rounds, seed {seed}", flush=True)
    if jobs > 1 and args.json is None:
        rows, violations = run_jobs(args, seed, jobs)
    else:
        lab = Lab(faults, CODEX.exists(), args.stop, args.seconds, talk)
        try:
            lab.run(range(seed, seed + args.rounds) if args.json is None else seeds_from(args.json))
        finally:
            lab.close()
        rows, violations = lab.rows, lab.violations
    storm = args.storm if args.storm is not None else STORM_TASKS if args.rounds >= STORM_FROM else 0
    if storm and args.json is None:
        lab = Lab(faults, False, say=talk)
        try:
            lab.storm(seed, storm)
        finally:
            lab.close()
        merge(rows, lab.rows)
        violations += lab.violations
    if args.json is not None:
        print(json.dumps({"rows": rows, "violations": violations}))
    else:
        print(table(rows))
        for v in violations:
            print(f"seed {v['seed']}: {v['fault']}: {v['text'][:300]}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
