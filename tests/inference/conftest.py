"""Fixtures of the engine's tests."""

import pytest

from helpers.shapes import build, random_prompts


@pytest.fixture(scope="session")
def prompts():
    return random_prompts(50)


@pytest.fixture(scope="session", params=["gpt2", "llama", "qwen3"])
def model(request):
    return build(request.param)


@pytest.fixture(scope="session")
def llama():
    return build("llama")
