"""`gpt.claim` states a claim and measures it; `%gpt claims` shows all claims of the notebook and fails if one does not
hold.

A claim is a sentence, the figure of a paper, and a figure of one's own that has to lie above or below a bound, or above
or below another figure. The figures differ between machines and seeds; whether the claim holds must not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.estimates import EXPECTED, Estimate, difference, estimate
from jupyter_gpt.options import Number, Options, option
from jupyter_gpt.report.parts import Inline, Paragraph, Table, Varies, joined
from jupyter_gpt.report.report import Report, ShownAsTable
from jupyter_gpt.stages.stage import Bound


class ClaimOptions(Options):
    """state a claim, and measure whether it holds

    Compares `measured` with another figure (`than`) or with bounds. `gpt.claims` collects the claims of the notebook,
    and `%gpt claims` fails if one of them does not hold. Running the cell again replaces the claim of the same text.
    """

    magic: ClassVar[str] = "gpt.claim"
    examples: ClassVar[tuple[str, ...]] = (
        "gpt.claim('A vote over five chains of thought beats one', voted, than=single, paper='74.4% and 56.5%')",
    )

    text: str = option(..., "the claim, a sentence", positional=True)
    measured: Any = option(..., f"what was measured: {EXPECTED}", positional=True)
    than: Any = option(None, "what it is compared with; without bounds, `measured` has to be higher")
    above: Number | None = option(None, "lower bound of `measured`, or of its difference to `than`")
    below: Number | None = option(None, "upper bound of `measured`, or of its difference to `than`")
    paper: str = option("", "the paper's figure, and where it is published")
    unit: str = option("", "unit of the figures; proportions are shown in percent")
    digits: int = option(2, "decimal places of the figures; percentages have one")
    significant: bool = option(False, "also require it of the whole 95% interval")
    seeds: str = option("", "on how many seeds the claim held where that was measured: '5 of 5'")


@dataclass(frozen=True, repr=False)
class Claim(ShownAsTable):
    """A claim and its figures: `tested` is the difference to `than`, or `measured` itself."""

    options: ClaimOptions
    measured: Estimate
    than: Estimate | None
    tested: Estimate

    @property
    def text(self) -> str:
        return self.options.text

    @property
    def holds(self) -> bool:
        tested, (above, below) = self.tested, self.bounds
        low, high = (tested.low, tested.high) if self.options.significant else (tested.value, tested.value)
        return (above is None or low > above) and (below is None or high < below)

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The lower and the upper bound of what is tested."""
        above, below = self.options.above, self.options.below
        return (0.0 if above is None and below is None else above), below

    @property
    def report(self) -> Report:
        return claims_report([self], self.text)


class Claims(ShownAsTable, Sequence):
    """The claims of this kernel, in the order in which they were first stated."""

    def __init__(self):
        self.by_text: dict[str, Claim] = {}

    def __getitem__(self, place):
        return list(self.by_text.values())[place]

    def __len__(self) -> int:
        return len(self.by_text)

    def __iter__(self) -> Iterator[Claim]:
        return iter(self.by_text.values())

    @property
    def report(self) -> Report:
        return claims_report(self)

    def check(self) -> None:
        """Raises GPTError, which names them, if claims do not hold, and if there is none."""
        if not self:
            raise GPTError("there are no claims to check: gpt.claim(text, measured, than=…) states one")
        if failed := [claim.text for claim in self if not claim.holds]:
            names = "; ".join(failed)
            raise GPTError(
                f"{len(failed)} of {len(self)} claims {'do' if len(failed) > 1 else 'does'} not hold: {names}"
            )


class ShowClaims(Bound):
    """the claims of this notebook; fails if one does not hold

    Shows every claim that gpt.claim stated in this kernel: the paper's figure, the one that was measured here with its
    95% interval, and whether the claim holds. Raises an error if one does not, so that a notebook that ends with this
    cell is a test of its claims.
    """

    magic: ClassVar[str] = "%gpt claims"


def claim(session, options: ClaimOptions) -> Claim:
    """Raises GPTError for a measurement that is not numeric, for a claim without a bound, and for a `significant` one
    without an interval."""
    if options.than is None and options.above is None and options.below is None:
        raise GPTError("a claim compares: give than=, above= or below=")
    measured = estimate(options.measured)
    than = None if options.than is None else estimate(options.than)
    made = Claim(options, measured, than, measured if than is None else difference(measured, than))
    if options.significant and not made.tested.has_interval:
        raise GPTError(
            "significant=True asks for an interval, and one figure has none: give outcomes or several numbers"
        )
    session.claims.by_text[options.text] = made
    return made


def claims_report(claims: Sequence[Claim] | Claims, title: str = "") -> Report:
    """A row a claim. Whether it holds is the same on every machine; the figures are not."""
    if not claims:
        return Report("", [Paragraph("No claims yet. gpt.claim(text, measured, than=…) states one.")])
    several = not title
    papers, seeds = any(c.options.paper for c in claims), any(c.options.seeds for c in claims)
    header = ["claim"] * several + ["in the paper"] * papers + ["measured here (95% interval)", "required", "holds"]
    rows = [
        [
            *([c.text] if several else []),
            *([c.options.paper or "–"] if papers else []),
            figures(c),
            required(c),
            "yes" if c.holds else "no",
            *([c.options.seeds] if seeds else []),
        ]
        for c in claims
    ]
    table = Table(header + ["seeds"] * seeds, rows, "l" * len(rows[0]), wrap=True)
    data = {"view": "claims", "claims": [{"text": c.text, "holds": c.holds} for c in claims]}
    values = [{"text": c.text, "value": c.tested.value, "low": c.tested.low, "high": c.tested.high} for c in claims]
    return Report(title, [table], data, {"claims": values})


def figures(c: Claim) -> Inline:
    """`64.0% against 52.0%: 12.0 points (3.1 to 20.6)`, or `0.31 (0.28 to 0.35)`."""
    if c.than is None:
        return [*shown(c, c.measured), *interval(c, c.measured)]
    unit = " points" if c.tested.share else f" {c.options.unit}".rstrip()
    sides = [*shown(c, c.measured), " against ", *shown(c, c.than), ": "]
    return [*sides, *shown(c, c.tested, unit), *interval(c, c.tested)]


def shown(c: Claim, found: Estimate, unit: str | None = None) -> list[Inline]:
    """A figure with its unit, by default `%` or the claim's own."""
    own = "%" if found.share else f" {c.options.unit}".rstrip()
    return [number(c, found, found.value), own if unit is None else unit]


def interval(c: Claim, found: Estimate) -> list[Inline]:
    return [" (", number(c, found, found.low), " to ", number(c, found, found.high), ")"] if found.has_interval else []


def number(c: Claim, found: Estimate, value: float) -> Varies:
    return Varies(100 * value, 1) if found.share else Varies(value, c.options.digits)


def required(c: Claim) -> Inline:
    """`> 0`, and where it has to hold of the interval, `interval > 0`."""
    scale = 100 if c.tested.share else 1
    unit = (" points" if c.than else "%") if c.tested.share else ""
    bounds = [
        "" if bound is None else f"{sign} {scale * bound:g}{unit if bound else ''}"
        for sign, bound in zip("><", c.bounds, strict=True)
    ]
    return ["interval " * c.options.significant, *joined(" and ", bounds)]
