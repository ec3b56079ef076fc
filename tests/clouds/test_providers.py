"""Every module that a provider names exists, and is imported only when it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

import sgfast
from sgfast.cli.export import Export
from sgfast.clouds.logs.detection import format_of
from sgfast.clouds.logs.log_format import LogFormat
from sgfast.clouds.provider import LiveReader
from sgfast.clouds.providers import EXPORTS, FORMATS, LIVE, PROVIDERS, TargetName
from sgfast.clouds.terraform.provider import Provider

CLOUDS = Path(sgfast.__file__).parent / "clouds"


@pytest.mark.parametrize("module", [each.module for each in FORMATS.values()])
def test_each_format_of_exports_has_a_reader(module: str) -> None:
    assert callable(import_module(f"sgfast.clouds.{module}").read)


@pytest.mark.parametrize("reader", LIVE.values())
def test_each_live_account_has_a_reader(reader: LiveReader) -> None:
    assert callable(reader.load())


@pytest.mark.parametrize("module", EXPORTS.values())
def test_each_target_has_an_export(module: str) -> None:
    assert callable(import_module(f"sgfast.clouds.{module}").export)


def test_each_export_of_a_provider_is_a_target() -> None:
    assert {*EXPORTS, "nftables"} == {*get_args(TargetName)}


@pytest.mark.parametrize(
    ("target", "provider", "unites"),
    [("aws", None, True), ("terraform", "aws", True), ("terraform", "openstack", False), ("terraform", None, False),
     ("otc", None, False), ("nftables", None, False)],
)  # fmt: skip
def test_rules_are_for_both_ip_versions_where_the_target_has_no_others(
    target: TargetName, provider: Provider | None, unites: bool
) -> None:
    assert Export(target, "script", provider, (), ()).unites_versions is unites


@pytest.mark.parametrize("known", [each for provider in PROVIDERS for each in provider.log_formats if each.reader])
def test_each_format_of_logs_has_a_reader(known: LogFormat) -> None:
    assert callable(known.load_reader())


@pytest.mark.parametrize("path", sorted(CLOUDS.glob("*/profile.py")), ids=lambda path: path.parent.name)
def test_a_profile_is_data_because_policies_are_below_clouds(path: Path) -> None:
    nodes = [type(node) for node in ast.walk(ast.parse(path.read_text()))]
    assert ast.Import not in nodes and ast.ImportFrom not in nodes


def test_to_know_all_providers_imports_none_of_their_modules() -> None:
    program = "import sys, sgfast.clouds.providers; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    readers = [each.module for each in FORMATS.values()]
    live = [each.module for each in LIVE.values()]
    named = {f"sgfast.clouds.{each}" for each in (*EXPORTS.values(), *live, *readers)}
    assert not named.intersection(modules) and "numpy" not in modules


def test_an_object_of_another_format_may_have_a_message() -> None:
    head = b'{"verdict": "FORWARDED", "l4": {"TCP": {}}, "message": "to-endpoint"}'
    assert format_of(head).name == "a flow log of Hubble (Cilium)"
