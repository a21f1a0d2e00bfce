"""What a human in the loop waits for: an agent (real walls, Agent Client Protocol) that stamps its questions, and the times at which they are seen and answered."""
import json
import threading
import time

from bench_site import wait_for

# Asks `loop N` times one after the other, or N questions at once (`many N`) that stay open; each command has when it was asked and when the answer before it came.
ASKER = r"""
import json, sys, time
def say(o): sys.stdout.write(json.dumps({"jsonrpc": "2.0", **o}) + "\n"); sys.stdout.flush()
def ask(n, got): say({"id": n, "method": "session/request_permission", "params": {"sessionId": "s",
    "toolCall": {"toolCallId": "c%d" % n, "kind": "execute", "title": "Ask", "rawInput": {"command": "true asked=%d got=%d" % (time.monotonic_ns(), got)}},
    "options": [{"optionId": "a", "name": "Allow", "kind": "allow_once"}, {"optionId": "r", "name": "Reject", "kind": "reject_once"}]}})
left = n = prompt = 0
for line in sys.stdin:
    got, m = time.monotonic_ns(), json.loads(line)
    if m.get("method") == "initialize": say({"id": m["id"], "result": {"protocolVersion": 1, "agentCapabilities": {}, "authMethods": []}})
    elif m.get("method") == "session/new": say({"id": m["id"], "result": {"sessionId": "s"}})
    elif m.get("method") == "session/prompt":
        prompt, (how, count) = m["id"], m["params"]["prompt"][0]["text"].split()[:2]
        for _ in range(int(count) if how == "many" else 1):
            n += 1; ask(n, 0)
        left = int(count) if how == "loop" else 1 << 30
    elif "method" not in m and "result" in m:
        left -= 1
        if left > 0: n += 1; ask(n, got)
        else: say({"id": prompt, "result": {"stopReason": "end_turn"}})
"""
AGENT = {"adapter": "acp", "command": ["/usr/bin/python3", "-c", ASKER]}
PER_TASK = 63
SETTLE_S = 60


def follow(site, task, seen):
    """Reads the task's stream: gates by id with the moment at which they were seen; ends with the task."""
    c = site.http()
    c.request("GET", f"/v1/tasks/{task}/events?after=0", headers={"Accept": "text/event-stream"})
    stream = c.getresponse()
    for raw in stream:
        if not raw.startswith(b"data: {"):
            continue
        at, event = time.monotonic_ns(), json.loads(raw[6:])
        if event.get("type") == "gate.blocked":
            seen.append((at, event["data"]))
        if event.get("type") == "task.done":
            break
    c.close()


def stamps(command):
    return {k: int(v) for k, v in (word.split("=") for word in command.split() if "=" in word)}


def answered(site, repo, count):
    """Milliseconds: question to stream, and decision sent to bytes at the agent."""
    c, seen, shown, delivered = site.http(), [], [], []
    task = site.submit(c, repo, agent="asker", prompt=f"loop {count}", approvals={"ask": "always"})
    reader = threading.Thread(target=follow, args=(site, task, seen))
    reader.start()
    sent = None
    for i in range(count):
        wait_for(f"gate {i}", lambda: len(seen) > i, SETTLE_S, step=0.0005)
        at, data = seen[i]
        times = stamps(data["command"])
        shown.append((at - times["asked"]) / 1e6)
        if sent:
            delivered.append((times["got"] - sent) / 1e6)
        sent = time.monotonic_ns()
        c.ask("POST", f"/v1/gates/{data['gate']}/decision", {"decision": "approve"})
    reader.join(SETTLE_S)
    return shown, delivered


def listed(site, repo, gates, rounds):
    """Milliseconds to list so many open gates."""
    c = site.http()
    tasks = [site.submit(c, repo, agent="asker", prompt=f"many {PER_TASK}", approvals={"ask": "always"}) for _ in range(gates // PER_TASK + 1)]
    page = {}

    def there():
        page["data"] = c.ask("GET", "/v1/gates?state=blocked&limit=1000")["data"]
        return len(page["data"]) >= gates
    wait_for(f"{gates} open gates", there, SETTLE_S, step=0.05)
    took = []
    for _ in range(rounds):
        begun = time.monotonic()
        c.ask("GET", "/v1/gates?state=blocked&limit=1000")
        took.append((time.monotonic() - begun) * 1e3)
    for t in tasks:
        c.ask("POST", f"/v1/tasks/{t}/cancel", {})
        wait_for("its end", lambda t=t: c.ask("GET", f"/v1/tasks/{t}")["status"] == "CANCELED", SETTLE_S)
    return took
