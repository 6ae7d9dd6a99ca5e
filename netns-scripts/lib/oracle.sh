# shellcheck shell=bash
# Whether a client could tell. Source after lib.sh; needs tshark, tcpdump and ethtool (`oracle_ready` installs them).
#
# What the client's wire carried is captured where the client is, whole, and read by tshark, by connection: every checksum
# right, timestamps of the server never back, and no analysis flag (retransmission, out of order, lost segment, zero window,
# ...) beyond what the same course of a connection shows without handoff. tools/oracle.py has the details.
#
#   oracle_ready                          once, after `topology_up` (and `add_router`): see complete_checksums
#   oracle_capture NAME [PLACE [DEVICE]]  begins to capture, on a device (eth0) of the namespace PLACE ($ORACLE_PLACE, or client)
#   oracle_end NAME                       ends it and reads it
#   oracle_flags NAME [PORT...]           the flags as one line; empty if there are none
#   oracle_story NAME [PORT...]           SYN, FIN and RST in their order, one line per connection
#   assert_clean NAME [PORT...]           checksums and timestamps (assert_server_clean: of the server)
#   assert_as_transparent_as WITH WITHOUT             clean, and exactly the same flags: for courses without chance
#   assert_no_worse_than WITH WITHOUT TIMES AND       clean, and of each class of flags at most TIMES as many AND more: with
#                                                     chance (tools/oracle.py has the classes)
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

# keep_in_order NAMESPACE...: of what arrives there the segments of one connection stay in their order, as on a wire. A veth gives
# each segment to the processor that sends it, and those of two processors overtake each other; receive packet steering gives
# all of a connection to one. Of the first 32 processors, as many as one word of the mask can name.
keep_in_order() {
    local name processors
    processors=$(nproc)
    for name in "$@"; do
        # shellcheck disable=SC2016 # of the inner shell
        in_ns "$name" sh -c 'for mask in /sys/class/net/*/queues/rx-*/rps_cpus; do echo "$1" >"$mask"; done' sh \
            "$(printf %x $(((1 << (processors < 32 ? processors : 32)) - 1)))"
    done
}

# meet_the_client SERVER...: they know the client's hardware address. A back-end's first segments for a client are a whole window,
# and while they wait for that address later ones overtake them; a server that has sent a SYN-ACK has asked before. By a connection
# that is refused: a datagram to a port where nobody is would be answered by an ICMP error, and some count those.
meet_the_client() {
    local name
    for name in "$@"; do
        in_ns "$name" bash -c ": >/dev/tcp/${address_of[client]}/9" 2>/dev/null || true
        wait_until 5 knows_the_client "$name"
    done
}
knows_the_client() { [[ $(ip -n "$(namespace "$1")" neighbour show to "${address_of[client]}") == *lladdr* ]]; }

oracle_ready() {
    install_missing tshark:tshark tcpdump:tcpdump ethtool:ethtool
    complete_checksums "${nodes[@]}" client
    keep_in_order switch "${nodes[@]}" client
    meet_the_client "${nodes[@]}"
}

oracle_capture() {
    rm -f "$run_dir/log/oracle-$1.log"
    # Each segment at once: without --immediate-mode the last ones would be a second late, with it large captures get holes.
    local modes=(-B 131072 --immediate-mode)
    [[ -z ${CAPTURE_LARGE:-} ]] || modes=(-B 524288)
    spawn "${2:-${ORACLE_PLACE:-client}}" "$run_dir/log/oracle-$1.log" \
        tcpdump -i "${3:-eth0}" -n -U -Z root -s 0 "${modes[@]}" -w "$run_dir/capture-oracle-$1.pcap" tcp
    echo "$spawned" >"$run_dir/oracle-$1.process"
    wait_until 10 grep -q 'listening on' "$run_dir/log/oracle-$1.log"
}

oracle_end() {
    local pid found
    pid=$(<"$run_dir/oracle-$1.process")
    sleep "$([[ -z ${CAPTURE_LARGE:-} ]] && echo 0.2 || echo 1.2)"
    kill -INT "$pid"
    wait_until 20 process_gone "$pid"
    grep -q '^0 packets dropped by kernel' "$run_dir/log/oracle-$1.log" || fail "the capture $1 has holes, and proves nothing"
    found=$(oracle_read "$run_dir/capture-oracle-$1.pcap" "$1")
    say "        $1: $found"
    [[ ! -e $run_dir/oracle-$1.json.wrong.pcap ]] || cp "$run_dir/oracle-$1.json.wrong.pcap" "$run_dir/log/wrong-$1.pcap"
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

# assert_server_clean NAME [PORT...]: the same of what the server sent.
assert_server_clean() {
    local wrong
    wrong=$(oracle_of wrong "$@" | grep ' server: ') || true
    [[ -z $wrong ]] || fail "$1: $(wc -l <<<"$wrong") segments of the server are wrong: $(head -n 3 <<<"$wrong")"
    ok "$1: every checksum of the server is right, no timestamp goes back"
}

assert_as_transparent_as() {
    assert_clean "$1"
    assert_eq "$1: flags, as in $2" "$(oracle_flags "$2")" "$(oracle_flags "$1")"
}

assert_no_worse_than() {
    assert_clean "$1"
    assert_flags_no_worse_than "$@"
}

# assert_flags_no_worse_than: on a wire that itself spoils what it carries.
assert_flags_no_worse_than() {
    local other with_it
    other=$(oracle_of classes "$2")
    with_it=$run_dir/oracle-beyond.json
    oracle_of chosen "$1" >"$with_it"
    oracle_of chosen "$2" >"$with_it.other"
    oracle beyond "$with_it" "$with_it.other" "$3" "$4" >"$with_it.found" || fail "$1: flags beyond those of $2: $(<"$with_it.found")"
    ok "$1: [$(oracle_of classes "$1")], at most $3 times and $4 more than $2: [$other]"
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
# WAYS may leave out `local`. Expects `topology_up` and `start_applications` to be done and baton not to run; leaves it running
# on every server.
#
# COURSE may have arguments, as in `losing 5 client`; in names its words are joined by dashes. CAPTURE_EACH=yes makes a capture
# for each course instead of one for all: for large ones, which are forgotten when they have been read. `prepare_COURSE` and
# `finish_COURSE`, if there are such functions, are called before the capture begins and after it; they may change the client's
# wire. CAPTURE_SENT=yes captures at the
# client's port of the switch too, where nothing has happened yet to what a server sent: COURSE-WAY-sent.
# CAPTURE_LARGE=yes for tens of megabytes.
: "${WAYS:=without local handed-off}"
# shellcheck disable=SC2034 # for the courses
three_ways() {
    local course name way server content handoffs ports
    for way in $WAYS; do
        server=a content=/remain
        [[ $way != handed-off ]] || server=b content=/images
        [[ $way == without || -n ${cluster_runs:-} ]] || start_cluster
        [[ $way == without ]] || local cluster_runs=yes
        [[ -n ${CAPTURE_EACH:-} ]] || oracle_capture "$way"
        for course in "$@"; do
            name=${course// /-}-$way
            say "${course}, $way"
            ports=() handoffs=
            [[ $way == without ]] || mark
            if [[ -n ${CAPTURE_EACH:-} ]]; then
                ! declare -F "prepare_${course%% *}" >/dev/null || eval "prepare_$course"
                oracle_capture "$name"
                [[ -z ${CAPTURE_SENT:-} ]] || oracle_capture "$name-sent" switch client
            fi
            # shellcheck disable=SC2086 # a function and its arguments
            $course
            if [[ -n ${CAPTURE_EACH:-} ]]; then
                oracle_end "$name"
                [[ -z ${CAPTURE_SENT:-} ]] || oracle_end "$name-sent"
                rm -f "$run_dir/capture-oracle-$name"*.pcap
                ! declare -F "finish_${course%% *}" >/dev/null || eval "finish_$course"
            fi
            [[ ${#ports[@]} -gt 0 ]] || ports=("$local_port")
            (IFS=, && printf '%s' "${ports[*]}") >"$run_dir/oracle-$name.ports"
            : "${handoffs:=${#ports[@]}}"
            case $way in
                local) assert_counts ;;
                handed-off) assert_counts "a.handed_off=$handoffs" "b.accepted=$handoffs" ;;
            esac
        done
        [[ -z ${CAPTURE_EACH:-} ]] || continue
        oracle_end "$way"
        for course in "$@"; do
            name=${course// /-}-$way
            # shellcheck disable=SC2046 # one word per port
            oracle chosen "$run_dir/oracle-$way.json" $(tr , ' ' <"$run_dir/oracle-$name.ports") >"$run_dir/oracle-$name.json"
        done
    done
}

# assert_three_ways_alike COURSE...: exactly the same flags each way, and the same ends.
assert_three_ways_alike() {
    local course way
    for course in "$@"; do
        for way in ${WAYS#without}; do
            assert_as_transparent_as "$course-$way" "$course-without"
            assert_eq "$course-$way: its SYN, FIN and RST" "$(oracle_story "$course-without")" "$(oracle_story "$course-$way")"
        done
    done
}

# oracle_controls NAME: shows on a capture without any flag that each of the oracle's checks can fail.
oracle_controls() {
    local kind
    assert_eq "flags of $1, which is to be spoilt" "" "$(oracle_flags "$1")"
    for kind in repeated lost zero-window tcp-checksum ip-checksum timestamp overtaken repeated-as-older; do
        [[ $FAMILY != 6 || $kind != ip-checksum ]] || continue
        oracle spoil "$run_dir/capture-oracle-$1.pcap" "$run_dir/capture-oracle-spoilt.pcap" $kind
        oracle_read "$run_dir/capture-oracle-spoilt.pcap" spoilt >/dev/null
        case $kind in
            *checksum | timestamp | repeated-as-older) must_fail "$kind is wrong in one segment" assert_clean spoilt ;;
            *)
                [[ $kind != overtaken ]] || assert_clean spoilt
                must_fail "one segment: $kind" assert_as_transparent_as spoilt "$1"
                # How often a window is full varies with the reader; see CLASSES in tools/oracle.py.
                [[ $kind == zero-window ]] || must_fail "one segment: $kind" assert_no_worse_than spoilt "$1" 1 0
                ;;
        esac
    done
}
