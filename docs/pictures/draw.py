"""Draws the boxes and arrows of docs/architecture.md as SVG: ``python docs/pictures/draw.py``. Needs nothing else.

A picture is a text. A line ``ROW COLUMN WIDTHxHEIGHT NAME | TITLE | WORDS`` is a box. Numbers may be fractions, a
height of 1 may be left out, and a title that begins with ``=`` is an outcome. A line ``NAME > NAME : WORDS`` is an
arrow. tests/project/test_layers.py makes the picture of imports from the code.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent

#: In pixels: a column, a row, the gap between boxes, a character, a line.
COLUMN, ROW, GAP, CHARACTER, LINE = 180, 92, 34, 6.6, 16
FONT = "system-ui, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"

#: By file: title and text.
PICTURES = {
    "packet": ("The way of a packet from a file to its verdict", """
0 0 1.9 reader | capture/reader.pyx | finds records, in batches of frames
1 0 1.9 wire | core/wire/ip.pxd: read_frame | headers become a Packet: key, hash, step
2 0 1.9 guess | pipeline/batch.pyx: guess_batch | guesses and prefetches each entry
3 0 1.9 batch | pipeline/batch.pyx: judge_batch | takes the packets in order
4 0 1.9 fast | fast_path.pxd: pass_established | does the entry say that only deadlines and counters change?
5 0 1.9 established | = allow: established |
3 2.15 1.9 slow | judge_slowly | look_ahead.pxd has the look-ups of openers
4 2.15 1.9 find | slow_path.pxd: find_entry | a live connection on each side: straight on to judge_side
5 2.15 1.9 scope | find_owners, in_scope | does any filter see the packet?
6 2.15 1.9 moot | is_moot | does it follow a denied opener?
7 2.15 1.9 vpc | isolated | are the VPCs of both ends connected?
8 2.15 1.9 side | judge.pxd: judge_side | for each end with a filter: its connection decides, or else its rules
9 2.15 1.9 settle | settle_side | carries the outcome out (conntrack/lifetime.pyx)
10 2.15 1.9 allowed | = allow | settle_allowed, settle_established
3 4.3 1.25 others | no key; fragment | without_key.pxd, fragments.pxd
5 4.3 1.25 outside | = out-of-scope, local, exempt |
6 4.3 1.25 ismoot | = moot: opener-denied |
7 4.3 1.25 isolated | = deny: vpc-isolated | settle_denied
9 4.3 1.25 denied | = deny | settle_denied
reader > wire
wire > guess
guess > batch
batch > fast
fast > established : yes
batch > slow : the rest
slow > others
slow > find : it has a key
find > scope
scope > outside : no
scope > moot : yes
moot > ismoot : yes
moot > vpc : no
vpc > isolated : no
vpc > side : yes
side > settle
settle > denied : denied
settle > allowed : allowed by every side
"""),
    "record": ("The way of a flow log's record to the data plane", """
0 0 1.9 log | sources.py, merged.py | lines of several logs become rows of RECORD_DTYPE, in the order of time
1 0 1.9 row | interfaces.pyx | without NAT gateways and former owners
2 0 1.9 queue | record_queue.pyx | rows of one record wait for the others of their connection
3 0 1.9x1.15 talk | conversation_table.pyx | rows of both ends, and of both directions, become one conversation
4 0 1.9 opener | openers.pxd | who opened it, and is that sure?
5 0 1.9 frames | record_packets.pyx | a few frames: opener, answers, the rest
6 0 1.2x1.3 plane | DataPlane.judge | takes them on the slow path, and multiplies its tallies by their packets
4 2.4 2.25 ask | questions.pxd, readings.py | what would the policy of that moment say to each reading?
5 3.05 1.6 unsure | = cannot tell: readings-differ |
6 2.4 2.25 rejected | rejections.py | attempts that the cloud rejected go to an engine of their own
log > row
row > queue
queue > talk
talk > opener
opener > frames : sure
opener > ask : either may have
ask > frames : one verdict
ask > unsure : two verdicts
frames > plane
frames > rejected : rejected
"""),
    "connection": ("The life of a connection on one side", """
0 0 2 none | Nothing known | the next packet meets the rules
1 0 2 begun | Begun | live; nothing came back yet
2 0 2 answered | Answered | live; its packets may take the fast path
3 0 2 closing | Closing | FIN or RST seen: a deadline of its own. A new opener may begin a new connection
4 0 2 ended | Ended | at its deadline, by an early RST, or evicted from a full table. Its row goes to the report
0 3.4 2 mark | Moot mark | causal mode: what follows the denied opener is moot, too
2 3.4 2 cut | Disconnected | answered or only begun, it now denies its key until its deadline
none > begun : opener, allowed by a rule
none > mark : opener, denied
mark > begun : opener, allowed after all
begun > answered : reply
answered > closing : TCP ends
closing > ended : deadline
answered > cut : a policy change cuts it
cut > ended : deadline
"""),
    "questions": ("Which part answers which question, and what writes the answer", """
0 0 1.45 explain | explain | one packet: why?
1 0 1.45 reach | reach | all packets: who reaches whom?
2 0 1.45 test | test | expectations: do they hold?
3 0 1.45 check | check | what is wrong or risky?
4 0 1.45 diff | diff | two policies: what differs?
5 0 1.45 replay | replay | captures: what would break?
6 0 1.45 suggest | suggest | captures: what do they need?
7 0 1.45 export | export | how does it come into force?
0 1.5 1.15 explaining | reaching | Explanation
1 1.5 1.15 rows | reaching | ReachResult
2 1.5 1.15 proving | reaching | ExpectationsResult
3 1.5 1.15 checking | checking | CheckResult
4 1.5 1.15 comparing | reaching, comparing | DiffResult
5 1.5 1.15 replaying | replaying | ReplayResult
6 1.5 1.15 suggesting | suggesting | Suggestion
7 1.5 1.15 exporting | exporting | the text itself
0 2.75 0.85x7 report | report | writes answers; expectations writes that of test
0 3.7 1.6x2 text | Text, Markdown | …_document makes sections (document.py), which text.py or markdown.py writes
2 3.7 1.6x2 html | HTML page | report/html: for replay, reach and diff
4 3.7 1.6x2 json | JSON | report/json: one type makes the JSON and its schema
6 3.7 1.6x2 rows_ | Rows | lines.pyx and parquet.py: each packet or connection of a replay
explain > explaining
reach > rows
test > proving
check > checking
diff > comparing
replay > replaying
suggest > suggesting
export > exporting
explaining > report
rows > report
proving > report
checking > report
comparing > report
replaying > report
suggesting > report
report > text
report > html
report > json
report > rows_
"""),
}


@dataclass(frozen=True, slots=True)
class Box:
    row: float
    column: float
    width: float
    height: float
    title: str
    words: str

    @property
    def left(self) -> float:
        return self.column * COLUMN + GAP / 2

    @property
    def right(self) -> float:
        return (self.column + self.width) * COLUMN - GAP / 2

    @property
    def top(self) -> float:
        return self.row * ROW + GAP / 2

    @property
    def bottom(self) -> float:
        return (self.row + self.height) * ROW - GAP / 2

    def drawn(self) -> list[str]:
        characters = int((self.right - self.left - 12) / CHARACTER)
        lines = textwrap.wrap(self.title.removeprefix("= "), characters - 2)
        bold = len(lines)
        lines += textwrap.wrap(self.words, characters)
        x, y = (self.left + self.right) / 2, (self.top + self.bottom - (len(lines) - 1) * LINE) / 2 + 4
        width, height = self.right - self.left, self.bottom - self.top
        fill = "#e6f4ea" if self.title.startswith("=") else "#eef4fb"
        drawn = [
            f'<rect x="{self.left:g}" y="{self.top:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" '
            f'stroke="#8aa0b8"/>'
        ]
        for number, line in enumerate(lines):
            weight = ' font-weight="bold"' if number < bold else ""
            drawn.append(f'<text x="{x:g}" y="{y + number * LINE:g}"{weight}>{escape(line)}</text>')
        return drawn


def arrow(start: Box, end: Box, words: str) -> list[str]:
    """A straight arrow between boxes that are above or beside each other, or else one with a corner."""
    left, right = max(start.left, end.left), min(start.right, end.right)
    top, bottom = max(start.top, end.top), min(start.bottom, end.bottom)
    exit_y, entry_y = (start.bottom, end.top) if end.row > start.row else (start.top, end.bottom)
    exit_x, entry_x = (start.right, end.left) if end.column > start.column else (start.left, end.right)
    if left < right:
        x = (left + right) / 2
        points = [(x, exit_y), (x, entry_y)]
    elif top < bottom:
        y = (top + bottom) / 2
        points = [(exit_x, y), (entry_x, y)]
    else:
        x, y = (start.left + start.right + 2 * exit_x) / 4, (end.top + end.bottom) / 2
        points = [(x, exit_y), (x, y), (entry_x, y)]
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    drawn = [f'<polyline points="{path}" fill="none" stroke="#4a5b6e" stroke-width="1.4" marker-end="url(#head)"/>']
    if words:
        (x, y), (to_x, to_y) = points[-2:]
        x, y, width = (x + to_x) / 2, (y + to_y) / 2, len(words) * CHARACTER
        drawn += [
            f'<rect x="{x - width / 2:g}" y="{y - 8:g}" width="{width:g}" height="15" fill="#fff"/>',
            f'<text x="{x:g}" y="{y + 4:g}" font-style="italic">{escape(words)}</text>',
        ]
    return drawn


def picture(title: str, text: str) -> str:
    """The SVG of a picture's text."""
    boxes: dict[str, Box] = {}
    arrows = []
    for line in filter(None, text.splitlines()):
        if "|" in line:
            place, heading, words = (part.strip() for part in line.split("|"))
            row, column, size, name = place.split()
            width, _, height = size.partition("x")
            boxes[name] = Box(float(row), float(column), float(width), float(height or 1), heading, words)
        else:
            ends, _, words = line.partition(" : ")
            start, end = ends.split(" > ")
            arrows += arrow(boxes[start], boxes[end], words)
    width = max(box.right for box in boxes.values()) + GAP / 2
    height = max(box.bottom for box in boxes.values()) + GAP / 2
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f'font-family="{FONT}" font-size="12" text-anchor="middle" fill="#1f2937">',
        f"<title>{escape(title)}</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#4a5b6e"/></marker></defs>',
        f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
        *arrows,
        *(part for box in boxes.values() for part in box.drawn()),
        "</svg>\n",
    ])


if __name__ == "__main__":
    for name, (title, text) in PICTURES.items():
        (HERE / f"{name}.svg").write_text(picture(title, text))
