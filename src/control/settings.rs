//! The kernel settings that decide which connections can be handed to a node.

use crate::limits::PROMISED_UNITS_MIN;
use std::fs;
use std::path::Path;

/// Window scales above this are not used (RFC 7323, section 2.3).
const SCALE_MAX: u32 = 14;

/// What a node tells its peers when a session opens, and when it changes; compared on both sides.
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
    /// The window scale that `net.ipv4.tcp_rmem` and `net.core.rmem_max` make: that of an application which chooses no
    /// receive buffer itself.
    pub window_scale: u8,
    /// The first window of such an application, in octets; a SYN-ACK can say no more than 65,535.
    pub first_window: u16,
}

impl Settings {
    /// What a kernel has that nobody has changed.
    pub const USUAL: Self =
        Self { sack: true, timestamps: true, window_scaling: true, ecn: 2, window_scale: 7, first_window: u16::MAX };

    /// Reads this host's settings. One that cannot be read is taken to have the kernel's default, with a warning.
    pub fn of_this_host() -> Self {
        let (settings, problems) = Self::below(Path::new("/proc/sys/net"), &Self::USUAL);
        for problem in problems {
            log::warn!("{problem}: peers are told the kernel's default; make the file readable if the host differs");
        }
        settings
    }

    /// Reads this host's settings again. One that cannot be read is taken to be as before.
    #[must_use]
    pub fn of_this_host_now(&self) -> Self {
        Self::below(Path::new("/proc/sys/net"), self).0
    }

    fn below(directory: &Path, assumed: &Self) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let mut read = |name: &str| -> Option<Vec<u64>> {
            let path = directory.join(name);
            let numbers = fs::read_to_string(&path).map(|text| text.split_whitespace().map(str::parse).collect());
            match numbers {
                Ok(Ok(numbers)) => return Some(numbers),
                Ok(Err::<_, std::num::ParseIntError>(error)) => {
                    problems.push(format!("setting={} error={error}", path.display()))
                }
                Err(error) => problems.push(format!("setting={} error={error}", path.display())),
            }
            None
        };
        let mut first = |name: &str| read(name).and_then(|numbers| numbers.first().copied());
        let switch = |value: Option<u64>, assumed| value.map_or(assumed, |value| value != 0);
        let mut settings = Self {
            sack: switch(first("ipv4/tcp_sack"), assumed.sack),
            timestamps: switch(first("ipv4/tcp_timestamps"), assumed.timestamps),
            window_scaling: switch(first("ipv4/tcp_window_scaling"), assumed.window_scaling),
            ecn: first("ipv4/tcp_ecn").and_then(|value| u8::try_from(value).ok()).unwrap_or(assumed.ecn),
            ..assumed.clone()
        };
        // Older kernels do not show it in network namespaces; then tcp_rmem alone decides.
        let limit =
            fs::read_to_string(directory.join("core/rmem_max")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if let Some(&[_, default, largest]) = read("ipv4/tcp_rmem").as_deref() {
            settings.window_scale = scale_for(largest.max(limit));
            // Half of a buffer is window, half is for what the kernel itself needs around the octets.
            settings.first_window = u16::try_from(default / 2).unwrap_or(u16::MAX);
        }
        (settings, problems)
    }

    /// Why connections that arrive at `frontend` cannot be handed to `backend`: one sentence for each setting, which says
    /// what to do. What only the front-end lacks is nobody's loss: it promises less.
    pub fn obstacles(frontend: (&str, &Self), backend: (&str, &Self)) -> Vec<String> {
        let ((front, ours), (back, theirs)) = (frontend, backend);
        let switch = |name: &str, what: &str, promised: bool, kept: bool| {
            (promised && !kept).then(|| {
                format!(
                    "{name} is off on {back} but on on {front}: handoffs to {back} of connections with {what} are refused; \
                     set net.ipv4.{name}=1 on {back}"
                )
            })
        };
        // Which value makes no difference: baton lets clients negotiate nothing newer than RFC 3168, and whether a kernel
        // asks for ECN itself is not about its clients.
        let ecn = (ours.ecn != 0 && theirs.ecn == 0).then(|| {
            format!(
                "tcp_ecn is 0 on {back} but {} on {front}: handoffs to {back} of connections with ECN are refused; \
                 set net.ipv4.tcp_ecn=2 on {back}",
                ours.ecn
            )
        });
        let is_coarser = ours.window_scaling && theirs.window_scaling && ours.window_scale > theirs.window_scale;
        let unit = 1u32 << u32::from(ours.window_scale).min(SCALE_MAX);
        let window = (is_coarser && unit > u32::from(theirs.first_window) / PROMISED_UNITS_MIN).then(|| {
            format!(
                "tcp_rmem makes window scale {} on {front} but {} on {back}, with a first window of about {} octets there: \
                 handoffs to {back} of connections with window scaling are refused; set net.ipv4.tcp_rmem (and \
                 net.core.rmem_max) alike on both",
                ours.window_scale, theirs.window_scale, theirs.first_window
            )
        });
        let switches = [
            switch("tcp_sack", "SACK", ours.sack, theirs.sack),
            switch("tcp_timestamps", "timestamps", ours.timestamps, theirs.timestamps),
            switch("tcp_window_scaling", "window scaling", ours.window_scaling, theirs.window_scaling),
        ];
        switches.into_iter().chain([ecn, window]).flatten().collect()
    }
}

/// The window scale by which a buffer of so many octets can be said in 16 bits, as Linux chooses it.
fn scale_for(octets: u64) -> u8 {
    octets.checked_ilog2().map_or(0, |bits| bits.saturating_sub(15).min(SCALE_MAX)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Settings = Settings::USUAL;

    fn obstacles(frontend: &Settings, backend: &Settings) -> Vec<String> {
        Settings::obstacles(("a", frontend), ("b", backend))
    }

    #[test]
    fn an_obstacle_names_the_node_the_setting_and_the_remedy() {
        assert_eq!(
            obstacles(&USUAL, &Settings { sack: false, ..USUAL }),
            [
                "tcp_sack is off on b but on on a: handoffs to b of connections with SACK are refused; set net.ipv4.tcp_sack=1 on b"
            ]
        );
        assert_eq!(
            obstacles(&Settings { ecn: 1, ..USUAL }, &Settings { ecn: 0, ..USUAL }),
            ["tcp_ecn is 0 on b but 1 on a: handoffs to b of connections with ECN are refused; set net.ipv4.tcp_ecn=2 on b"]
        );
        let nothing = Settings { sack: false, timestamps: false, window_scaling: false, ecn: 0, ..USUAL };
        assert_eq!(obstacles(&USUAL, &nothing).len(), 4);
    }

    #[test]
    fn what_only_the_front_end_lacks_is_no_obstacle() {
        let nothing =
            Settings { sack: false, timestamps: false, window_scaling: false, ecn: 0, window_scale: 0, first_window: 1 };
        assert!(obstacles(&nothing, &USUAL).is_empty());
        assert!(obstacles(&nothing, &nothing).is_empty());
    }

    #[test]
    fn any_ecn_is_as_good_as_any_other() {
        for ours in 1..=5 {
            for theirs in 1..=5 {
                assert!(obstacles(&Settings { ecn: ours, ..USUAL }, &Settings { ecn: theirs, ..USUAL }).is_empty());
            }
        }
    }

    #[test]
    fn a_coarser_window_scale_is_an_obstacle_where_a_unit_is_more_than_an_eighth_of_the_first_window() {
        let scale = |window_scale, first_window| Settings { window_scale, first_window, ..USUAL };
        assert!(obstacles(&scale(12, 65_535), &scale(7, 65_535)).is_empty());
        let found = obstacles(&scale(13, 65_535), &scale(7, 65_535));
        assert!(found[0].contains("tcp_rmem makes window scale 13 on a but 7 on b"), "{found:?}");
        assert!(obstacles(&scale(14, 65_535), &scale(14, 65_535)).is_empty());
        assert!(obstacles(&scale(7, 65_535), &scale(14, 65_535)).is_empty());
        assert_eq!(obstacles(&scale(10, 65_535), &scale(7, 2_048)).len(), 1);
        assert!(obstacles(&Settings { window_scaling: false, ..scale(14, 65_535) }, &scale(7, 65_535)).is_empty());
    }

    #[test]
    fn the_scale_is_the_one_linux_chooses() {
        for (octets, scale) in [(0, 0), (65_535, 0), (65_536, 1), (6_291_456, 7), (33_554_432, 10), (1 << 29, 14), (1 << 40, 14)]
        {
            assert_eq!(scale_for(octets), scale, "{octets}");
        }
    }

    #[test]
    fn settings_are_read_and_what_cannot_be_read_is_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let (settings, problems) = Settings::below(directory.path(), &USUAL);
        assert_eq!((settings, problems.len()), (USUAL, 5));
        fs::create_dir(directory.path().join("ipv4")).unwrap();
        for (name, value) in
            [("tcp_sack", "0\n"), ("tcp_timestamps", "2\n"), ("tcp_ecn", "1\n"), ("tcp_rmem", "4096\t16384\t536870912\n")]
        {
            fs::write(directory.path().join("ipv4").join(name), value).unwrap();
        }
        let read = Settings { sack: false, ecn: 1, window_scale: 14, first_window: 8_192, ..USUAL };
        let (settings, problems) = Settings::below(directory.path(), &USUAL);
        assert_eq!((&settings, problems.len()), (&read, 1));
        fs::write(directory.path().join("ipv4/tcp_sack"), "?").unwrap();
        assert_eq!(Settings::below(directory.path(), &read).0, read);
    }
}
