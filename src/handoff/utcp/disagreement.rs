//! Nodes whose cluster files differ: which offers that makes impossible, and that somebody is told.
//!
//! An offer names a service and a front-end address. The port its application listens on is this node's own knowledge:
//! what another node thinks of it never counts.

use super::*;
use crate::policy::Policy;

impl Utcp {
    /// The port on which this node's application takes the offered connection.
    pub(super) fn server_port(
        policy: &Policy,
        node: NodeId,
        from: NodeId,
        service: &str,
        frontend: Endpoint,
    ) -> Result<u16, Refusal> {
        let service = policy.service_named(service).ok_or(Refusal::UnknownService)?;
        if !service.frontends.iter().any(|(owner, address)| *owner == from && *address == frontend) {
            return Err(Refusal::UnknownFrontend);
        }
        service.server_port(node).ok_or(Refusal::NotAServer)
    }

    /// A warning for what an honest peer with the same cluster file would not ask; once a session for each reason.
    pub(super) fn complain(&mut self, from: NodeId, service: &str, frontend: Endpoint, reason: Refusal, ctx: &Context) {
        let what = match reason {
            Refusal::UnknownService if service.is_empty() => {
                format!("in this node's cluster file {frontend} is not of a service with `inspect: none`")
            }
            Refusal::UnknownService => format!("the service {service} is not in this node's cluster file"),
            Refusal::UnknownFrontend => {
                format!("in this node's cluster file {frontend} is not a front-end address that node has in service {service}")
            }
            Refusal::NotAServer => format!("this node is not among the `servers` of service {service} in its cluster file"),
            Refusal::ApplicationDown
            | Refusal::BacklogFull
            | Refusal::Promise
            | Refusal::Full
            | Refusal::Draining
            | Refusal::InUse => return,
        };
        if self.complaints.insert((from, reason)) {
            let name = ctx.policy.nodes.get(usize::from(from.0)).map_or("?", |node| node.name.as_str());
            log::warn!(
                "peer={name}: its connections are refused: {what}; the nodes run with different files, `baton status` shows the \
                 hash of each"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::offer;
    use super::*;
    use crate::policy::ClusterFile;

    const TEXT: &str = "
cluster: test
overlay: { port: 7400, aliases: 198.18.0.0/16 }
nodes:
  a: { address: 192.0.2.2, public_key: bFAaooYD3aihsKStvZrLZsYTH/evZsBXhb4DWEopT2U= }
  b: { address: 192.0.2.3, public_key: jrl59enG5uzTqdjdD0/KvX49zbUTFB7TJoTACATs3h8= }
  c: { address: 192.0.2.4, public_key: 5Wq0TcaB31+ZogPFWZdVCH/VF48Nh9M6DZlpVg+p5wE= }
services:
  web:
    frontends: { a: ['192.0.2.2:80', '192.0.2.2:8000'] }
    servers: { a: { port: 80 }, b: { port: 8080 } }
";
    const A: NodeId = NodeId(0);
    const B: NodeId = NodeId(1);
    const C: NodeId = NodeId(2);

    fn port(node: &str, from: NodeId, change: impl Fn(&mut Offer)) -> Result<u16, Refusal> {
        let policy = ClusterFile::parse("test", TEXT).unwrap_or_else(|report| panic!("{report}")).compile(node).unwrap();
        let mut offer = offer();
        change(&mut offer);
        Utcp::server_port(&policy, policy.node, from, &offer.service, offer.flow.frontend)
    }

    #[test]
    fn every_front_end_port_leads_to_the_nodes_own_server_port() {
        assert_eq!(port("b", A, |_| {}), Ok(8080));
        assert_eq!(port("b", A, |offer| offer.flow.frontend.port = 8000), Ok(8080));
        assert_eq!(port("a", A, |offer| offer.flow.frontend.port = 8000), Ok(80));
    }

    #[test]
    fn what_this_nodes_file_does_not_have_is_refused_with_its_own_reason() {
        assert_eq!(port("b", A, |offer| offer.service = "api".into()), Err(Refusal::UnknownService));
        assert_eq!(port("b", A, |offer| offer.flow.frontend.port = 81), Err(Refusal::UnknownFrontend));
        assert_eq!(port("b", C, |_| {}), Err(Refusal::UnknownFrontend));
        assert_eq!(port("c", A, |_| {}), Err(Refusal::NotAServer));
        assert_eq!(port("b", B, |_| {}), Err(Refusal::UnknownFrontend));
    }
}
