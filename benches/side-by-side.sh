#!/usr/bin/env bash
# baton beside what somebody would use instead, in one run on one machine: rates, throughput, latency, processor time of
# each process and of the whole machine, memory. Every octet is checked, and every connection that should have been handed
# off was.
#
#   benches/side-by-side.sh                   five rounds; about 20 minutes
#     --quick                                 three short ones, in two minutes: for correctness, not for figures
#     --rounds N   --seconds S   --gigabyte OCTETS     how many; of how long; what a large file is
#     --only WORKLOAD[,WORKLOAD...]           some of: new-1k new-64k kept-alive download-1m download-1g upload-1g trickle
#     --middles MIDDLE[,MIDDLE...]            some of: direct local overlay link auto haproxy nginx
#     --json FILE   --svg FILE                where to write everything that was measured; the chart
#     --write-docs                            put table and chart into docs/
#     --from FILE                             measure nothing: show (and --write-docs) what --json has written
#     --keep SECONDS                          measure nothing: leave the stage up that long, and print what is where
#
#            client         the middle                the server
#          .--------.     .------------.     .--------------------------------.
#   direct | load   |------------------------| s: nginx, sink                 |
#   haproxy|        |-----| h: haproxy |-----| s                              |
#   nginx  |        |-----| n: nginx   |-----| s                              |
#   local  |        |-----| a: baton and, on the same server, nginx, sink     |
#   overlay|        |-----| a: baton   |-----| b: baton, nginx, sink; answers |
#   link   |        |     |            |     |    go straight to the client   |
#          '--------'     '------------'     '--------------------------------'
#
# Each letter is a network namespace at one switch. All run all the time, and the one that is measured has the machine:
# the others say nothing but their heartbeats. The servers are pinned to the first processor, the clients to the last one;
# what is in the middle may run on all (PIN_SERVERS, PIN_CLIENTS, PIN_MIDDLES are lists of processors as taskset takes them).
# All use the same congestion control: CONGESTION, otherwise the kernel's default.
# BATON and LOAD are the programs to measure and to measure with, if not those in target/release/.
given=${BATON:+yes}
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/../netns-scripts/lib.sh"
# shellcheck source=netns-scripts/lib/install.sh
. "$scripts_dir/lib/install.sh"
parts=$project_dir/benches/side-by-side

usage() { sed -n '2,/^given/s/^# \{0,1\}//p' "$0" | sed '$d'; }

arguments=() middles='' keep='' from=no
while [[ $# -gt 0 ]]; do
    case $1 in
        --quick | --write-docs) arguments+=("$1") ;;
        --rounds | --seconds | --gigabyte | --only | --json | --svg | --from | --middles | --keep)
            [[ $# -ge 2 ]] || { echo "$1 needs a value (--help)" >&2; exit 2; }
            case $1 in
                --middles) middles=${2//,/ } ;;
                --keep) keep=$2 ;;
                *) arguments+=("$1" "$2") ;;
            esac
            [[ $1 != --from ]] || from=yes
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            echo "unknown argument: $1 (--help tells what there is)" >&2
            exit 2
            ;;
    esac
    shift
done
if [[ $from == yes ]]; then exec "$PYTHON" "$parts/main.py" "${arguments[@]}"; fi
# What is wrong with the arguments is said before anything is made.
large=$("$PYTHON" "$parts/main.py" "${arguments[@]}" --check) || exit 2

need_root
install_missing ip:iproute2 nft:nftables nginx:nginx haproxy:haproxy curl:curl python3:python3 taskset:util-linux
need_kernel
: "${LOAD:=${CARGO_TARGET_DIR:-$project_dir/target}/release/load}"
# What is measured is what the files say, not what was built some time ago.
if [[ -z $given || ! -x $LOAD ]]; then
    need_rust
    (cd "$project_dir" && cargo build --release --quiet --package baton --package load)
fi

last=$(($(nproc) - 1))
: "${PIN_SERVERS:=0}" "${PIN_CLIENTS:=$last}" "${PIN_MIDDLES:=0-$last}"
# shellcheck disable=SC2034 # `write_cluster` reads it
FRONTENDS=$FAMILY
export BATON_RUST_LOG=baton=info BATON_THROUGH="taskset -c $PIN_MIDDLES"
for place in s:10 h:11 n:12; do
    number=${place#*:} place=${place%:*}
    address_of[${place}4]=10.77.0.$number address_of[${place}6]=fd77::$number
    host_of[${place}4]=10.77.0.$number host_of[${place}6]="[fd77::$number]"
    host_of[$place]=${host_of[$place$FAMILY]}
done

# The switch counts nothing here: counting costs every packet.
watch_the_switch() { :; }
wire() { echo 'not counted'; }

# What a service with this `forward` listens on: for answers, for uploads.
declare -A web_port=([overlay]=80 [link]=81 [auto]=82) upload_port=([overlay]=90 [link]=91 [auto]=92)

# --- programs -----------------------------------------------------------------------------------------------------

# write_nginx_configuration PLACE SERVERS: one worker, files with sendfile, as a distribution configures it, without a log.
write_nginx_configuration() {
    cat >"$run_dir/$1/nginx.conf" <<END
daemon off;
user root;
worker_processes 1;
pid $run_dir/$1/nginx.pid;
error_log $run_dir/log/nginx-$1.error.log warn;
events { worker_connections 4096; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  open_file_cache max=100;
  client_body_temp_path $run_dir/$1/body;
  proxy_temp_path $run_dir/$1/proxy;
  fastcgi_temp_path $run_dir/$1/fastcgi;
  uwsgi_temp_path $run_dir/$1/uwsgi;
  scgi_temp_path $run_dir/$1/scgi;
  $2
  server {
    listen unix:$run_dir/$1/status.sock;
    location / { stub_status; }
  }
}
END
}

# The server application, the same on a, b and s.
server_application() {
    local port
    echo 'server {'
    for port in "${web_port[@]}"; do echo "listen $port; listen [::]:$port;"; done
    echo "location ~ ^/[a-z]+/ { root $run_dir/www; add_header X-Server $1; rewrite ^/[a-z]+/(.*)\$ /\$1 break; }"
    echo '}'
}

# nginx as a proxy: as its documentation shows it. Buffering is on as by default, but neither answers nor uploads go to
# files, which they do by default: the disk is not what is measured.
proxy_application() {
    cat <<END
  upstream servers { server ${host_of[s]}:80; keepalive 128; keepalive_requests 1000000000; }
  upstream uploads { server ${host_of[s]}:90; keepalive 128; keepalive_requests 1000000000; }
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_buffering on;
  proxy_max_temp_file_size 0;
  server { listen 80; listen [::]:80; location /images/ { proxy_pass http://servers; } }
  server {
    listen 90; listen [::]:90;
    client_max_body_size 0;
    proxy_request_buffering off;
    location /images/ { proxy_pass http://uploads; }
  }
END
}

# HAProxy at its best: told to splice, for `splice-auto` splices only what is fast already, and took three times the
# processor time for large answers here.
write_haproxy_configuration() {
    cat >"$run_dir/h/haproxy.cfg" <<END
global
  nbthread 1
  maxconn 4096
  stats socket $run_dir/h/haproxy.sock level admin
defaults
  mode http
  option splice-request
  option splice-response
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend web
  bind :::80 v4v6
  use_backend servers if { path_beg /images/ }
frontend upload
  bind :::90 v4v6
  use_backend uploads if { path_beg /images/ }
backend servers
  server s ${host_of[s]}:80
backend uploads
  server s ${host_of[s]}:90
END
}

# pin PROCESSORS PID: and its children.
pin() {
    local pid
    for pid in "$2" $(<"/proc/$2/task/$2/children"); do taskset -a -p -c "$1" "$pid" >/dev/null; done
}

# start_sink PLACE: the application that takes uploads.
start_sink() {
    local addresses=() port
    # The wildcard address: handed-off connections are for an alias.
    for port in "${upload_port[@]}"; do addresses+=("[::]:$port"); done
    spawn "$1" "$run_dir/log/sink-$1.log" taskset -c "$PIN_SERVERS" "$LOAD" sink "$1" "${addresses[@]}"
    echo "$spawned" >"$run_dir/$1/sink.process"
    wait_until 10 grep -q ready "$run_dir/log/sink-$1.log"
}

# --- the cluster --------------------------------------------------------------------------------------------------

# one_service NAME PORT FORWARD
one_service() {
    cat <<END
  $1:
    frontends: { a: "${host_of[a]}:$2" }
    servers: { a: { port: $2 }, b: { port: $2 } }
    inspect: http
    forward: $3
    rules: [{ name: images, when: { path: "/images/*" }, send_to: b }]
    default: local
END
}

# write_cluster_with FORWARD...: services for these ways to forward, besides those with the overlay.
write_cluster_with() {
    local services forward
    services=$(
        one_service upload-overlay 90 overlay
        for forward in "$@"; do
            one_service "web-$forward" "${web_port[$forward]}" "$forward"
            one_service "upload-$forward" "${upload_port[$forward]}" "$forward"
        done
    )
    NO_VIDEOS=yes SERVICES=$services write_cluster
}

# find_forwards: the ways to forward that this baton knows: `baton check` says.
find_forwards() {
    local forward
    for forward in link auto; do
        write_cluster_with "$forward"
        if "$BATON" check "$run_dir/cluster.yaml" >"$run_dir/log/check-$forward.log" 2>&1; then forwards+=("$forward"); fi
    done
    write_cluster_with "${forwards[@]}"
    "$BATON" check "$run_dir/cluster.yaml" >"$run_dir/log/check.log" 2>&1 || fail "baton check: $(<"$run_dir/log/check.log")"
}

# --- the stage ----------------------------------------------------------------------------------------------------

topology_up a b
for place in s h n; do
    plug "$place"
    mkdir "$run_dir/$place"
done
if [[ -n ${CONGESTION:-} ]]; then
    for place in client a b s h n; do
        in_ns "$place" sysctl -q -w "net.ipv4.tcp_congestion_control=$CONGESTION" >/dev/null 2>&1 ||
            fail "CONGESTION=$CONGESTION: this kernel allows namespaces only $(sysctl -n net.ipv4.tcp_allowed_congestion_control)"
    done
fi
# Where a container runtime has loaded br_netfilter, each frame in a bridge would pass a packet filter that does nothing.
for setting in ip ip6 arp; do
    in_ns switch sh -c "echo 0 >/proc/sys/net/bridge/bridge-nf-call-${setting}tables" 2>/dev/null || true
done
for size in 1024 65536 1048576 "$large"; do "$LOAD" file "$run_dir/www/$size" "$size"; done
# For the controls: one octet is wrong, in the middle.
cp "$run_dir/www/1024" "$run_dir/www/wrong"
printf '\0' | dd of="$run_dir/www/wrong" bs=1 seek=512 conv=notrunc status=none
# Nothing shall be written to the disk while others are measured.
sync "$run_dir/www"/*
forwards=()
find_forwards
known="direct local overlay ${forwards[*]} haproxy nginx"
for middle in $middles; do
    [[ " $known " == *" $middle "* ]] || fail "no such middle: $middle. With this baton there are: $known"
done

for place in a b s; do
    start_nginx "$place" "$(server_application "$place")"
    pin "$PIN_SERVERS" "$(<"$run_dir/$place/nginx.process")"
    start_sink "$place"
done
start_nginx n "$(proxy_application)"
pin "$PIN_MIDDLES" "$(<"$run_dir/n/nginx.process")"
write_haproxy_configuration
spawn h "$run_dir/log/haproxy.log" taskset -c "$PIN_MIDDLES" haproxy -db -f "$run_dir/h/haproxy.cfg"
echo "$spawned" >"$run_dir/h/haproxy.process"
wait_until 10 listening h 80
start_cluster

# stage: what is where, for main.py.
process_of() { printf '"%s": %s' "$1" "$(<"$run_dir/$2.process")"; }
servers_of() { printf '%s, %s' "$(process_of server "$1/nginx")" "$(process_of sink "$1/sink")"; }
# describe MIDDLE PLACE WEB-PORT UPLOAD-PORT SERVER PATH PROCESSES
describe() {
    printf '"%s": { "web": "%s:%s", "upload": "%s:%s", "server": "%s", "prefix": "/%s/", "processes": { %s } }\n' \
        "$1" "${host_of[$2]}" "$3" "${host_of[$2]}" "$4" "$5" "$6" "$7"
}
describe_all() {
    local middle
    for middle in ${middles:-$known}; do
        case $middle in
            direct) describe direct s 80 90 s images "$(servers_of s)" ;;
            haproxy) describe haproxy h 80 90 s images "$(process_of front-end h/haproxy), $(servers_of s)" ;;
            nginx) describe nginx n 80 90 s images "$(process_of front-end n/nginx), $(servers_of s)" ;;
            local) describe local a 80 90 a elsewhere "$(process_of front-end a/baton), $(servers_of a)" ;;
            *) describe "$middle" a "${web_port[$middle]}" "${upload_port[$middle]}" b images \
                "$(process_of front-end a/baton), $(process_of back-end b/baton), $(servers_of b)" ;;
        esac
    done | paste -s -d ,
}
echo "{ $(describe_all) }" >"$run_dir/stage.json"

if [[ -n $keep ]]; then
    say "in $run_dir, clients: ip netns exec $(namespace client) $LOAD get --help"
    cat "$run_dir/stage.json"
    ended_well=yes
    sleep "$keep" &
    wait $!
    exit 0
fi

# In the background, so that a signal is heeded at once.
"$PYTHON" "$parts/main.py" "${arguments[@]}" --stage "$run_dir" --client "$(namespace client)" --load "$LOAD" \
    --baton "$BATON" --pins "$PIN_SERVERS $PIN_CLIENTS $PIN_MIDDLES" \
    --congestion "$(in_ns client sysctl -n net.ipv4.tcp_congestion_control)" &
measuring=$!
trap 'status=$?; kill "$measuring" 2>/dev/null || true; topology_down $status' EXIT
# What is wrong it has said itself; what it asked is not a failure of this script.
status=0
wait "$measuring" || status=$?
[[ $status -eq 0 ]] || fail "errors, or connections that went another way; see the lines with WRONG"
assert_logs_clean
ended_well=yes
