"""Longest prefix match and the classifier, each against a scan of everything there is (SPEC 2.6, 4.8-4.11)."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_network
from itertools import product
from typing import Any

import numpy as np
import pytest
from effort import some
from traffic import OUTSIDE, PORTS, Crowd, drawn
from winners import winner

from sgfast import HEADER_DTYPE, Policy
from sgfast.core.classify.cidr_trie import CidrTrie
from sgfast.policy.model import Instance, Rule, SecurityGroup
from sgfast.reference.addresses import longest_prefix_owner
from sgfast.rules.compiler import CompiledPolicy, compile_policy
from sgfast.rules.compiler import tables as tables_of

SEED = 1
NOWHERE = 5
BITS = {4: 32, 6: 128}
both_families = pytest.mark.parametrize("family", [4, 6])

# A prefix: the address's bits, the length.
Prefix = tuple[int, int]


def network(address: int, length: int, family: int) -> Prefix:
    shift = BITS[family] - length
    return address >> shift << shift, length


def build(prefixes: dict[Prefix, int], family: int, rng: random.Random) -> CidrTrie:
    rows = list(prefixes.items())
    rng.shuffle(rows)
    return CidrTrie(*arguments(rows, family))


def extended(trie: CidrTrie, prefixes: dict[Prefix, int], news: list[Prefix], family: int) -> CidrTrie:
    """A trie of ``prefixes``, made from one without ``news``."""
    rows = sorted(prefixes.items())
    return CidrTrie(*arguments(rows, family), trie, [n for n, (prefix, _) in enumerate(rows) if prefix in news])


def arguments(rows: list[tuple[Prefix, int]], family: int) -> tuple[Any, ...]:
    packed = np.zeros((len(rows), 16), np.uint8)
    width = BITS[family] // 8
    for n, ((address, _), _) in enumerate(rows):
        packed[n, :width] = list(address.to_bytes(width, "big"))
    return family == 6, packed, [length for (_, length), _ in rows], [value for _, value in rows], NOWHERE


def scanned(prefixes: dict[Prefix, int], address: int, family: int) -> int:
    """The longest prefix's value, by looking at all of them."""
    best, value = -1, NOWHERE
    for (first, length), candidate in prefixes.items():
        if length > best and address >> (BITS[family] - length) == first >> (BITS[family] - length):
            best, value = length, candidate
    return value


def look_up(trie: CidrTrie, address: int, family: int) -> int:
    return trie.find(address.to_bytes(BITS[family] // 8, "big"))


def edges_of(prefix: Prefix, family: int) -> list[int]:
    """The first and last address of a prefix, and their neighbours outside of it."""
    first, length = prefix
    last = first | ((1 << (BITS[family] - length)) - 1)
    return [a for a in (first - 1, first, last, last + 1) if 0 <= a < 1 << BITS[family]]


@both_families
def test_one_prefix_of_every_length(family: int) -> None:
    rng = random.Random(SEED)
    for length in range(BITS[family] + 1):
        for address in (0, (1 << BITS[family]) - 1, rng.getrandbits(BITS[family])):
            prefixes = {network(address, length, family): 7}
            trie = build(prefixes, family, rng)
            (prefix,) = prefixes
            for probe in (*edges_of(prefix, family), 0, (1 << BITS[family]) - 1):
                assert look_up(trie, probe, family) == scanned(prefixes, probe, family), (length, hex(probe))
            # one bit off, anywhere
            for bit in range(BITS[family]):
                probe = prefix[0] ^ 1 << bit
                assert look_up(trie, probe, family) == scanned(prefixes, probe, family), (length, bit)


@both_families
@pytest.mark.parametrize("ones", [False, True], ids=["zeros", "ones"])
def test_nest_of_every_length(family: int, ones: bool) -> None:
    """One prefix inside the other, from everything to a single address: each bit that differs leaves it one deeper."""
    rng = random.Random(SEED)
    bits = BITS[family]
    for address in ((1 << bits) - 1 if ones else 0, rng.getrandbits(bits)):
        prefixes = {network(address, length, family): 100 + length for length in range(bits + 1)}
        trie = build(prefixes, family, rng)
        assert look_up(trie, address, family) == 100 + bits
        for length in range(bits):
            # agrees in exactly `length` bits, whatever stands behind them
            for noise in (0, (1 << bits) - 1, rng.getrandbits(bits)):
                keep = bits - length - 1
                probe = (address >> keep ^ 1) << keep | noise & ((1 << keep) - 1)
                assert look_up(trie, probe, family) == 100 + length


@both_families
@pytest.mark.parametrize("trial", range(60))
def test_random_sets_against_a_scan(family: int, trial: int) -> None:
    print(f"seed {trial}")
    rng = random.Random(trial)
    bits = BITS[family]
    lengths = [0, 1, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32]
    if family == 6:
        lengths += [33, 40, 63, 64, 65, 72, 100, 120, 121, 127, 128] * 2
    base = rng.getrandbits(bits)

    def nearby() -> int:
        """Agrees with ``base`` in its first bits, in all but the last few or in none."""
        return base ^ rng.getrandbits(bits) & ((1 << rng.randint(1, bits)) - 1)

    # The first trie is so large that its nodes take many blocks.
    size = 20_000 if trial == 0 else rng.choice((1, 2, 30, 400))
    prefixes = {network(nearby(), rng.choice(lengths), family): n + 10 for n in range(size)}
    trie = build(prefixes, family, rng)
    known = list(prefixes)
    for _ in range(200):
        probe = nearby()
        if rng.random() < 0.7:
            first, length = rng.choice(known)
            probe = first ^ rng.getrandbits(bits) & ((1 << (bits - length)) - 1)
            if rng.random() < 0.4:
                probe ^= 1 << rng.randrange(bits)
        assert look_up(trie, probe, family) == scanned(prefixes, probe, family), hex(probe)


@both_families
@pytest.mark.parametrize("trial", range(some(10, 60)))
def test_a_few_prefixes_more_are_found_and_hide_none_and_the_trie_before_stays(family: int, trial: int) -> None:
    print(f"seed {trial}")
    rng = random.Random(trial)
    bits = BITS[family]
    base = rng.getrandbits(bits)

    def nearby() -> int:
        return base ^ rng.getrandbits(bits) & ((1 << rng.randint(1, bits)) - 1)

    now = {network(nearby(), rng.randint(0, bits), family): n + 10 for n in range(rng.choice((0, 1, 40)))}
    trie = build(now, family, rng)
    for step in range(60):
        before, older = dict(now), trie
        drawn_now = {network(nearby(), rng.randint(0, bits), family) for _ in range(rng.choice((1, 1, 3)))}
        news = [prefix for prefix in drawn_now if prefix not in now]
        now |= {prefix: 1000 + 10 * step + n for n, prefix in enumerate(news)}
        trie = extended(trie, now, news, family)
        for probe in [edge for prefix in (*news, *rng.sample(list(now), min(len(now), 3)))
                      for edge in edges_of(prefix, family)]:  # fmt: skip
            assert look_up(trie, probe, family) == scanned(now, probe, family), (step, hex(probe))
            assert look_up(older, probe, family) == scanned(before, probe, family), (step, hex(probe))


@both_families
@pytest.mark.parametrize("length", [0, 1, 16, 17, 24, 32])
def test_the_same_prefix_twice_is_refused(family: int, length: int) -> None:
    packed = np.zeros((3, 16), np.uint8)
    packed[1, 0] = 0x80
    lengths = [length, 32, length]
    with pytest.raises(ValueError, match="twice"):
        CidrTrie(family == 6, packed, lengths, [1, 2, 3], NOWHERE)
    # of another length it is another prefix
    CidrTrie(family == 6, packed, [length, 32, length + 1 if length < 32 else 31], [1, 2, 3], NOWHERE)


def test_nonsense_is_refused() -> None:
    one = np.zeros((1, 16), np.uint8)
    with pytest.raises(ValueError, match="longer"):
        CidrTrie(False, one, [33], [1], 0)
    with pytest.raises(ValueError, match="longer"):
        CidrTrie(True, one, [129], [1], 0)
    with pytest.raises(ValueError, match="equally many"):
        CidrTrie(False, one, [8, 8], [1], 0)
    with pytest.raises(ValueError, match="equally many"):
        CidrTrie(False, one, [8], [], 0)
    for ipv6, size in ((False, 16), (False, 3), (True, 4), (True, 0)):
        with pytest.raises(ValueError, match="family"):
            CidrTrie(ipv6, one, [8], [1], 0).find(bytes(size))


# --- The classifier


def wins(policy: Policy, here: Instance, inbound: bool, peer: str, protocol: int, port_key: int) -> str | None:
    """The winning rule's id by the reference model."""
    address = ip_address(peer)
    owned = [(prefix, each) for each in policy.instances for prefix in each.addresses]
    is_icmp = protocol == (1 if address.version == 4 else 58)
    kind = divmod(port_key, 256) if is_icmp else (None, None)
    found = winner(
        policy, here, not inbound, address, longest_prefix_owner(owned, address), (protocol, port_key, *kind)
    )
    return found and found.rule.id


def questions(policy: Policy, case_seed: int, count: int) -> list[tuple[int, bool, str, int, int]]:
    rng = np.random.default_rng(case_seed)
    crowd = Crowd(policy, rng)
    result = []
    for _ in range(count):
        family = int(rng.choice((4, 6)))
        peer = str(rng.choice([*crowd.inside[family], *OUTSIDE[family]]))
        icmp = 1 if family == 4 else 58
        protocol = int(rng.choice((6, 6, 17, icmp, icmp, 132, 33, 136, 47, 50, 0, 255)))
        port_key = 0
        if protocol in (6, 17, 132, 33, 136):
            port_key = min(65535, max(0, int(rng.choice(PORTS)) + int(rng.choice((-1, 0, 0, 1, 400, 401)))))
        elif protocol == icmp:
            port_key = int(rng.choice((8, 13, 128, 9, 144, 0, 7, 255))) << 8 | int(rng.choice((0, 1, 2, 255)))
        result.append((int(rng.integers(len(policy.instances))), bool(rng.integers(2)), peer, protocol, port_key))
    return result


def named(compiled: CompiledPolicy, question: tuple[int, bool, str, int, int]) -> str | None:
    instance, inbound, peer, protocol, port_key = question
    number = compiled.classifier.rule_for(instance, inbound, ip_address(peer).packed, protocol, port_key)
    return compiled.rules[number].id if number >= 0 else None


#: Rules joined, joined in part, and group by group; as tables, bit vectors, and both. One cell is what a table without
#: rules takes, and the only one that is never kept as bit vectors.
WAYS_TO_COMPILE = list(product([64_000_000, 3_000, 0], [None, 1, 20]))[:: some(4, 1)]


@pytest.mark.parametrize(("joined_steps", "most_cells"), WAYS_TO_COMPILE)
def test_classifier_against_a_scan_of_the_rules(
    most_cells: int | None, joined_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables_of, "MAX_JOINED_STEPS", joined_steps)
    if most_cells is not None:
        monkeypatch.setattr(tables_of, "MAX_TABLE_CELLS", most_cells)
    kinds, winners = [0, 0], set()

    @drawn(SEED, some(20, 100))
    def compare(policy: Policy, case_seed: int) -> None:
        compiled = compile_policy(policy)
        kinds[0] += compiled.rule_tables - compiled.bit_vector_tables
        kinds[1] += compiled.bit_vector_tables
        for question in questions(policy, case_seed, 100):
            instance, *rest = question
            wanted = wins(policy, policy.instances[instance], *rest)
            winners.add(wanted)
            assert named(compiled, question) == wanted, question

    compare()
    tables, bit_vectors = kinds
    print(f"{tables} tables, {bit_vectors} of bit vectors, {len(winners)} winners")
    if most_cells is None:
        assert tables > some(20, 100) and bit_vectors == 0
    else:
        assert bit_vectors > 4 * tables if most_cells == 1 else min(tables, bit_vectors) > some(10, 50)
    assert None in winners and len(winners) > some(10, 30)


def many_rules(count: int) -> Policy:
    """More rules than a word of a bit vector has bits, every third one a deny, on many ports and networks."""
    rng = random.Random(SEED)
    rules = []
    for n in range(count):
        first = rng.randint(1, 65000)
        protocol = rng.choice((6, 17, None))
        peer = IPv4Network((rng.getrandbits(32) >> 20 << 20, rng.choice((12, 16, 20))), strict=False)
        rules.append(
            Rule(
                f"r{n}", "inbound", 4, protocol, ((first, first + rng.choice((0, 10, 500))),) if protocol else None,
                peer=rng.choice((None, peer)), action="deny" if n % 3 == 0 else "allow", priority=rng.randint(1, 100),
            )
        )  # fmt: skip
    return Policy(
        security_groups=(SecurityGroup("g", tuple(rules)),),
        instances=(Instance("a", "default", (ip_network("10.0.0.5/32"),), ("g",)),),
    )


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 129, 1000])
@pytest.mark.parametrize("most_cells", [1, 1 << 20], ids=["bit vectors", "tables"])
def test_rules_across_the_words_of_a_bit_vector(count: int, most_cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_of, "MAX_TABLE_CELLS", most_cells)
    policy = many_rules(count)
    compiled = compile_policy(policy)
    rng = random.Random(count)
    for _ in range(300):
        rule = rng.choice(policy.security_groups[0].rules)
        network = rule.peer if isinstance(rule.peer, IPv4Network) else ip_network("0.0.0.0/0")
        peer = str(network[rng.randrange(network.num_addresses)])
        port = rng.randint(0, 65535)
        if rule.ports is not None:
            port = min(65535, rule.ports[0][rng.randint(0, 1)] + rng.randint(-1, 1))
        question = (0, True, peer, rule.protocol or rng.choice((6, 17, 47)), port)
        assert named(compiled, question) == wins(policy, policy.instances[0], *question[1:]), question


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 128, 129])
def test_each_bit_of_a_bit_vector_is_that_of_its_rule(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_of, "MAX_TABLE_CELLS", 0)
    policy = many_rules(count)
    rules = [Rule(f"r{n}", "inbound", 4, 6, ((n, n),)) for n in range(count)]
    compiled = compile_policy(replace(policy, security_groups=(SecurityGroup("g", tuple(rules)),)))
    found = [named(compiled, (0, True, "192.0.2.1", 6, port)) for port in range(count + 1)]
    assert found == [*[rule.id for rule in rules], None]


@pytest.mark.parametrize("most_cells", [1, 100, 1 << 20], ids=["bit vectors", "both", "tables"])
def test_packets_that_are_looked_up_together_get_what_each_would_get(
    most_cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One instance has more tables than are looked up at a time, others have a few or one, and one has none."""
    monkeypatch.setattr(tables_of, "MAX_JOINED_STEPS", 0)
    monkeypatch.setattr(tables_of, "MAX_TABLE_CELLS", most_cells)
    rng = random.Random(SEED)
    groups = []
    for n in range(300):
        rules = [
            replace(rule, id=f"{n}/{rule.id}", ports=rule.protocol and ((port := rng.randint(1, 60), port + 9),))
            for rule in rng.sample(many_rules(40).security_groups[0].rules, 12 if n % 2 else 3)
        ]
        groups.append(SecurityGroup(f"g{n}", tuple(rules)))
    in_groups = [[f"g{n}" for n in range(first, end)] for first, end in ((0, 300), (7, 12), (40, 43), (50, 51), (0, 0))]
    instances = [
        Instance(f"i{n}", "default", (ip_network(f"10.0.0.{n}"),), tuple(some)) for n, some in enumerate(in_groups)
    ]
    compiled = compile_policy(Policy(security_groups=tuple(groups), instances=tuple(instances)))
    rows = np.zeros(1000, dtype=HEADER_DTYPE)
    for row in rows:
        peer, port = rng.getrandbits(32), rng.randint(1, 70)
        row["family"], row["protocol"], row["dport"] = 4, rng.choice((6, 17)), port
        row["src"][:4], row["dst"][:4] = list(peer.to_bytes(4, "big")), [10, 0, 0, rng.randrange(6)]
    winners = np.zeros((len(rows), 2), dtype=np.int32)
    compiled.classifier.match(rows, winners)
    alone = [
        -2 if row["dst"][3] == 5 else compiled.classifier.rule_for(
            int(row["dst"][3]), True, row["src"][:4].tobytes(), int(row["protocol"]), int(row["dport"])
        )
        for row in rows
    ]  # fmt: skip
    assert winners[:, 1].tolist() == alone and (winners[:, 0] == -2).all()
    assert len(set(alone)) > 15
