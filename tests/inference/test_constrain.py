"""Answers held to a rule: whatever the model, each that ends by itself is valid, by another library's judgement."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from jupyter_gpt.data.render import Prompt
from jupyter_gpt.data.tokenizer import train_bpe, train_char
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.answer import answers
from jupyter_gpt.inference.completion import Sampling
from jupyter_gpt.inference.constrain import constrained, constraint_of, converted_of, lead_of
from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.rules import rule
from jupyter_gpt.inference.sampling import Request

TALES = [f'Tale {n}: {{"fox": {n}, "glad": true}} café, 🙂. The old fox saw {n} birds.' for n in range(60)]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "ü"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
SUMS = 'start: sum\nsum: sum "+" number | number\nnumber: /[0-9]/'


@pytest.fixture(scope="module")
def bpe():
    return train_bpe(TALES, 330)


@pytest.fixture(scope="module")
def char():
    return train_char(TALES)


@pytest.fixture(scope="module")
def model(bpe):
    """Random weights, and rows of the embedding that no token has."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(bpe) + 13,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


def drawn(model, tokenizer, n=6, prompt=(7, 8), **given):
    """Texts of `n` samples at temperature 1.5, and why each ended."""
    rules = {name: given.pop(name) for name in ("regex", "json", "choice", "grammar") if name in given}
    made = constrained(tokenizer, **rules)
    given = {"max_tokens": 200, "temperature": 1.5} | given
    request = Request(prompt, samples=n, stop_ids=frozenset({0}), constraint=made, **given)
    said = {k: [] for k in range(n)}
    for token in generate(model, [request]):
        if token is not None:
            said[token.sample].append(token)
    return [(tokenizer.decode([t.id for t in s if t.id]), s[-1].finish) for s in said.values()]


@pytest.mark.parametrize(
    "regex", [r"\d{3}-\d{4}", r"[a-zé🙂]{2,9}", r"(?i)yes|no", r'a/b\n"[^"]{1,5}"', "x?", "old fox", r"(?s:.){8,30}"]
)
def test_a_regex(model, bpe, regex):
    found = drawn(model, bpe, regex=regex)
    assert {finish for _, finish in found} == {"stop"}
    assert all(re.fullmatch(regex, text) for text, _ in found), found
    assert len(set(found)) > 1 or regex in ("old fox", "x?")


@pytest.mark.parametrize("regex", [r"\d{3}.\d{4}", r"[a-zé🙂]{2,9}", "old fox", "fo(ß|%)|fox", "(?s:.){8,30}"])
def test_a_regex_in_characters(model, char, regex):
    """A tokenizer that has not every character goes no way that it could not go on."""
    found = drawn(model, char, regex=regex)
    assert {finish for _, finish in found} == {"stop"}
    assert all(re.fullmatch(regex, text) for text, _ in found), found


def test_json(model, bpe):
    found = drawn(model, bpe, json=PERSON, n=8)
    values = [json.loads(text) for text, finish in found if finish == "stop"]
    assert len(values) == 8
    for value in values:
        jsonschema.validate(value, PERSON)
    assert not any(" :" in text or ", " in re.sub(r'"[^"]*"', "", text) for text, _ in found)  # no white space


def test_choices_and_a_grammar(model, bpe):
    assert {text for text, _ in drawn(model, bpe, choice="mage|thief|ü🙂", n=24, temperature=4)} == {
        "mage",
        "thief",
        "ü🙂",
    }
    for text, finish in drawn(model, bpe, grammar=SUMS, n=8):
        assert finish == "stop"
        assert re.fullmatch(r"\d(\+\d)*", text)


def test_smollm2(smollm2):
    """A real tokenizer: every id of what it writes is one it would choose, the certain tokens among them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    sample = constrained(tokenizer, json=PERSON, ends={0, 2})()
    assert sample.forced() == tokenizer.encode('{"name":"')[:-1]  # the last may yet be one with what follows
    for id in tokenizer.encode('{"name":"Zoë 🙂","age":41,"tags":["ü"]}'):
        if sample.forced() == []:
            assert sample.mask()[id]
        sample.accept(id)
    assert sample.forced() == [2]
    assert not sample.broken


def test_gpt2():
    """The bytes of GPT-2's vocabulary, spelled by an alphabet of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0} | {letter: i for i, letter in enumerate(letters, start=1)} | {"Ġthe": 257}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    sample = constrained(tokenizer, regex="(é| the)x")()
    allowed = tokenizer.convert_ids_to_tokens(sample.mask().nonzero().flatten().tolist())
    assert set(allowed) == {"Ã", "Ġ", "Ġthe"}


def test_rows_of_one_batch_have_rules_of_their_own(model, bpe):
    """And the one without a rule says what it says alone."""
    given = {"max_tokens": 60, "temperature": 1.5, "stop_ids": frozenset({0})}
    rules = [{"regex": r"\d{5}"}, {"json": PERSON}, {"choice": ["fox", "birds"]}, None]
    requests = [
        Request((7, 8, 9)[: 1 + n % 3], seed=n, constraint=constrained(bpe, **r) if r else None, **given)
        for n, r in enumerate(rules)
    ]
    said = {n: [] for n in range(4)}
    for token in generate(model, requests):
        if token is not None:
            said[token.request].append(token.id)
    texts = [bpe.decode([i for i in ids if i]) for ids in said.values()]
    assert re.fullmatch(r"\d{5}", texts[0])
    jsonschema.validate(json.loads(texts[1]), PERSON)
    assert texts[2] in ("fox", "birds")
    alone = [token.id for token in generate(model, [requests[3]]) if token is not None]
    assert said[3] == alone


def test_an_open_rule_changes_nothing(model, bpe):
    """What every text keeps leaves the model's choices as they are, as long as they are whole characters."""
    ascii_only = torch.zeros(model.config.vocab_size, dtype=torch.bool)
    for i in range(5, len(bpe)):
        ascii_only[i] = bpe.decode([i]).isascii()

    class Ascii:
        def mask(self):
            return ascii_only

        def forced(self):
            return []

        def accept(self, id):
            pass

    given = {"samples": 3, "max_tokens": 40, "temperature": 1.0}
    plain = [t.id for t in generate(model, [Request((7,), constraint=Ascii, **given)]) if t]
    held_to = constrained(bpe, regex=r"[\x00-\x7f]*", ends={0})

    def never():
        sample = held_to()
        sample.ends, mask = [], sample.mask

        def without_end():
            allowed = mask().clone()
            allowed[0] = False
            return allowed

        sample.mask = without_end
        return sample

    ruled = [t.id for t in generate(model, [Request((7,), constraint=never, **given)]) if t]
    assert ruled == plain


def ask(model, tokenizer, asked, prompt="The old fox", **settings):
    ids = tuple(tokenizer.encode(prompt))
    settings = {"temperature": 1.5, "max_tokens": 120} | settings
    form = settings.pop("form", {})
    *_, found = answers(
        model,
        tokenizer,
        [Prompt(ids, prompt, "a test", **form)],
        Sampling(**settings),
        frozenset({0}),
        "tiny",
        rule=asked,
    )
    return found[0]


def test_an_answer_says_that_it_is_valid(model, bpe):
    done = ask(model, bpe, rule(json=PERSON), samples=4)
    assert [s.valid for s in done.samples] == [True] * 4
    assert done.value == json.loads(done.text)
    assert done.finish_reason == "stop"
    assert done.notes == ()


def test_one_that_is_cut_off_says_so(model, bpe):
    done = ask(model, bpe, rule(json=PERSON), max_tokens=9)
    assert (done.valid, done.value, done.finish_reason) == (False, None, "length")
    assert done.notes[-1].startswith("cut off: not valid (not JSON")
    several = ask(model, bpe, rule(regex=r"\d{1,40}"), max_tokens=6, samples=8)
    cut = [s for s in several.samples if not s.valid]
    assert all(s.finish_reason == "length" or s.valid for s in several.samples)
    assert all(re.fullmatch(r"\d{1,40}", s.text) for s in several.samples)
    assert not cut  # a text of the rule is valid wherever it was cut


def test_a_stop_text_may_follow_and_cuts_what_it_stands_in(model, bpe):
    done = ask(model, bpe, rule(regex=r"\d{2}"), stop=("\n",), samples=12)
    assert all(s.valid and re.fullmatch(r"\d\d", s.text) for s in done.samples)
    assert {s.finish_reason for s in done.samples} == {"stop"}
    ended = {s.tokens[-1] == 0 for s in done.samples}
    assert ended == {True, False}  # some by the end-of-text token, some by the stop text
    inside = ask(model, bpe, rule(regex=r"ab\ncd"), stop=("\n",))
    assert (inside.text, inside.valid, inside.finish_reason) == ("ab", False, "stop")
    assert inside.notes[-1].startswith("cut off by a stop text: not valid")


def test_min_tokens(model, bpe):
    done = ask(model, bpe, rule(regex="[a-z]{1,60}"), min_tokens=9, samples=6)
    assert all((s.valid and len(s.tokens) > 9) or len(s.text) == 60 for s in done.samples)
    short = ask(model, bpe, rule(choice="fox|old"), min_tokens=9)  # the rule allows no more
    assert (short.text in ("fox", "old"), short.valid) == (True, True)


def test_the_space_before_a_word_is_no_part_of_the_answer(model, bpe):
    before = bpe.encode("The old")
    assert lead_of(bpe, rule(choice="fox|birds"), before) == " "
    assert lead_of(bpe, rule(regex=" ?fox"), before) == ""  # it says itself where spaces are
    assert lead_of(bpe, rule(choice="fox"), [*before, 0]) == ""
    assert lead_of(bpe, rule(choice="fox"), bpe.encode("old ")) == ""
    spaced = bpe.encode(" fox")[0]
    assert constraint_of(bpe, rule(choice="fox|birds"), before=before)().mask()[spaced]
    found = ask(model, bpe, rule(choice="fox|birds"), prompt="The old", samples=12)
    assert {s.text for s in found.samples} == {"fox", "birds"}
    assert {s.tokens[0] == spaced for s in found.samples if s.text == "fox"} == {True, False}


REFUSED = [
    ({"regex": "("}, "unclosed group"),
    ({"regex": r"(a)\1"}, "backreferences"),
    ({"regex": "(?=a)b"}, "look-ahead"),
    ({"regex": r"a[^\d\D]"}, "no text satisfies it"),
    ({"choice": ["a", ""]}, "list of non-empty texts"),
    ({"choice": []}, "list of non-empty texts"),
    ({"choice": "yes, no"}, "choices are separated by |, as in 'yes|no'"),
    ({"json": {"type": "integer", "minimum": 5, "maximum": 2}}, "minimum (5) is greater"),
    ({"json": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
    ({"json": {"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}}, "uniqueItems"),
    ({"json": {"not": {"minimum": 3}}}, "not"),
    ({"json": {"type": "strin"}}, "'strin' is not valid"),
    ({"json": {"type": "string", "minLength": "x"}}, "not of type 'integer'"),
    ({"json": {"enum": []}}, ""),
    ({"json": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}, "oneOf"),
    ({"json": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}}, "no text satisfies it"),
    ({"json": {"type": "array", "items": {"$ref": "#"}, "minItems": 1}}, "no text satisfies it"),
    ({"json": '{"type":'}, "is not JSON"),
    ({"json": "nowhere.json"}, "no file nowhere.json"),
    ({"grammar": "nowhere.lark"}, "or a file of one, got nowhere.lark"),
    ({"grammar": 'start: "a" b'}, 'unknown name: "b"'),
    ({"grammar": 'start: "a" <|im_end|>'}, "unknown special token"),
    ({"regex": "a", "choice": "b"}, "two constraints"),
]


@pytest.mark.parametrize("given, said", REFUSED, ids=[str(given) for given, _ in REFUSED])
def test_what_cannot_be_enforced_is_refused(given, said):
    with pytest.raises(GPTError) as refused:
        rule(**given)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_the_tokenizer_cannot_spell(model, char):
    with pytest.raises(GPTError, match="no tokens that spell it"):
        constrained(char, choice="ßß")
    with pytest.raises(GPTError, match="no tokens that spell it"):
        constrained(char, regex="fo(ß|%)")
    done = ask(model, char, rule(grammar='start: "fo" end\nend: "ß" | "%"'), prompt="The old ")  # found out on the way
    assert (done.text, done.valid, done.finish_reason) == ("fo", False, "length")
    assert "no token can follow" in done.notes[-1]


def test_files_and_pydantic_models(tmp_path):
    from pydantic import BaseModel, field_validator

    class Pet(BaseModel):
        name: str
        legs: int

        @field_validator("legs")
        @classmethod
        def even(cls, legs):
            assert legs % 2 == 0
            return legs

    asked = rule(json=Pet)
    assert asked.words == "JSON of the schema Pet"
    assert asked.value('{"name":"Rex","legs":4}') == Pet(name="Rex", legs=4)
    assert asked.problem('{"name": "Rex", "legs": 4}') is None
    assert "legs" in asked.problem('{"name":"Rex","legs":3}')
    assert "'4' is not of type 'integer'" in asked.problem('{"name":"Rex","legs":"4"}')
    (tmp_path / "pet.json").write_text(json.dumps(Pet.model_json_schema()))
    assert rule(json=str(tmp_path / "pet.json")) == asked
    (tmp_path / "sums.lark").write_text(SUMS)
    assert rule(grammar=tmp_path / "sums.lark").problem("1+2") is None
    assert rule(grammar=SUMS).problem("1+")
    assert rule(json=True).problem("[1, {}]") is None
    assert rule(json="true").problem("NaN") == "not JSON: NaN is no JSON"
    assert rule() is rule(json=False) is None


@pytest.mark.parametrize(
    "regex, good, bad",
    [
        (r"[\w-]+", "a-é_9", "a!"),
        (r"[^\W_]+", "aé9", "a_"),
        (r"\w", "é", "\u0301"),
        (r"\d", "3", "٣"),
        (r"[^\d]", "٣", "3"),
        (r"\\w", "\\w", "a"),
        (r"\S", "é", "\x1c"),
        (r"a\/b\.\n", "a/b.\n", "a/b."),
        (r"[\s\S]{2}", "\n ", "a"),
    ],
)
def test_classes_take_nothing_that_pythons_would_not(regex, good, bad):
    asked = rule(regex=regex)
    assert (asked.problem(good) is None and re.fullmatch(regex, good)) or regex == r"[^\d]"
    assert asked.problem(bad)


def test_formats_have_the_longest_length_of_their_standard():
    asked = rule(json={"type": "string", "format": "email"})
    assert asked.begins_with('"' + "a" * 250 + "@b") and not asked.begins_with('"' + "a" * 254 + "@b")
    short = rule(
        json={"type": "object", "properties": {"format": {"format": "email", "type": "string", "maxLength": 9}}}
    )
    assert not short.begins_with('{"format":"aaaaaaaaa@')


def test_a_tokenizer_is_converted_once(bpe):
    assert converted_of(bpe) is converted_of(bpe)


def test_several_threads_make_and_check_one_rule():
    def problem(text: str) -> str | None:
        return rule(json=PERSON).problem(text)

    with ThreadPoolExecutor(16) as threads:
        problems = list(threads.map(problem, ['{"name":"Bo","age":7,"tags":["a"]}'] * 400))
    assert problems == [None] * 400
