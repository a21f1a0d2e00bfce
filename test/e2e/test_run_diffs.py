"""The task's diff is always against the code it began with; each run's own part is kept beside it."""


def say(site, task, text):
    status, _ = site.call("POST", f"/v1/tasks/{task}/messages", {"text": text})
    assert status == 202
    end = site.wait(task)
    assert end["status"] == "DONE", site.story(task)
    return end


def own(site, task, n):
    return (site.run_dir(task, n) / "diff.patch").read_bytes()


def test_each_run_keeps_its_own_changes_and_the_task_has_them_all(site):
    repo = site.path("turns")
    site.sh("git init -qb main; printf 'a\\nb\\n' > kept.txt; echo old > gone.txt; git add -A; git -c user.name=t -c user.email=t@t commit -qm first", repo)
    task = site.run("echo one > one.txt; printf 'a\\nB\\n' > kept.txt", {"kind": "local", "dir": str(repo)})["id"]
    say(site, task, "echo two > two.txt; rm gone.txt; printf '\\0\\1' > blob")
    say(site, task, "mv two.txt three.txt; mkdir -p one; rm one.txt; echo x > one/deep.txt; chmod +x kept.txt")
    for n, has, hasnot in ((1, [b"/one.txt", b"kept.txt"], [b"two.txt"]), (2, [b"two.txt", b"gone.txt", b"blob"], [b"/one.txt", b"kept.txt"]),
                           (3, [b"three.txt", b"one/deep.txt", b"new mode 100755"], [b"gone.txt", b"blob"])):
        text = own(site, task, n)
        assert all(word in text for word in has) and not any(word in text for word in hasnot), (n, text)
        status, got = site.call("GET", f"/v1/tasks/{task}/diff?run={n}")
        assert status == 200 and (got if isinstance(got, bytes) else got.encode()) == text
    trees = []
    for patches in ([site.patch(task)], [own(site, task, n) for n in (1, 2, 3)]):
        clone = site.path(f"applied{len(patches)}")
        site.sh(f"git clone -q {repo} .", clone)
        for i, patch in enumerate(patches):
            (site.dir / f"{i}.patch").write_bytes(patch)
            site.sh(f"git apply --index --binary {site.dir}/{i}.patch", clone)
        trees.append(site.sh("git write-tree", clone).strip())
    assert trees[0] == trees[1] == site.task(task)["result"]["tree"]
    assert site.get(f"/v1/tasks/{task}/runs")["data"][-1]["result"]["own"]["files"] == 4
    stat = site.cli("diff", task, "--run", "2", "--stat").stdout
    assert "two.txt" in stat and "gone.txt" in stat and "Bin" in stat and " one.txt" not in stat and " 3 files changed, 1 insertion(+), 1 deletion(-)" in stat
    assert b"three.txt" in site.cli("diff", task, "--run", "3").stdout.encode() and "gone.txt" not in site.cli("diff", task, "--run", "3").stdout


def test_a_run_whose_predecessor_handed_in_nothing_says_what_it_knows(site):
    task = site.run("echo one > one.txt")["id"]
    (site.run_dir(task, 1) / "task.patch").unlink()
    say(site, task, "echo two > two.txt")
    assert b"one.txt" in own(site, task, 2) and b"two.txt" in own(site, task, 2)
