"""Links of a built site: targets, anchors, and what a browser would load by itself."""

import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes that a browser follows by itself, and those of links.
_LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src")}
_LOADED_LINKS = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch"}


class _Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        for name, value in attrs.items():
            if (tag, name) in _LOADED and value:
                self.loaded.append(value)
            elif tag == "link" and name == "href":
                is_loaded = _LOADED_LINKS & set((attrs.get("rel") or "").split())
                (self.loaded if is_loaded else self.links).append(value)
            elif tag == "a" and name == "href" and value:
                self.links.append(value)


def problems(site):
    """Returns the invalid links and external requests of all pages, as sentences."""
    pages = {path: _Page(path) for path in sorted(Path(site).rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        found += [
            f"{name} loads {link}"
            for link in page.loaded
            if urlsplit(link).scheme not in ("", "data") or link.startswith("//")
        ]
        # The error page is served at any path, so its links are absolute.
        for link in page.links + page.loaded if name.name != "404.html" else ():
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                target = Path(os.path.normpath(path.parent / unquote(parts.path)))
                if target.is_dir():
                    target = target / "index.html"
            if not target.is_file():
                found.append(f"{name} links to {link}, which does not exist")
            elif parts.fragment and target in pages:
                anchor = unquote(parts.fragment)
                if anchor not in pages[target].ids and anchor != "__skip":
                    found.append(f"{name} links to {link}, which has no such anchor")
    return found
