"""Read an AWS account with boto3, region by region, as the documents that ``aws ec2 describe-…`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from sgfast.base.errors import ArgumentError, ArgumentTypeError, LiveError, pip_install
from sgfast.clouds.importing.reading import import_sources
from sgfast.clouds.importing.sources import Account, Progress, Source
from sgfast.policy.export_files import Unresolved
from sgfast.policy.model import Policy
from sgfast.policy.yaml_nodes import show

#: The call that fills each section of an export. A list is read before the objects to which it refers, so that an
#: object that is made meanwhile is not missing.
_CALLS = {
    "NetworkInterfaces": "describe_network_interfaces",
    "Reservations": "describe_instances",
    "SecurityGroups": "describe_security_groups",
    "SecurityGroupRules": "describe_security_group_rules",
    "VpcPeeringConnections": "describe_vpc_peering_connections",
    "Subnets": "describe_subnets",
    "Vpcs": "describe_vpcs",
}
#: The number of objects to request in one answer, which is EC2's limit. The limit for prefix lists is lower.
_PAGE, _PAGE_OF_PREFIX_LISTS = 1000, 100
#: The number of attempts for a call that is throttled or not answered. The pauses between attempts grow to several
#: seconds.
_ATTEMPTS = 6
_CONNECT_SECONDS, _ANSWER_SECONDS = 10, 60

_EXPIRED = "the credentials have expired; log in again"
_DENIED = "the credentials lack the permission {permission}; ask your administrator for it"
_REFUSED = "AWS does not accept the credentials; check them, and whether the account may use this region"
_THROTTLED = f"AWS still throttles the account after {_ATTEMPTS} attempts; try again later"
#: Advice for EC2's error codes. EC2's own messages are not shown, because some of them quote the signed request.
_ADVICE = {
    "RequestExpired": _EXPIRED,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "UnauthorizedOperation": _DENIED,
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "AuthFailure": _REFUSED,
    "InvalidClientTokenId": _REFUSED,
    "OptInRequired": _REFUSED,
    "SignatureDoesNotMatch": _REFUSED,
    "UnrecognizedClientException": _REFUSED,
    "RequestLimitExceeded": _THROTTLED,
    "Throttling": _THROTTLED,
    "ThrottlingException": _THROTTLED,
}


def read_account(profile: str | None, regions: Sequence[str], progress: Progress) -> Account:
    """Read all regions. Without a profile or regions, the configured ones are used.

    Raises LiveError if the credentials, a region or a single listing cannot be read.
    """
    try:
        import boto3
    except ModuleNotFoundError:
        message = f"--live needs boto3 to reach AWS; {pip_install('aws')}, or import files"
        raise LiveError(message) from None
    with _errors_of("AWS", ""):
        session = boto3.Session(profile_name=profile)
        chosen = list(dict.fromkeys(regions)) or [session.region_name or ""]
        if not chosen[0]:
            raise LiveError("no region is configured; name the regions to read, like --region eu-central-1")
    sources: list[Source] = []
    for region in chosen:
        sources += _Region(_client(session, region), region, progress).sources()
    return Account(f"AWS ({', '.join(chosen)})", sources)


def policy_from_boto3(ec2: Any, *, region: str | None = None, unresolved: Unresolved = "error") -> Policy:
    """Read the policy of a region like ``sgfast import aws --live`` does (SPEC 10.17, 15.4).

    ``ec2``: a client or a resource of EC2, or a session of boto3. ``region``: the region to read with a session;
    without it, the session's configured region. ``unresolved``: as in ``load``. Raises LiveError if anything
    cannot be read, PolicyError if a policy cannot express it.

    For example:

        from moto import mock_aws      # a simulated account; without it, the account is the real one

        with mock_aws():
            policy = sgfast.policy_from_boto3(boto3.client("ec2", region_name="eu-central-1"))
        assert policy.settings.profile == "aws"
    """
    if hasattr(ec2, "get_available_services"):  # Only a session has this method.
        name = region or ec2.region_name or ""
        if not name:
            raise LiveError("no region is configured; name the one to read, like region='eu-central-1'")
        client = _client(ec2, name)
    else:
        client = getattr(getattr(ec2, "meta", None), "client", ec2)  # A resource contains a client.
        model = getattr(getattr(client, "meta", None), "service_model", None)
        if getattr(model, "service_name", "") != "ec2":
            raise ArgumentTypeError("policy_from_boto3 needs a session of boto3, or its client or resource of EC2")
        name = client.meta.region_name
        if region not in (None, name):
            raise ArgumentError(f"the client is of the region {name!r}, not {region!r}: leave region out")
    account_name = f"AWS ({name})"
    sources = [*_Region(client, name, lambda listing, objects: None).sources()]
    return import_sources(sources, "aws", account_name, unresolved, takes_files=False).policy()


def _client(session: Any, region: str) -> Any:
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_ANSWER_SECONDS,
    )
    with _errors_of(f"AWS ({region})", region):
        return session.client("ec2", region_name=region, config=config)


class _Region:
    def __init__(self, client: Any, region: str, progress: Progress) -> None:
        self._client = client
        self._region = region
        self._progress = progress

    def sources(self) -> Iterator[Source]:
        """Yield one document for each call, with the objects of all pages."""
        referred_to: set[str] = set()
        for section, operation in _CALLS.items():
            items = self._all_pages(section, operation, _PAGE)
            if section == "SecurityGroups":
                items = [_without_rules(item) for item in items]
            elif section == "SecurityGroupRules":
                referred_to = {item["PrefixListId"] for item in items if item.get("PrefixListId")}
            elif section == "Reservations":
                items = [_names_of(item) for item in items]
            yield Source(self._name(operation), {section: items})
        if referred_to:
            operation = "describe_managed_prefix_lists"
            lists = self._all_pages("PrefixLists", operation, _PAGE_OF_PREFIX_LISTS)
            yield Source(self._name(operation), {"PrefixLists": [*self._with_entries(lists, referred_to)]})

    def _with_entries(self, lists: Iterable[dict[str, Any]], used_lists: set[str]) -> Iterator[dict[str, Any]]:
        for prefix_list in lists:
            if (list_id := prefix_list["PrefixListId"]) in used_lists:
                operation = "get_managed_prefix_list_entries"
                entries = self._all_pages("Entries", operation, _PAGE_OF_PREFIX_LISTS, PrefixListId=list_id)
                yield prefix_list | {"Entries": entries}

    def _all_pages(self, section: str, operation: str, page_size: int, **arguments: str) -> list[dict[str, Any]]:
        """Return the objects of all pages of a call's answer."""
        items: list[dict[str, Any]] = []
        name = self._name(operation)
        with _errors_of(name, self._region):
            pages = self._client.get_paginator(operation).paginate(
                **arguments, PaginationConfig={"PageSize": page_size}
            )
            for page in pages:
                if section not in page:
                    raise LiveError(f"{name}: the answer has no list; check what answers in place of AWS")
                items += page[section]
                self._progress(name, len(items))
        return items

    def _name(self, operation: str) -> str:
        """Return the name of a listing for messages: ``describe-security-groups (eu-central-1)``."""
        return f"{operation.replace('_', '-')} ({self._region})"


def _without_rules(group: dict[str, Any]) -> dict[str, Any]:
    """Remove a group's rules. The list of rules has them with their ids, and rules may change between the two calls."""
    return {key: value for key, value in group.items() if key not in ("IpPermissions", "IpPermissionsEgress")}


def _names_of(reservation: dict[str, Any]) -> dict[str, Any]:
    """Reduce a reservation to the ids and tags of its instances. The list of interfaces has all other facts, and may be
    read at another moment.
    """
    return {
        "Instances": [
            {key: instance[key] for key in ("InstanceId", "Tags") if key in instance}
            for instance in reservation.get("Instances", ())
        ]
    }


@contextmanager
def _errors_of(name: str, region: str) -> Iterator[None]:
    """Convert botocore's errors into a LiveError of one line without credentials. ``name``: the name of the listing."""
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    try:
        yield
    except exceptions.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "an unknown error")
        operation = error.operation_name
        permission = f"{'sts' if operation.startswith('AssumeRole') else 'ec2'}:{operation}"
        advice = _ADVICE.get(code, "AWS answers {code}; look it up in the documentation of EC2").format(
            code=show(code)[1:-1], permission=permission
        )
        raise LiveError(f"{name}: {advice}") from None
    except exceptions.ProfileNotFound as error:
        message = "is in no AWS configuration file; aws configure list-profiles prints the names"
        raise LiveError(f"the profile {show(error.kwargs['profile'])} {message}") from None
    except exceptions.InvalidRegionError:
        raise LiveError(f"{show(region)} is no name of a region; write it like eu-central-1") from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        message = "there are no complete credentials; log in, or choose another profile"
        raise LiveError(f"{name}: {message}") from None
    except (exceptions.SSOError, exceptions.TokenRetrievalError, exceptions.LoginError):
        message = "the login has expired or is missing; log in with aws sso login or aws login"
        raise LiveError(f"{name}: {message}") from None
    except exceptions.CredentialRetrievalError as error:
        provider = error.kwargs.get("provider", "their source")
        raise LiveError(f"{name}: {show(provider)} hands out no credentials; check it, or log in") from None
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
        url = error.kwargs.get("endpoint_url") or error.kwargs.get("proxy_url") or ""
        host = urlsplit(url).hostname or "AWS"
        raise LiveError(f"{name}: {host} cannot be reached; check the network and the name of the region") from None
    except ResponseParserError:
        raise LiveError(f"{name}: the answer is not one of AWS; check the network and its proxy") from None
    except (exceptions.BotoCoreError, ValueError) as error:
        message = f"boto3 reports {type(error).__name__}; check the AWS configuration files and AWS_... variables"
        raise LiveError(f"{name}: {message}") from None
