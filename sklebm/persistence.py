"""Models in files without pickle: ``save`` writes one safetensors file, ``load`` reads it back.

A file holds numbers, strings and names of this library's classes. Reading it runs none of its
contents as code, whoever wrote it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch

import sklebm
from sklebm._shell.encoding import Decoder, Encoder, registered
from sklebm._shell.ranks import is_first_rank
from sklebm._shell.surroundings import sheltered
from sklebm._shell.tensor_file import SUFFIX, digest, read_file, replace_file, to_bytes
from sklebm._shell.warning import warn

__all__ = ["load", "save"]

FORMAT_VERSION = 1
# One entry per format: the function that turns its document into one of the next format. Entries
# stay once released, so that every file ever written can be read.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
_MAX_REASON = 1000  # a file must not fill the terminal with its own text
_KEYS = {"format_version", "versions", "estimator", "sha256"}
_RECORDED = {"numpy": np, "scikit-learn": sklearn, "sklebm": sklebm, "torch": torch}


@sheltered
def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Save an estimator of this library to one file.

    The file holds the parameters, the fitted attributes (arrays as tensors, floats to the last bit)
    and the names of the classes. Nested estimators, and parts such as objectives, are stored if
    they are this library's own. What belongs to a session rather than to the model is not stored:
    callbacks and metadata requests.

    If several processes fit an estimator with ``strategy="ddp"``, only the first one writes; the
    others return at once.

    The file is written next to ``path`` and then moved into place in one step: if saving fails or
    the process is killed, whatever was at ``path`` is still there, intact.

    Parameters
    ----------
    estimator : estimator of sklebm
        Fitted or not. It is checked just as ``load`` will check it.
    path : str or path-like
        Destination; must end in ``.safetensors``.

    Raises
    ------
    TypeError
        If the estimator, or something inside it, is not from this library, or is a callable, a
        torch module, a ``RandomState``, or of another type that files cannot hold. Use skops for
        those.
    ValueError
        If ``path`` has a different ending, a value is NaN or infinite, or a parameter is invalid or
        was changed after ``fit`` so that the fitted attributes no longer match it.
    OSError
        If the file cannot be written, such as in a folder that does not exist
        (``FileNotFoundError``).

    See Also
    --------
    load : Read the file.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import load_iris
    >>> from sklebm import PCAWhitener, load, save
    >>> X = load_iris().data
    >>> whitener = PCAWhitener().fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "whitener.safetensors")
    ...     save(whitener, path)
    ...     copy = load(path)
    >>> bool((copy.transform(X) == whitener.transform(X)).all())
    True
    """
    path = _checked_path(path)
    if registered(type(estimator).__name__, sklebm.ESTIMATORS) is not type(estimator):
        kind = f"{type(estimator).__module__}.{type(estimator).__qualname__}"
        raise TypeError(
            f"sklebm.save stores estimators of sklebm, not {kind}. For pipelines and for "
            "estimators of other libraries use skops.io.dump (pip install skops), or joblib.dump "
            "for files that only you open."
        )
    encoder = Encoder()
    document = {
        "format_version": FORMAT_VERSION,
        "versions": {name: str(module.__version__) for name, module in _RECORDED.items()},
        "estimator": encoder.estimator(estimator),
    }
    if is_first_rank(getattr(estimator, "strategy", None)):
        replace_file(path, to_bytes(document, encoder.tensors))


@sheltered
def load(path: str | os.PathLike[str]) -> Any:
    """Load an estimator that ``save`` wrote.

    Safe for files from strangers: the file's size, structure, checksum, names, types, shapes and
    finite values are checked, classes come from this library's own table, and nothing in the file
    is executed. The checksum detects damage, not malice: whoever can write a file can write a model
    that gives wrong answers. The estimator's arrays are on the CPU, so a model fitted on a GPU
    loads anywhere; if its ``device`` parameter names a missing device, choose another with
    ``set_params``.

    Parameters
    ----------
    path : str or path-like
        A file ending in ``.safetensors``.

    Returns
    -------
    estimator : object
        Equal to the one saved: with the same versions, device and number of threads, its methods
        return the same numbers to the last bit.

    Raises
    ------
    ValueError
        If the file is damaged, of another kind or a newer format, or does not describe a valid
        estimator.
    OSError
        If there is no such file (``FileNotFoundError``) or it cannot be read.

    Warns
    -----
    UserWarning
        If the file was written by a newer minor version of sklebm.

    See Also
    --------
    save : Write the file, with an example.
    """
    path = _checked_path(path)
    try:
        document, tensors = read_file(path)
        _check_document(document)
        if (
            digest({k: v for k, v in document.items() if k != "sha256"}, tensors)
            != (document["sha256"])
        ):
            raise ValueError("its checksum does not match: it was changed or damaged")
        _warn_if_newer(document["versions"])
        document = _upgraded(document)
        decoder = Decoder(tensors)
        estimator = decoder.estimator(document["estimator"])
        if decoder.unused:
            raise ValueError(f"nothing refers to its tensor {min(decoder.unused)!r}")
    except (OSError, MemoryError, Warning):  # Warning: the caller may have made it an error
        raise
    except Exception as error:
        # Whatever a file makes fail, in our code or below it, is the file's fault.
        reason = (str(error).rstrip(".") or type(error).__name__)[:_MAX_REASON]
        raise ValueError(f"{os.fspath(path)!r} cannot be loaded: {reason}.") from error
    return estimator


def _checked_path(path: str | os.PathLike[str]) -> Path:
    checked = Path(path)
    if checked.suffix != SUFFIX:
        raise ValueError(
            f"{os.fspath(path)!r} does not end in {SUFFIX!r}. sklebm saves and loads safetensors "
            "files only; it never opens pickles."
        )
    return checked


def _check_document(document: dict[str, Any]) -> None:
    """Check the outermost keys; the format version first, because others may differ with it."""
    written = document.get("format_version")
    if type(written) is not int or written < 1:
        raise ValueError(f"its format_version is {written!r}")
    if written > FORMAT_VERSION:
        raise ValueError(
            f"its format_version is {written}, but sklebm {sklebm.__version__} reads up to "
            f"{FORMAT_VERSION}: install a newer sklebm"
        )
    if set(document) != _KEYS:
        raise ValueError(f"its document has the keys {sorted(document)}, not {sorted(_KEYS)}")
    versions = document["versions"]
    names = isinstance(versions, dict) and set(versions) == set(_RECORDED)
    if not names or not all(isinstance(item, str) for item in versions.values()):
        raise ValueError(f"its versions are {versions!r}")


def _upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """Convert the document to the current format, step by step."""
    for version in range(document["format_version"], FORMAT_VERSION):
        document = UPGRADES[version](document)
    return document


def _warn_if_newer(versions: dict[str, str]) -> None:
    written, ours = (_minor_version(text) for text in (versions["sklebm"], sklebm.__version__))
    if written > ours:
        warn(
            f"The file was written by sklebm {versions['sklebm']}, newer than this "
            f"{sklebm.__version__}: the model may be read differently here.",
        )


def _minor_version(text: str) -> tuple[int, int]:
    match = re.match(r"(\d{1,9})\.(\d{1,9})", text)
    if match is None:
        raise ValueError(f"{text!r} is not a version")
    return int(match[1]), int(match[2])
