"""``sgfast template``."""

from __future__ import annotations

import click

from sgfast.cli.printing import print_text


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
        text = "".join(f"{known}\n" for known in (*TEMPLATES, DEFAULT_GROUP))
    else:
        text = template_document(name)
    print_text(text)
