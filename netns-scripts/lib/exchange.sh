# shellcheck shell=bash
# A download and an upload of the same file at the same time, over a connection each. Source after lib.sh. With STANDSTILL what
# stands still for so many seconds is noted: see lib/standstill.sh, which is then to be sourced before.

# both_ways FILE [FROM]: from namespace FROM (client) to a, under $content; both arrive as they were sent, and $server answers
# both. Sets ports (of the download, of the upload), seconds_down and seconds_up.
both_ways() {
    local file=$1 from=${2:-client} directory way pids=() hash
    directory=$(mktemp -d "$run_dir/exchange-XXXXXX")
    hash=$(sha256sum <"$run_dir/www/$file" | cut -d ' ' -f 1)
    [[ -z ${STANDSTILL:-} ]] || keep_last_packets "$from"
    for way in down up; do
        local what=("$content/$file")
        [[ $way == down ]] || what=("$content/upload" -X POST -T "$run_dir/www/$file" -H 'Expect:')
        in_ns "$from" curl -sS --noproxy '*' --max-time "${FETCH_TIMEOUT:-100}" -D "$directory/$way.headers" -o "$directory/$way" \
            -w '%{http_code} %{local_port} %{time_total}' "http://${host_of[a]}${what[0]}" "${what[@]:1}" \
            >"$directory/$way.line" 2>"$directory/$way.error" &
        pids+=($!)
    done
    [[ -z ${STANDSTILL:-} ]] || note_standstill "$from" "${pids[@]}"
    for way in "${pids[@]}"; do wait "$way" || true; done
    [[ -z ${STANDSTILL:-} ]] || forget_last_packets
    local line_down line_up
    line_down=$(<"$directory/down.line") line_up=$(<"$directory/up.line")
    for way in down up; do
        [[ $(<"$directory/$way.line") == 200\ * ]] || fail "$way: $(<"$directory/$way.line") $(<"$directory/$way.error")"
        assert_eq "$way: answered by" "$server" "$(header X-Server "$directory/$way.headers")"
    done
    assert_eq "down: hash of what arrived" "$hash" "$(sha256sum <"$directory/down" | cut -d ' ' -f 1)"
    assert_eq "up: hash of what arrived" "$hash" "$(head -c 64 "$directory/up")"
    rm -r "$directory"
    local port_down port_up
    read -r _ port_down seconds_down <<<"$line_down"
    read -r _ port_up seconds_up <<<"$line_up"
    # shellcheck disable=SC2034 # for three_ways
    ports=("$port_down" "$port_up")
    say "        down $seconds_down s, up $seconds_up s"
}
