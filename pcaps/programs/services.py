"""The servers of the lab: their configurations, and starting them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from lab import HOSTS, Lab

#: Every program a recording needs, and the Debian package that brings it.
PROGRAMS = {
    "chronyc": "chrony",
    "chronyd": "chrony",
    "curl": "curl",
    "dig": "bind9-dnsutils",
    "dnsmasq": "dnsmasq-base",
    "ip": "iproute2",
    "iperf3": "iperf3",
    "nc": "netcat-openbsd",
    "nginx": "nginx",
    "openssl": "openssl",
    "ping": "iputils-ping",
    "redis-cli": "redis-tools",
    "redis-server": "redis-server",
    "socat": "socat",
    "ss": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "sysctl": "procps",
    "tcpdump": "tcpdump",
    "traceroute": "traceroute",
    "vsftpd": "vsftpd",
}
#: What running them behind the kernel's filter needs besides.
FILTER_PROGRAMS = {"conntrack": "conntrack", "nft": "nftables"}

PAGE = "page"
PAGE_BYTES = 3000
FILE = "file"
NAME = "shop.example"
#: vsftpd offers this one port for passive data connections; curl offers this range for active ones.
FTP_PASSIVE_PORT = 30000
FTP_ACTIVE_PORTS = "40000-40009"
#: Answers with the number of bytes it was sent, once its client has closed its half of the connection.
COUNT_PORT = 7000
#: Says what it is told, over TCP and UDP.
ECHO_PORT = 7


def missing(programs: Mapping[str, str]) -> dict[str, str]:
    return {name: package for name, package in programs.items() if shutil.which(name) is None}


def start_all(lab: Lab) -> None:
    """Starts every server and waits until it answers."""
    certificate(lab)
    for host in ("server", "partner"):
        web(lab, host)
    ssh(lab)
    database(lab, "server")
    _files(lab)
    _names(lab)
    _time(lab)
    # Each with a process per connection, which reads until its client's half is closed.
    for listen in ("TCP4-LISTEN:{},fork,reuseaddr", "TCP6-LISTEN:{},fork,reuseaddr,ipv6only=1"):
        lab.start("server", "socat", listen.format(COUNT_PORT), "EXEC:wc -c")

    for host in ("server", "partner"):
        for port in (80, 443):
            lab.wait_listening(host, "tcp", port)
    for port in (21, 22, 6379, COUNT_PORT):
        lab.wait_listening("server", "tcp", port)
    for port in (53, 123):
        lab.wait_listening("partner", "udp", port)


def client_key(lab: Lab) -> Path:
    return lab.folder / "client.key"


def certificate(lab: Lab) -> None:
    """What the web servers need first."""
    lab.must("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", f"/CN={NAME}", "-keyout", f"{lab.folder}/tls.key", "-out", f"{lab.folder}/tls.crt")  # fmt: skip


def web(lab: Lab, host: str) -> None:
    folder = lab.folder / f"web-{host}"
    (folder / "html").mkdir(parents=True)
    (folder / "html" / PAGE).write_bytes(b"s" * PAGE_BYTES)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    configuration = folder / "nginx.conf"
    configuration.write_text(f"""
user root; worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off; default_type text/plain; keepalive_timeout 5s; {temporary}
    ssl_certificate {lab.folder}/tls.crt; ssl_certificate_key {lab.folder}/tls.key;
    server {{
        listen 80; listen [::]:80 ipv6only=on; listen 443 ssl; listen [::]:443 ssl ipv6only=on;
        root {folder}/html;
    }}
}}
""")
    lab.start(host, "nginx", "-c", str(configuration))


def ssh(lab: Lab) -> None:
    for name in (lab.folder / "host.key", client_key(lab)):
        lab.must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(name))
    # Debian's sshd insists on this folder.
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    configuration = lab.folder / "sshd.conf"
    configuration.write_text(f"""
HostKey {lab.folder}/host.key
AuthorizedKeysFile {client_key(lab)}.pub
PidFile {lab.folder}/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
UseDNS no
""")
    lab.start("server", "/usr/sbin/sshd", "-D", "-e", "-f", str(configuration))


def database(lab: Lab, host: str) -> None:
    folder = lab.folder / f"redis-{host}"
    folder.mkdir()
    lab.start(host, "redis-server", "--port", "6379", "--bind", "0.0.0.0", "::", "--protected-mode", "no",
              "--save", "", "--dir", str(folder))  # fmt: skip


def echo(lab: Lab, host: str) -> None:
    for kind in ("TCP4-LISTEN:{},fork,reuseaddr", "TCP6-LISTEN:{},fork,reuseaddr,ipv6only=1",
                 "UDP4-RECVFROM:{},fork", "UDP6-RECVFROM:{},fork,ipv6only=1"):  # fmt: skip
        lab.start(host, "socat", kind.format(ECHO_PORT), "EXEC:cat")
    for transport in ("tcp", "udp"):
        lab.wait_listening(host, transport, ECHO_PORT)


def _files(lab: Lab) -> None:
    folder, empty = lab.folder / "ftp", lab.folder / "empty"
    for path in (folder, empty):
        path.mkdir(mode=0o555)
    (folder / FILE).write_bytes(b"f" * PAGE_BYTES)
    configuration = lab.folder / "vsftpd.conf"
    # One process for both families, IPv4 addresses mapped. The sandbox is for the internet, and fails in some kernels.
    configuration.write_text(f"""
listen=NO
listen_ipv6=YES
anonymous_enable=YES
anon_root={folder}
no_anon_password=YES
secure_chroot_dir={empty}
connect_from_port_20=YES
pasv_min_port={FTP_PASSIVE_PORT}
pasv_max_port={FTP_PASSIVE_PORT}
connect_timeout=2
seccomp_sandbox=NO
isolate_network=NO
xferlog_enable=NO
background=NO
""")
    lab.start("server", "vsftpd", str(configuration))


def _names(lab: Lab) -> None:
    server = HOSTS["server"].addresses
    lab.start(
        "partner", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
        "--pid-file=", "--user=root", "--bind-interfaces",
        *(f"--listen-address={address}" for address in HOSTS["partner"].addresses.values()),
        f"--host-record={NAME},{server[4]},{server[6]}",
    )  # fmt: skip


def _time(lab: Lab) -> None:
    lab.start("partner", *time_daemon(lab, "partner"))


def time_daemon(lab: Lab, host: str, name: str = "clock", more: str = "") -> tuple[str, ...]:
    """The command of a time daemon that leaves the clock alone and listens to ``time_control``."""
    # chronyd insists on a folder of its own for its control socket. It removes its pid file first, whatever that is.
    folder = _time_folder(lab, host, name)
    folder.mkdir(mode=0o750)
    configuration = folder / "chrony.conf"
    stratum = 8 if host == "server" else 9
    configuration.write_text(f"""
allow
local stratum {stratum}
pidfile {folder}/pid
bindcmdaddress {folder}/control
cmdport 0
{more}
""")
    return ("chronyd", "-d", "-x", "-u", "root", "-f", str(configuration))


def time_control(lab: Lab, host: str, name: str, *command: str) -> tuple[str, ...]:
    return ("chronyc", "-n", "-h", str(_time_folder(lab, host, name) / "control"), *command)


def _time_folder(lab: Lab, host: str, name: str) -> Path:
    return lab.folder / f"{name}-{host}"
