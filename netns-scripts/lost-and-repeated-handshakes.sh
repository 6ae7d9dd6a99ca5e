#!/usr/bin/env bash
# One segment of a connection is lost, or delivered twice, or once more much later: the SYN, the SYN-ACK, the handshake's
# last acknowledgement, the request, the first of the answer, either FIN. The client sees of a connection that was handed off
# what it sees of a server that has no baton, and each request reaches one application, once.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/alike.sh
. "$scripts_dir/lib/alike.sh"

alike_up
# One initial window (RFC 6928): what the server sends, and in which segments, is not chance.
make_file picture 10K
NO_VIDEOS=yes start_cluster

course nothing picture
for kind in "${kinds[@]}"; do
    course "lost-$kind" picture
    lose_once "$kind" "${ports[@]}"
    course "twice-$kind" picture
    repeat_once "$kind" "${ports[@]}"
    # Between two requests, and long after the end.
    course "late-$kind" picture requests=2 pause=0.8
    echo_once "$kind" 400 "${ports[@]}"
    course "after-the-end-$kind" picture
    echo_once "$kind" 2500 "${ports[@]}"
done
# The SYN of a first connection arrives again in the midst of the second one from the same port.
course syn-of-the-one-before picture again=2 requests=2 pause=0.6
echo_once syn 950 "${ports[@]}"
start_losing
start_repeating
start_echoes
oracle_capture courses
mark
run_courses
sleep 2
end_echoes
assert_lost $((3 * ${#kinds[@]}))
assert_repeated $((3 * ${#kinds[@]}))
assert_counts a.handed_off=31 b.accepted=31
oracle_end courses
# What else may differ is which of two timers of a second or of 200 ms is first, or which millisecond it is:
# whether the client repeats its SYN, or the server its SYN-ACK, or both, when the SYN-ACK was lost: both wait for a second, by
# timers that the kernel rounds to 64 ms;
# whether the server repeats its FIN too when the client does;
# whether what was delayed by the network is older, by the clocks, than what came after it, or as old;
# whether the client has forgotten the connection when the second acknowledgement of its FIN comes;
# how many of the segments behind the gap the client acknowledges one by one, and whether with the window it had said before.
chance=(
    lost-syn-ack/'*':{client:SYN,client.retransmission,server:SYN,server.retransmission,server.out_of_order,client.duplicate_ack}~1
    lost-syn-ack/'*:timestamps of the server that go back'
    lost-client-fin/'*':{server:FIN,server.retransmission,server.spurious_retransmission,client.duplicate_ack}
    {late,after-the-end}-'*:timestamps of the server that go back' late-ack/'*':server.duplicate_ack
    {late,after-the-end}-fin/'*':server.{spurious_,}retransmission
    twice-client-fin/'*':client:RST {lost,late}-answer/'*':client.duplicate_ack late-syn-ack/'*':client.duplicate_ack
)
# A request that is delivered twice while it is held is acknowledged once, and so is its repetition, by the answer.
different=(twice-request/handed-off:server.duplicate_ack)
# An old SYN that comes when the connection is over: where it was served, it would meet TIME-WAIT, and an acknowledgement be
# the answer; here it meets a kernel that has no TIME-WAIT of its own, and is answered as after a connection that the client
# closed first, by a SYN-ACK. Either way the client knows of nothing, and resets.
different+=(after-the-end-syn/handed-off:server{:SYN,.duplicate_ack,.lost_segment,.reused_ports})
assert_alike "${chance[@]}" "${different[@]}"

say "the same checks, fed with what is wrong"
FEW=0 must_fail "b's answer to an old SYN is another" assert_alike "${chance[@]}" twice-request/handed-off:server.duplicate_ack
FEW=0 must_fail "a repeated request is acknowledged otherwise" assert_alike "${chance[@]}" "${different[@]:1}"
must_fail "one more was lost" assert_lost $((3 * ${#kinds[@]} + 1))
must_fail "one less was handed off" assert_counts a.handed_off=30 b.accepted=30
: >"$courses"
course one picture
LOGS_TOO="a b c" must_fail "each request is in one of the logs" run_courses
sed -i 's/ b / a /' "$courses"
must_fail "b answers what it is for" run_courses

scenario_end
