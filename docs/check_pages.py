"""Open every built page in headless Chromium: ``make check-docs``.

A page of our own, served beside the documentation, loads the others in a frame, one after the
other, and reports what a reader's browser sees: links, missing images, resources from elsewhere,
equations and tables wider than their column on a screen of 1280 pixels, pages wider than one of
400, figures that the dark theme shows through, and what search finds.
Errors in the console come from Chromium's log. Three screenshots are left in
``docs/_build/screenshots`` for the eye.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urldefrag, urlsplit

BUILD = Path(__file__).parent / "_build"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# What is searched for, and a page that must be among the results.
SEARCHES = {"whitening": "whiteners.html", "EnergyKMeans": "EnergyKMeans.html"}
SCREENSHOTS = {
    "home": "index.html",
    "api": "generated/sklebm.EnergyKMeans.html",
    "gallery": "auto_examples/index.html",
}
SECONDS = 300  # for all pages together
NARROW = 400  # pixels: a telephone
SEARCH_SECONDS = 10  # for one search
# What the theme writes into the console of a page that is as it should be. Chromium's log does not
# say how grave a line is, so that any other counts as an error.
CHATTER = ("[PST]: ", "Got invalid theme mode: . Resetting to auto.")

HARNESS = r"""<!doctype html><title>check</title>
<link rel="icon" href="data:,"><iframe width="1280" height="1000"></iframe><script>
const frame = document.querySelector("iframe");
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
async function open(address) {
  await new Promise((done) => { frame.onload = done; frame.src = address; });
  return frame.contentDocument;
}
// Figures are drawn for white paper: their ink is lost where a dark page shows through. Thumbnails
// of the gallery are opaque pictures within a transparent margin.
function transparent(image) {
  if (!image.naturalWidth || !image.src.startsWith(location.origin)) return false;
  if (image.closest(".sphx-glr-thumbcontainer")) return false;
  const paper = frame.contentWindow.getComputedStyle(image).backgroundColor;
  const [red, green, blue, alpha = 1] = paper.match(/[\d.]+/g).map(Number);
  if (alpha === 1 && Math.min(red, green, blue) > 127) return false;
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const copy = canvas.getContext("2d");
  copy.drawImage(image, 0, 0);
  const {data} = copy.getImageData(0, 0, canvas.width, canvas.height);
  return data.some((value, index) => index % 4 === 3 && value < 128);
}
async function look(address, narrow) {
  const page = await open(address);
  for (const image of page.images) {  // those below the fold load when they are scrolled to
    image.loading = "eager";
    await image.decode().catch(() => {});
  }
  const loaded = frame.contentWindow.performance.getEntriesByType("resource");
  // Tables of results may be scrolled: some have a column for each of many cases.
  const scrolled = [...page.querySelectorAll("div.math, .pst-scrollable-table-container")].filter(
    (element) => element.scrollWidth > element.clientWidth + 1
      && !element.querySelector(".benchmark"));
  const right = (element) => element.getBoundingClientRect().right;
  scrolled.push(...[...page.querySelectorAll("td math")].filter(
    (equation) => right(equation) > right(equation.closest("td")) + 1));
  frame.width = narrow;
  const width = page.documentElement.scrollWidth;
  frame.width = 1280;
  page.documentElement.dataset.theme = "dark";  // what the switch of the theme sets
  return {
    width: width,
    transparent: [...page.images].filter(transparent).map((image) => image.src),
    links: [...page.links].map((link) => link.href),
    ids: [...page.querySelectorAll("[id]")].map((element) => element.id),
    broken: [...page.images].filter((image) => !image.naturalWidth).map((image) => image.src),
    loads: loaded.map((entry) => entry.name),
    wide: scrolled.map((element) =>
      (element.querySelector("math") ?? element).getAttribute("alttext") ?? element.innerText),
  };
}
async function search(words, seconds) {
  const page = await open("search.html?q=" + words);
  for (let turn = 0; turn < 10 * seconds; turn++) {
    await wait(100);
    const links = [...page.querySelectorAll("#search-results li a")].map((link) => link.href);
    if (links.length && turn > 5) return links;  // results come one by one
  }
  return [];
}
(async () => {
  const {pages, searches, seconds, narrow} = await (await fetch("/check/tasks")).json();
  const report = {pages: {}, searches: {}};
  for (const address of pages) report.pages[address] = await look(address, narrow);
  for (const words of searches) report.searches[words] = await search(words, seconds);
  await fetch("/check/report", {method: "POST", body: JSON.stringify(report)});
})();
</script>"""


class Site(http.server.SimpleHTTPRequestHandler):
    """The built pages, the page that loads them, and where its report arrives."""

    pages: ClassVar[list[str]]
    missing: ClassVar[set[str]]
    reports: ClassVar[queue.Queue[dict[str, Any]]]

    def do_GET(self) -> None:
        """Answer with a file, the harness or its tasks."""
        made = {
            "/check/": ("text/html", HARNESS.replace("<title>", '<base href="/"><title>')),
            "/check/tasks": (
                "application/json",
                json.dumps(
                    {
                        "pages": self.pages,
                        "searches": [*SEARCHES],
                        "seconds": SEARCH_SECONDS,
                        "narrow": NARROW,
                    }
                ),
            ),
        }.get(self.path)
        if made is None:
            super().do_GET()
            return
        body = made[1].encode()
        self.send_response(200)
        self.send_header("Content-Type", made[0])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Take the report."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.reports.put(json.loads(body))

    def send_error(self, code: int, *arguments: Any) -> None:
        """Note what was asked for and is not there."""
        self.missing.add(unquote(self.path))
        super().send_error(code, *arguments)

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[tuple[str, type[Site]]]:
    """Serve a folder on a free port of this machine."""

    class Here(Site):
        pages = sorted(
            str(path.relative_to(folder))
            for path in folder.rglob("*.html")
            if "_static" not in path.parts  # templates of the theme
        )
        missing: ClassVar[set[str]] = set()
        reports: ClassVar[queue.Queue[dict[str, Any]]] = queue.Queue()

    handler = functools.partial(Here, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", Here
        server.shutdown()


def command(browser: str, profile: str, *options: str) -> list[str]:
    """Chromium without a window, without a sandbox (which needs rights that builders lack)."""
    fixed = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
    return [browser, *fixed, f"--user-data-dir={profile}", *options]


def visit(browser: str, profile: str, root: str, site: type[Site]) -> tuple[dict[str, Any], str]:
    """Load every page; return the report and the browser's log."""
    with tempfile.TemporaryFile("w+") as log:
        options = ("--enable-logging=stderr", "--remote-debugging-port=0", f"{root}check/")
        process = subprocess.Popen(
            command(browser, profile, *options), stderr=log, stdout=subprocess.DEVNULL
        )
        try:
            report = site.reports.get(timeout=SECONDS)
        except queue.Empty:
            raise SystemExit(f"{browser} did not get through the pages in {SECONDS} s") from None
        finally:
            process.terminate()
            process.wait()
        log.seek(0)
        return report, log.read()


def check(browser: str, profile: str, folder: Path) -> tuple[int, list[str]]:
    """Return the number of pages, and everything that is wrong with them, one line each."""
    with serve(folder) as (root, site):
        report, log = visit(browser, profile, root, site)
    console = [line.partition('] "')[2] for line in log.splitlines() if ":CONSOLE:" in line]
    found = [f"console: {line}" for line in console if not line.startswith(CHATTER)]
    found += [f"not there: {path}" for path in sorted(site.missing)]
    pages = report["pages"]
    for address, page in pages.items():
        found += [f"{address}: image {source} is broken" for source in page["broken"]]
        found += [
            f"{address}: image {source} is transparent, and the dark theme shows through it"
            for source in page["transparent"]
        ]
        found += [f"{address}: loads {name}" for name in page["loads"] if not name.startswith(root)]
        found += [
            f"{address}: cut off on the right: {' '.join(text.split())[:70]}"
            for text in page["wide"]
        ]
        if page["width"] > NARROW:
            found.append(f"{address}: {page['width']} pixels wide on a screen of {NARROW}")
        for link in {link for link in page["links"] if link.startswith(root)}:
            target, fragment = urldefrag(link.removeprefix(root))
            path = unquote(urlsplit(target).path) or "index.html"
            if path not in pages:
                if not (folder / path).is_file():
                    found.append(f"{address}: link to {path}, which is not there")
            elif fragment and unquote(fragment) not in pages[path]["ids"]:
                found.append(f"{address}: link to {path}#{fragment}, which is not there")
    for words, expected in SEARCHES.items():
        if not any(expected in link for link in report["searches"][words]):
            found.append(f"search for {words!r} does not find {expected}")
    return len(pages), found


def screenshot(browser: str, profile: str) -> None:
    """Leave a picture of each page of ``SCREENSHOTS``."""
    folder = BUILD / "screenshots"
    folder.mkdir(exist_ok=True)
    with serve(BUILD / "html") as (root, _):
        for name, address in SCREENSHOTS.items():
            options = (f"--screenshot={folder / name}.png", "--window-size=1400,1000")
            subprocess.run(
                command(browser, profile, *options, root + address), check=True, capture_output=True
            )


def find_browser() -> str | None:
    """Return the path of the first of ``BROWSERS`` that is installed."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def main() -> None:
    """Check the pages that ``make docs`` built."""
    browser = find_browser()
    if browser is None:
        print(f"skipped: none of {', '.join(BROWSERS)} is installed")
        return
    if not (BUILD / "html" / "index.html").is_file():
        raise SystemExit("there are no pages in docs/_build/html: run `make docs` first")
    with tempfile.TemporaryDirectory() as profile:
        n_pages, found = check(browser, profile, BUILD / "html")
        screenshot(browser, profile)
    for line in found:
        print(line)
    print(f"{n_pages} pages, {len(found)} problems; screenshots in {BUILD / 'screenshots'}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
