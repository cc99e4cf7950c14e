"""Models, runs and texts that are small enough for seconds. Imported by processes of their own too."""

TINY = {
    "depth": 2,
    "width": 32,
    "heads": 2,
    "context": 32,
    "vocab_size": 300,
    "batch_tokens": 128,
    "rows": 2,
    "sample_every": 1000,
}
DOCUMENTS = [
    f"The {a} {b} saw {n} small birds and was {c}. It sang."
    for n in range(2, 12)
    for a in ("old", "red", "tall")
    for b in ("fox", "hen")
    for c in ("glad", "sad")
]
TALES = [f"Tale {n}. The old fox saw {n} small birds and was glad. It sang: café, 🙂." for n in range(60)]
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_model(gpt, name="tiny", chat=False, context=64, seed=0):
    """Keep a model of random weights in a session. It has a BPE of its own; with `chat` also a chat template."""
    from helpers.recipes import pretraining_recipe
    from jupyter_gpt.data.tokenizer import delimiter, train_bpe
    from jupyter_gpt.stages.pretrain_training import build

    tokenizer = train_bpe(TALES, 320)
    tokenizer.chat_template = CHAT if chat else None
    recipe = pretraining_recipe({"stories": 1}, depth=1, width=32, heads=2, context=context, seed=seed)
    module = build(recipe, len(tokenizer), delimiter(tokenizer)).eval()
    return gpt.models.keep(name, module, tokenizer, "pretrain", None, [f"{name} (pretrain)"], 0)


def tiny_run(gpt, name="tiny", **options):
    """A run of pretraining on `$docs`."""
    return gpt.pretrain(name, {"$docs": 1.0}, variables={"docs": DOCUMENTS}, **{**TINY, **options})
