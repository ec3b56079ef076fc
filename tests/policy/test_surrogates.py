"""Characters beyond 16 bits, which JSON writes as two escapes: a surrogate pair (SPEC 2.10)."""

from __future__ import annotations

import json

import pytest
import yaml
from effort import some
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_texts import error_of

import sgfast
from sgfast.base.errors import Place, PolicyError
from sgfast.clouds.importing.sources import source_of
from sgfast.clouds.loading import parse_policy
from sgfast.policy import yaml_nodes
from sgfast.policy.change_file import parse_changes
from sgfast.policy.changes import ModifyRule
from sgfast.policy.expectations import parse_expectations

SMILE = "\U0001f600"
LONE = r"one half of a surrogate pair"


@pytest.fixture(params=["libyaml", "python"])
def _parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(yaml_nodes, "_Loader", type("_Loader", (yaml_nodes._Hooks, yaml.SafeLoader), {}))


def described(text: str) -> str:
    """The description of the only group of a document, which is written as ``text``."""
    return parse_policy(f"version: 1\nsecurity_groups:\n  - name: g\n    description: {text}\n").security_groups[
        0
    ].description


@pytest.mark.usefixtures("_parser")
def test_what_json_dumps_writes_is_read() -> None:
    rule = {"direction": "inbound", "protocol": "tcp", "id": "r", "description": SMILE}
    document = {"version": 1, "security_groups": [{"name": "g", "label": f"{SMILE}é\\{SMILE}", "rules": [rule]}]}
    policy = sgfast.load(text=json.dumps(document))
    assert policy == sgfast.load(text=json.dumps(document, ensure_ascii=False)) == sgfast.load(document)
    assert policy.security_groups[0].label == f"{SMILE}é\\{SMILE}"

    changes = {"changes": [{"at": 0, "modify_rule": {"group": "g", "rule": "r", "set": {"description": f"{SMILE}!"}}}]}
    (timed,) = parse_changes(json.dumps(changes)).resolve(policy, 0)
    assert isinstance(timed.change, ModifyRule) and timed.change.new.description == f"{SMILE}!"

    expect = {"from": "any", "to": "any", "service": "all", "verdict": "deny", "why": SMILE}
    assert parse_expectations(json.dumps({"expect": [expect]})).expectations[0].why == SMILE

    export = {SMILE: [SMILE, {"\\ud83d": r"\ud83d\ude00"}]}
    for text in (json.dumps(export), "# not JSON\n" + json.dumps(export)):
        assert source_of(text.encode(), "export").value == export


@pytest.mark.usefixtures("_parser")
@pytest.mark.parametrize(("text", "meant"), [
    (r'"a\ud83d\ude00b"', f"a{SMILE}b"),
    (r'"\UD83D\uDE00"', None),
    (r'"\uD83D\uDE00 \ue83d\uee00 \U0001f600"', f"{SMILE} \ue83d\uee00 {SMILE}"),
    (r'!!str "\ud83d\ude00"', SMILE),
    (r'&a "\ud83d\ude00"', SMILE),
    ('"\\ud83d\\ude00 \\\n      \\ud83d\\ude00\n      x"', f"{SMILE} {SMILE} x"),
    # An escaped backslash, and texts in which a backslash is a character like any other.
    (r'"\\ud83d\\ude00"', r"\ud83d\ude00"),
    (r"'\ud83d\ude00 \uE83D ''\uee00'", r"\ud83d\ude00 \uE83D '\uee00"),
    (r"\uD83d\ude00 \ue83d\ud83d", r"\uD83d\ude00 \ue83d\ud83d"),
    ("|-\n      \\ud83d\\ude00\n      \\ue83d", "\\ud83d\\ude00\n\\ue83d"),
    ('"a" # \\ud83d\\ude00', "a"),
])  # fmt: skip
def test_only_an_escape_between_double_quotes_is_a_character(text: str, meant: str | None) -> None:
    if meant is None:
        with pytest.raises(PolicyError, match="not YAML"):
            described(text)
    else:
        assert described(text) == meant


@pytest.mark.usefixtures("_parser")
@pytest.mark.parametrize("text", [r"\ud83d", r"\ude00\ud83d", r"\ud83d\ud83d\ude00", r"\\\ud83d", r"\ud83d\n\ude00",
                                  r"\\ud83d\ude00", r"\ud83d \ude00"])  # fmt: skip
def test_half_a_character_is_an_error_that_says_so(text: str) -> None:
    with pytest.raises(PolicyError, match=f"^<policy>:4: not YAML: .*{LONE}") as caught:
        described(f'"x{text}"')
    assert caught.value.place == Place("<policy>", 4, 18, 21 + len(text))
    # In a key, too, and in what is no policy.
    for broken in (f'{{"version": 1, "{text}": 1}}', f'[[1, "{text}"]]'):
        assert LONE in error_of(broken)
        with pytest.raises(PolicyError, match=LONE):
            parse_expectations(broken)


@pytest.mark.usefixtures("_parser")
def test_what_stands_behind_a_pair_keeps_its_line_and_column() -> None:
    pair = r'"\ud83d\ude00"'
    line = f'- {{name: g, label: {pair}, description: {pair}, foo: 1}}'
    with pytest.raises(PolicyError) as caught:
        parse_policy(f'# {pair}\nversion: 1\nsecurity_groups:\n{line}')
    column = line.index("foo") + 1
    assert caught.value.place == Place("<policy>", 4, column, column + 3)
    with pytest.raises(PolicyError, match="not YAML") as caught:
        parse_policy(f"version: 1\nx: {{a: {pair}, b: ]}}")
    assert caught.value.place == Place("<policy>", 2, 27, 28)


@settings(max_examples=some(100, 3000), deadline=None)
@given(st.recursive(
    st.text(st.sampled_from(f"{SMILE}\U0010fffd\ue800\uefff\\\"'ud83e0 \n/é"), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(f"{SMILE}a\\", max_size=3), inner, max_size=3),
))  # fmt: skip
def test_any_json_means_what_json_says(value: object) -> None:
    whole = {"v": value}
    text = "# not JSON\n" + json.dumps(whole)
    assert source_of(text.encode(), "x").value == whole
