#!/bin/bash
# Records shop.pcap: real programs talking in a small data centre made of network namespaces.
#
#   record.sh [OUTPUT_DIRECTORY]        (as root; default: the directory of this script)
#
#   client 198.51.100.7   2001:db8:100::7  --+
#          198.51.100.53  2001:db8:100::53   |            (the second pair: a name server in the same namespace)
#                                          router 198.51.100.1 / 10.0.0.1
#                                            |
#        -----------+------------------ bridge br0, recorded here: each packet passes it once -------
#                   |                        |                     |                  |
#   web-1 10.0.0.5  2001:db8::5    db-1 10.0.1.9  2001:db8:1::9    lab-1 10.0.0.66   web-2 10.0.0.6 2001:db8::6
#   nginx 80, 8080                 redis 6379                      not in shop.yaml  switched off: nobody is there
#
# Everything happens inside the namespaces, which have no way out. A run makes the same connections in the same
# order, takes about 20 s and is ended after 90 s at the latest; namespaces and processes go away on exit.
# SHOP_LOG=FILE keeps what the programs printed.
set -euo pipefail

if [[ ${SHOP_BOUNDED:-} != 1 ]]; then
    SHOP_BOUNDED=1 exec timeout --kill-after=10 90 "$BASH" "$0" "$@"
fi

output_directory=$(realpath -- "${1:-$(dirname -- "$0")}")
for tool in ip tcpdump nginx curl ping redis-server redis-cli dnsmasq dig traceroute openssl; do
    command -v "$tool" >/dev/null || { echo "record.sh: $tool is not installed" >&2; exit 2; }
done
[[ $EUID == 0 ]] || { echo "record.sh: needs root for network namespaces" >&2; exit 2; }
[[ -d $output_directory ]] || { echo "record.sh: no such directory: $output_directory" >&2; exit 2; }

work=$(mktemp -d)
prefix="shop-$$"
hosts=(router client web-1 db-1 lab-1)
made=()

clean_up() {
    trap - EXIT INT TERM
    local host pids
    for host in ${made[@]+"${made[@]}"}; do
        pids=$(ip netns pids "$prefix-$host" 2>/dev/null || true)
        # shellcheck disable=SC2086
        [[ -z $pids ]] || kill $pids 2>/dev/null || true
    done
    sleep 0.3
    for host in ${made[@]+"${made[@]}"}; do
        pids=$(ip netns pids "$prefix-$host" 2>/dev/null || true)
        # shellcheck disable=SC2086
        [[ -z $pids ]] || kill -KILL $pids 2>/dev/null || true
        ip netns del "$prefix-$host" || true
    done
    rm -rf -- "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

on() { local host=$1; shift; ip netns exec "$prefix-$host" "$@"; }
# A step of the recording; what the program says goes to the log, and failing (a refused connection, say) is part of it.
step() {
    local host=$1; shift
    echo "[$host] $*"
    { echo "### [$host] $*"; on "$host" timeout 10 "$@" </dev/null 2>&1 || echo "### exit status $?"; } >>"$work/log"
    sleep 0.15          # the connection closes before the next one opens
}
wait_for() {
    local _
    for _ in {1..50}; do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    echo "record.sh: waited in vain for: $*" >&2
    return 1
}

# --- the network -------------------------------------------------------------------------------------------------

for host in "${hosts[@]}"; do
    ip netns add "$prefix-$host"
    made+=("$host")
    ip -n "$prefix-$host" link set lo up
    on "$host" sysctl -q -w net.ipv6.conf.all.accept_ra=0 net.ipv6.conf.default.accept_ra=0
done
on router sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0
ip -n "$prefix-router" link add br0 address 02:00:0a:00:00:01 type bridge mcast_snooping 0 stp_state 0 forward_delay 0

# plug HOST MAC: a cable from HOST's eth0 to the bridge
plug() {
    ip -n "$prefix-router" link add "port-$1" type veth peer name eth0 address "$2" netns "$prefix-$1"
    ip -n "$prefix-router" link set "port-$1" master br0 up
    on router sysctl -q -w "net.ipv6.conf.port-$1.disable_ipv6=1"
    ip -n "$prefix-$1" link set eth0 up
}
plug web-1 02:00:0a:00:00:05
plug db-1 02:00:0a:00:01:09
ip -n "$prefix-router" link add uplink type veth peer name eth0 address 02:00:c6:33:64:07 netns "$prefix-client"
ip -n "$prefix-router" link set uplink up
ip -n "$prefix-client" link set eth0 up
ip -n "$prefix-router" link set br0 up

ip -n "$prefix-router" addr add 10.0.0.1/16 dev br0
ip -n "$prefix-router" addr add 2001:db8::1/47 dev br0 nodad
ip -n "$prefix-router" addr add 198.51.100.1/24 dev uplink
ip -n "$prefix-router" addr add 2001:db8:100::1/64 dev uplink nodad
for address in 198.51.100.7/24 198.51.100.53/24; do ip -n "$prefix-client" addr add $address dev eth0; done
# Preferred lifetime 0: never the source of what the client itself opens.
ip -n "$prefix-client" addr add 2001:db8:100::53/64 dev eth0 nodad preferred_lft 0
ip -n "$prefix-client" addr add 2001:db8:100::7/64 dev eth0 nodad
ip -n "$prefix-web-1" addr add 10.0.0.5/16 dev eth0
ip -n "$prefix-web-1" addr add 2001:db8::5/47 dev eth0 nodad
ip -n "$prefix-db-1" addr add 10.0.1.9/16 dev eth0
ip -n "$prefix-db-1" addr add 2001:db8:1::9/47 dev eth0 nodad
ip -n "$prefix-client" route add default via 198.51.100.1
ip -n "$prefix-client" route add default via 2001:db8:100::1
for host in web-1 db-1; do
    ip -n "$prefix-$host" route add default via 10.0.0.1
    ip -n "$prefix-$host" route add default via 2001:db8::1
done
# The router still knows web-2's hardware address, so packets for it leave, and nobody takes them.
ip -n "$prefix-router" neigh add 10.0.0.6 lladdr 02:00:0a:00:00:06 dev br0 nud permanent

# --- the programs ------------------------------------------------------------------------------------------------

mkdir "$work/html" "$work/db"
chmod 755 "$work" "$work/html"
echo '<h1>shop</h1>' >"$work/html/index.html"
echo '<h1>offers</h1>' >"$work/html/offers.html"
head -c 6000 /dev/zero | tr '\0' 's' >"$work/html/picture"
cat >"$work/nginx.conf" <<CONF
user root; worker_processes 1; daemon off; pid $work/nginx.pid; error_log $work/nginx.err;
events { worker_connections 64; }
http {
    access_log off; default_type text/html; keepalive_timeout 5s;
    client_body_temp_path $work/n1; proxy_temp_path $work/n2; fastcgi_temp_path $work/n3; uwsgi_temp_path $work/n4; scgi_temp_path $work/n5;
    server {
        listen 80; listen [::]:80 ipv6only=on; listen 8080; listen [::]:8080 ipv6only=on;
        root $work/html;
        location = /offers.html { ssi on; }
    }
}
CONF
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=partner.example \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null

on web-1 nginx -c "$work/nginx.conf" >>"$work/log" 2>&1 &
on db-1 redis-server --port 6379 --bind 0.0.0.0 :: --protected-mode no --save '' --dir "$work/db" >"$work/redis.log" 2>&1 &
on client dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --pid-file= --user=root --bind-interfaces \
    --listen-address=198.51.100.53 --listen-address=2001:db8:100::53 --host-record=shop.example,10.0.0.5,2001:db8::5 >>"$work/log" 2>&1 &
on client openssl s_server -accept '0.0.0.0:443' -cert "$work/cert.pem" -key "$work/key.pem" -www -quiet >>"$work/log" 2>&1 &

wait_for on web-1 curl -s -o /dev/null http://127.0.0.1:8080/
wait_for on db-1 redis-cli -h 127.0.0.1 ping
wait_for on client dig +time=1 +tries=1 @198.51.100.53 shop.example
wait_for on client curl -sk -o /dev/null --max-time 1 https://127.0.0.1:443/

# web-1's connection pool: open before the recording starts, used and closed during it.
mkfifo "$work/pool"
on web-1 redis-cli -h 10.0.1.9 -p 6379 <"$work/pool" >>"$work/log" 2>&1 &
pool_process=$!
exec 9>"$work/pool"
echo 'SET stock:apples 42' >&9
sleep 2.5               # duplicate address detection and first multicast reports are over

# --- the recording -----------------------------------------------------------------------------------------------

on router tcpdump -i br0 -w "$work/shop.pcap" -s 128 --time-stamp-precision=nano --immediate-mode -U -Z root 9>&- 2>"$work/tcpdump.err" &
tcpdump_job=$!
wait_for grep -q 'listening on' "$work/tcpdump.err"

page=(curl -sS -o /dev/null --max-time 4)

echo '[web-1] redis-cli (opened before the recording)'
echo 'GET stock:apples' >&9
sleep 0.2

# The shop as its customers see it.
step client "${page[@]}" http://10.0.0.5/picture
step client "${page[@]}" 'http://[2001:db8::5]/picture'
step client "${page[@]}" http://10.0.0.5/ -o /dev/null http://10.0.0.5/picture -o /dev/null http://10.0.0.5/missing     # one connection
step client "${page[@]}" http://10.0.0.5:8080/                  # answers, but no rule lets it
step client "${page[@]}" 'http://[2001:db8::5]:8080/'
step client "${page[@]}" http://10.0.0.5:81/                    # allowed, nobody listens
step client "${page[@]}" 'http://[2001:db8::5]:81/'
step client curl -sS --max-time 1.6 http://10.0.0.6/            # allowed, nobody is there
step client "${page[@]}" http://10.0.0.5:22/                    # ssh is for administrators; nobody listens
# A page made as it is sent has no length, so in HTTP/1.0 the server's close ends it. As the server closed first, the
# client may use its port again at once: a SYN on a connection in TIME-WAIT.
step client "${page[@]}" --http1.0 --local-port 40001 http://10.0.0.5/offers.html
step client "${page[@]}" --http1.0 --local-port 40001 http://10.0.0.5/offers.html

# Pings.
step client ping -n -c 2 -i 0.2 -W 1 10.0.0.5
step client ping -n -c 2 -i 0.2 -W 1 2001:db8::5
step web-1 ping -n -c 2 -i 0.2 -W 1 198.51.100.7
step web-1 ping -n -c 2 -i 0.2 -W 1 2001:db8:100::7
step client ping -n -c 2 -i 0.2 -W 1 10.0.1.9
step client ping -n -c 2 -i 0.2 -W 1 2001:db8:1::9
step web-1 ping -n -c 2 -i 0.2 -W 1 10.0.1.9
step db-1 ping -n -c 1 -W 1 10.0.0.5

# The database.
echo '[web-1] redis-cli (opened before the recording): closed'
exec 9>&-
wait "$pool_process" || true
sleep 0.15
step web-1 redis-cli -h 10.0.1.9 -p 6379 INCR visits
step web-1 redis-cli -h 2001:db8:1::9 -p 6379 INCR visits       # the rule for group web is an IPv4 rule
step web-1 redis-cli -h 10.0.1.9 -p 5432 PING                   # allowed, nobody listens
step client redis-cli -h 10.0.1.9 -p 6379 GET stock:apples      # past the shop, straight to the database
step client redis-cli -h 2001:db8:1::9 -p 6379 GET stock:apples

# Outbound.
step web-1 "${page[@]}" -k https://198.51.100.7/
step web-1 dig +time=1 +tries=1 +short @198.51.100.53 shop.example
step web-1 dig +time=1 +tries=1 +short @2001:db8:100::53 shop.example AAAA
step db-1 dig +time=1 +tries=1 +short @198.51.100.53 shop.example
step db-1 dig +time=1 +tries=1 +short +tcp @198.51.100.53 shop.example     # only UDP is on the list
step db-1 "${page[@]}" -k https://198.51.100.7/
step web-1 traceroute -n -q 1 -N 1 -m 2 -w 1 198.51.100.7
step client dig +time=1 +tries=1 +short @10.0.0.5 shop.example             # no name server there: port unreachable

# A neighbour that shop.yaml does not know is plugged in: its address detection and reports, and a ping.
plug lab-1 02:00:0a:00:00:66
ip -n "$prefix-lab-1" addr add 10.0.0.66/16 dev eth0
ip -n "$prefix-lab-1" route add default via 10.0.0.1
step client ping -n -c 1 -W 1 10.0.0.66
step lab-1 ping -n -c 1 -W 1 10.0.0.5
step client "${page[@]}" http://10.0.0.99/                      # no such address: the router only asks for it
sleep 1

kill -INT "$(ip netns pids "$prefix-router")"
wait "$tcpdump_job" || true
cat "$work/tcpdump.err"
grep -q '^0 packets dropped by kernel' "$work/tcpdump.err"
if [[ -n ${SHOP_LOG:-} ]]; then cat "$work/log" >"$SHOP_LOG"; fi
install -m 644 "$work/shop.pcap" "$output_directory/shop.pcap"
echo "record.sh: wrote $output_directory/shop.pcap"
