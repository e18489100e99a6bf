"""The files of the page on which people annotate; nothing from elsewhere."""

from reward_service.web.page_files import CSS, HTML, SCRIPT, PageFiles

ANNOTATE_PREFIX = "/annotate/"
"""Begins every path of its API."""

ANNOTATE_FILES: PageFiles = {
    "/annotate": ("annotate/page.html", HTML),
    "/annotate/theme.css": ("theme.css", CSS),
    "/annotate/page.css": ("annotate/page.css", CSS),
    "/annotate/page.js": ("annotate/page.js", SCRIPT),
    "/annotate/ask.js": ("annotate/ask.js", SCRIPT),
    "/annotate/dom.js": ("annotate/dom.js", SCRIPT),
    "/annotate/history.js": ("annotate/history.js", SCRIPT),
    "/annotate/marks.js": ("annotate/marks.js", SCRIPT),
    "/annotate/passages.js": ("annotate/passages.js", SCRIPT),
    "/annotate/rank.js": ("annotate/rank.js", SCRIPT),
    "/annotate/spans.js": ("annotate/spans.js", SCRIPT),
}
"""None holds anything of the tasks."""
