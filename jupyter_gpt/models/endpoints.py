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
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.inference.remote import LOOPBACK
from jupyter_gpt.options import Options, option
from jupyter_gpt.runs import provenance
from jupyter_gpt.runs.provenance import Provenance, check

FILE = "endpoints.json"
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class NotLocal(GPTError, AttributeError):
    """An endpoint has no module, tokenizer or folder; `getattr(model, "folder", None)` is None."""


@dataclass(frozen=True, repr=False)
class Endpoint:
    """A model of an OpenAI-compatible server, usable wherever a local model can be prompted. The fields are those of
    `EndpointOptions`.
    """

    name: str
    base_url: str
    model: str
    key_env: str | None = None
    chat: bool = True
    timeout: float = 60.0
    retries: int = 2
    cell_id: str | None = None

    kind = "endpoint"
    device = dtype = parameters = licence = source = None
    resident = False
    memory = on_disk = 0

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


def user_folder() -> Path:
    """Where the user's own endpoints are, whatever folder the notebook is in; JUPYTER_GPT_CONFIG moves it."""
    import platformdirs

    return Path(os.environ.get("JUPYTER_GPT_CONFIG") or platformdirs.user_config_dir("jupyter_gpt", appauthor=False))


class EndpointOptions(Options):
    """declare a model of an OpenAI-compatible server: `gpt.models[name]`

    No request is sent yet.
    """

    magic: ClassVar[str] = "gpt.endpoint"

    name: str = option(..., "name of the endpoint here", positional=True)
    base_url: str = option(..., "address of its API, up to /v1", positional=True)
    model: str = option(..., "name of the model at the server", positional=True)
    key_env: str | None = option(None, "environment variable that holds the API key, which is never saved")
    chat: bool = option(True, "whether it takes chat messages; a base model gets raw documents through /completions")
    timeout: float = option(60.0, "seconds to wait for the server")
    retries: int = option(2, "how often a failed request is repeated")
    user: bool = option(False, "for all notebooks of this user, not just those of this folder")
    overwrite: bool = option(False, "replace an endpoint of this name that another cell declared")


class Endpoints(Mapping):
    """The declared endpoints by name, read from the files each time: other kernels may change them."""

    def declare(
        self,
        name: str,
        base_url: str,
        model: str,
        *,
        key_env: str | None = None,
        chat: bool = True,
        timeout: float = 60.0,
        retries: int = 2,
        user: bool = False,
        overwrite: bool = False,
    ) -> Endpoint:
        """Save an endpoint under `name`.

        Raises GPTError for an invalid address, one that holds a secret, and a `key_env` that cannot be the name of a
        variable, without repeating it: it may be the key. Also for another cell's endpoint, unless `overwrite`.
        """
        store.check_name(name)
        if not model.strip():
            raise GPTError(f"endpoint {name} needs --model, the name of the model at its server")
        if not timeout > 0 or retries < 0:
            raise GPTError(f"endpoint {name} needs a timeout above 0 seconds and 0 retries or more")
        endpoint = Endpoint(
            name,
            checked_url(base_url),
            model,
            checked_variable(key_env),
            chat,
            float(timeout),
            retries,
            provenance.running_cell(),
        )
        parts = urlsplit(endpoint.base_url)
        if key_env and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            warnings.warn(
                f"endpoint {name}: the key in {key_env} goes to {parts.hostname} over plain http, where others can "
                "read it; use https",
                stacklevel=2,
            )
        path = (user_folder() if user else store.home()) / FILE
        try:
            old = endpoint_of(name, read(path)[name]) if name in read(path) else None
        except GPTError:
            old = None  # damaged
        if old is not None:
            check(name, old.provenance, endpoint.provenance, overwrite)
        fields = {key: value for key, value in asdict(endpoint).items() if key != "name"}
        store.write_json(path, {**read(path), name: fields})
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
    names = {field.name for field in fields(Endpoint)}
    try:
        known = {key: value for key, value in values.items() if key in names}
        store.check_types(
            known,
            base_url=str,
            model=str,
            key_env=str | None,
            chat=bool,
            timeout=int | float,
            retries=int,
            cell_id=str | None,
        )
        return Endpoint(name, **{**known, "base_url": checked_url(values["base_url"])})
    except (TypeError, AttributeError, KeyError, ValueError, GPTError) as error:
        raise GPTError(f"endpoint {name} cannot be read from {FILE}: declare it again") from error


def places() -> list[Path]:
    """The files, the store's first."""
    return [store.home() / FILE, user_folder() / FILE]


def read(path: Path) -> dict[str, dict]:
    try:
        return store.read_json(path)
    except ValueError as error:
        raise GPTError(f"{path} is damaged: repair or remove it") from error


def checked_url(url: str) -> str:
    """The address without a trailing slash. Raises GPTError, which never repeats it: it may hold a secret."""
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
