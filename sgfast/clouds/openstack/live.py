"""Read a project of OpenStack or Open Telekom Cloud with openstacksdk, as the documents of the cloud's API."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sgfast.base.errors import LiveError, pip_install
from sgfast.clouds.importing.sources import Account, Progress, Source
from sgfast.policy.yaml_nodes import show

#: The number of objects to request in one answer. The cloud may return fewer.
_PAGE = 500
#: The number of times that a call is repeated after an answer "too many requests" or "unavailable". The answer's header
#: Retry-After sets the pause before the next attempt; without it, pauses grow from half a second.
_RETRIES = 5
_BUSY = (429, 503)
_ANSWER_SECONDS = 60


class _Listing(NamedTuple):
    section: str
    path: str
    #: The permission that the cloud may require.
    permission: str
    #: Whether a cloud may not know this kind of object, and answer with HTTP status 404.
    is_optional: bool = False


#: A list is read before the objects to which it refers, so that an object that is made meanwhile is not missing.
_NEUTRON = (
    _Listing("ports", "/ports", "get_port"),
    _Listing("security_groups", "/security-groups", "get_security_group"),
    _Listing("address_groups", "/address-groups", "get_address_group", True),
    _Listing("subnets", "/subnets", "get_subnet"),
    _Listing("networks", "/networks", "get_network"),
    _Listing("routers", "/routers", "get_router", True),
)
#: Rules and groups are read with version 3 of the API, because version 1 lacks a rule's action and priority. Ports,
#: VPCs and subnets are read with version 1, because version 3 does not list all of them.
_OTC = (
    _Listing("ports", "/v1/{project}/ports", "vpc:ports:list"),
    _Listing(
        "sub_network_interfaces", "/v3/{project}/vpc/sub-network-interfaces", "vpc:subNetworkInterfaces:list", True
    ),
    _Listing("security_group_rules", "/v3/{project}/vpc/security-group-rules", "vpc:securityGroupRules:list"),
    _Listing("security_groups", "/v3/{project}/vpc/security-groups", "vpc:securityGroups:list"),
    _Listing("address_groups", "/v3/{project}/vpc/address-groups", "vpc:addressGroups:list", True),
    _Listing("peerings", "/v2.0/vpc/peerings", "vpc:peerings:list"),
    _Listing("subnets", "/v1/{project}/subnets", "vpc:subnets:list"),
    _Listing("vpcs", "/v1/{project}/vpcs", "vpc:vpcs:list"),
)
_SERVERS = _Listing("servers", "/servers", "os_compute_api:servers:index")


def read_neutron(cloud: str | None, progress: Progress) -> Account:
    """Read the project of the entry ``cloud`` in clouds.yaml. If ``cloud`` is None, openstacksdk chooses the entry.

    Raises LiveError if anything cannot be read.
    """
    return _read(cloud, progress, _Project.neutron)


def read_otc(cloud: str | None, progress: Progress) -> Account:
    """Read a project of Open Telekom Cloud as ``read_neutron`` reads one of OpenStack."""
    return _read(cloud, progress, _Project.otc)


def _read(cloud: str | None, progress: Progress, sources: Callable[[_Project], Iterator[Source]]) -> Account:
    cloud_name = "the cloud of the variables OS_..." if cloud is None else f"the cloud {show(cloud)}"
    try:
        import openstack
    except ModuleNotFoundError:
        message = f"--live needs openstacksdk to reach it; {pip_install('openstack')}, or import files"
        raise LiveError(f"{cloud_name}: {message}") from None
    for library in ("keystoneauth", "openstack", "stevedore"):
        # Python prints warnings of a library without a handler on standard error.
        logging.getLogger(library).addHandler(logging.NullHandler())
    with _errors_of(cloud_name):
        connection = openstack.connect(cloud=cloud, api_timeout=_ANSWER_SECONDS)
        cloud_name = f"the cloud {show(connection.config.name)}"
    project = _Project(connection, cloud_name, progress)
    return Account(cloud_name, [*sources(project), *project.servers()])


class _Project:
    def __init__(self, connection: Any, cloud_name: str, progress: Progress) -> None:
        self._connection = connection
        self._cloud_name = cloud_name
        self._progress = progress

    def neutron(self) -> Iterator[Source]:
        for listing in _NEUTRON:
            yield from self._source("network", listing, listing.path)

    def otc(self) -> Iterator[Source]:
        """Read the VPC service. Its API is a superset of the network service's, and has the same address."""
        with _errors_of(self._cloud_name):
            root = str(self._connection.network.get_endpoint() or "").rstrip("/").removesuffix("/v2.0")
            project = self._connection.session.get_project_id()
        if not root or not project:
            message = "there is no network service for a project; name the project in clouds.yaml"
            raise LiveError(f"{self._cloud_name}: {message}")
        for listing in _OTC:
            yield from self._source("network", listing, root + listing.path.format(project=project))

    def servers(self) -> Iterator[Source]:
        """Read the names of servers, if the cloud has a compute service. Ports have all other facts about servers."""
        with _errors_of(self._cloud_name):
            has_servers = self._connection.has_service("compute")
        if has_servers:
            yield from self._source("compute", _SERVERS, _SERVERS.path)

    def _source(self, service: str, listing: _Listing, url: str) -> Iterator[Source]:
        """Yield all pages of a listing as one document, or nothing if the cloud does not know this kind of object."""
        name = f"{listing.section.replace('_', ' ')} of {self._cloud_name}"
        items: dict[str, Any] = {}
        marker: dict[str, str] = {}
        while True:
            with _errors_of(name):
                response = getattr(self._connection, service).get(
                    url,
                    params={"limit": _PAGE} | marker,
                    status_code_retries=_RETRIES,
                    retriable_status_codes=_BUSY,
                )
            if response.status_code == 404 and listing.is_optional and not items:
                return
            page = _items_in(response, listing, name)
            new = {item["id"]: item for item in page if item["id"] not in items}
            if not new:
                # Not every cloud marks the last page, so the page after the last is requested, too. This page is empty,
                # or the whole list again if the cloud does not support pages.
                if len(page) == _PAGE:
                    message = f"the cloud answers with the same {_PAGE} objects again, so the others cannot be read"
                    raise LiveError(f"{name}: {message}; export the list with another tool, and import it")
                break
            items |= new
            marker = {"marker": page[-1]["id"]}
            self._progress(name, len(items))
        yield Source(name, {listing.section: [*items.values()]})


def _items_in(response: Any, listing: _Listing, name: str) -> list[dict[str, Any]]:
    status = response.status_code
    if status != 200:
        advice = {
            401: "the cloud does not accept the credentials, or they have expired; log in again",
            403: f"the credentials lack the permission {listing.permission}; ask your administrator for it",
        }.get(status, f"the cloud answers with HTTP status {status}; check the address of the service")
        if status in _BUSY:
            advice = f"the cloud is still busy after {_RETRIES + 1} attempts (HTTP status {status}); try again later"
        raise LiveError(f"{name}: {advice}")
    try:
        items = response.json()[listing.section]
        if all(isinstance(item["id"], str) for item in items):
            return list(items)
    except (ValueError, KeyError, TypeError):
        pass
    raise LiveError(f"{name}: the answer has no list {listing.section}; check the address of the service")


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Convert openstacksdk's errors into a LiveError of one line without credentials. ``name``: the listing's name."""
    from keystoneauth1 import exceptions as keystone
    from openstack import exceptions

    try:
        with warnings.catch_warnings():
            # Warnings would be printed on standard error. They concern the library itself or settings in clouds.yaml.
            warnings.simplefilter("ignore")
            yield
    except keystone.Unauthorized:
        message = "the cloud does not accept the credentials, or they have expired; log in again"
    except (keystone.MissingRequiredOptions, keystone.MissingAuthPlugin, keystone.MissingAuthMethods) as error:
        missing = ", ".join(option.dest for option in getattr(error, "options", ())) or "part of them"
        message = f"the credentials are not complete: {missing} is missing; add it to clouds.yaml or its secure.yaml"
    except (keystone.CatalogException, exceptions.EndpointNotFound, exceptions.ServiceDisabledException):
        message = "the cloud has no such service in its catalog; check region_name and interface in clouds.yaml"
    except exceptions.ConfigException:
        message = (
            "openstacksdk finds no description of it that it can read; it looks for clouds.yaml in this folder, in "
            "~/.config/openstack and in /etc/openstack, and for the variables OS_..."
        )
    except ValueError as error:  # The address in clouds.yaml or OS_AUTH_URL is malformed.
        message = f"openstacksdk reports {type(error).__name__}; check auth_url and the names in clouds.yaml"
    except (keystone.ClientException, exceptions.SDKException) as error:
        # If nothing answers, the error may be about a missing version of the API, with a connection error as its cause.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, keystone.ConnectionError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            message = f"openstacksdk reports {type(error).__name__}; check auth_url and the names in clouds.yaml"
        else:
            host = next((_host_of(word) for word in str(cause).split() if "://" in word), "")
            message = f"{host or 'its API'} cannot be reached; check the network, and auth_url in clouds.yaml"
    else:
        return
    raise LiveError(f"{name}: {message}")
