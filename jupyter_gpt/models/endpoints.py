"""Endpoints: models behind an OpenAI-compatible server, by name.

`endpoints.json` has each address and the name of the environment variable that holds the key, never the key: that is
read for each request and goes into its header alone. The file is in the store beside the notebook, or in the user's
configuration folder for all notebooks of that user; the store's wins.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.inference.remote import LOOPBACK
from jupyter_gpt.options import Options, option
from jupyter_gpt.runs import provenance
from jupyter_gpt.runs.provenance import Provenance, check

FILE = "endpoints.json"
MOST = 1 << 20  # seconds, and retries
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class NotLocal(GPTError, AttributeError):
    """An endpoint has no module, tokenizer or folder; `getattr(model, "folder", None)` is None."""


def checked_url(url: str) -> str:
    """The address without a trailing slash. Raises GPTError, which never repeats it: it may contain a secret."""
    try:
        parts = urlsplit(url.strip())
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise GPTError("--base-url needs an address such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise GPTError(
            "--base-url is saved on disk: leave out user, password and query; --key-env names the key's variable"
        )
    path = parts.path.rstrip("/")
    if path.endswith(("/chat/completions", "/completions")):
        raise GPTError("--base-url ends before /chat/completions: usually with /v1")
    return f"{parts.scheme}://{parts.netloc}{path}"


def checked_variable(name: str | None, option: str = "--key-env") -> str | None:
    """The name of a variable: in capitals, or one that is set. Anything else is more likely the secret itself."""
    if name is not None and not VARIABLE.fullmatch(name) and name not in os.environ:
        raise GPTError(f"{option} needs the name of an environment variable, such as OPENAI_API_KEY, never its content")
    return name


class Endpoint(Options):
    """declare a model of an OpenAI-compatible server: `gpt.models[name]`

    It is usable wherever a local model can be prompted. No request is sent yet.
    """

    magic: ClassVar[str] = "gpt.endpoint"
    group: ClassVar[str] = "Endpoint"

    name: str = option(..., "name of the endpoint here", positional=True)
    base_url: Annotated[str, AfterValidator(checked_url)] = option(
        ..., "address of its API, up to /v1", "URL", positional=True
    )
    model: Annotated[str, Field(min_length=1)] = option(
        ..., "name of the model at the server", "MODEL", positional=True
    )
    key_env: Annotated[str | None, AfterValidator(checked_variable)] = option(
        None, "environment variable that holds the API key, which is never saved", "VAR"
    )
    chat: bool = option(
        True, "whether it takes chat messages; a base model gets raw documents through /completions", only="python"
    )
    timeout: Annotated[float, Field(gt=0, le=MOST)] = option(60.0, "seconds to wait for the server", "SECONDS")
    retries: Annotated[int, Field(ge=0, le=MOST)] = option(2, "how often a failed request is repeated", "N")
    cell_id: str | None = option(None, only="none")  # the cell that declared it

    kind: ClassVar[str] = "endpoint"
    device: ClassVar[None] = None
    dtype: ClassVar[None] = None
    parameters: ClassVar[None] = None
    licence: ClassVar[None] = None
    source: ClassVar[None] = None
    resident: ClassVar[bool] = False
    memory: ClassVar[int] = 0
    on_disk: ClassVar[int] = 0

    @property
    def has_chat(self) -> bool:
        return self.chat

    @property
    def provenance(self) -> Provenance:
        """The cell that declared it, and as what; of a server on this machine without the port, which may be any."""
        parts = urlsplit(self.base_url)
        where = f"{parts.hostname}{parts.path}" if parts.hostname in LOOPBACK else self.base_url
        requested = {"base_url": where, "model": self.model, "key_env": self.key_env, "chat": self.chat}
        return Provenance("endpoint", self.cell_id, requested)

    @property
    def lineage(self) -> list[str]:
        return [f"{self.model} at {urlsplit(self.base_url).netloc}"]

    @property
    def module(self):
        raise NotLocal(f"{self.name} is an endpoint: it can be prompted, but its weights and tokenizer are remote")

    folder = tokenizer = module

    def key(self) -> str | None:
        """The key, read from the environment now. Raises GPTError if it is missing."""
        if self.key_env is None:
            return None
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise GPTError(
                f"endpoint {self.name} needs its key in the environment variable {self.key_env}: it is not set"
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise GPTError(
                f"{self.key_env} does not hold a key for endpoint {self.name}: it has spaces or odd characters"
            )
        return key

    def __repr__(self) -> str:
        key = f", key from {self.key_env}" if self.key_env else ""
        return f"<endpoint {self.name}: {self.model} at {self.base_url}{key}>"


class EndpointOptions(Endpoint):
    __doc__ = Endpoint.__doc__
    group: ClassVar[str] = Endpoint.group

    user: bool = option(False, "for all notebooks of this user, not only those of this folder")
    overwrite: bool = option(False, "replace an endpoint of this name that another cell declared")


class Endpoints(Mapping):
    """The declared endpoints by name, read from the files each time: other kernels may change them."""

    def declare(self, options: EndpointOptions) -> Endpoint:
        """Save an endpoint under its name. Raises GPTError for another cell's endpoint, unless `overwrite`."""
        name = store.check_name(options.name)
        fields = {key: value for key, value in options.as_dict().items() if key in Endpoint.model_fields}
        endpoint = Endpoint.of(**fields | {"cell_id": provenance.running_cell()})
        parts = urlsplit(endpoint.base_url)
        if endpoint.key_env and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            warnings.warn(
                f"endpoint {name}: the key in {endpoint.key_env} goes to {parts.hostname} over plain http, where "
                "others can read it; use https",
                stacklevel=2,
            )
        path = (store.settings() if options.user else store.home()) / FILE
        saved = read(path)
        old = None
        with suppress(GPTError):  # a damaged one may be replaced
            old = endpoint_of(name, saved[name]) if name in saved else None
        if old is not None:
            check(name, old.provenance, endpoint.provenance, options.overwrite)
        saved[name] = {key: value for key, value in endpoint.as_dict().items() if key != "name"}
        store.write_json(path, saved)
        return endpoint

    def remove(self, name: str) -> None:
        """Remove an endpoint from the first file that has it."""
        self[name]
        path = next(path for path in places() if name in read(path))
        store.write_json(path, {key: value for key, value in read(path).items() if key != name})

    def all(self) -> dict[str, dict]:
        return {name: fields for path in reversed(places()) for name, fields in read(path).items()}

    def __getitem__(self, name: str) -> Endpoint:
        known = self.all()
        if name not in known:
            raise GPTError(f"there is no endpoint {name}{nearest(name, known)}")
        return endpoint_of(name, known[name])

    def __contains__(self, name: object) -> bool:
        return name in self.all()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.all()))

    def __len__(self) -> int:
        return len(self.all())


def endpoint_of(name: str, values: dict) -> Endpoint:
    """The endpoint in a file. Raises GPTError if it is damaged."""
    try:
        return Endpoint.of(**{key: values[key] for key in values if key in Endpoint.model_fields}, name=name)
    except (TypeError, GPTError) as error:
        raise GPTError(f"endpoint {name} cannot be read from {FILE}: declare it again") from error


def places() -> list[Path]:
    """The files, the store's first."""
    return [store.home() / FILE, store.settings() / FILE]


def read(path: Path) -> dict[str, dict]:
    try:
        return store.read_json(path)
    except ValueError as error:
        raise GPTError(f"{path} is damaged: repair or remove it") from error
