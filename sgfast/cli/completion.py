"""``sgfast completion``, and the completions for the shell script that it prints."""

from __future__ import annotations

import os

import click
from click.shell_completion import get_completion_class, shell_complete

from sgfast.cli.options import Choice
from sgfast.cli.printing import print_text

#: The script sets this variable when it requests completions, for example to ``bash_complete``.
VARIABLE = "_SGFAST_COMPLETE"


@click.command(short_help="Print a script that completes sgfast's commands and options.")
@click.argument("shell", metavar="SHELL", type=Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that lets SHELL (bash, zsh or fish) complete sgfast's commands, options and their values.

    \b
    Examples:
      source <(sgfast completion bash)          in ~/.bashrc
      source <(sgfast completion zsh)           in ~/.zshrc
      sgfast completion fish > ~/.config/fish/completions/sgfast.fish
    """
    shell_class = get_completion_class(shell)
    assert shell_class is not None
    print_text(shell_class(context.find_root().command, {}, "sgfast", VARIABLE).source())


def answer(group: click.Group) -> int | None:
    """Print the completions that a shell requests and return the exit status; None if no shell requests any."""
    instruction = os.environ.get(VARIABLE)
    return None if instruction is None else shell_complete(group, {}, "sgfast", VARIABLE, instruction)
