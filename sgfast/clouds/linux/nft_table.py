"""A table of nftables as a value: its text for ``nft -f``, and the text that changes one table into another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

TABLE = "inet sgfast"

_ELEMENTS_IN_LINE = 6


@dataclass(frozen=True)
class Elements:
    """A set or a map. ``kind``: ``set`` or ``map``. ``element_type``: the type of the elements in nftables' syntax."""

    kind: str
    element_type: str
    elements: tuple[str, ...] = ()
    flags: str = "interval"


@dataclass(frozen=True)
class Chain:
    """A chain of rules. ``hook``: the hook at which the kernel calls it (a base chain); empty: other chains jump to it.
    """

    rules: tuple[str, ...]
    hook: str = ""


@dataclass
class NftTable:
    """The timeouts, sets and chains of a table, by their names in nftables."""

    #: Timeouts of connections. A timeout that is in use cannot be changed, so each value has a name of its own.
    timeouts: dict[str, str] = field(default_factory=dict)
    sets: dict[str, Elements] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)

    def text(self) -> str:
        """Return the text that loads this table and replaces a loaded table of the same name."""
        # The first line makes sure that there is a table to delete.
        lines = [f"table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{"]
        for name, body in self.timeouts.items():
            lines += [f"  ct timeout {name} {{", f"    {body}", "  }"]
        for name, elements in self.sets.items():
            lines += [f"  {elements.kind} {name} {{", *_indented(_declaration(elements)), "  }"]
        for name, chain in self.chains.items():
            lines += [f"  chain {name} {{", *_indented((*([chain.hook] if chain.hook else ()), *chain.rules)), "  }"]
        return "\n".join([*lines, "}", ""])


def difference(old: NftTable, new: NftTable) -> str:
    """Return the text that changes a loaded ``old`` into ``new`` in one transaction; empty if they are equal.

    Only the elements of sets that differ and the chains that differ are changed. An object is made before other objects
    refer to it.
    """
    lines = [f"add ct timeout {TABLE} {name} {{ {new.timeouts[name]} }}" for name in _added(old.timeouts, new.timeouts)]
    lines += [
        f"add chain {TABLE} {name}" + (f" {{ {new.chains[name].hook} }}" if new.chains[name].hook else "")
        for name in _added(old.chains, new.chains)
    ]
    for name in _added(old.sets, new.sets):
        elements = new.sets[name]
        lines += [f"add {elements.kind} {TABLE} {name} {{", *_indented(_declaration(elements)), "}"]
    lines += _changed_elements(old.sets, new.sets)
    changed = [name for name in new.chains if new.chains[name] != old.chains.get(name)]
    gone = _added(new.chains, old.chains)
    lines += [f"flush chain {TABLE} {name}" for name in (*changed, *gone) if name in old.chains]
    lines += [f"add rule {TABLE} {name} {rule}" for name in changed for rule in new.chains[name].rules]
    lines += [f"delete chain {TABLE} {name}" for name in gone]
    lines += [f"delete {old.sets[name].kind} {TABLE} {name}" for name in _added(new.sets, old.sets)]
    lines += [f"delete ct timeout {TABLE} {name}" for name in _added(new.timeouts, old.timeouts)]
    return "".join(f"{line}\n" for line in lines)


def _added(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    return [name for name in after if name not in before]


def _changed_elements(before: Mapping[str, Elements], after: Mapping[str, Elements]) -> Iterator[str]:
    for name, elements in after.items():
        if name not in before or before[name] == elements:
            continue
        was, now = set(before[name].elements), set(elements.elements)
        for verb, selected in (("delete", was - now), ("add", now - was)):
            if selected:
                yield f"{verb} element {TABLE} {name} {{"
                all_elements = (*before[name].elements, *elements.elements)
                yield from _indented(_listed([element for element in all_elements if element in selected]))
                yield "}"


def _declaration(elements: Elements) -> Iterator[str]:
    yield elements.element_type
    yield f"flags {elements.flags}"
    if elements.elements:
        yield "elements = {"
        yield from _indented(_listed(elements.elements))
        yield "}"


def _listed(elements: Sequence[str]) -> Iterator[str]:
    for n in range(0, len(elements), _ELEMENTS_IN_LINE):
        yield ", ".join(elements[n : n + _ELEMENTS_IN_LINE]) + ("," if n + _ELEMENTS_IN_LINE < len(elements) else "")


def _indented(lines: Sequence[str] | Iterator[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)
