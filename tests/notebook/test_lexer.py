import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.lexer import number, split, variable, whole


def texts(line: str) -> list[str]:
    return [word.text for word in split(line)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  a\tb  ", ["a", "b"]),
        ('name --prompts "Once upon" \'a "b"\'', ["name", "--prompts", "Once upon", 'a "b"']),
        ('--prompts="Once upon a"', ["--prompts=Once upon a"]),
        ("don't stop", ["don't", "stop"]),
        ('say "\\"hi\\" there"', ["say", '"hi" there']),
        (r"C:\texts\*.txt 'C:\my texts\new.txt'", [r"C:\texts\*.txt", r"C:\my texts\new.txt"]),
        ("“curly quotes” here", ["curly quotes", "here"]),
        ('--json {"a b": [1, "}"], "c": "\\""} x', ["--json", '{"a b": [1, "}"], "c": "\\""}', "x"]),
        ('--json={"a": 1}', ['--json={"a": 1}']),
        ("[ab]*.txt", ["[ab]*.txt"]),
        ('""', [""]),
    ],
)
def test_split(line, words):
    assert texts(line) == words


def test_split_remembers_quotes():
    assert [word.quoted for word in split("--help \"--help\" '$x' $x")] == [False, True, True, False]


@pytest.mark.parametrize("line", ['--prompts "Once', "'x", '{"a": 1', "[1, 2"])
def test_what_is_never_closed_is_an_error(line):
    with pytest.raises(GPTError, match="never closed"):
        split(line)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1000", 1000),
        ("1_000_000", 10**6),
        ("50k", 50_000),
        ("1M", 10**6),
        ("1.5M", 1_500_000),
        ("1e6", 10**6),
        ("2B", 2 * 10**9),
        ("1.4T", 1_400_000_000_000),
        ("600.0", 600),
    ],
)
def test_whole(text, value):
    assert whole(text) == value
    assert isinstance(whole(text), int)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "1kk", "nan", "inf", "0x10", "1 000", "_1", "k"])
def test_not_whole(text):
    with pytest.raises(ValueError, match="a whole number"):
        whole(text)


@pytest.mark.parametrize(("text", "value"), [("0.02", 0.02), ("3e-4", 3e-4), (".5", 0.5), ("-1.5", -1.5), ("2k", 2e3)])
def test_number(text, value):
    assert number(text) == value


@pytest.mark.parametrize("text", ["", "nan", "inf", "1,5", "half", "1e9999"])
def test_not_a_number(text):
    with pytest.raises(ValueError, match="a number"):
        number(text)


def test_too_large_a_count():
    with pytest.raises(ValueError, match="2 to the 63rd"):
        whole("99999999999999999999999")


def test_variable():
    assert variable("model_2") == "model_2"
    for text in ("2x", "a-b", "class", "a.b", ""):
        with pytest.raises(ValueError, match="Python variable"):
            variable(text)
