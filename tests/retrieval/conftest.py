"""An embedder that counts words, so that what is near can be told by eye; a tiny random one in the layout of a
sentence-transformers folder; PDFs written by hand.
"""

from __future__ import annotations

import json
import re
import zlib

import pytest


class WordCounts:
    """Each word is a direction of its own (by its checksum): the cosine is how many words two texts share."""

    name, remote, room, dimensions = "words", False, 1000, 1024

    def __init__(self):
        self.seen: list[str] = []

    def count(self, text: str) -> int:
        return len(text.split())

    def batches(self, texts, kind="document"):
        import numpy as np

        for start in range(0, len(texts), 4):
            part = texts[start : start + 4]
            self.seen += part if kind == "document" else []
            out = np.full((len(part), self.dimensions), 1e-3, dtype=np.float32)
            for row, text in zip(out, part, strict=True):
                for word in re.findall(r"\w+", text.lower()):
                    row[zlib.crc32(word.encode()) % self.dimensions] += 1
            yield list(range(start, start + len(part))), out / np.linalg.norm(out, axis=1, keepdims=True)


@pytest.fixture
def embedder():
    return WordCounts()


@pytest.fixture(scope="session")
def tiny_embedder(tmp_path_factory):
    """A folder with a BERT of random weights, its tokenizer, and the modules sentence-transformers reads."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-embedder")
    words = [
        "the",
        "old",
        "fox",
        "saw",
        "three",
        "small",
        "birds",
        "and",
        "was",
        "glad",
        "it",
        "sang",
        "of",
        "leave",
        "days",
        "printer",
        "page",
        "train",
        "hotel",
        "a",
        "is",
    ]
    trained = BertWordPieceTokenizer()
    trained.train_from_iterator([" ".join(words)] * 5, vocab_size=200, min_frequency=1, show_progress=False)
    trained.save(str(folder / "tokenizer.json"))
    tokenizer = BertTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), model_max_length=64)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize")]
    write(
        folder / "modules.json",
        [
            {"idx": int(name), "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
            for name, path, kind in modules
        ],
    )
    write(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
    )
    write(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False})
    (folder / "2_Normalize").mkdir()
    return folder


def write(path, value) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture
def pdf():
    """`pdf(*pages)`: the bytes of a PDF whose pages have these lines; an empty text is a page without any."""

    def make(*pages: str) -> bytes:
        objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
        kids = []
        for page in pages:
            lines = "".join(f"({line}) Tj 0 -16 Td\n" for line in page.split("\n")) if page else ""
            stream = f"BT /F1 12 Tf 72 720 Td\n{lines}ET".encode() if page else b"0 0 100 100 re f"
            kids.append(len(objects) + 1)
            objects.append(
                f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects) + 2} 0 R "
                "/Resources << /Font << /F1 3 0 R >> >> >>".encode()
            )
            objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        objects[1] = f"<< /Type /Pages /Kids [{' '.join(f'{kid} 0 R' for kid in kids)}] /Count {len(kids)} >>".encode()
        out, places = b"%PDF-1.4\n", []
        for number, body in enumerate(objects, start=1):
            places.append(len(out))
            out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
        table = b"".join(b"%010d 00000 n \n" % place for place in places)
        return out + (
            b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
            % (len(objects) + 1, table, len(objects) + 1, len(out))
        )

    return make
