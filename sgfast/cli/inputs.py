"""The inputs of a command, and the sandbox that confines the command to them (``--sandbox``, SPEC 11.4)."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from glob import has_magic
from typing import TYPE_CHECKING, Any

import click

from sgfast.cli.printing import warn

if TYPE_CHECKING:
    from sgfast.base.output import Output

_SANDBOX = "sgfast.sandbox"
#: Variables that keep NumPy and pyarrow from starting threads when they are imported. The kernel confines only the
#: calling thread and the threads that it starts later. These values override the user's.
_WITHOUT_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


def _prepare(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        context.meta[_SANDBOX] = True
        os.environ.update(_WITHOUT_THREADS)


def sandbox_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--sandbox``, and refuse it together with network access. The command has to call ``enter_sandbox``."""

    @functools.wraps(command)
    def run(*arguments: Any, **given: Any) -> Any:
        if _is_sandboxed():
            _refuse_network(given)
        return command(*arguments, **given)

    # The option is eager, because callbacks of other options already import libraries.
    return click.option(
        "--sandbox",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_prepare,
        help="Read the files in a sandbox: a file that exploits a bug in sgfast can use no network, run no program and "
        "read no other file. An error where the kernel cannot do that.",
    )(run)


def _is_sandboxed() -> bool:
    return _SANDBOX in click.get_current_context().meta


def _refuse_network(options: dict[str, Any]) -> None:
    from sgfast.base.names import printable
    from sgfast.base.streams.urls import is_url

    if options.get("dask") is not None:
        raise click.UsageError("--dask and --sandbox cannot be combined: a sandbox has no network")
    if options.get("live"):
        raise click.UsageError("--live and --sandbox cannot be combined: a sandbox has no network")
    for value in options.values():
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, str) and is_url(path):
                raise click.UsageError(f"{printable(path)}: a sandbox has no network; save it to a file first")


@dataclass(frozen=True)
class Inputs:
    """The inputs that the command line names. None means that an option is not given."""

    #: Documents, exports, and directories of exports.
    policies: Sequence[str | None] = ()
    #: Captures, and directories and patterns that mean captures.
    captures: Sequence[str] = ()
    others: Sequence[str | None] = ()

    @functools.cached_property
    def files(self) -> list[str]:
        """All inputs, with directories replaced by their files."""
        from sgfast.base.errors import PolicyError
        from sgfast.policy.export_files import files_of

        files: list[str] = []
        for policy in self.policies:
            # Loading the policy says what is wrong with a directory without exports.
            with suppress(PolicyError):
                files += [] if policy is None else files_of(policy)
        if self.captures:
            from sgfast.traffic.capture.directories import with_files_in

            files += with_files_in(self.captures)
        return [*files, *(path for path in self.others if path is not None)]

    def enter_sandbox(self, outputs: Iterable[Output] = ()) -> None:
        """Confine the process if ``--sandbox`` is given. Call it when all outputs are open and nothing has been read.

        Raises SandboxError if the system cannot confine it.
        """
        if not _is_sandboxed():
            return
        from sgfast.base.sandbox import confine
        from sgfast.traffic.capture.directories import files_in, is_pattern

        # The right to read a directory includes everything below it. So only the names in a directory of captures may
        # be read, and the captures themselves.
        files: list[str] = []
        folders = [path for path in self.policies if path is not None]
        for path in self.files:
            (folders if os.path.isdir(path) else files).append(path)
        searched = folders
        for pattern in filter(is_pattern, self.captures):
            # If a pattern leads through symbolic links, its files are not all below its first directory.
            searched += [_fixed_part(pattern), *(os.path.dirname(file) or "." for file in files_in(pattern)[0])]
        confine(files, searched, [output.folder for output in outputs if output.folder is not None])


@contextmanager
def open_outputs(paths: Sequence[str], inputs: Inputs, *, quiet: bool = False) -> Iterator[list[Output]]:
    """Open the outputs before anything is read, so that an unwritable output fails early, and enter the sandbox. Remove
    outputs that were not published at the end. ``quiet``: print no warnings about outputs.

    Raises OutputError if an output cannot be written or is one of the inputs.
    """
    from sgfast.base.output import open_output, refuse_shared

    refuse_shared(paths, inputs.files)
    with ExitStack() as stack:
        outputs = [stack.enter_context(open_output(path)) for path in paths]
        if not quiet:
            warn(output.warning for output in outputs if output.warning)
        inputs.enter_sandbox(outputs)
        yield outputs


def _fixed_part(pattern: str) -> str:
    """Return the directory below which a pattern's files are: ``day`` for ``day/*/a-*.pcap``."""
    while has_magic(pattern):
        pattern = os.path.dirname(pattern)
    return pattern or "."
