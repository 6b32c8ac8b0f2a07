"""All errors and warnings of the tables as one list that can be read and reviewed.

``expected_messages.txt`` holds them, one a line: what was done, the kind, where it was raised, the
text. ``SKLEBM_WRITE_MESSAGES=1 python -m pytest tests/test_messages.py`` writes the file anew: read
the difference before committing it. Texts of other libraries are listed but not compared.
"""

import os
import re
import traceback
import warnings
from pathlib import Path

import pytest
from sklearn.utils import get_tags

from tests.bad_input_table import INPUTS, Works
from tests.bad_parameter_table import BAD_VALUES
from tests.registry import NAMES, make_brief, make_rows, takes

FILE = Path(__file__).with_name("expected_messages.txt")
ALLOWED = (ValueError, TypeError, FloatingPointError, MemoryError)


def normalise(text):
    """The text without what differs between estimators, processes and machines."""
    for name in sorted(NAMES, key=len, reverse=True):  # some names end in another
        text = text.replace(name, "<estimator>")
    # contents of arrays, what was passed, and the device types that this torch knows
    text = re.sub(r"array=.*?(?=Reshape)|(?<=not supported)\s*\[\[.*", " [...] ", text, flags=re.S)
    text = re.sub(r"Got .* instead\.$", "Got <value> instead.", text)
    text = re.sub(r"\(Expected one of .*?\)", "(<reason>)", text)
    text = re.sub(r"0x[0-9A-Fa-f]+", "<address>", text)
    text = re.sub(r"-?\d+\.\d{2,}(e[+-]?\d+)?|-?\d+(\.\d+)?e[+-]\d+", "<number>", text)
    text = re.sub(r"\{([^{}]*)\}", lambda m: f"{{{', '.join(sorted(m[1].split(', ')))}}}", text)
    return re.sub(r"\s+", " ", text).strip()[:400]


def origin(error):
    """The library that raised the error."""
    path = traceback.extract_tb(error.__traceback__)[-1].filename
    parts = Path(path).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    return "sklebm" if "sklebm" in parts else "python"


def observe(what, call):
    """Lines for what a call raises and warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
        except ALLOWED as error:
            yield what, type(error).__name__, origin(error), normalise(str(error))
    for warning in caught:
        yield what, warning.category.__name__, "warning", normalise(str(warning.message))


def observe_inputs(name):
    fitted = make_brief(name).fit(make_rows())
    tags = get_tags(fitted).input_tags
    for case in INPUTS:
        if case.outcome("fit", tags) != Works():
            fit = make_brief(name).fit
            yield from observe(f"X: {case.name}", lambda f=fit, c=case: f(c.make(make_rows())))
        if case.outcome("score_samples", tags) != Works():
            score = fitted.score_samples
            yield from observe(f"X: {case.name}", lambda s=score, c=case: s(c.make(make_rows())))


def observe_parameters(name):
    for parameter in make_brief(name).get_params(deep=False):
        for value in BAD_VALUES.get(parameter, ()):
            model = make_brief(name, **{parameter: value})
            yield from observe(f"parameter: {parameter}", lambda m=model: m.fit(make_rows()))


def observe_sequences(name):
    model = make_brief(name)
    yield from observe("score: not fitted", lambda: model.score_samples(make_rows()))
    model.fit(make_rows())
    if hasattr(model, "inverse_transform"):
        yield from observe(
            "inverse_transform: another width", lambda: model.inverse_transform(make_rows()[:, :1])
        )
    if hasattr(model, "sample"):
        yield from observe("sample: none", lambda: model.sample(0))
    if takes(model, "device"):
        for device in ("meta", "gpu"):
            yield from observe(
                f"device: {device}", lambda d=device: make_brief(name, device=d).fit(make_rows())
            )


@pytest.fixture(scope="module")
def messages():
    found = set()
    for name in NAMES:
        for source in (observe_inputs, observe_parameters, observe_sequences):
            found.update(source(name))
    return found


def comparable(message):
    """A message; only where it comes from, if another library wrote it."""
    return message if message[2] in ("sklebm", "warning") else (message[0], "another library")


def test_messages_are_those_reviewed(messages):
    if os.environ.get("SKLEBM_WRITE_MESSAGES"):
        FILE.write_text("".join(" | ".join(line) + "\n" for line in sorted(messages)))
    reviewed = {tuple(line.split(" | ", 3)) for line in FILE.read_text().splitlines()}
    new = {comparable(m) for m in messages} - {comparable(m) for m in reviewed}
    gone = {comparable(m) for m in reviewed} - {comparable(m) for m in messages}
    assert not new, "review these, then write the file anew"
    assert not gone, "these are said no more: write the file anew"


def test_our_messages_say_what_to_do(messages):
    """Every message of ours asks for, names, or rules out something: it is no mere complaint."""
    advice = re.compile(
        r"\b(must|needs?|should|pass|call|set|use|lower|raise|scale|choose|increase|check|"
        r"required|expect(s|ed|ing)?|instead|reshape|flatten|impute|not fitted)\b",
        re.IGNORECASE,
    )
    assert not advice.search("because it is a chosen user's mustard")
    for what, kind, where, text in sorted(messages):
        if where == "sklebm":
            assert advice.search(text), f"{what}: {kind}: {text}"
