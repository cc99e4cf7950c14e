"""Embeddings of texts as unit vectors, by a sentence-transformers model, any kernel model, or a server; rerankers.

The layout of a sentence-transformers folder is read (`modules.json`: transformer, pooling, normalize) and run with
plain transformers. Texts go through longest first, in batches of like length, so that little is padding; on a CPU that
multiplies bf16 in hardware its matrices are bf16, and the sums over tokens fp32. A kernel model is a causal LM: its
last hidden states, averaged over the text's tokens, are the vector.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_gpt.data.prompt_completion import batches
from jupyter_gpt.errors import GPTError
from jupyter_gpt.imports import without_garbage_collection

AT_ONCE = {"cpu": 2048, "cuda": 32768}  # tokens in a batch, padding counted
PAIRS = 16  # question and chunk pairs in a batch of a reranker
PROBE = "The quick brown fox reads 7 old letters about a garden."  # whose vector identifies an embedder
SAME = 0.999  # cosine of the probe's vector from which on the embedder is the same; bf16 and fp32 differ by 0.0001


@dataclass(repr=False)
class Encoder:
    """A transformer whose hidden states become one vector a text. `prompts` go before a query or a document.

    pooling: `mean`, `cls`, `max` or `lasttoken`. limit: tokens it reads of a text, its own special ones included.
    """

    name: str
    tokenizer: object
    module: object
    dimensions: int
    limit: int
    pooling: str = "mean"
    lower: bool = False
    prompts: dict[str, str] = field(default_factory=dict)

    remote = False

    @property
    def room(self) -> int:
        """Tokens of a chunk that are read, and not cut off."""
        return self.limit - self.tokenizer.num_special_tokens_to_add()

    def count(self, text: str) -> int:
        """How many tokens a text has, without special ones."""
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def ids(self, texts: Sequence[str], kind: str) -> list[list[int]]:
        """The tokens of each text, special ones included, cut at `limit`."""
        before = self.prompts.get(kind, "")
        texts = [before + (text.lower() if self.lower else text) for text in texts]
        encoded = self.tokenizer(texts, truncation=True, max_length=self.limit, verbose=False)["input_ids"]
        spare = self.tokenizer.eos_token_id or 0
        return [ids or [spare] for ids in encoded]  # a text of nothing has a vector all the same

    def batches(self, texts: Sequence[str], kind: str = "document") -> Iterator[tuple[list[int], object]]:
        """Places in `texts` and their vectors `(n, dimensions)`, fp32 numpy, a batch at a time, the longest first."""
        ids = self.ids(texts, kind) if texts else []
        most = AT_ONCE["cuda" if self.module.device.type == "cuda" else "cpu"]
        for places in batches([len(each) for each in ids], most):
            yield places, self.vectors([ids[i] for i in places])

    def vectors(self, ids: list[list[int]]):
        """Unit vectors `(n, dimensions)`, fp32 numpy, of texts given as tokens."""
        import torch
        from torch.nn.functional import normalize

        width, device = max(map(len, ids)), self.module.device
        pad = self.tokenizer.pad_token_id or 0
        tokens = torch.tensor([row + [pad] * (width - len(row)) for row in ids], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids], device=device)
        with torch.inference_mode():
            unpadded = bool(mask.all())
            hidden = self.module(input_ids=tokens, attention_mask=None if unpadded else mask).last_hidden_state
            return normalize(pooled(hidden.float(), mask, self.pooling), dim=1).cpu().numpy()


def pooled(hidden, mask, how: str):
    """One vector a text `(B, D)` from hidden states `(B, T, D)`; `mask` `(B, T)` is 1 for tokens, padded
    on the right.
    """
    import torch

    if how == "cls":
        return hidden[:, 0]
    last = mask.sum(1)
    if how == "lasttoken":
        return hidden[torch.arange(len(hidden), device=hidden.device), last - 1]
    if how == "max":
        return hidden.masked_fill(mask[..., None] == 0, float("-inf")).amax(1)
    return (hidden * mask[..., None]).sum(1) / last[:, None]


@dataclass(repr=False)
class Remote:
    """The embeddings of an OpenAI-compatible server. `endpoint` is a `session.endpoints.Endpoint`."""

    endpoint: object
    dimensions: int = 0

    remote = True
    room = 512  # not known from here; servers read that much at least

    @property
    def name(self) -> str:
        return self.endpoint.name

    def count(self, text: str) -> int:
        """About how many tokens: four characters of English each."""
        return len(text) // 4 + 1

    def batches(self, texts: Sequence[str], kind: str = "document") -> Iterator[tuple[list[int], object]]:
        """As `Encoder.batches`, 64 texts a request. Raises GPTError, one line, for whatever the server does not
        give.
        """
        import numpy as np

        from jupyter_gpt.inference.remote import connect
        from jupyter_gpt.inference.remote_errors import explain

        key = self.endpoint.key()
        client, failed = connect(self.endpoint, key), None
        try:
            for start in range(0, len(texts), 64):
                part = [text or " " for text in texts[start : start + 64]]
                answers = client.embeddings.create(model=self.endpoint.model, input=part, encoding_format="float").data
                vectors = np.array(
                    [one.embedding for one in sorted(answers, key=lambda one: one.index)], dtype=np.float32
                )
                if vectors.ndim != 2 or len(vectors) != len(part):
                    raise GPTError(f"endpoint {self.name} gave {len(vectors)} embeddings for {len(part)} texts")
                norms = np.linalg.norm(vectors, axis=1, keepdims=True)
                yield list(range(start, start + len(part))), vectors / np.maximum(norms, 1e-12)
        except GPTError:
            raise
        except Exception as error:  # whatever the client or its transport raises
            failed = explain(error, self.endpoint, key, client)
        finally:
            client.close()
        if failed is not None:
            raise failed


def embed(embedder, texts: Sequence[str], kind: str = "document"):
    """Unit vectors `(len(texts), dimensions)` of the texts, in their order. `kind` is `document` or `query`."""
    import numpy as np

    out = None
    for places, vectors in embedder.batches(texts, kind):
        if out is None:
            out = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
        out[places] = vectors
    return out if out is not None else np.zeros((0, embedder.dimensions), dtype=np.float32)


@without_garbage_collection()
def from_folder(name: str, folder: Path, device: str, fast: bool) -> Encoder:
    """The embedder in a folder as sentence-transformers has it; `fast` asks for bf16 matrices.

    A folder without `modules.json` is a plain transformer: mean pooling. Raises GPTError for what it does that is not
    known here, and for weights that are pickled or damaged.
    """
    import torch
    from transformers import AutoModel

    modules = settings(folder / "modules.json", [])
    kinds = [module["type"].rpartition(".")[2] for module in modules] or ["Transformer", "Pooling"]
    unknown = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if unknown:
        raise GPTError(
            f"embedder {name} has an unsupported layer {unknown[0]}: expected Transformer, Pooling, Normalize"
        )
    where = {kind: folder / module["path"] for kind, module in zip(kinds, modules, strict=False)}
    inner = where.get("Transformer", folder)
    pooling = pooling_of(name, settings(where["Pooling"] / "config.json", {}) if "Pooling" in where else {})
    own = settings(inner / "sentence_bert_config.json", {})
    dtype = torch.bfloat16 if fast else torch.float32
    tokenizer, module, missing = _load("embedder", name, inner, AutoModel, dtype=dtype)
    missing = [key for key in missing if "pooler" not in key]
    if missing:
        raise GPTError(f"embedder {name} is damaged: {len(missing)} of its weights are missing ({missing[0]} …)")
    module.requires_grad_(False).to(device).eval()
    config = module.config.get_text_config()
    most = min(own.get("max_seq_length") or 10**6, getattr(config, "max_position_embeddings", 512), 8192)
    prompts = settings(folder / "config_sentence_transformers.json", {}).get("prompts") or {}
    return Encoder(
        name,
        tokenizer,
        module,
        config.hidden_size,
        most,
        pooling,
        bool(own.get("do_lower_case")),
        {"query": prompts.get("query", ""), "document": prompts.get("document") or prompts.get("passage", "")},
    )


def pooling_of(name: str, config: dict) -> str:
    """The way of pooling a sentence-transformers configuration asks for; `mean` where it asks for none."""
    modes = (
        [config["pooling_mode"]]
        if "pooling_mode" in config
        else [
            key.removeprefix("pooling_mode_").removesuffix("_token").removesuffix("_tokens")
            for key, on in config.items()
            if key.startswith("pooling_mode_") and on
        ]
    )
    how = modes[0] if len(modes) == 1 else ("mean" if not modes else " + ".join(map(str, modes)))
    if how not in ("mean", "cls", "max", "lasttoken"):
        raise GPTError(f"embedder {name} pools by {how}, which is not supported: expected mean, cls, max or lasttoken")
    return how


def settings(path: Path, default):
    """The JSON in a file; `default` where there is none. Raises GPTError for a damaged one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except ValueError as error:
        raise GPTError(f"{path} is damaged: it is not JSON") from error


def of_model(name: str, module, tokenizer, context: int) -> Encoder:
    """A kernel model as an embedder: the last hidden states of its body, averaged."""
    from jupyter_gpt.nn.modules import base_of

    base = base_of(module)
    config = base.config.get_text_config()
    return Encoder(name, tokenizer, base.base_model, config.hidden_size, min(context, 512))


def cross_encoder_from_folder(name: str, folder: Path, device: str) -> Callable[[str, Sequence[str]], list[float]]:
    """A reranker: scores texts against a question by reading both together, higher is more relevant.

    It is a transformers sequence classifier with one label, as sentence-transformers' cross-encoders are; the score is
    its logit. Raises GPTError for any other model.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    tokenizer, module, missing = _load("reranker", name, folder, AutoModelForSequenceClassification)
    if module.config.num_labels != 1 or missing:
        raise GPTError(f"{name} is not a cross-encoder: a reranker is a sequence classifier with one label")
    module.requires_grad_(False).to(device).eval()
    limit = min(tokenizer.model_max_length, getattr(module.config, "max_position_embeddings", 512), 512)

    def scores(question: str, texts: Sequence[str]) -> list[float]:
        order, out = sorted(range(len(texts)), key=lambda i: -len(texts[i])), [0.0] * len(texts)
        for start in range(0, len(order), PAIRS):
            some = order[start : start + PAIRS]
            batch = tokenizer(
                [question] * len(some),
                [texts[i] for i in some],
                padding=True,
                max_length=limit,
                truncation="only_second",
                return_tensors="pt",
                verbose=False,
            ).to(device)
            with torch.inference_mode():
                logits = module(**batch).logits[:, 0].float().tolist()
            for i, logit in zip(some, logits, strict=True):
                out[i] = logit
        return out

    return scores


def _load(what: str, name: str, folder: Path, kind, **options) -> tuple:
    """Tokenizer and model from a folder's safetensors, and the names of weights that are missing."""
    from safetensors import SafetensorError
    from transformers import AutoTokenizer

    if not any(folder.glob("*.safetensors")):
        raise GPTError(f"{what} {name} has no safetensors in {folder}: pickled weights are never read")
    local = {"local_files_only": True, "trust_remote_code": False}
    failures = OSError, ValueError, LookupError, AttributeError, TypeError, RuntimeError, ImportError, SafetensorError
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        module, info = kind.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **local, **options)
    except failures as error:
        raise GPTError(f"{what} {name} cannot be loaded from {folder}: {str(error).splitlines()[0][:200]}") from error
    return tokenizer, module, info["missing_keys"]
