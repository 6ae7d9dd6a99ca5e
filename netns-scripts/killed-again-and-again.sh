#!/usr/bin/env bash
# For minutes, batons are killed, stopped, frozen and started at random while clients keep asking. A connection that was
# handed off may die with its owner's baton; what never may happen is a wrong answer, a failed request for a server's own
# content (as long as it is asked where it is), an alias address or an untranslated number on a wire, or anything left on
# the host at the end.

# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
: "${SECONDS_OF_TROUBLE:=300}" "${SEED:=$RANDOM}"

topology_up a b c
make_file small 20K
start_applications
export BATON_RUST_LOG=baton=info
write_cluster
for node in "${nodes[@]}"; do in_ns "$node" ip rule >"$run_dir/log/rules-$node.before"; done
start_cluster
RANDOM=$SEED
say "seed $SEED"

spawn client "$run_dir/log/local.log" "$PYTHON" "$scripts_dir/tools/load.py" stream "${address_of[a]}" --concurrency 2 \
    --until "$run_dir/end" --expect /elsewhere/small=a --body "$run_dir/www/small"
local_stream=$spawned
spawn client "$run_dir/log/any.log" "$PYTHON" "$scripts_dir/tools/load.py" stream "${address_of[a]}" --concurrency 2 \
    --until "$run_dir/end" --expect /images/small=any --expect /videos/small=any --body "$run_dir/www/small"
any_stream=$spawned

until_time=$((SECONDS + SECONDS_OF_TROUBLE))
declare -A did=()
while ((SECONDS < until_time)); do
    node=${nodes[RANDOM % 3]}
    # a is killed and stopped but not frozen: a frozen front-end delays, by design, what it holds.
    case $((RANDOM % 3)) in
        0) kill_baton "$node"; did[kill]=$((${did[kill]:-0} + 1)) ;;
        1) stop_baton "$node"; did[stop]=$((${did[stop]:-0} + 1)) ;;
        2)
            [[ $node != a ]] || continue
            freeze_baton "$node"
            sleep "0.$((RANDOM % 10))"
            thaw_baton "$node"
            did[freeze]=$((${did[freeze]:-0} + 1))
            ;;
    esac
    sleep "0.$((RANDOM % 10))"
    ! process_gone "$(baton_pid "$node")" || start_baton "$node"
    sleep "$((RANDOM % 2)).$((RANDOM % 10))"
    assert_eq "packets with an alias address on any wire" 0 "$(wire alias-packets)" >/dev/null
done
for did_what in "${!did[@]}"; do say "        $did_what: ${did[$did_what]} times"; done
touch "$run_dir/end"
wait_until 60 process_gone "$local_stream"
wait_until 60 process_gone "$any_stream"
say "        own content: $(tail -n 1 "$run_dir/log/local.log")"
say "        others' content: $(tail -n 1 "$run_dir/log/any.log")"
grep -q '"errors": 0,' "$run_dir/log/local.log" || fail "requests for a server's own content failed"
ok "no request for a server's own content failed"
if grep -qE 'wrong body|status [0-9]|instead of' "$run_dir/log/any.log"; then fail "a wrong answer"; fi
ok "no wrong answer"

wait_for_peers
mark
fetch client a /images/small
assert_answered b
assert_counts a.handed_off=1 b.accepted=1
for node in "${nodes[@]}"; do
    stop_baton "$node"
    in_ns "$node" ip rule | diff "$run_dir/log/rules-$node.before" - || fail "rules of $node are not what they were"
    [[ -z $(in_ns "$node" nft list ruleset) ]] || fail "nftables of $node are not what they were"
done
ok "rules and nftables are what they were"

scenario_end
