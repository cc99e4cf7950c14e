"""Tokenization: a byte-level BPE, or one token per character, trained on the corpus with `tokenizers`.

- The BPE splits text before merging in the manner of GPT-4's pattern, but digits one by one (so that sums can
  be learned); nothing is normalised, so any string comes back exactly.
- The special tokens of the chat template are reserved in every tokenizer trained here: a base model never
  sees them, and finetuning it to a chat later needs no new rows in its embedding.
- A document that spells out `<|endoftext|>` is text: `Encoder` never makes a special token of it.
"""

from __future__ import annotations

import copy
import json
import os
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from jupyter_gpt.errors import GPTError
from jupyter_gpt.imports import without_garbage_collection

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

EOT = "<|endoftext|>"  # begins every document; also a model's bos, eos and padding
CHAT = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
UNKNOWN = "<|unknown|>"  # only in a character tokenizer: bytes can spell anything
SPECIALS = (EOT, *CHAT)

# GPT-4's split (tiktoken's cl100k_base), but with \p{N} alone in place of \p{N}{1,3}: one token a digit.
SPLIT = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
MIN_VOCAB_SIZE = 256 + len(SPECIALS)  # every byte and every special token: no BPE is smaller


def train_bpe(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `vocab_size` tokens with special tokens (fewer when the text is too short).

    Deterministic. Raises GPTError when `vocab_size` cannot hold the 256 bytes and the special tokens.
    """
    check_vocab_size(vocab_size)
    _keep_quiet_after_fork()
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _wrap(tokenizer, {})


def check_vocab_size(vocab_size: int) -> None:
    """Raises GPTError when a BPE of `vocab_size` cannot have every byte."""
    if vocab_size < MIN_VOCAB_SIZE:
        raise GPTError(
            f"a vocabulary of {vocab_size} is too small for a BPE: it needs at least {MIN_VOCAB_SIZE} "
            f"(256 bytes and {len(SPECIALS)} special tokens); use --tokenizer char for fewer"
        )


def train_char(texts: Iterable[str], vocab_size: int | None = None) -> PreTrainedTokenizerFast:
    """One token per character of `texts` (in code point order); any other character is `<|unknown|>`.

    Raises GPTError when the text has more different characters than `vocab_size` (if given) has room for.
    """
    _keep_quiet_after_fork()
    from tokenizers import Tokenizer, decoders, models

    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(text)
    tokens = [*SPECIALS, UNKNOWN, *sorted(seen)]
    if vocab_size is not None and len(tokens) > vocab_size:
        raise GPTError(
            f"the text has {len(seen):,} different characters; with {len(SPECIALS) + 1} special tokens that "
            f"makes a vocabulary of {len(tokens):,}, more than {vocab_size:,}: raise --vocab-size"
        )
    # A BPE without merges falls into characters, four times faster than one-letter words behind a splitter.
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [], unk_token=UNKNOWN))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([*SPECIALS, UNKNOWN])
    return _wrap(tokenizer, {"unk_token": UNKNOWN})


def _wrap(tokenizer, named: dict) -> PreTrainedTokenizerFast:
    with without_garbage_collection():
        from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=EOT,
        eos_token=EOT,
        pad_token=EOT,
        additional_special_tokens=list(CHAT),
        clean_up_tokenization_spaces=False,  # else decoding would turn "do n't" into "don't"
        **named,
    )


def _keep_quiet_after_fork() -> None:
    # Without an explicit choice, every `!command` in the notebook prints tokenizers' warning about forking.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def delimiter(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that begins every document: the tokenizer's eos token (else bos). GPTError if it has neither."""
    for token in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        if token is not None:
            return int(token)
    raise GPTError("this tokenizer has no end-of-text token to delimit documents (set its eos_token)")


def begin_texts_with(tokenizer: PreTrainedTokenizerBase, token: int) -> None:
    """Have a tokenizer begin a text with `token` if it begins one with another, as Llama's and Gemma's do: documents
    begin with the delimiter in pretraining, and so should the prompts of what has learned from them."""
    first = tokenizer("x", verbose=False)["input_ids"][0]
    if first in (token, None) or first != tokenizer.bos_token_id or not getattr(tokenizer, "is_fast", False):
        return
    from tokenizers.processors import TemplateProcessing

    mark = tokenizer.convert_ids_to_tokens(token)
    tokenizer.bos_token = mark
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=[mark, "$A"], pair=[mark, "$A", mark, "$B"], special_tokens=[(mark, token)]
    )


class Encoder:
    """Encodes documents without special tokens, also where their text spells one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        _keep_quiet_after_fork()
        self.slow = None if getattr(tokenizer, "is_fast", False) else tokenizer
        if self.slow is None:
            self.fast = copy.deepcopy(tokenizer.backend_tokenizer)
            self.fast.encode_special_tokens = True  # "do encode them, as the text they are"
            self.fast.no_truncation()
            self.fast.no_padding()

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """The token ids of each text, without any special token."""
        if self.slow is not None:
            options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
            return [self.slow(text, **options)["input_ids"] for text in texts]
        return [e.ids for e in self.fast.encode_batch_fast(texts, add_special_tokens=False)]


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """How many bytes of text each token stands for: int32 (V,), 0 for special tokens.

    Bits per byte = (sum of nats over tokens with bytes) / (ln 2 · sum of their bytes). Unlike loss per token it
    compares models of different vocabularies.
    """
    import numpy as np

    count = np.zeros(len(tokenizer), dtype=np.int32)
    byte_level = _is_byte_level(tokenizer)
    for token, i in tokenizer.get_vocab().items():
        if byte_level:
            count[i] = len(token)  # the byte-level alphabet writes each byte as one character
        elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            count[i] = 1  # a byte that sentencepiece falls back to
        else:
            count[i] = len(token.replace("▁", " ").encode())
    for i, added in tokenizer.added_tokens_decoder.items():
        count[i] = 0 if added.special else len(added.content.encode())
    count[tokenizer.all_special_ids] = 0
    return count


def _is_byte_level(tokenizer) -> bool:
    if not getattr(tokenizer, "is_fast", False):
        return False
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    return any("ByteLevel" in json.dumps(spec[part]) for part in ("pre_tokenizer", "decoder"))
