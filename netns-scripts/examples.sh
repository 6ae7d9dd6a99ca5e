#!/usr/bin/env bash
# Files of examples/ as they lie there, but for the keys, on real servers: an object store on three nginx, where an object is
# only where the hash of its path says; model servers, which get what the JSON in a request asks for; Redis by key; and TLS by
# server name, each server with the certificates of its own names.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/install.sh
. "$scripts_dir/lib/install.sh"

# shellcheck source=netns-scripts/lib/tls.sh
. "$scripts_dir/lib/tls.sh"
install_missing redis-server:redis-server redis-cli:redis-tools

topology_up a b c
for node in "${nodes[@]}"; do
    mkdir -p "$run_dir/$node/servers" "$run_dir/$node/objects"
    cat >"$run_dir/$node/servers/objects.conf" <<END
server {
  listen 80;
  server_name objects.test;
  root $run_dir/$node/objects;
  add_header X-Server $node always;
  create_full_put_path on;
  dav_methods PUT DELETE;
}
END
done
make_certificates
# The names of the example instead of the stage's.
sign a "subjectAltName=DNS:www.example.com,DNS:api.example.com,DNS:cdn.example.com,IP:192.0.2.1,IP:192.0.2.3"
sign b "subjectAltName=DNS:img.example.com,DNS:*.cdn.example.com"
sign c "subjectAltName=DNS:api.example.com,DNS:www.example.com"
write_tls_servers
start_applications

# play EXAMPLE NODE:NAME...: every server plays the node of this name.
play() {
    local example=$project_dir/examples/$1.yaml node pair
    shift
    # Makes the keys.
    write_cluster
    cp "$example" "$run_dir/cluster.yaml"
    for pair in "$@"; do
        node=${pair%:*}
        name_of[$node]=${pair#*:}
        sed -i "/^  ${name_of[$node]}: {/s|public_key: \"[^\"]*\"|public_key: \"$(<"$run_dir/$node/public_key")\"|" "$run_dir/cluster.yaml"
    done
    assert_eq "lines of the example that had to be changed" "$#" "$({ diff -y --suppress-common-lines "$example" "$run_dir/cluster.yaml" || true; } | wc -l)"
    start_cluster
}
stop_playing() {
    local node
    for node in "${nodes[@]}"; do stop_baton "$node"; done
}

# explained SERVICE WHAT ARGUMENT...: a field of what `baton explain` says of a connection to a.
explained() {
    "$BATON" explain "$run_dir/cluster.yaml" --node "${name_of[a]}" --service "$1" "${@:3}" --json |
        "$PYTHON" -c 'import json, sys; said = json.load(sys.stdin)[sys.argv[1]]; print(*said if isinstance(said, list) else [said])' "$2"
}
# server_of NAME: who plays it.
server_of() {
    local node
    for node in "${nodes[@]}"; do [[ ${name_of[$node]} != "$1" ]] || echo "$node"; done
}

say "object store: written through one server, read through all"
play object-store a:s1 b:s2 c:s3
# store SERVER METHOD PATH [CURL-OPTION...]: who answered, and the status; or curl's exit status.
store() {
    local status=0 status_line
    status_line=$(in_ns client curl -sS --max-time 10 -o "$run_dir/object" -D "$run_dir/object.headers" -w '%{http_code}' -X "$2" \
        -H 'Host: objects.test' "${@:4}" "http://${host_of[$1]}$3" 2>"$run_dir/object.error") || status=$?
    [[ $status == 0 ]] || { echo "curl-$status"; return; }
    echo "$(header X-Server "$run_dir/object.headers") $status_line"
}
objects=(cat dog bee hen ant cow)
elsewhere=0
for object in "${objects[@]}"; do
    head -c 20K /dev/urandom >"$run_dir/www/$object"
    path=/photos/$object.jpg
    owner=$(server_of "$(explained store answered_by --http "PUT $path")")
    mark
    assert_eq "$object is written to" "$owner 201" "$(store a PUT "$path" -T "$run_dir/www/$object")"
    for server in "${nodes[@]}"; do
        assert_eq "and read through $server from" "$owner 200" "$(store "$server" GET "$path")"
        cmp -s "$run_dir/object" "$run_dir/www/$object" || fail "$object is not what was written"
    done
    # Two connections to a, one to each of the others; those to the owner itself stay there.
    counts=()
    for server in "${nodes[@]}"; do
        times=1
        [[ $server != a ]] || times=2
        [[ $server == "$owner" ]] || counts+=("$server.handed_off=$times")
    done
    if [[ $owner == a ]]; then counts+=(a.accepted=2); else counts+=("$owner.accepted=3") elsewhere=$((elsewhere + 1)); fi
    assert_counts "${counts[@]}"
    must_fail "one handoff more" assert_counts "${counts[@]}" a.handed_off=9
done
assert_at_least "objects that are not on a" 1 "$elsewhere"
assert_eq "objects on all servers together" "${#objects[@]}" "$(find "$run_dir"/[abc]/objects -type f | wc -l)"
mark
assert_eq "a listing" "a 404" "$(store a GET '/photos/none?list')"
assert_counts

say "object store: a server that is down"
# An object whose servers, the second one too, are not a.
for object in "${objects[@]}"; do
    path=/photos/$object.jpg
    read -r first second _ < <(explained store candidates --http "GET $path")
    [[ $first == "${name_of[a]}" || ${second:-${name_of[a]}} == "${name_of[a]}" ]] || break
done
down=$(server_of "$first") next=$(server_of "$second")
stop_nginx "$down"
mark
assert_eq "it is read from the next, which has no copy here" "$next 404" "$(store a GET "$path")"
assert_counts a.handed_off=1 a.fallback.refused_application_down=1 "$next.accepted=1"
assert_eq "and written nowhere" "curl-56" "$(store a PUT "$path" -T "$run_dir/www/cat")"
assert_counts a.handed_off=1 a.fallback.refused_application_down=2 "$next.accepted=1"
must_fail "it was written to the next" test -e "$run_dir/$next/objects$path"
start_nginx "$down"
stop_playing

say "model servers: by a field of the JSON that a client posts"
for node in b c; do
    spawn "$node" "$run_dir/log/model-$node.log" "$PYTHON" "$scripts_dir/tools/model_server.py" "$node" 8000
    wait_until 10 listening "$node" 8000
done
play model-servers a:front b:large c:small
# post BODY-FILE [CURL-OPTION...]: who answered, and for which model; or the status of another answer.
post() {
    in_ns client curl -sS --max-time 10 -o "$run_dir/said" -w '%{http_code}\n' -H 'Content-Type: application/json' --data-binary "@$1" \
        "${@:2}" "http://${host_of[a]}/v1/chat/completions" >"$run_dir/status"
    if [[ $(<"$run_dir/status") != 200 ]]; then echo "status $(<"$run_dir/status")"; return; fi
    "$PYTHON" -c 'import json, sys; said = json.load(open(sys.argv[1])); print(said["answered_by"], said["model"], said["client"])' "$run_dir/said"
}
body() { printf '%s' "$1" >"$run_dir/body" && echo "$run_dir/body"; }
client=${address_of[client]}
mark
assert_eq "a large model" "b llama-3-70b $client" "$(post "$(body '{"model": "llama-3-70b", "messages": []}')")"
# 60 KB of prompt in front of the field, in some forty segments, and no Expect.
prompt=$(head -c 45000 /dev/urandom | base64 -w 0)
assert_eq "behind a long prompt" "b mixtral-8x22b $client" \
    "$(post "$(body "{\"prompt\": \"$prompt\", \"model\": \"mixtral-8x22b\"}")" -H 'Expect:')"
assert_counts a.handed_off=2 b.accepted=2
must_fail "c answered" assert_counts a.handed_off=2 c.accepted=2

mark
for ((number = 0; number < 8; number++)); do post "$(body '{"model": "mistral-7b"}')"; done | sort | uniq -c >"$run_dir/small"
assert_eq "a small model, each in turn by weight" "2 b 6 c" "$(awk '{ print $1, $2 }' "$run_dir/small" | xargs)"
assert_counts a.handed_off=8 b.accepted=2 c.accepted=6

mark
for session in anna bert carl dora; do
    posted="{\"model\": \"llama-3-8b\", \"metadata\": {\"session\": \"$session\"}}"
    want=$(server_of "$(explained api answered_by --http 'POST /v1/chat/completions' --body "$posted")")
    for again in 1 2; do assert_eq "conversation of $session, $again" "$want llama-3-8b $client" "$(post "$(body "$posted")")"; done
done
assert_eq "handed off" 8 "$(sum_since_mark a.handed_off)"

mark
assert_eq "no such model" "status 404" "$(post "$(body '{"model": "other"}')")"
assert_eq "the field twice" "status 404" "$(post "$(body '{"model": "other", "model": "llama-3-70b"}')")"
assert_counts
assert_eq "ambiguous" 1 "$(stat_of a 'ambiguous_requests_total{kind="json_name"}')"
stop_playing

say "Redis: by the key of the first command"
for node in "${nodes[@]}"; do
    spawn "$node" "$run_dir/log/redis-$node.log" redis-server --port 6379 --bind 0.0.0.0 --protected-mode no --save '' --dir "$run_dir/$node" \
        --unixsocket "$run_dir/$node/redis.sock"
done
for node in "${nodes[@]}"; do wait_until 10 test -S "$run_dir/$node/redis.sock"; done
play redis a:accounts b:sessions-1 c:sessions-2
redis() { in_ns client timeout 10 redis-cli -h "${host_of[$1]}" "${@:2}"; }
stored() { redis-cli -s "$run_dir/$1/redis.sock" "${@:2}"; }
mark
for number in 1 2 3; do assert_eq "written through b" OK "$(redis b SET "user:$number" "$number")"; done
assert_eq "read through c" 2 "$(redis c GET user:2)"
assert_eq "keys on a, b, c" "3 0 0" "$(stored a DBSIZE) $(stored b DBSIZE) $(stored c DBSIZE)"
assert_counts a.accepted=4 b.handed_off=3 c.handed_off=1
must_fail "they are on b" assert_eq "keys on b" 3 "$(stored b DBSIZE)"
mark
for session in anna bert carl dora emil fred; do
    owner=$(server_of "$(explained redis answered_by --redis "GET session:$session")")
    assert_eq "session of $session" OK "$(redis a SET "session:$session" "$session")"
    assert_eq "read through b" "$session" "$(redis b GET "session:$session")"
    assert_eq "which is on $owner" "$session" "$(stored "$owner" GET "session:$session")"
done
assert_eq "sessions on b and c together" 6 "$(($(stored b DBSIZE) + $(stored c DBSIZE)))"
# Those of a and six through b but for b's own.
assert_eq "handed off" "$((6 + $(stored c DBSIZE)))" "$(sum_since_mark '[ab].handed_off')"
mark
assert_eq "a key of nobody in particular" OK "$(redis c SET other x)"
assert_eq "stays on c" x "$(stored c GET other)"
assert_counts
stop_playing

say "TLS: by server name and protocol; who verifies the certificate knows who answered"
number=0
for node in "${nodes[@]}"; do
    number=$((number + 1))
    ip -n "$(namespace "$node")" address add 192.0.2.$number/32 dev eth0
    ip -n "$(namespace client)" route add 192.0.2.$number/32 via "${address_of[$node]}"
    # Packets for an address of no device's network come in where the default route leaves.
    ip -n "$(namespace "$node")" route add default via "${address_of[client]}"
done
play tls a:front b:media c:api
# secure FRONT-END-ADDRESS NAME [CURL-OPTION...]: who answered; or curl's exit status.
secure() {
    local status=0
    in_ns client curl -sS --noproxy '*' --max-time 10 -o "$run_dir/object" -D "$run_dir/object.headers" --cacert "$run_dir/tls/ca.crt" \
        --connect-to "::$1:443" "${@:3}" "https://$2/" 2>"$run_dir/object.error" || status=$?
    if [[ $status == 0 ]]; then header X-Server "$run_dir/object.headers"; else echo "curl-$status"; fi
}
mark
assert_eq "img.example.com through front" b "$(secure 192.0.2.1 img.example.com)"
assert_eq "a.cdn.example.com through front" b "$(secure 192.0.2.1 a.cdn.example.com)"
assert_eq "img.example.com through api" b "$(secure 192.0.2.3 img.example.com)"
assert_eq "HTTP/2 for api.example.com" c "$(secure 192.0.2.1 api.example.com)"
assert_counts a.handed_off=3 b.accepted=3 c.handed_off=1 c.accepted=1
mark
assert_eq "HTTP/1.1 alone is for where it came" a "$(secure 192.0.2.1 api.example.com --no-alpn)"
assert_eq "no name, through api: the one that has a certificate for the address" a "$(secure 192.0.2.3 192.0.2.3)"
assert_eq "a name of nobody's rule" a "$(secure 192.0.2.1 www.example.com)"
assert_counts c.handed_off=1 a.accepted=1
must_fail "another server has no such certificate" assert_eq "img.example.com" b "$(secure 192.0.2.2 api.example.com --no-alpn)"

scenario_end
