#!/usr/bin/env bash
# The cluster file changes again and again under load, in every way that files are changed: written in place, another
# renamed over it, a symbolic link swapped as configuration volumes do; some of them wrong. No request fails, the server
# that answers follows the file from the moment that `baton status` says so, and a download that was handed off before the
# first change is whole after the last, though its front-end address came and went.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"

topology_up a b
make_file big 100M
make_file small 2K
# A second port, for a front-end address that comes and goes.
usual=$(declare -f write_nginx_configuration)
eval "usual_nginx_configuration ${usual#write_nginx_configuration}"
write_nginx_configuration() {
    usual_nginx_configuration "$@"
    sed -i 's/^ *listen 80 .*/&\n    listen 8080; listen [::]:8080;/' "$run_dir/$1/nginx.conf"
}
start_applications
NO_VIDEOS=yes write_cluster
file=$run_dir/cluster.yaml
mkdir "$run_dir/versions"
version() { printf '%s/versions/%s' "$run_dir" "$1"; }
cp "$file" "$(version to-b)"
sed 's/send_to: b$/send_to: local/' "$file" >"$(version to-a)"
# Connections to a's port 80 are nobody's business, those to its port 8080 are.
sed "s/^      a: \[.*/      a: [\"${host_of[a]}:8080\"]/" "$file" >"$(version moved)"
sed 's/send_to: b$/send_to: z/' "$file" >"$(version unknown-node)"
head -c 300 "$file" >"$(version half)"
sed 's/port: 7400/port: 7401/' "$file" >"$(version other-port)"
for name in to-a moved; do cmp -s "$(version "$name")" "$file" && fail "the version $name is no other"; done
declare -A answers_at_80=([to-b]=b [to-a]=a [moved]=a)
declare -A refused_with=([unknown-node]="there is no node \`z\`" [half]='cluster.yaml:' [other-port]='needs a restart: the overlay')
hash_of() { "$BATON" check "$(version "$1")" 2>/dev/null | sed -n 's/.*(hash \(.*\))$/\1/p'; }
declare -A hashes=()
for name in to-b to-a moved; do hashes[$name]=$(hash_of "$name"); done
assert_eq "different hashes" 3 "$(printf '%s\n' "${hashes[@]}" | grep -E '^[0-9a-f]{12}$' | sort -u | wc -l)"
start_cluster

# in_force NODE NAME: NODE says that this version is, and that it refused none since.
in_force() { [[ $(baton_ask "$1" status --json) == *"\"hash\": \"${hashes[$2]}"*'"last_error": null'* ]]; }
# refuses NODE NAME: NODE says that it refused this version, and that the one before, `$now`, is in force.
refuses() { [[ $(baton_ask "$1" status --json) == *"\"hash\": \"${hashes[$now]}"*'"last_error": "'*"${refused_with[$2]}"* ]]; }
refusals() { grep -c 'reload: refused' "$run_dir/log/baton-$1.log" || true; }

# change WAY NAME: the file becomes this version.
change() {
    case $1 in
    in-place) cat "$(version "$2")" >"$file" ;;
    renamed)
        cp "$(version "$2")" "$file.new"
        mv "$file.new" "$file"
        ;;
    volume)
        # cluster.yaml -> volume/..data/cluster.yaml, ..data -> ..N: only ..data ever changes.
        volumes=$((${volumes:-0} + 1))
        mkdir -p "$run_dir/volume/..$volumes"
        cp "$(version "$2")" "$run_dir/volume/..$volumes/cluster.yaml"
        ln -s "..$volumes" "$run_dir/volume/..new"
        mv -T "$run_dir/volume/..new" "$run_dir/volume/..data"
        if [[ ! -L $file ]]; then
            ln -s volume/..data/cluster.yaml "$file.new"
            mv -T "$file.new" "$file"
        fi
        rm -rf "$run_dir/volume/..$((volumes - 1))"
        ;;
    esac
}
at_8080() { fetch client a /images/small --connect-to "::${host_of[a]}:8080"; }

# download PORT PIECE: from a, at PIECE octets every 0.2 s until the file `enough` exists, then as fast as it goes.
download() {
    rm -f "$run_dir/big" "$run_dir/big.headers" "$run_dir/enough"
    (
        trap - ERR EXIT
        in_ns client curl -sS --noproxy '*' --max-time 120 -D "$run_dir/big.headers" "http://${host_of[a]}:$1/images/big" |
            (
                for ((pieces = 0; pieces < 400; pieces++)); do
                    [[ -e $run_dir/enough ]] && break
                    head -c "$2"
                    sleep 0.2
                done
                cat
            ) >"$run_dir/big"
    ) 2>>"$run_dir/log/curl.log" &
    download=$!
    wait_until 10 grep -q X-Server "$run_dir/big.headers"
    assert_eq "download answered by" b "$(header X-Server "$run_dir/big.headers")"
}
assert_download_whole() {
    wait_until 60 process_gone "$download"
    cmp "$run_dir/big" "$run_dir/www/big" >/dev/null || fail "the download is not equal to the file"
    ok "the download is whole: sha256 $(sha256sum <"$run_dir/big" | cut -c 1-16)"
}

say "load on port 80, and a download that b answers for a, before anything changes"
mark
download 80 250000
assert_counts a.handed_off=1 b.accepted=1
# One request at a time: what fails is to fail because of a reload.
(
    trap - ERR EXIT
    tool client load stream "${address_of[a]}" --until "$run_dir/enough" --concurrency 1 --expect /images/small=any \
        --expect /elsewhere/small=a --body "$run_dir/www/small" >"$run_dir/load.json" 2>"$run_dir/log/load.log"
) &
load=$!

changed=0 refused=0 now=to-b
for way in in-place renamed volume; do
    say "the file is $way"
    for name in to-a half to-b moved unknown-node to-b other-port; do
        changed=$((changed + 1))
        change "$way" "$name"
        if [[ -n ${refused_with[$name]:-} ]]; then
            refused=$((refused + 1))
            for node in a b; do wait_until 5 refuses "$node" "$name"; done
            ok "$name is refused, still in force is $now"
        else
            now=$name
            for node in a b; do wait_until 5 in_force "$node" "$name"; done
            ok "$name is in force"
        fi
        fetch client a /images/small
        assert_answered "${answers_at_80[$now]}"
    done
done
process_gone "$download" && fail "the download was over before the last change"
touch "$run_dir/enough"
wait "$load" || fail "requests failed: $(<"$run_dir/load.json")"
assert_eq "changes" 21 "$changed"
assert_eq "refusals" 9 "$refused"
for node in a b; do assert_eq "refusals told in the log of $node, each once" "$refused" "$(refusals "$node")"; done
say "        load: $(<"$run_dir/load.json")"
load_says() { "$PYTHON" -c 'import json, sys; load = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$run_dir/load.json" "$1"; }
assert_eq "errors under load" 0 "$(load_says 'load["errors"]')"
assert_at_least "answers under load" 500 "$(load_says 'load["answers"]')"
assert_at_least "answers of b under load" 100 "$(load_says 'load["by"]["b"]')"
# What b answered was handed to it: under load, the download, and in the loop above one for each fetch it answered.
fetched_from_b=$(awk '$5 == "/small" || $4 ~ /small/ { n++ } END { print n + 0 }' "$run_dir/log/nginx-b.access.log")
assert_eq "handed off by a: the download, and all small files b served" $((1 + fetched_from_b)) "$(sum_since_mark 'a\.handed_off')"
assert_eq "taken by b" $((1 + fetched_from_b)) "$(sum_since_mark 'b\.accepted')"
assert_eq "fall-backs for other reasons than a reload" 0 \
    "$(counts_since_mark | tr ' ' '\n' | grep fallback | grep -cvE 'refused_unknown_frontend|frontend_removed' || true)"

say "the download across all of them"
assert_download_whole

say "a front-end address that was added hands off; removed, its download goes on, and its clients are the local server's"
mark
at_8080
assert_answered a
assert_counts
change in-place moved
for node in a b; do wait_until 5 in_force "$node" moved; done
at_8080
assert_answered b
assert_counts a.handed_off=1 b.accepted=1
download 8080 250000
change in-place to-b
for node in a b; do wait_until 5 in_force "$node" to-b; done
process_gone "$download" && fail "over before the front-end address was removed"
mark
at_8080
assert_answered a
assert_counts
touch "$run_dir/enough"
assert_download_whole
# Not those on the wire: what was captured before a change can be overtaken by what is not captured after it, and a kernel
# answers packets of a connection that is long over.
assert_eq "connections that a and b reset" "0 0" "$(stat_of a resets_total) $(stat_of b resets_total)"

say "baton reload, SIGHUP"
change in-place to-a
assert_eq "baton reload" "reloaded (hash ${hashes[to-a]})" "$(baton_ask a reload)"
assert_eq "baton reload, once more" "nothing to do: the file means what is in force (hash ${hashes[to-a]})" "$(baton_ask a reload)"
change in-place unknown-node
outcome=0
baton_ask a reload >"$run_dir/reload.out" 2>&1 || outcome=$?
assert_eq "exit status of baton reload when the file is refused" 1 "$outcome"
assert_eq "its first line" "$file:$(grep -n 'send_to: z' "$file" | cut -d : -f 1):18: there is no node \`z\`" "$(head -n 1 "$run_dir/reload.out")"
assert_eq "baton status shows it" 1 "$(baton_ask a status | grep -cF "${refused_with[unknown-node]}")"
# rehearse VERSION: what `baton reload --dry-run` says of it, and how it ends.
rehearse() {
    outcome=0
    baton_ask a reload --dry-run "$(version "$1")" >"$run_dir/rehearsed" 2>"$run_dir/rehearsed.error" || outcome=$?
}
rehearse to-b
assert_eq "exit status of a dry run" 0 "$outcome"
assert_eq "fields that would change" "services.web.rules.images.send_to: local -> b" "$(grep send_to "$run_dir/rehearsed")"
assert_eq "its last line" "would be put in force (hash ${hashes[to-a]} -> ${hashes[to-b]}); nothing has been changed" "$(tail -n 1 "$run_dir/rehearsed")"
rehearse to-a
assert_eq "nothing would change" "nothing to do: the file means what is in force (hash ${hashes[to-a]})" "$(<"$run_dir/rehearsed")"
rehearse unknown-node
assert_eq "exit status of a dry run of a wrong file" 1 "$outcome"
grep -q 'there is no node .z.' "$run_dir/rehearsed.error" || fail "$(<"$run_dir/rehearsed.error")"
[[ $(baton_ask a status --json) == *"\"hash\": \"${hashes[to-a]}"* ]] || fail "a dry run changed what is in force"
change in-place to-b
kill -HUP "$(baton_pid a)"
wait_until 5 in_force a to-b
assert_eq "by SIGHUP" 1 "$(grep -c 'reload: by=SIGHUP hash='"${hashes[to-b]}" "$run_dir/log/baton-a.log")"

say "a front-end address on a device that packets were not captured from before"
forwarding() { in_ns a cat "/proc/sys/net/ipv4/conf/extra0/forwarding"; }
in_ns a ip link add extra0 type bridge
in_ns a ip address add 10.78.0.1/32 dev extra0
in_ns a ip link set extra0 up
for name in client b; do in_ns "$name" ip route add 10.78.0.1 via "${address_of[a4]}"; done
assert_eq "forwarding of the device before" 0 "$(forwarding)"
sed "s/^      a: \[\(.*\)\]/      a: [\1, \"10.78.0.1:80\"]/" "$(version to-b)" >"$(version device)"
hashes[device]=$(hash_of device)
change in-place device
for node in a b; do wait_until 5 in_force "$node" device; done
assert_eq "forwarding of the device, to the TUN only" 1 "$(forwarding)"
assert_eq "rules for that" 1 "$(in_ns a nft list chain inet baton forward | grep -c 'iifname "extra0" oifname != "bt0" drop')"
mark
fetch client a /images/small --connect-to "::10.78.0.1:80"
assert_answered b
assert_counts a.handed_off=1 b.accepted=1
change in-place to-b
for node in a b; do wait_until 5 in_force "$node" to-b; done

say "the same checks, fed with what is wrong"
mark
fetch client a /images/small
must_fail "b answered" assert_answered a
must_fail "one was handed off" assert_counts
must_fail "another version is in force" in_force a to-a
must_fail "nothing is refused" refuses a half
tool client load close "${address_of[a]}" --connections 2 --expect /images/small=a >"$run_dir/load.json" || true
must_fail "b instead of a is an error" assert_eq "errors under load" 0 "$(load_says 'load["errors"]')"
printf x | dd of="$run_dir/big" bs=1 seek=12345678 conv=notrunc status=none
must_fail "one octet is different" assert_download_whole
now='to-b'
change in-place half
wait_until 5 refuses a half
must_fail "a file is refused" in_force a to-b
change in-place to-b
stop_baton a
assert_eq "forwarding of the other device after the stop" 0 "$(forwarding)"

scenario_end
