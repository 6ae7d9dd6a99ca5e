#!/usr/bin/env bash
# 20,000 connections and 100,000 requests over kept-alive connections, half of them for another server, without one
# error, three times over; after each round the tables are empty, and memory does not grow from round to round.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

: "${ROUNDS:=3}" "${CONNECTIONS:=20000}" "${REQUESTS:=100000}"

topology_up a b
make_file small 2K
start_applications
# A line per packet or state change would be a test of the log.
export BATON_RUST_LOG=baton=info
# Lingering outlasts a round, so that every round fills the tables alike, however fast it is: what is kept for reuse
# depends on the fullest moment.
NO_VIDEOS=yes LIMITS='{ linger: 20s }' write_cluster
start_cluster

expectations=(--body "$run_dir/www/small" --expect /images/small=b --expect /elsewhere/small=a)
sessions=$(control_sessions)
assert_eq "control sessions" 1 "$(grep -c . <<<"$sessions" || true)"

resident=()
for ((round = 1; round <= ROUNDS; round++)); do
    say "round $round: $CONNECTIONS connections, 64 at a time"
    mark
    tool client load close "${address_of[a]}" --connections "$CONNECTIONS" --concurrency 64 "${expectations[@]}" || fail "errors"
    assert_counts a.handed_off=$((CONNECTIONS / 2)) b.accepted=$((CONNECTIONS / 2))

    say "round $round: $REQUESTS requests over 64 connections"
    mark
    tool client load keep "${address_of[a]}" --requests "$REQUESTS" --connections 64 --concurrency 64 "${expectations[@]}" || fail "errors"
    assert_counts a.handed_off=32 b.accepted=32

    wait_until 40 tables_empty
    ok "tables empty"
    resident+=("$(stat_of a process_resident_memory_bytes) $(stat_of b process_resident_memory_bytes)")
    say "        resident: ${resident[-1]}"
done

# The first round fills what is then kept for reuse; afterwards only noise of the allocator is allowed.
read -r first_a first_b <<<"${resident[0]}"
read -r last_a last_b <<<"${resident[-1]}"
assert_at_least "resident memory is known" 1000000 "$first_a"
assert_at_most "resident memory of a after the last round" $((first_a + first_a / 20 + 1048576)) "$last_a"
assert_at_most "resident memory of b after the last round" $((first_b + first_b / 20 + 1048576)) "$last_b"
assert_eq "control sessions, never renewed" "$sessions" "$(control_sessions)"

say "the same checks, fed with wrong expectations"
mark
must_fail "a answers what b should" tool client load close "${address_of[a]}" --connections 64 --expect /elsewhere/small=b
must_fail "another body" tool client load close "${address_of[a]}" --connections 64 --expect /elsewhere/small=a --body "$0"
must_fail "nothing was handed off" assert_counts a.handed_off=64 b.accepted=64
fetch client a /images/small
must_fail "one connection lingers" tables_empty
must_fail "a renewed session" assert_eq "control sessions" "${sessions/:7400/:7401}" "$(control_sessions)"

scenario_end
