"""What is exported to AWS and run there comes back as the same policy (SPEC 13.2 to 13.5)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ec2
import pytest
from effort import some
from exported import BLOCKS, GROUPS, assert_same, exportable, random_policy, run, seeds
from provider_commands import provider_command

from sgfast.errors import ExportError
from sgfast.exporting import aws
from sgfast.live.aws import read_account
from sgfast.policy.document import parse_policy
from sgfast.policy.formats import import_sources
from sgfast.policy.model import Policy

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto.server")

REGION = "eu-central-1"


@pytest.fixture(scope="module")
def account() -> Iterator[dict[str, str]]:
    """The environment in which an empty account is found."""
    with pytest.MonkeyPatch.context() as patch, ec2.ec2() as (url, _):
        for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
            patch.delenv(name, raising=False)
        set_here = {
            "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL_EC2": url, "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        for name, value in set_here.items():
            patch.setenv(name, value)
        yield {**os.environ}


@pytest.fixture
def client(account: dict[str, str]) -> Any:
    ec2.backend(REGION).reset()
    return boto3.client("ec2", region_name=REGION)


def place(client: Any, policy: Policy) -> dict[str, str]:
    """Make the policy's VPC and interfaces; what the export needs to be told."""
    vpc = client.create_vpc(CidrBlock="10.1.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]["VpcId"]
    subnet = client.create_subnet(VpcId=vpc, CidrBlock=BLOCKS[4], Ipv6CidrBlock=BLOCKS[6])["Subnet"]["SubnetId"]
    for instance in policy.instances:
        four, *six = (str(address.network_address) for address in instance.addresses)
        client.create_network_interface(
            SubnetId=subnet, PrivateIpAddress=four, Ipv6Addresses=[{"Ipv6Address": each} for each in six]
        )
    return {"vpc_v": vpc}


def call(client: Any, request: dict[str, Any]) -> Any:
    operation = re.sub(r"(?<!^)([A-Z])", r"_\1", request["action"]).lower()
    return getattr(client, operation)(**request["parameters"])


def live() -> Policy:
    return import_sources(read_account(None, [REGION], lambda *_: None).sources, "aws").policy()


def test_random_policies_come_back_from_the_calls(client: Any) -> None:
    for _, pick in seeds(some(6, 200), 2101):
        ec2.backend(REGION).reset()
        first, second = (exportable(random_policy(pick), aws.TARGET) for _ in range(2))
        second = replace(second, instances=first.instances)
        second = exportable(second, aws.TARGET)
        needed = place(client, first)
        document = aws.export(None, first).document("0")
        run(document, needed if document["needs"] else {}, lambda request: call(client, request))
        back = live()
        assert_same(first, back, aws.TARGET)
        assert {group.description for group in back.security_groups} >= {f"of {name}" for name in GROUPS}
