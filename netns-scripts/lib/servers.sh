# shellcheck shell=bash
# Servers: nginx as anybody installs it, the application that receives uploads, and baton.

# --- nginx --------------------------------------------------------------------------------------------------------

# All servers serve the same files under every first path element, so that an answer is right whoever gave it and only
# the header tells who did. Uploads go to a little application which answers with the hash of what it received.
write_nginx_configuration() {
    local node=$1 dir=$run_dir/$1 backlog=${2:-511}
    cat >"$dir/nginx.conf" <<END
daemon off;
user root;
worker_processes 2;
pid $dir/nginx.pid;
error_log $run_dir/log/nginx-$node.error.log warn;
events { worker_connections 4096; }
http {
  log_format who '\$remote_addr:\$remote_port \$server_addr \$request_method \$request_uri \$status \$body_bytes_sent';
  log_format asker '\$remote_addr \$http_user_agent \$status';
  access_log $run_dir/log/nginx-$node.access.log who;
  client_body_temp_path $dir/body;
  proxy_temp_path $dir/proxy;
  fastcgi_temp_path $dir/fastcgi;
  uwsgi_temp_path $dir/uwsgi;
  scgi_temp_path $dir/scgi;
  keepalive_requests 10000000;
  sendfile on;
  server {
    listen 80 backlog=$backlog;
    listen [::]:80 backlog=$backlog;
    root $run_dir/www;
    add_header X-Server $node always;
    location ~ ^/[a-z]+/upload\$ {
      client_max_body_size 0;
      proxy_pass http://unix:$dir/upload.sock:;
      proxy_request_buffering off;
      proxy_http_version 1.1;
    }
    location = /healthz {
      access_log $run_dir/log/nginx-$node.health.log asker;
      root $dir/health;
      if (-f $dir/health/unwell) { return 503; }
    }
    location ~ ^/[a-z]+/ { rewrite ^/[a-z]+/(.*)\$ /\$1 break; }
  }
  server {
    listen unix:$dir/status.sock;
    access_log off;
    location / { stub_status; }
  }
  include $dir/servers/*.conf;
}
END
}

# start_nginx NODE [BACKLOG]
start_nginx() {
    local node=$1
    write_nginx_configuration "$@"
    # After an unclean end the socket's name would be taken.
    rm -f "$run_dir/$node/status.sock"
    spawn "$node" "$run_dir/log/nginx-$node.error.log" \
        nginx -p "$run_dir/$node/" -e "$run_dir/log/nginx-$node.error.log" -c "$run_dir/$node/nginx.conf"
    echo "$spawned" >"$run_dir/$node/nginx.process"
    wait_until 10 nginx_answers "$node"
}

nginx_answers() { [[ $(stub_status "$1") == *Reading* ]]; }

stop_nginx() {
    local pid
    pid=$(<"$run_dir/$1/nginx.process")
    kill -TERM "$pid"
    wait_until 10 process_gone "$pid"
}

stub_status() { curl -sS --max-time 5 --unix-socket "$run_dir/$1/status.sock" http://localhost/; }

# connections_accepted NODE: by nginx, since it started, apart from the connections of those who asked this question.
connections_accepted() {
    local asked=$run_dir/$1/status-asked
    # One digit per question: appending needs no lock.
    [[ $(stub_status "$1") =~ ([0-9]+)\ ([0-9]+)\ ([0-9]+) ]]
    printf 1 >>"$asked"
    printf '%s\n' "$((BASH_REMATCH[1] - $(stat -c %s "$asked") - 1))"
}

# start_upload_application NODE
start_upload_application() {
    spawn "$1" "$run_dir/log/upload-$1.log" "$PYTHON" "$scripts_dir/tools/upload_server.py" "$run_dir/$1/upload.sock"
    wait_until 10 test -S "$run_dir/$1/upload.sock"
}

# start_applications: nginx and the upload application on every server.
start_applications() {
    local node
    for node in "${nodes[@]}"; do
        start_nginx "$node"
        start_upload_application "$node"
    done
}

# make_file NAME BYTES: random content, the same on every server. BYTES may end in K, M or G.
make_file() { head -c "$2" /dev/urandom >"$run_dir/www/$1"; }

# --- baton --------------------------------------------------------------------------------------------------------

# The policy of most scenarios: images are b's, videos are c's, everything else stays where it arrived.
default_rules='
      - name: images
        when: { path: "/images/*" }
        send_to: b
      - name: videos
        when: { path: "/videos/*" }
        send_to: c'

# of_families WHAT [ARGUMENT...]: a flow sequence of what WHAT says for each family of the front-ends.
of_families() {
    local family list=''
    for family in $FRONTENDS; do list+="${list:+, }\"$("$@" "$family")\""; done
    printf '[%s]' "$list"
}
prefix_of() { printf '%s' "${alias_prefix_of[$1]}"; }
front_end_of() { printf '%s:80' "${host_of[$1$2]}"; }

# write_cluster: the cluster file of this run, with fresh keys. The variables RULES, SERVICE (more lines of the service,
# indented by four), FORWARD (what `forward` says), SERVICES (more services, indented by two) and LIMITS (one flow mapping)
# change what a scenario needs changed.
write_cluster() {
    local node rules=${RULES:-$default_rules}
    if [[ -n ${NO_VIDEOS:-} ]]; then rules=$(sed '/videos/,$d' <<<"$rules"); fi
    for node in "${nodes[@]}"; do
        [[ -e $run_dir/$node/public_key ]] && continue
        "$BATON" keygen --out "$run_dir/$node/key" | grep -v '^#' | tail -n 1 >"$run_dir/$node/public_key"
    done
    {
        echo 'cluster: stage'
        echo "overlay: { port: 7400, aliases: $(of_families prefix_of) }"
        echo 'nodes:'
        for node in "${nodes[@]}"; do
            echo "  $node: { address: \"${address_of[$node$CONTROL_FAMILY]}\", public_key: \"$(<"$run_dir/$node/public_key")\" }"
        done
        echo 'services:'
        echo '  web:'
        echo '    frontends:'
        for node in "${nodes[@]}"; do echo "      $node: $(of_families front_end_of "$node")"; done
        echo '    servers:'
        for node in "${nodes[@]}"; do echo "      $node: { port: 80 }"; done
        echo '    inspect: http'
        [[ -z ${FORWARD:-} ]] || echo "    forward: $FORWARD"
        [[ -z ${SERVICE:-} ]] || echo "$SERVICE"
        if [[ -n ${rules//[[:space:]]/} ]]; then
            echo "    rules:$rules"
        fi
        echo '    default: local'
        [[ -z ${SERVICES:-} ]] || echo "$SERVICES"
        [[ -z ${LIMITS:-} ]] || echo "limits: $LIMITS"
    } >"$run_dir/cluster.yaml"
}

# baton_ask NODE COMMAND...: asks the running process. Bounded in time: the process may be stopped.
baton_ask() {
    local node=$1
    shift
    timeout 10 "$BATON" "$@" --socket "$run_dir/$node/baton.sock"
}

baton_pid() { cat "$run_dir/$1/baton.process"; }

# launch_baton NODE: without waiting. The log of every start is appended to one file. The variable RUN_OPTIONS has more
# options of `baton run`, such as `--offload off`. A node that has a cluster file of its own runs with that.
launch_baton() {
    local node=$1 log=$run_dir/log/baton-$1.log file=$run_dir/$1/cluster.yaml
    [[ -e $file ]] || file=$run_dir/cluster.yaml
    stat -c %s "$log" >"$run_dir/$node/log-start" 2>/dev/null || echo 0 >"$run_dir/$node/log-start"
    # shellcheck disable=SC2086 # one word per option
    # BATON_THROUGH: a command that runs it.
    # shellcheck disable=SC2086 # one word per argument
    spawn "$node" "$log" env RUST_LOG="${BATON_RUST_LOG:-baton=debug}" RUST_BACKTRACE=1 ${BATON_THROUGH:-} \
        "$BATON" run ${RUN_OPTIONS:-} --node "${name_of[$node]:-$node}" --key "$run_dir/$node/key" --socket "$run_dir/$node/baton.sock" "$file"
    echo "$spawned" >"$run_dir/$node/baton.process"
}

baton_ready() { tail -c "+$(($(<"$run_dir/$1/log-start") + 1))" "$run_dir/log/baton-$1.log" | grep -qw ready; }

# baton_ready_or_dead NODE: waiting for a process that has already given up would only hide its reason.
baton_ready_or_dead() { baton_ready "$1" || process_gone "$(baton_pid "$1")"; }

# start_baton NODE...: and wait until it captures.
start_baton() {
    local node
    for node in "$@"; do launch_baton "$node"; done
    for node in "$@"; do
        wait_until 15 baton_ready_or_dead "$node"
        baton_ready "$node" || fail "baton on $node gave up: $(tail -n 3 "$run_dir/log/baton-$node.log")"
    done
}

# start_cluster: baton on every server, every session up.
start_cluster() {
    [[ -e $run_dir/cluster.yaml ]] || write_cluster
    start_baton "${nodes[@]}"
    wait_for_peers
}

# wait_for_peers: until every server has a session with every other one.
wait_for_peers() {
    local node
    for node in "${nodes[@]}"; do
        wait_until 15 peers_up "$node" $((${#nodes[@]} - 1))
    done
}

peers_up() { [[ $(baton_ask "$1" peers --json | "$PYTHON" "$scripts_dir/tools/peers.py" up) -eq $2 ]]; }

# peer_down NODE PEER: NODE knows that it has no session with PEER.
peer_down() { [[ $(baton_ask "$1" peers --json | "$PYTHON" "$scripts_dir/tools/peers.py" state "$2") == down ]]; }

# stop_baton NODE: the polite way; returns when the process is gone.
stop_baton() {
    local pid
    pid=$(baton_pid "$1")
    timeout 60 "$BATON" stop --socket "$run_dir/$1/baton.sock" || fail "baton stop on $1 gave status $?"
    # The command returns when the process has said its last word; on a machine at work it may need a moment to be gone.
    wait_until 5 process_gone "$pid"
}

kill_baton() {
    local pid
    pid=$(baton_pid "$1")
    kill -KILL "$pid"
    wait_until 5 process_gone "$pid"
}

freeze_baton() { kill -STOP "$(baton_pid "$1")"; }
thaw_baton() { kill -CONT "$(baton_pid "$1")"; }

# --- numbers ------------------------------------------------------------------------------------------------------

# stat_of NODE NAME: one number of `baton stats`.
stat_of() { baton_ask "$1" stats --json | "$PYTHON" "$scripts_dir/tools/stats.py" get "$2"; }

# tables_empty: no connection is known to any server in any role.
tables_empty() {
    local node gauge
    for node in "${nodes[@]}"; do
        for gauge in connections_front_end connections_back_end connections_lingering; do
            [[ $(stat_of "$node" "$gauge") == 0 ]] || return 1
        done
    done
}

# control_sessions: the TCP connections between the control ports, one line per session, as the servers' kernels see
# them. The same lines later mean that no session was ever renewed.
control_sessions() {
    local node
    for node in "${nodes[@]}"; do
        in_ns "$node" ss -Htn state established '( sport = :7400 )' | awk '{ print $3, $4 }'
    done | sort
}

# listening NODE PORT
listening() { [[ -n $(in_ns "$1" ss -Hltn "sport = :$2") ]]; }
