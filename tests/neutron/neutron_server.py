"""Serves Neutron's API on a port of this machine. It runs in the interpreter that has Neutron.

    python tests/neutron/neutron_server.py FOLDER [PROJECT]

The database is SQLite, nobody is asked who they are, and there are no agents. With PROJECT, everything is asked for and
made by an administrator of that project. What
clouds migrate step by step is created from Neutron's models at once, because its migrations do not run on SQLite. Once
requests are answered, the first line on standard output is the port. The server ends when its standard input does.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

NEUTRON = """
[DEFAULT]
core_plugin = ml2
service_plugins = router
auth_strategy = noauth
transport_url = fake://
api_paste_config = {prefix}/etc/neutron/api-paste.ini
state_path = {folder}
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
dhcp_agent_notification = false
rpc_workers = 0
rpc_state_report_workers = 0
pagination_max_limit = {most_in_a_page}
[quotas]
quota_driver = neutron.db.quota.driver_null.DbQuotaDriverNull
[database]
connection = sqlite:///{folder}/neutron.sqlite
sqlite_synchronous = false
[oslo_concurrency]
lock_path = {folder}
[oslo_messaging_notifications]
driver = noop
[ml2]
type_drivers = local
tenant_network_types = local
mechanism_drivers = openvswitch
extension_drivers = port_security
[securitygroup]
enable_security_group = true
firewall_driver = openvswitch
"""
#: Less than the tests of the API create of each kind, so that everything is read in several pages. Tests of what is
#: written have a PROJECT, and all in one page.
MOST_IN_A_PAGE, MOST_WITH_PROJECT = 3, 1000
STARTS_WITHIN_SECONDS = 120


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Handler(WSGIRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Neutron logs requests itself."""


def of_project(application: Callable[..., Any], project: str) -> Callable[..., Any]:
    from neutron_lib.context import Context

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        environ["neutron.context"] = Context(project_id=project, is_admin=True, roles=["admin"])
        return application(environ, start_response)

    return answer


def end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


def main(folder: Path, project: str | None = None) -> None:
    signal.alarm(STARTS_WITHIN_SECONDS)
    threading.Thread(target=end_with_input, daemon=True).start()
    warnings.simplefilter("ignore")
    config = folder / "neutron.conf"
    most = MOST_IN_A_PAGE if project is None else MOST_WITH_PROJECT
    config.write_text(NEUTRON.format(prefix=sys.prefix, folder=folder, most_in_a_page=most))
    sys.argv = ["neutron-api", "--config-file", str(config), "--log-file", str(folder / "neutron.log")]

    from neutron import policy, server
    from neutron.db.migration.models import head  # noqa: F401  # registers all tables
    from neutron.server import api
    from neutron_lib.db import model_base
    from sqlalchemy import create_engine, pool
    from sqlalchemy.orm import configure_mappers

    # The first listing of ports needs what Neutron otherwise does when the first port is made.
    configure_mappers()
    model_base.BASEV2.metadata.create_all(create_engine(f"sqlite:///{folder}/neutron.sqlite"))
    # oslo.db would open SQLite's file for each transaction, and SQLite read the schema of all tables each time.
    pool.NullPool = pool.QueuePool
    application = server.boot_server(api.api_server, prog="neutron-api")
    if project is not None:
        application = of_project(application, project)
    # There is no policy file, and Neutron would look for it at each of its checks.
    policy.init()
    policy._ENFORCER.use_conf = False
    # Modules loaded now stay, so the garbage collector need not look at them again and again.
    gc.freeze()
    with make_server("127.0.0.1", 0, application, Server, Handler) as listening:
        signal.alarm(0)
        print(listening.server_port, flush=True)
        listening.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
