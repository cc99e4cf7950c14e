"""A model to the hub: what is sent, the model card, and what is said where it cannot be."""

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import yaml

from helpers.errors import fail

TOKEN = "hf_a_token_of_the_test"


@pytest.fixture
def hub(monkeypatch):
    """A hub that takes commits: `hub.files` by name, `hub.made` what was asked for; `hub.refuses` is a status."""
    found = SimpleNamespace(files={}, made=[], refuses=None, tokens=set())

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer({})

        def do_GET(self):
            self.answer({"error": "there is no such page"}, 404)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.tokens.add(self.headers["Authorization"])
            if found.refuses:
                return self.answer({"error": f"no rights with {TOKEN}"}, found.refuses)
            if self.path == "/api/repos/create":
                found.made.append(json.loads(body))
                return self.answer({"url": f"{address}/me/fox"})
            if "/preupload/" in self.path:
                asked = json.loads(body)["files"]
                modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]
                return self.answer({"files": modes})
            if "/commit/" in self.path:
                for line in body.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        found.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                return self.answer({"commitUrl": f"{address}/me/fox/commit/1", "commitOid": "1", "hookOutput": ""})
            return self.answer({})

        def answer(self, page: dict, status: int = 200):
            body = json.dumps(page).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield found
    server.shutdown()
    server.server_close()


def front(card):
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.S)[1])


def test_the_folder_and_its_card_are_on_the_hub(gpt, train, hub, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    run = train("fox", steps=4, eval_every=2)
    pushed = gpt.push("fox", "me/fox")
    assert pushed.url.endswith("/me/fox") and TOKEN not in repr(pushed)
    assert hub.made[0]["name"] == "fox" and "private" not in str(hub.made)
    assert hub.tokens == {f"Bearer {TOKEN}"}
    for name, data in hub.files.items():
        (tmp_path / name).write_bytes(data)
        assert str(gpt.models["fox"].folder.parent).encode() not in data
    loaded, kept = AutoModelForCausalLM.from_pretrained(tmp_path), gpt.models["fox"].module
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), kept.parameters(), strict=True))
    card = hub.files["README.md"].decode()
    assert card == pushed.card and front(card)["library_name"] == "transformers" and "license" not in front(card)
    loss = [event["val_loss"] for event in run.events if event["event"] == "evaluation"][-1]
    assert f"| validation loss, nats per token | {loss:.3f} |" in card and "After 4 of 4 steps" in card
    assert "| `$docs` | 1 |" in card and "Not stated" in card and "layers: 2" in card


def test_an_adapters_card_names_its_base_and_its_licence(gpt, tiny_model, hub):
    tiny_model(gpt, "base")
    gpt.models.about("base").licence = "Apache-2.0"
    gpt.sft("tuned", [("a", "b")] * 4, "base", lora=2, steps=2)
    card = gpt.push("tuned", "me/tuned", private=True).card
    assert hub.made[0].get("private") or hub.made[0]["visibility"] == "private", "by what the client calls it"
    assert {"license": "apache-2.0", "library_name": "peft"}.items() <= front(card).items()
    assert "PeftModel.from_pretrained" in card and "`base` is not on the Hugging Face hub" in card
    assert front(gpt.push("tuned", "me/tuned", licence="mit").card)["license"] == "mit"


def test_a_dry_run_sends_nothing_and_shows_what_would_be(gpt, tiny_model, hub, monkeypatch):
    tiny_model(gpt, "fox")
    monkeypatch.delenv("HF_TOKEN")
    shown = gpt.push("fox", "me/fox", dry_run=True).text
    assert "model.safetensors" in shown and "# fox" in shown and "public if it is new" in shown
    assert hub.made == [] and hub.files == {}


def test_what_is_said_where_it_cannot_be(gpt, tiny_model, hub, monkeypatch):
    tiny_model(gpt, "fox")
    assert fail(gpt.push, "fox", "fox") == "fox has no owner: write owner/fox"
    assert "is not a repository of the hub" in fail(gpt.push, "fox", "me/../fox")
    hub.refuses = 403
    message = fail(gpt.push, "fox", "me/fox")
    assert message.startswith("fox was not pushed: the hub answered 403") and "no rights" in message
    assert TOKEN not in message and "\n" not in message
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    assert fail(gpt.push, "fox", "me/fox").startswith("fox was not pushed: the hub cannot be reached")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "needs a token" in fail(gpt.push, "fox", "me/fox")


def test_no_path_of_this_machine_is_in_a_card(gpt, tmp_path, hub):
    from helpers.tiny import DOCUMENTS, TINY

    (tmp_path / "books.txt").write_text("\n\n".join(DOCUMENTS))
    gpt.pretrain("fox", {str(tmp_path / "books.txt"): 1.0}, steps=2, **TINY)
    card = gpt.push("fox", "me/fox", dry_run=True).text
    assert "books.txt" in card and str(tmp_path) not in card
