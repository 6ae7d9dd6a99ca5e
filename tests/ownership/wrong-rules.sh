#!/usr/bin/env bash
# Shows that the exploration can fail: breaks one rule of the engine at a time, in a copy of the sources, and expects the
# named test to find it. `wrong-rules.sh [NAME...]`; each takes about a minute.

set -euo pipefail

project_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -r "$project_dir"/{Cargo.toml,Cargo.lock,src,tests} "$scratch"/
cd "$scratch"
export CARGO_TARGET_DIR=${WRONG_RULES_TARGET_DIR:-$scratch/target} BATON_DEPTH=1

python3 - "$@" <<'END'
import pathlib, re, subprocess, sys

BTCP, UTCP = "src/handoff/btcp/", "src/handoff/utcp/"
# name, what is wrong, test, file, text, replacement
RULES = [
    ("takes-back", "after the commit, the front-end takes the connection back when the session breaks", "any_one_fault",
     BTCP + "peers.rs", "State::HandedOff(handed_off) => {\n",
     "State::HandedOff(HandedOff { pending: Some(pending), id, .. }) => {\n"
     "self.by_handoff.remove(&id); self.passed_over(slot, peer, pending, Fallback::PeerDown, ctx, now); }\n"
     "State::HandedOff(handed_off) => {\n"),
    ("applies-twice", "a repeated commit is applied again", "any_one_fault",
     UTCP + "deliver.rs", "            other => connection.state = other,\n        }\n    }\n\n    /// Writes what",
     "            State::Delivering(delivering) => { ctx.counters.handoffs_accepted += 1;\n"
     "connection.state = State::Delivering(delivering); self.deliver(slot, ctx, now); }\n"
     "            other => connection.state = other,\n        }\n    }\n\n    /// Writes what"),
    ("forgets-applied", "the owner forgets which commits it has applied", "the_session_breaks_while_time_passes",
     UTCP + "deliver.rs", "if self.applied.contains(&(from, id)) {", "if false {"),
    ("drops-orphans", "guards found at a start are not taken notice of", "any_one_fault",
     "src/handoff/btcp.rs", "orphans: orphans.iter()", "orphans: orphans.iter().take(0)"),
    ("returns-unpurged", "a connection is returned while the owner's kernel still has the request",
     "a_back_end_that_cannot_take_the_connection_returns_it",
     UTCP + "judge.rs", "State::Returning(delivering) => match socket {",
     "State::Returning(delivering) => match if socket == SocketState::SynReceived { SocketState::Absent } else { socket } {"),
    ("commits-unguarded", "the commit does not wait for the guard", "any_one_fault",
     BTCP + "handoff.rs", "KernelHalf::SynReceived => connection.secure(Securing::Commit(offered), ctx),",
     "KernelHalf::SynReceived => self.commit(slot, offered, ctx, now),"),
    ("commits-unpurged", "the front-end's kernel keeps its half", "any_one_fault",
     BTCP + "handoff.rs", "        purge(&connection.flow, undecided, &mut self.holds, ctx);\n", ""),
    ("does-not-ask", "the front-end's kernel is not asked for its half before the commit", "any_one_fault",
     BTCP + "secure.rs", "matches!(socket, SocketState::Open | SocketState::TimeWait)", "false"),
    ("ignores-late-return", "a connection returned to a later life of its front-end is not reset",
     "a_back_end_that_cannot_take_the_connection_returns_it",
     BTCP + "handoff.rs", "            return self.lose(slot, ctx, now);\n        };\n        pending.deadline",
     "            return;\n        };\n        pending.deadline"),
    ("forgets-old-front-ends", "guards of a front-end address that is gone mean nothing", "a_front_end_that_is_removed_restarts",
     "src/handoff/context.rs", ".filter(|frontend| !policy.is_own_frontend(*frontend))", ".filter(|_| false)"),
]

missed = 0
for name, what, test, path, text, replacement in RULES:
    if len(sys.argv) > 1 and name not in sys.argv[1:]:
        continue
    file = pathlib.Path(path)
    right = file.read_text()
    if right.count(text) != 1:
        sys.exit(f"{name}: {path} has changed; the text to be replaced is there {right.count(text)} times")
    wrong = right.replace(text, replacement)
    if name == "returns-unpurged":
        wrong = wrong.replace("                self.purge(slot, ctx);\n                self.ask(slot, ctx);", "                self.ask(slot, ctx);")
    file.write_text(wrong)
    run = subprocess.run(["cargo", "test", "--quiet", "--test", "ownership", test], capture_output=True, text=True)
    file.write_text(right)
    output = run.stdout + run.stderr
    found = re.search(r"panicked at tests/ownership/main.*\n[a-z -]+: (.*)\n", output)
    if found:
        steps = len(re.findall(r"^ +\d+\. ", output, re.MULTILINE))
        print(f"caught  {name}: {what}\n        {test}: {found[1]}, in {steps} steps", flush=True)
    else:
        missed += 1
        print(f"MISSED  {name}: {what}\n{output[-2000:]}", flush=True)
sys.exit(missed)
END
