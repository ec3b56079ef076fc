"""``sgfast template`` and ``sgfast schema``, which help to write documents."""

from __future__ import annotations

import click

from sgfast.cli.printing import print_text, to_json


@click.command(short_help="Print a template's rules as YAML, or the templates' names.")
@click.argument("name", required=False)
@click.option("--list", "list_names", is_flag=True, help="Print the templates' names.")
def template(name: str | None, list_names: bool) -> None:
    """Print a template's rules as YAML, or the templates' names if NAME is left out.

    \b
    Examples:
      sgfast template --list
      sgfast template general-purpose-web-server
    """
    from sgfast.policy.model import DEFAULT_GROUP
    from sgfast.policy.templates import TEMPLATES, template_document

    if name is None or list_names:
        text = "".join(f"{template_name}\n" for template_name in (*TEMPLATES, DEFAULT_GROUP))
    else:
        text = template_document(name)
    print_text(text)


@click.command(short_help="Print the JSON Schema of a document or an output, or their names.")
@click.argument("name", required=False)
def schema(name: str | None) -> None:
    """Print a JSON Schema, or the names of all of them if NAME is left out.

    "policy", "changes", "expectations" and "accepted" are documents that people write; editors complete and check them
    by the schema. The other schemas describe the output of commands with --format json, and lines of --verdicts and
    --connections.

    \b
    Examples:
      sgfast schema policy > policy.schema.json
      sgfast schema
    """
    from sgfast.base.spelling import did_you_mean
    from sgfast.policy.fields import written_schemas
    from sgfast.report import SCHEMAS
    from sgfast.report import schema as published

    written = written_schemas()
    names = (*written, *SCHEMAS)
    if name is None:
        text = "".join(f"{schema_name}\n" for schema_name in names)
    elif name in written:
        text = to_json(written[name])
    elif name in SCHEMAS:
        text = to_json(published(name))
    else:
        hint = did_you_mean(name, names)
        raise click.UsageError(f"there is no schema {name[:40]!r}{hint}: use one of {', '.join(names)}")
    print_text(text)
