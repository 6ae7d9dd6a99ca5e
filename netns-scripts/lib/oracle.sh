# shellcheck shell=bash
# Whether a client could tell. Source after lib.sh; needs tshark, tcpdump and ethtool (`oracle_ready` installs them).
#
# What the client's wire carried is captured where the client is, whole, and read by tshark, by connection: every checksum
# right, timestamps of the server never back, and no analysis flag (retransmission, out of order, lost segment, zero window,
# ...) beyond what the same course of a connection shows without handoff. tools/oracle.py has the details.
#
#   oracle_ready                          once, after `topology_up` (and `add_router`): see complete_checksums
#   oracle_capture NAME [PLACE]           begins to capture, in namespace PLACE (client)
#   oracle_end NAME                       ends it and reads it
#   oracle_flags NAME [PORT...]           the flags as one line; empty if there are none
#   oracle_story NAME [PORT...]           SYN, FIN and RST in their order, one line per connection
#   assert_clean NAME [PORT...]           checksums and timestamps
#   assert_as_transparent_as WITH WITHOUT             clean, and exactly the same flags: for courses without chance
#   assert_no_worse_than WITH WITHOUT TIMES AND       clean, and of each flag at most TIMES as many AND more: with chance
#
#   three_ways COURSE...                  runs each course without baton, with baton answered locally, and handed off
#
# WITH and WITHOUT are NAME or NAME:PORT[,PORT...], the ports being the client's.

# shellcheck source=netns-scripts/lib/install.sh
. "$scripts_dir/lib/install.sh"

# complete_checksums NAMESPACE...: what they send is complete and is no larger than a segment when it leaves them; else a
# capture shows what no wire would carry.
complete_checksums() {
    local name
    for name in "$@"; do in_ns "$name" ethtool -K eth0 tx off tso off gso off gro off >/dev/null 2>&1; done
}

oracle_ready() {
    install_missing tshark:tshark tcpdump:tcpdump ethtool:ethtool
    complete_checksums "${nodes[@]}" client
}

oracle_capture() {
    rm -f "$run_dir/log/oracle-$1.log"
    # Each segment at once: without --immediate-mode the last ones would be a second late.
    spawn "${2:-client}" "$run_dir/log/oracle-$1.log" \
        tcpdump -i eth0 -n -U -Z root -s 0 -B 131072 --immediate-mode -w "$run_dir/capture-oracle-$1.pcap" tcp
    echo "$spawned" >"$run_dir/oracle-$1.process"
    wait_until 10 grep -q 'listening on' "$run_dir/log/oracle-$1.log"
}

oracle_end() {
    local pid
    pid=$(<"$run_dir/oracle-$1.process")
    sleep 0.2
    kill -INT "$pid"
    wait_until 20 process_gone "$pid"
    grep -q '^0 packets dropped by kernel' "$run_dir/log/oracle-$1.log" || fail "the capture $1 has holes, and proves nothing"
    say "        $1: $(oracle_read "$run_dir/capture-oracle-$1.pcap" "$1")"
}

oracle() { "$PYTHON" "$scripts_dir/tools/oracle.py" "$@"; }
# oracle_read FILE NAME
oracle_read() { oracle read "$1" "$run_dir/oracle-$2.json" || fail "$1 cannot be read"; }

# oracle_of QUESTION NAME[:PORT,...] [PORT...]
oracle_of() {
    local name=${2%%:*} ports=
    [[ $2 != *:* ]] || ports=${2#*:}
    # shellcheck disable=SC2086 # one word per port
    oracle "$1" "$run_dir/oracle-$name.json" ${ports//,/ } "${@:3}"
}
oracle_flags() { oracle_of flags "$@"; }
oracle_story() { oracle_of story "$@"; }

assert_clean() {
    local wrong
    wrong=$(oracle_of wrong "$@") || fail "$*: cannot tell"
    [[ -z $wrong ]] || fail "$1: $(wc -l <<<"$wrong") segments are wrong: $(head -n 3 <<<"$wrong")"
    ok "$1: every checksum is right, no timestamp goes back"
}

assert_as_transparent_as() {
    assert_clean "$1"
    assert_eq "$1: flags, as in $2" "$(oracle_flags "$2")" "$(oracle_flags "$1")"
}

assert_no_worse_than() {
    local other
    assert_clean "$1"
    other=$(oracle_flags "$2")
    with_it=$run_dir/oracle-beyond.json
    oracle_of chosen "$1" >"$with_it"
    oracle_of chosen "$2" >"$with_it.other"
    oracle beyond "$with_it" "$with_it.other" "$3" "$4" >"$with_it.found" || fail "$1: flags beyond those of $2: $(<"$with_it.found")"
    ok "$1: [$(oracle_flags "$1")], at most $3 times and $4 more than $2: [$other]"
}

# --- the same course, three ways ------------------------------------------------------------------------------------------------

# three_ways COURSE...: calls each function COURSE without baton, with baton and answered locally, and handed off from a to b.
# A course finds
#   $way        without, local or handed-off
#   $server     who has to answer: a, a or b
#   $content    the first element of its path, of the same length: /remain or /images
# makes connections to port 80 of a (with `fetch client a "$content/..."`, say), checks what it gets, and leaves the ports they
# came from in the array `ports` if they are not the one that `fetch` sets. Who answered is checked by the course
# (`assert_answered "$server"`), counts are checked here: a handed-off way of a course makes as many handoffs as it has ports,
# unless `handoffs` says another number; the others make none.
#
# Afterwards COURSE-WAY is a name for the assertions above: `assert_as_transparent_as COURSE-handed-off COURSE-without`.
# Expects `topology_up` and `start_applications` to be done and baton not to run; leaves it running on every server.
three_ways() {
    local course way server content handoffs ports
    for way in without local handed-off; do
        server=a content=/remain
        case $way in
            local) start_cluster ;;
            handed-off) server=b content=/images ;;
        esac
        oracle_capture "$way"
        for course in "$@"; do
            say "$course, $way"
            ports=() handoffs=
            [[ $way == without ]] || mark
            $course
            [[ ${#ports[@]} -gt 0 ]] || ports=("$local_port")
            (IFS=, && printf '%s' "${ports[*]}") >"$run_dir/oracle-$course-$way.ports"
            : "${handoffs:=${#ports[@]}}"
            case $way in
                local) assert_counts ;;
                handed-off) assert_counts "a.handed_off=$handoffs" "b.accepted=$handoffs" ;;
            esac
        done
        oracle_end "$way"
        for course in "$@"; do
            # shellcheck disable=SC2046 # one word per port
            oracle chosen "$run_dir/oracle-$way.json" $(tr , ' ' <"$run_dir/oracle-$course-$way.ports") >"$run_dir/oracle-$course-$way.json"
        done
    done
}

# assert_three_ways_alike COURSE...: exactly the same flags each way, and the same ends.
assert_three_ways_alike() {
    local course way
    for course in "$@"; do
        for way in local handed-off; do
            assert_as_transparent_as "$course-$way" "$course-without"
            assert_eq "$course-$way: its SYN, FIN and RST" "$(oracle_story "$course-without")" "$(oracle_story "$course-$way")"
        done
    done
}

# oracle_controls NAME: shows on a capture without any flag that each of the oracle's checks can fail.
oracle_controls() {
    local kind
    assert_eq "flags of $1, which is to be spoilt" "" "$(oracle_flags "$1")"
    for kind in repeated lost zero-window tcp-checksum ip-checksum timestamp; do
        [[ $FAMILY != 6 || $kind != ip-checksum ]] || continue
        oracle spoil "$run_dir/capture-oracle-$1.pcap" "$run_dir/capture-oracle-spoilt.pcap" $kind
        oracle_read "$run_dir/capture-oracle-spoilt.pcap" spoilt >/dev/null
        case $kind in
            *checksum | timestamp) must_fail "$kind is wrong in one segment" assert_clean spoilt ;;
            *)
                must_fail "one segment: $kind" assert_as_transparent_as spoilt "$1"
                must_fail "one segment: $kind" assert_no_worse_than spoilt "$1" 1 0
                ;;
        esac
    done
}
