"""The files of the page on which people annotate; nothing from elsewhere."""

ANNOTATE_PREFIX = "/annotate/"
"""Begins every path of its API."""

_SCRIPT = "text/javascript; charset=utf-8"

ANNOTATE_FILES = {
    "/annotate": ("page.html", "text/html; charset=utf-8"),
    "/annotate/page.css": ("page.css", "text/css; charset=utf-8"),
    "/annotate/page.js": ("page.js", _SCRIPT),
    "/annotate/ask.js": ("ask.js", _SCRIPT),
    "/annotate/dom.js": ("dom.js", _SCRIPT),
    "/annotate/history.js": ("history.js", _SCRIPT),
    "/annotate/marks.js": ("marks.js", _SCRIPT),
    "/annotate/passages.js": ("passages.js", _SCRIPT),
    "/annotate/rank.js": ("rank.js", _SCRIPT),
    "/annotate/spans.js": ("spans.js", _SCRIPT),
}
"""Path -> file of this package, and its type. None holds anything of the tasks."""
