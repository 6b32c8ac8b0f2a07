"""All errors and warnings of the tables as one list that can be read and reviewed.

``expected_messages.txt`` holds those that sklebm writes, one a line: what was done, the kind, where
it was raised, the text. ``make generated`` writes the file anew: read the difference before
committing it. Texts of other libraries are not listed.
"""

import functools
import re
import traceback
import warnings
from pathlib import Path

import pytest
from sklearn.utils import get_tags

from tests.bad_input_table import INPUTS, Works
from tests.bad_parameter_table import bad_values
from tests.registry import NAMES, make_brief, make_rows, takes
from tests.sampling import FULL

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
    text = re.sub(r"datetime64\[\w+\]", "datetime64[<unit>]", text)  # pandas 2 and 3 differ
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
        for value in bad_values(make_brief(name), parameter):
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


@functools.cache
def observed(name):
    """What sklebm writes itself, of one estimator."""
    sources = (observe_inputs, observe_parameters, observe_sequences)
    found = {message for source in sources for message in source(name)}
    return frozenset(message for message in found if message[2] in ("sklebm", "warning"))


def render():
    """The file: the messages of all estimators."""
    found = frozenset().union(*(observed(name) for name in NAMES))
    return "".join(" | ".join(line) + "\n" for line in sorted(found))


def reviewed():
    return {tuple(line.split(" | ", 3)) for line in FILE.read_text().splitlines()}


@pytest.mark.table(4)
@pytest.mark.parametrize("name", NAMES)
def test_messages_are_those_reviewed(name):
    assert not observed(name) - reviewed(), "run `make generated`, and read the difference"


@pytest.mark.skipif(not FULL, reason="needs every estimator: set SKLEBM_TEST_FULL=1")
def test_every_reviewed_message_is_said():
    assert render() == FILE.read_text(), "run `make generated`, and read the difference"


def test_our_messages_say_what_to_do():
    """Every message of ours asks for, names, or rules out something: it is no mere complaint."""
    # A verb that asks for something begins a clause: "set" and "scale" are nouns elsewhere.
    advice = re.compile(
        r"\b(must|needs?|should|required|expect(s|ed|ing)?|instead|not fitted|cannot|use)\b|"
        r"(?:^|[:;,.(] |\b(?:or|and|first|then) )(pass|call|set|lower|raise|scale|choose|increase|"
        r"check|reshape|flatten|impute|fit|leave|keep|name|install|convert|load|save|reduce|sort|"
        r"start|shorten|split|encode|train|drop|add|give)\b",
        re.IGNORECASE,
    )
    for complaint in (
        "because it is a chosen user's mustard",
        "the scale of the set is 2 at this call, and the check of its raise is lower",
    ):
        assert not advice.search(complaint)
    for what, kind, where, text in sorted(reviewed()):
        if where == "sklebm":
            assert advice.search(text), f"{what}: {kind}: {text}"
