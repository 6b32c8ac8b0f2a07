"""The HTML representation of an estimator links to the page that the documentation has for it."""

import json

from tests.registry import ALL_NAMES
from tests.subprocesses import run_python

# The address is read once, when sklebm is imported.
CODE = """
import json, re, sklebm
from sklearn.utils import estimator_html_repr
from tests.registry import ALL_NAMES, make
pages = {name: re.findall('href="(.*?)"', estimator_html_repr(make(name))) for name in ALL_NAMES}
print(json.dumps(pages))
"""
ADDRESS = "https://docs.example/latest"


def test_links_lead_to_the_api_pages():
    found = json.loads(run_python(CODE, SKLEBM_DOCUMENTATION_URL=f"{ADDRESS}/"))
    for name in ALL_NAMES:
        links = [link for link in found[name] if "sklebm" in link]
        assert links[0] == f"{ADDRESS}/generated/sklebm.{name}.html"
        # parameters link to their line on the same page, some to those of an estimator inside
        inside = {link.partition("#")[0].rpartition("sklebm.")[2] for link in links}
        assert inside <= {f"{other}.html" for other in ALL_NAMES}
