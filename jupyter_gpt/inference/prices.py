"""What a completion cost: known providers' published prices, by `genai-prices`, which asks no network.

The price belongs to the provider whose address was asked, not to the model's name: a `gpt-4o` served on one's
own machine costs nothing anyone publishes. What is not known is None, "unpriced", never 0.
"""

from __future__ import annotations


def cost(base_url: str, model: str, prompt_tokens: int | None, completion_tokens: int | None) -> float | None:
    """Dollars for one request, or None where no price is known or the tokens were not counted."""
    if prompt_tokens is None or completion_tokens is None:
        return None
    from genai_prices import Usage, calc_price

    usage = Usage(input_tokens=prompt_tokens, output_tokens=completion_tokens)
    try:
        return float(calc_price(usage, model, provider_api_url=base_url).total_price)
    except LookupError:
        return None
