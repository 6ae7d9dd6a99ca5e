//! What a person can do about a firewall that drops what must pass.

/// For packets from the TUN to the local stack.
pub(in crate::tun) fn input(device: &str) -> String {
    format!(
        "let its input chain accept from {device} what it accepts for these ports, such as `nft insert rule ... iifname \
         \"{device}\" accept` or `iptables -I INPUT -i {device} -j ACCEPT`; these packets are not tracked, so `ct state` \
         does not match them; a reverse path filter (`fib saddr . iif oif missing drop`) must leave {device} out"
    )
}

/// For packets between the TUN and the network.
pub(in crate::tun) fn forward(device: &str) -> String {
    format!(
        "let it accept what comes from or goes to {device}, such as `nft insert rule ... iifname \"{device}\" accept` and \
         `... oifname \"{device}\" accept`, or `iptables -I FORWARD -i {device} -j ACCEPT` and `iptables -I FORWARD -o \
         {device} -j ACCEPT` (with Docker: in the chain DOCKER-USER, which Docker leaves alone); a reverse path filter must \
         not ask for the mark (`fib saddr . mark . iif oif`)"
    )
}

/// For what the local stack sends from aliases.
pub(super) fn output(device: &str) -> String {
    format!(
        "let its output chain accept what goes to {device}, such as `nft insert rule ... oifname \"{device}\" accept` or \
         `iptables -I OUTPUT -o {device} -j ACCEPT`"
    )
}

/// For the control channel and the overlay.
pub(super) fn peers(port: u16) -> String {
    format!(
        "accept TCP and UDP port {port} from the cluster's nodes, such as `iptables -I INPUT -p tcp --dport {port} -s PEER -j ACCEPT`"
    )
}
