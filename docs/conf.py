"""The documentation site: `sphinx-build -W --keep-going -c docs . build/site`.

The sources are all documents of the repository, not only those in docs/, so that a relative link means the same here
and where the code is hosted.
"""

import json
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx

from sgfast import __version__

project = "sgfast"
release = version = __version__
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "benchmarks/*.md", "pcaps/*.md", "tests/*.md", "tests/mutants/*.md"]
# README repeats what the index and the pages say, for those who have not found the site yet.
exclude_patterns = ["README.md", "docs/pictures", "docs/static", ".*", "build", "sgfast"]

extensions = ["myst_parser", "sphinx_click"]
myst_heading_anchors = 3
smartquotes = False             # they make dashes of the -- of options

html_theme = "furo"
html_title = "sgfast"
html_static_path = ["static/site.css"]
html_css_files = ["site.css"]
html_extra_path = ["static/index.html"]     # leads to docs/index.html
html_copy_source = False
html_show_sourcelink = False


class NotebookParser(MystParser):
    """A Jupyter notebook as the Markdown of its cells, with the outputs that it was saved with."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        cells = json.loads(inputstring)["cells"]
        super().parse("\n\n".join(part for cell in cells for part in self._parts(cell)), document)

    def _parts(self, cell: dict[str, Any]) -> list[str]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            return [source]
        parts = [f"`````python\n{source}\n`````"]
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", [])})
            if "text/html" in data:
                html = "".join(data["text/html"])
                parts.append(f'`````{{raw}} html\n<div class="output">{html}</div>\n`````')
            else:
                parts.append(f"`````text\n{''.join(data['text/plain'])}\n`````")
        return parts


def setup(app: Sphinx) -> None:
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
