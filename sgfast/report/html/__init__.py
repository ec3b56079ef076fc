"""Reports as self-contained HTML pages: no network access, no fonts, and no scripts but their own.

    replay (ReplayResult, and Timeline, a PacketSink)  \\
    reach (Reach)                                       > page --> text
    diff (Difference, DiffResult)                      /

``page`` is the frame that they share, with page.html, page.css, page.js and matrix.js. ``markup`` escapes text.
``tables``, ``chart`` and ``matrix`` draw. ``columns`` are all kinds of traffic, from which ``traffic_matrix`` makes who
talks to whom; ``answers`` and ``changed`` are tables of them, whose rows kinds.js adds up. ``rule_rows`` are tables of
what rules allow, whose cells rule_rows.js puts together, and ``rule_matrix`` is their matrix.
"""

from sgfast.report.html.replay import html_report
from sgfast.report.html.timeline import Timeline

__all__ = ["Timeline", "html_report"]
