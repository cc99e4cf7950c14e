"""The losses of small runs of the stages, to be compared between devices."""

DOCUMENTS = [
    f"The {a} {b} saw {n} small birds and was {c}. It sang."
    for n in range(2, 12)
    for a in ("old", "red")
    for b in ("fox", "hen")
    for c in ("glad", "sad")
]
TINY = {
    "depth": 2,
    "width": 64,
    "heads": 4,
    "context": 32,
    "vocab_size": 300,
    "batch_tokens": 128,
    "rows": 2,
    "steps": 3,
    "sample_every": 3,
    "eval_every": 3,
}
ROWS = [{"prompt": f"How many birds saw {n} hens?", "completion": f"{n} birds."} for n in range(30)]
SFT = {"context": 32, "batch_tokens": 128, "steps": 3, "answer_tokens": 4, "sample_every": 3, "eval_every": 3}
PROMPTS = [f"Tale {n}. The old fox" for n in range(6)]
RL = {"max_tokens": 6, "prompts_per_step": 2, "samples": 4, "steps": 2, "eval_every": 2}


def stage_losses(gpt, suffix: str, dtype: str = "float32") -> dict[str, list[float]]:
    """The loss of every step, by stage: what no sampling decides. The models' names end in `suffix`."""
    from jupyter_gpt.stages.rankings import Ranking

    base, taste = f"base{suffix}", gpt.rankings.named(f"taste{suffix}")
    texts = [(f"The fox saw {n} {word} birds.", word) for n in range(8) for word in ("glad", "sad")]
    for n in range(8):
        pair = tuple({"model": base, "text": f"{text} {n}", "seed": 0} for text in ("saw 3 birds.", "xx xx"))
        taste.add(Ranking(PROMPTS[n % len(PROMPTS)], pair, ((0,), (1,)), time=float(n)))
    runs = {"pretrain": gpt.pretrain(base, {"$docs": 1.0}, variables={"docs": DOCUMENTS}, **{**TINY, "dtype": dtype})}
    gpt.models.load(base, dtype)
    runs |= {
        "sft": gpt.sft(f"full{suffix}", ROWS, base, dtype=dtype, **SFT),
        "sft, LoRA": gpt.sft(f"chat{suffix}", ROWS, base, dtype=dtype, lora=4, **SFT),
        "classify": gpt.classify(f"mood{suffix}", texts, base, dtype=dtype, steps=3, lora=4),
        "reward": gpt.reward(f"judge{suffix}", rankings=taste.name, base=base, dtype=dtype, steps=3),
        "dpo": gpt.rlhf(
            f"policy{suffix}", policy=base, algo="dpo", rankings=taste.name, dtype=dtype, lora=4, max_tokens=6, steps=3
        ),
    }
    return {stage: [e["loss"] for e in run.events if e["event"] == "step"] for stage, run in runs.items()}
