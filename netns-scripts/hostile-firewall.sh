#!/usr/bin/env bash
# Firewalls and settings that people have: with each, connections are handed off and local ones served, or `baton run`
# refuses and names the chain and the remedy; and with the remedy it works. `baton doctor` knows before, from the rules.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/host.sh
. "$scripts_dir/lib/host.sh"

topology_up a b
make_file picture 20K
start_applications
NO_VIDEOS=yes write_cluster
export FETCH_TIMEOUT=5

doctor() { in_ns "$1" "$BATON" doctor --node "$1" --key "$run_dir/$1/key" --socket "$run_dir/$1/baton.sock" "$run_dir/cluster.yaml"; }

# works: doctor says so, and it is so.
works() {
    local node
    remember_host a b
    for node in a b; do
        doctor "$node" >"$run_dir/log/doctor.log" || { cat "$run_dir/log/doctor.log"; fail "doctor finds an error on $node"; }
    done
    start_cluster
    mark
    fetch client a /images/picture
    assert_answered b
    assert_same_file "the handed-off answer" picture
    fetch client a /elsewhere/picture
    assert_answered a
    assert_counts a.handed_off=1 b.accepted=1
    for node in a b; do stop_baton "$node"; done
    assert_host_as_before a b
}

# refuses TEXT REMEDY: on a. Doctor says the same, or why it may be so.
refuses() {
    local status=0 log=$run_dir/log/refused.log
    remember_host a
    doctor a >"$run_dir/log/doctor.log" || status=$?
    assert_eq "doctor's exit status" 1 "$status"
    grep -A1 '^ERROR' "$run_dir/log/doctor.log" | grep -F -- "${3:-$1}" >/dev/null || { cat "$run_dir/log/doctor.log"; fail "doctor does not say: ${3:-$1}"; }
    status=0
    in_ns a timeout 10 env -u RUST_LOG "$BATON" run --node a --key "$run_dir/a/key" --socket "$run_dir/a/baton.sock" \
        "$run_dir/cluster.yaml" >"$log" 2>&1 || status=$?
    assert_eq "exit status" 3 "$status"
    grep '^baton: ' "$log" | grep -F -- "$1" | grep -qF -- "$2" || { cat "$log"; fail "not refused because of: $1"; }
    ok "$(grep '^baton: ' "$log" | cut -c 1-160)"
    fetch client a /elsewhere/picture
    assert_answered a
    assert_host_as_before a
}

# answers: a itself, at once.
answers() { FETCH_TIMEOUT=1 fetch client a /elsewhere/picture; assert_answered a; }

firewall() { in_ns "$1" nft -f -; }
no_firewall() { in_ns "$1" nft flush ruleset; }

say "a firewall that tracks connections and drops what is invalid"
for node in a b; do
    firewall "$node" <<'END'
table inet wall {
  chain enters { type filter hook input priority 0; policy drop;
    iifname "lo" accept
    ct state established,related accept
    ct state invalid drop
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    tcp dport { 80, 7400 } accept
    udp dport 7400 accept
  }
  chain passes { type filter hook forward priority 0; policy accept; ct state invalid drop; }
  chain leaves { type filter hook output priority 0; policy accept; ct state invalid drop; }
}
END
done
works

say "the same, which accepts new connections only"
firewall a <<'END'
flush chain inet wall enters
table inet wall {
  chain enters { iifname "lo" accept; ct state established,related accept; tcp dport { 80, 7400 } ct state new accept; udp dport 7400 accept; }
}
END
refuses "drops packets from bt0 to 10.77.0.1:80" 'iptables -I INPUT -i bt0 -j ACCEPT'
in_ns a nft insert rule inet wall enters iifname bt0 accept
works
no_firewall a
no_firewall b

say "input from eth0 only"
firewall a <<<'table inet wall { chain enters { type filter hook input priority 0; policy drop; iifname { "lo", "eth0" } accept; }; }'
refuses "drops packets from bt0 to 10.77.0.1:80" 'iifname "bt0" accept'
no_firewall a

say "a reverse path filter in rules, as some distributions have it"
rpfilter() { firewall a <<<"table inet wall { chain enters { type filter hook prerouting priority raw + 10; $1 oif missing drop; }; }"; }
rpfilter 'fib saddr . iif'
refuses "drops packets from bt0 to 10.77.0.1:80" 'must leave bt0 out' "from bt0 to 10.77.0.1:80: chain inet wall enters (prerouting)"
no_firewall a
rpfilter 'iifname != "bt0" fib saddr . iif'
works
no_firewall a
rpfilter 'iifname != "bt0" fib saddr . mark . iif'
refuses "drops packets for 10.77.0.1:80 from eth0 to bt0: chain inet wall enters (prerouting)" 'must not ask for the mark'
no_firewall a
start_baton a
answers
rpfilter 'iifname != "bt0" fib saddr . mark . iif'
must_fail "it is made under a running baton: the reason for refusing" answers
stop_baton a
no_firewall a

say "a forward policy of drop"
firewall a <<<'table inet wall { chain passes { type filter hook forward priority 0; policy drop; }; }'
refuses "drops packets from bt0 to a client of 10.77.0.1:80" 'iptables -I FORWARD -i bt0 -j ACCEPT' \
    "of 10.77.0.1:80 from bt0 to eth0: chain inet wall passes (forward, policy drop)"
must_fail "it is a forward chain" refuses "drops packets from bt0 to 10.77.0.1:80" 'iifname "bt0" accept'
must_fail "a forward chain drops" works
[[ ! -e $run_dir/b/baton.process ]] || kill_baton b 2>/dev/null || true
in_ns b "$BATON" cleanup >/dev/null
in_ns a nft add rule inet wall passes iifname bt0 accept
say "half of it open: no packet can be tried the other way, but the rule be read"
refuses "drops packets for 10.77.0.1:80 from eth0 to bt0: chain inet wall passes (forward, policy drop)" 'iptables -I FORWARD -o bt0'
in_ns a nft add rule inet wall passes oifname bt0 accept
works
start_baton a
answers
in_ns a nft -a list chain inet wall passes | awk '/oifname "bt0"/ { print $NF }' | xargs -I{} ip netns exec "$(namespace a)" nft delete rule inet wall passes handle {}
must_fail "that rule is deleted under a running baton: the reason for refusing" answers
stop_baton a
no_firewall a

say "chains as Docker makes them, and a container that is forwarded to"
make_namespace container
ip -n "$(namespace a)" link add docker0 type bridge
ip -n "$(namespace a)" link add veth1 type veth peer name eth0 netns "$(namespace container)"
ip -n "$(namespace a)" link set veth1 master docker0 up
in_ns a sh -c 'echo 0 >/proc/sys/net/ipv6/conf/docker0/accept_dad'
ip -n "$(namespace a)" address add 172.17.0.1/16 dev docker0
ip -n "$(namespace a)" link set docker0 up
ip -n "$(namespace container)" address add 172.17.0.2/16 dev eth0
ip -n "$(namespace container)" link set eth0 up
ip -n "$(namespace container)" route add default via 172.17.0.1
in_ns a sysctl -qw net.ipv4.ip_forward=1
firewall a <<'END'
table ip filter {
  chain DOCKER-USER { counter return; }
  chain DOCKER { iifname != "docker0" oifname "docker0" ip daddr 172.17.0.2 tcp dport 80 counter accept; iifname != "docker0" oifname "docker0" counter drop; }
  chain DOCKER-CT { oifname "docker0" ct state related,established counter accept; }
  chain DOCKER-ISOLATION-STAGE-1 { iifname "docker0" oifname != "docker0" counter jump DOCKER-ISOLATION-STAGE-2; }
  chain DOCKER-ISOLATION-STAGE-2 { oifname "docker0" counter drop; }
  chain DOCKER-FORWARD { counter jump DOCKER-CT; counter jump DOCKER-ISOLATION-STAGE-1; oifname "docker0" counter jump DOCKER; iifname "docker0" counter accept; }
  chain FORWARD { type filter hook forward priority filter; policy drop; counter jump DOCKER-USER; counter jump DOCKER-FORWARD; }
}
table ip nat {
  chain DOCKER { iifname "docker0" counter return; iifname != "docker0" tcp dport 8080 counter dnat to 172.17.0.2:80; }
  chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local counter jump DOCKER; }
  chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; oifname != "docker0" ip saddr 172.17.0.0/16 counter masquerade; }
}
END
spawn container "$run_dir/log/container.log" "$PYTHON" -m http.server 80 --directory "$run_dir/www"
wait_until 5 listening container 80
container_answers() {
    assert_eq "the container, by a's port 8080" 200 "$(in_ns client curl -sS --max-time 5 -o /dev/null -w '%{http_code}' http://10.77.0.1:8080/picture)"
    assert_eq "b, from the container" 200 "$(in_ns container curl -sS --max-time 5 -o /dev/null -w '%{http_code}' http://10.77.0.2/any/picture)"
}
container_answers
refuses "drops packets from bt0 to a client of 10.77.0.1:80" 'in the chain DOCKER-USER' "chain ip filter FORWARD (forward, policy drop)"
in_ns a nft insert rule ip filter DOCKER-USER iifname bt0 accept
in_ns a nft insert rule ip filter DOCKER-USER oifname bt0 accept
works
start_cluster
container_answers
for node in a b; do stop_baton "$node"; done
container_answers
no_firewall a
must_fail "the container's port is forwarded by Docker's rules" container_answers
in_ns a sysctl -qw net.ipv4.ip_forward=0

say "handed-off connections cannot answer: whoever has the connection keeps it"
firewall b <<<'table inet wall { chain leaves { type filter hook output priority 0; policy drop; oifname { "lo", "eth0" } accept; }; }'
doctor b >"$run_dir/log/doctor.log"
grep -q '^warning .*from the aliases 198.18.0.0/16 port 80 to bt0: chain inet wall leaves (output, policy drop)' "$run_dir/log/doctor.log" ||
    fail "doctor does not warn: $(grep firewall "$run_dir/log/doctor.log")"
start_cluster
grep -q 'WARN .*drops packets from the aliases 198.18.0.0/16 port 80 to bt0' "$run_dir/log/baton-b.log" || fail "run does not warn"
mark
fetch client a /images/picture
assert_answered a
assert_eq "handed off" 0 "$(sum_since_mark 'a.handed_off')"
for node in a b; do stop_baton "$node"; done
no_firewall b

say "strict reverse path filtering"
for node in a b; do in_ns "$node" sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1; done
works
start_baton a
answers
in_ns a sysctl -qw net.ipv4.conf.all.src_valid_mark=1
must_fail "src_valid_mark is set under a running baton: the reason for refusing" answers
stop_baton a
refuses "strict reverse path filtering on eth0 would drop all captured packets" "sysctl -w net/ipv4/conf/eth0/rp_filter=2"
in_ns a sysctl -qw net/ipv4/conf/eth0/rp_filter=2
works

scenario_end
