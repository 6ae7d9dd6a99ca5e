# shellcheck shell=bash
# Servers that speak first (tools/speaks_first.py), and services that decide on the SYN. Source after lib.sh.

# speak NODE PORT: starts the server on NODE.
speak() {
    local log=$run_dir/log/speaks-$1-$2.log
    : >"$log"
    spawn "$1" "$log" "$PYTHON" "$scripts_dir/tools/speaks_first.py" serve "$1" "$2"
    echo "$spawned" >"$run_dir/$1/speaks-$2.process"
    wait_until 10 grep -q listening "$log"
}

hush() {
    local pid
    pid=$(<"$run_dir/$1/speaks-$2.process")
    kill -KILL "$pid"
    wait_until 5 process_gone "$pid"
}

# talk NAMESPACE ADDRESS PORT [OPTION...] [COMMAND...]: see `ask` there. Sets `said`.
talk() {
    local from=$1
    shift
    said=$(tool "$from" speaks_first ask "$@") || true
}

# assert_said WORDS...: of the last `talk`.
assert_said() { assert_eq "said" "$*" "$said"; }

# write_services YAML: the usual cluster file with other services.
write_services() {
    write_cluster
    sed -i '/^services:/,$d' "$run_dir/cluster.yaml"
    printf 'services:\n%s\nlimits: { linger: 1s }\n' "$1" >>"$run_dir/cluster.yaml"
}

# end_of ADDRESS_NAME PORT: for a cluster file, of both families.
ends_of() { printf '["%s:%s", "%s:%s"]' "${host_of[${1}4]}" "$2" "${host_of[${1}6]}" "$2"; }
