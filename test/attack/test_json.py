"""Bodies: what is JSON is taken for what it says, what is not is refused as such, whatever it is made of."""
import collections
import json

import raw
from json_cases import all_cases
from naughty import acts

HEAD = b"POST /v1/tasks HTTP/1.1\r\nContent-Type: application/json\r\n"


def ask(reader, site_head, body):
    reader.sock.sendall(HEAD + site_head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    answer = reader.answer()
    assert answer, f"hung up on {body[:80]!r}"
    problem = json.loads(answer.body)
    assert answer.status == 400 and problem["code"] == "invalid" and not acts(problem["detail"]), (body[:80], answer)
    return problem["detail"]


def is_json(detail):
    """The request is refused all the same, but for what it says."""
    if "unknown member" in detail or "but not an object" in detail or "prompt: missing" in detail:
        return True
    assert "JSON" in detail, detail
    return False


def test_each_text_is_taken_or_refused_by_the_grammar(site):
    seen, wrong = collections.Counter(), []
    with site.bounded(16 << 10), raw.dial(site.tcp()[0]) as sock:
        reader, head = raw.Reader(sock), site.head()
        for name, kind, text in all_cases():
            for body in (text, b'{"x": ' + text + b"}") if text.strip() else (text,):
                taken = is_json(ask(reader, head, body))
                seen[name, kind] += 1
                if kind != "i" and taken != (kind == "y"):
                    wrong.append((kind, body[:100]))
    assert not wrong, wrong[:20]
    assert sum(seen.values()) >= 1000 and len(seen) >= 8, seen


def test_the_last_of_two_members_of_a_name_counts(site):
    status, problem = site.call("POST", "/v1/tasks", b'{"prompt": "a", "priority": 1, "priority": "x"}')
    assert status == 400 and "priority" in problem["detail"]
    status, problem = site.call("POST", "/v1/tasks", b'{"prompt": "a", "mode": "x", "mode": "ask", "agent": "nobody"}')
    assert status == 400 and "nobody" in problem["detail"]


def test_numbers_out_of_range_are_refused_by_their_member(site):
    for member, values in (("priority", ["1e3", "1001", "-1001", "9223372036854775807", "-9223372036854775808", "1e300", "0.5", "1e-9"]),
                           ("timeout_ms", ["0", "-1", "1e19", "9223372036854775807", "0.1"]), ("retries", ["-1", "1e9", "9223372036854775807"])):
        for value in values:
            if (member, value) == ("priority", "1e3"):
                continue  # that is 1000
            status, problem = site.call("POST", "/v1/tasks", b'{"prompt": "a", "agent": "command", "%s": %s}' % (member.encode(), value.encode()))
            assert status == 400 and member.split("_")[0] in problem["detail"], (member, value, problem)
    for value in ("9223372036854775807", "-9223372036854775808", "18446744073709551", "1e18"):
        status, problem = site.call("POST", "/v1/tasks", b'{"prompt": "a", "agent": "command", "limits": {"timeout": %s}}' % value.encode())
        assert status == 400 and "timeout" in problem["detail"], (value, problem)
