"""What the GitHub Action does (action.yml, SPEC 15.6): it compares, tests and checks policies, and reports it.

All inputs are environment variables, which action.yml sets. The report goes to the job's summary and, with a token,
into a comment of the pull request; the findings go into a file of SARIF.
"""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from sgfast.__main__ import run

#: Words of the input `fail-on` that are for ``sgfast diff``. All others are for ``sgfast check``.
OF_DIFF = ("opened", "closed", "newly-denied", "newly-allowed")
#: Statuses of commands that have printed their report.
DONE = (0, 1, 3)
#: GitHub refuses longer comments.
MOST_CHARACTERS = 65_000
#: How many expectations and findings are listed.
TOP = 20


class Refused(Exception):
    """The inputs cannot be used. The message says why."""


def given(name: str) -> str:
    return os.environ.get(f"SGFAST_{name}", "").strip()


def paths(name: str) -> list[str]:
    """The files of an input: one path or pattern on a line."""
    found: list[str] = []
    for line in filter(None, map(str.strip, given(name).splitlines())):
        found += sorted(glob.glob(line, recursive=True)) or [line]
    # A file of a pull request may have a name that reads like an option.
    return [f"./{path}" if path.startswith("-") else path for path in found]


def code(text: str) -> str:
    """Text of a policy as Markdown: nothing in it is a link, a mention or a tag."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def annotate(level: str, message: str, file: str = "", line: int = 0) -> None:
    """Print a line that GitHub shows beside the job, or beside the line of a file."""
    place = f"file={escaped(file, ':,')},line={line}," if file else ""
    print(f"::{level} {place}title=sgfast::{escaped(message)}", flush=True)


def escaped(text: str, more: str = "") -> str:
    for letter in ("%", "\r", "\n", *more):
        text = text.replace(letter, f"%{ord(letter):02X}")
    return text


class Report:
    def __init__(self) -> None:
        self.sections: list[str] = []
        self.statuses = [0]

    def sgfast(self, *arguments: str) -> str | None:
        """What a command prints; None if it could not do its work."""
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = run(arguments)
        self.statuses.append(status)
        sys.stderr.write(err.getvalue())
        if status in DONE:
            return out.getvalue()
        # A document's errors are shown in its lines. Those in the comment would be lines of what others wrote.
        errors = [line for line in err.getvalue().splitlines() if line.startswith("sgfast: ")]
        message = errors[-1] if errors else f"ended with status {status}"
        annotate("error", message)
        self.sections.append(f"### sgfast {arguments[0]} could not do its work\n\n{code(message)}\n")
        return None

    @property
    def status(self) -> int:
        """By the precedence of sgfast's own statuses (SPEC 10.5)."""
        return next((status for status in (2, 3, 1) if status in self.statuses), max(self.statuses))


def compare(report: Report, old: str, new: str, plan: str, captures: list[str], fail_on: list[str]) -> None:
    policies = ["--plan", plan] if plan else [old, new]
    arguments = [*policies, *captures, "--format", "markdown", "--quiet", "--unresolved", given("UNRESOLVED")]
    text = report.sgfast("diff", *arguments, *(["--fail-on", ",".join(fail_on)] if fail_on else []))
    if text is not None:
        report.sections.append(text)


def test(report: Report, policy: str, expectations: str) -> None:
    arguments = [policy, expectations, "--format", "json", "--unresolved", given("UNRESOLVED")]
    text = report.sgfast("test", *arguments)
    if text is None:
        return
    proof: dict[str, Any] = json.loads(text)
    counts = f"failing {proof['fails']}, holding {proof['holds']}, about no packet {proof['empty']}"
    lines = [f"### Expectations of {code(expectations)}: {counts}", ""]
    failing = [result for result in proof["results"] if result["outcome"] == "fails"]
    for result in failing[:TOP]:
        ends = f"{', '.join(result['from'])} to {', '.join(result['to'])}: {', '.join(result['service'])}"
        wanted = "allowed" if result["verdict"] == "allow" else "denied"
        should = f"(line {result['line']}) should be {wanted}"
        lines.append(f"- **fails** {code(ends)} {should}, but {code(result['cause'])}")
        if result["why"]:
            lines.append(f"  because: {code(result['why'])}")
        message = f"{ends} should be {wanted}, but {result['cause']}"
        annotate("error", message, expectations, result["line"])
    if len(failing) > TOP:
        lines.append(f"- and {len(failing) - TOP} more that fail")
    report.sections.append("\n".join(lines) + "\n")


def check(report: Report, policy: str, fail_on: list[str], sarif: Path) -> bool:
    """Whether there are findings to upload, even if none was found."""
    wanted = [part for word in fail_on for part in ("--fail-on", word)]
    arguments = [policy, "--format", "sarif", "--unresolved", given("UNRESOLVED"), *wanted]
    text = report.sgfast("check", *arguments)
    if text is None:
        return False
    sarif.write_text(text, encoding="utf-8")
    results = json.loads(text)["runs"][0]["results"]
    levels = [result["level"] for result in results]
    counts = ", ".join(f"{level}s {levels.count(level)}" for level in ("error", "warning", "note"))
    lines = [f"### Findings about {code(policy)}: {counts}", ""]
    listed = sorted((result for result in results if result["level"] != "note"), key=lambda each: str(each["level"]))
    for result in listed[:TOP]:
        region = result["locations"][0].get("physicalLocation", {}).get("region", {})
        line = f" (line {region['startLine']})" if region else ""
        lines.append(f"- **{result['level']}** {result['ruleId']}{line}: {code(result['message']['text'])}")
    if len(listed) > TOP:
        lines.append(f"- and {len(listed) - TOP} more, in the file of findings")
    report.sections.append("\n".join(lines) + "\n")
    return True


def body(name: str, sections: list[str]) -> str:
    return f"## {name}\n\n" + "\n".join(sections)


def shortened(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    cut = text[:MOST_CHARACTERS].rpartition("\n")[0]
    return f"{cut}\n\nThe report is longer than a comment may be: the summary of the job has all of it.\n"


def gh(*arguments: str, value: dict[str, str] | None = None) -> str:
    """Call GitHub's API. Raises OSError or CalledProcessError."""
    text = None if value is None else json.dumps(value)
    return subprocess.run(["gh", "api", *arguments], input=text, text=True, capture_output=True, check=True).stdout


def comment(name: str, text: str) -> None:
    """Write the report into the pull request, in the place of the one that an earlier run has written."""
    repository, event = os.environ["GITHUB_REPOSITORY"], Path(os.environ["GITHUB_EVENT_PATH"])
    number = json.loads(event.read_text(encoding="utf-8")).get("pull_request", {}).get("number")
    if number is None:
        return
    mark = f"<!-- sgfast: {name} -->"
    comments = f"repos/{repository}/issues/{number}/comments"
    try:
        known = gh("--paginate", comments, "--jq", ".[] | [.id, .body[:300]] | @json").splitlines()
        written = [known_id for known_id, start in map(json.loads, known) if start.startswith(mark)]
        value = {"body": shortened(f"{mark}\n{text}")}
        if written:
            gh("--method", "PATCH", f"repos/{repository}/issues/comments/{written[0]}", "--input", "-", value=value)
        else:
            gh("--method", "POST", comments, "--input", "-", value=value)
    except (OSError, subprocess.CalledProcessError) as error:
        # A pull request from a fork has a token that may not write. The summary has the report all the same.
        cause = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        annotate("warning", f"the comment could not be written: {cause}")


def append(variable: str, text: str) -> None:
    """Append to one of the files that GitHub reads after a step."""
    if path := os.environ.get(variable):
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)


def main() -> int:
    old, new, plan, name = given("OLD"), given("NEW"), given("PLAN"), given("NAME") or "sgfast"
    captures, expectations = paths("CAPTURES"), paths("EXPECTATIONS")
    fail_on = given("FAIL_ON").replace(",", " ").split()
    is_compared = bool(plan or old)
    of_diff = [word for word in fail_on if word in OF_DIFF]
    if plan and (old or new):
        raise Refused("plan cannot be combined with old and new")
    if not plan and not new:
        raise Refused("name the policy: new, old and new, or plan")
    if not is_compared and (of_diff or captures):
        raise Refused(f"{', '.join(of_diff) or 'captures'}: name old and new, or plan, to compare two policies")
    if "\n" in name or "--" in name:
        raise Refused("name must be one line without --")
    folder = Path(os.environ.get("RUNNER_TEMP") or ".")
    slug = "".join(letter if letter.isalnum() else "-" for letter in name)
    sarif, markdown = folder / f"{slug}.sarif", folder / f"{slug}.md"
    report = Report()
    if is_compared:
        compare(report, old, new, plan, captures, of_diff)
    for each in expectations:
        test(report, plan or new, each)
    has_findings = check(report, plan or new, [word for word in fail_on if word not in OF_DIFF], sarif)
    text = body(name, report.sections)
    markdown.write_text(text, encoding="utf-8", errors="backslashreplace")
    append("GITHUB_STEP_SUMMARY", text)
    outputs = {"sarif": sarif if has_findings else "", "markdown": markdown, "status": report.status}
    append("GITHUB_OUTPUT", "".join(f"{key}={value}\n" for key, value in outputs.items()))
    if os.environ.get("GH_TOKEN"):
        comment(name, text)
    return report.status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Refused as refused:
        annotate("error", str(refused))
        sys.exit(2)
