#!/usr/bin/env bash
# 200 MB down and 200 MB up through a handed-off connection arrive as they were sent.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file large 200M
start_applications
NO_VIDEOS=yes start_cluster
export FETCH_TIMEOUT=100
hash=$(sha256sum <"$run_dir/www/large" | cut -d ' ' -f 1)

# upload PATH [CURL OPTION...]: sends the large file; the answer is the hash of what arrived.
upload() {
    local path=$1
    shift
    fetch client a "$path" -X POST -T "$run_dir/www/large" "$@"
}
assert_uploaded() { assert_eq "hash of what arrived" "$hash" "$(head -c 64 "$body")"; }

say "200 MB down"
mark
fetch client a /images/large
assert_answered b
assert_eq "hash of what was received" "$hash" "$(sha256sum <"$body" | cut -d ' ' -f 1)"
assert_counts a.handed_off=1 b.accepted=1
say "        $seconds s"

say "200 MB up, the body following the request at once"
mark
upload /images/upload -H 'Expect:'
assert_answered b
assert_uploaded
assert_counts a.handed_off=1 b.accepted=1
say "        $seconds s"

say "200 MB up, the body waiting for leave to be sent"
mark
upload /images/upload -H 'Expect: 100-continue'
assert_answered b
assert_uploaded
assert_counts a.handed_off=1 b.accepted=1
say "        $seconds s"

say "the same checks, fed with the wrong content and the wrong server"
mark
printf x | dd of="$run_dir/www/large" bs=1 seek=123456789 conv=notrunc status=none
upload /elsewhere/upload -H 'Expect:'
must_fail "a itself answered" assert_answered b
must_fail "one octet is different" assert_uploaded
must_fail "nothing was handed off" assert_counts a.handed_off=1 b.accepted=1

assert_eq "resets from any server" 0 "$(wire resets '*')"
scenario_end
