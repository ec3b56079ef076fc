"""Reports as self-contained HTML pages: no network access, no fonts, and no scripts but their own.

    replay (ReplayResult, and Timeline, a PacketSink)  \\
    reach (ReachResult)                                       > page --> text
    diff (Difference, TrafficDiff)                      /

``page`` is the frame of all pages, with page.html, page.css, page.js and matrix.js. ``markup`` escapes text.
``tables``, ``chart`` and ``matrix`` draw. ``columns`` holds all kinds of traffic: ``traffic_matrix`` makes a matrix of
them, and ``answers`` and ``changed`` make tables of them, whose rows kinds.js adds up. ``rule_rows`` makes tables of
what rules allow, whose cells rule_rows.js combines, and ``rule_matrix`` makes their matrix.
"""

from sgfast.report.html.replay import html_report
from sgfast.report.html.timeline import Timeline

__all__ = ["Timeline", "html_report"]
