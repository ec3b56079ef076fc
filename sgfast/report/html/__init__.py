"""A replay as one self-contained HTML page: no network access, no fonts, and no scripts but its own.

    Timeline (a PacketSink)  \\
                              page --> text; page.html, page.css and page.js are its fixed parts
    ReplayResult             /

``markup`` escapes text, ``why`` explains denials, ``tables`` and ``chart`` make parts of the page.
"""

from sgfast.report.html.page import html_report
from sgfast.report.html.timeline import Timeline

__all__ = ["Timeline", "html_report"]
