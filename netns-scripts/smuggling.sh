#!/usr/bin/env bash
# The known tricks that make one request two different ones (tests/smuggling/table.json), sent to a real nginx: whatever
# nginx refuses, or reads as another host, path or length than baton does, is ambiguous for baton and chooses no peer.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a
mkdir "$run_dir/a/servers"
cat >"$run_dir/a/servers/seen.conf" <<'CONF'
server {
  listen 8081;
  location / { return 200 "seen host=$host uri=$uri\n"; }
}
CONF
start_nginx a

# compare [--as-if-clear NAME]
# shellcheck disable=SC2120 # must_fail passes them
compare() {
    in_ns client "$PYTHON" "$scripts_dir/tools/smuggling.py" "$BATON" "$project_dir/tests/smuggling/table.json" \
        "$project_dir/tests/smuggling/cluster.yaml" "${address_of[a4]}" 8081 "$@"
}

say "every trick, to nginx and to baton explain"
# shellcheck disable=SC2119
compare >"$run_dir/log/compared" || fail "baton and nginx differ: $(<"$run_dir/log/compared")"
while read -r line; do ok "$line"; done <"$run_dir/log/compared"
clear=$(awk '/clear, and/ { print $1 }' "$run_dir/log/compared")
[[ $clear -ge 10 ]] || fail "only $clear are clear: nothing was compared"
for name in 'two lengths that differ' 'an absolute target against Host' 'dots' 'Content-Length with Transfer-Encoding'; do
    must_fail "baton takes '$name' for clear" compare --as-if-clear "$name"
done
scenario_end
