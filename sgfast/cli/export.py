"""``sgfast export``, and the options that go with ``--to``, which other commands have, too."""

from __future__ import annotations

import functools
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import click

from sgfast.base.names import printable
from sgfast.cli.inputs import Inputs, open_outputs, sandbox_option
from sgfast.cli.options import EXIT_BAD, FILE, Choice, quiet_option
from sgfast.cli.policies import PolicyOptions, policy_options
from sgfast.cli.printing import say, warn
from sgfast.clouds.providers import PROFILE_OF_TARGET, TargetName
from sgfast.clouds.terraform.provider import PROFILE_OF_PROVIDER

if TYPE_CHECKING:
    from sgfast.base.output import Output
    from sgfast.clouds.terraform.provider import Provider
    from sgfast.policy.model import Policy

TARGETS = get_args(TargetName)

ExportForm = Literal["script", "json"]

Devices = tuple[tuple[str, str | None], ...]
"""Instances as the command line names them, each with the interface it is behind (None: it is this machine)."""

#: The most problems of one error that are printed.
_LISTED_PROBLEMS = 20
#: Names of instances that can be used as names of files.
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


#: By target: words for applying an export.
_APPLY: Final = dict.fromkeys(TARGETS, "run what this prints") | {"terraform": "apply what this prints like this file"}


@dataclass(frozen=True, slots=True)
class ExportPart:
    """One text of an export, and the path it is written to."""

    path: str
    devices: Devices = ()
    #: For nftables: whether this is the second file, which changes the loaded rules.
    is_change: bool = False
    #: For nftables: the file that lists connections. The text then says what becomes of them.
    connections: str | None = None
    #: Whether the part is skipped if the old policy has no such instance.
    is_optional: bool = False
    #: Whether the text takes back what that of another part does.
    is_undo: bool = False


def _commented(text: str, first: Sequence[str], last: Sequence[str]) -> str:
    """Return a script with further comments at its top: ``first`` before its own comments, and ``last`` after them."""
    lines = text.splitlines(keepends=True)
    begin = int(text.startswith("#!"))
    end = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    before, after = ([f"# {printable(comment)}\n" for comment in comments] for comments in (first, last))
    return "".join([*lines[:begin], *before, *lines[begin:end], *after, *lines[end:]])


@dataclass(frozen=True, slots=True)
class Export:
    """Values of ``--to`` and of the options that go with it."""

    target: TargetName
    form: ExportForm
    provider: Provider | None
    instances: tuple[str, ...]
    interfaces: tuple[str, ...]

    @property
    def unites_versions(self) -> bool:
        """Whether the target's rules whose peer is a group are for IPv4 and IPv6 (SPEC 2.16)."""
        from sgfast.policy.profiles import PROFILES

        profile = PROFILE_OF_TARGET.get(self.target) if self.provider is None else PROFILE_OF_PROVIDER[self.provider]
        return profile is not None and PROFILES[profile].unites_versions

    def parts(self, output: str, *, is_change: bool, connections: str | None = None) -> list[ExportPart]:
        """Return the parts to write. Only nftables has parts for a directory; they are named after the instances there.

        ``is_change``: there is an old policy. ``connections``: the file that lists connections, if it was given.
        """
        if self.target != "nftables":
            is_file = output != "-" and (os.path.isfile(output) or not os.path.exists(output))
            if not (is_change and is_file) or self.target == "terraform":
                return [ExportPart(output)]
            stem, ending = os.path.splitext(output)
            return [ExportPart(output), ExportPart(f"{stem}.undo{ending}", is_undo=True)]
        hosts: list[tuple[str, Devices]] = [(word, ((word, None),)) for word in self.instances]
        if self.interfaces:
            split = (interface.partition("=") for interface in self.interfaces)
            hosts = [("host", tuple((word, device) for word, _, device in split))]
        if connections is not None:
            return [ExportPart(output, hosts[0][1], connections=connections)]
        if output == "-" or not os.path.isdir(output):
            if len(hosts) > 1:
                raise click.UsageError(
                    "several --instance: each one gets a file of its own in a directory; name one that is there with -o"
                )
            return [ExportPart(output, hosts[0][1], is_change)]
        for name, _ in hosts:
            if not _FILE_NAME.fullmatch(name):
                raise click.UsageError(f"--instance {name!r}: no file can be called so; write the instance's name")
        endings = (("nft", False), ("change.nft", True)) if is_change else (("nft", False),)
        return [
            ExportPart(os.path.join(output, f"{name}.{ending}"), devices, changes, is_optional=changes)
            for name, devices in hosts for ending, changes in endings
        ]  # fmt: skip

    def write(
        self, parts: Sequence[ExportPart], files: Sequence[Output], old: Policy | None, new: Policy,
        comments: Sequence[str] = (), old_name: str | None = None,
    ) -> None:  # fmt: skip
        """Write the files of the parts, with comments at the top of scripts. Regular files appear together.

        ``old_name``: the old policy as the user named it. A script without an undo file says how to make one.

        An error with several problems is printed problem by problem, and ends the command.
        """
        from sgfast.base.output import publish
        from sgfast.clouds.exporting.texts import devices_of

        written = []
        for part, file in zip(parts, files, strict=True):
            devices = devices_of(old, new, part.devices)
            if part.is_optional and old is not None and not any(name in old.instance_by_name for name in devices):
                continue
            text = self._text(part, devices, old, new)
            if self.form == "script":
                has_undo_file = any(part.is_undo for part in parts)
                undo = [] if has_undo_file else self._undo_comments(part, devices, old, old_name)
                text = _commented(text, comments, undo)
            file.write(text.encode())
            written.append(file)
        publish(written)

    def text(self, part: ExportPart, old: Policy | None, new: Policy, old_name: str | None) -> str:
        """Return the text of one part. Errors are as in ``write``."""
        from sgfast.clouds.exporting.texts import devices_of

        devices = devices_of(old, new, part.devices)
        text = self._text(part, devices, old, new)
        if self.form == "script":
            text = _commented(text, (), self._undo_comments(part, devices, old, old_name))
        return text

    def _undo_comments(
        self, part: ExportPart, devices: Mapping[str, str | None], old: Policy | None, old_name: str | None
    ) -> list[str]:
        """Return a comment with the command that makes the way back, unless no policy file says where it leads."""
        if old is None or old_name is None or (self.target == "nftables" and not part.is_change):
            return []
        command = ["sgfast", "export", old_name, "--to", self.target]
        if self.target == "nftables":
            for name, device in devices.items():
                if name in old.instance_by_name:
                    command += ["--instance", name] if device is None else ["--interface", f"{name}={device}"]
            return [f"To take this back, load what this prints: {shlex.join(command)}"]
        command[3:3] = ["--since", "now.yaml"]
        if self.provider is not None:
            command += ["--provider", self.provider]
        return [f"To take this back, import the account as now.yaml, and {_APPLY[self.target]}: {shlex.join(command)}"]

    def _text(self, part: ExportPart, devices: Mapping[str, str | None], old: Policy | None, new: Policy) -> str:
        from sgfast.base.errors import ExportError
        from sgfast.clouds.exporting.texts import cloud_text, connections_text, filter_text

        try:
            if part.is_undo and old is not None:
                old, new = new, old
            if self.target != "nftables":
                return cloud_text(old, new, self.target, self.form, self.provider)
            if part.connections is not None and old is not None:
                return connections_text(old, new, devices, part.connections)
            return filter_text(old, new, devices, is_change=part.is_change)
        except ExportError as error:
            if len(error.problems) == 1:
                raise
            for problem in error.problems[:_LISTED_PROBLEMS]:
                say(problem)
            if (unlisted := len(error.problems) - _LISTED_PROBLEMS) > 0:
                say(f"and {unlisted:,} more that {self.target} cannot have")
            click.get_current_context().exit(EXIT_BAD)


def export_options(
    form: str, *, required: bool = False, writes_files: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``--to`` and the options that go with it. The command gets ``export``, which is None without ``--to``.

    ``form``: the name of the command's option for the format. ``writes_files``: whether the command has ``-o``.
    """
    options = (
        click.option(
            "--to", "target", type=Choice(TARGETS), required=required, metavar=None if required else "TARGET",
            help="Target of the export."
            if required
            else f"Write the script or file for this target, as sgfast export does: {', '.join(TARGETS)}.",
        ),
        click.option(
            form, "to_form", type=Choice(["script", "json"]),
            help="With --to aws, openstack or otc. script: for the command line of the provider; json: the calls of "
            "its API, in order. Default: script.",
        ),
        click.option(
            "--provider", type=Choice(PROFILE_OF_PROVIDER),
            help="With --to terraform: the provider. Default: that of the policy's profile (aws, neutron or otc).",
        ),
        click.option(
            "--instance", "instances", metavar="NAME", multiple=True,
            help="With --to nftables: the instance that the machine itself is."
            + (" Repeatable where -o is a directory." if writes_files else ""),
        ),
        click.option(
            "--interface", "interfaces", metavar="NAME=DEVICE", multiple=True,
            help="With --to nftables, for a host: the interface that an instance is behind. Once for each instance.",
        ),
    )  # fmt: skip

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(
            *arguments: Any, target: TargetName | None, to_form: ExportForm | None, provider: Provider | None,
            instances: tuple[str, ...], interfaces: tuple[str, ...], **given: Any,
        ) -> Any:  # fmt: skip
            chosen = None
            if target is not None:
                chosen = Export(target, to_form or "script", provider, instances, interfaces)
                _check(chosen, form)
            elif to_form or provider or instances or interfaces:
                raise click.UsageError(f"{form}, --provider, --instance and --interface are for --to TARGET")
            return command(*arguments, export=chosen, **given)

        for option in reversed(options):
            run = option(run)
        return run

    return add


def _check(chosen: Export, form: str) -> None:
    """Raise UsageError for options that do not go together."""
    if chosen.target == "terraform" and chosen.form == "json":
        raise click.UsageError(f"{form} json is for the calls of an API; --to terraform has none")
    if chosen.target != "terraform" and chosen.provider is not None:
        raise click.UsageError("--provider is for --to terraform")
    if chosen.target != "nftables":
        if chosen.instances or chosen.interfaces:
            raise click.UsageError("--instance and --interface are for --to nftables")
        return
    if chosen.form == "json":
        raise click.UsageError(f"--to nftables has no {form} json: nft -f reads the text")
    if chosen.instances and chosen.interfaces:
        raise click.UsageError("--to nftables: give --instance or --interface, not both")
    if not (chosen.instances or chosen.interfaces):
        raise click.UsageError("--to nftables needs --instance NAME, or --interface NAME=DEVICE for each instance")
    for interface in chosen.interfaces:
        if not all(interface.partition("=")[::2]):
            raise click.UsageError(f"--interface {interface!r}: write NAME=DEVICE, such as web-1=tap0")


@click.command("export", short_help="Write the script or file that puts a policy into force in a cloud.")
@click.argument("path", metavar="POLICY", type=FILE)
@click.option("--since", type=FILE, metavar="OLD", help="Policy in force today: export only what differs from OLD.")
@export_options("--format", required=True)
@click.option(
    "--output", "-o", type=FILE, metavar="FILE|DIR", default="-",
    help="Write to FILE, or for nftables to files in the directory DIR. Default: standard output.",
)
@click.option(
    "--connections", type=FILE, metavar="FILE",
    help="With --to nftables and --since: write what becomes of the connections in FILE, as conntrack -L -o extended "
    "lists them.",
)
@policy_options
@sandbox_option
@quiet_option
def export(
    path: str,
    since: str | None,
    export: Export,
    output: str,
    connections: str | None,
    policies: PolicyOptions,
    quiet: bool,
) -> None:
    """Write the script or file that puts a policy into force in a cloud, or on a Linux host.

    \b
    --to is one of
      terraform  a configuration for Terraform or OpenTofu
      aws        AWS: a script of aws ec2, or the calls of EC2's API
      openstack  OpenStack: a script of openstack, or the calls of Neutron's API
      otc        Open Telekom Cloud: a script of openstack, or the calls of its
                 VPC API v3, which has deny rules
      nftables   Linux: a file for nft -f, for one machine (--instance), or for
                 a host of several instances (--interface)

    The export means exactly what POLICY means. A rule that the target cannot have is written as other rules that
    mean the same; if there are none, an error names the rule. Nothing is run, and no cloud is contacted.

    Without --since, the export is for an account that has VPCs and instances and nothing else. With --since, it is for
    an account in which OLD is in force, such as an account that sgfast import --live has read. Additions come before
    removals. Beside FILE, --since writes FILE.undo for aws, openstack and otc: apply.undo.sh takes back what apply.sh
    does.

    If -o is a directory, --to nftables writes NAME.nft for each --instance, or host.nft, and with --since beside it
    NAME.change.nft or host.change.nft for a machine that has the filter of OLD.

    \b
    Examples:
      sgfast export policy.yaml --to aws -o apply.sh
      sgfast export edited.yaml --since today.yaml --to aws --format json
      sgfast export policy.yaml --to terraform --provider openstack -o groups.tf
      sgfast export policy.yaml --to nftables --interface web-1=tap0 -o filter.nft
    """
    if [path, since, connections].count("-") > 1:
        raise click.UsageError("standard input (-) can be read only once")
    if connections is not None:
        _check_connections(export, since)
    parts = export.parts(output, is_change=since is not None, connections=connections)
    with open_outputs([part.path for part in parts], Inputs([path, since, connections]), quiet=quiet) as files:
        old = None if since is None else policies.load(since)
        new = policies.load(path)
        export.write(parts, files, old, new, old_name=since)
    if not quiet:
        warn(new.warnings)


def _check_connections(export: Export, old_policy: str | None) -> None:
    if export.target != "nftables":
        raise click.UsageError("--connections is for --to nftables")
    if old_policy is None:
        raise click.UsageError("--connections needs --since: what becomes of connections depends on what changed")
    if len(export.instances) > 1:
        raise click.UsageError("--connections: FILE is the list of one machine; name one --instance")
