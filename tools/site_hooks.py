"""Hooks of MkDocs: pages from outside docs/, links between them, and marks of code.

The README is the start page, and the notebooks and the changelog are pages. In all files,
links are relative paths in the repository, which work on GitHub. Here they become links
of the site. A link that leads nowhere is a warning, which fails a strict build.
"""

import functools
import logging
import os
import re
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
# Files outside docs/ that are part of the site, at the same paths.
FILES = ["README.md", "CHANGELOG.md", "LICENSE", "CITATION.cff", "notebooks/*"]

log = logging.getLogger("mkdocs.hooks.site")
_MARK = re.compile(r"^<!-- (?:run|output|parse|shown)\b[^\n]*-->\n", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()([^()\s#:]+)(?=[#)])")
# What the search must not find in notebooks: signs in headings, and copies of code.
_NOTEBOOK = {
    'class="anchor-link"': 'class="headerlink"',
    'class="zeroclipboard-container"': (
        'class="zeroclipboard-container" data-search-exclude'
    ),
    'class="clipboard-copy-txt"': 'class="clipboard-copy-txt" data-search-exclude',
}
# The name of a class or function in code, outside of links, headings and blocks.
_NAME = re.compile(
    r"<(?P<tag>a|h[1-6]|pre)\b.*?</(?P=tag)>"
    r"|<code>(?:kp\.)?(?P<name>\w+)(?:\([^<]*\))?</code>",
    re.DOTALL,
)
_FIGURE = re.compile(r'<img alt="[^"]*" src="(?P<source>[^"]+)" />')
_ERRORS = re.compile(r"<table>\n<thead>\n<tr>\n<th>You did</th>.*?</table>", re.DOTALL)
_HREF = re.compile(r'(?<=href=")([^":#]+)(?=[#"])')


@event_priority(100)  # before the plugin for notebooks
def on_files(files, config):
    """Adds the files from outside docs/."""
    for path in sorted(path for pattern in FILES for path in ROOT.glob(pattern)):
        if path.is_file():
            name = path.relative_to(ROOT).as_posix()
            files.append(
                File(name, str(ROOT), config.site_dir, config.use_directory_urls)
            )
    return files


def on_page_markdown(markdown, page, config, files):
    """Removes the marks of code blocks, and replaces links to files of the repository."""
    home = Path(page.file.src_uri).parent
    if "guides" in home.parts:  # found before the same words in notebooks
        page.meta.setdefault("search", {"boost": 2})

    def replaced(match):
        target = _in_site(page, match[0])
        return os.path.relpath(target, home) if target else match[0]

    return _LINK.sub(replaced, _MARK.sub("", markdown))


def on_page_content(html, page, config, files):
    """Links names to the API and figures to their files, and marks tables of errors."""

    def linked(match):
        found = _api().get(match["name"])
        if found is None:
            return match[0]
        path, anchor = found
        url = files.get_file_from_path(path).url_relative_to(page.file)
        return f'<a class="api" href="{url}#{anchor}">{match[0]}</a>'

    if page.file.src_uri.endswith(".ipynb"):
        return _with_links(html, page, files)
    # A figure whose text is small on a phone is opened by a tap.
    html = _FIGURE.sub(r'<a href="\g<source>">\g<0></a>', _NAME.sub(linked, html))
    return _ERRORS.sub(r'<div class="stacked">\g<0></div>', html)


@functools.cache
def _api():
    """Returns a dict from public names to their pages and anchors in the API.

    Functions of subpackages are left out, since their names are common words.
    """
    found = {}
    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        for anchor in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE):
            package, _, name = anchor.rpartition(".")
            if package == "keras_perceiver" or name[0].isupper():
                found[name] = f"api/{page.name}", anchor
    return found


def _with_links(html, page, files):
    """Returns the HTML of a notebook with the links of the site."""

    def replaced(match):
        target = _in_site(page, match[0])
        file = files.get_file_from_path(target) if target else None
        if file is None:
            log.warning(
                "%s links to %s, which is not a page", page.file.src_uri, match[0]
            )
            return match[0]
        return file.url_relative_to(page.file)

    for old, new in _NOTEBOOK.items():
        html = html.replace(old, new)
    return _HREF.sub(replaced, html)


def _in_site(page, link):
    """Returns the path in the site of a file of the repository, or None."""
    path = Path(os.path.normpath(Path(page.file.abs_src_path).parent / link))
    if not path.exists() or not path.is_relative_to(ROOT):
        return None
    home = ROOT / "docs" if path.is_relative_to(ROOT / "docs") else ROOT
    return path.relative_to(home).as_posix()
