#!/usr/bin/env bash
# Connections of other protocols than HTTP/1 go where their first bytes say: HTTP/2 in clear, TLS by version, Redis by key,
# bytes of any protocol, and all of it behind a proxy that says who the client is. Real clients, real servers; who waits for
# the server to speak is answered by the server it came to.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/tls.sh
. "$scripts_dir/lib/tls.sh"
# shellcheck source=netns-scripts/lib/install.sh
. "$scripts_dir/lib/install.sh"

install_missing redis-server:redis-server redis-cli:redis-tools haproxy:haproxy openssl:openssl

topology_up a b c
make_file picture 100K
make_certificates
write_tls_servers

# On every server, beside the usual: HTTP/2 in clear on 81, HTTP behind the PROXY protocol on 82, HTTP on 83, Redis.
for node in "${nodes[@]}"; do
    cat >"$run_dir/$node/servers/protocols.conf" <<CONF
ssl_protocols TLSv1.2 TLSv1.3;
server {
  listen 81 http2;
  large_client_header_buffers 8 16k;
  root $run_dir/www;
  add_header X-Server $node always;
}
server {
  listen 82 proxy_protocol;
  root $run_dir/www;
  add_header X-Server $node always;
  add_header X-Client \$proxy_protocol_addr always;
}
server {
  listen 83;
  root $run_dir/www;
  add_header X-Server $node always;
}
CONF
done
start_applications
for node in "${nodes[@]}"; do
    spawn "$node" "$run_dir/log/redis-$node.log" redis-server --port 6379 --bind 0.0.0.0 --protected-mode no --save '' \
        --unixsocket "$run_dir/$node/redis.sock" --dir "$run_dir/$node"
done
local_redis() { redis-cli -s "$run_dir/$1/redis.sock" "${@:2}"; }
for node in "${nodes[@]}"; do
    wait_until 10 test -S "$run_dir/$node/redis.sock"
    for key in user:7 item:7 other; do local_redis "$node" SET "$key" "$node" >"$run_dir/$node/redis.set"; done
done

# service NAME PORT RULES [FIELD...]
service() {
    local node
    echo "  $1:"
    echo '    frontends:'
    for node in "${nodes[@]}"; do echo "      $node: \"${host_of[${node}4]}:$2\""; done
    printf '    %s\n' "${@:4}"
    echo "    rules:$3"
}
SERVICES=$(
    service h2c 81 '
      - { name: pictures, when: { path: /picture, host: b.test }, send_to: b }
      - { name: cookies, when: { cookie: { shard: c } }, send_to: c }
      - { name: models, when: { path: /picture, json: { /model: "llama*" } }, send_to: b }' 'inspect_bytes_max: 64KiB'
    service behind-proxies 82 '
      - { name: near, when: { client: 192.0.2.0/24 }, send_to: b }
      - { name: pictures, when: { path: /picture, host: c.test }, send_to: c }' "proxy_protocol: { from: ${address_of[client4]} }"
    service bytes 83 '
      - { name: text, when: { starts_with: "GET /picture?b" }, send_to: b }
      - { name: bytes, when: { bytes: "50 4f 53 54 20" }, send_to: c }
      - { name: expression, when: { regex: "(?s).*\r\nX-Shard: c\r\n" }, send_to: c }' 'inspect: raw'
    service secure 443 '
      - { name: newest, when: { sni: www.stage.test, tls_version: "1.3" }, send_to: c }
      - { name: not a request, when: { not: { path: / } }, send_to: b }' 'inspect: auto'
    service cache 6379 '
      - { name: users, when: { key: "user:*" }, send_to: b }
      - { name: items, when: { key: { prefix: "item:" }, command: [GET, MGET] }, send_to: c }' 'inspect: redis'
) FRONTENDS=4 write_cluster
start_cluster
a=${host_of[a4]}

# get PORT PATH [OPTION...]: a fetch from a.
get() { FETCH_URL=http://$a:$1 fetch client a "$2" "${@:3}"; }

say "HTTP/2 in clear, with prior knowledge"
mark
get 81 /picture --http2-prior-knowledge -H 'Host: b.test' -w '%{http_code} %{local_port} %{size_download} %{http_version}'
assert_answered b
# shellcheck disable=SC2154 # `seconds` is the last word of what curl wrote: here, the version
assert_eq "version of HTTP" 2 "$seconds"
assert_same_file "over HTTP/2" picture
get 81 /picture --http2-prior-knowledge -H 'Host: a.test'
assert_answered a
# The header block takes two frames: 18 KB of a letter that no code makes shorter.
padding=$(printf '%6000s' '' | tr ' ' Z)
get 81 /picture --http2-prior-knowledge -H 'Cookie: shard=c' -H "X-1: $padding" -H "X-2: $padding" -H "X-3: $padding"
assert_answered c
assert_counts a.handed_off=2 b.accepted=1 c.accepted=1
must_fail "c answered" assert_answered a

say "a field of a JSON body, over HTTP/2; curl sends it unasked"
mark
get 81 /picture --http2-prior-knowledge -d '{"stream": true, "model": "llama3"}'
assert_eq "status and answered by" "405 b" "$status $answered_by"
# What stays with a is counted only: its nginx refuses before it has read the body, if that is a segment of its own, and curl
# takes the end of that stream for an error.
get 81 /picture --http2-prior-knowledge -d '{"stream": true, "model": "mistral"}'
# A body that is not read is not waited for.
get 81 /picture --http2-prior-knowledge -d '{"model": "llama3"}' -H 'Content-Encoding: br'
assert_counts a.handed_off=1 b.accepted=1
must_fail "one of them was b's" assert_counts a.handed_off=2 b.accepted=2

say "an upgrade to HTTP/2 is decided by its HTTP/1 request; nginx goes on with HTTP/1"
mark
fetch client a /images/picture --http2
assert_answered b
assert_counts a.handed_off=1 b.accepted=1

say "a client of HTTP/2 that waits for the server's SETTINGS hears them from the local server, soon"
mark
waited=$(in_ns client "$PYTHON" -c 'if True:
    import socket, sys, time
    begin = time.monotonic()
    client = socket.create_connection((sys.argv[1], 81), timeout=4)
    client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    heard = client.recv(9)
    assert heard[3] == 4, heard
    print(round((time.monotonic() - begin) * 1000))' "$a")
assert_at_least "milliseconds until the server speaks" 300 "$waited"
assert_at_most "milliseconds until the server speaks" 2500 "$waited"
assert_counts

say "TLS by the version that is offered, where any protocol may come"
# assert_hello WHO OPTION...: the certificate that s_client gets.
assert_hello() {
    in_ns client timeout 10 openssl s_client -connect "$a:443" -servername www.stage.test -CAfile "$run_dir/tls/ca.crt" \
        -verify_return_error "${@:2}" </dev/null >"$run_dir/agreed" 2>&1 || fail "s_client: $(tail -n 3 "$run_dir/agreed")"
    assert_eq "certificate of" "$1" "$(sed -n 's/^subject=CN *= *//p' "$run_dir/agreed")"
}
mark
assert_hello c -tls1_3
assert_hello a -tls1_2
assert_counts a.handed_off=1 c.accepted=1
must_fail "c was not asked" assert_hello c -tls1_2

say "Redis by key"
# assert_redis WHO COMMAND...: whose value a client of a gets.
assert_redis() { assert_eq "${*:2}" "$1" "$(in_ns client timeout 10 redis-cli -h "$a" "${@:2}")"; }
mark
assert_redis b GET user:7
assert_redis c GET item:7
assert_redis a GET other
assert_redis a EVAL 'return redis.call("GET", KEYS[1])' 1 other
assert_redis b EVAL 'return redis.call("GET", KEYS[1])' 1 user:7
assert_redis OK SET item:8 x
assert_eq "who has it" x "$(local_redis a GET item:8)"
assert_counts a.handed_off=3 b.accepted=2 c.accepted=1
mark
# A pipeline: what prepares the connection is passed over. Alone, it waits for an answer.
piped=$(printf 'SELECT 0\r\nGET user:7\r\n' | in_ns client timeout 10 "$PYTHON" -c 'if True:
    import socket, sys
    client = socket.create_connection((sys.argv[1], 6379), timeout=4)
    client.sendall(sys.stdin.buffer.read().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    heard = b""
    while heard.count(b"\r\n") < 3: heard += client.recv(100)
    print(heard.split(b"\r\n")[2].decode())' "$a")
assert_eq "GET behind SELECT, from" b "$piped"
assert_counts a.handed_off=1 b.accepted=1
mark
assert_redis a -n 0 -3 GET user:7
assert_counts

say "the first bytes, whatever they mean"
mark
get 83 '/picture?b'
assert_answered b
get 83 /picture
assert_answered a
get 83 /picture -H 'X-Shard: c'
assert_answered c
get 83 /picture -X POST
assert_eq "status and answered by" "405 c" "$status $answered_by"
assert_counts a.handed_off=3 b.accepted=1 c.accepted=2

say "behind a proxy that says who the client is: curl, PROXY version 1"
mark
get 82 /picture --haproxy-protocol -H 'Host: c.test'
assert_answered c
assert_eq "the client, as c was told by the header" "${address_of[client4]}" "$(header X-Client)"
get 82 /picture --haproxy-protocol
assert_answered a
assert_counts a.handed_off=1 c.accepted=1

say "HAProxy, version 2 with a checksum, for a client of its own network"
# The client's client: an address that only the client's host has.
in_ns client ip address add 192.0.2.7/32 dev lo
cat >"$run_dir/haproxy.cfg" <<CONF
global
  maxconn 100
defaults
  mode tcp
  timeout connect 5s
  timeout client 10s
  timeout server 10s
listen two
  bind 127.0.0.1:8082
  server a $a:82 send-proxy-v2 proxy-v2-options crc32c,unique-id
listen one
  bind 127.0.0.1:8081
  server a $a:82 send-proxy
CONF
spawn client "$run_dir/log/haproxy.log" haproxy -f "$run_dir/haproxy.cfg" -db
haproxy_listens() { [[ $(in_ns client ss -Hltn 'sport = :8082') == *LISTEN* ]]; }
wait_until 10 haproxy_listens
for version in 1 2; do
    mark
    FETCH_URL=http://127.0.0.1:808$version fetch client a /picture --interface 192.0.2.7
    assert_answered b
    assert_eq "the client, as b was told by the header" 192.0.2.7 "$(header X-Client)"
    FETCH_URL=http://127.0.0.1:808$version fetch client a /picture
    assert_answered a
    assert_same_file "through HAProxy, version $version" picture
    assert_counts a.handed_off=1 b.accepted=1
done

say "who writes no header where one must be is the local server's"
mark
get 82 /picture
assert_eq "nginx sees no header either" 000 "$status"
assert_eq "connections without the header" 1 "$(stat_of a 'ambiguous_requests_total{kind="proxy_header"}')"
assert_counts

scenario_end
