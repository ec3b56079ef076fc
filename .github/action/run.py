"""The GitHub Action (action.yml, SPEC 15.6): it compares, tests and checks policies, and reports the results.

All inputs are environment variables, which action.yml sets. The report goes to the job's summary and, with a token,
into a comment of the pull request; the findings go into a file of SARIF.
"""

from __future__ import annotations

import glob
import json
import os
import secrets
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from sgfast.__main__ import run

#: The action passes these values of its input ``fail-on`` to ``sgfast diff``. It passes all other values to
#: ``sgfast check``.
OF_DIFF = ("opened", "closed", "newly-denied", "newly-allowed")
#: Statuses of commands that have printed their report.
DONE = (0, 1, 3)
#: GitHub refuses longer comments.
MOST_CHARACTERS = 65_000
#: Files are called like the report, and COMMENT finds its name in the beginning of a comment.
MOST_OF_A_NAME = 60
#: The files of the report are written here, outside the checkout.
FOLDER = Path(os.environ.get("RUNNER_TEMP") or ".")
#: The limit for the expectations, and for the findings, that the comment lists.
TOP = 20
#: The comments of a pull request, in GraphQL, which says whether the token's account has written them.
COMMENTS = """
query($owner: String!, $name: String!, $number: Int!, $endCursor: String) {
  repository(owner: $owner, name: $name) {
    pullRequest(number: $number) {
      comments(first: 100, after: $endCursor) {
        nodes { id viewerDidAuthor body }
        pageInfo { hasNextPage endCursor }
      }
    }
  }
}
"""
COMMENT = ".data.repository.pullRequest.comments.nodes[] | [.id, .viewerDidAuthor, .body[:300]] | @json"
UPDATE = "mutation($id: ID!, $body: String!) { updateIssueComment(input: {id: $id, body: $body}) { clientMutationId } }"


class Refused(Exception):
    """The inputs cannot be used. The message says why."""


def given(name: str) -> str:
    return os.environ.get(f"SGFAST_{name}", "").strip()


def unresolved() -> list[str]:
    """The options about groups and lists that an export does not hold."""
    return [part for text in given("UNRESOLVED").split() for part in ("--unresolved", text)]


def path(text: str) -> str:
    """The same path. A file of a pull request may have a name that reads like an option."""
    return f"./{text}" if text.startswith("-") else text


def paths(name: str) -> list[str]:
    """The files of an input: one path or pattern on a line."""
    found: list[str] = []
    for line in filter(None, map(str.strip, given(name).splitlines())):
        found += sorted(glob.glob(line, recursive=True)) or [line]
    return [*map(path, found)]


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


def show(text: str) -> None:
    """Print what a command said. It quotes what others wrote, and GitHub obeys ``##[`` wherever it stands in a line."""
    if text:
        token = secrets.token_hex(16)
        print(f"::stop-commands::{token}\n{text.rstrip()}\n::{token}::", flush=True)


class Report:
    def __init__(self) -> None:
        self.sections: list[str] = []
        self.statuses = [0]
        #: Why the job fails, by command.
        self.causes: list[str] = []
        self._errors: list[list[str]] = []

    def sgfast(self, *arguments: str) -> str | None:
        """Return the output of a command, or None if the command could not do its work."""
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = run(arguments)
        self.statuses.append(status)
        show(err.getvalue())
        said = f"sgfast: status {status}, because of "
        self.causes += [
            f"`sgfast {arguments[0]}`: {line.removeprefix(said)}"
            for line in err.getvalue().splitlines() if line.startswith(said)
        ]  # fmt: skip
        if status in DONE:
            return out.getvalue()
        # A document's errors are shown in its lines. Those in the comment would be lines of what others wrote.
        lines = [line for line in err.getvalue().splitlines() if line.startswith("sgfast: ")]
        errors = [line for line in lines if not line.startswith("sgfast: warning: ")]
        errors = errors or [f"ended with status {status}"]
        # An invalid policy keeps several commands from their work.
        if errors not in self._errors:
            self._errors.append(errors)
            annotate("error", "\n".join(errors))
            listed = "\n".join(f"- {code(error)}" for error in errors)
            self.sections.append(f"### sgfast {arguments[0]} could not do its work\n\n{listed}\n")
        return None

    @property
    def status(self) -> int:
        """By the precedence of sgfast's own statuses (SPEC 10.5)."""
        return next((status for status in (2, 3, 1) if status in self.statuses), max(self.statuses))


def accepted() -> list[str]:
    """The options for reasons that the user accepts."""
    return [part for word in given("ACCEPT_EVIDENCE").replace(",", " ").split() for part in ("--accept-evidence", word)]


def compare(report: Report, old: str, new: str, plan: str, captures: list[str], fail_on: list[str]) -> None:
    policies = ["--plan", plan] if plan else [old, new]
    arguments = [*policies, *captures, "--format", "markdown", "--quiet", *unresolved()]
    arguments += accepted()
    text = report.sgfast("diff", *arguments, *(["--fail-on", ",".join(fail_on)] if fail_on else []))
    if text is not None:
        report.sections.append(text)


def connections(result: dict[str, Any]) -> str:
    """Return the ends and the services of a proved expectation, in words."""
    return f"{', '.join(result['from'])} to {', '.join(result['to'])}: {', '.join(result['service'])}"


def test(report: Report, policy: str, expectations: str) -> None:
    arguments = [policy, expectations, "--format", "json", *unresolved(), *accepted()]
    text = report.sgfast("test", *arguments)
    if text is None:
        return
    proof: dict[str, Any] = json.loads(text)
    counts = f"{proof['fails']} failing, {proof['holds']} holding, {proof['empty']} about no packet"
    lines = [f"### Expectations of {code(expectations)}: {counts}", ""]
    failing = [result for result in proof["results"] if result["outcome"] == "fails"]
    for result in failing[:TOP]:
        ends = connections(result)
        wanted = "allowed" if result["verdict"] == "allow" else "denied"
        should = f"(line {result['line']}) should be {wanted}"
        lines.append(f"- **fails** {code(ends)} {should}, but {code(result['cause'])}")
        if result["why"]:
            lines.append(f"  because: {code(result['why'])}")
        message = f"{ends} should be {wanted}, but {result['cause']}"
        annotate("error", message, expectations, result["line"])
    if len(failing) > TOP:
        lines.append(f"- and {len(failing) - TOP} more that fail")
    is_accepted = proof["evidence"]["conclusive"] == "yes"
    unproved = [] if is_accepted else [result for result in proof["results"] if result["outcome"] == "empty"]
    for result in unproved[:TOP]:
        lines.append(f"- **about no packet** {code(connections(result))} (line {result['line']})")
        message = f"{connections(result)} is about no packet, so nothing is proved"
        annotate("error", message, expectations, result["line"])
    if len(unproved) > TOP:
        lines.append(f"- and {len(unproved) - TOP} more about no packet")
    report.sections.append("\n".join(lines) + "\n")


def check(report: Report, policy: str, baseline: str, fail_on: list[str], sarif: Path) -> bool:
    """Whether there are findings to upload, even if none was found."""
    wanted = [part for word in fail_on for part in ("--fail-on", word)]
    accepted_findings = given("ACCEPTED_FINDINGS")
    known = ["--baseline", baseline] if baseline else []
    known += ["--accepted", path(accepted_findings)] if accepted_findings else []
    arguments = [policy, "--format", "sarif", *unresolved(), *wanted, *known]
    text = report.sgfast("check", *arguments)
    if text is None:
        return False
    sarif.write_text(text, encoding="utf-8")
    every = json.loads(text)["runs"][0]["results"]
    results = [each for each in every if each.get("baselineState") != "unchanged" and not each.get("suppressions")]
    levels = [result["level"] for result in results]
    counts = ", ".join(f"{level}s {levels.count(level)}" for level in ("error", "warning", "note"))
    lines = [f"### {'New findings' if baseline else 'Findings'} about {code(policy)}: {counts}", ""]
    listed = sorted((result for result in results if result["level"] != "note"), key=lambda each: str(each["level"]))
    for result in listed[:TOP]:
        region = result["locations"][0].get("physicalLocation", {}).get("region", {})
        line = f" (line {region['startLine']})" if region else ""
        lines.append(f"- **{result['level']}** {result['ruleId']}{line}: {code(result['message']['text'])}")
    if len(listed) > TOP:
        lines.append(f"- and {len(listed) - TOP} more, in the file of findings")
    if len(every) > len(results):
        old = f"that {code(baseline)} has, too" if baseline else ""
        which = " or ".join(filter(None, (old, "that are accepted" if accepted_findings else "")))
        lines.append(f"- not counted: {len(every) - len(results)} {which}")
    report.sections.append("\n".join(lines) + "\n")
    return True


def body(name: str, sections: list[str]) -> str:
    return f"## {name}\n\n" + "\n".join(sections)


def shortened(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    cut = text[:MOST_CHARACTERS].rpartition("\n")[0]
    return f"{cut}\n\nThe report is longer than a comment may be: the summary of the job has all of it.\n"


def gh(*arguments: str, value: dict[str, Any] | None = None) -> str:
    """Call GitHub's API. Raises OSError or CalledProcessError."""
    text = None if value is None else json.dumps(value)
    # A relative folder in PATH would mean the checkout, where a stranger may have put a program of this name.
    return subprocess.run(
        ["gh", "api", *arguments], input=text, text=True, capture_output=True, check=True, cwd=FOLDER
    ).stdout


def comment(name: str, text: str) -> None:
    """Write the report into the pull request, in the place of the one that an earlier run has written."""
    try:
        repository, file = (os.environ.get(variable) for variable in ("GITHUB_REPOSITORY", "GITHUB_EVENT_PATH"))
        if not repository or not file:
            raise ValueError("GITHUB_REPOSITORY and GITHUB_EVENT_PATH have to say where")
        event = json.loads(Path(file).read_text(encoding="utf-8"))
        pull_request = event.get("pull_request") if isinstance(event, dict) else None
        if not isinstance(pull_request, dict) or (number := pull_request.get("number")) is None:
            return
        mark = f"<!-- sgfast: {name} -->"
        body = shortened(f"{mark}\n{text}")
        if known := written_comment(repository, number, mark):
            value = {"query": UPDATE, "variables": {"id": known, "body": body}}
            gh("graphql", "--input", "-", value=value)
        else:
            gh("--method", "POST", f"repos/{repository}/issues/{number}/comments", "--input", "-", value={"body": body})
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        # A pull request from a fork has a token that may not write. The summary has the report all the same.
        cause = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        annotate("warning", f"the comment could not be written: {cause}")


def written_comment(repository: str, number: int, mark: str) -> str | None:
    """The id of the comment that an earlier run has written with the token's account. Anybody may write the mark, and
    could edit the report if it were in their comment.
    """
    owner, _, name = repository.partition("/")
    variables = ("-f", f"query={COMMENTS}", "-f", f"owner={owner}", "-f", f"name={name}", "-F", f"number={number}")
    listed = gh("graphql", "--paginate", *variables, "--jq", COMMENT).splitlines()
    return next((node for node, is_own, text in map(json.loads, listed) if is_own and text.startswith(mark)), None)


def append(variable: str, text: str) -> None:
    """Append to one of the files that GitHub reads after a step."""
    if file := os.environ.get(variable):
        with open(file, "a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)


def main() -> int:
    old, new, plan = (path(given(each)) for each in ("OLD", "NEW", "PLAN"))
    name = given("NAME") or "sgfast"
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
    if "\n" in name or "--" in name or len(name) > MOST_OF_A_NAME:
        raise Refused(f"name must be one line of at most {MOST_OF_A_NAME} characters without --")
    slug = "".join(letter if letter.isalnum() else "-" for letter in name)
    sarif, markdown = FOLDER / f"{slug}.sarif", FOLDER / f"{slug}.md"
    report = Report()
    if is_compared:
        compare(report, old, new, plan, captures, of_diff)
    for each in expectations:
        test(report, plan or new, each)
    of_check = [word for word in fail_on if word not in OF_DIFF]
    has_findings = check(report, plan or new, plan or old, of_check, sarif)
    if report.causes:
        causes = "".join(f"- {cause}\n" for cause in report.causes)
        report.sections.append(f"### Why the job fails\n\n{causes}")
        annotate("error", f"the job fails: {'; '.join(report.causes)}")
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
