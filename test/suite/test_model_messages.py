"""The scripted model's Messages API, and the gateway before it."""
import json

import pytest
from gateway_site import PROGRAM, PROVIDER_KEY, Site, events, token, wait_for

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"{PROGRAM} is not built")

TOOLS = [{"name": n, "input_schema": {"type": "object"}} for n in ("Bash", "Edit", "Read", "Write", "TodoWrite")]
SYSTEM = "You are an agent.\n - Primary working directory: /workspace\n"


@pytest.fixture
def site():
    one = Site()
    yield one
    one.close()


@pytest.fixture
def up(site):
    site.model()
    gateway(site)
    return site


def gateway(site):
    """With providers that speak whichever API they are asked in."""
    for provider in site.providers.values():
        del provider["wire"]
    return site.gateway()


def body(text="hello", stream=True, **more):
    return {"model": "claude-x", "max_tokens": 100, "stream": stream, "system": SYSTEM, "tools": TOOLS, "messages": [{"role": "user", "content": text}], **more}


def answered(doc, reply, *outputs):
    """The conversation one step further."""
    results = [{"type": "tool_result", "tool_use_id": b["id"], "content": o} for b, o in zip([b for b in reply["content"] if b["type"] == "tool_use"], outputs)]
    return {**doc, "messages": doc["messages"] + [{"role": "assistant", "content": reply["content"]}, {"role": "user", "content": results}]}


def ask(site, doc, url="/v1/messages", **headers):
    """Straight to the model: (status, body)."""
    import http.client
    conn = http.client.HTTPConnection("127.0.0.1", site.port, timeout=120)
    conn.request("POST", url, json.dumps(doc), {"Content-Type": "application/json", **(headers or {"X-Api-Key": PROVIDER_KEY})})
    reply = conn.getresponse()
    data = reply.read()
    conn.close()
    return reply.status, data


def own(site, steps):
    path = site.dir / "own.yaml"
    path.write_text("scenarios:\n  - default: true\n    steps:\n" + "".join(f"      - {json.dumps(s)}\n" for s in steps))
    site.model(script=path)


def test_a_stream_has_its_events_in_order(site):
    own(site, [{"reason": "Hm."}, {"say": "Grüße, 世界! " * 30}, {"shell": "ls"}])
    got = events(ask(site, body())[1])
    kinds = [e["type"] for e in got]
    assert kinds[:2] == ["message_start", "ping"] and kinds[-2:] == ["message_delta", "message_stop"]
    assert [e["content_block"]["type"] for e in got if e["type"] == "content_block_start"] == ["thinking", "text", "tool_use"]
    assert [e["index"] for e in got if e["type"] == "content_block_stop"] == [0, 1, 2]
    assert "".join(e["delta"]["text"] for e in got if e.get("delta", {}).get("type") == "text_delta") == "Grüße, 世界! " * 30
    tool = json.loads("".join(e["delta"]["partial_json"] for e in got if e.get("delta", {}).get("type") == "input_json_delta"))
    assert tool["command"] == "ls" and got[-2]["delta"]["stop_reason"] == "tool_use"


def test_without_stream_the_whole_message_is_given(site):
    own(site, [{"usage": {"input_tokens": 100, "cached_input_tokens": 40, "output_tokens": 7}}, {"final": "Done."}])
    reply = json.loads(ask(site, body(stream=False))[1])
    assert reply["content"] == [{"type": "text", "text": "Done."}] and reply["stop_reason"] == "end_turn" and reply["role"] == "assistant"
    assert reply["usage"] == {"input_tokens": 60, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 40, "output_tokens": 7}


def test_the_steps_are_counted_by_the_tool_results(site):
    own(site, [{"shell": "ls"}, {"expect": "a.txt"}, {"plan": [{"step": "one", "status": "pending"}]}, {"final": "Done."}])
    doc = body(stream=False)
    reply = json.loads(ask(site, doc)[1])
    doc = answered(doc, reply, [{"type": "text", "text": "a.txt"}])
    reply = json.loads(ask(site, doc)[1])
    assert reply["content"][0]["name"] == "TodoWrite" and reply["content"][0]["input"] == {"todos": [{"content": "one", "status": "pending", "activeForm": "one"}]}
    doc = answered(doc, reply, "ok")
    assert json.loads(ask(site, doc)[1])["content"][0]["text"] == "Done."


def test_a_patch_becomes_calls_of_file_tools_and_is_one_step(site):
    patch = "*** Begin Patch\n*** Update File: a.txt\n@@\n one\n-two\n+2\n*** Add File: b/c.txt\n+new\n*** End Patch\n"
    own(site, [{"patch": patch}, {"final": "Done."}])
    doc = body(stream=False)
    reply = json.loads(ask(site, doc)[1])
    assert [(b["name"], b["input"]) for b in reply["content"]] == [
        ("Read", {"file_path": "/workspace/a.txt"}), ("Edit", {"old_string": "one\ntwo\n", "new_string": "one\n2\n", "file_path": "/workspace/a.txt"}),
        ("Write", {"content": "new\n", "file_path": "/workspace/b/c.txt"})]
    assert json.loads(ask(site, answered(doc, reply, "x", "y", "z"))[1])["content"][0]["text"] == "Done."


def test_a_patch_that_file_tools_cannot_do_goes_by_the_shell(site):
    own(site, [{"patch": "*** Begin Patch\n*** Delete File: a.txt\n*** End Patch\n"}])
    reply = json.loads(ask(site, body(stream=False))[1])
    assert reply["content"][0]["name"] == "Bash" and "apply_patch <<" in reply["content"][0]["input"]["command"]


def test_the_final_answer_is_given_by_the_tool_for_it(site):
    own(site, [{"final": {"status": "success"}}])
    tool = {"name": "StructuredOutput", "input_schema": {"type": "object", "properties": {"status": {"type": "string"}, "n": {"type": "integer"}}}}
    doc = body(stream=False, tools=[*TOOLS, tool])
    reply = json.loads(ask(site, doc)[1])
    assert reply["content"][0]["name"] == "StructuredOutput" and reply["content"][0]["input"] == {"status": "success", "n": 0}
    assert json.loads(ask(site, answered(doc, reply, "ok"))[1])["stop_reason"] == "end_turn"


def test_notes_of_the_agent_are_no_prompts_but_what_a_person_says_meanwhile_is(site):
    site.model()
    note = {"role": "user", "content": [{"type": "text", "text": "<system-reminder>\nBe good. [scenario refuse]\n</system-reminder>"}, {"type": "text", "text": "hello"}]}
    ask(site, body(messages=[note]))
    meanwhile = {"role": "system", "content": "The user sent a new message while you were working:\nnow this\n\nAddress it."}
    ask(site, body(messages=[note, {"role": "assistant", "content": "x"}, {"role": "user", "content": "go on"}, meanwhile]))
    assert [line["prompt"] for line in wait_for("both requests", lambda: len(site.asked()) == 2 and site.asked())] == ["hello", "now this"]


@pytest.mark.parametrize("status,type", [(400, "invalid_request_error"), (429, "rate_limit_error"), (500, "api_error"), (529, "overloaded_error")])
def test_errors_have_the_form_of_this_api(site, status, type):
    own(site, [{"error": {"status": status, "message": "no", "retry_after": 3}}])
    got, data = ask(site, body())
    assert got == status and json.loads(data) == {"type": "error", "error": {"type": type, "message": "no"}}


@pytest.mark.parametrize("doc", [[], {}, {"messages": 5}, {"messages": []}, {"messages": [{"role": "assistant", "content": "x"}]}, {"messages": [1, None, "x"]},
                                 {"messages": [{"role": "user", "content": [1, {"type": "tool_result"}, {"type": "tool_result", "content": 5, "tool_use_id": 5}]}]}])
def test_a_request_that_makes_no_sense_is_a_400(site, doc):
    site.model()
    status, data = ask(site, doc)
    assert status == 400 and json.loads(data)["type"] == "error"


def test_the_key_is_asked_for_in_either_header(site):
    site.model()
    assert ask(site, body(), **{"X-Api-Key": "wrong"})[0] == 401
    assert json.loads(ask(site, body(), Authorization="Bearer wrong")[1])["error"]["type"] == "authentication_error"
    assert ask(site, body(), Authorization="Bearer " + PROVIDER_KEY)[0] == 200


def test_tokens_are_counted(site):
    site.model()
    assert json.loads(ask(site, body(), url="/v1/messages/count_tokens")[1])["input_tokens"] > 10


# --- the gateway


def through(site, doc, url="/v1/messages", auth=None, **headers):
    return site.call(url=url, doc=doc, headers={"X-Api-Key": auth or token(), "Anthropic-Version": "2023-06-01", **headers})


def test_the_gateway_lets_a_run_token_in_by_either_header(up):
    assert through(up, body(stream=False))[0] == 200
    assert up.call(url="/v1/messages?beta=true", doc=body(stream=False), auth=token())[0] == 200
    status, reply = through(up, body(), auth="sbx1.x.y")
    assert status == 401 and reply["type"] == "error" and reply["error"]["type"] == "authentication_error"


def test_the_gateway_sends_the_key_and_the_version_and_nothing_of_the_run(site):
    up = site.upstream(lambda conn, headers, data: conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"))
    gateway(site)
    through(site, body(), url="/v1/messages?beta=true&x=y", **{"Anthropic-Beta": "b1", "X-Stainless-Os": "Linux"})
    through(site, body(), url="/v1/messages/count_tokens")
    line, headers, data = up.requests[0]
    assert line == "POST /v1/messages?beta=true HTTP/1.1" and up.requests[1][0] == "POST /v1/messages/count_tokens HTTP/1.1"
    assert headers["x-api-key"] == PROVIDER_KEY and headers["anthropic-version"] == "2023-06-01" and headers["anthropic-beta"] == "b1"
    assert "authorization" not in headers and "x-stainless-os" not in headers and json.loads(data) == body()


def test_usage_and_output_are_on_record(up):
    doc = body("[scenario fix-test]")
    status, data = through(up, doc)
    assert status == 200
    end = up.ended()[0]
    assert end["error"] is None and end["usage"]["total_tokens"] == end["usage"]["input_tokens"] + end["usage"]["output_tokens"] > 0
    assert [item["type"] for item in end["output"]][-1] == "tool_use" and end["output"][-1]["input"]["todos"]
    through(up, body("x", stream=False))
    assert up.ended(2)[1]["output"][0] == {"type": "text", "text": "Nothing to do."}


def test_cached_tokens_are_counted_within_the_input(site):
    def answer(conn, headers, data):
        def ev(**o):
            return f"event: {o['type']}\ndata: {json.dumps(o)}\n\n"
        text = (ev(type="message_start", message={"usage": {"input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 10, "output_tokens": 1}})
                + ev(type="content_block_start", index=0, content_block={"type": "text", "text": ""}) + ev(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "a"})
                + ev(type="content_block_stop", index=0) + ev(type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 20}) + ev(type="message_stop"))
        conn.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{text}".encode())
    site.upstream(answer)
    gateway(site)
    through(site, body())
    end = site.ended()[0]
    assert end["usage"] == {"input_tokens": 115, "cached_input_tokens": 100, "cache_write_input_tokens": 10, "output_tokens": 20, "reasoning_output_tokens": 0, "total_tokens": 135}
    assert end["output"] == [{"type": "text", "text": "a"}] and end["error"] is None


def test_the_record_reads_as_one_conversation_though_cache_marks_wander(up):
    mark = {"cache_control": {"type": "ephemeral"}}
    first = body(messages=[{"role": "user", "content": [{"type": "text", "text": "[scenario shell]", **mark}]}], stream=False)
    _, reply = through(up, first)
    second = answered({**first, "messages": [{"role": "user", "content": [{"type": "text", "text": "[scenario shell]"}]}]}, reply, "from-the-shell")
    second["messages"][-1]["content"][-1].update(mark)
    through(up, second)
    up.ended(2)
    start = [r for r in up.record() if r["phase"] == "start"][1]
    assert start["input_from"] == 1 and start["input_echoed"] == 1
    assert start["input_delta"] == [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": reply["content"][0]["id"], "content": "from-the-shell"}]}]


def test_each_api_goes_to_a_provider_that_speaks_it(site):
    def named(name):
        return lambda conn, headers, data: conn.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(name) + 2}\r\n\r\n\"{name}\"".encode())
    site.upstream(named("one"))
    two = site.upstream(named("two"))
    site.providers = {"one": {**site.providers["own"], "base_url": site.providers["own"]["base_url"].replace(str(two.port), str(site.closers[0].port))},
                      "two": {**site.providers["own"], "wire": "messages"}}
    site.gateway()
    assert through(site, body()) == (200, "two") and site.ask() == (200, "one")
    assert through(site, body(), auth=token(provider="one")) == (200, "two")  # the default one, which speaks only the other
    status, reply = site.ask(auth=token(provider="two"))
    assert status == 403 and "does not speak the Responses API" in reply["error"]["message"]


def test_an_error_after_the_advance_is_told_in_this_apis_form(site):
    import threading
    go = threading.Event()

    def answer(conn, headers, data):
        go.wait(120)
        conn.sendall(b"HTTP/1.1 529 Overloaded\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    site.upstream(answer)
    site.limits = {"early_ms": 50, "probe_ms": 20}
    gateway(site)
    conn, reply = site.open(url="/v1/messages", doc=body(), auth=token())
    assert reply.status == 200
    go.set()
    data = reply.read()
    conn.close()
    assert events(data)[-1]["type"] == "error" and "529" in events(data)[-1]["error"]["message"]
    assert site.ended()[0]["status"] == 529
