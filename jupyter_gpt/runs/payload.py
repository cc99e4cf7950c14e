"""What a run in another process needs of the notebook: its `$variables`, a user's reward functions among them.

They travel in one file, which only its owner can read; its SHA-256 goes to the process on another way, so that nothing
else is ever unpickled. cloudpickle sends a function of the notebook by value.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import ChainMap
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType
from typing import ClassVar

from jupyter_gpt.errors import GPTError

FILE = "variables.bin"
VARIABLE = "JUPYTER_GPT_VARIABLES"  # of the environment: the digest


def write(folder: Path, data: bytes) -> dict[str, str]:
    """Write what `pickled` has made into the folder of a run; returns what its processes need in their environment."""
    remove(folder)
    if not data:
        return {}
    with os.fdopen(os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    return {VARIABLE: hashlib.sha256(data).hexdigest()}


def pickled(variables: Mapping[str, object]) -> bytes:
    """Nothing of no variables. Raises GPTError for one that cannot be pickled."""
    if not variables:
        return b""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):
        dispatch_table: ClassVar = ChainMap({CodeType: reduced}, dict(cloudpickle.Pickler.dispatch_table))

    try:
        data = io.BytesIO()
        Pickler(data).dump(dict(variables))
        return data.getvalue()
    except Exception as error:
        if len(variables) > 1:  # which of them it is
            for name, value in variables.items():
                pickled({name: value})
        [name] = list(variables)[:1]
        why = str(error).strip().splitlines()
        raise GPTError(
            f"${name} cannot be sent to another process ({why[0] if why else type(error).__name__}): define it in a "
            "file that can be imported, without what belongs to this kernel, or train without --detach and --devices"
        ) from error


def reduced(code: CodeType) -> tuple:
    """As cloudpickle reduces it, but for the name of its file, which cloudpickle forgets: a traceback needs it."""
    import cloudpickle

    make, arguments, *_ = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return in_file, (make, arguments, code.co_filename)


def in_file(make: Callable[..., CodeType], arguments: tuple, name: str) -> CodeType:
    return make(*arguments).replace(co_filename=name)


def read(folder: Path) -> dict[str, object]:
    """The variables that were sent to this process. Raises GPTError where the file is not what was sent."""
    import cloudpickle

    digest = os.environ.get(VARIABLE)
    if digest is None:
        return {}
    try:
        data = (folder / FILE).read_bytes()
    except OSError as error:
        raise GPTError(f"the variables of run {folder.name} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise GPTError(f"{folder / FILE} is not what the kernel has sent: nothing of it was read")
    try:
        return cloudpickle.loads(data)
    except Exception as error:
        raise GPTError(
            f"the variables of run {folder.name} cannot be read here ({type(error).__name__}: {error}): what they "
            "import has to be installed, or in the notebook's folder"
        ) from error


def remove(folder: Path) -> None:
    """Once all ranks have read it."""
    (folder / FILE).unlink(missing_ok=True)
