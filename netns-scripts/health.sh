#!/usr/bin/env bash
# An application that answers 503, or without the word that must be in its answer, that hangs, or that is gone: its node says
# so, the others pass it over before they ask it, within the time that interval, timeout and fall make; and come back to it
# after rise good answers. A local one that is down is passed over for others that its rule names. A cluster file that
# differs on one node shows on all.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b c
make_file picture 100K
# well NODE [WORD]: what its application answers to checks.
well() { mkdir -p "$run_dir/$1/health" && echo "this is ${2:-fine}" >"$run_dir/$1/health/healthz"; }
for node in a b c; do well $node; done
start_applications
RULES='
      - name: images
        when: { path: "/images/*" }
        send_to: [b, c]
      - name: here if possible
        when: { path: "/videos/*" }
        send_to: [local, c]' \
    SERVICE='    health: { http: /healthz, host: shop.example, status: [200, 204], body: fine, interval: 400ms, timeout: 300ms, rise: 3, fall: 2 }
    probe: off' write_cluster
# The last failure is seen one interval after the first, which may begin one interval after the cause; and then it must time
# out. Being told takes milliseconds; a busy machine may take a second.
milliseconds_to_notice=$((400 * 2 + 300))
milliseconds_to_recover=$((400 * 3))
slack=1000
cp "$run_dir/cluster.yaml" "$run_dir/b/cluster.yaml"
start_cluster

told() { baton_ask "$1" peers --json | "$PYTHON" "$scripts_dir/tools/peers.py" "${@:2}"; }
# said WHAT NODE WORDS...: what NODE says WHAT to be, by tools/peers.py.
said() { [[ $(told "$2" "${@:3}") == "$1" ]]; }
now_ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }
# within WHAT MILLISECONDS COMMAND...: counted from `began`.
within() {
    wait_until 10 "${@:3}"
    assert_at_most "        milliseconds until $1" "$2" $(($(now_ms) - began))
}
# images_from SERVER COUNT...: three of them, with these counts.
images_from() {
    local server=$1
    shift
    mark
    for _ in 1 2 3; do
        fetch client a "/images/picture"
        assert_answered "$server"
    done
    assert_counts "$@"
}
well_from_b() { images_from b a.handed_off=3 b.accepted=3; }
passed_over_for_c() { images_from c a.handed_off=3 c.accepted=3 a.fallback.peer_unhealthy=3; }

wait_until 5 said "up " a health b web
well_from_b
must_fail "nothing is wrong yet" passed_over_for_c

# case_of WHAT CAUSE CURE: both are commands.
case_of() {
    local what=$1 cause=$2 cure=$3
    say "$what"
    began=$(now_ms)
    $cause
    within "b is passed over" $((milliseconds_to_notice + slack)) said "down peer_unhealthy" a health b web
    said "down peer_unhealthy" c health b web || fail "c does not know"
    passed_over_for_c
    must_fail "b is down" well_from_b
    began=$(now_ms)
    $cure
    within "b is there again" $((milliseconds_to_recover + slack)) said "up " a health b web
    # The first good one may have begun one timeout before the cure (what was stopped answers it late), the third two intervals
    # after that: 800 - 300. Two in a row would take 400 at most.
    assert_at_least "        milliseconds until three checks in a row are good" 500 $(($(now_ms) - began))
    well_from_b
}
# signal_nginx NODE SIGNAL: the master and its workers.
signal_nginx() {
    local processes
    processes=("$(<"$run_dir/$1/nginx.process")")
    mapfile -t -O 1 processes < <(xargs -n 1 <"/proc/${processes[0]}/task/${processes[0]}/children")
    kill "-$2" "${processes[@]}"
}
unwell() { touch "$run_dir/$1/health/unwell"; }
not_unwell() { rm "$run_dir/$1/health/unwell"; }
case_of "it answers 503" 'unwell b' 'not_unwell b'
case_of "it answers without the word" 'well b ill' 'well b'
case_of "it is there and does not answer" 'signal_nginx b STOP' 'signal_nginx b CONT'
# Where nothing listens a check fails at once, and so does an offer.
case_of "it is gone" 'stop_nginx b' 'start_nginx b'
assert_eq "times b said that it is down, and up" "4 5" \
    "$(grep -c 'application=down' "$run_dir/log/baton-b.log") $(grep -c 'application=up' "$run_dir/log/baton-b.log")"
for reason in 'status 503' 'the text that must be in the body is not' 'no answer in time' 'no connection: Connection refused'; do
    grep -q "service=web application=down .*reason=$reason" "$run_dir/log/baton-b.log" || fail "the log of b has no reason $reason"
done
ok "each with its reason in the log of b"

say "the local application is down"
local_videos() {
    mark
    fetch client a /videos/picture
    assert_answered a
    assert_counts
}
local_videos
unwell a
wait_until 5 grep -q 'application=down' "$run_dir/log/baton-a.log"
mark
fetch client a /videos/picture
assert_answered c
assert_counts a.handed_off=1 c.accepted=1 a.fallback.local_unhealthy=1
must_fail "another answers" local_videos
# Nobody else is named for this one, and nobody but the local server is left for the next.
mark
fetch client a /elsewhere/picture
assert_answered a
assert_counts
unwell c
wait_until 5 said "down peer_unhealthy" a health c web
mark
fetch client a /videos/picture
assert_answered a
assert_counts a.fallback.local_unhealthy=1 a.fallback.peer_unhealthy=1
not_unwell a
not_unwell c
wait_until 5 said "up " a health c web
wait_until 5 said "up " b health a web
local_videos

say "a cluster file that differs on one node"
for pair in a:b b:a c:b; do
    said same ${pair%:*} file ${pair#*:} || fail "the files are the same"
done
sed -i 's/name: images/name: pictures/' "$run_dir/b/cluster.yaml"
wait_until 5 said differs a file b
wait_until 5 said differs b file a
said same a file c || fail "a and c have the same file"
must_fail "the files differ" said same a file b
differing() { grep -c "runs with another cluster file" "$run_dir/log/baton-$1.log" || true; }
mended() { grep -c "runs with the same cluster file again" "$run_dir/log/baton-$1.log" || true; }
all_tell() { [[ $($1 a) -ge 1 && $($1 b) -ge 2 && $($1 c) -ge 1 ]]; }
wait_until 12 all_tell differing
sed -i 's/name: pictures/name: images/' "$run_dir/b/cluster.yaml"
wait_until 5 said same a file b
wait_until 5 said same b file a
wait_until 5 all_tell mended
assert_eq "times logged by a, b and c: it differs" "1 2 1" "$(differing a) $(differing b) $(differing c)"
assert_eq "times logged by a, b and c: it is mended" "1 2 1" "$(mended a) $(mended b) $(mended c)"
well_from_b

scenario_end
