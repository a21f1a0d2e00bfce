"""Two projects on one server: what belongs to one does not exist for the other, nor for the owner's own, on whatever way they ask."""
import contextlib
import json
import pathlib

import pytest
from e2e_site import bytes_of, file_url, files_below, wait_for
from git_servers import TOKEN, GitHttp, make_certificate
from projects_site import ASKS, Project, port_of

SITE = {"model": False, "listen": "127.0.0.1:0"}


@pytest.fixture
def two(site):
    """The projects `alpha` and `beta`."""
    pair = Project(site, "alpha"), Project(site, "beta")
    yield pair
    for one in (*pair, Project(site)):
        one.remove_tasks()


def test_a_task_is_its_projects_alone(site, two):
    alpha, beta = two
    task = alpha.run("echo seen > made.txt", name="T-1")
    assert alpha.get(f"/v1/tasks/{task['id']}")["project"] == "alpha"
    for other in (beta, Project(site)):
        for ref in (task["id"], task["id"][:20], "T-1"):
            status, problem = other.ask("GET", f"/v1/tasks/{ref}")
            assert status == 404 and problem["code"] == "not_found", (ref, problem)
        assert other.get("/v1/tasks")["data"] == []
    status, problem = site.call("GET", f"/v1/tasks/{task['id']}")
    assert status == 404, problem
    assert [t["id"] for t in alpha.get("/v1/tasks")["data"]] == [task["id"]]


# --- every route

ID = "01arz3ndektsv4rrffq69g5fav"  # nobody's
NOTHING = {"task": ID, "upload": ID, "gate": ID, "run": f"{ID}.main.1"}
BEAT = {"type": "heartbeat", "taskId": "E-1", "sessionId": "s"}

# What is sent to each route, and what its own project is answered when {task} and the like are its own.  A route that is not here fails the test.
ROUTES = {
    ("POST", "/v1/tasks"): ({"prompt": "true", "agent": "command"}, 201), ("GET", "/v1/tasks"): (None, 200),
    ("GET", "/v1/tasks/{task}"): (None, 200), ("PATCH", "/v1/tasks/{task}"): ({"labels": {"a": "b"}}, 200), ("DELETE", "/v1/tasks/{task}"): (None, 204),
    ("POST", "/v1/tasks/{task}/cancel"): ({}, 200), ("POST", "/v1/tasks/{task}/retry"): ({}, 202), ("POST", "/v1/tasks/{task}/messages"): ({"text": "true", "queue": True}, 202),
    ("POST", "/v1/tasks/{task}/interrupt"): ({}, 409), ("GET", "/v1/tasks/{task}/todos"): (None, 200), ("GET", "/v1/tasks/{task}/todos/events"): (None, 200),
    ("POST", "/v1/uploads"): (b"not an archive", 201), ("GET", "/v1/uploads"): (None, 200), ("GET", "/v1/uploads/{upload}"): (None, 200),
    ("PATCH", "/v1/uploads/{upload}"): (b"more", 409), ("DELETE", "/v1/uploads/{upload}"): (None, 204),
    ("GET", "/v1/gates"): (None, 200), ("GET", "/v1/gates/{gate}"): (None, 200), ("POST", "/v1/gates/{gate}/decision"): ({"decision": "answer", "answer": "blue"}, 200),
    ("GET", "/v1/tasks/{task}/wait"): (None, 200), ("GET", "/v1/tasks/{task}/runs"): (None, 200), ("GET", "/v1/tasks/{task}/events"): (None, 200),
    ("GET", "/v1/events"): (None, 200), ("GET", "/v1/tasks/{task}/diff"): (None, 200), ("GET", "/v1/tasks/{task}/artifacts"): (None, 200),
    ("GET", "/v1/tasks/{task}/artifacts/{path}"): (None, 200), ("GET", "/v1/runs/{run}"): (None, 200), ("GET", "/v1/ws"): (None, 426),
    ("POST", "/v1/external"): (BEAT, 200), ("GET", "/v1/external"): (None, 200), ("GET", "/v1/agents"): (None, 200),
    ("GET", "/v1/reconcile"): (None, 200), ("GET", "/v1/doctor"): (None, 200), ("POST", "/v1/keys"): ({"provider": "scripted", "key": "k"}, 204),
    ("POST", "/v1/tokens"): ({"name": "of-the-matrix"}, 201), ("GET", "/v1/tokens"): (None, 200), ("DELETE", "/v1/tokens/{token}"): (None, 204),
    ("GET", "/v1/secrets"): (None, 200), ("PUT", "/v1/secrets/{secret}"): ({"secret": "x"}, 204), ("DELETE", "/v1/secrets/{secret}"): (None, 204),
    ("POST", "/v1/prune"): ({"dry_run": True}, 200), ("POST", "/v1/reload"): ({}, 200), ("GET", "/logs/{task}/{name}"): (None, 200),
    ("GET", "/v1/openapi.json"): (None, 200), ("GET", "/healthz"): (None, 200), ("GET", "/readyz"): (None, (200, 503)), ("GET", "/version"): (None, 200),
    ("GET", "/metrics"): (None, 200),
}
OWNED = ("task", "upload", "gate", "run")  # parameters that name something of a project's


def fill(template, values):
    for name, value in values.items():
        template = template.replace("{%s}" % name, value)
    return template + ("?offset=0" if template.startswith("/v1/uploads/") and "{" not in template else "")


def parameters(template):
    return {part[1:-1] for part in template.split("/") if part.startswith("{")}


def send(who, method, template, values):
    body = ROUTES[method, template][0]
    path = fill(template, values).split("?")[0] + ("?offset=0" if method == "PATCH" and "upload" in template else "?timeout=0" if template.endswith("/wait") else "")
    return who.ask(method, path, body) if isinstance(who, Project) else site_call(who, method, path, body)


def site_call(site, method, path, body):
    return site.call(method, path, body, headers={"Content-Type": "application/octet-stream"} if isinstance(body, bytes) else None)


def is_right(status, wanted):
    return status in (wanted if isinstance(wanted, tuple) else (wanted,))


@pytest.fixture
def belongings(site, two):
    """Something of alpha's for each parameter, and the words that nobody else may ever see."""
    alpha = two[0]
    done = alpha.run("echo the-secret-plan > made.txt; echo '{\"status\": \"success\", \"summary\": \"x\", \"questions\": [], \"nextActions\": []}' > \"$SIGNALBOX_FINAL\"", name="T-alpha")
    asks = alpha.run(ASKS, status="WAITING", name="Q-alpha", labels={"of": "alpha"})
    (gate,) = alpha.get("/v1/gates")["data"]
    status, upload = alpha.ask("POST", "/v1/uploads?name=alpha.zip", b"some bytes")
    assert status == 201, upload
    assert alpha.ask("POST", "/v1/external", {**BEAT, "type": "register"})[0] == 200
    assert alpha.ask("PUT", "/v1/secrets/git:alpha.example", {"secret": "s"})[0] == 204
    artifact = alpha.get(f"/v1/tasks/{done['id']}/artifacts")["data"][0]["path"]
    values = {"task": done["id"], "upload": upload["id"], "gate": gate["id"], "run": f"{done['id']}.main.1", "path": artifact, "name": "prompt.txt",
              "secret": "git:alpha.example", "token": alpha.called}
    yield values, [done["id"], asks["id"], upload["id"], gate["id"], "the-secret-plan", "T-alpha", "Q-alpha", "alpha.zip", "E-1"]
    alpha.ask("POST", "/v1/external", {**BEAT, "type": "canceled"})


def operations(site):
    for template, item in site.get("/v1/openapi.json")["paths"].items():
        for method, operation in item.items():
            yield method.upper(), template, operation["x-scope"]


def test_every_route_says_whom_it_is_for(site):
    described = {(method, template): scope for method, template, scope in operations(site)}
    assert set(described) == set(ROUTES), "a route was added or is gone: say in ROUTES what it answers to whom"
    assert set(described.values()) == {"open", "project", "server", "owner"}


def test_no_route_gives_a_stranger_anything(site, two, belongings):
    values, words = belongings
    plain, owner = Project(site), site
    for method, template, scope in operations(site):
        wanted = ROUTES[method, template][1]
        for who, name in ((Project(site, token=None), "nobody"), (Project(site, token="sbt_" + "A" * 43), "wrong"), (two[1], "beta"), (plain, "default"), (owner, "owner")):
            here = dict(values)
            if template == "/v1/tokens/{token}" and name == "owner":
                here["token"] = Project(site, "gone").called
            status, answer = send(who, method, template, here)
            told = (method, template, name, status, answer)
            if scope == "open":
                assert is_right(status, wanted), told
            elif name in ("nobody", "wrong"):
                assert status == 401 and answer["code"] == "unauthenticated", told
            elif (scope == "server" and name == "beta") or (scope == "owner" and name != "owner"):
                assert status == 403 and answer["code"] == "denied" and answer["hint"], told
            elif scope in ("server", "owner"):
                assert is_right(status, wanted), told
            elif parameters(template) & set(OWNED) or (template == "/v1/external" and method == "POST") or (method == "DELETE" and template == "/v1/secrets/{secret}"):
                assert status == 404, told
                if parameters(template) & set(OWNED):
                    nothing = send(who, method, template, {**here, **NOTHING})
                    param = next(iter(parameters(template) & set(OWNED)))
                    assert nothing[0] == 404 and json.dumps(nothing[1]).replace(NOTHING[param], "X") == json.dumps(answer).replace(here[param], "X"), (told, nothing)
            else:
                assert is_right(status, wanted), told
                if template == "/v1/secrets/{secret}":
                    assert (who.ask if name != "owner" else who.call)("DELETE", "/v1/secrets/git:alpha.example")[0] == 204
            if scope in ("project", "open"):
                seen = json.dumps(answer)
                asked = [values[p] for p in parameters(template) if p in values] + ([BEAT["taskId"]] if template == "/v1/external" else [])
                assert not [w for w in words if w in seen and not any(w in a for a in asked)], told
        if (method, template) == ("POST", "/v1/tokens"):
            assert site.call("DELETE", "/v1/tokens/of-the-matrix")[0] == 204
    for other in (two[1], plain):
        other.remove_tasks()
        for upload in other.get("/v1/uploads")["data"]:
            assert other.ask("DELETE", f"/v1/uploads/{upload['id']}")[0] == 204
    for task in site.get("/v1/tasks")["data"]:
        assert site.wait(task["id"])["status"] == "DONE"
    for upload in site.get("/v1/uploads")["data"]:
        assert site.call("DELETE", f"/v1/uploads/{upload['id']}")[0] == 204


def test_every_route_opens_to_its_own_project(site, two, belongings):
    values, _ = belongings
    alpha = two[0]
    for method, template, scope in sorted(operations(site), key=lambda o: o[0] == "DELETE"):
        if template.startswith("/v1/tasks/{task}"):
            alpha.wait(values["task"])
        status, answer = send(alpha, method, template, values)
        wanted = 403 if scope in ("server", "owner") else ROUTES[method, template][1]
        assert is_right(status, wanted), (method, template, status, answer)
    assert values["task"] not in [t["id"] for t in alpha.get("/v1/tasks")["data"]]
    for upload in alpha.get("/v1/uploads")["data"]:
        assert alpha.ask("DELETE", f"/v1/uploads/{upload['id']}")[0] == 204


# --- what is cached

def files_of(top):
    return {p.relative_to(top): p.stat().st_mtime_ns for p in top.rglob("*")} if top.exists() else {}


def refused(who, source, status=403):
    got, problem = who.ask("POST", "/v1/tasks", {"prompt": "cat a.txt", "agent": "command", "source": source})
    assert got == status, problem
    return problem


@pytest.fixture
def private(new_site):
    """A private repository behind TLS and a login, and the projects; what alpha has cached of it."""
    site = new_site(model=False, start=False, listen="127.0.0.1:0")
    work, served = site.path("work"), site.path("served")
    site.sh("echo only-for-alpha > a.txt; git init -qb main; git add -A; git commit -qm x", work)
    site.sh(f"git clone -q --bare {work} repo.git", served)
    tls = make_certificate(site.path("tls"))
    site.own(pathlib.Path(tls["cert"]).parent)
    with contextlib.closing(GitHttp(served, token=TOKEN, tls=tls)) as host:
        site.start_server(env=site.environment(GIT_SSL_CAINFO=tls["cert"]))
        alpha, beta = Project(site, "alpha"), Project(site, "beta")
        secret = f"git:localhost:{host.port}"
        assert alpha.ask("PUT", f"/v1/secrets/{secret}", {"secret": TOKEN})[0] == 204
        source = {"kind": "git", "url": f"{host.url}/repo.git", "ref": "main"}
        task = alpha.run("cat a.txt", source)
        yield site, host, alpha, beta, source, task, served
        for one in (alpha, beta, Project(site)):
            one.remove_tasks()


def messages(who, id):
    return [e["data"]["text"] for e in who.get(f"/v1/tasks/{id}/events?limit=1000")["data"] if e["type"] == "message.done"]


def test_a_cached_private_repository_is_of_the_project_with_the_credential(private):
    site, host, alpha, beta, source, task, served = private
    assert messages(alpha, task["id"])[0].strip() == "only-for-alpha"
    commit, secret = task["source"]["commit"], f"git:localhost:{host.port}"
    cached = site.data / "cache/alpha"
    assert list((cached / "git").iterdir()) and list((cached / "trees").iterdir())
    before = files_of(cached)
    for other in (beta, Project(site)):
        asked = len(host.seen)
        for ref in ("main", commit, commit[:12]):
            assert refused(other, {**source, "ref": ref})["code"] in ("denied", "not_found")
        assert len(host.seen) > asked and not [login for _, _, login in host.seen[asked:] if login], "it was the host that refused, and no credential was shown to it"
        assert other.ask("PUT", f"/v1/secrets/{secret}", {"secret": "a-wrong-one"})[0] == 204
        refused(other, source)
        refused(other, {**source, "ref": commit})
        assert other.ask("DELETE", f"/v1/secrets/{secret}")[0] == 204
    # The repository is gone from its host, then so is the host: nobody is served from a cache that is not his.
    (served / "repo.git").rename(served / "gone.git")
    for ref in ("main", commit):
        refused(beta, {**source, "ref": ref}, 403)
    host.close()
    for ref in ("main", commit):
        late = beta.wait(beta.submit("cat a.txt", {**source, "ref": ref}))
        assert late["status"] == "ERROR" and not messages(beta, late["id"]), late
        assert "only-for-alpha" not in json.dumps(beta.get(f"/v1/tasks/{late['id']}/events"))
    assert files_of(cached) == before, "nothing of alpha's was used or touched"
    for name in ("beta", "default"):
        for path in files_below(site.data / "cache" / name):
            assert b"only-for-alpha" not in bytes_of(path), path


def test_the_project_with_the_credential_goes_on_from_its_cache(private):
    site, host, alpha, beta, source, task, served = private
    again = alpha.run("cat a.txt", source)
    assert messages(alpha, again["id"])[0].strip() == "only-for-alpha" and again["source"]["commit"] == task["source"]["commit"]
    assert beta.ask("PUT", f"/v1/secrets/git:localhost:{host.port}", {"secret": TOKEN})[0] == 204
    own = beta.run("cat a.txt", source)
    assert messages(beta, own["id"])[0].strip() == "only-for-alpha" and list((site.data / "cache/beta/git").iterdir()), "its own credential, its own mirror"


def test_the_owners_credentials_and_keys_are_nobody_elses(new_site):
    """Those of the configuration, and the ssh keys of whoever runs the server, are for the default project."""
    site = new_site(model=False, start=False, listen="127.0.0.1:0")
    work, served = site.path("work"), site.path("served")
    site.sh("echo a > a.txt; git init -qb main; git add -A; git commit -qm x", work)
    site.sh(f"git clone -q --bare {work} repo.git", served)
    with contextlib.closing(GitHttp(served, token=TOKEN)) as host:
        site.config["source"] = {"private": True, "credentials": {f"git:127.0.0.1:{host.port}": {"key": TOKEN}}}
        site.write_config()
        site.start_server()
        source = {"kind": "git", "url": f"{host.url}/repo.git"}
        beta, plain = Project(site, "beta"), Project(site)
        assert plain.run("cat a.txt", source)["status"] == "DONE"
        assert refused(beta, source)["hint"]
        assert beta.get("/v1/secrets")["data"] == [] and len(plain.get("/v1/secrets")["data"]) == 1
        plain.remove_tasks()


def test_ssh_keys_of_whoever_runs_the_server_are_not_used_for_others(new_site):
    site = new_site(model=False, start=False, listen="127.0.0.1:0")
    tools = site.path("tools")
    (tools / "ssh").write_text(f'#!/bin/sh\necho "$@" >> {tools}/said\necho "Permission denied (publickey)." >&2\nexit 255\n')
    (tools / "ssh").chmod(0o755)
    site.own(tools)
    site.config["source"] = {"private": True, "user_keys": True, "ssh_config": True}
    site.write_config()
    site.start_server(env=site.environment(PATH=f"{tools}:{site.environment()['PATH']}"))
    said = []
    for who in (Project(site), Project(site, "beta")):
        refused(who, {"kind": "git", "url": "ssh://git@127.0.0.1/x.git"})
        said.append((tools / "said").read_text().splitlines()[-1].split())
    own, beta = said
    assert "-Fnone" not in own and not [w for w in own if "Identity" in w]
    assert {"-Fnone", "-oIdentityAgent=none", "-oIdentityFile=none"} <= set(beta)


# --- the server's own machine

def test_a_project_names_nothing_of_the_servers_machine(site, two):
    work = site.path("work")
    site.sh("echo here > a.txt; git init -qb main; git add -A; git commit -qm x; git clone -q --bare . bare.git", work)
    sources = [{"kind": "local", "dir": str(work)}, {"kind": "local", "dir": str(work), "ref": "main"}, {"kind": "local", "dir": "/nonexistent/at/all"}, {"kind": "local", "dir": "../x"},
               {"kind": "local", "dir": "/etc/shadow"}]
    urls = [file_url(work), f"file://localhost{work}", f"FILE://{work}", f"File:{work}", str(work), f"{work}/.git", f"{work}/../{work.name}", f"file:///proc/self/root{work}",
            f"//{work}", f"{work}/bare.git", f"file:////{work}", "file:///nonexistent", f"file://{work}?x=y", f"file://127.0.0.1{work}", "~/x", "."]
    for source in sources + [{"kind": "git", "url": url} for url in urls]:
        status, problem = two[0].ask("POST", "/v1/tasks", {"prompt": "cat a.txt", "agent": "command", "source": source})
        assert status in (400, 403), (source, status, problem)
        assert str(work) == source.get("dir") or status == 400 or "archive" in problem.get("hint", "") or "scheme" in problem["detail"] or "address" in problem["detail"], problem
    for source in sources:
        status, problem = two[0].ask("POST", "/v1/tasks", {"prompt": "x", "agent": "command", "source": source})
        assert status == 403 and problem["code"] == "denied" and "--archive" in problem["hint"], (source, problem)
    known = [json.dumps(two[0].ask("POST", "/v1/tasks", {"prompt": "x", "agent": "command", "source": {"kind": "local", "dir": d}})[1]) for d in (str(work), "/nonexistent")]
    assert known[0] == known[1], "whether a directory is there is not told"
    assert two[0].ask("POST", "/v1/external", {**BEAT, "type": "register", "dir": str(work)})[0] == 403
    status, task = Project(site).ask("POST", "/v1/tasks", {"prompt": "cat a.txt", "agent": "command", "source": sources[0]})
    assert status == 201 and site.wait(task["id"])["status"] == "DONE", "the owner's own tokens may"
    made = site.cli("token", "create", "far", "--no-local", "--json")
    assert made.returncode == 0 and json.loads(made.stdout)["local"] is False, made
    far = Project(site, token=json.loads(made.stdout)["token"])
    for source in sources + [{"kind": "git", "url": file_url(work)}]:
        status, problem = far.ask("POST", "/v1/tasks", {"prompt": "x", "agent": "command", "source": source})
        assert status == 403 and "archive" in problem["hint"], (source, problem)
    assert far.ask("POST", "/v1/external", {**BEAT, "type": "register", "dir": str(work)})[0] == 403
    assert task["id"] in [t["id"] for t in far.get("/v1/tasks")["data"]], "it is the owner's all the same"
    assert site.call("POST", "/v1/tokens", {"name": "no", "project": "beta", "local": True})[0] == 400
    assert site.cli("token", "revoke", "far").returncode == 0


def test_a_submodule_is_no_way_to_the_servers_files(new_site):
    site = new_site(model=False, listen="127.0.0.1:0")
    inner, outer, served = site.path("inner"), site.path("outer"), site.path("served")
    site.sh("echo inner > i.txt; git init -qb main; git add -A; git commit -qm x", inner)
    site.sh(f"git init -qb main; git -c protocol.file.allow=always submodule add -q {file_url(inner)} sub; git commit -qm x", outer)
    site.sh(f"git clone -q --bare {outer} repo.git", served)
    with contextlib.closing(GitHttp(served)) as host:
        source = {"kind": "git", "url": f"{host.url}/repo.git", "submodules": True}
        beta = Project(site, "beta")
        task = beta.wait(beta.submit("cat sub/i.txt", source))
        assert task["status"] == "ERROR" and not messages(beta, task["id"]), task
        beta.remove_tasks()


def test_environments_and_agents_of_the_configuration_are_for_those_whom_they_name(new_site):
    site = new_site(model=False, listen="127.0.0.1:0", config={
        "environments": {"default": {"env": {"OWNERS": "o"}}, "mine": {"env": {"OWNERS": "m"}}, "shared": {"env": {"S": "for-beta"}, "setup_network": "host", "projects": ["beta"]},
                         "all": {"env": {"S": "for-all"}, "projects": ["*"]}},
        "agents": {"mine": {"adapter": "command", "env": {"OWNERS": "a"}}, "ours": {"adapter": "command", "projects": ["beta"]}}})
    beta, gamma = Project(site, "beta"), Project(site, "gamma")
    for who, bad in ((beta, {"environment": "mine"}), (gamma, {"environment": "shared"}), (beta, {"agent": "mine"}), (gamma, {"agent": "ours"})):
        status, problem = who.ask("POST", "/v1/tasks", {"prompt": "true", "agent": "command", **bad})
        assert status == 400 and "unknown" in problem["detail"] and "mine" not in problem["hint"], problem
    for who, good, said in ((beta, {}, "[]"), (beta, {"environment": "shared"}, "[for-beta]"), (gamma, {"environment": "all"}, "[for-all]"), (beta, {"agent": "ours"}, "[]")):
        task = who.run('echo "[$OWNERS$S]"', **good)
        assert messages(who, task["id"])[0].strip() == said
    for who, status in ((beta, 403), (Project(site), 201)):
        got, task = who.ask("POST", "/v1/tasks", {"prompt": "true", "agent": "command", "setup": "true", "setup_network": "host"})
        assert got == status, task
        if status == 201:
            assert site.wait(task["id"])["status"] == "DONE"
    got, task = beta.ask("POST", "/v1/tasks", {"prompt": "true", "agent": "command", "environment": "shared", "setup": "true"})
    assert got == 201, "what the owner has given"
    beta.wait(task["id"])
    for one in (beta, gamma):
        one.remove_tasks()


# --- names, words, keys

def test_names_labels_words_and_beginnings_of_ids_of_others_do_not_exist(site, two):
    alpha, beta = two
    same = {"name": "T-same", "labels": {"k": "v"}}
    a, b = alpha.run("echo unmistakable words", **same), beta.run("echo unmistakable words", **same)
    owners = site.submit("echo unmistakable words", **same)
    site.wait(owners)
    n = next(i for i in range(26) if a["id"][i] != b["id"][i])  # what their ids have in common is ambiguous to nobody
    beginning = a["id"][:max(n, 8)]
    for who, mine in ((alpha, a), (beta, b), (Project(site), site.task(owners))):
        assert who.get("/v1/tasks/T-same")["id"] == mine["id"]
        for query in ("", "?name=T-same", "?q=unmistakable", "?label=k=v", "?label=k", "?state=DONE", f"?repo={mine['repo']}", "?q=unmistakable&state=DONE", "?limit=1", "?label=k=v&state=DONE&limit=1"):
            page = who.get(f"/v1/tasks{query}")
            assert [t["id"] for t in page["data"]] == [mine["id"]], query
            while page["next_cursor"]:
                assert page["next_cursor"] == mine["id"] or page["next_cursor"].startswith("n")
                page = who.get(f"/v1/tasks{query}{'&' if query else '?'}after={page['next_cursor']}")
                assert page["data"] == []
        status, answer = who.ask("GET", f"/v1/tasks/{beginning}")
        assert (status == 200 and answer["id"] == mine["id"]) or (status == 404 and not mine["id"].startswith(beginning)), answer


def test_a_long_list_of_one_project_hides_nothing_of_another(site, two):
    """Pages are of one's own tasks, whatever lies between."""
    alpha, beta = two
    mine = []
    for i in range(3):
        mine.append(beta.submit("true", labels={"i": str(i)}))
        for _ in range(5):
            alpha.submit("true")
    for query in ("", "&label=i", "&state=QUEUED,RUNNING,DONE"):
        seen, after = [], ""
        while after is not None:
            page = beta.get(f"/v1/tasks?limit=1{query}{after}")
            seen += [t["id"] for t in page["data"]]
            assert page["next_cursor"] is None or page["next_cursor"] in mine
            after = page["next_cursor"] and f"&after={page['next_cursor']}"
        assert seen == mine[::-1]
    for id in mine:
        assert beta.wait(id)["status"] == "DONE"


def test_a_project_with_limits_of_its_own_leaves_places_to_the_others(new_site):
    site = new_site(model=False, listen="127.0.0.1:0", config={"limits": {"running": 4}, "projects": {"alpha": {"running": 1, "queued": 2, "uploads": 1}}})
    alpha, beta = Project(site, "alpha"), Project(site, "beta")
    first = alpha.submit("until [ -e ~/go ]; do sleep 0.02; done")
    wait_for("its start", lambda: alpha.get(f"/v1/tasks/{first}")["status"] == "RUNNING")
    waiting = [alpha.submit("true", priority=9) for _ in range(2)]
    status, problem = alpha.ask("POST", "/v1/tasks", {"prompt": "true", "agent": "command", "source": {"kind": "none"}})
    assert status == 429 and "projects.alpha.queued" in problem["detail"], problem
    assert beta.wait(beta.submit("true"))["status"] == "DONE", "who comes later, with less priority, finds a place"
    task = alpha.get(f"/v1/tasks/{waiting[0]}")
    assert (task["status"], task["waits_for"]) == ("QUEUED", "a place of its project: 1 tasks are at work (projects.alpha.running 1)")
    kept = [(who, who.ask("POST", "/v1/uploads?name=a", b"some bytes")) for who in (alpha, beta)]
    assert [answer[0] for _, answer in kept] == [201, 201], kept
    status, problem = alpha.ask("POST", "/v1/uploads?name=b", b"some bytes")
    assert status == 429 and "projects.alpha.uploads" in problem["detail"], problem
    site.release(first)
    for id in (first, *waiting):
        assert alpha.wait(id)["status"] == "DONE"
    for who, (_, upload) in kept:
        assert who.ask("DELETE", f"/v1/uploads/{upload['id']}")[0] == 204
        who.remove_tasks()


@pytest.mark.parametrize("limits", [{"running": 1}, {"running_per_repository": 1}], ids=["all", "a repository"])
def test_a_place_in_the_queue_does_not_tell_of_others(new_site, limits):
    site = new_site(model=False, listen="127.0.0.1:0", config={"limits": limits})
    alpha, beta = Project(site, "alpha"), Project(site, "beta")
    first = alpha.submit("until [ -e ~/go ]; do sleep 0.02; done")
    waiting = [alpha.submit("true") for _ in range(3)]
    mine = beta.submit("true")
    assert beta.get(f"/v1/tasks/{mine}")["queue_position"] == 1
    for who, id in ((alpha, waiting[0]), (beta, mine)):
        task = wait_for("what it waits for", lambda: (lambda t: t["waits_for"] and t)(who.get(f"/v1/tasks/{id}")))
        assert task["waits_for"] == "a place: the server has as much at work as it may"
    assert alpha.get(f"/v1/tasks/{waiting[-1]}")["queue_position"] == 3
    site.release(first)
    for who, id in ((alpha, first), (beta, mine), *((alpha, w) for w in waiting)):
        assert who.wait(id)["status"] == "DONE"
    for one in (alpha, beta):
        one.remove_tasks()


def test_a_key_for_repetitions_is_its_projects(site, two):
    alpha, beta = two
    body = {"prompt": "true", "agent": "command"}
    made = {}
    for who in (alpha, beta, Project(site)):
        status, task = who.ask("POST", "/v1/tasks", body, Idempotency_Key="the-same")
        assert status == 201 and task["id"] not in made.values()
        made[who] = task["id"]
        status, again = who.ask("POST", "/v1/tasks", body, Idempotency_Key="the-same")
        assert status == 201 and again["id"] == task["id"] and who.headers["Idempotent-Replayed"] == "true"
        who.wait(task["id"])
    # The name of a token that is gone may be given to another project's: its keys are not.
    assert site.call("DELETE", f"/v1/tokens/{alpha.called}")[0] == 204
    other = Project(site, "gamma", token=None)
    other.token = other.make("gamma", called=alpha.called)
    status, task = other.ask("POST", "/v1/tasks", body, Idempotency_Key="the-same")
    assert status == 201 and task["id"] not in made.values() and task["project"] == "gamma"
    other.wait(task["id"])
    other.remove_tasks()
    alpha.token = alpha.make("alpha")


# --- uploads

def test_an_upload_is_its_projects(site, two):
    alpha, beta = two
    at = site.path("archive")
    site.sh("echo from-alpha > a.txt; tar czf ../a.tgz a.txt", at)
    data = (at.parent / "a.tgz").read_bytes()
    status, upload = alpha.ask("POST", "/v1/uploads?name=a.tgz", data)
    assert status == 201 and upload["project"] == "alpha"
    status, half = alpha.ask("POST", "/v1/uploads?size=1000")
    assert status == 201
    for who in (beta, Project(site)):
        for id in (upload["id"], half["id"]):
            for method, query, body in (("GET", "", None), ("HEAD", "", None), ("DELETE", "", None), ("PATCH", "?offset=0", b"x")):
                assert who.ask(method, f"/v1/uploads/{id}{query}", body)[0] == 404, method
            status, problem = who.ask("POST", "/v1/tasks", {"prompt": "cat a.txt", "agent": "command", "source": {"kind": "archive", "upload": id}})
            assert status == 404 and "a.tgz" not in json.dumps(problem), problem
        assert who.get("/v1/uploads")["data"] == []
    source = {"kind": "archive", "upload": upload["id"]}
    assert messages(alpha, alpha.run("cat a.txt", source)["id"])[0].strip() == "from-alpha"
    status, own = beta.ask("POST", "/v1/uploads?name=a.tgz", data)  # the same bytes again, unpacked in a cache of its own
    task = beta.run("cat a.txt", {"kind": "archive", "upload": own["id"]})
    assert messages(beta, task["id"])[0].strip() == "from-alpha" and f"{site.data}/cache/beta/" in task["source"]["store"]
    for who, id in ((alpha, upload["id"]), (alpha, half["id"]), (beta, own["id"])):
        assert who.ask("DELETE", f"/v1/uploads/{id}")[0] == 204


# --- streams

def lines_until(reply, wanted):
    """SSE lines up to the one that has the word."""
    out = []
    while True:
        line = reply.readline().decode()
        assert line, out
        out.append(line)
        if wanted in line:
            return out


def test_no_stream_carries_what_is_of_another_project(site, two):
    alpha, beta = two
    plain = Project(site)
    with contextlib.ExitStack() as stack:
        followers = {}
        for who in (alpha, beta, plain):
            conn, reply = who.stream("/v1/events?after=end")
            stack.callback(conn.close)
            lines_until(reply, "event: sync")
            ws = stack.enter_context(who.ws())
            assert ws.ask("subscribe", tasks=["*"])["type"] == "ok"
            ws.until(type="sync")
            followers[who] = (reply, ws)
        a = alpha.run("echo of-alpha")
        for who in (beta, plain):
            ws = followers[who][1]
            for asked in ({"tasks": [a["id"]]}, {"tasks": [a["id"][:20]]}, {"tasks": [a["id"]], "after": 0}):
                answer = ws.ask("subscribe", **asked)
                assert answer["type"] == "error" and answer["code"] == "not_found", answer
            assert ws.ask("interrupt", task=a["id"])["code"] == "not_found"
            for message in ({"type": "heartbeat"}, {"type": "complete"}, {"type": "error", "error": "x"}):
                kind = message.pop("type")
                assert ws.ask(kind, taskId=a["id"], **message)["code"] == "not_found"
        b, p = beta.run("echo of-beta"), plain.run("echo of-default")
        for who, own in ((alpha, a), (beta, b), (plain, p)):
            reply, ws = followers[who]
            lines = lines_until(reply, '"task.done"')
            assert not [line for line in lines for t in (a, b, p) if t is not own and t["id"] in line], "live lines are nobody else's either"
            told = [json.loads(line[6:]) for line in lines if line.startswith('data: {"cursor"')]
            assert {t["task"] for t in told} == {own["id"]}
            heard = [m for m in ws.until(type="task.done") if m.get("task") != "*"]
            assert {m["task"] for m in heard if "task" in m} == {own["id"]}
            page = who.get("/v1/events?limit=1000")
            assert {e["task"] for e in page["data"]} == {own["id"]} and [e["seq"] for e in page["data"]] == list(range(1, own["last_seq"] + 1))
            for cursor in [e["cursor"] for e in page["data"]] + [page["head"]]:
                assert who.ask("GET", f"/v1/events?after={cursor}&limit=1")[0] == 200
        foreign = alpha.get("/v1/events?limit=1")["data"][0]["cursor"]
        assert beta.ask("GET", f"/v1/events?after={foreign}")[0] == 410
        # A cursor for another project's task among those of a watch of all opens nothing.
        with beta.ws() as ws:
            assert ws.ask("subscribe", tasks=["*"], after={a["id"]: 0, b["id"]: 0})["type"] == "ok"
            seen = ws.between + ws.until(type="sync")
            assert a["id"] not in json.dumps(seen) and len([m for m in seen if m.get("seq")]) == b["last_seq"]
        for path in (f"/v1/tasks/{a['id']}/events", f"/v1/tasks/{a['id']}/events?follow=1"):
            for accept in ("text/event-stream", "application/jsonl"):
                conn, reply = beta.stream(path, accept)
                with contextlib.closing(conn):
                    assert reply.status == 404
        conn, reply = beta.stream("/v1/events", "application/jsonl")
        with contextlib.closing(conn):
            assert {json.loads(line)["task"] for line in reply.read().splitlines()} == {b["id"]}


# --- agents that were started elsewhere

def test_an_agent_elsewhere_belongs_to_the_project_of_its_token(site, two):
    alpha, beta = two
    for who in two:  # the same name, and nobody's word is taken for another's
        assert who.ask("POST", "/v1/external", {**BEAT, "type": "register", "sessionId": f"s-{who.name}"})[0] == 200
    assert alpha.ask("POST", "/v1/external", {"type": "progress", "taskId": "E-1", "progress": "of alpha"})[0] == 200
    assert beta.get("/v1/tasks/E-1")["progress"] is None and alpha.get("/v1/tasks/E-1")["progress"] == "of alpha"
    assert [t["sessionId"] for t in alpha.get("/v1/external")["data"]] == ["s-alpha"]
    assert Project(site).get("/v1/external")["data"] == [] and Project(site).ask("POST", "/v1/external", BEAT)[0] == 404
    for who in two:
        status, answer = who.ask("POST", "/v1/external", {"type": "complete", "taskId": "E-1"})
        assert status == 200 and answer["task"] == who.get("/v1/tasks/E-1")["id"]


# --- the owner's part

def test_a_token_keeps_its_project_and_the_owner_keeps_its_credentials(new_site):
    site = new_site(model=False, listen="127.0.0.1:0")
    made = site.cli("token", "create", "ci", "--project", "beta", "--json")
    assert made.returncode == 0, made.stderr
    beta = Project(site, "beta", token=json.loads(made.stdout)["token"])
    beta.called = "ci"
    task = beta.run("true")
    listed = site.cli("token", "ls")
    assert "beta" in listed.stdout and json.loads(site.cli("token", "ls", "--json").stdout)["data"][0]["project"] == "beta"
    for name in ("Beta", "", "-x", "x_y", "x/y", "..", "*", "empty", "x" * 33, "b\u00e9ta", "a b"):
        done = site.cli("token", "create", "other", "--project", name)
        assert done.returncode == 2 and "project" in done.stderr, (name, done)
    done = site.cli("secret", "set", "git:example.org", "--project", "beta", stdin="t")
    assert done.returncode == 0, done.stderr
    assert [s["name"] for s in json.loads(site.cli("secret", "ls", "--project", "beta", "--json").stdout)["data"]] == ["git:example.org"]
    assert json.loads(site.cli("secret", "ls", "--json").stdout)["data"] == [] and [s["name"] for s in beta.get("/v1/secrets")["data"]] == ["git:example.org"]
    assert site.cli("secret", "set", "git:example.org", "--project", "nobody", stdin="t").returncode == 5
    for method, path in (("GET", "/v1/secrets"), ("DELETE", "/v1/secrets/git:example.org")):
        for project in ("default", "gamma"):
            assert beta.ask(method, f"{path}?project={project}")[0] == 403
    assert Project(site).ask("GET", "/v1/secrets?project=beta")[0] == 403, "by the socket alone"
    site.stop_server()
    site.start_server()
    wait_for("its new address", lambda: len([l for l in site.log("server").splitlines() if l.startswith("http://127.0.0.1:")]) == 2)
    assert beta.get(f"/v1/tasks/{task['id']}")["status"] == "DONE" and beta.get("/v1/tasks")["data"][0]["project"] == "beta"
    remote = site.cli("ls", "--server", f"http://127.0.0.1:{port_of(site)}", "--json", env={"SIGNALBOX_TOKEN": beta.token})
    assert remote.returncode == 0 and task["id"] in remote.stdout, remote.stderr
    here = site.cli("run", "true", "--server", f"http://127.0.0.1:{port_of(site)}", "--agent", "command", "--repo", str(site.home), env={"SIGNALBOX_TOKEN": beta.token})
    assert here.returncode != 0, "a directory is not the server's to read"
    assert site.cli("secret", "rm", "git:example.org", "--project", "beta").returncode == 0
    beta.remove_tasks()
    assert site.cli("token", "revoke", "ci").returncode == 0
    assert beta.ask("GET", "/v1/tasks")[0] == 401


def test_a_token_that_is_revoked_or_too_old_hears_and_says_nothing_more(site):
    short = Project(site, token=None)
    for how in ("revoked", "expired"):
        status, token = site.call("POST", "/v1/tokens", {"name": f"short-{how}", "project": "gamma", **({"expires_in": 3} if how == "expired" else {})})
        assert status == 201
        short.token = token["token"]
        conns = [short.stream("/v1/events?after=end"), short.stream("/v1/events?after=end&follow=1", "application/jsonl")]
        with short.ws() as ws:
            assert ws.ask("subscribe", tasks=["*"])["type"] == "ok"
            if how == "revoked":
                assert site.call("DELETE", f"/v1/tokens/{token['id']}")[0] == 204
            for conn, reply in conns:
                with contextlib.closing(conn):
                    reply.read()  # to its end: the server ends it
            assert ws.expect_close()[0] == 1008
        assert short.ask("GET", "/v1/tasks")[0] == 401
