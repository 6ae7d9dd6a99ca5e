#!/usr/bin/env bash
# What a client's wire carries is what it would carry without handoff: the same requests without baton, with baton answered
# where they arrive, and handed off, read by tshark. And the oracle that says so notices what is wrong.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/oracle.sh
. "$scripts_dir/lib/oracle.sh"

topology_up a b
make_file small 2K
make_file picture 30K
start_applications
oracle_ready
export NO_VIDEOS=yes
hash=$(sha256sum <"$run_dir/www/picture" | cut -d ' ' -f 1)

# The courses. Small enough that no queue is ever full: nothing in them is chance.
small() {
    fetch client a "$content/small"
    assert_answered "$server"
    assert_same_file "the answer" small
}
download() {
    fetch client a "$content/picture"
    assert_answered "$server"
    assert_same_file "the answer" picture
}
upload() {
    fetch client a "$content/upload" -X POST -T "$run_dir/www/picture" -H 'Expect:'
    assert_answered "$server"
    assert_eq "hash of what arrived" "$hash" "$(head -c 64 "$body")"
}
# Two connections at the same time.
both() {
    local directory
    directory=$(mktemp -d "$run_dir/both-XXXXXX")
    local one pids=()
    for one in one two; do
        in_ns client curl -sS --noproxy '*' --max-time 20 -w '%{local_port}' -o "$directory/$one" \
            "http://${host_of[a]}$content/picture" >"$directory/$one.port" &
        pids+=($!)
    done
    wait "${pids[@]}"
    ports=("$(<"$directory/one.port")" "$(<"$directory/two.port")")
    cmp "$directory/one" "$run_dir/www/picture" && cmp "$directory/two" "$run_dir/www/picture"
}

three_ways small download upload both
for way in without local handed-off; do assert_clean "$way"; done
assert_three_ways_alike small download upload both

say "the oracle, fed with what is wrong"
oracle_controls handed-off
must_fail "an upload is no download" assert_eq "ends" "$(oracle_story upload-without)" "$(oracle_story download-handed-off)"

scenario_end
