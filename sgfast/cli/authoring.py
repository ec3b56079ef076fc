"""``sgfast schema``."""

from __future__ import annotations

import click

from sgfast.cli.printing import print_text, to_json


@click.command(short_help="Print the JSON Schema of a document or an output, or their names.")
@click.argument("name", required=False)
def schema(name: str | None) -> None:
    """Print a JSON Schema, or the names of all of them if NAME is left out.

    "policy", "changes" and "expectations" are documents that people write; editors complete and check them by the
    schema. All others are what commands print with --format json, and the lines of --verdicts and --connections.

    \b
    Examples:
      sgfast schema policy > policy.schema.json
      sgfast schema
    """
    from sgfast.policy.schemas import WRITTEN
    from sgfast.report import SCHEMAS
    from sgfast.report import schema as published
    from sgfast.spelling import did_you_mean

    names = (*WRITTEN, *SCHEMAS)
    if name is None:
        text = "".join(f"{known}\n" for known in names)
    elif name in WRITTEN:
        text = to_json(WRITTEN[name])
    elif name in SCHEMAS:
        text = to_json(published(name))
    else:
        hint = did_you_mean(name, names)
        raise click.UsageError(f"there is no schema {name[:40]!r}{hint}: use one of {', '.join(names)}")
    print_text(text)
