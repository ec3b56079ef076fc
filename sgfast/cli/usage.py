"""What sgfast says of a command line that it does not understand (SPEC 10.26)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

import click

from sgfast.spelling import did_you_mean

_FILTER = "choose packets with --filter, in tcpdump's syntax: sgfast replay POLICY CAPTURE --filter 'tcp port 443'"
#: What to type instead of the options of tcpdump and tshark.
_OPTIONS_OF_OTHERS = {
    "-r": "name the capture without it, behind the policy: sgfast replay POLICY CAPTURE",
    "-w": "write packets with --write: sgfast replay POLICY CAPTURE --write FILE.pcapng",
    "-Y": _FILTER,
    "-f": _FILTER,
    "-n": "leave it out, since sgfast never looks names of addresses up",
    "-i": "sgfast captures nothing itself: tcpdump -i INTERFACE -U -w - | sgfast replay POLICY -",
}
#: What to type instead of one argument more than a command takes.
_INSTEAD_OF_ARGUMENTS = {
    "check": "captures need --traffic: sgfast check POLICY --traffic CAPTURE",
    "explain": "both ends need options: sgfast explain POLICY --from A --to B --protocol tcp --port N",
    "export": "name one POLICY; what is there already needs --since: sgfast export POLICY --since OLD --to TARGET",
    "reach": "ends need options: sgfast reach POLICY --from X --to Y",
}
_EXTRA_ARGUMENT = "Got unexpected extra argument"


class Commands(click.Group):
    """A group whose commands refuse to have an option twice of which only the last one would count."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except click.NoSuchOption:
            raise
        except click.UsageError:
            raise click.UsageError(f"No such command {args[0]!r}{_command_hint(args[0], self.commands)}", ctx) from None
        if command is not None and not ctx.resilient_parsing:
            _refuse_repeated(command, click.Context(command, ctx, name), rest)
        return name, command, rest


def _refuse_repeated(command: click.Command, context: click.Context, arguments: list[str]) -> None:
    """Raises UsageError for an option that is given twice, and whatever the parser raises."""
    try:
        _, _, given = command.make_parser(context).parse_args(list(arguments))
    except click.UsageError as error:
        error.ctx = error.ctx or context
        raise
    for parameter, count in Counter(given).items():
        if isinstance(parameter, click.Option) and count > 1 and not (parameter.multiple or parameter.is_flag):
            name = max(parameter.opts, key=len)
            raise click.UsageError(f"{name} is given {'twice' if count == 2 else f'{count} times'}: keep one", context)


def _command_hint(word: str, commands: Iterable[str]) -> str:
    if os.path.splitext(word)[1] or os.path.exists(word):
        return ": name a command before the files: sgfast replay POLICY CAPTURE"
    return did_you_mean(word, commands)


def told(error: click.ClickException) -> str:
    """The error in one line, with what to type instead if that is known, and where to find help."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command if context is not None else None
    message = error.format_message().rstrip(".")
    if isinstance(error, click.NoSuchOption):
        known = [name for parameter in command.params for name in parameter.opts] if command is not None else []
        hint = _OPTIONS_OF_OTHERS.get(error.option_name)
        message = f"No such option {error.option_name!r}"
        message += f": {hint}" if hint is not None else did_you_mean(error.option_name, known)
    elif command is not None and message.startswith(_EXTRA_ARGUMENT) and command.name in _INSTEAD_OF_ARGUMENTS:
        message += f": {_INSTEAD_OF_ARGUMENTS[command.name]}"
    return f"{message} (try '{context.command_path if context is not None else 'sgfast'} --help')"
