#!/usr/bin/env bash
# Shows what baton does, in two minutes, on a machine that has nothing but a Rust toolchain:
#
#   netns-scripts/demo.sh          makes a client and three servers with nginx in network namespaces, starts baton in
#                                  each, sends requests, prints who answered and why, and removes everything
#   netns-scripts/demo.sh --keep   leaves it up until Ctrl-C and prints what to try
#
# Exit status 0: every answer came from where it should, was octet by octet right, and did not pass the front-end.

keep=no
case ${1:-} in
    '') ;;
    --keep) keep=yes ;;
    *)
        [[ $1 == -h || $1 == --help ]] || printf '%s: unknown option %s\n\n' "$(basename "$0")" "$1" >&2
        sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
        [[ $1 == -h || $1 == --help ]] && exit 0
        exit 2
        ;;
esac

# Said here: without a trap a Ctrl-C that a program survives would be lost.
trap 'exit 130' INT

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=netns-scripts/lib/install.sh
. "$here/lib/install.sh"
need_root
need_rust
install_missing ip:iproute2 nft:nftables nginx:nginx curl:curl python3:python3 cc:build-essential \
    update-ca-certificates:ca-certificates openssl:openssl
need_kernel
# shellcheck source=netns-scripts/lib.sh
. "$here/lib.sh"
# shellcheck source=netns-scripts/lib/tls.sh
. "$here/lib/tls.sh"

# --- the table ----------------------------------------------------------------------------------------------------

all_well=yes
row='  %-37s %-9s %-8s %-13s %12s %8s %14s\n'
print_heading() {
    # shellcheck disable=SC2059 # the format is a constant
    printf "\n$bold$row$plain" 'request' 'connected' 'answered' 'why' 'bytes' 'time' 'bytes through'
    # shellcheck disable=SC2059
    printf "$bold$row$plain" '' 'to' 'by' '(rule)' '' '' 'the front-end'
    printf '  %s\n' "$(printf '%.0s-' {1..107})"
}

# thousands N: 3145728 is hard to read, 3,145,728 is not.
thousands() { sed -E ':again; s/^([0-9]+)([0-9]{3})/\1,\2/; t again' <<<"$1"; }

# Questions, each asked in a subshell that Ctrl-C does not interrupt: it ends the demonstration right after the answer,
# instead of filling the terminal with the complaints of half a pipe.

# decided NODE: which rule has decided since `decisions` was saved, from baton's own counters.
save_decisions() (
    trap '' INT
    baton_ask "$1" stats --json >"$run_dir/decisions.json"
)
decided() (
    trap '' INT
    baton_ask "$1" stats --json | "$PYTHON" "$scripts_dir/tools/stats.py" decided "$run_dir/decisions.json"
)

# sent_by NODE: octets of TCP that have come from its wire for the client, over IPv4 and IPv6.
sent_by() (
    trap '' INT
    echo $(($(wire payload "$1" "${address_of[client4]}") + $(wire payload "$1" "${address_of[client6]}")))
)

# ask TEXT SERVER EXPECTED_SERVER EXPECTED_RULE PATH FILE [CURL OPTION...]: one request, one line of the table. A SERVER
# such as a6 is connected to over IPv6.
ask() {
    local text=$1 at=$2 to=${2%6} shown_to=${2/6/ (IPv6)} expected=$3 expected_rule=$4 path=$5 file=$6 rule before through complaints=()
    shift 6
    before=$(sent_by "$to")
    save_decisions "$to"
    fetch client "$at" "$path" "$@"
    rule=$(decided "$to")
    through=$(($(sent_by "$to") - before))
    [[ $status == 200 ]] || complaints+=("status $status")
    [[ $answered_by == "$expected" ]] || complaints+=("should be answered by $expected")
    [[ $rule == "$expected_rule" ]] || complaints+=("should be decided by $expected_rule")
    cmp -s "$body" "$run_dir/www/$file" || complaints+=("the answer is not what the server has")
    local colour=$green shown
    if [[ $answered_by == "$to" ]]; then
        colour=$dim shown='its own'
    else
        shown=$(thousands "$through")
        [[ $through -eq 0 ]] || complaints+=("the answer passed the front-end")
        handed_off=$((handed_off + 1)) handed_off_bytes=$((handed_off_bytes + octets)) handed_off_through=$((handed_off_through + through))
    fi
    print_row "$text" "$shown_to" "$answered_by" "$rule" "$colour" "$shown" "${complaints[*]}"
}

print_row() {
    local text=$1 to=$2 by=$3 rule=$4 colour=$5 shown=$6 wrong=$7
    printf '  %-37s %-9s %s%-8s%s %-13s %12s %5s ms %s%14s%s\n' "$text" "$to" "$colour" "${by:-nobody}" "$plain" "$rule" \
        "$(thousands "${octets:-0}")" "$(awk -v s="${seconds:-0}" 'BEGIN { printf "%.0f", s * 1000 }')" "$colour" "$shown" "$plain"
    if [[ -n $wrong ]]; then
        all_well=no
        printf '  %s^ %s%s\n' "$red" "$wrong" "$plain"
    fi
}

# --- the stage ----------------------------------------------------------------------------------------------------

handed_off=0 handed_off_bytes=0 handed_off_through=0

say "building baton ..."
build_log=
trap 'rm -f "$build_log"' EXIT
trap 'exit 143' TERM
trap 'exit 129' HUP
build_log=$(trap '' INT; mktemp)
if ! (cd "$project_dir" && cargo build --release) >"$build_log" 2>&1; then
    tail -n 30 "$build_log" >&2
    exit 1
fi
rm -f "$build_log"

topology_up a b c
make_file index.html 612
make_file cat.jpg 3M
make_file film.mp4 48M
make_file list.json 20K
make_certificates
write_tls_servers
start_applications
SERVICES=$(tls_service '
      - name: by-name
        when: { sni: b.stage.test }
        send_to: b') RULES='
      - name: images
        when: { path: "/images/*" }
        send_to: b
      - name: image-host
        when: { host: "img.example.com" }
        send_to: b
      - name: videos
        when: { path: "/videos/*", method: [GET, HEAD] }
        send_to: c
      - name: gold
        when: { header: { X-Tenant: gold } }
        send_to: c' write_cluster
start_cluster

cat <<END

  One switch, one client, three servers; each runs an unmodified nginx and baton. The client connects to any of
  them. What it asks for decides which one answers:

$(sed -n -e '/inspect:/s/^/  /p' -e '/rules:/,/default/s/^/  /p' "$run_dir/cluster.yaml")
END

print_heading
ask 'GET /' a a default / index.html
ask 'GET /images/cat.jpg' a b images /images/cat.jpg cat.jpg
ask 'GET /videos/film.mp4' a c videos /videos/film.mp4 film.mp4
ask 'GET /videos/film.mp4' b c videos /videos/film.mp4 film.mp4
ask 'GET /images/cat.jpg' b b images /images/cat.jpg cat.jpg
ask 'GET /list.json  Host: img.example.com' c b image-host /list.json list.json -H 'Host: img.example.com'
ask 'GET /list.json  X-Tenant: gold' a c gold /list.json list.json -H 'X-Tenant: gold'
ask 'GET /list.json' c c default /list.json list.json
FETCH_URL=https://b.stage.test ask 'https://b.stage.test/cat.jpg' a b by-name /cat.jpg cat.jpg \
    --cacert "$run_dir/tls/ca.crt" --resolve "b.stage.test:443:${host_of[a]}"
ask 'GET /videos/film.mp4' a6 c videos /videos/film.mp4 film.mp4
ask 'GET /list.json' a6 a default /list.json list.json

# The control: can this counter count? A plain relay on a, in front of the same server b, carries every octet.
spawn a "$run_dir/log/relay.log" "$PYTHON" "$scripts_dir/tools/relay.py" 8080 "${host_of[b]}:80"
wait_until 5 listening a 8080
before=$(sent_by a)
host_of[relay]=${host_of[a]}:8080
fetch client relay /images/cat.jpg
through=$(($(sent_by a) - before))
wrong=
[[ $status == 200 && $answered_by == b ]] || wrong="status $status from ${answered_by:-nobody}"
[[ $through -ge 3145728 ]] || wrong="the counter does not count"
print_row 'GET /images/cat.jpg' 'a:8080' "$answered_by" 'a plain relay' "$yellow" "$(thousands "$through")" "$wrong"

cat <<END

  $handed_off connections were accepted by one server and answered by another: $(thousands "$handed_off_bytes") bytes, of which $(thousands "$handed_off_through") went through
  the server the client had connected to (an nft counter on its wire). The last line is the control: a plain
  relay on a, and the same counter counts.
END

if [[ $keep == yes ]]; then
    cat <<END

  ${bold}It is all still up.$plain Try, in another terminal:

    ip netns exec $(namespace client) curl -si http://${host_of[a4]}/images/cat.jpg -o /dev/null -D -
    ip netns exec $(namespace client) curl -si http://${host_of[a6]}/images/cat.jpg -o /dev/null -D -
    $BATON status --socket $run_dir/a/baton.sock          (also: peers, flows, stats)
    $BATON flows --socket $run_dir/b/baton.sock
    tail -f $run_dir/log/baton-a.log
    tail -f $run_dir/log/nginx-b.access.log          (the client's own address and port)
    ip netns exec $(namespace switch) tcpdump -ni br0 tcp port 80$(command -v tcpdump >/dev/null || echo "          (needs tcpdump)")

  Ctrl-C removes it all.
END
    stay=$([[ $all_well == yes ]] && echo 0 || echo 1)
    ended_well=yes
    trap 'echo; exit $stay' INT
    while :; do sleep 1; done
fi

assert_logs_clean >/dev/null
[[ $all_well == yes ]] || { say "  ${red}Not all as expected.$plain"; exit 1; }
ended_well=yes
say "  ${green}All as expected.$plain Everything that was made for this is removed again."
