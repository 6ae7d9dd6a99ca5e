#!/usr/bin/env bash
# Services that decide on the SYN: any protocol, also where the server speaks first. The SYN goes to the chosen server, whose
# kernel shakes hands with the client itself; its answers go straight to the client. What is decided for the front-end's own
# server is its kernel's, and nothing is kept. Over IPv4 and IPv6.
#
#   client .100 ------.                      .---- a: 25, 80
#   client .101 -------+---> a:25, a:80 ----+----- b: 2525, 80
#   far, behind router '                     '---- c: 25
#
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/routed.sh
. "$scripts_dir/lib/routed.sh"
# shellcheck source=netns-scripts/lib/speaks_first.sh
. "$scripts_dir/lib/speaks_first.sh"

topology_up a b c
add_router
ip -n "$(namespace client)" address add 10.77.0.101/24 dev eth0
ip -n "$(namespace client)" address add fd77::101/64 dev eth0 nodad preferred_lft 0
declare -A other_of=([4]=10.77.0.101 [6]=fd77::101)
make_file picture 3M
start_applications
speak a 25
speak b 2525
speak c 25
nodes=(a b c)

# write_mail TARGET: to whom the client's connections go.
write_mail() {
    write_services "  mail:
    frontends: { a: $(ends_of a 25) }
    servers: { a: { port: 25 }, b: { port: 2525 }, c: { port: 25 } }
    inspect: none
    rules:
      - { name: near, when: { client: [10.77.0.100, \"fd77::100\"] }, send_to: $1 }
      - { name: far, when: { client: [10.78.0.0/24, \"fd78::/64\"] }, send_to: c }
    default: local
  web:
    frontends: { a: $(ends_of a 80) }
    servers: { a: { port: 80 }, b: { port: 80 } }
    inspect: none
    default: b"
}
write_mail b
start_cluster

for family in 4 6; do
    a=${address_of[a$family]} client=${address_of[client$family]}

    say "IPv$family: who speaks first, and which connections are nobody's but the kernel's"
    mark
    talk client "$a" 25 NAME QUIT
    assert_said b b closed
    assert_counts a.handed_off=1 b.accepted=1
    mark
    talk client "$a" 25 --from "${other_of[$family]}" NAME QUIT
    assert_said a a closed
    assert_counts
    talk far "$a" 25 NAME QUIT
    assert_said c c closed
    assert_counts a.handed_off=1 c.accepted=1
    must_fail "c has answered, not b" assert_said b b closed

    say "IPv$family: large transfers each way, halves that end on their own, a reset"
    mark
    through_a=$(wire payload a "$client")
    talk client "$a" 25 'GET 20000000' 'PUT 20000000' 'GET 1' 'REST 300000'
    assert_said b ok ok ok ok
    talk client "$a" 25 'GET 1000000' ABORT
    assert_said b ok reset
    talk client "$a" 25 'SLEEP 3' NAME CLOSE
    assert_said b ok b ok
    assert_counts a.handed_off=3 b.accepted=3
    assert_eq "payload that left a for the client" "$through_a" "$(wire payload a "$client")"
    FETCH_URL="http://${host_of[a$family]}" fetch client a /images/picture
    assert_answered b
    assert_same_file "what nginx has sent" picture
    FETCH_URL="http://${host_of[a$family]}" fetch client a /images/upload -T "$run_dir/www/picture"
    assert_answered b
    assert_eq "hash of what nginx was sent" "$(sha256sum <"$run_dir/www/picture" | cut -d ' ' -f 1)" "$(tr -d '[:space:]' <"$body" | grep -oE '[0-9a-f]{64}')"

    say "IPv$family: the first SYN-ACK is lost, and the client repeats its SYN"
    mark
    lose_first_syn_acks
    talk client "$a" 25 NAME QUIT
    lose_no_more_packets
    assert_said b b closed
    assert_counts a.handed_off=1 b.accepted=1

    say "IPv$family: one source port again and again, whoever closes"
    mark
    for closes in QUIT CLOSE QUIT ABORT QUIT; do
        in_ns client sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse'
        talk client "$a" 25 --port $((6000 + family)) NAME $closes
        [[ $said == "b b "* ]] || fail "$closes: $said"
        [[ $closes != CLOSE ]] || sleep 1.2
    done
    assert_counts a.handed_off=5 b.accepted=5

    say "IPv$family: the path narrows in the middle of a transfer"
    mark
    tool far speaks_first ask "$a" 25 'GET 1000000' 'SLEEP 0.5' 'GET 3000000' QUIT >"$run_dir/narrowed" &
    asked=$!
    sleep 0.3
    ip -n "$(namespace router)" link set far mtu 1300
    wait "$asked"
    assert_eq "said" "c ok ok ok closed" "$(<"$run_dir/narrowed")"
    ip -n "$(namespace router)" link set far mtu 1500
    assert_counts a.handed_off=1 c.accepted=1
    wait_until 5 tables_empty
done

say "nothing listens at the chosen server: the client notices nothing"
hush b 2525
mark
talk client "$a" 25 NAME QUIT
assert_said a a closed
assert_counts a.fallback.refused_application_down=1
speak b 2525

say "a policy that chooses another: what is established stays where it is, also when its front-end is killed"
mark
tool client speaks_first ask "$a" 25 NAME 'SLEEP 5' NAME 'GET 100000' QUIT >"$run_dir/kept" &
asked=$!
is_opened() { [[ $(counts_since_mark) == "a.handed_off=1 b.accepted=1" ]]; }
wait_until 5 is_opened
write_mail c
baton_ask a reload >/dev/null
talk client "$a" 25 NAME QUIT
assert_said c c closed
assert_counts a.handed_off=2 b.accepted=1 c.accepted=1
kill_baton a
start_baton a
wait "$asked"
assert_eq "said by the connection that was there before" "b b ok b ok closed" "$(<"$run_dir/kept")"
wait_for_peers

say "the chosen server drains, and then is gone"
baton_ask c drain >/dev/null
mark
talk client "$a" 25 NAME QUIT
assert_said a a closed
assert_counts a.fallback.peer_draining=1
kill_baton c
wait_until 10 peer_down a c
mark
talk client "$a" 25 NAME QUIT
assert_said a a closed
assert_counts a.fallback.peer_down=1
nodes=(a b)
wait_until 5 tables_empty
nodes=(a b c)

scenario_end
