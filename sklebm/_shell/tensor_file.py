"""One JSON document and named arrays in one safetensors file, written completely or not at all.

The format is eight bytes with the length of a JSON header, the header, and the tensors' bytes
(https://github.com/huggingface/safetensors). Our document is one string in the header's
``__metadata__``; it carries a SHA-256 of itself and of all tensors.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from sklebm._shell.encoding import DTYPES

SUFFIX = ".safetensors"
MAX_HEADER_BYTES = 16 * 2**20
_KEY = "sklebm"
_LENGTH_BYTES = 8
# How other formats begin, for an error message that says what kind of file this is.
_FOREIGN = {
    b"PK\x03\x04": "a zip archive (as torch.save and skops write)",
    b"\x80": "a pickle (as pickle and joblib write)",
    b"\x1f\x8b": "a gzip file",
    b"\x78\x9c": "a zlib file (as joblib writes)",
    b"\x93NUMPY": "a NumPy .npy file",
    b"\x89HDF": "an HDF5 file",
}

Tensors = dict[str, np.ndarray[Any, Any]]


def canonical(document: dict[str, Any]) -> str:
    """The canonical form of a document, so that any changed byte is detected."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def digest(document: dict[str, Any], tensors: Tensors) -> str:
    """SHA-256 over the document and the names, dtypes, shapes and bytes of all tensors."""
    names = sorted(tensors)
    layout = [[name, tensors[name].dtype.name, list(tensors[name].shape)] for name in names]
    total = hashlib.sha256(canonical({"document": document, "layout": layout}).encode())
    for name in names:
        total.update(tensors[name].data.cast("B") if tensors[name].size else b"")
    return total.hexdigest()


def to_bytes(document: dict[str, Any], tensors: Tensors) -> bytes:
    """The whole file in memory; the digest is added to ``document``."""
    signed = {**document, "sha256": digest(document, tensors)}
    data = safetensors.numpy.save(tensors, {_KEY: canonical(signed)})
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(
            f"The parameters, strings and lists of this estimator take {length} bytes as text, but "
            f"sklebm.load reads at most {MAX_HEADER_BYTES}: use NumPy arrays instead of long lists."
        )
    return data


def replace_file(path: Path, data: bytes) -> None:
    """Write ``data`` atomically: ``path`` holds either all of it or its previous contents."""
    target = Path(os.path.realpath(path))  # like an ordinary write, follow a link to a file
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        # In the same folder, so that the replacement is atomic; "x" gives the usual permissions.
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, FileNotFoundError) and not target.parent.exists():
            folder = target.parent if path.parent.exists() else path.parent  # as it was written
            reason = "the folder does not exist: create it first"
            raise FileNotFoundError(errno.ENOENT, reason, os.fspath(folder)) from error
        if isinstance(error, OSError) and error.filename == os.fspath(temporary):
            error.filename = os.fspath(path)  # nobody knows the temporary name
            del error.filename2  # the target of the replacement, under its resolved name
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power failure, if the folder can be synchronised."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# ---------------------------------------------------------------------- reading


def read_file(path: Path) -> tuple[dict[str, Any], Tensors]:
    """Return the uninterpreted document and the tensors.

    Raises
    ------
    ValueError
        If this is not a complete safetensors file with the sizes that it claims.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is not a regular file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        text, end = _read_header(file, size)
        metadata = _check_layout(_parse(text, "header"), size - end)
        file.seek(0)
        data = file.read(size)
    if data[_LENGTH_BYTES:end] != text or len(data) != size:
        raise ValueError("it changed while it was read")
    try:
        tensors = safetensors.numpy.load(data)
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"its tensors are damaged ({error})") from error
    document = _parse(metadata.encode(), "document")
    if canonical(document) != metadata:
        raise ValueError("its document was edited or damaged")
    return document, tensors


def _read_header(file: BinaryIO, size: int) -> tuple[bytes, int]:
    """The header's bytes and their end; reads nothing else, whatever size is claimed."""
    start = file.read(_LENGTH_BYTES)
    length = int.from_bytes(start, "little")
    if len(start) < _LENGTH_BYTES or length > min(MAX_HEADER_BYTES, size - _LENGTH_BYTES):
        for magic, name in _FOREIGN.items():
            if start.startswith(magic):
                raise ValueError(
                    f"it is {name}, not a safetensors file. sklebm.load never unpickles; open it "
                    "with the tool that wrote it, if you trust its author"
                )
        raise ValueError(
            f"its first {_LENGTH_BYTES} bytes claim a header of {length} bytes, but the file has "
            f"{size} and headers have at most {MAX_HEADER_BYTES}: it is truncated or no model file"
        )
    return file.read(length), _LENGTH_BYTES + length


def _parse(text: bytes, what: str) -> dict[str, Any]:
    """JSON without duplicate keys and without special numbers."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a duplicate key")
        return dict(pairs)

    def refuse(name: str) -> None:
        raise ValueError(f"the number {name}")

    try:
        parsed = json.loads(text.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {what} is damaged ({error})") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"its {what} is damaged (not a JSON object)")
    return parsed


def _check_layout(header: dict[str, Any], available: int) -> str:
    """Check the claims about tensors before allocating anything; return the document's text."""
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or set(metadata) != {_KEY}:
        raise ValueError("it is a safetensors file that sklebm.save did not write")
    end = 0
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.get("dtype") not in DTYPES:
            raise ValueError(f"its tensor {name!r} has a dtype other than {', '.join(DTYPES)}")
        offsets = entry.get("data_offsets")
        if not isinstance(offsets, list) or not all(type(item) is int for item in offsets):
            raise ValueError(f"its tensor {name!r} does not say where it lies in the file")
        end = max([end, *offsets])
    if end != available:
        raise ValueError(f"its tensors need {end} bytes, but it holds {available}: it is truncated")
    text = metadata[_KEY]
    if not isinstance(text, str):
        raise ValueError("its document is not text")
    return text
