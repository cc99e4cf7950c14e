"""What a hostile client may send to the served models: it is refused, and nobody else waits for it."""

import contextlib
import http.client
import json
import random
import socket
import threading
import time

import pytest

from jupyter_gpt.server import server as limits

TOKEN = "a-token-of-our-own"


@pytest.fixture
def served(request, gpt, tiny_model, monkeypatch):
    """A session that serves the model `tiny`; a connection without a request is closed after a minute, or `param` s."""
    monkeypatch.setenv("SERVED_TOKEN", TOKEN)
    monkeypatch.setattr(limits, "IDLE_TIMEOUT", getattr(request, "param", 60.0))
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 20)
    tiny_model(gpt, "tiny", chat=True)
    server = gpt.serve(port=0, token_env="SERVED_TOKEN")
    yield gpt
    server.stop()


def post(session, body, path="/v1/completions", token=TOKEN, timeout=60) -> tuple[int, dict]:
    """Status and JSON of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", session.serving.server.port, timeout=timeout)
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, body, {"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def slowest_beside(session, attack) -> float:
    """The longest that a harmless request took while `attack()` ran on threads of its own, in seconds."""
    over, times = threading.Event(), []

    def attacker():
        attack()
        over.set()

    thread = threading.Thread(target=attacker)
    thread.start()
    while not over.is_set() or not times:
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", session.serving.server.port, timeout=60)
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {TOKEN}"})
        assert connection.getresponse().status == 200
        connection.close()
        times.append(time.monotonic() - began)
        over.wait(0.05)
    thread.join()
    return max(times)


def nested(depth: int, kind: str) -> dict:
    """A schema of a few lines whose references, followed one by one, are 2**depth."""
    definitions = {}
    for n in range(depth):
        inner = {"$ref": f"#/$defs/d{n + 1}"} if n < depth - 1 else {"type": "integer"}
        definitions[f"d{n}"] = {
            "object": {"type": "object", "properties": {"a": inner, "b": inner}, "required": ["a", "b"]},
            "anyOf": {"anyOf": [inner, inner]},
            "allOf": {"allOf": [inner, inner]},
            "array": {"type": "array", "prefixItems": [inner, inner], "minItems": 2},
        }[kind]
    return {"$ref": "#/$defs/d0", "$defs": definitions}


@pytest.mark.parametrize("kind", ["object", "anyOf", "allOf", "array"])
def test_a_schema_of_nested_references_holds_nobody_up(served, kind):
    body = {"model": "tiny", "prompt": "The", "max_tokens": 4, "guided_json": nested(40, kind)}
    slowest = slowest_beside(served, lambda: post(served, body))
    assert slowest < 20  # it took for ever: the time itself is the machine's affair


def test_an_exponential_pattern_holds_nobody_up(served):
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}, "required": ["a"]}
    body = {"model": "tiny", "prompt": "The", "max_tokens": 40, "guided_json": schema, "n": 8}
    assert slowest_beside(served, lambda: post(served, body)) < 20


def test_prompts_times_samples_have_a_limit(served):
    status, told = post(served, {"model": "tiny", "prompt": ["The"] * 100, "n": 100})
    assert (status, told["error"]["param"]) == (400, "prompt")
    assert "100 prompts times n 100" in told["error"]["message"]


@pytest.mark.parametrize("served", [2.0], indirect=True)
def test_connections_without_a_request_are_closed_and_have_a_limit(served):
    address = ("127.0.0.1", served.serving.server.port)
    idle = [socket.create_connection(address, timeout=30) for _ in range(60)]
    for connection in idle[:10]:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n")  # headers that never end
    try:
        for connection in idle:
            with contextlib.suppress(ConnectionError):  # which is closed as well
                assert connection.recv(1000) == b""
    finally:
        for connection in idle:
            connection.close()
    assert post(served, {"model": "tiny", "prompt": "The", "max_tokens": 1})[0] == 200


def test_a_body_is_not_read_before_the_token(served):
    with socket.create_connection(("127.0.0.1", served.serving.server.port), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer no\r\nContent-Length: 9000000\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 401")
    big = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"
    address = ("127.0.0.1", served.serving.server.port)
    with contextlib.suppress(ConnectionError), socket.create_connection(address, timeout=30) as connection:
        connection.sendall(big)  # it may be closed while this is still being sent
        assert not connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_model_of_scores_is_not_served(served):
    texts = [{"text": f"Fox {n} was {label}.", "label": label} for label in ("glad", "sad") for n in range(8)]
    served.classify("mood", "$texts", "tiny", variables={"texts": texts}, steps=1)
    status, told = post(served, {"model": "mood", "prompt": "The"})
    assert (status, told["error"]["message"]) == (400, "mood gives scores and writes no text: it is not served")


ODD = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    10**30,
    -(10**30),
    0.5,
    float("nan"),
    float("inf"),
    "",
    "a",
    "\ud800",
    "\0",
    "a" * 2000,
    [],
    [[]],
    ["a"],
    ["a", 3],
    [5],
    [-1],
    [10**20],
    [True],
    {},
    {"a": 1},
    {"type": "json_schema"},
    {"type": "json_schema", "json_schema": {"schema": {"$ref": "#"}}},
    {"type": "json_schema", "json_schema": 5},
    {"type": 3},
    [{"role": "user", "content": "\ud800"}],
    [{"role": "user"}],
    [{"role": [], "content": []}],
    [{"role": "user", "content": [{"type": "text", "text": 3}]}],
    {"regex": "("},
    {"regex": "(a+)+$"},
    {"json": {"type": "x"}},
    {"choice": []},
    {"grammar": "start: start"},
    {"regex": None},
]
FIELDS = [
    "model",
    "prompt",
    "messages",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "min_tokens",
    "stop",
    "seed",
    "logprobs",
    "top_logprobs",
    "stream",
    "stream_options",
    "response_format",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "tools",
    "logit_bias",
    "best_of",
    "echo",
    "suffix",
    "user",
    "store",
]


def test_no_field_fails_the_server(served, caplog):
    chosen = random.Random(0)
    for _ in range(600):
        chat = chosen.random() < 0.5
        body = {"model": "tiny", "max_tokens": 2}
        body |= {"messages": [{"role": "user", "content": "The"}]} if chat else {"prompt": "The"}
        body |= {chosen.choice(FIELDS): chosen.choice(ODD) for _ in range(chosen.randint(1, 3))}
        body["stream"] = False if body.get("stream") is True else body.get("stream")
        if isinstance(body.get("max_tokens"), int) and body["max_tokens"] > 2:
            body["max_tokens"] = 2
        status, told = post(served, body, "/v1/chat/completions" if chat else "/v1/completions")
        assert status in (200, 400, 404), (status, told, body)
        if status != 200:
            assert "\n" not in told["error"]["message"] and len(told["error"]["message"]) <= 300, (told, body)
    for body in (b"[" * 200_000, b'{"a":' * 100_000, b'{"model": "tiny", "prompt": ' + b"[" * 100_000):
        assert post(served, body)[0] == 400
    assert "failed" not in caplog.text
