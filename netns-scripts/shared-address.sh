#!/usr/bin/env bash
# One address on two servers, and a network that sends a connection's packets to either: SYNs to a, everything else to b, which
# has seen none of them begin. Whoever owns a connection is found: by b itself where every server would choose the same one,
# otherwise by asking; answers leave from the owner, with the shared address.
#
#                      .---- SYN -----> a  .50
#   client ---- switch                         own 10.77.0.50 and fd77::50, both of them
#                      '-- all else --> b  .50
#                                       c        has no address, but serves
#
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/speaks_first.sh
. "$scripts_dir/lib/speaks_first.sh"

topology_up a b c
address_of[shared4]=10.77.0.50 host_of[shared4]=10.77.0.50
address_of[shared6]=fd77::50 host_of[shared6]='[fd77::50]'
other4=10.77.0.101 other6=fd77::101 third4=10.77.0.102 third6=fd77::102
ip -n "$(namespace client)" address add "$other4/24" dev eth0
ip -n "$(namespace client)" address add "$third4/24" dev eth0
ip -n "$(namespace client)" address add "$other6/64" dev eth0 nodad preferred_lft 0
ip -n "$(namespace client)" address add "$third6/64" dev eth0 nodad preferred_lft 0

for number in 120 121 122 123 124 125; do
    ip -n "$(namespace client)" address add "10.77.0.$number/24" dev eth0
    ip -n "$(namespace client)" address add "fd77::$number/64" dev eth0 nodad preferred_lft 0
done

# A router that balances packet by packet: the client's kernel itself, with a route for each mark. Nobody asks for the shared
# addresses on the link, and nobody answers.
for node in a b; do
    ip -n "$(namespace "$node")" address add 10.77.0.50/32 dev lo
    ip -n "$(namespace "$node")" address add fd77::50/128 dev lo nodad
    # Packets for an address of no device come in where the default route leaves.
    ip -n "$(namespace "$node")" route add default via "${address_of[client4]}"
    ip -n "$(namespace "$node")" -6 route add default via "${address_of[client6]}"
done
# through MARK NODE: packets with this mark go to NODE.
through() {
    local client
    client=$(namespace client)
    ip -n "$client" rule add fwmark "$1" lookup "10$1"
    ip -n "$client" -6 rule add fwmark "$1" lookup "10$1"
    ip -n "$client" route replace 10.77.0.50/32 via "${address_of[${2}4]}" dev eth0 table "10$1"
    ip -n "$client" -6 route replace fd77::50/128 via "${address_of[${2}6]}" dev eth0 table "10$1"
}
through 1 a
through 2 b
ip -n "$(namespace client)" route add 10.77.0.50/32 via "${address_of[a4]}" dev eth0
ip -n "$(namespace client)" -6 route add fd77::50/128 via "${address_of[a6]}" dev eth0
# split RULE...: how a client's packets to the shared addresses are divided.
split() {
    in_ns client nft -f - <<END
table inet divide {
  chain leaves {
    type route hook output priority mangle;
    ip daddr != 10.77.0.50 accept
    ip6 daddr != fd77::50 accept
    $1
  }
}
END
}
split_anew() {
    in_ns client nft delete table inet divide
    split "$1"
}
syns_to_a='tcp flags & (syn | ack) == syn meta mark set 1 accept; meta mark set 2'
split "$syns_to_a"

speak a 25
speak b 25
speak b 2525
speak c 25
nodes=(a b c)
write_services "  mail:
    frontends: { a: $(ends_of shared 25), b: $(ends_of shared 25) }
    servers: { a: { port: 25 }, b: { port: 2525 }, c: { port: 25 } }
    inspect: none
    rules:
      - { name: everywhere alike, when: { client: [10.77.0.100, \"fd77::100\"] }, send_to: c }
      - { name: by hash, when: { client: [10.77.0.120/29, \"fd77::120/125\"] }, send_to: { nodes: [a, b, c], by: hash(client) } }
      - { name: the one, when: { client: [$other4, \"$other6\"] }, send_to: b }
    default: local"
start_cluster

# Of b, which has seen no SYN. (a asks, too, when its kernel says a RST for what it has no more: a late acknowledgement is enough.)
asked() { stat_of b owner_questions_total; }
for family in 4 6; do
    shared=${address_of[shared$family]}
    other=other$family third=third$family
    client=${address_of[client$family]}

    say "IPv$family: a third server, which every server would choose: nobody has to ask"
    mark
    before=$(asked)
    talk client "$shared" 25 NAME 'GET 5000000' 'PUT 5000000' 'REST 100000'
    assert_said c c ok ok ok
    talk client "$shared" 25 QUIT
    assert_said c closed
    assert_counts a.handed_off=2 c.accepted=2
    assert_eq "questions" "$before" "$(asked)"
    assert_eq "payload that left a or b for the client" "0 0" "$(wire payload a "$client") $(wire payload b "$client")"

    say "IPv$family: the server that all but the SYN comes to"
    mark
    talk client "$shared" 25 --from "${!other}" NAME 'GET 5000000' 'PUT 5000000' ABORT
    assert_said b b ok ok reset
    assert_counts a.handed_off=1 b.accepted=1
    assert_eq "questions" "$before" "$(asked)"

    say "IPv$family: 'local' is where the SYN came to, and b has to ask"
    mark
    talk client "$shared" 25 --from "${!third}" NAME 'GET 5000000' 'PUT 5000000' 'REST 100000'
    assert_said a a ok ok ok
    talk client "$shared" 25 --from "${!third}" 'SLEEP 1' NAME CLOSE
    assert_said a ok a ok
    assert_counts
    # Each of the two connections: b asks a and c, once.
    assert_eq "questions" $((before + 4)) "$(asked)"
    must_fail "nobody was asked" assert_eq "questions" "$before" "$(asked)"

    say "IPv$family: a hash of the client's address, which every server finds alike: nobody has to ask"
    before=$(asked)
    declare -A chosen=()
    for number in 120 121 122 123 124 125; do
        if [[ $family == 4 ]]; then from=10.77.0.$number; else from=fd77::$number; fi
        talk client "$shared" 25 --from "$from" NAME 'PUT 10000' NAME QUIT
        server=${said%% *}
        assert_said "$server" "$server" ok "$server" closed
        chosen[$server]=1
        talk client "$shared" 25 --from "$from" NAME QUIT
        assert_said "$server" "$server" closed
    done
    assert_eq "questions" "$before" "$(asked)"
    # Over IPv6 they are one network of 64 bits, and so one client.
    if [[ $family == 4 ]]; then assert_eq "servers" "a b c" "$(printf '%s\n' "${!chosen[@]}" | sort | xargs)"; else assert_eq "servers" 1 ${#chosen[@]}; fi

    say "IPv$family: the first SYN-ACK is lost"
    lose_first_syn_acks
    talk client "$shared" 25 --from "${!third}" NAME QUIT
    assert_said a a closed
    talk client "$shared" 25 NAME QUIT
    assert_said c c closed
    lose_no_more_packets
done

say "the client's network sends it elsewhere in the middle: a to b, and back"
split_anew 'meta mark set 1'
tool client speaks_first ask "${address_of[shared4]}" 25 --from "$third4" 'GET 1000' 'SLEEP 0.6' 'PUT 1000000' 'SLEEP 0.6' 'GET 1000000' QUIT >"$run_dir/moved" &
moved=$!
tool client speaks_first ask "${address_of[shared4]}" 25 'GET 1000' 'SLEEP 0.6' 'PUT 1000000' 'SLEEP 0.6' 'GET 1000000' QUIT >"$run_dir/moved-c" &
moved_c=$!
sleep 0.4
split_anew 'meta mark set 2'
sleep 0.6
split_anew 'meta mark set 1'
wait "$moved" "$moved_c"
assert_eq "said by a" "a ok ok ok ok ok closed" "$(<"$run_dir/moved")"
assert_eq "said by c" "c ok ok ok ok ok closed" "$(<"$run_dir/moved-c")"

say "a port is used again, and b still believes that it owns its connection, which is over: a has the new one"
in_ns client sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse'
split_anew 'meta mark set 2'
talk client "${address_of[shared4]}" 25 --from "$third4" --port 6100 NAME CLOSE
assert_said b b ok
sleep 1.2
split_anew "$syns_to_a"
dropped() { stat_of b 'drops_total{reason="unexpected_from_kernel"}'; }
before=$(dropped)
talk client "${address_of[shared4]}" 25 --from "$third4" --port 6100 NAME 'GET 100000' QUIT
assert_said a a ok closed
assert_eq "resets of b's kernel that stayed there" $((before + 1)) "$(dropped)"

say "every packet to the other one"
split_anew 'numgen inc mod 2 0 meta mark set 1 accept; meta mark set 2'
mark
for from in "$client" "$other6" "$third6"; do
    talk client "$shared" 25 --from "$from" 'GET 1000000' 'PUT 1000000' QUIT
    [[ $said == [abc]" ok ok closed" ]] || fail "$from: $said"
done
split_anew "$syns_to_a"

say "the chosen server is gone: the SYN goes to nobody else's, and b, which would have chosen it too, has to ask"
hush c 25
mark
talk client "$shared" 25 NAME QUIT
assert_said a a closed
assert_counts a.fallback.refused_application_down=1

say "what no server has is told so, by one of them"
assert_eq "an acknowledgement out of nowhere" "reset" "$(tool client stray_ack "$shared" 25)"

wait_until 5 tables_empty
scenario_end
