#!/usr/bin/env bash
# Shows that the exploration can fail: breaks one rule of the engine at a time, in a copy of the sources, and expects the
# named test to find it. `wrong-rules.sh [NAME...]`; each takes about a minute. (The machinery is tests/break_rules.py.)

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHONPATH=$here/.. PYTHONDONTWRITEBYTECODE=1 exec python3 /dev/fd/3 "$@" 3<<'END'
import re

from break_rules import Rule, main

BTCP, UTCP = "src/handoff/btcp/", "src/handoff/utcp/"


def how(output):
    """What the exploration found, and how far it had to go for it."""
    found = re.search(r"panicked at tests/ownership/main.*\n[a-z -]+: (.*)\n", output)
    steps = len(re.findall(r"^ +\d+\. ", output, re.MULTILINE))
    return f"{found[1]}, in {steps} steps" if found else "?"


def rule(name, what, test, changes):
    return Rule(name, what, f"--test ownership {test}", changes, how)


main([
    rule("takes-back", "after the commit, the front-end takes the connection back when the session breaks", "any_one_fault",
     [(BTCP + "peers.rs", "State::HandedOff(handed_off) => {\n",
       "State::HandedOff(HandedOff { pending: Some(pending), id, .. }) => {\n"
     "self.by_handoff.remove(&id); self.passed_over(slot, peer, *pending, Fallback::PeerDown, ctx, now); }\n"
     "State::HandedOff(handed_off) => {\n")]),
    rule("applies-twice", "a repeated commit is applied again", "any_one_fault",
     [(UTCP + "deliver.rs", "            other => connection.state = other,\n        }\n    }\n\n    /// Writes what",
       "            State::Delivering(delivering) => { ctx.counters.handoffs_accepted += 1;\n"
     "connection.state = State::Delivering(delivering); self.deliver(slot, ctx, now); }\n"
     "            other => connection.state = other,\n        }\n    }\n\n    /// Writes what")]),
    rule("forgets-applied", "the owner forgets which commits it has applied", "the_session_breaks_while_time_passes",
     [(UTCP + "deliver.rs", "if self.applied.contains(&(from, id)) {",
       "if false {")]),
    rule("drops-orphans", "guards found at a start are not taken notice of", "any_one_fault",
     [("src/handoff/btcp.rs", "orphans: orphans.iter()",
       "orphans: orphans.iter().take(0)")]),
    rule("returns-unpurged", "a connection is returned while the owner's kernel still has the request", "a_back_end_that_cannot_take_the_connection_returns_it",
     [(UTCP + "judge.rs", "State::Returning(delivering) => match socket {",
       "State::Returning(delivering) => match if socket == SocketState::SynReceived { SocketState::Absent } else { socket } {"),
      (UTCP + "judge.rs", "                self.purge(slot, ctx);\n                self.ask(slot, ctx);", "                self.ask(slot, ctx);")]),
    rule("commits-unguarded", "the commit does not wait for the guard", "any_one_fault",
     [(BTCP + "handoff.rs", "KernelHalf::SynReceived => connection.secure(Securing::Commit(offered), ctx),",
       "KernelHalf::SynReceived => self.commit(slot, *offered, ctx, now),")]),
    rule("commits-unpurged", "the front-end's kernel keeps its half", "any_one_fault",
     [(BTCP + "handoff.rs", "        purge(&connection.flow, undecided, &mut self.holds, ctx);\n",
       "")]),
    rule("does-not-ask", "the front-end's kernel is not asked for its half before the commit", "any_one_fault",
     [(BTCP + "secure.rs", "matches!(socket, SocketState::Open | SocketState::TimeWait)",
       "false")]),
    rule("ignores-late-return", "a connection returned to a later life of its front-end is not reset",
     "a_front_end_that_dies_behind_its_commit_may_be_given_the_connection_back",
     [(BTCP + "handoff.rs", "            return self.lose(slot, ctx, now);\n        };\n        pending.deadline",
       "            return;\n        };\n        pending.deadline")]),
    rule("forgets-old-front-ends", "guards of a front-end address that is gone mean nothing", "a_front_end_that_is_removed_restarts",
     [("src/handoff/context.rs", ".filter(|frontend| !policy.is_own_frontend(*frontend))",
       ".filter(|_| false)")]),
], {"BATON_DEPTH": "1"})
END
