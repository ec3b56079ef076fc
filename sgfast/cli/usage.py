"""Error messages about a command line that sgfast does not understand (SPEC 10.26)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

import click

from sgfast.base.spelling import did_you_mean

_FILTERED = "sgfast replay POLICY CAPTURE --filter 'tcp port 443'"
#: By option of tcpdump or tshark: the option that a command must have for the hint, and the hint.
_OPTIONS_OF_OTHERS = {
    "-r": ("--filter", "name the capture without it, behind the policy: sgfast replay POLICY CAPTURE"),
    "-w": ("--write", "write packets with --write: sgfast replay POLICY CAPTURE --write FILE.pcapng"),
    "-Y": ("--filter", f"choose packets with --filter, in tcpdump's syntax: {_FILTERED}"),
    "-f": ("--filter", f"--format says how the report is written, and --filter chooses packets: {_FILTERED}"),
    "-n": ("--filter", "leave it out, since sgfast never looks names of addresses up"),
    "-i": ("--filter", "sgfast captures nothing itself: tcpdump -i INTERFACE -U -w - | sgfast replay POLICY -"),
}
#: By command: the hint if there is one argument too many, and it is a file.
_INSTEAD_OF_FILES = {
    "check": "captures need --traffic: sgfast check POLICY --traffic CAPTURE",
    "export": "name one POLICY; what is there already needs --since: sgfast export POLICY --since OLD --to TARGET",
}
#: By command: the hint if there is one argument too many, and it is one end of connections.
_INSTEAD_OF_ENDS = {
    "explain": "both ends need options: sgfast explain POLICY --from A --to B --protocol tcp --port N",
    "reach": "ends need options: sgfast reach POLICY --from X --to Y",
}


class Commands(click.Group):
    """A group of commands. They refuse an option that is given twice but would only count once, and hint at the option
    for an argument that they do not take.
    """

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            name, command, arguments = super().resolve_command(ctx, args)
        except click.NoSuchOption:
            raise
        except click.UsageError:
            raise click.UsageError(f"No such command {args[0]!r}{_command_hint(args[0], self.commands)}", ctx) from None
        if command is not None and not ctx.resilient_parsing:
            _refuse_wrong(command, click.Context(command, ctx, name), arguments)
        return name, command, arguments


def _refuse_wrong(command: click.Command, context: click.Context, arguments: list[str]) -> None:
    """Raise UsageError for an option that is given twice and for an argument that belongs to an option, and pass on the
    parser's errors.
    """
    try:
        _, extra, parameters = command.make_parser(context).parse_args(list(arguments))
    except click.UsageError as error:
        error.ctx = error.ctx or context
        raise
    if any(parameter.is_eager for parameter in parameters):      # --help
        return
    if extra and (hint := _argument_hint(command.name or "", extra[0])):
        raise click.UsageError(f"Got unexpected extra argument {extra[0]!r}: {hint}", context)
    for parameter, count in Counter(parameters).items():
        if isinstance(parameter, click.Option) and count > 1 and not (parameter.multiple or parameter.is_flag):
            name = max(parameter.opts, key=len)
            raise click.UsageError(f"{name} is given {'twice' if count == 2 else f'{count} times'}: keep one", context)


def _argument_hint(command: str, word: str) -> str | None:
    if os.path.exists(word):
        return _INSTEAD_OF_FILES.get(command)
    # A number is more probably another port than an end.
    return None if word.isdigit() else _INSTEAD_OF_ENDS.get(command)


def _command_hint(word: str, commands: Iterable[str]) -> str:
    files = ": name a command before the files: sgfast replay POLICY CAPTURE"
    if os.path.splitext(word)[1]:
        return files
    return did_you_mean(word, commands) or (files if os.path.exists(word) else "")


def usage_error(error: click.ClickException) -> str:
    """Return the error in one line, with a correction if one is known, and with the command that prints help."""
    from sgfast.base.names import printable

    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command if context is not None else None
    message = " ".join(error.format_message().split()).rstrip(".")
    if isinstance(error, click.NoSuchOption):
        options = [name for parameter in command.params for name in parameter.opts] if command is not None else []
        needed, hint = _OPTIONS_OF_OTHERS.get(error.option_name, ("", ""))
        is_hinted = hint and (isinstance(command, click.Group) or needed in options)
        message = f"No such option {error.option_name!r}"
        message += f": {hint}" if is_hinted else did_you_mean(error.option_name, options)
    return f"{printable(message)} (try '{context.command_path if context is not None else 'sgfast'} --help')"
