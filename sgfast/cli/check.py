"""``sgfast check``."""

from __future__ import annotations

import sys

import click

from sgfast.cli.options import Form, format_option, vpc_option
from sgfast.cli.printing import is_colourful, print_text, to_json, warn


@click.command(short_help="Validate a policy and say what it compiles to.")
@click.argument("policy")
@vpc_option
@format_option()
def check(policy: str, vpc: str | None, form: Form) -> None:
    """Validate and compile a policy, and say what it compiled to.

    POLICY is a policy document, a cloud's export, or a directory of exports; "-" is standard input. What is wrong with
    it is said with file and line or object, and the exit status is 2.
    """
    from sgfast.policy.document import load_policy
    from sgfast.report.check import check_summary, compile_for_check

    loaded = load_policy(policy)
    compiled, warnings = compile_for_check(loaded, vpc)
    found = check_summary(compiled, warnings)
    warn(warnings)
    if form == "json":
        text = to_json(found)
    else:
        from sgfast.report.text import check_text

        text = check_text(loaded.origin, found, colour=is_colourful(sys.stdout))
    print_text(text, sys.stdout, "standard output")
