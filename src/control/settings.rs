//! The kernel settings that decide which connections can be handed to a node.

use std::fs;
use std::path::Path;

/// What a node tells its peers when a session opens; compared on both sides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `net.ipv4.tcp_sack`
    pub sack: bool,
    /// `net.ipv4.tcp_timestamps`
    pub timestamps: bool,
    /// `net.ipv4.tcp_window_scaling`
    pub window_scaling: bool,
    /// `net.ipv4.tcp_ecn`
    pub ecn: u8,
}

impl Settings {
    /// Reads this host's settings. One that cannot be read is taken to have the kernel's default, with a warning.
    pub fn of_this_host() -> Self {
        Self::below(Path::new("/proc/sys/net/ipv4"))
    }

    fn below(directory: &Path) -> Self {
        let read = |name: &str, default: u8| {
            let path = directory.join(name);
            match fs::read_to_string(&path).map(|text| text.trim().parse()) {
                Ok(Ok(value)) => value,
                outcome => {
                    log::warn!(
                        "setting={} outcome={outcome:?} assumed={default}: peers are told the kernel's default; \
                         make the file readable if the host differs",
                        path.display()
                    );
                    default
                }
            }
        };
        Self {
            sack: read("tcp_sack", 1) != 0,
            timestamps: read("tcp_timestamps", 1) != 0,
            window_scaling: read("tcp_window_scaling", 1) != 0,
            ecn: read("tcp_ecn", 2),
        }
    }

    /// What stands between the two kernels: one sentence for each setting that one has and the other lacks.
    pub fn differences(&self, peer: &Self, peer_name: &str) -> Vec<String> {
        let switch = |name: &str, what: &str, ours: bool, theirs: bool| {
            (ours != theirs).then(|| sentence(name, what, peer_name, u8::from(ours), u8::from(theirs), ours && !theirs))
        };
        let (ours, theirs) = (granted_ecn(self.ecn), granted_ecn(peer.ecn));
        [
            switch("tcp_sack", "with SACK", self.sack, peer.sack),
            switch("tcp_timestamps", "with timestamps", self.timestamps, peer.timestamps),
            switch("tcp_window_scaling", "with window scaling", self.window_scaling, peer.window_scaling),
            (ours != theirs).then(|| sentence("tcp_ecn", "with ECN", peer_name, self.ecn, peer.ecn, ours > theirs)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn sentence(name: &str, what: &str, peer: &str, ours: u8, theirs: u8, peer_lacks: bool) -> String {
    let direction = if peer_lacks { "to" } else { "from" };
    format!(
        "peer {peer} has net.ipv4.{name}={theirs}, we have {ours}: connections {what} cannot be handed off \
         {direction} it; set it alike on both"
    )
}

/// What a kernel grants a client that asks: nothing, ECN (RFC 3168), or the accurate ECN that newer kernels know.
/// Whether it asks for ECN itself (1 against 2) makes no difference to a handoff.
const fn granted_ecn(setting: u8) -> u8 {
    match setting {
        0 => 0,
        1 | 2 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Settings = Settings { sack: true, timestamps: true, window_scaling: true, ecn: 2 };

    #[test]
    fn a_difference_names_the_node_that_lacks_the_setting() {
        let lacking = Settings { sack: false, ..USUAL };
        assert_eq!(
            USUAL.differences(&lacking, "b"),
            ["peer b has net.ipv4.tcp_sack=0, we have 1: connections with SACK cannot be handed off to it; set it \
              alike on both"]
        );
        assert_eq!(
            lacking.differences(&USUAL, "a"),
            ["peer a has net.ipv4.tcp_sack=1, we have 0: connections with SACK cannot be handed off from it; set it \
              alike on both"]
        );
    }

    #[test]
    fn asking_for_ecn_is_no_difference_but_not_granting_it_is() {
        assert!(USUAL.differences(&Settings { ecn: 1, ..USUAL }, "b").is_empty());
        assert_eq!(USUAL.differences(&Settings { ecn: 0, ..USUAL }, "b").len(), 1);
        assert_eq!(USUAL.differences(&Settings { ecn: 3, ..USUAL }, "b").len(), 1);
    }

    #[test]
    fn settings_are_read_and_default_to_the_kernels() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Settings::below(directory.path()), USUAL);
        for (name, value) in [("tcp_sack", "0\n"), ("tcp_timestamps", "2\n"), ("tcp_ecn", "1\n")] {
            fs::write(directory.path().join(name), value).unwrap();
        }
        assert_eq!(Settings::below(directory.path()), Settings { sack: false, ecn: 1, ..USUAL });
    }
}
