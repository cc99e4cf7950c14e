"""Endpoints against a server of our own that does what real ones do: answer, dawdle, refuse, babble, hang up."""

import io
import json
import logging
import threading
import time
import traceback
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference import remote
from jupyter_gpt.inference.completion import Sampling
from jupyter_gpt.inference.remote import cost
from jupyter_gpt.inference.remote_errors import without_key
from jupyter_gpt.models.endpoints import Endpoint

KEY = "sk-Very-Secret-0123456789"


def last(completions):
    """The whole completion."""
    *_, completion = completions
    return completion


class Fake(ThreadingHTTPServer):
    """Answers each request with `self.answer(handler, body)`; `asked` keeps the bodies."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.headers, self.answer = [], [], None

    def handle_error(self, request, client_address):
        """A client that hung up is no news here."""

    def endpoint(self, **more) -> Endpoint:
        facts = {"name": "fake", "model": "m", "key_env": "FAKE_KEY", "timeout": 5.0, "retries": 0}
        return Endpoint.of(base_url=f"http://127.0.0.1:{self.server_port}/v1", **{**facts, **more})


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.headers.append(self.headers)
        self.server.answer(self, body)

    def do_GET(self):
        self.send(200, {"object": "list", "data": [{"id": "llama", "object": "model"}]})

    def send(self, status, body, kind="application/json"):
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def events(self, *messages, done=True):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for message in [*messages, *(["[DONE]"] if done else [])]:
            text = message if isinstance(message, str) else json.dumps(message)
            self.wfile.write(f"data: {text}\n\n".encode())
            self.wfile.flush()

    def log_message(self, *_):
        pass


def piece(text=None, index=0, finish=None, **more) -> dict:
    delta = {} if text is None else {"content": text}
    return {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "m",
        "choices": [{"index": index, "delta": delta, "finish_reason": finish, **more}],
    }


USAGE = {
    "id": "x",
    "object": "chat.completion.chunk",
    "created": 0,
    "model": "m",
    "choices": [],
    "usage": {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
}


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setenv("FAKE_KEY", KEY)
    server = Fake()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(endpoint, asked="Hello?", **settings):
    return last(remote.complete(endpoint, asked, Sampling(**settings)))


def error_of(endpoint, **settings) -> str:
    """The one line of the error, checked never to hold the key, in its traceback neither."""
    with pytest.raises(GPTError) as caught:
        ask(endpoint, **settings)
    whole = "".join(traceback.format_exception(caught.value))
    assert KEY not in whole
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_streams_and_counts(fake):
    fake.answer = lambda h, body: h.events(piece("Good "), piece("day"), piece(finish="stop"), USAGE)
    steps = list(remote.complete(fake.endpoint(), "Hello?", Sampling(temperature=0.5, top_p=0.9, stop=("\n",), seed=3)))
    assert [step.text for step in steps][:2] == ["Good ", "Good day"]
    done = steps[-1]
    assert (done.text, done.finish_reason, done.model, done.samples) == ("Good day", "stop", "fake", [done])
    assert (done.prompt_tokens, done.usage.completion_tokens, done.usage.cost) == (7, 2, None)
    assert done.usage.cached_tokens == 4
    assert done.messages == [{"role": "user", "content": "Hello?"}]
    assert json.loads(done.prompt) == done.messages
    body = fake.asked[0]
    assert (body["model"], body["temperature"], body["top_p"], body["stop"], body["seed"], body["max_tokens"]) == (
        "m",
        0.5,
        0.9,
        ["\n"],
        3,
        256,
    )
    assert "n" not in body
    assert fake.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_samples_and_logprobs(fake):
    def told(token):
        return {
            "content": [
                {
                    "token": token,
                    "logprob": -0.5,
                    "bytes": None,
                    "top_logprobs": [
                        {"token": "no", "logprob": -2.0, "bytes": None},
                        {"token": token, "logprob": -0.5, "bytes": None},
                    ],
                }
            ]
        }

    fake.answer = lambda h, body: h.events(
        piece("b", 1, logprobs=told("b")),
        piece("a", 0, logprobs=told("a")),
        piece(index=0, finish="stop"),
        piece(index=1, finish="length"),
        USAGE,
    )
    done = ask(fake.endpoint(), samples=2, logprobs=2)
    assert [(s.text, s.finish_reason) for s in done.samples] == [("a", "stop"), ("b", "length")]
    assert (done.tokens, done.logprobs, done.top) == (["a"], [-0.5], [(("a", -0.5), ("no", -2.0))])
    assert (fake.asked[0]["n"], fake.asked[0]["logprobs"], fake.asked[0]["top_logprobs"]) == (2, True, 2)


def test_a_server_with_one_sample_a_request_is_asked_for_each(fake):
    fake.answer = lambda h, body: h.events(piece(f"seed {body['seed']}"), piece(finish="stop"), USAGE)
    done = ask(fake.endpoint(), samples=4, seed=10)
    assert [s.text for s in done.samples] == ["seed 10", "seed 11", "seed 12", "seed 13"]
    assert (done.prompt_tokens, done.usage.completion_tokens) == (28, 8)
    assert "one by one" in done.notes[0]


def test_what_a_server_does_not_take_is_left_out_and_said(fake):
    def answer(h, body):
        for name, word in (
            ("max_tokens", "max_completion_tokens instead"),
            ("logprobs", ""),
            ("temperature", ""),
        ):
            if name in body:
                message = f"Unsupported parameter: '{name}' is not supported with this model. Use {word}."
                return h.send(400, {"error": {"message": message, "param": name, "type": "invalid_request_error"}})
        return h.events(piece("ok"), piece(finish="stop"), USAGE)

    fake.answer = answer
    done = ask(fake.endpoint(), logprobs=3, max_tokens=9)
    assert done.text == "ok"
    assert fake.asked[-1]["max_completion_tokens"] == 9
    assert not {"max_tokens", "logprobs", "top_logprobs", "temperature"} & set(fake.asked[-1])
    assert [note.split(":")[0] for note in done.notes] == [
        "the endpoint takes no logprobs",
        "the endpoint takes no temperature",
    ]


def test_a_server_without_streaming_and_without_counts(fake):
    whole = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "all at once"}, "finish_reason": "stop"}]
    }
    fake.answer = lambda h, body: h.send(200, whole)
    done = ask(fake.endpoint())
    assert (done.text, done.usage.cost) == ("all at once", None)
    assert "does not count tokens" in done.notes[0]


def test_a_stream_without_an_end_is_cut(fake):
    def babble(handler, piece):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        while True:
            handler.wfile.write(piece)

    def event(delta):
        return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'finish_reason': None}]})}\n\n".encode()

    for delta in ({"content": "and so on "}, {"reasoning_content": "hm"}, {"content": ""}):
        fake.answer = lambda h, body, delta=delta: babble(h, event(delta))
        done = ask(fake.endpoint(), max_tokens=50)
        assert done.finish_reason == "length" and len(done.text) < 10_000
        assert "the endpoint does not stop at 50 tokens: its answer was cut" in done.notes
    fake.answer = lambda h, body: babble(h, b"x" * 4096)
    assert "answers with a line of more than 1 MB" in error_of(fake.endpoint())
    fake.answer = lambda h, body: h.send(200, " " * (65 << 20) + "{}")
    assert "answers with more than 64 MB" in error_of(fake.endpoint())


def test_a_base_model_gets_the_raw_document(fake):
    fake.answer = lambda h, body: h.events({"choices": [{"index": 0, "text": " a time", "finish_reason": "stop"}]})
    done = ask(fake.endpoint(chat=False), "Once upon", logprobs=1, top_k=5)
    assert (done.text, done.prompt, done.messages) == (" a time", "Once upon", None)
    assert (fake.asked[0]["prompt"], fake.asked[0]["logprobs"], fake.asked[0]["top_k"]) == ("Once upon", 1, 5)


def test_many_prompts_at_once(fake):
    meet = threading.Barrier(4, timeout=60)

    def answer(h, body):
        meet.wait()
        h.events(piece(body["messages"][0]["content"].upper()), piece(finish="stop"), USAGE)

    fake.answer = answer
    done = remote.complete_all(fake.endpoint(), ["a", "b", "c", "d"], Sampling())
    assert [one.text for one in done] == ["A", "B", "C", "D"]


def test_a_proxy_of_the_environment_is_not_for_this_machine(fake, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    fake.answer = lambda h, body: h.events(piece("ok"), piece(finish="stop"), USAGE)
    assert ask(fake.endpoint()).text == "ok"


def test_retries(fake):
    def answer(h, body):
        if len(fake.asked) == 1:
            return h.send(503, {"error": {"message": "busy"}})
        return h.events(piece("ok"), piece(finish="stop"), USAGE)

    fake.answer = answer
    assert ask(fake.endpoint(retries=1)).text == "ok"


def test_down_slow_and_gone(fake):
    down = fake.endpoint()
    slow = fake.endpoint(timeout=0.2)
    fake.answer = lambda h, body: time.sleep(1)
    assert error_of(slow) == "endpoint fake sent nothing for 0.2 s: it is slow or stuck; --timeout gives it longer"

    def stalls(h, body):
        h.events(piece("Good "), done=False)
        time.sleep(1)

    fake.answer = stalls
    assert "sent nothing for 0.2 s" in error_of(slow)
    fake.answer = lambda h, body: h.events(piece("Good "), done=False)
    assert error_of(down).startswith("endpoint fake closed the connection before its answer was whole")

    def cut_off(h, body):
        h.send_response(200)
        h.send_header("Content-Type", "text/event-stream")
        h.send_header("Content-Length", "100000")
        h.end_headers()
        h.wfile.write(b"data: {")

    fake.answer = cut_off
    assert "endpoint fake" in error_of(down)
    fake.answer = lambda h, body: h.connection.close()
    assert f"cannot be reached at {down.base_url}" in error_of(down)
    fake.shutdown()
    fake.server_close()
    assert f"cannot be reached at {down.base_url}: Connection refused" in error_of(down)


@pytest.mark.parametrize(
    "answer",
    [
        lambda h: h.send(200, "<html>It works!</html>", "text/html"),
        lambda h: h.send(200, "not json"),
        lambda h: h.send(200, {"hello": 1}),
        lambda h: h.send(200, [1, 2]),
        lambda h: h.events("{broken"),
        lambda h: h.events("17"),
        lambda h: h.events({"choices": "none"}),
        lambda h: h.events({"choices": [3]}),
        lambda h: h.events({"choices": [{"index": 0, "delta": {"content": 5}}]}),
        lambda h: h.events(),
    ],
)
def test_garbage(fake, answer):
    fake.answer = lambda h, body: answer(h)
    line = error_of(fake.endpoint())
    assert line.startswith("endpoint fake answers ")
    assert line.endswith("the right --base-url?")


def test_statuses(fake):
    said = {"error": {"message": f"Incorrect API key provided: {KEY[:12]}***. Or {KEY}?"}}
    endpoint = fake.endpoint()
    fake.answer = lambda h, body: h.send(401, said)
    assert error_of(endpoint) == (
        "endpoint fake refuses the key in FAKE_KEY (401): Incorrect API key provided: …***. Or …?"
    )
    assert error_of(fake.endpoint(key_env=None)) == (
        "endpoint fake needs an API key (401): declare it again with --key-env VARIABLE"
    )
    fake.answer = lambda h, body: h.send(404, {"error": {"message": "no such model"}})
    assert error_of(endpoint) == "endpoint fake has no model m (404) (there is llama)"
    fake.answer = lambda h, body: h.send(429, {"error": {"message": "slow down"}})
    assert error_of(endpoint) == (
        "endpoint fake refuses further requests for now (429: rate limit or quota): slow down"
    )
    fake.answer = lambda h, body: h.send(500, "<html>oops</html>", "text/html")
    assert error_of(endpoint) == "endpoint fake failed on its side (500)"
    fake.answer = lambda h, body: h.send(400, {"error": {"message": "temperature is at most 2"}})
    assert error_of(endpoint) == "endpoint fake refuses the request (400): temperature is at most 2"
    fake.answer = lambda h, body: h.events({"error": {"message": "out of memory"}})
    assert error_of(endpoint) == "endpoint fake failed while it answered: out of memory"


def test_the_key_is_wanted_and_never_told(fake, monkeypatch, caplog):
    fake.answer = lambda h, body: h.events(piece("ok"), piece(finish="stop"), USAGE)
    endpoint, stream = fake.endpoint(), io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    try:
        with caplog.at_level(logging.DEBUG):
            done = ask(endpoint)
    finally:
        logging.getLogger().removeHandler(handler)
    for told in (caplog.text, stream.getvalue(), repr(endpoint), repr(done), json.dumps(done.as_dict())):
        assert KEY not in told
    monkeypatch.delenv("FAKE_KEY")
    assert "FAKE_KEY" in error_of(endpoint)
    monkeypatch.setenv("FAKE_KEY", "two words\nand lines")
    line = error_of(endpoint)
    assert "FAKE_KEY" in line
    assert "two words" not in line


def test_pieces_of_a_key_are_struck_out():
    assert without_key(f"key {KEY[4:]} and {KEY[:9]}!", KEY) == "key … and …!"
    assert without_key("nothing of it", KEY) == "nothing of it"


def test_prices_are_known_or_none():
    assert cost("https://api.openai.com/v1", "gpt-4o-mini", 1000, 1000) > 0
    assert cost("https://api.openai.com/v1", "no-such-model", 1000, 1000) is None
    assert cost("http://127.0.0.1:8000/v1", "gpt-4o-mini", 1000, 1000) is None
    assert cost("https://api.openai.com/v1", "gpt-4o-mini", None, 1000) is None


@pytest.mark.parametrize("status", [301, 307, 308])
def test_a_prompt_is_not_sent_on_to_another_address(fake, monkeypatch, status):
    monkeypatch.setenv("FAKE_KEY", KEY)
    other = Fake()
    threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()

    def redirect(handler, body):
        handler.send_response(status)
        handler.send_header("Location", f"http://localhost:{other.server_port}/v1/chat/completions")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    fake.answer = redirect
    assert f"sends requests on to another address ({status})" in error_of(fake.endpoint())
    assert len(fake.asked) == 1 and other.asked == []
    other.shutdown()
    other.server_close()


def test_a_key_over_plain_http_warns(tmp_path, monkeypatch):
    from jupyter_gpt.models.endpoints import EndpointOptions, Endpoints

    def declare(name, address, **more):
        Endpoints().declare(EndpointOptions.of(name=name, base_url=address, model="m", **more))

    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path))
    monkeypatch.setenv("FAKE_KEY", KEY)
    with pytest.warns(UserWarning, match="the key in FAKE_KEY goes to example.com over plain http") as caught:
        declare("far", "http://example.com/v1", key_env="FAKE_KEY")
    assert KEY not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        declare("near", "http://127.0.0.1:8000/v1", key_env="FAKE_KEY")
        declare("safe", "https://example.com/v1", key_env="FAKE_KEY")
        declare("open", "http://example.com/v1")
