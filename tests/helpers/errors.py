"""How a user's mistake is told."""

import pytest

from jupyter_gpt.errors import GPTError


def fail(call, *arguments, **options) -> str:
    """The message of the GPTError that a call raises, which has to be one line."""
    with pytest.raises(GPTError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
