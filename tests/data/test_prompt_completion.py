"""A prompt and its completion, token for token as they are in the conversation that both make."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from jupyter_gpt.data.chat import render_conversation
from jupyter_gpt.data.prompt_completion import encode_pair
from jupyter_gpt.data.render import Question, encode
from jupyter_gpt.data.tokenizer import train_bpe

TEXTS = ["The old fox saw small birds and was glad.\nSo it sang. Yes, so. Yes"] * 3
LINE = "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '</s>\n' }}{% endfor %}"
TEMPLATES = {
    "line": LINE + "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    "word": "{% for m in messages %}{{ m.role + ': ' + m.content + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
    "mark": LINE.replace("\n", "") + "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
}


def sentencepiece(scheme):
    """A tokenizer that puts a space in front of a text, as Llama 2's and Mistral's do, spelled in one of three ways."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    if scheme == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    special = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=200, special_tokens=special))
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("scheme", ["first", "always", "prepend"])
def test_a_completion_has_the_tokens_that_finetuning_trains(scheme, template):
    tokenizer = sentencepiece(scheme)
    tokenizer.chat_template = TEMPLATES[template]
    answer = [{"role": "user", "content": "The fox"}, {"role": "assistant", "content": "Yes, so"}]
    ids, trained = render_conversation(tokenizer, answer)
    pair, cut = encode_pair("fox", tokenizer, "The fox", "Yes, so", 64)
    first = trained.index(True)
    assert not cut and pair.prompt == tuple(ids[:first])
    assert pair.completion == tuple(token for token, own in zip(ids, trained, strict=True) if own)


@pytest.mark.parametrize("scheme", ["first", "always", "prepend"])
def test_a_document_goes_on_without_a_space(scheme):
    tokenizer = sentencepiece(scheme)
    pair, _ = encode_pair("fox", tokenizer, Question("The old fox"), "Yes, so", 64, finished=False)
    assert pair.ids == tuple(encode(tokenizer, "The old foxYes, so"))


def test_where_the_tokens_of_both_would_run_together_each_keeps_its_own():
    tokenizer = train_bpe(TEXTS, 300)
    pair, _ = encode_pair("fox", tokenizer, Question("The old f"), "ox saw", 64, finished=False)
    assert pair.completion == tuple(encode(tokenizer, "ox saw"))
    tokenizer = sentencepiece("first")
    pair, _ = encode_pair("fox", tokenizer, Question("The old fo"), "x saw", 64, finished=False)
    assert pair.prompt == tuple(encode(tokenizer, "The old fo"))
    assert tokenizer.decode(pair.completion).strip() == "x saw"


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "qwen3_5_nothink", "gptoss", "qwen3_instruct_2507"])
@pytest.mark.parametrize("answer", ["Yes, so", " It sang.\n", "The fox was glad.\n\nSo it sang."])
def test_an_answer_of_a_dataset_is_spelled_as_the_template_spells_it(name, answer):
    """As TRL reads preferences: what the template adds where the answer is given, without the newline after its end."""
    folder = Path(pytest.importorskip("trl").__file__).parent / "chat_templates"
    tokenizer = train_bpe(TEXTS, 300)
    names = ["im_start", "im_end", "start", "message", "channel", "return"]
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{each}|>" for each in names]})
    tokenizer.chat_template = (folder / f"{name}.jinja").read_text("utf-8")
    asked, said = [{"role": "user", "content": "The fox?"}], [{"role": "assistant", "content": answer}]
    whole = tokenizer.apply_chat_template(asked + said, tokenize=False).rstrip()
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert whole.startswith(prompt)
    pair, _ = encode_pair("fox", tokenizer, asked, answer, 9999, sampled=False)
    own = encode_pair("fox", tokenizer, asked, answer, 9999)[0]
    if name in ("qwen3_instruct_2507", "qwen3_5_nothink"):  # nothing is written before the words
        assert pair == own and answer in tokenizer.decode(pair.completion)
    else:
        assert pair.ids == tuple(encode(tokenizer, whole)) and pair.prompt == tuple(encode(tokenizer, prompt))
        assert own != pair, "what a model has sampled comes right after the prompt"
    cut = encode_pair("fox", tokenizer, asked, answer, 9999, finished=False, sampled=False)[0]
    assert cut.completion == own.completion[:-1]
