#!/usr/bin/env bash
# A client that uses one source port again and again, for connections answered now here, now there, never meets the
# remains of the connection before; and its wire looks as it does without baton, where the same is asked first.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/oracle.sh
. "$scripts_dir/lib/oracle.sh"

topology_up a b c
make_file picture 20K
make_file painting 20K
start_applications
oracle_ready

# Without baton whoever is asked answers, and from other ports, so that neither part meets the remains of the other.
baton=without
# answers WITH WITHOUT: who has to.
answers() { if [[ $baton == with ]]; then echo "$1"; else echo "$2"; fi; }
port() { if [[ $baton == with ]]; then echo "$1"; else echo $(($1 + 1000)); fi; }

# again_and_again ASKED PORT CONNECTIONS PATH=SERVER...: SERVER answers with baton.
again_and_again() {
    local asked=$1 source_port=$2 connections=$3 expectation expectations=()
    for expectation in "${@:4}"; do expectations+=(--expect "${expectation%=*}=$(answers "${expectation#*=}" "$asked")"); done
    tool client load reuse "${address_of[$asked]}" --connections "$connections" --source-port "$(port "$source_port")" \
        --body "$run_dir/www/picture" "${expectations[@]}" || fail "errors"
}
begin() {
    say "$1, $baton baton"
    [[ $baton == without ]] || mark
}
# counts NODE.NAME=N...: where baton runs.
counts() { [[ $baton == without ]] || assert_counts "$@"; }

run_alike() {
    BODY_HASHES="picture=$(sha256sum <"$run_dir/www/picture" | cut -d ' ' -f 1),painting=$(sha256sum <"$run_dir/www/painting" | cut -d ' ' -f 1)" \
        tool client alike run - "$run_dir"/log/nginx-{a,b,c}.access.log || fail "errors"
}

ask_everything() {
    begin "now here, now there"
    again_and_again a 6000 40 /images/picture=b /elsewhere/picture=a
    counts a.handed_off=20 b.accepted=20

    begin "three servers, in every order of two"
    again_and_again a 6001 42 /images/picture=b /images/picture=b /elsewhere/picture=a /videos/picture=c /videos/picture=c /images/picture=b
    counts a.handed_off=35 b.accepted=21 c.accepted=14

    begin "one source port to two front-ends that hand off to the same server"
    local front_end
    for front_end in a c a c; do again_and_again $front_end 6002 2 /images/picture=b; done
    counts a.handed_off=4 c.handed_off=4 b.accepted=8

    begin "the same without timestamps: what a new connection is then shows its sequence number alone"
    in_ns client sh -c 'echo 0 >/proc/sys/net/ipv4/tcp_timestamps'
    again_and_again a 6004 40 /images/picture=b /elsewhere/picture=a
    counts a.handed_off=20 b.accepted=20
    in_ns client sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_timestamps'

    begin "now here, now there, and the client closes first: TIME-WAIT is its own, and one of a second may be used again"
    run_alike <<END
closes-first images ${address_of[a]} $(port 6010) $(answers b a) /images/picture closes=client again=2
closes-first elsewhere ${address_of[a]} $(port 6011) a /elsewhere/picture closes=client again=2
closes-first both ${address_of[a]} $(port 6012) $(answers b a) /images/picture closes=client
closes-first then-here ${address_of[a]} $(port 6012) a /elsewhere/picture closes=client start=0.5
closes-first then-there ${address_of[a]} $(port 6012) $(answers b a) /images/picture closes=client start=2
END
    counts a.handed_off=4 b.accepted=4

    begin "one source port to two front-ends at the same time, both handed off to the same server"
    run_alike <<END
at-once to-a ${address_of[a]} $(port 6020) $(answers b a) /images/picture requests=4 pause=0.3
at-once to-c ${address_of[c]} $(port 6020) $(answers b c) /images/painting requests=4 pause=0.3
at-once up-to-a ${address_of[a]} $(port 6021) $(answers b a) /images/upload upload=300000 requests=4 pause=0.3
at-once up-to-c ${address_of[c]} $(port 6021) $(answers b c) /images/upload upload=200000 requests=4 pause=0.3
END
    counts a.handed_off=2 c.handed_off=2 b.accepted=4
}

in_ns client sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse'
for baton in without with; do
    [[ $baton == without ]] || start_cluster
    oracle_capture $baton
    ask_everything
    oracle_end $baton
done

say "the client's wire"
# stories NAME PORT: of how many of its connections who said SYN, FIN and RST, after how many octets. What a busy machine causes
# is left out: a step that is repeated, and a RST behind both FINs, to what has been overtaken by the last acknowledgement.
stories() {
    oracle_story "$@" | awk '{
        line = ""; split("", seen)
        for (i = 1; i <= NF; i++) {
            kind = $i; sub(/@.*/, "", kind)
            if (!($i in seen) && !(kind ~ /RST/ && finished["client:FIN"] && finished["server:FIN"])) line = line " " $i
            seen[$i] = 1; finished[kind] = 1
        }
        split("", finished); print line
    }' | sort | uniq -c
}
for one in 6000 6001 6002 6004 6010 6011 6012 6020 6021; do
    assert_no_worse_than with:$one without:$((one + 1000)) 1.5 6
    assert_eq "port $one: SYN, FIN and RST" "$(stories without $((one + 1000)))" "$(stories with $one)"
done

say "the same checks, fed with what is wrong"
wrong() {
    run_alike <<END
at-once to-a ${address_of[a]} 6022 b /images/picture requests=2
at-once to-c ${address_of[c]} 6022 a /images/picture requests=2
END
}
must_fail "b answers both" wrong
mark
must_fail "a answers what b should" tool client load reuse "${address_of[a]}" --connections 2 --source-port 6003 --expect /elsewhere/picture=b
must_fail "nothing was handed off" assert_counts a.handed_off=2 b.accepted=2
# spoilt KIND: one segment of the server.
spoilt() {
    oracle spoil "$run_dir/capture-oracle-with.pcap" "$run_dir/capture-oracle-spoilt.pcap" "$1"
    oracle_read "$run_dir/capture-oracle-spoilt.pcap" spoilt >/dev/null
    assert_clean spoilt
}
must_fail "a checksum is wrong" spoilt tcp-checksum
must_fail "a timestamp goes back" spoilt timestamp
must_fail "twenty times as many connections" assert_no_worse_than with:6000,6001,6004 without:7002 1.5 6
must_fail "uploads and downloads" assert_eq "port 6020" "$(stories without 7021)" "$(stories with 6020)"

scenario_end
