"""Claims: whether they hold, how they are shown, and that one that fails is an error of its notebook."""

import pytest

from helpers.errors import fail
from jupyter_gpt.errors import GPTError
from jupyter_gpt.session import Session
from jupyter_gpt.stages.evaluate import Setting

RIGHT, WRONG = [True] * 9 + [False], [True] * 4 + [False] * 6


@pytest.fixture
def gpt():
    return Session()


def test_a_higher_figure_holds_and_a_lower_one_does_not(gpt):
    assert gpt.claim("better", RIGHT, than=WRONG).holds
    assert not gpt.claim("worse", WRONG, than=RIGHT).holds
    assert gpt.claim("lower", 1.2, than=2.0, below=0).holds
    assert not gpt.claim("by a margin", 1.2, than=1.0, above=0.5).holds
    assert gpt.claim("between", 0.5, above=0.4, below=0.6).holds
    assert not gpt.claim("on the bound", 0.4, above=0.4).holds


def test_significant_asks_it_of_the_whole_interval(gpt):
    assert gpt.claim("sure", RIGHT * 10, than=WRONG * 10, significant=True).holds
    assert not gpt.claim("unsure", [1, 1, 0, 1], above=0.5, significant=True).holds
    assert not gpt.claim("one question", [True], than=[False], significant=True).holds
    assert "one figure has none" in fail(gpt.claim, "a figure", 2.0, above=1, significant=True)
    assert "a figure" not in [claim.text for claim in gpt.claims]
    assert gpt.claim("unsure", [1, 1, 0, 1], above=0.5).holds


def test_the_table_has_figures_that_vary_and_a_verdict_that_does_not(gpt):
    gpt.claim("A vote beats one", RIGHT, than=WRONG, paper="74.4% against 56.5%", seeds="5 of 5")
    gpt.claim("The loss falls", 1.2, than=2.04, below=0, unit="nats per token")
    text = gpt.claims.report.text
    assert "≈90.0% against ≈40.0%: ≈50.0 points (≈" in text and "74.4% against 56.5%" in text and "5 of 5" in text
    assert "≈1.20 nats per token against ≈2.04 nats per token: ≈-0.84 nats per token" in text
    assert "< 0" in text and " yes" in text and "≈" not in repr(gpt.claims) and "≈" not in gpt.claims.report.html
    assert gpt.claims.report.data["claims"][0] == {"text": "A vote beats one", "holds": True}


def test_check_names_what_fails_and_stating_it_again_replaces_it(gpt):
    gpt.claim("better", RIGHT, than=WRONG)
    gpt.claim("worse", WRONG, than=RIGHT)
    with pytest.raises(GPTError, match="1 of 2 claims does not hold: worse"):
        gpt.claims.check()
    gpt.claim("worse", RIGHT, than=WRONG)
    gpt.claims.check()
    assert [claim.text for claim in gpt.claims] == ["better", "worse"]


def test_bad_claims_are_one_line(gpt):
    for wrong, arguments in [
        ("give than=, above= or below=", {"measured": 1}),
        ("an empty list", {"measured": [], "above": 0}),
        ("expected a number", {"measured": "much", "above": 0}),
        ("finite", {"measured": 1, "above": float("inf")}),
    ]:
        with pytest.raises(GPTError, match=wrong):
            gpt.claim("a claim", **arguments)
    with pytest.raises(GPTError, match="no claims to check"):
        gpt.claims.check()
    assert "No claims yet" in repr(gpt.claims)


def test_a_setting_of_gpt_evaluate_is_a_figure(gpt):
    setting = Setting("small", "--cot", 20, 15, 0, 0, 200, 100, 1.0, None, None)
    claimed = gpt.claim("steps help", setting, than=WRONG)
    assert (claimed.measured.value, claimed.measured.share) == (0.75, True)
    graded = Setting("small", "direct", 4, 1, 0, 0, 200, 100, 1.0, None, None, scores=(1.0, 0.4, 0.5, 0.1))
    claimed = gpt.claim("grades are shares too", setting, than=graded)
    assert "75.0% against 50.0%: 25.0 points" in claimed.report.text.replace("≈", "")
