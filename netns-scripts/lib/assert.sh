# shellcheck shell=bash
# Assertions. Fail-open makes a broken handoff look healthy, so most of them are about who answered and about exact
# counts; and each can be shown to fail by `must_fail`.

# assert_eq WHAT EXPECTED ACTUAL
assert_eq() {
    [[ $2 == "$3" ]] || fail "$1: expected '$2', got '$3'"
    ok "$1: $3"
}

# assert_at_most WHAT LIMIT ACTUAL
assert_at_most() {
    [[ $3 -le $2 ]] || fail "$1: expected at most $2, got $3"
    ok "$1: $3 (at most $2)"
}

# assert_at_least WHAT LIMIT ACTUAL
assert_at_least() {
    [[ $3 -ge $2 ]] || fail "$1: expected at least $2, got $3"
    ok "$1: $3 (at least $2)"
}

# must_fail WHY ASSERTION...: the negative control. The assertion is fed with a situation that is wrong on purpose, and
# the scenario fails if the assertion does not notice.
must_fail() {
    local why=$1
    shift
    if (
        trap - ERR EXIT
        "$@"
    ) >/dev/null 2>&1; then
        fail "this check cannot fail ($why): $*"
    fi
    ok "control: $why, and the check notices: ${1} ${2:-}"
}

# mark: counts are taken from here on.
mark() {
    local node
    mkdir -p "$run_dir/mark"
    for node in "${nodes[@]}"; do
        baton_ask "$node" stats --json >"$run_dir/mark/$node.json" 2>/dev/null || rm -f "$run_dir/mark/$node.json"
    done
}

# counts_since_mark: what every running baton has counted since `mark`, apart from zeros, in one line such as
# `a.handed_off=1 b.accepted=1`. The names: handed_off (as front-end), accepted (as back-end), fallback.REASON.
counts_since_mark() {
    local node
    for node in "${nodes[@]}"; do
        baton_ask "$node" stats --json >"$run_dir/mark/$node.now.json" 2>/dev/null || continue
        "$PYTHON" "$scripts_dir/tools/stats.py" counts "$node" "$run_dir/mark/$node.json" "$run_dir/mark/$node.now.json"
    done | sort | xargs
}

# assert_counts [NODE.NAME=N...]: exactly these handoffs and fall-backs since `mark`; every count that is not named
# here, on any server that runs, is zero.
assert_counts() {
    local expected
    expected=$(printf '%s\n' "$@" | grep -v '=0$' | sort | xargs) || true
    assert_eq "handoffs and fall-backs" "$expected" "$(counts_since_mark)"
}

# sum_since_mark NAMES: of what was counted since `mark` and has a name that matches.
sum_since_mark() { counts_since_mark | tr ' ' '\n' | awk -F = -v names="^($1)\$" '$1 ~ names { sum += $2 } END { print sum + 0 }'; }

# assert_sum N NAMES: where chance decides which of these names is counted. Together they are N, and nothing else was
# counted on any server that runs.
assert_sum() {
    assert_eq "handoffs and fall-backs that are $2" "$1" "$(sum_since_mark "$2")"
    assert_eq "handoffs and fall-backs of any name" "$1" "$(sum_since_mark '.*')"
}

# assert_answered WHO: the last `fetch` was answered with 200 by WHO.
assert_answered() {
    assert_eq "status" 200 "$status"
    assert_eq "answered by" "$1" "$answered_by"
}

# assert_same_file WHAT FILE: what was fetched is equal to the file the servers have, octet by octet.
assert_same_file() {
    cmp "$run_dir/www/$2" "$body" >/dev/null 2>&1 || fail "$1: not equal to $2 ($(stat -c %s "$body") octets)"
    ok "$1: octet by octet equal to $2"
}

# assert_logs_clean: a line at level ERROR is a defect of the daemon by definition, and so is a panic.
assert_logs_clean() {
    local node found
    for node in "${nodes[@]}"; do
        found=$(grep -hE '(^|[^[:alnum:]])ERROR([^[:alnum:]]|$)|panicked at' "$run_dir/log/baton-$node.log" 2>/dev/null | head -n 3) || true
        [[ -z $found ]] || fail "errors in the log of baton on $node: $found"
    done
    ok "no error in any log"
}
