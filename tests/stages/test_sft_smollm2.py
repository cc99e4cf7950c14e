"""`%%sft --lora` on SmolLM2 as a stranger uses it: the base stays what it was, and peft alone reads the adapter."""

import hashlib
import subprocess
import sys

import torch

ROWS = [
    {"instruction": f"How many eggs has a hen with {n} nests?", "input": "", "output": f"{n} times six."}
    for n in range(12)
]
ELSEWHERE = """
import sys, torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
adapter, base, out = sys.argv[1:]
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
tokenizer = AutoTokenizer.from_pretrained(adapter)
asked = tokenizer.apply_chat_template([{"role": "user", "content": "Why?"}], tokenize=False, add_generation_prompt=True)
with torch.no_grad():
    save_file({"logits": model(**tokenizer(asked, return_tensors="pt")).logits}, out)
assert "jupyter_gpt" not in sys.modules
"""


def fingerprint(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_an_adapter_of_smollm2_is_read_in_a_process_that_knows_only_peft(gpt, smollm2, monkeypatch, tmp_path):
    from safetensors.torch import load_file

    monkeypatch.setenv("JUPYTER_GPT_CACHE", str(smollm2.parents[1]))
    before = fingerprint(smollm2 / "model.safetensors")
    base = gpt.models["smollm2-135m-instruct"]
    weights = {name: p.detach().clone() for name, p in base.module.named_parameters()}
    run = gpt.sft(
        "hens",
        ROWS,
        base.name,
        lora=8,
        steps=2,
        lr=1e-3,
        context=128,
        batch_tokens=256,
        answer_tokens=4,
        sample_every=2,
    )
    assert run.status == "finished" and run.events[-1]["status"] == "finished"
    assert all(torch.equal(weights[name], p) for name, p in base.module.named_parameters())
    assert fingerprint(smollm2 / "model.safetensors") == before
    model = gpt.models["hens"]
    assert model.has_chat and model.tokenizer.chat_template == base.tokenizer.chat_template, "its own template is kept"
    assert len({e["step"] for e in run.events if e["event"] == "sample"}) == 2
    out = tmp_path / "logits.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(model.folder), str(smollm2), str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    asked = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Why?"}], tokenize=False, add_generation_prompt=True
    )
    ids = model.tokenizer(asked, return_tensors="pt").input_ids
    with torch.no_grad():
        ours, plain = model.module(input_ids=ids).logits, base.module(input_ids=ids).logits
    assert torch.allclose(load_file(out)["logits"], ours, atol=1e-4, rtol=0)
    assert (ours - plain).abs().max() > 1e-3, "it has learned something"
