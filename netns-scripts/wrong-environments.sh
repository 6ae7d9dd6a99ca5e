#!/usr/bin/env bash
# Every way to hold it wrong: `baton run` refuses with one message that says what is wrong and what to do, with the right
# exit status, and the host is as it was. `baton doctor` says the same words before, and changes nothing either.
# shellcheck disable=SC2016 # single quotes: what stands in them is for others to expand, or nobody
# IPv6 has a part of its own below.
FRONTENDS=4
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/host.sh
. "$scripts_dir/lib/host.sh"

topology_up a
RULES=' ' write_cluster
mkdir "$run_dir/run-baton" "$run_dir/bin"
# The directory under which one of this run's is mounted.
mkdir -p /run/baton
remember_host a
key=$run_dir/a/key cluster=$run_dir/cluster.yaml socket=$run_dir/a/baton.sock node=a

# here WORD...: the command that the next checks run baton with; unset: as root, in the namespace.
with=()
baton_here() { SETUP=${setup:-} in_ns a timeout 10 bash -c '. "$0"; elsewhere "$@"' "$run_dir/elsewhere.sh" env -u RUST_LOG "${with[@]}" "$BATON" "$@"; }
{
    echo "run_dir=$run_dir"
    declare -f elsewhere
} >"$run_dir/elsewhere.sh"

run_here() { baton_here run --node "$node" --key "$key" --socket "$socket" "$cluster"; }
doctor_here() { baton_here doctor --node "$node" --key "$key" --socket "$socket" "$cluster"; }

# refused STATUS TEXT REMEDY: by run, in one message, and by doctor before that.
refused() {
    local status=0 log=$run_dir/log/refused.log
    doctor_here >"$log" 2>&1 || status=$?
    assert_eq "doctor's exit status" 1 "$status"
    grep '^ERROR' -A1 "$log" | tr -s ' \n' ' ' | grep -qF -- "$2" || { cat "$log"; fail "doctor does not say: $2"; }
    grep -- '^ *-> ' "$log" | grep -qF -- "$3" || { cat "$log"; fail "doctor does not give the remedy: $3"; }
    run_refused "$@"
}

# run_refused STATUS TEXT REMEDY: the same, where doctor has other words or cannot know.
run_refused() {
    local status=0 log=$run_dir/log/refused.log
    run_here >"$log" 2>&1 || status=$?
    assert_eq "exit status" "$1" "$status"
    # Besides the log's lines there is one message; it may show a line of the cluster file.
    local message
    message=$(grep -v '^\[' "$log") || true
    assert_eq "messages" 1 "$(grep -c . <<<"$message")"
    [[ $message == *"$2"* ]] || fail "the message does not say '$2': $message"
    [[ $message == *"$3"* ]] || fail "the message does not say what to do, '$3': $message"
    ! grep -qE 'panicked|ERROR|Os \{' "$log" || fail "$(cat "$log")"
    ok "it says: ${message:0:160}"
    [[ ! -e $socket ]] || [[ -n ${keeps_socket:-} ]] || fail "the admin socket was left behind"
    assert_host_as_before a
}

# starts: and stops again.
starts() {
    local pid log=$run_dir/log/baton-a.log
    : >"$log"
    doctor_here >"$run_dir/log/doctor.log" 2>&1 || { cat "$run_dir/log/doctor.log"; fail "doctor says that it cannot start"; }
    SETUP=${setup:-} spawn a "$log" bash -c '. "$0"; elsewhere "$@"' "$run_dir/elsewhere.sh" "${with[@]}" \
        "$BATON" run --node "$node" --key "$key" --socket "$socket" "$cluster"
    pid=$spawned
    wait_until 5 grep -qw ready "$log"
    kill -TERM "$pid"
    wait_until 5 process_gone "$pid"
    grep -q 'the host is as it was' "$log" || { cat "$log"; fail "it did not end well"; }
    ok "it starts and stops"
    assert_host_as_before a
}

say "the host as it should be"
starts
must_fail "nothing is wrong" refused 3 "CAP_NET_ADMIN" "run as root"

say "privilege"
with=(setpriv --bounding-set=-all --inh-caps=-all)
refused 3 "CAP_NET_ADMIN" "run as root"
must_fail "the message is another one" refused 3 "nft is missing" "install nftables"
must_fail "the status is 3" run_refused 1 "CAP_NET_ADMIN" "run as root"
with=(setpriv --bounding-set=-net_admin --inh-caps=-net_admin)
refused 3 "CAP_NET_ADMIN" "run as root"
refused 3 "CAP_NET_ADMIN" "CAP_NET_RAW for probes"
with=(setpriv "--bounding-set=-all,+net_admin" --inh-caps=-all)
starts
grep -q 'no CAP_NET_RAW, so probes will fail' "$run_dir/log/doctor.log" || fail "doctor does not tell that CAP_NET_RAW is missing"
sed 's/port: 7400/port: 740/' "$run_dir/cluster.yaml" >"$run_dir/low.yaml"
cluster=$run_dir/low.yaml
refused 3 "cannot bind control channel to 10.77.0.1 port 740" "CAP_NET_BIND_SERVICE"
cluster=$run_dir/cluster.yaml
install -o 65534 -m 600 "$key" "$run_dir/nobody.key"
chmod 755 "$run_dir" "$run_dir/a"
key=$run_dir/nobody.key
with=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all)
refused 3 "CAP_NET_ADMIN" "run as root"
with=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+net_admin --ambient-caps=+net_admin)
refused 3 "/dev/net/tun cannot be opened" "run as root"
key=$run_dir/a/key with=()

say "the TUN driver"
setup='mount -t tmpfs none /dev/net'
refused 3 "/dev/net/tun is not there" "load the driver with \`modprobe tun\`"
setup='mount --bind /dev/null /dev/net/tun'
refused 3 "/dev/net/tun is not the TUN driver" "remove it"

say "nft"
setup='mount -t tmpfs none /usr/sbin' with=(env PATH=/usr/bin)
refused 3 "nft is missing" "install nftables"
setup='' with=(env "PATH=$run_dir/bin:$PATH")
make_nft() { printf '#!/bin/sh\n%s\n' "$1" >"$run_dir/bin/nft"; chmod 755 "$run_dir/bin/nft"; }
# shellcheck disable=SC2016 # the wrapper expands it
real='exec /usr/sbin/nft "$@"'
version='if [ "$1" = --version ]; then echo "nftables v0.8.2 (Joe Btfsplk)"; exit; fi'
make_nft "$version; echo \"nft: invalid option -- 'j'\" >&2; exit 1"
refused 3 "nftables v0.8.2 (Joe Btfsplk) cannot do what is needed" "install nftables 1.0 or newer"
make_nft 'case "$*" in --version) echo nftables v1.0.6 ;; *) echo "Error: JSON support not compiled-in" >&2; exit 1 ;; esac'
refused 3 "JSON support not compiled-in" "install nftables 1.0 or newer, built with JSON"
make_nft "$version; case \"\$*\" in *-f*) echo 'Error: syntax error, unexpected dynamic' >&2; exit 1 ;; esac; $real"
refused 3 "nftables v0.8.2 (Joe Btfsplk) or the kernel refuses the rules" "nftables 1.0 or newer"
make_nft 'case "$*" in --version) echo nftables v1.0.6 ;; *) echo "cache initialization failed: Protocol not supported" >&2; exit 1 ;; esac'
refused 3 "Protocol not supported" "modprobe nf_tables"
make_nft "$real"
starts
chmod 644 "$run_dir/bin/nft"
setup='mount -t tmpfs none /usr/sbin' with=(env "PATH=$run_dir/bin")
refused 3 "nft cannot be started" "see to its permissions"
rm "$run_dir/bin/nft"
setup='' with=()

say "open files"
with=(prlimit --nofile=20)
refused 3 "only 20 files open" "raise LimitNOFILE"
with=()

say "kernel settings"
setup='mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys'
refused 3 "/proc/sys is read-only" "mount -o remount,rw /proc/sys"
setup='umount -l /proc'
run_refused 3 "is /proc mounted?" ""
setup=''

say "policy rules"
in_ns a ip rule add pref 5 from 10.0.0.0/8 lookup 100
remember_host a
refused 3 "preferences 0 to 9 of policy rules are needed" "move it to a later one"
in_ns a ip rule del pref 5
in_ns a ip rule add pref 500 fwmark 0x7 lookup 100
remember_host a
refused 3 "the marks 0x7, 0x8 and, for links, from 0xba70000 on are needed" "use another one"
in_ns a ip rule del pref 500
in_ns a ip rule del pref 0
remember_host a
refused 3 "no policy rule of IPv4 looks up the table of local addresses" "put the kernel's own back"
in_ns a ip rule flush
remember_host a
refused 3 "there are no policy rules of IPv4 at all" "CONFIG_IP_MULTIPLE_TABLES"
in_ns a ip rule add pref 0 lookup local proto kernel
in_ns a ip rule add pref 32766 lookup main proto kernel
in_ns a ip rule add pref 32767 lookup default proto kernel
in_ns a ip route add blackhole 10.99.0.0/16 table 7771
remember_host a
refused 3 "routing table 7771 is needed" "move them to another table"
in_ns a ip route del blackhole 10.99.0.0/16 table 7771
in_ns a nft add table inet baton
remember_host a
refused 3 "table \`inet baton\` that baton did not make" "rename or delete it"
in_ns a nft delete table inet baton

say "names, ports and places that are taken"
in_ns a ip link add bt0 type bridge
remember_host a
refused 3 "a network interface bt0 exists already" "rename or remove it"
in_ns a ip link del bt0
# occupied KIND: a socket at the control port.
occupied() {
    spawn a "$run_dir/log/occupier.log" "$PYTHON" -c "
import socket, sys
s = socket.socket(socket.AF_INET, socket.$1)
s.bind(('10.77.0.1', 7400))
if '$1' == 'SOCK_STREAM': s.listen()
print('there', flush=True)
sys.stdin.read() if sys.stdin.isatty() else __import__('time').sleep(60)"
    wait_until 5 grep -q there "$run_dir/log/occupier.log"
    remember_host a
    refused 3 "cannot bind $2 to 10.77.0.1 port 7400 ($3): Address already in use" "another process has the port"
    kill "$spawned"
    wait_until 5 process_gone "$spawned"
    rm "$run_dir/log/occupier.log"
}
occupied SOCK_STREAM "control channel" TCP
occupied SOCK_DGRAM overlay UDP
remember_host a
keeps_socket=yes
echo something >"$socket"
refused 3 "something that is not a socket is there" "choose another place with --socket PATH"
[[ $(<"$socket") == something ]] || fail "somebody's file is gone"
rm "$socket"
mkdir "$socket"
refused 3 "something that is not a socket is there" "choose another place with --socket PATH"
rmdir "$socket"
socket=$run_dir/a/$(printf 'x%.0s' {1..120}).sock
refused 3 "a socket's path can have 107 bytes at most" "choose another place with --socket PATH"
socket=/proc/nowhere/a.sock
run_refused 3 "cannot listen at /proc/nowhere/a.sock" "choose another place with --socket PATH"
socket=$run_dir/a/baton.sock
"$PYTHON" -c "import socket; socket.socket(socket.AF_UNIX).bind('$socket')"
starts
keeps_socket=''
setup='mount -o remount,bind,ro /run/baton'
refused 3 "files cannot be made in /run/baton: Read-only file system" "baton remembers there what the host was like"
setup=''

say "the key"
key=$run_dir/a/no.key
refused 3 "cannot read key file $key" "\`baton keygen --out $key\` makes one"
key=$run_dir/a/open.key
install -m 644 "$run_dir/a/key" "$key"
refused 3 "has mode 0644: others can use it" "Run \`chmod 600 $key\`"
key=$run_dir/a/closed.key with=(setpriv "--bounding-set=-dac_override,-dac_read_search" --inh-caps=-all)
install -m 600 -o 65534 "$run_dir/a/key" "$key"
refused 3 "cannot read key file $key: Permission denied" "Run as the user who owns it"
with=()
key=$run_dir/a/garbage.key
install -m 600 /dev/null "$key"
refused 3 "is not a key file" "makes one"
key=$run_dir/a
refused 3 "is not a regular file" "Give the path of a key file"
key=$run_dir/a/another.key
"$BATON" keygen --out "$key" >/dev/null
refused 1 "this is not the key of node a" "choose the right file with --key"
key=$run_dir/a/key

say "the cluster file and the node's name"
node=z
refused 1 "there is no node \`z\`" "choose one of them with --node NAME"
node=a-name-that-is-longer-than-every-name-may-be-in-a-cluster-file-of-this-cluster
refused 1 "there is no node" "choose one of them with --node NAME"
node=a
cluster=$run_dir/other.yaml
sed 's/10\.77\.0\.1/10.77.0.77/' "$run_dir/cluster.yaml" >"$cluster"
refused 3 "10.77.0.77 is not an address of this host" "Run with the \`--node\` name this host has"
sed 's/10\.77\.0\.1:80/10.77.0.77:80/' "$run_dir/cluster.yaml" >"$cluster"
refused 3 "the front-end 10.77.0.77:80 is not an address of this host" "correct the cluster file"
ip -n "$(namespace a)" address add 198.18.7.7/32 dev lo
remember_host a
cluster=$run_dir/cluster.yaml
refused 3 "the alias prefix 198.18.0.0/16 contains 198.18.7.7" "choose a prefix that nobody uses"
ip -n "$(namespace a)" address del 198.18.7.7/32 dev lo
remember_host a

say "IPv6"
cluster=$run_dir/six.yaml
sed 's,198.18.0.0/16",&\, "fd00:ba70::/64",' "$run_dir/cluster.yaml" >"$cluster"
starts
setup='mount -t tmpfs none /proc/sys/net/ipv6'
refused 3 "IPv6 is switched off on this host" "use IPv4 front-ends and aliases only"
setup=''
cluster=$run_dir/cluster.yaml
in_ns a sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
remember_host a
starts
in_ns a sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0
remember_host a

say "a second one"
start_baton a
wait_for_tun a
remember_host a
keeps_socket=yes
first=$(baton_pid a)
second() { in_ns a timeout 10 env -u RUST_LOG "$BATON" run --node a --key "$key" "$@" "$cluster"; }
status=0
second --socket "$socket" >"$run_dir/log/second.log" 2>&1 || status=$?
assert_eq "exit status" 3 "$status"
grep -q 'already running: a daemon answers' "$run_dir/log/second.log" || fail "$(cat "$run_dir/log/second.log")"
status=0
second --socket "$run_dir/a/second.sock" >"$run_dir/log/second.log" 2>&1 || status=$?
assert_eq "exit status" 3 "$status"
grep -q "another baton runs in this network namespace (process $first, device bt0): stop it first" "$run_dir/log/second.log" ||
    fail "$(cat "$run_dir/log/second.log")"
[[ ! -e $run_dir/a/second.sock ]] || fail "the second one left its socket"
assert_host_as_before a
in_ns a "$BATON" doctor --node a --key "$key" --socket "$socket" "$cluster" >"$run_dir/log/doctor.log" || fail "doctor finds an error beside a running baton"
assert_eq "lines of doctor that name the running one" 3 "$(grep -c "process $first" "$run_dir/log/doctor.log")"
assert_host_as_before a
stop_baton a

scenario_end
