"""Models by the name that a person gives them: an entry of the weights catalogue, a folder on this machine, or a repository on the hub.

    whisper-large-v3                                the catalogue's (`dubbing.weights`): every file pinned
    /models/whisper-of-our-own                      a folder
    pyannote/speaker-…@3533c8cf8e36…(40 digits)     Hugging Face, at one commit

A branch of a repository can change under its name, so the hub's models are named with their commit: a commit stands for its content, and
the name is all that a cache key needs. A folder counts by what is in it. Where the hub is out of reach, or HF_HUB_OFFLINE is set, what its
own cache on this machine holds is used.

Many of these models are pickles, which run code when they are loaded: only repositories and folders that one trusts should be named.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from dubbing import weights
from dubbing.errors import BadSetting, WeightsUnavailable

_REPOSITORY = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})")
# Other forms of the same weights, and language models that nobody here decodes with.
UNUSED = ("*.msgpack", "*.h5", "*.ot", "*.onnx", "*.gguf", "language_model/*", "onnx/*")


def is_folder(model: str) -> bool:
    return model.startswith(("/", "./", "../", "~"))


def catalogued(model: str) -> bool:
    """Whether the name is one of the weights catalogue's."""
    return any(entry.name == model for entry in weights.catalogue())


def identity(model: str) -> str:
    """What stands for the model in a cache key.

    Raises:
        BadSetting: it is no name of a model, or there is no such folder.
    """
    if catalogued(model):
        return weights.find(model).digest()
    if is_folder(model):
        return _digest_of_folder(_folder(model))
    return _parsed(model)[1]


def folder_of(model: str, token: str | None = None) -> Path:
    """The folder with the model's files, fetched if need be.

    Args:
        token: of an account at Hugging Face, for models whose conditions must be accepted.

    Raises:
        BadSetting: it is no name of a model, there is no such folder or repository, or its conditions were not accepted.
        WeightsUnavailable: it isn't on this machine, and the hub can't be reached.
    """
    if catalogued(model):
        return weights.folder_of(model)
    if is_folder(model):
        return _folder(model)
    repository, commit = _parsed(model)
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(repository, revision=commit, token=token, ignore_patterns=list(UNUSED)))
    except errors.GatedRepoError as error:
        raise BadSetting(
            f"model {repository}: its conditions must be accepted at hf.co/{repository}, and a token of that account given (HF_TOKEN)"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise BadSetting(f"model {repository}: the hub has none of this name and commit, or shows it to no one without a token") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError, OSError) as error:
        raise WeightsUnavailable(
            f"model {repository}: it isn't on this machine, and the hub can't be reached ({_first_line(error)}); a folder will do instead"
        ) from error


def _parsed(model: str) -> tuple[str, str]:
    found = _REPOSITORY.fullmatch(model)
    if not found:
        raise BadSetting(
            f"model {model}: neither in the weights catalogue, nor a folder (/…), nor a repository at a commit (owner/name@ and 40 digits)"
        )
    return found["repository"], found["commit"]


def _folder(model: str) -> Path:
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise BadSetting(f"model {model}: there is no such folder")
    return folder


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


_digests: dict[tuple[str, int, int, int], str] = {}  # by a file's place and state


def _digest_of_folder(folder: Path) -> str:
    """One SHA-256 over all files: their names within the folder and their contents."""
    listing = hashlib.sha256(b"folder\0")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        stat = path.stat()
        state = (str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if state not in _digests:
            with path.open("rb") as file:
                _digests[state] = hashlib.file_digest(file, "sha256").hexdigest()
        listing.update(f"{path.relative_to(folder)}\0{_digests[state]}\0".encode("utf-8", "surrogateescape"))
    return listing.hexdigest()
