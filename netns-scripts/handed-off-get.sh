#!/usr/bin/env bash
# A request for another server's content is answered by that server, straight to the client: the answer is octet by
# octet right, the application there sees the client's own address and port, the application here sees nothing, and no
# octet of the answer passes the front-end.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b c
make_file picture 3M
start_applications
start_cluster

# passed_through NODE: response payload that left NODE's wire for the client.
passed_through() { wire payload "$1" "$client_address"; }
declare -A alias_pattern=([4]='198\.18\.[0-9.]+' [6]='fd00:ba70:[0-9a-f:]+')
assert_log_line() {
    grep -qE "^$client_address:$local_port ${alias_pattern[$FAMILY]} GET /images/picture 200 3145728\$" "$run_dir/log/nginx-b.access.log" ||
        fail "no line for $client_address:$local_port in the access log of b: $(tail -n 1 "$run_dir/log/nginx-b.access.log")"
    ok "access log of b has the client's own address and port: $client_address:$local_port"
}

say "one request to a, which is b's to answer"
mark
accepted=$(connections_accepted a)
through_a=$(passed_through a)
through_b=$(passed_through b)
from_b_to_a=$(wire traffic b "${address_of[a]}" '*')
fetch client a /images/picture
assert_answered b
assert_same_file "the answer" picture
assert_counts a.handed_off=1 b.accepted=1
assert_log_line
assert_eq "connections accepted by nginx on a" "$accepted" "$(connections_accepted a)"
assert_eq "response payload that passed a" "$through_a" "$(passed_through a)"
assert_at_least "response payload that left b" $((through_b + 3145728)) "$(passed_through b)"
# The answer could also have come back to a inside something else.
assert_at_most "octets of any kind from b to a" 100000 $(($(wire traffic b "${address_of[a]}" '*') - from_b_to_a))

say "the same checks, fed with a connection that is not handed off"
mark
fetch client a /elsewhere/picture
assert_answered a
assert_same_file "the local answer" picture
must_fail "a itself answered" assert_answered b
must_fail "nothing was handed off" assert_counts a.handed_off=1 b.accepted=1
must_fail "b never saw this port" assert_log_line
must_fail "nginx on a did accept" assert_eq "connections accepted by nginx on a" "$accepted" "$(connections_accepted a)"
must_fail "a itself sent the answer" assert_eq "response payload that passed a" "$through_a" "$(passed_through a)"
printf x >>"$body"
must_fail "one octet too many" assert_same_file "the local answer" picture

say "the counter of payload, fed with a plain relay on a"
through_a=$(passed_through a)
spawn a "$run_dir/log/relay.log" "$PYTHON" "$scripts_dir/tools/relay.py" 8080 "${host_of[b]}:80"
wait_until 5 listening a 8080
in_ns client curl -sS --noproxy '*' --max-time 20 -o "$run_dir/relayed" "http://${host_of[a]}:8080/elsewhere/picture"
cmp "$run_dir/relayed" "$run_dir/www/picture" || fail "the relay spoiled the answer"
must_fail "a relay carries every octet" assert_eq "response payload that passed a" "$through_a" "$(passed_through a)"
assert_at_least "payload of the relayed answer on a's wire" $((through_a + 3145728)) "$(passed_through a)"

say "every front-end, every content"
for front_end in a b c; do
    for content in images:b videos:c elsewhere:"$front_end"; do
        owner=${content#*:}
        mark
        fetch client "$front_end" "/${content%:*}/picture"
        assert_answered "$owner"
        assert_same_file "/${content%:*}/picture from $front_end" picture
        if [[ $owner == "$front_end" ]]; then
            assert_counts
        else
            assert_counts "$front_end.handed_off=1" "$owner.accepted=1"
        fi
    done
done
assert_eq "resets from any server" 0 "$(wire resets '*')"
in_ns client curl -sS --noproxy '*' --max-time 5 "http://${host_of[a]}:81/" 2>/dev/null || true
must_fail "nothing listens on port 81" assert_eq "resets from any server" 0 "$(wire resets '*')"

scenario_end
