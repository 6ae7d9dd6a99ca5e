# shellcheck shell=bash
# HTTPS on the stage: an authority, a certificate for each server, nginx on port 443, a service that inspects TLS.
#
#   name                                   whose certificate is for it
#   a.stage.test, *.a.stage.test           a's    (likewise b and c)
#   www.stage.test                         everybody's

# make_certificates: short-lived, for this run only. Call it after `topology_up`.
make_certificates() {
    local node dir=$run_dir/tls
    mkdir -p "$dir"
    quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=stage authority' \
        -keyout "$dir/ca.key" -out "$dir/ca.crt"
    for node in "${nodes[@]}"; do
        sign "$node" "subjectAltName=DNS:$node.stage.test,DNS:*.$node.stage.test,DNS:www.stage.test"
    done
    sign client extendedKeyUsage=clientAuth
}

# sign NAME EXTENSION: a key and a certificate whose subject is NAME.
sign() {
    local dir=$run_dir/tls
    quietly openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
        -keyout "$dir/$1.key" -out "$dir/$1.csr"
    quietly openssl x509 -req -in "$dir/$1.csr" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" -CAcreateserial -days 2 \
        -extfile <(echo "$2") -out "$dir/$1.crt"
}

quietly() { "$@" 2>"$run_dir/tls/openssl.log" || fail "$1 $2: $(<"$run_dir/tls/openssl.log")"; }

# write_tls_servers: more of nginx's configuration on every server. Call it before `start_applications`.
# The name mutual.* asks for a client certificate. (`http2` behind `listen` works with old and new versions.)
write_tls_servers() {
    local node dir=$run_dir/tls names mutual
    for node in "${nodes[@]}"; do
        names="server_name $node.stage.test *.$node.stage.test www.stage.test;"
        mutual="server_name mutual.$node.stage.test; ssl_verify_client on; ssl_client_certificate $dir/ca.crt;"
        mkdir -p "$run_dir/$node/servers"
        for names in "$names" "$mutual"; do
            cat <<END
server {
  listen 443 ssl http2;
  listen [::]:443 ssl http2;
  $names
  ssl_certificate $dir/$node.crt;
  ssl_certificate_key $dir/$node.key;
  root $run_dir/www;
  add_header X-Server $node always;
  add_header X-Client \$ssl_client_s_dn always;
}
END
        done >"$run_dir/$node/servers/tls.conf"
    done
}

# tls_service RULES: for SERVICES of `write_cluster`.
tls_service() {
    local node
    echo '  secure:'
    echo '    frontends:'
    for node in "${nodes[@]}"; do echo "      $node: $(of_families tls_front_end_of "$node")"; done
    echo '    inspect: tls'
    echo "    rules:$1"
    echo '    default: local'
}
tls_front_end_of() { printf '%s:443' "${host_of[$1$2]}"; }

# fetch_tls TO NAME PATH [CURL OPTION...]: one request by HTTPS to server TO under that name. Sets what `fetch` does, and
#   subject (of the certificate that was shown; that it is for NAME and the authority's, curl has verified).
fetch_tls() {
    local to=$1 name=$2 path=$3
    shift 3
    # A name that is an address needs none, and may not have one.
    [[ $name == "${host_of[$to]}" ]] || set -- --resolve "$name:443:${host_of[$to]}" "$@"
    FETCH_URL=https://$name fetch client "$to" "$path" -v --cacert "$run_dir/tls/ca.crt" "$@"
    # shellcheck disable=SC2034 # for the scripts
    subject=$(sed -n 's/^\* *subject: CN *= *//p' "$run_dir/fetched.error")
}
