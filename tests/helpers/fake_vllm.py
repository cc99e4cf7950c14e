"""A server that speaks the part of vLLM's HTTP API that we use, with transformers' own forward; also a `vllm` command.

It samples by itself, token by token, so that it shares no code with the engine that it stands in for.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FakeVLLM(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder, name, port=0, development=True):
        super().__init__(("127.0.0.1", port), Handler)
        self.folder, self.name, self.development = Path(folder), name, development
        self.model, self.lock, self.paused, self.asked = None, threading.Lock(), False, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def load(self):
        from transformers import AutoModelForCausalLM

        if self.model is None:
            self.model = AutoModelForCausalLM.from_pretrained(self.folder, dtype="float32").eval()

    def reload_weights(self, weights_path):
        from safetensors.torch import load_file

        self.load()
        tensors = {}
        for file in Path(weights_path).glob("*.safetensors"):
            tensors |= load_file(file)
        missing, unexpected = self.model.load_state_dict(tensors, strict=False)
        tied = set(self.model._tied_weights_keys or ())
        if unexpected or set(missing) - tied:
            raise ValueError(f"these do not fit: {missing} {unexpected}")

    def complete(self, body):
        import torch

        self.load()
        assert body["temperature"] == 1.0 and body["return_token_ids"] and body["logprobs"] == 1
        publishers = {"top_p": 0.8, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.05}  # of generation_config.json
        filters = {name: body.get(name, value) for name, value in publishers.items()}
        assert filters == {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
        choices = []
        for index in range(body["n"]):
            generator = torch.Generator().manual_seed(body["seed"] + index)
            ids, nats, finish = list(body["prompt"]), [], "length"
            while len(nats) < body["max_tokens"]:
                with torch.no_grad():
                    logp = self.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
                token = int(torch.multinomial(logp.exp(), 1, generator=generator))
                ids.append(token)
                nats.append(float(logp[token]))
                if token in body["stop_token_ids"]:
                    finish = "stop"
                    break
            own = ids[len(body["prompt"]) :]
            logprobs = {"token_logprobs": nats, "tokens": [str(t) for t in own], "top_logprobs": [], "text_offset": []}
            choices.append(
                {"index": index, "text": "", "finish_reason": finish, "logprobs": logprobs, "token_ids": own}
            )
        return {"id": "cmpl-1", "object": "text_completion", "created": 0, "model": self.name, "choices": choices}


class Handler(BaseHTTPRequestHandler):
    server: FakeVLLM

    def log_message(self, *args):
        pass

    def answer(self, code, value):
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        if self.path == "/health":
            self.answer(200, {})
        else:
            self.answer(200, {"object": "list", "data": [{"id": self.server.name, "object": "model"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"] or 0)) or b"{}")
        server, path = self.server, self.path.partition("?")[0]
        server.asked.append((path, body))
        if path != "/v1/completions" and not server.development:
            return self.answer(404, {"detail": "Not Found"})
        try:
            with server.lock:
                if path in ("/pause", "/resume"):
                    server.paused = path == "/pause"
                    return self.answer(200, {"status": path})
                if path == "/collective_rpc":
                    assert server.paused and body["method"] == "reload_weights"
                    server.reload_weights(**body["kwargs"])
                    return self.answer(200, {"results": [None]})
                return self.answer(200, server.complete(body))
        except Exception as error:
            return self.answer(500, {"error": {"message": f"{type(error).__name__}: {error}"}})


def command(path):
    """Write a `vllm` into the folder `path` that starts this server; returns it."""
    script = path / "vllm"
    lines = (f"#!{sys.executable}", "import sys", f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})")
    script.write_text("\n".join([*lines, "from helpers.fake_vllm import main", "main()", ""]))
    script.chmod(0o755)
    return script


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("folder")
    for name in ("--served-model-name", "--host", "--generation-config", "--fail"):
        parser.add_argument(name)
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    print("loading", given.folder, flush=True)
    if given.fail:
        sys.exit(f"ValueError: {given.fail}")
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("worker", worker.pid, flush=True)
    server = FakeVLLM(given.folder, given.served_model_name, given.port, bool(os.environ.get("VLLM_SERVER_DEV_MODE")))
    server.serve_forever()
