# shellcheck shell=bash
# Installs what a script needs and a fresh Debian or Ubuntu does not have, and says what.

# need_root: everything here makes network namespaces.
need_root() {
    [[ $EUID -eq 0 ]] || { echo "$(basename "$0"): must be run as root: it makes network namespaces" >&2; exit 1; }
}

# install_missing COMMAND:PACKAGE...: the packages of those commands that are not there. Afterwards all are, or the
# script ends.
install_missing() {
    local pair missing=() still=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "missing: ${missing[*]} (Debian's names). This is not Debian or Ubuntu: please install them and start again." >&2
        exit 1
    fi
    echo "installing: ${missing[*]}"
    # Debian starts services when it installs them. Nobody asked for a web server on this machine: the scripts run
    # their own inside namespaces.
    local policy=/usr/sbin/policy-rc.d made_policy=no status=0
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made_policy=yes
    fi
    {
        apt-get update -q &&
            DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
    } >"${install_log:=$(mktemp)}" 2>&1 || status=$?
    [[ $made_policy == no ]] || rm -f "$policy"
    if [[ $status -ne 0 ]]; then
        tail -n 20 "$install_log" >&2
        exit 1
    fi
    if [[ " ${missing[*]} " == *" nginx "* ]] && [[ -d /run/systemd/system ]]; then
        systemctl disable --quiet nginx 2>/dev/null || true
    fi
    rm -f "$install_log"
    hash -r
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || still+=("${pair%%:*}")
    done
    [[ ${#still[@]} -eq 0 ]] || { echo "still missing after the installation: ${still[*]}" >&2; exit 1; }
}

# need_rust: a toolchain is a precondition: which one, and from where, is for the owner of the machine.
need_rust() {
    # sudo and cron have a shorter PATH than the person who installed the toolchain.
    command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
    if ! command -v cargo >/dev/null; then
        echo "no Rust toolchain found (no cargo in PATH). https://rustup.rs installs one." >&2
        exit 1
    fi
}

# need_rust_component NAME SUBCOMMAND
need_rust_component() {
    cargo "$2" --version >/dev/null 2>&1 && return
    echo "installing: $1, a component of the Rust toolchain"
    rustup component add "$1" >/dev/null 2>&1 || { echo "cannot install $1: try 'rustup component add $1'" >&2; exit 1; }
}

# need_kernel: says at once what otherwise would fail in the middle.
need_kernel() {
    if [[ ! -c /dev/net/tun ]]; then
        modprobe tun 2>/dev/null || true
        [[ -c /dev/net/tun ]] || { echo "no /dev/net/tun: this machine or container cannot make TUN devices" >&2; exit 1; }
    fi
    local status=0
    probe_kernel "bt-probe-$$" || status=$?
    case $status in
        0) ;;
        1)
            echo "cannot make network namespaces: missing CAP_SYS_ADMIN, as in most containers; try --privileged or a virtual machine" >&2
            exit 1
            ;;
        *)
            echo "this kernel lacks bridge, veth or nf_tables" >&2
            exit 1
            ;;
    esac
}

# probe_kernel NAME: tries in a namespace of that name, which Ctrl-C does not leave behind.
probe_kernel() (
    trap '' INT
    ip netns add "$1" 2>/dev/null || exit 1
    lacks=0
    ip -n "$1" link add br0 type bridge 2>/dev/null &&
        ip -n "$1" link add v0 type veth peer name v1 2>/dev/null &&
        ip netns exec "$1" nft add table bridge probe 2>/dev/null || lacks=2
    ip netns delete "$1"
    exit "$lacks"
)
