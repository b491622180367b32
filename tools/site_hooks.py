"""Hooks of MkDocs: pages from outside docs/, links between them, and marks of code.

The README is the start page, and the notebooks and the changelog are pages. In all files,
links are relative paths in the repository, which work on GitHub. Here they become links
of the site. A link that leads nowhere is a warning, which fails a strict build.
"""

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

    def replaced(match):
        target = _in_site(page, match[0])
        return os.path.relpath(target, home) if target else match[0]

    return _LINK.sub(replaced, _MARK.sub("", markdown))


def on_page_content(html, page, config, files):
    """Replaces the links of a notebook, which is no Markdown."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def replaced(match):
        target = _in_site(page, match[0])
        file = files.get_file_from_path(target) if target else None
        if file is None:
            log.warning(
                "%s links to %s, which is not a page", page.file.src_uri, match[0]
            )
            return match[0]
        return file.url_relative_to(page.file)

    return _HREF.sub(replaced, html)


def _in_site(page, link):
    """Returns the path in the site of a file of the repository, or None."""
    path = Path(os.path.normpath(Path(page.file.abs_src_path).parent / link))
    if not path.exists() or not path.is_relative_to(ROOT):
        return None
    home = ROOT / "docs" if path.is_relative_to(ROOT / "docs") else ROOT
    return path.relative_to(home).as_posix()
