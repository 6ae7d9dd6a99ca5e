#!/usr/bin/env bash
# A client that uses one source port again and again, for connections answered now here, now there, never meets the
# remains of the connection before.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b c
make_file picture 20K
make_file painting 20K
start_applications
start_cluster

say "now here, now there"
mark
tool client load reuse "${address_of[a]}" --connections 40 --source-port 6000 --body "$run_dir/www/picture" \
    --expect /images/picture=b --expect /elsewhere/picture=a || fail "errors"
assert_counts a.handed_off=20 b.accepted=20

say "three servers, in every order of two"
mark
tool client load reuse "${address_of[a]}" --connections 42 --source-port 6001 --body "$run_dir/www/picture" \
    --expect /images/picture=b --expect /images/picture=b --expect /elsewhere/picture=a \
    --expect /videos/picture=c --expect /videos/picture=c --expect /images/picture=b || fail "errors"
assert_counts a.handed_off=35 b.accepted=21 c.accepted=14

say "one source port to two front-ends that hand off to the same server"
mark
for front_end in a c a c; do
    tool client load reuse "${address_of[$front_end]}" --connections 2 --source-port 6002 --body "$run_dir/www/picture" \
        --expect /images/picture=b || fail "errors"
done
assert_counts a.handed_off=4 c.handed_off=4 b.accepted=8

say "the same without timestamps: what a new connection is then shows its sequence number alone"
in_ns client sh -c 'echo 0 >/proc/sys/net/ipv4/tcp_timestamps'
mark
tool client load reuse "${address_of[a]}" --connections 40 --source-port 6004 --body "$run_dir/www/picture" \
    --expect /images/picture=b --expect /elsewhere/picture=a || fail "errors"
assert_counts a.handed_off=20 b.accepted=20
in_ns client sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_timestamps'

say "now here, now there, and the client closes first: TIME-WAIT is its own, and one of a second may be used again"
in_ns client sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse'
run_alike() {
    BODY_HASHES="picture=$(sha256sum <"$run_dir/www/picture" | cut -d ' ' -f 1),painting=$(sha256sum <"$run_dir/www/painting" | cut -d ' ' -f 1)" \
        tool client alike run - "$run_dir"/log/nginx-{a,b,c}.access.log || fail "errors"
}
mark
run_alike <<END
closes-first images ${address_of[a]} 6010 b /images/picture closes=client again=2
closes-first elsewhere ${address_of[a]} 6011 a /elsewhere/picture closes=client again=2
closes-first both ${address_of[a]} 6012 b /images/picture closes=client
closes-first then-here ${address_of[a]} 6012 a /elsewhere/picture closes=client start=0.5
closes-first then-there ${address_of[a]} 6012 b /images/picture closes=client start=2
END
assert_counts a.handed_off=4 b.accepted=4

say "one source port to two front-ends at the same time, both handed off to the same server"
mark
run_alike <<END
at-once to-a ${address_of[a]} 6020 b /images/picture requests=4 pause=0.3
at-once to-c ${address_of[c]} 6020 b /images/painting requests=4 pause=0.3
at-once up-to-a ${address_of[a]} 6021 b /images/upload upload=300000 requests=4 pause=0.3
at-once up-to-c ${address_of[c]} 6021 b /images/upload upload=200000 requests=4 pause=0.3
END
assert_counts a.handed_off=2 c.handed_off=2 b.accepted=4
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

scenario_end
