#!/usr/bin/env bash
# Client, front-end and back-end may each have window scales of 0, 7, 14 or none, SACK and timestamps on or off, ECN on, on
# demand or off: whatever they agree on with a server that has no baton they get through baton too, and uploads and downloads
# are whole, also when segments are lost or marked as congested. Where the back-end cannot keep what the front-end promised,
# it refuses, and the local server answers.
#
# EVERY=N: only every Nth combination (11; 1 for all of them).
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/alike.sh
. "$scripts_dir/lib/alike.sh"
# shellcheck source=netns-scripts/lib/settings.sh
. "$scripts_dir/lib/settings.sh"

: "${EVERY:=11}"
alike_up
make_file large 5M
make_file picture 500K
usual
set_at c:tcp_{sack,timestamps,window_scaling}=1 c:tcp_ecn=2 c:"$(scale 7)"
NO_VIDEOS=yes start_cluster
expectations=$run_dir/expectations
combinations=0 handed_off=0 refused=0

# is_chosen: whether the next combination is one of every EVERY.
is_chosen() { ((combinations++ % EVERY == EVERY / 2)); }

# in_every_way LABEL OUTCOME AGREED FILE SECONDS: a download and an upload each way, at the same time. AGREED is what SYN and
# SYN-ACK must agree on: see tools/promises.py.
in_every_way() {
    local label=$1 outcome=$2 agreed=$3 file=$4 within=$5 answers=b counts='a.handed_off=2 b.accepted=2' way port
    say "$label: $outcome"
    [[ $outcome == handed-off ]] || { answers=a counts='a.fallback.refused_promise=2'; }
    : >"$courses"
    mark
    PEER_ANSWERS=$answers course "$label" "$file" "within=$within"
    PEER_ANSWERS=$answers course "$label" upload "upload=$(stat -c %s "$run_dir/www/$file")" "within=$within"
    # All at once.
    sed -i 's/ start=[^ ]*//' "$courses"
    run_courses
    # shellcheck disable=SC2086 # one word per count
    assert_counts $counts
    while read -r _ way _ port _; do
        echo "$port $agreed" >>"$expectations"
        ports_of[$way]+=${ports_of[$way]:+,}$port
    done <"$courses"
    if [[ $outcome == handed-off ]]; then handed_off=$((handed_off + 1)); else refused=$((refused + 1)); fi
}
declare -A ports_of=()
begin() {
    rm -f "$expectations"
    combinations=0 handed_off=0 refused=0 ports_of=()
    next_port=20000
    start_capture client 'tcp port 80'
}
check_promises() { "$PYTHON" "$scripts_dir/tools/promises.py" check "$run_dir/capture-client.pcap" "$expectations"; }
# end COMBINATIONS
end() {
    stop_capture client
    check_promises || fail "see above"
    ok "every segment uses what SYN and SYN-ACK agreed on, all of it and nothing else"
    assert_eq "combinations" "$1" "$combinations"
    say "        $handed_off handed off, $refused refused"
    assert_flags_alike
}
# assert_flags_alike: of all combinations together, local and handed off, what tshark flags is no more than without baton; and where
# the segments were captured whole, every checksum is right.
assert_flags_alike() {
    local way
    oracle_read "$run_dir/capture-client.pcap" settings >/dev/null
    for way in local handed-off; do
        [[ -z ${CAPTURE_WHOLE:-} ]] || assert_clean "settings:${ports_of[$way]}"
        assert_flags_no_worse_than "settings:${ports_of[$way]}" "settings:${ports_of[bare]}" 1.5 "${more_flags:-40}"
    done
}

# --- window scales ------------------------------------------------------------------------------------------------

# scale_at NODE SCALE: 0 is what a window of 64 KiB makes.
scale_at() {
    local to=("$client_address")
    [[ $1 != client ]] || to=("${address_of[a]}" "${address_of[c]}")
    local address
    for address in "${to[@]}"; do
        ip -n "$(namespace "$1")" route del "$address" 2>/dev/null || true
        [[ $2 != 0 ]] || ip -n "$(namespace "$1")" route add "$address" dev eth0 window 65535
    done
    set_at "$1:tcp_window_scaling=$([[ $2 == off ]] && echo 0 || echo 1)"
    case $2 in
        7 | 14) set_at "$1:$(scale "$2")" ;;
        *) set_at "$1:$(scale 7)" ;;
    esac
}
begin
for of_client in 7 0 14 off; do
    for of_a in 7 0 14 off; do
        for of_b in 7 0 14 off; do
            is_chosen || continue
            scale_at client "$of_client"
            scale_at a "$of_a"
            scale_at c "$of_a"
            scale_at b "$of_b"
            agreed=no outcome=handed-off
            if [[ $of_client != off && $of_a != off ]]; then
                agreed=$of_a
                # One unit of the promised scale is more than an eighth of the back-end's first window.
                [[ $of_b != off && ($of_a != 14 || $of_b == 14) ]] || outcome=refused
            fi
            in_every_way "window-scale-of-client-$of_client-a-$of_a-b-$of_b" $outcome "scale=$agreed" large 10
        done
    done
done
end 64
for node in client a b c; do scale_at $node 7; done

# --- SACK and timestamps, with losses -----------------------------------------------------------------------------

# Of what is longer than an acknowledgement one in a hundred.
in_ns switch nft -f - <<NFT
table bridge lossy {
  counter lost { }
  chain passes {
    type filter hook forward priority 10;
    tcp dport 80 $ip_header length > 1000 numgen random mod 100 < 1 counter name lost drop
    tcp sport 80 $ip_header length > 1000 numgen random mod 100 < 1 counter name lost drop
  }
}
NFT
words=(no yes)
export CAPTURE_WHOLE=yes
# Which segments are lost is chance, and without SACK one of them can cost a window of repetitions.
more_flags=150
begin
for bits in {0..63}; do
    is_chosen || continue
    sack=() stamps=()
    for number in 0 1 2; do sack+=($((bits >> number & 1))) stamps+=($((bits >> (number + 3) & 1))); done
    number=0
    for node in client a b; do
        set_at "$node:tcp_sack=${sack[number]}" "$node:tcp_timestamps=${stamps[number]}"
        number=$((number + 1))
    done
    set_at "c:tcp_sack=${sack[1]}" "c:tcp_timestamps=${stamps[1]}"
    agreed_sack=$((sack[0] & sack[1])) agreed_stamps=$((stamps[0] & stamps[1])) outcome=handed-off
    ((agreed_sack <= sack[2] && agreed_stamps <= stamps[2])) || outcome=refused
    in_every_way "sack-of-client-a-b-$(tr -d ' ' <<<"${sack[*]}")-timestamps-$(tr -d ' ' <<<"${stamps[*]}")" $outcome \
        "sack=${words[agreed_sack]} timestamps=${words[agreed_stamps]}" picture 15
done
end 64
more_flags=-100000 must_fail "less than without baton" assert_flags_alike
unset more_flags
assert_at_least "packets lost" 20 "$(lost_packets)"
lose_no_more_packets
set_at {client,a,b,c}:tcp_{sack,timestamps}=1

# --- ECN, with marks ----------------------------------------------------------------------------------------------

in_ns switch nft -f - <<NFT
table bridge congested {
  chain passes {
    type filter hook forward priority 5;
    tcp dport 80 $ip_header ecn { ect0, ect1 } $ip_header length > 1000 numgen inc mod 20 == 0 $ip_header ecn set ce
    tcp sport 80 $ip_header ecn { ect0, ect1 } $ip_header length > 1000 numgen inc mod 20 == 0 $ip_header ecn set ce
  }
}
NFT
begin
downloads=() uploads=()
for of_client in 0 1 2; do
    for of_a in 0 1 2; do
        for of_b in 0 1 2; do
            is_chosen || [[ $of_client$of_b == 12 ]] || continue
            set_at client:tcp_ecn=$of_client {a,c}:tcp_ecn=$of_a b:tcp_ecn=$of_b
            agreed=no outcome=handed-off
            # A client of 2 does not ask.
            if [[ $of_client == 1 && $of_a != 0 ]]; then
                agreed=yes
                [[ $of_b != 0 ]] || outcome=refused
            fi
            in_every_way "ecn-of-client-$of_client-a-$of_a-b-$of_b" $outcome "ecn=$agreed" picture 10
            if [[ $agreed == yes ]]; then
                mapfile -t ports < <(awk '{ print $4 }' "$courses")
                downloads+=("${ports[@]:0:3}") uploads+=("${ports[@]:3:3}")
            fi
        done
    done
done
end 27
ecn_of() { "$PYTHON" "$scripts_dir/tools/promises.py" ecn "$run_dir/capture-client.pcap" "$@"; }
# What is downloaded is marked on its way to the client, what is uploaded on its way to the server.
assert_eq "downloads, each way, of which marks slowed the server down" "${#downloads[@]}" \
    "$(ecn_of "${downloads[@]}" | grep -c '^marked=yes echoed-by-client=yes reduced-by-server=yes')"
assert_eq "uploads, each way, of which marks slowed the client down" "${#uploads[@]}" \
    "$(ecn_of "${uploads[@]}" | grep -c 'echoed-by-server=yes reduced-by-client=yes$')"
mapfile -t without < <(awk '/ecn=no/ { print $1 }' "$expectations")
must_fail "nothing marked the others" grep -q yes <<<"$(ecn_of "${without[@]}")"

say "the same checks, fed with what is wrong"
cp "$expectations" "$run_dir/expectations-met"
must_fail "another outcome" in_every_way refused-wrongly refused ecn=no picture 10
must_fail "too slow" in_every_way slow handed-off ecn=no picture 0.001
cp "$run_dir/expectations-met" "$expectations"
check_promises
echo "${without[0]} ecn=yes" >>"$expectations"
must_fail "what nobody agreed on" check_promises

scenario_end
