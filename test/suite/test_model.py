"""The scripted model from outside."""
import http.client
import json
import socket
import subprocess

import pytest
from gateway_site import PROGRAM, PROVIDER_KEY, Site, UnixConnection, body, events, wait_for

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"{PROGRAM} is not built")


@pytest.fixture
def site():
    one = Site()
    yield one
    one.close()


def ask(port, doc, key=PROVIDER_KEY, method="POST", url="/v1/responses"):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    conn.request(method, url, json.dumps(doc) if doc is not None else None, {"Content-Type": "application/json", "Authorization": f"Bearer {key}"})
    reply = conn.getresponse()
    data = reply.read()
    conn.close()
    return reply.status, data


def script(site, text):
    path = site.dir / "own.yaml"
    path.write_text(text)
    return path


def test_a_stream_has_its_events_in_order(site):
    port = site.model()
    status, data = ask(port, body("[scenario refuse]"))
    kinds = [e["type"] for e in events(data)]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert "response.refusal.delta" in kinds
    assert [e["sequence_number"] for e in events(data)] == list(range(len(kinds)))


def test_deltas_add_up_to_the_text_also_in_other_alphabets(site):
    text = "Grüße, 世界! " * 40
    port = site.model(script=script(site, f"scenarios: [{{default: true, steps: [{{say: '{text}'}}]}}]"))
    got = events(ask(port, body())[1])
    assert "".join(e["delta"] for e in got if e["type"] == "response.output_text.delta") == text
    assert got[-1]["response"]["output"][0]["content"][0]["text"] == text


def test_without_stream_the_whole_response_is_given(site):
    port = site.model()
    status, data = ask(port, body(stream=False))
    assert json.loads(data)["output"][0]["content"][0]["text"] == "Nothing to do."


def test_a_final_answer_is_filled_up_to_the_schema(site):
    port = site.model()
    schema = {"type": "object", "properties": {"status": {"type": "string"}, "n": {"type": "integer"}, "list": {"type": "array"}, "maybe": {"type": ["string", "null"]}}}
    status, data = ask(port, body("[scenario blocked]", stream=False) | {"text": {"format": {"type": "json_schema", "schema": schema}}})
    answer = json.loads(json.loads(data)["output"][0]["content"][0]["text"])
    assert answer["status"] == "blocked" and answer["n"] == 0 and answer["list"] == [] and answer["maybe"] is None


def test_the_key_is_asked_for(site):
    port = site.model()
    assert ask(port, body(), key="wrong")[0] == 401
    assert ask(port, None, key="wrong", method="GET", url="/v1/models")[0] == 401
    assert json.loads(ask(port, None, method="GET", url="/v1/models")[1])["data"][0]["object"] == "model"


def test_a_prompt_without_a_scenario_is_a_400_that_says_so(site):
    port = site.model(script=script(site, "scenarios: [{match: abc, steps: [{say: x}]}]"))
    status, data = ask(port, body("xyz"))
    assert status == 400 and "no scenario matches" in json.loads(data)["error"]["message"]


def test_what_was_asked_is_logged_and_kept(site):
    port = site.model("--record", site.dir / "asked")
    ask(port, body("hello there"))
    line = wait_for("the log line", site.asked)[0]
    assert line["prompt"] == "hello there" and line["scenario"] == "default"
    assert json.loads((site.dir / "asked/000001.json").read_text()) == body("hello there")


def test_it_listens_on_a_unix_socket_too(site):
    path = site.dir / "m.sock"
    site.spawn(PROGRAM, "model", "--script", site.all_scenarios(), "--listen", path, name="unix")
    wait_for("its word", lambda: f"listening on {path}" in (site.dir / "unix.out").read_text())
    conn = UnixConnection(path)
    conn.request("GET", "/v1/models")
    assert conn.getresponse().status == 200
    conn.close()


@pytest.mark.parametrize("doc", [[], {"input": 5}, {"input": []}, {"input": [{"role": "assistant", "content": "x"}]}, {"input": [1, None, "x"]}])
def test_a_request_that_makes_no_sense_is_a_400(site, doc):
    assert ask(site.model(), doc)[0] == 400


@pytest.mark.parametrize("text,words", [
    ("scenarios: [{match: a, steps: [{sya: x}]}]", "scenarios[0].steps[0].sya: no such step, expected one of say"),
    ("scenarios: 5", "scenarios: expected a list"),
    ("a: [", "own.yaml"),
])
def test_a_bad_scenario_file_is_refused_with_its_place(site, text, words):
    done = subprocess.run([PROGRAM, "model", "--script", script(site, text), "--check"], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and words in done.stderr and "doc/scenario.md" in done.stderr


@pytest.mark.parametrize("argv", [[], ["--script"], ["--scirpt", "x"], ["--script", "/nowhere.yaml"], ["extra", "--script", "x"]])
def test_a_wrong_command_line_is_explained(argv):
    done = subprocess.run([PROGRAM, "model", *argv], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and done.stderr.startswith("signalbox model: ")


def test_a_stop_does_not_wait_for_what_hangs(site):
    port = site.model()
    child = site.children[0]
    with socket.create_connection(("127.0.0.1", port), timeout=120) as conn:
        data = json.dumps(body("[scenario hang]")).encode()
        conn.sendall(b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer " + PROVIDER_KEY.encode()
                     + f"\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        wait_for("the request", site.asked)
        child.terminate()
        assert child.wait(120) == 0
