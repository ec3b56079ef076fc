"""A replay as one self-contained HTML page: no network access, no fonts, and no scripts but its own.

    Timeline (a PacketSink)  \\
                              page --> text; page.html, page.css and page.js are its fixed parts
    ReplayResult             /

``markup`` escapes text. ``tables`` and ``chart`` make parts of the page. ``columns`` are all kinds of traffic, from
which ``matrix`` makes who talks to whom. ``answers`` are the tables below it, whose rows page.js takes from
``columns``.
"""

from sgfast.report.html.replay import html_report
from sgfast.report.html.timeline import Timeline

__all__ = ["Timeline", "html_report"]
