"""Embeddings: sentence-transformers' own vectors, whatever the batch; kernel models; a server's."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.endpoints import Endpoint
from jupyter_gpt.retrieval import embed

TEXTS = [
    "The old fox saw three small birds.",
    "It sang.",
    "",
    "A train is glad of leave. " * 20,
    "leave days",
    "café 🙂",
]


@pytest.fixture(scope="module")
def tiny(tiny_embedder):
    return embed.from_folder("tiny", tiny_embedder, "cpu", fast=False)


def cosines(a, b):
    return (np.asarray(a) * np.asarray(b)).sum(1)


@pytest.mark.parametrize("fast, least", [(False, 0.99999), (True, 0.999)])
def test_the_vectors_are_those_of_sentence_transformers(tiny_embedder, fast, least):
    peer = pytest.importorskip("sentence_transformers").SentenceTransformer(str(tiny_embedder), device="cpu")
    ours = embed.from_folder("tiny", tiny_embedder, "cpu", fast)
    assert cosines(embed.embed(ours, TEXTS), peer.encode(TEXTS)).min() > least


@pytest.mark.parametrize("mode", ["cls", "max", "lasttoken"])
def test_other_ways_of_pooling(tiny_embedder, tmp_path, mode):
    peers = pytest.importorskip("sentence_transformers")
    folder = shutil.copytree(tiny_embedder, tmp_path / mode)
    name = {"cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens", "lasttoken": "pooling_mode_lasttoken"}[
        mode
    ]
    settings = {
        "word_embedding_dimension": 32,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_cls_token": False,
        name: True,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    ours = embed.embed(embed.from_folder(mode, folder, "cpu", fast=False), TEXTS)
    assert cosines(ours, peers.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)).min() > 0.9999


def test_the_batch_makes_no_difference(tiny, monkeypatch):
    whole = embed.embed(tiny, TEXTS)
    monkeypatch.setitem(embed.AT_ONCE, "cpu", 8)
    assert np.allclose(whole, embed.embed(tiny, TEXTS), atol=1e-5)
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    assert embed.embed(tiny, []).shape == (0, 32)


def test_prompts_go_before_queries_and_documents(tiny_embedder, tmp_path):
    folder = shutil.copytree(tiny_embedder, tmp_path / "e5")
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "leave ", "document": ""}})
    )
    ours = embed.from_folder("e5", folder, "cpu", fast=False)
    assert np.allclose(embed.embed(ours, ["days"], "query"), embed.embed(ours, ["leave days"], "document"), atol=1e-6)


def test_what_is_not_known_is_refused(tiny_embedder, tmp_path):
    def refused(change):
        folder = shutil.copytree(tiny_embedder, tmp_path / "x", dirs_exist_ok=True)
        change(folder)
        with pytest.raises(GPTError, match=r"^[^\n]*$") as caught:
            embed.from_folder("x", folder, "cpu", fast=False)
        shutil.rmtree(folder)
        return str(caught.value)

    dense = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Dense"}]
    assert "Dense" in refused(lambda f: (f / "modules.json").write_text(json.dumps(dense)))
    assert "pickled" in refused(lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"))
    both = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}
    assert "mean + cls" in refused(lambda f: (f / "1_Pooling" / "config.json").write_text(json.dumps(both)))
    assert "cannot be loaded" in refused(lambda f: (f / "model.safetensors").write_bytes(b"no weights"))
    assert "not JSON" in refused(lambda f: (f / "modules.json").write_text("{"))


def test_a_model_of_the_kernel_by_its_averaged_states(tiny_model, tmp_path, monkeypatch):
    import torch

    from jupyter_gpt.session import Session

    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path / "home"))
    model = tiny_model(Session(), "base")
    ours = embed.of_model("base", model.module, model.tokenizer, 64)
    texts = ["The old fox.", "It sang of three small birds and was glad."]
    with torch.inference_mode():
        expected = [
            model.module(torch.tensor([model.tokenizer(t)["input_ids"]]), output_hidden_states=True)
            .hidden_states[-1][0]
            .mean(0)
            for t in texts
        ]
    expected = torch.nn.functional.normalize(torch.stack(expected), dim=1).numpy()
    assert cosines(embed.embed(ours, texts), expected).min() > 0.99999


def test_the_embeddings_of_a_server(monkeypatch):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers["Authorization"], body["model"], len(body["input"])))
            data = [
                {"index": i, "object": "embedding", "embedding": [3.0, float(len(text))]}
                for i, text in enumerate(body["input"])
            ]
            known = body["model"] == "small"
            answer = {
                "object": "list",
                "model": "small",
                "data": data[::-1],
                "usage": {"prompt_tokens": 1, "total_tokens": 1},
            }
            out = json.dumps(answer if known else {"error": {"message": "no such model"}}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        def log_message(self, *_):
            """Nothing: tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    address = f"http://127.0.0.1:{server.server_port}/v1"
    remote = embed.Remote(Endpoint.of(name="far", base_url=address, model="small", key_env="MY_KEY", retries=0))
    found = embed.embed(remote, ["four"] * 70)
    assert found.shape == (70, 2) and np.allclose(found, [0.6, 0.8])
    assert [(path, key, count) for path, key, _, count in asked] == [
        ("/v1/embeddings", "Bearer sk-very-secret", 64),
        ("/v1/embeddings", "Bearer sk-very-secret", 6),
    ]
    with pytest.raises(GPTError, match=r"^[^\n]*$") as caught:
        embed.embed(embed.Remote(remote.endpoint.replace(model="gone")), ["x"])
    assert "secret" not in str(caught.value)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("fast", [False, True])
def test_on_a_gpu_the_vectors_are_the_same(tiny_embedder, fast, monkeypatch):
    """One that is emulated: what is made in the wrong place is an error."""
    from helpers import recorder
    from helpers.emulated_gpu import GPU

    here = embed.embed(embed.from_folder("tiny", tiny_embedder, "cpu", fast), TEXTS)
    with GPU(monkeypatch, recorder) as gpu:
        there = embed.from_folder("tiny", tiny_embedder, "cuda", fast)
        assert there.module.device.type == "cuda"
        found = embed.embed(there, TEXTS)
        assert gpu.kernels.ran
    assert cosines(here, found).min() > 0.9999
