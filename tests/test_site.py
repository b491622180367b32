"""The docs site: it builds strictly, links are valid, and the API has every name."""

import html
import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys

import pytest

import keras_perceiver
from tests.built_site import problems
from tests.documents import DOCUMENTS, ROOT

pytestmark = [pytest.mark.one_backend, pytest.mark.integration]

# Subpackages whose names are in the API too, besides those of the packages above them.
_INNER = ("layers.attention", "modalities.preprocessors", "models.tasks")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    # Skips the installation, since the test environment has everything.
    options = ["--assume-old=.venv/.installed-docs", "VENV=.venv"]
    result = subprocess.run(
        ["make", "docs", *options, f"RUN={sys.executable}", f"SITE={folder}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    yield folder
    shutil.rmtree(folder)


def _documented():
    """Returns the objects of the API pages, and their names there."""
    found = {}
    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        for path in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE):
            home, _, name = path.rpartition(".")
            importlib.import_module(home)  # functions hide modules of the same name
            assert path not in found, f"{path} is documented twice"
            found[path] = getattr(sys.modules[home], name)
    return found


def _public():
    """Yields the package and the name of everything public."""
    parts = {module.name for module in pkgutil.iter_modules(keras_perceiver.__path__)}
    parts = {part for part in parts if part[0] != "_" and part != "cli"}
    for part in ("", *sorted(parts), *_INNER):
        home = f"keras_perceiver.{part}".rstrip(".")
        package = importlib.import_module(home)
        own = [name for name, value in vars(package).items() if _is_own(value, home)]
        for name in getattr(package, "__all__", own):
            yield home, name, getattr(package, name)


def _is_own(value, home):
    is_public = getattr(value, "__name__", "_")[0] != "_"
    return is_public and getattr(value, "__module__", None) == home


def test_api_has_every_public_name():
    documented = _documented()
    missing = [
        f"{home}.{name}"
        for home, name, value in _public()
        if not any(value is other for other in documented.values())
    ]
    assert missing == []
    extra = [
        path
        for path, value in documented.items()
        if not any(value is other for _, _, other in _public())
    ]
    assert extra == []


def test_api_has_the_docstrings(site):
    pages = [path.read_text() for path in (site / "api").glob("*.html")]
    text = _words(html.unescape(re.sub(r"<[^>]*>", "", " ".join(pages))))
    missing = [
        path
        for path, value in _documented().items()
        if callable(value)
        and _words(inspect.getdoc(value).split("\n\n")[0]) not in text
    ]
    assert missing == []


def _words(text):
    return " ".join(re.findall(r"\w+", text))


def test_links_are_valid_and_nothing_is_loaded_from_elsewhere(site):
    assert problems(site) == []


def test_names_in_guides_are_links_to_the_api(site):
    page = (site / "guides" / "own_folders.html").read_text()
    assert 'href="../api/modalities.html#keras_perceiver.ImagePreprocessor"' in page


def test_figures_are_opened_by_a_tap(site):
    page = (site / "index.html").read_text()
    assert '<a href="images/overview.png"><img alt="' in page


def test_tables_of_errors_are_stacked_on_a_phone(site):
    page = (site / "troubleshooting.html").read_text()
    assert page.count('<div class="stacked"><table>') == page.count("<th>Fix</th>") > 0


def test_every_page_is_in_the_site(site):
    for document in DOCUMENTS:
        home = ROOT / "docs" if document.is_relative_to(ROOT / "docs") else ROOT
        name = document.relative_to(home).with_suffix(".html").as_posix()
        page = (site / name.replace("README", "index")).read_text()
        assert "<!-- run" not in page, name
        assert "<!-- output" not in page, name
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        page = (site / "notebooks" / notebook.name).with_suffix(".html").read_text()
        assert "data:image/png;base64," in page  # outputs


@pytest.mark.slow
def test_search_works_without_a_server(site):
    from explorer_page import chromium
    from selenium.webdriver.support.ui import WebDriverWait

    with chromium((site / "index.html").as_uri()) as driver:
        (field,) = driver.find_elements("css selector", "input[name=query]")
        driver.execute_script("arguments[0].focus()", field)
        field.send_keys("point clouds of any size")

        def found(driver):
            links = driver.find_elements("css selector", ".md-search-result__link")
            return [link.get_attribute("href") for link in links]

        links = WebDriverWait(driver, 60).until(found)
        assert any("/guides/" in link or "/api/" in link for link in links)


@pytest.mark.slow
@pytest.mark.parametrize("is_dark", [False, True])
def test_no_page_is_wider_than_a_phone(site, is_dark):
    from explorer_page import chromium
    from selenium.webdriver.support.ui import WebDriverWait

    # The error page is served at any path, so that its scripts have absolute ones.
    pages = [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]
    with chromium(pages[0].as_uri(), 390, 800, is_dark) as driver:
        for page in pages:
            driver.get(page.as_uri())
            size = "return document.documentElement.scrollWidth"
            assert driver.execute_script(size) <= 390, page
            scheme = "slate" if is_dark else "default"
            body = f"body[data-md-color-scheme={scheme}]"  # set by a script
            WebDriverWait(driver, 30).until(
                lambda d, body=body: d.find_elements("css selector", body), page
            )


def test_invalid_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="b.html#top"></a><a href="#top"></a>'
        '<a href="c.html"></a><a href="b.html#bottom"></a>'
        '<script src="https://example.com/x.js"></script>'
    )
    (tmp_path / "b.html").write_text('<h1 id="top"></h1>')
    assert problems(tmp_path) == [
        "a.html loads https://example.com/x.js",
        "a.html links to c.html, which does not exist",
        "a.html links to b.html#bottom, which has no such anchor",
    ]
