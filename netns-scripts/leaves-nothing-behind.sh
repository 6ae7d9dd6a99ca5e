#!/usr/bin/env bash
# These scripts themselves: two stages at once do not meet, and however one ends (success, a failed assertion, Ctrl-C,
# TERM, HUP), no namespace, process or file of it is left.

# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
unset BATON_RUN_ID BATON_LOGS
topology_up a

cat >"$run_dir/actor.sh" <<END
. "$scripts_dir/lib.sh"
topology_up a b
make_file small 1K
start_nginx a
start_nginx b
NO_VIDEOS=yes start_cluster
mark
fetch client a /images/small
assert_answered b
assert_counts a.handed_off=1 b.accepted=1
echo "\$run_id \$run_dir" >"\$1.is"
mv "\$1.is" "\$1"
case \$2 in
    succeeds) scenario_end ;;
    fails-answered) assert_answered a ;;
    fails-counts) assert_counts ;;
    leaves-early) exit 0 ;;
    waits) sleep 60 ;;
esac
END

# start_actor NAME ENDING: in a process group of its own, as a terminal would start it.
start_actor() {
    TMPDIR=$run_dir setsid env --default-signal=INT,TERM,HUP bash "$run_dir/actor.sh" "$run_dir/$1" "$2" >"$run_dir/log/$1.log" 2>&1 &
    actors[$1]=$!
    wait_until 20 test -e "$run_dir/$1"
}
declare -A actors=()
# assert_gone NAME STATUS
assert_gone() {
    local id dir status=0
    wait_until 20 process_gone "${actors[$1]}"
    wait "${actors[$1]}" || status=$?
    read -r id dir <"$run_dir/$1"
    assert_eq "$1: exit status" "$2" "$status"
    assert_nothing_of "$id" "$dir"
}
assert_nothing_of() {
    local left
    left=$(find /run/netns -name "bt$1-*"; find "$(dirname "$2")" -maxdepth 1 -path "$2"; pgrep -f "$2/" || true)
    assert_eq "namespaces, files and processes of bt$1" "" "$left"
}

say "two at once"
start_actor first waits
start_actor second waits
read -r first_id first_dir <"$run_dir/first"
must_fail "it is still running" assert_nothing_of "$first_id" "$first_dir"
kill -INT -- "-${actors[first]}"
assert_gone first 130
say "the second has not noticed"
(
    read -r run_id run_dir <"$run_dir/second"
    nodes=(a b)
    mark
    fetch client a /images/small
    assert_answered b
    assert_counts a.handed_off=1 b.accepted=1
)
kill -TERM -- "-${actors[second]}"
assert_gone second 143

# The two that fail are the controls of what was just asserted.
for ending in succeeds:0 fails-answered:1 fails-counts:1 leaves-early:1; do
    say "one that ${ending%:*}"
    start_actor "${ending%:*}" "${ending%:*}"
    assert_gone "${ending%:*}" "${ending#*:}"
done
say "one that is hung up on"
start_actor hung waits
kill -HUP -- "-${actors[hung]}"
assert_gone hung 129

scenario_end
