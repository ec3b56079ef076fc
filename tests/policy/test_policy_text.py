"""The text of a policy document: YAML 1.2, broken text, files, keys and types (SPEC 2, 2.10, 11)."""

from __future__ import annotations

import gc
import io
import os
import sys
from pathlib import Path

import pytest
import yaml
from effort import some
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_texts import _WORDS, _YAMLISH, SPEC_EXAMPLE, error_of, only_policy_errors

from sgfast import Policy
from sgfast.base.errors import PolicyError
from sgfast.clouds.loading import load_policy, parse_policy
from sgfast.policy import yaml_nodes
from sgfast.policy.fields import RULE
from sgfast.policy.model import Vpc
from sgfast.policy.yaml_nodes import plain_value


class TestYaml12:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            *((word, None) for word in ("", "~", "null", "Null", "NULL")),
            *((word, True) for word in ("true", "True", "TRUE")),
            *((word, False) for word in ("false", "False", "FALSE")),
            *((word, word) for word in ("yes", "no", "on", "off", "y", "n", "Yes", "NO", "tRUE", "nULL")),
            *((word, word) for word in ("22:24", "1_000", "0b11", "2001-02-03", "1.2.3.4", "+", "-", ".", "0o8", "1e")),
            *((word, int(word)) for word in ("0", "22", "-5", "+5")),
            *(("010", 10), ("0o17", 15), ("0x1F", 31), ("-0x1F", "-0x1F")),
            *(("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0)),
            *(("-.inf", float("-inf")), (".Inf", float("inf"))),
        ],
    )
    def test_core_schema(self, text: str, value: object) -> None:
        assert plain_value(text) == value
        assert type(plain_value(text)) is type(value)

    def test_huge_number_is_out_of_range_not_a_value_error(self) -> None:
        for number in ("9" * 5000, "0x" + "f" * 5000):
            assert "settings.max_connections: must be a whole number" in error_of(
                f"version: 1\nsettings: {{max_connections: {number}}}"
            )

    def test_norway_and_sexagesimals_are_names(self) -> None:
        policy = parse_policy("version: 1\nvpcs: [{name: no}, {name: on}, {name: '1'}]\npeerings: [[no, on]]")
        assert [vpc.name for vpc in policy.vpcs] == ["no", "on", "1"]

    def test_explicit_tags(self) -> None:
        assert parse_policy("version: !!int 1\nvpcs: [{name: !!str 22}]").vpcs[0].name == "22"
        assert "p.yaml:2: vpcs[0].name: the tag '!foo'" in error_of("version: 1\nvpcs: [{name: !foo x}]")
        assert "must be a whole number" in error_of("version: 1\nsettings: {max_connections: !!float 5}")
        assert "vpcs: must be a list, not a value with the tag" in error_of("version: 1\nvpcs: !!set {a, b}")
        assert "the tag 'tag:yaml.org,2002:python/name:os.system'" in error_of(
            "version: 1\nvpcs: [{name: !!python/name:os.system ''}]"
        )

    def test_pure_python_parser_reads_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with_libyaml = parse_policy(SPEC_EXAMPLE)
        pure = type("Pure", (yaml_nodes._Hooks, yaml.SafeLoader), {})
        monkeypatch.setattr(yaml_nodes, "_Loader", pure)
        assert parse_policy(SPEC_EXAMPLE) == with_libyaml
        assert error_of("a: [") == "p.yaml:1: not YAML: expected the node content, but found '<stream end>'" + (
            " (while parsing a flow node)"
        )
        assert "nested more than 50 levels deep" in error_of("[" * 10_000)
        assert "nested more than 50 levels deep" in error_of("- " * 10_000)


class TestBrokenText:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "p.yaml:1: the document is empty"),
            ("# only a comment\n", "p.yaml:1: the document is empty"),
            ("---\n...\n", "p.yaml:2: the document is empty"),
            ("null", "p.yaml:1: the document is empty"),
            ("version: 1\n---\nversion: 1\n", "p.yaml:2: more than one YAML document"),
            (b"version: 1\nname: \xff\n", "p.yaml:2: not UTF-8 text (byte 0xff)"),
            ("version: 1\n".encode("utf-16"), "p.yaml: is UTF-16 text, as PowerShell's > writes it"),
            ("version: 1\n# \ud800", "p.yaml:2: not UTF-8 text (byte 0xed)"),
            ("version: 1\nx: a\0b", "p.yaml:2: not YAML: contains the control character '\\x00'"),
            ("version: 1\nx: a\x1b[2Jb", "p.yaml:2: not YAML: contains the control character '\\x1b'"),
            ("version: 1\nsettings:\n\tprofile: otc\n", "p.yaml:3: not YAML: found character that cannot start"),
            ("version: 1\nvpcs: [a\n", "p.yaml:2: not YAML: did not find expected ',' or ']'"),
            ("version: 1\nvpcs: *x\n", "p.yaml:2: not YAML: found undefined alias"),
            ("- version", "p.yaml:1: the document: must be a mapping, not a list"),
            ("version", "p.yaml:1: the document: must be a mapping, not the text 'version'"),
            ("42", "p.yaml:1: the document: must be a mapping, not the number 42"),
        ],
    )
    def test_names_the_line(self, text: str | bytes, message: str) -> None:
        assert error_of(text).startswith(message)

    @pytest.mark.parametrize("loader", ["libyaml", "python"])
    def test_an_address_that_yaml_reads_as_something_else_is_to_be_quoted(
        self, monkeypatch: pytest.MonkeyPatch, loader: str
    ) -> None:
        if loader == "python":
            monkeypatch.setattr(yaml_nodes, "_Loader", type("_Loader", (yaml_nodes._Hooks, yaml.SafeLoader), {}))
        for written, address in (
            ("{source: ::/0}", "::/0"), ("{é: é, source: ::/0, b: 1}", "::/0"), ("[fe80::/10, ::1]", "::1"),
            ("{a: 2001:db8::, b: 2}", "2001:db8::"), ("{source:\n ::/0}", "::/0"),
            ("{" + "a: b, " * 1000 + "source: ::/0}", "::/0"),
        ):  # fmt: skip
            message = error_of(f"version: 1\nx: {written}")
            assert message.startswith("p.yaml:") and message.endswith(f': quote the address: "{address}"')
        for written in ("{a: b::c: d}", "{a: '::/0' x}", "{a: '::/0', b: c: d}"):
            assert "quote" not in error_of(f"version: 1\nx: {written}").replace("quoted", ""), written

    def test_byte_order_mark_is_no_content(self) -> None:
        assert parse_policy(b"\xef\xbb\xbfversion: 1\n") == parse_policy("\ufeffversion: 1\n") == Policy()

    def test_windows_line_ends(self) -> None:
        assert parse_policy(SPEC_EXAMPLE.replace("\n", "\r\n")) == parse_policy(SPEC_EXAMPLE)
        assert error_of("version: 1\r\nvpcs: []\r\nx: 1\r\n").startswith("p.yaml:3: unknown key 'x'")

    @pytest.mark.parametrize("unit", ["[", "- ", "? ", "{a: ", "[{a: "])
    def test_deep_nesting_does_not_exhaust_the_stack(self, unit: str) -> None:
        assert "p.yaml:1: " in error_of(unit * 500_000)

    def test_too_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """SPEC 11.1."""
        monkeypatch.setattr(yaml_nodes, "MAX_BYTES", 1 << 20)
        with pytest.raises(PolicyError, match=r"^/dev/zero: cannot be read: larger than 1 MiB$"):
            load_policy("/dev/zero")

    def test_recursive_alias(self) -> None:
        assert error_of("version: 1\nvpcs: &v [*v]\n").startswith("p.yaml:2: vpcs[0]: must be a mapping, not a list")
        assert error_of("&d\nversion: 1\nsettings: *d\n").startswith("p.yaml:2: settings: unknown key 'version'")
        # A node that contains itself, used as a key.
        assert error_of("version: 1\nsettings: &s {*s : 1}\n").startswith("p.yaml:2: settings: keys must be")

    def test_billion_laughs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(yaml_nodes, "MAX_NODES", 300_000)
        lines = ["version: 1", "address_groups:", "- {name: g, addresses: &a [" + "10.0.0.1," * 30_000 + "]}"]
        lines += [f"- {{name: g{i}, addresses: *a}}" for i in range(30_000)]
        assert "values with aliases expanded" in error_of("\n".join(lines))

    def test_long_port_list_in_many_rules(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(yaml_nodes, "MAX_NODES", 300_000)
        ports = "1-2" + ",3" * 100_000
        lines = ["version: 1", "quotas: {rules_per_group: 1000000}", "security_groups:", "- name: g", "  rules:"]
        lines += [f"  - {{direction: inbound, protocol: tcp, ports: &p '{ports}'}}"]
        lines += ["  - {direction: inbound, protocol: tcp, ports: *p}"] * 20_000
        assert "values with aliases expanded" in error_of("\n".join(lines))

    def test_aliases_are_allowed(self) -> None:
        policy = parse_policy(
            "version: 1\nsecurity_groups:\n- {name: a, rules: &r [{direction: inbound, protocol: all}]}\n"
            "- {name: b, rules: *r}\n"
        )
        assert [group.rules[0].id for group in policy.security_groups] == ["a/inbound/1", "b/inbound/1"]

    def test_merge_key_is_an_unknown_key(self) -> None:
        text = "version: 1\nvpcs:\n- &a {name: a}\n- {<<: *a, name: b}\n"
        assert error_of(text).startswith("p.yaml:4: vpcs[1]: unknown key '<<'")

    def test_names_cannot_write_to_the_terminal(self) -> None:
        message = error_of('version: 1\n"\\e[31m\\u202e\\n": 1')
        assert "unknown key '\\x1b[31m\\u202e\\n'" in message

    def test_origin_cannot_write_to_the_terminal(self) -> None:
        assert error_of("x: 1", "a\nb\x1b.yaml").startswith("a\\nb\\x1b.yaml:1: ")

    def test_garbage_collector_is_left_as_it_was(self) -> None:
        error_of("x: 1")
        assert gc.isenabled()
        gc.disable()
        try:
            parse_policy("version: 1")
            assert not gc.isenabled()
        finally:
            gc.enable()


class TestFiles:
    def test_file(self, tmp_path: Path) -> None:
        path = tmp_path / "policy.yaml"
        path.write_text(SPEC_EXAMPLE, encoding="utf-8")
        policy = load_policy(path)
        assert policy.origin == str(path)
        assert policy.instances[0].name == "web-1"

    def test_standard_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"version: 1\nvpcs: [{name: a}]")))
        policy = load_policy("-")
        assert (policy.origin, policy.vpcs) == ("-", (Vpc("a"),))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"version: 2")))
        with pytest.raises(PolicyError, match=r"^<stdin>:1: version: must be 1, not the number 2$"):
            load_policy("-")

    def test_no_standard_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", None)
        with pytest.raises(PolicyError, match="cannot be read"):
            load_policy("-")

    def test_missing_and_directory(self, tmp_path: Path) -> None:
        with pytest.raises(PolicyError, match=r"no\.yaml: cannot be read: No such file or directory$"):
            load_policy(tmp_path / "no.yaml")
        with pytest.raises(PolicyError, match=r": is a directory without files that end in \.json"):
            load_policy(tmp_path)
        with pytest.raises(PolicyError, match=r"^a\\x00b: cannot be read"):
            load_policy("a\0b")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_unreadable(self, tmp_path: Path) -> None:
        path = tmp_path / "policy.yaml"
        path.write_text("version: 1")
        path.chmod(0)
        with pytest.raises(PolicyError, match="cannot be read: Permission denied"):
            load_policy(path)


class TestKeysAndTypes:
    """SPEC 2.7, 2.10."""

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("vpcs: []", "p.yaml:1: version: is missing: write version: 1"),
            ("version: 2", "p.yaml:1: version: must be 1, not the number 2"),
            ("version: '1'", "p.yaml:1: version: must be 1, not the text '1'"),
            ("version: 1.0", "p.yaml:1: version: must be 1, not the number 1.0"),
            ("version: true", "p.yaml:1: version: must be 1, not true"),
            ("version:", "p.yaml:1: version: must be 1, not nothing (null)"),
            ("version: 1\nsecurity_group: []", "p.yaml:2: unknown key 'security_group' (did you mean 'security_"),
            ("version: 1\nzzz: []", "p.yaml:2: unknown key 'zzz': allowed here are version, quotas, settings"),
            ("version: 1\nvpcs: []\nvpcs: []", "p.yaml:3: vpcs: duplicate key, first used at line 2"),
            ("version: 1\nvpcs: {name: a}", "p.yaml:2: vpcs: must be a list, not a mapping"),
            ("version: 1\nvpcs: a", "p.yaml:2: vpcs: must be a list, not the text 'a'"),
            ("version: 1\nvpcs: [a]", "p.yaml:2: vpcs[0]: must be a mapping, not the text 'a'"),
            ("version: 1\nvpcs: [{}]", "p.yaml:2: vpcs[0].name: is missing"),
            ("version: 1\nvpcs:\n-\n  name: a\n  nmae: b", "p.yaml:5: vpcs[0]: unknown key 'nmae' (did you mean 'na"),
            ("version: 1\nvpcs: [{name: 1}]", "p.yaml:2: vpcs[0].name: must be a name of 1 to 64 letters, digits and"),
            ("version: 1\nvpcs: [{name: true}]", "not true: quote it"),
            ("version: 1\nvpcs: [{name: }]", "vpcs[0].name: must be a name"),
            ("version: 1\nvpcs: [{name: a b}]", "vpcs[0].name: must be a name of 1 to 64"),
            ("version: 1\nvpcs: [{name: ü}]", "vpcs[0].name: must be a name of 1 to 64"),
            ("version: 1\nvpcs: [{name: " + "a" * 65 + "}]", "vpcs[0].name: must be a name of 1 to 64"),
            ("version: 1\n? [a]\n: b", "p.yaml:2: keys must be plain words"),
            ("version: 1\nvpcs:\n- {name: a}\n- {name: a}", "p.yaml:4: vpcs[1].name: duplicate name 'a', first"),
        ],
    )
    def test_message(self, text: str, message: str) -> None:
        found = error_of(text)
        assert message in found
        assert found.startswith(message) or not message.startswith("p.yaml")

    def test_quoted_key_is_the_same_key(self) -> None:
        assert "duplicate key" in error_of('version: 1\n"version": 1')


class TestNothingButPolicyErrors:
    @settings(max_examples=some(100, 500), deadline=None)
    @given(st.binary(max_size=200))
    def test_random_bytes(self, data: bytes) -> None:
        only_policy_errors(data)

    @settings(max_examples=some(150, 300), deadline=None)
    @given(st.text(max_size=200))
    def test_random_text(self, text: str) -> None:
        only_policy_errors(text)

    @settings(max_examples=some(100, 1000), deadline=None)
    @given(_YAMLISH)
    def test_yamlish_text(self, text: str) -> None:
        only_policy_errors(text)
        only_policy_errors("version: 1\n" + text)

    @settings(max_examples=some(100, 1000), deadline=None)
    @given(st.data())
    def test_example_with_a_piece_replaced(self, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, len(SPEC_EXAMPLE)))
        end = data.draw(st.integers(start, min(len(SPEC_EXAMPLE), start + 30)))
        only_policy_errors(SPEC_EXAMPLE[:start] + data.draw(_YAMLISH) + SPEC_EXAMPLE[end:])

    @settings(max_examples=some(100, 500), deadline=None)
    @given(
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), _WORDS),
            lambda inner: st.one_of(
                st.lists(inner, max_size=4), st.dictionaries(st.one_of(_WORDS, st.text(max_size=5)), inner, max_size=5)
            ),
            max_leaves=20,
        )
    )
    def test_any_value_anywhere(self, value: object) -> None:
        for section in ("settings", "quotas", "vpcs", "peerings", "address_groups", "security_groups", "instances"):
            only_policy_errors(yaml.safe_dump({"version": 1, section: value}, allow_unicode=True))
        for field in RULE.by_key:
            rule = {"direction": "inbound", "protocol": "tcp", field: value}
            only_policy_errors(yaml.safe_dump({"version": 1, "security_groups": [{"name": "g", "rules": [rule]}]}))
        for field in ("name", "vpc", "addresses", "security_groups"):
            instance = {"name": "a", "addresses": ["10.0.0.1"], field: value}
            only_policy_errors(yaml.safe_dump({"version": 1, "instances": [instance]}))
