#!/usr/bin/env bash
# A TLS connection goes to the server whose name the client asks for, and TLS ends there: with that server's own
# certificate, whatever it asks of the client, however the hello is cut into records and segments. Nothing on the way has
# a key.
# shellcheck source=netns-scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=netns-scripts/lib/tls.sh
. "$scripts_dir/lib/tls.sh"

topology_up a b c
make_file picture 100K
make_file film 48M
make_certificates
write_tls_servers
start_applications
SERVICES=$(tls_service '
      - name: pictures
        when: { sni: [B.stage.test, "*.b.stage.test"] }
        send_to: b
      - name: films
        when: { sni: c.stage.test }
        send_to: c
      - name: newer-protocol
        when: { sni: www.stage.test, alpn: h2 }
        send_to: c
      - name: nameless
        when: { sni: false }
        send_to: b') write_cluster
start_cluster

# assert_tls WHO: the last `fetch_tls` was answered with 200 by WHO, under WHO's own certificate.
assert_tls() { assert_eq "status, answered by, certificate of" "200 $1 $1" "$status $answered_by $subject"; }

say "every front-end, every name"
for front_end in a b c; do
    mark
    for asked in b.stage.test:b sub.b.stage.test:b c.stage.test:c "www.stage.test:$front_end"; do
        fetch_tls "$front_end" "${asked%:*}" /picture --http1.1
        assert_tls "${asked#*:}"
        assert_same_file "https://${asked%:*} from $front_end" picture
    done
    case $front_end in
        a) assert_counts a.handed_off=3 b.accepted=2 c.accepted=1 ;;
        b) assert_counts b.handed_off=1 c.accepted=1 ;;
        c) assert_counts b.accepted=2 c.handed_off=2 ;;
    esac
done

say "the same checks, fed with another name"
mark
fetch_tls a a.stage.test /picture
must_fail "a itself answered" assert_tls b
must_fail "nothing was handed off" assert_counts a.handed_off=1 b.accepted=1
printf x >>"$body"
must_fail "one octet too many" assert_same_file "the answer" picture

say "upper case, and the protocol that is offered"
mark
fetch_tls a B.STAGE.TEST /picture
assert_tls b
fetch_tls a www.stage.test /picture --http2
assert_tls c
fetch_tls a www.stage.test /picture --http1.1
assert_tls a
fetch_tls a www.stage.test /picture --no-alpn
assert_tls a
assert_counts a.handed_off=2 b.accepted=1 c.accepted=1

say "no name: the certificate is not for an address, so nobody verifies it"
mark
fetch_tls a "${host_of[a]}" /picture --insecure
assert_tls b
assert_counts a.handed_off=1 b.accepted=1

say "a client certificate is the server's own business"
mark
fetch_tls a mutual.b.stage.test /picture --cert "$run_dir/tls/client.crt" --key "$run_dir/tls/client.key"
assert_tls b
assert_eq "client that b has verified" CN=client "$(header X-Client)"
fetch_tls a mutual.b.stage.test /picture
assert_eq "status without a certificate" 400 "$status"
must_fail "b wants a certificate" assert_tls b
fetch_tls a b.stage.test /picture
must_fail "nobody asked for one" assert_eq "client that b has verified" CN=client "$(header X-Client)"
assert_counts a.handed_off=3 b.accepted=3

say "openssl s_client, which tells what was agreed on (from version 3.5 on with a post-quantum key share)"
# assert_agreed NAME PROTOCOL SUBJECT: a handshake with a that offers one protocol.
assert_agreed() {
    in_ns client timeout 10 openssl s_client -connect "${host_of[a]}:443" -servername "$1" -alpn "$2" \
        -CAfile "$run_dir/tls/ca.crt" -verify_return_error -verify_hostname "$1" </dev/null >"$run_dir/agreed" 2>&1 ||
        fail "s_client: $(tail -n 3 "$run_dir/agreed")"
    assert_eq "certificate of, protocol" "$3 $2" \
        "$(sed -n 's/^subject=CN *= *//p' "$run_dir/agreed") $(sed -n 's/^ALPN protocol: //p' "$run_dir/agreed")"
}
mark
assert_agreed b.stage.test h2 b
assert_agreed www.stage.test h2 c
assert_agreed www.stage.test http/1.1 a
must_fail "c has another certificate" assert_agreed www.stage.test h2 a
must_fail "nobody has a certificate for this name" assert_agreed other.test h2 a
assert_counts a.handed_off=3 b.accepted=1 c.accepted=2

say "a film"
mark
fetch_tls a c.stage.test /film
assert_tls c
assert_same_file "the film" film
assert_counts a.handed_off=1 c.accepted=1

# by_hand TO OPTION...: one request by a client whose hello is cut as told; the answer in `answer`.
by_hand() {
    local to=$1
    shift
    answer=$(tool client tls_client "${address_of[$to]}" --ca "$run_dir/tls/ca.crt" --path /picture "$@") || true
}
field() { "$PYTHON" -c 'import json, sys; print(json.loads(sys.argv[1]).get(sys.argv[2]))' "$answer" "$1"; }
hash=$(sha256sum <"$run_dir/www/picture" | cut -d ' ' -f 1)
assert_by_hand() {
    assert_eq "status, answered by, certificate of, body" "200 $1 $1 $hash" \
        "$(field status) $(field answered_by) $(field subject) $(field sha256)"
}

# A hello with a post-quantum key share has about 1,700 octets; here the protocols' names make it so large.
large=(--hello-octets 1700)
for how in '' '--records 100' '--records 1' '--segments 1460' '--segments 1' '--segments 1 --records 300' '--segments 400 --pause 0.2'; do
    say "a large hello: ${how:-in one piece}"
    # shellcheck disable=SC2206 # one word per option
    options=("${large[@]}" $how)
    mark
    by_hand a --name b.stage.test "${options[@]}"
    assert_by_hand b
    assert_at_least "octets of the hello" 1700 "$(field hello_octets)"
    if [[ $how == *'--segments 1 '* || $how == *'--segments 1' ]]; then
        assert_at_least "segments of the hello" "$(field hello_octets)" "$(field hello_segments)"
    fi
    by_hand a --name www.stage.test "${options[@]}"
    assert_by_hand a
    assert_counts a.handed_off=1 b.accepted=1
done
must_fail "a itself answered" assert_by_hand b

say "a resumed session"
mark
by_hand a --name b.stage.test --again "${address_of[a]}"
assert_by_hand b
assert_eq "session resumed" True "$(field reused)"
by_hand c --name b.stage.test --again "${address_of[a]}"
assert_by_hand b
assert_eq "session resumed through another front-end" True "$(field reused)"
assert_counts a.handed_off=3 c.handed_off=1 b.accepted=4
by_hand a --name b.stage.test
must_fail "this is a first session" assert_eq "session resumed" True "$(field reused)"

say "what is no hello, or too large, is the local server's"
unclear() { stat_of a "ambiguous_requests_total{kind=\"$1\"}" 2>/dev/null || echo 0; }
mark
in_ns client curl -sS --noproxy '*' --max-time 10 -o /dev/null -D "$run_dir/plain.headers" "http://${host_of[a]}:443/picture"
assert_eq "HTTP on this port, answered by" a "$(header X-Server "$run_dir/plain.headers")"
assert_eq "connections that were not TLS" 1 "$(unclear not_tls)"
by_hand a --name www.stage.test --hello-octets 20000
assert_by_hand a
assert_eq "hellos that were too long" 1 "$(unclear too_long)"
assert_counts

scenario_end
