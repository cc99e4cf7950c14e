"""vLLM as the sampler of a policy in training: completions of token ids, and its weights replaced.

Written against the documented HTTP API of vLLM 0.33 and tested against a server that imitates it; no GPU has run it.

- `/v1/completions` takes a prompt as token ids, and with `return_token_ids` answers with those of the completion
  (documentation: OpenAI-Compatible Server, extra parameters); a completion that ended has its end token among them.
- With VLLM_SERVER_DEV_MODE=1 there are `/pause` and `/resume`, which empties the caches of keys and values
  (documentation: Async Reinforcement Learning), and `/collective_rpc`, whose method `reload_weights` reads the
  safetensors in the folder `weights_path` into the running engine (documentation: Sleep Mode; Layerwise Reloading).
  So the weights go through a folder that trainer and server see, and the trainer needs no vLLM of its own. vLLM's NCCL
  and IPC transfers are faster, but need vLLM and a GPU in the trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.remote import connect
from jupyter_gpt.inference.remote_errors import explain

AT_ONCE = 64  # requests in parallel: vLLM batches them
LOOK = 0.1  # seconds between two looks at the requests
# What a server takes from the model's generation_config where a request does not say it: the policy's own distribution.
UNFILTERED = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


class Sampled(NamedTuple):
    """One completion: its ids with the end token if it has one, their log-probabilities in nats, and "stop" or
    "length"."""

    ids: list[int]
    logprobs: list[float]
    finish: str


def sample(
    endpoint,
    prompts: Sequence[Sequence[int]],
    samples: int,
    max_tokens: int,
    stop: frozenset[int],
    seeds: Sequence[int],
) -> Iterator[None]:
    """`samples` completions of each prompt at temperature 1; yields while it waits, returns a list of `Sampled`, those
    of one prompt side by side. Raises GPTError, one line, for an endpoint that is down or is no vLLM."""

    def one(client, place: int) -> list[Sampled]:
        answer = client.completions.create(
            model=endpoint.model,
            prompt=list(prompts[place]),
            n=samples,
            max_tokens=max_tokens,
            temperature=1.0,
            top_p=1.0,
            seed=seeds[place] % (1 << 31),
            logprobs=1,
            extra_body={"stop_token_ids": sorted(stop), "return_token_ids": True, **UNFILTERED},
        )
        choices = sorted(answer.choices, key=lambda choice: choice.index)
        return [sampled(endpoint, choice, stop) for choice in choices]

    found = yield from calls(endpoint, [lambda client, n=n: one(client, n) for n in range(len(prompts))])
    if any(len(each) != samples for each in found):
        raise GPTError(f"endpoint {endpoint.name} gave fewer completions than the {samples} asked for")
    return [each for some in found for each in some]


def sampled(endpoint, choice, stop: frozenset[int]) -> Sampled:
    """A choice of the answer. Raises GPTError for one that has no token ids."""
    ids, logprobs = getattr(choice, "token_ids", None), choice.logprobs and choice.logprobs.token_logprobs
    if not ids or not logprobs or len(ids) != len(logprobs):
        raise GPTError(
            f"endpoint {endpoint.name} returns no token ids with log-probabilities: --rollouts needs vLLM, as "
            "`%gpt serve --engine vllm` starts it"
        )
    finish = "stop" if choice.finish_reason == "stop" else "length"
    if finish == "stop" and ids[-1] not in stop:
        raise GPTError(f"endpoint {endpoint.name} ended a completion without an end token of the policy")
    return Sampled(list(ids), list(logprobs), finish)


def reload(endpoint, folder: Path) -> Iterator[None]:
    """Have the server read its weights from the safetensors in `folder`; yields while it does."""
    root = "{0.scheme}://{0.netloc}".format(urlsplit(endpoint.base_url))

    def all_steps(client) -> None:
        import httpx

        client = client.with_options(base_url=root)
        client.post("/pause", cast_to=httpx.Response)
        try:
            body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
            client.post("/collective_rpc", cast_to=httpx.Response, body=body)
        finally:
            client.post("/resume", cast_to=httpx.Response)

    yield from calls(endpoint, [all_steps])


def calls(endpoint, functions: Sequence[Callable[[Any], Any]]) -> Iterator[None]:
    """Call each function with a client, on threads; yields while they run, returns what they return."""
    import openai

    key = endpoint.key()
    client, failed = connect(endpoint, key), None
    pool = ThreadPoolExecutor(min(AT_ONCE, len(functions)), thread_name_prefix="jupyter_gpt-vllm")
    jobs: list[Future] = [pool.submit(function, client) for function in functions]
    try:
        while True:
            done, rest = wait(jobs, timeout=LOOK, return_when=FIRST_EXCEPTION)
            for job in done:
                job.result()  # raises what the function raised
            if not rest:
                return [job.result() for job in jobs]
            yield
    except openai.NotFoundError as error:
        if "/v1/" in str(error.request.url):
            failed = explain(error, endpoint, key, client)
        else:
            failed = GPTError(
                f"endpoint {endpoint.name} cannot take new weights: it is no vLLM in development mode, as "
                "`%gpt serve --engine vllm` starts it"
            )
    except openai.OpenAIError as error:
        failed = explain(error, endpoint, key, client)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        client.close()
    raise failed
