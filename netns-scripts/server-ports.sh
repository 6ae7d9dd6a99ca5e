#!/usr/bin/env bash
# Applications that take handed-off connections on other ports than clients connect to, and a server that no client ever
# connects to. Whoever answers, and on whichever port, the client knows one address and one port: its front-end's. An
# application that listens where handed-off connections cannot arrive is told of, and others answer instead.
#
#     client ---> a:80, a:8000   nginx on a: 80, 8000
#            \--> b:80           nginx on b: 80 for its own clients, 8080 for handed-off connections
#                 c              nginx on c: 8081; no front-end address
#
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# listen NODE WHERE...: what nginx there listens on, from its next start.
declare -A listens=()
listen() {
    local node=$1
    shift
    listens[$node]=$(printf 'listen %s; ' "$@")
}
usual=$(declare -f write_nginx_configuration)
eval "usual_nginx_configuration ${usual#write_nginx_configuration}"
write_nginx_configuration() {
    usual_nginx_configuration "$@"
    # shellcheck disable=SC2016 # nginx's own variable
    sed -i -e '/^ *listen \[::\]:80/d' -e "s/^ *listen 80 .*/    ${listens[$1]} add_header X-Port \$server_port always;/" "$run_dir/$1/nginx.conf"
}
restart_nginx() {
    stop_nginx "$1"
    start_nginx "$1"
}

# write_ports_cluster [SERVERS]: the nodes of the usual file, and a service with these ports.
write_ports_cluster() {
    write_cluster
    sed -i '/^services:/,$d' "$run_dir/cluster.yaml"
    cat >>"$run_dir/cluster.yaml" <<YAML
services:
  web:
    frontends: { a: ["${address_of[a]}:80", "${address_of[a]}:8000"], b: "${address_of[b]}:80" }
    servers: ${1:-"{ a: { port: 80 }, b: { port: 8080 }, c: { port: 8081 } }"}
    rules:$default_rules
    default: local
YAML
}

# get NODE PORT PATH [CURL OPTION...]: one request to a port of a server.
get() {
    local node=$1 port=$2
    shift 2
    address_of[there]=${address_of[$node]}:$port
    fetch client there "$@"
    answered_on=$(header X-Port)
}
assert_answered_on() {
    assert_answered "$1"
    assert_eq "on port" "$2" "$answered_on"
}
# ask NODE PORT PATH [OPTION...]: the same by tools/one_request.py, which can end a connection in other ways.
ask() {
    local node=$1
    shift
    read -r status answered_by answered_on peer_port octets ending local_port < <(tool client one_request "${address_of[$node]}" "$@")
}
hash_of() { sha256sum | cut -d ' ' -f 1; }

topology_up a b c
make_file large 60M
make_file picture 100K
listen a 80 8000
listen b 80 8080
listen c 8081
start_applications
write_ports_cluster
start_cluster
large=$(hash_of <"$run_dir/www/large")

say "every front-end port, every server, each on its port"
for front_end in a:80 a:8000 b:80; do
    for content in images:b:8080 videos:c:8081; do
        IFS=: read -r path owner port <<<"$content"
        mark
        get "${front_end%:*}" "${front_end#*:}" "/$path/picture"
        assert_answered_on "$owner" "$([[ ${front_end%:*} == "$owner" ]] && echo 80 || echo "$port")"
        assert_same_file "/$path/picture from $front_end" picture
        if [[ ${front_end%:*} == "$owner" ]]; then
            assert_counts
        else
            assert_counts "${front_end%:*}.handed_off=1" "$owner.accepted=1"
        fi
    done
    mark
    get "${front_end%:*}" "${front_end#*:}" /elsewhere/picture
    assert_answered_on "${front_end%:*}" "${front_end#*:}"
    assert_counts
done
must_fail "it was the front-end's port" assert_answered_on b 8080

scenario_end
