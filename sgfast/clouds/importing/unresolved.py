"""Unresolved references of an export: deleted groups, groups of other accounts, a cloud's own prefix lists.

By default, one error lists all unresolved references. With ``--unresolved empty`` each is a peer without addresses.
``--unresolved sg-0a1b2c3d=10.9.0.0/24`` supplies the addresses of a group or list, and so may a file that has only the
key ``addresses``::

    addresses:
      sg-0a1b2c3d: [10.9.0.0/24]
      pl-63a5400a: [52.218.0.0/17, "2a05:d07a:a000::/40"]

So does the output of ``aws ec2 get-managed-prefix-list-entries`` beside the files of Terraform or CloudFormation, in a
file that is named after the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from sgfast.base.errors import ArgumentError, PolicyError
from sgfast.base.spelling import did_you_mean
from sgfast.clouds.aws.documents import AwsDocuments, owner_in_name
from sgfast.clouds.importing.draft import Draft, DraftRule
from sgfast.clouds.importing.object_location import Location
from sgfast.clouds.importing.sources import Source
from sgfast.clouds.importing.values import networks_of
from sgfast.policy.export_files import OTHERS, Unresolved, UnresolvedWord
from sgfast.policy.yaml_nodes import show, shown_origin

#: The given addresses of groups and lists by id, with the place where they are given.
Addresses = dict[str, tuple[Location, list[str]]]

#: The command of AWS that prints the entries of a prefix list. The id of the list follows.
_ENTRIES_COMMAND = "aws ec2 get-managed-prefix-list-entries --prefix-list-id"

#: The kind and id of each missing object, and the first object that refers to it.
_Missing = dict[tuple[str, str], Location]

_KEY = "addresses"


def is_address_file(source: Source) -> bool:
    """Return whether a file only supplies the addresses of groups and lists."""
    value = source.value
    return isinstance(value, dict) and value.keys() == {_KEY} and isinstance(value[_KEY], dict)


def has_entries(source: Source) -> bool:
    """Return whether a file only has the entries of a prefix list of AWS, and says of which one."""
    value = source.value
    if not isinstance(value, dict) or not isinstance(value.get("Entries"), list):
        return False
    return bool(value.get("PrefixListId") or owner_in_name(source.file, "pl"))


def addresses_in(sources: Iterable[Source], lists: Sequence[Source] = ()) -> Addresses:
    """Read the addresses of groups and lists from files that ``is_address_file`` accepts, and from ``lists``, which
    ``has_entries`` accepts.
    """
    addresses: Addresses = {}
    for list_id, document, entries in AwsDocuments(lists).list_entries() if lists else ():
        location = Location(document.location.file, "prefix list", list_id)
        if list_id in addresses:
            raise location.error(f"is also in {shown_origin(addresses[list_id][0].file)}")
        addresses[list_id] = location, entries
    for source in sources:
        assert isinstance(source.value, dict)
        for identity, value in source.value[_KEY].items():
            location = source.location(_KEY, str(identity))
            texts = [value] if isinstance(value, str) else value
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise location.error("must be a list of addresses, CIDRs or ranges of addresses")
            if identity in addresses:
                raise location.error(f"is also in {shown_origin(addresses[identity][0].file)}")
            addresses[identity] = location, texts
    return addresses


def resolve(
    draft: Draft, addresses: Addresses, unresolved: Unresolved, origin: str, lists_groups: str = "", *,
    takes_files: bool = True,
) -> None:  # fmt: skip
    """Resolve every reference of the draft to a group or list that is in none of the files.

    ``lists_groups``: the commands or lists that have the security groups, for an export that lacks them.
    ``takes_files``: whether the user can add files to the export.
    A PolicyError lists all references that remain. Raises ArgumentError for an unknown word as ``unresolved``.
    """
    word, stated = _given(unresolved)
    stated_addresses = {identity: answer for identity, answer in stated.items() if not draft.has_group(identity)}
    members = {group: instance.location for instance in draft.instances for group in instance.groups}
    for identity, (location, _) in addresses.items():
        if draft.has_group(identity) or draft.has_address_group(identity):
            raise location.error("the export says itself what this is: leave it out here")
    addresses = addresses | stated_addresses
    for identity, (location, _) in addresses.items():
        if identity in members:
            message = f"has an instance of the export as a member, {members[identity].called}: leave it out here"
            raise location.error(message)
    known_lists = _Known(draft, addresses)
    missing: _Missing = {}
    rules = []
    for group, rule in draft.rules:
        if not draft.has_group(group):
            missing.setdefault(("security group", group), rule.location)
        if rule.group and not draft.has_group(rule.group):
            if known_lists.is_given(rule.group):
                rule.group, rule.address_group = "", rule.group
            else:
                missing.setdefault(("security group", rule.group), rule.location)
        elif rule.address_group and not (
            draft.has_address_group(rule.address_group) or known_lists.is_given(rule.address_group)
        ):
            missing.setdefault((draft.list_word, rule.address_group), rule.location)
        if not known_lists.is_other_version(rule):
            rules.append((group, rule))
    draft.rules = rules
    for instance in draft.instances:
        for group in instance.groups:
            if not draft.has_group(group):
                missing.setdefault(("security group", group), instance.location)
    for identity, (location, _) in addresses.items():
        if identity not in known_lists.used and identity not in stated_addresses:
            draft.note("Nothing in the export refers to what a file with addresses names", location)
    if not missing:
        return
    if word == "error":
        if lists_groups and not draft.has_groups:
            raise PolicyError(
                f"{shown_origin(origin)}: has instances, but no security group: put it into one directory with the "
                f"output of {lists_groups}, and name the directory"
            )
        raise _error_of(missing, draft, origin, takes_files)
    advice = _entries_advice(missing, takes_files)
    for kind, identity in missing:
        location = Location("", kind, identity)
        draft.unresolved.add(identity)
        if kind == "security group":
            draft.group(location, draft.foreign.get(identity) or "In none of the files")
        else:
            draft.address_group(location, ())
        message = "In none of the files, so that only what the other files say of it is known"
        draft.note(message + (advice if kind == draft.list_word else ""), location, whole=True)


def _given(unresolved: Unresolved) -> tuple[str, Addresses]:
    """Return the word for references that have no addresses, and the addresses of the others."""
    answers = unresolved if isinstance(unresolved, Mapping) else {OTHERS: unresolved}
    word = answers.get(OTHERS, "error")
    if word not in (words := get_args(UnresolvedWord)):
        hint = did_you_mean(str(word), words)
        raise ArgumentError(f"unresolved must be {' or '.join(map(repr, words))}, not {word!r:.80}{hint}")
    addresses: Addresses = {}
    for identity, value in answers.items():
        texts = [value] if isinstance(value, str) else value
        if identity != OTHERS:
            if not texts or not all(isinstance(text, str) for text in texts):
                raise ArgumentError(f"unresolved must give {show(identity)} addresses, CIDRs or ranges of addresses")
            addresses[identity] = Location("unresolved", _KEY, identity), [*texts]
    return str(word), addresses


class _Known:
    """The groups and lists whose addresses a file supplies. Each becomes an address group at its first use."""

    def __init__(self, draft: Draft, addresses: Addresses) -> None:
        self._draft = draft
        self._addresses = addresses
        #: By id of a group or list that was used: the IP versions of its addresses.
        self.used: dict[str, set[int]] = {}

    def is_given(self, identity: str) -> bool:
        if identity in self.used:
            return True
        if identity not in self._addresses:
            return False
        location, texts = self._addresses[identity]
        self._draft.address_group(Location(location.file, self._draft.list_word, identity), texts)
        self.used[identity] = {network.version for text in texts for network in networks_of(location, text)}
        return True

    def is_other_version(self, rule: DraftRule) -> bool:
        """Return whether a rule is for an IP version of which its peer has no address. A group or list with unknown
        addresses has one rule for each IP version.
        """
        versions = self.used.get(rule.address_group, ())
        return bool(versions) and rule.ethertype not in versions


def _entries_advice(missing: _Missing, takes_files: bool) -> str:
    """Name the command that prints the entries of a prefix list, in brackets. Return "" if no such list is missing."""
    for _, identity in missing:
        if owner_in_name(identity, "pl") == identity:
            file = f" > {identity}.json" if takes_files else ""
            return f" (the entries of a prefix list: {_ENTRIES_COMMAND} {identity}{file})"
    return ""


def _error_of(missing: _Missing, draft: Draft, origin: str, takes_files: bool) -> PolicyError:
    listed = []
    for (kind, identity), referrer in missing.items():
        hint = draft.foreign.get(identity)
        listed.append(f"{kind} {show(identity)}{f', {hint}' if hint else ''} (see {referrer})")
    names, advice = "; ".join(listed), _entries_advice(missing, takes_files)
    how = f"say its addresses with --unresolved GROUP=ADDRESSES{advice}"
    if takes_files:
        how = (
            f"add the files that hold it{advice}, say its addresses with --unresolved GROUP=ADDRESSES or in a file "
            f'with the key "{_KEY}"'
        )
    return PolicyError(
        f"{shown_origin(origin)}: rules or instances refer to what is in none of the files: {names}: {how}, or go on "
        "without them with --unresolved empty (in Python: unresolved='empty')"
    )
