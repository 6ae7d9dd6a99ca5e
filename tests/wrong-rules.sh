#!/usr/bin/env bash
# Shows that the tests can fail: breaks one rule at a time, in a copy of the sources, and expects the named test to find it.
# `wrong-rules.sh [NAME...]`; `--list` tells them. `ownership/wrong-rules.sh` does the same for the rules of ownership. (The
# machinery of both is break_rules.py.)

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 exec python3 /dev/fd/3 "$@" 3<<'END'
from break_rules import Rule, main

TRANSLATE, SET, CHECKSUM = "src/rewrite/translate.rs", "src/rewrite/segment/set.rs", "src/rewrite/checksum.rs"
BTCP, UTCP = "src/handoff/btcp", "src/handoff/utcp"
UNIT, ENGINE, SIM, PROPERTIES = "--lib rewrite::", "--test engine ", "--test sim ", "--test rewrite "


def rule(name, what, test, *changes):
    return Rule(name, what, test, list(changes))


main([
    # ---- Translation ------------------------------------------------------------------------------------------------
    rule("sack-not-shifted", "SACK blocks of the client stay in the front-end's numbers",
         UNIT + "translate::tests::sack_blocks_of_the_client_move_with_its_ack",
         (TRANSLATE, "            segment.map_sack(|edge| self.seq.to_local(Seq::new(edge.raw())));\n", "")),
    rule("sack-shifted-with-seq", "SACK blocks of the server move with its sequence numbers",
         UNIT + "translate::tests::sack_blocks_of_the_server_name_client_octets_and_stay",
         (TRANSLATE, "        segment.set_seq(seq);\n",
          "        segment.set_seq(seq);\n        segment.map_sack(|edge| edge.plus(self.seq.amount() as u32));\n")),
    rule("tsval-not-shifted", "TSval keeps the clock of the owner's kernel",
         UNIT + "translate::tests::the_client_sees_the_front_ends_address_numbers_clock_and_scale",
         (TRANSLATE, "segment.set_timestamps(shift.to_wire(tsval), tsecr);",
          "let _ = shift; segment.set_timestamps(crate::rewrite::Timestamp::new(tsval.raw()), tsecr);")),
    rule("tsecr-not-shifted", "TSecr echoes the front-end's clock to a kernel that never had it",
         UNIT + "translate::tests::the_kernel_sees_its_own_address_numbers_and_clock",
         (TRANSLATE, "segment.set_timestamps(tsval, shift.to_local(tsecr));",
          "let _ = shift; segment.set_timestamps(tsval, crate::rewrite::Timestamp::new(tsecr.raw()));")),
    rule("tsecr-zero-shifted", "a TSecr of 0, which echoes nothing, becomes one that echoes something",
         UNIT + "translate::tests::a_tsecr_of_zero_echoes_nothing_and_stays_zero",
         (TRANSLATE, "                && tsecr.raw() != 0\n", "")),
    rule("window-not-rescaled", "the window keeps the scale of the owner's kernel",
         UNIT + "translate::tests::the_client_sees_the_front_ends_address_numbers_clock_and_scale",
         (TRANSLATE, "segment.set_window(self.window.rescale(window));", "segment.set_window(window);")),
    rule("window-rounded-to-zero", "a window of at least one segment becomes 0",
         "--lib rewrite::coordinates",
         ("src/rewrite/coordinates.rs", "if units == 0 && octets >= self.mss as u32 && octets > 0 {", "if false {")),
    rule("window-of-syn-rescaled", "the window of a SYN is rescaled, too",
         UNIT + "translate::tests::the_window_of_a_syn_or_an_rst_is_not_rescaled",
         (TRANSLATE, "if !segment.flags().intersects(Flags::SYN.with(Flags::RST)) {", "if true {")),
    rule("urgent-pointer-shifted", "the urgent pointer, which is relative, moves with the sequence number",
         PROPERTIES + "translating_moves_every_number_and_nothing_else",
         (SET, "        self.write(field::SEQ, to.raw().to_be_bytes());",
          "        let by = to.raw().wrapping_sub(u32_at(self.tcp(), field::SEQ)) as u16;\n"
          "        let urgent = u16_at(self.tcp(), 18).wrapping_add(by);\n        self.write(18, urgent.to_be_bytes());\n"
          "        self.write(field::SEQ, to.raw().to_be_bytes());")),
    rule("unknown-options-blanked", "translation clears options that it does not know",
         PROPERTIES + "translating_moves_every_number_and_nothing_else",
         (TRANSLATE, "        segment.set_destination(self.alias);\n",
          "        segment.set_destination(self.alias);\n        for kind in 35..=255 {\n            segment.blank_option(kind);\n        }\n")),
    rule("partial-checksum-as-full", "a checksum that covers the pseudo-header alone is updated like a full one",
         "--lib rewrite::offload",
         (CHECKSUM, "(Field::Partial, Coverage::Segment) => checksum,", "(Field::Partial, Coverage::Segment) => change.apply(checksum),")),
    rule("odd-offset-forgotten", "a change at an odd place counts as one at an even place",
         UNIT + "checksum::tests::a_change_at_an_odd_place_exchanges_the_halves",
         (CHECKSUM, "if offset.is_multiple_of(2) { change } else { change.swap_bytes() }", "{ let _ = offset; change }")),
    rule("icmp-inner-seq-left", "the packet quoted in an ICMP error keeps the client's sequence number",
         UNIT + "icmp::tests::a_translated_quote_is_the_packet_the_kernel_sent",
         ("src/rewrite/icmp.rs", "let seq = shifts.seq.to_local(Seq::<Wire>::new(u32_at(tcp, field::SEQ)));",
          "let seq = Seq::<Wire>::new(u32_at(tcp, field::SEQ));")),
    rule("icmp-inner-source-left", "the packet quoted in an ICMP error keeps the front-end's address",
         UNIT + "icmp::tests::a_translated_quote_is_the_packet_the_kernel_sent",
         ("src/rewrite/icmp.rs", "let source = inner.set_source(quote, alias.address)", "let source = inner.set_source(quote, inner.source(quote))")),
    # ---- The handshake, at the front-end ------------------------------------------------------------------------------
    rule("fast-open-kept", "the TCP Fast Open option stays in the SYN",
         ENGINE + "handshake::fast_open_and_multipath_are_taken_out_of_a_syn",
         ("src/handoff/initial.rs", "OPTIONS_TAKEN_OUT: [u8; 2] = [34, 30]", "OPTIONS_TAKEN_OUT: [u8; 2] = [30, 30]")),
    rule("multipath-kept", "the Multipath TCP option stays in the SYN",
         ENGINE + "handshake::fast_open_and_multipath_are_taken_out_of_a_syn",
         ("src/handoff/initial.rs", "OPTIONS_TAKEN_OUT: [u8; 2] = [34, 30]", "OPTIONS_TAKEN_OUT: [u8; 2] = [34, 34]")),
    rule("fast-open-experiment-kept", "the experimental form of the TCP Fast Open option stays in the SYN",
         ENGINE + "handshake::fast_open_and_multipath_are_taken_out_of_a_syn",
         (BTCP + "/packets.rs", "        syn.blank_options(options::kind::EXPERIMENT, &options::FAST_OPEN_EXPERIMENT);\n", "        let _ = options::FAST_OPEN_EXPERIMENT;\n")),
    rule("syn-data-kept", "data on a SYN reaches the kernel",
         ENGINE + "handshake::data_on_a_syn_is_left_for_the_client_to_send_again",
         (BTCP + "/packets.rs", "        if syn.payload().is_empty() {\n            return Verdict::Write;\n        }\n",
          "        if true {\n            return Verdict::Write;\n        }\n")),
    rule("signed-is-followed", "connections with TCP-MD5 or TCP-AO are handed off like others",
         ENGINE + "handshake::connections_whose_segments_are_signed",
         (BTCP + "/packets.rs", "OPTIONS_SIGNED.iter().any(|kind| syn.has_option(*kind))", "OPTIONS_SIGNED.is_empty()")),
    rule("mss-not-lowered", "the SYN-ACK leaves with the kernel's MSS",
         ENGINE + "handshake::every_syn_ack_leaves_with_an_mss",
         (BTCP + "/packets.rs", "        ctx.counters.connections += 1;\n        syn_ack.clamp_mss(ctx.mss_max(flow.client.address));\n",
          "        ctx.counters.connections += 1;\n        let _ = &mut syn_ack;\n")),
    rule("repeated-mss-not-lowered", "a repeated SYN-ACK leaves with the kernel's MSS",
         ENGINE + "handshake::every_syn_ack_leaves_with_an_mss",
         (BTCP + "/packets.rs", "                    syn_ack.clamp_mss(ctx.mss_max(flow.client.address));\n                    return", "                    return")),
    rule("handshake-not-withheld", "the client's ACK completes the handshake while nothing is decided",
         SIM + "a_request_for_a_peer_is_answered_by_the_peer",
         (BTCP + "/packets.rs", "        self.park_excess(flow.frontend, ctx);\n        verdict\n",
          "        self.park_excess(flow.frontend, ctx);\n        let _ = verdict;\n        Verdict::Write\n")),
    rule("corrupt-is-believed", "a corrupt segment becomes part of a first flight",
         ENGINE + "offer::a_corrupt_segment_is_judged",
         (BTCP + "/packets.rs", "                if !segment.checksums_are_right() =>\n", "                if false =>\n")),
    rule("early-ack-newer-tsval", "an early acknowledgement carries a TSval newer than the SYN-ACK's",
         ENGINE + "offer::an_early_acknowledgement_carries_the_syn_acks_own_timestamp",
         (BTCP + ".rs", "(syn_ack, self.client.tsval.unwrap_or(syn))", "(syn_ack.plus(50), self.client.tsval.unwrap_or(syn))")),
    rule("acknowledged-before-parked", "octets are acknowledged early while the kernel still has the request",
         ENGINE + "offer::an_early_acknowledgement_carries_the_syn_acks_own_timestamp",
         (BTCP + "/secure.rs", "                undecided.acknowledge_when_parked = true;\n",
          "                undecided.flight.acknowledge_all();\n                ctx.write(undecided.acknowledgement(&flow), Why::EarlyAcknowledgement);\n")),
    # ---- The handoff --------------------------------------------------------------------------------------------------
    rule("guard-failure-ignored", "a connection that could not be guarded is handed off",
         ENGINE + "offer::without_a_guard_nothing_is_given_away",
         (BTCP + "/secure.rs", "            self.take_back(slot, Fallback::GuardFailed, ctx);\n",
          "            ctx.outputs.push_back(Output::AskSocket { local: flow.frontend, remote: flow.client });\n")),
    rule("commit-before-guard", "the commit leaves before the guard is written",
         ENGINE + "offer::before_a_commit_the_guard_is_written",
         (BTCP + "/handoff.rs", "KernelHalf::SynReceived => connection.secure(Securing::Commit(offered), ctx),",
          "KernelHalf::SynReceived => self.commit(slot, offered, ctx, now),")),
    rule("kernel-not-purged", "the front-end's kernel keeps its half",
         ENGINE + "offer::before_a_commit_the_guard_is_written",
         (BTCP + "/handoff.rs", "        purge(&connection.flow, undecided, &mut self.holds, ctx);\n", "")),
    rule("replayed-isn-off", "the replayed SYN has another ISN than the client's",
         ENGINE + "owner::a_replay_carries_the_clients_own_numbers",
         (UTCP + ".rs", "        seq: offer.client_isn,\n", "        seq: offer.client_isn.plus(1),\n")),
    rule("promise-not-checked", "a kernel that lacks what the client was promised accepts",
         SIM + "a_back_end_that_lacks_what_the_client_was_promised_refuses",
         (UTCP + "/replay.rs", "if let Some(setting) = broken_promise(&offer, syn_ack) {",
          "if let Some(setting) = broken_promise(&offer, syn_ack).filter(|_| false) {")),
    rule("first-flight-twice", "the commit carries the first flight that the offer carried already",
         SIM + "a_corrupt_segment_is_never_part_of_a_first_flight",
         (BTCP + "/handoff.rs", "undecided.flight.bytes().get(offered.offered_bytes..)", "undecided.flight.bytes().get(0..)")),
    rule("redelivered-from-the-start", "a first flight that was taken in part is delivered from its start, at the wrong number",
         ENGINE + "owner::a_flight_taken_in_part",
         (UTCP + ".rs", "self.offer.first_flight.get(from..)", "self.offer.first_flight.get(0..)")),
    rule("delivered-again-for-more", "what follows a first flight is delivered together with all of it again",
         ENGINE + "owner::what_follows_a_flight",
         (UTCP + "/packets.rs", "self.deliver_more(slot, before, ctx);", "let _ = before;\n                self.deliver_more(slot, 0, ctx);")),
    rule("commit-applied-again", "the fence is gone: a commit is applied whenever it is repeated",
         ENGINE + "owner::a_repeated_commit_is_answered",
         (UTCP + "/deliver.rs", "if self.applied.contains(&(from, id)) {", "if false {")),
    rule("any-peer-may-abort", "a peer withdraws what another one has offered",
         ENGINE + "owner::a_withdrawn_offer_is_purged",
         (UTCP + "/replay.rs", "if connection.ingress == from && matches!", "if matches!")),
    # ---- Afterwards ---------------------------------------------------------------------------------------------------
    rule("rst-deletes-unseen", "a RST makes the front-end forget a connection that its owner never judged",
         ENGINE + "handed_off::a_reset_of_a_handed_off_connection_is_judged_by_its_owner",
         (BTCP + "/packets.rs", "            State::HandedOff(handed_off) => {\n                if is_syn {",
          "            State::HandedOff(handed_off) if segment.flags().contains(Flags::RST) => {\n                let to = handed_off.to;\n"
          "                self.forget(slot, ctx);\n                Verdict::Forward(to)\n            }\n"
          "            State::HandedOff(handed_off) => {\n                if is_syn {")),
    rule("syn-starts-anew", "a SYN on a live connection begins a new one",
         ENGINE + "handed_off::a_syn_on_a_live_connection",
         (BTCP + "/packets.rs", "                    handed_off.kept_syn = Some((now, segment.completed()));\n",
          "                    let syn = segment.completed();\n                    self.begin_anew(slot, syn, ctx, now);\n"
          "                    return Verdict::Consumed;\n")),
    rule("owner-syn-unasked", "the owner gives a SYN to a kernel whose connection may be over",
         ENGINE + "owner::a_syn_on_a_live_connection_is_answered_by_its_kernel",
         (UTCP + "/packets.rs", "            established.syn = Some(segment.completed());\n",
          "            let mut copy = segment.completed();\n            if let Ok(copy) = Segment::parse(copy.as_mut_slice()) {\n"
          "                let _: Segment<_, ToServerLocal> = established.shifts.to_server::<&mut [u8]>(copy);\n            }\n"
          "            ctx.write(copy, Why::KeptSyn);\n")),
    rule("abandoned-goes-on", "an owner sends on for a connection that its front-end has given up",
         ENGINE + "owner::what_its_ingress_gave_up",
         (UTCP + "/peers.rs", "        connection.state = State::Abandoned;\n", "")),
    rule("unguarded-after-syn", "the next connection on the same ends begins before the guard is gone",
         ENGINE + "handed_off::only_when_the_owner_says_it_is_over",
         (BTCP + "/packets.rs", "        let flow = self.connections[slot].flow;\n        self.forget(slot, ctx);\n",
          "        let flow = self.connections[slot].flow;\n        ctx.write(syn.clone(), Why::KeptSyn);\n        self.forget(slot, ctx);\n")),
    rule("fragment-let-through", "a fragment of a connection that was given away reaches the kernel",
         ENGINE + "noise::a_fragment_of_a_connection_that_was_given_away",
         ("src/handoff/engine.rs", "            && self.btcp.owner_of(&flow).is_some()\n        {\n            // Put", "            && false\n            && flow.client.port > 0\n        {\n            // Put")),
])
END
