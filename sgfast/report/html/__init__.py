"""A replay as one HTML page that needs nothing else: no network, no fonts, no scripts but its own.

    Timeline (a PacketSink)  \\
                              page --> text; page.html, page.css and page.js beside it are what stays the same
    ReplayResult             /

``markup`` escapes, ``why`` explains denials, ``tables`` and ``chart`` are the page's parts.
"""

from sgfast.report.html.page import html_report
from sgfast.report.html.timeline import Timeline

__all__ = ["Timeline", "html_report"]
