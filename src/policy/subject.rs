//! What a rule is compared with: where a connection comes from, and what its first bytes say.

use super::inspect::Content;
use super::request::Request;
use super::tls::Hello;
use crate::flow::{Endpoint, FlowKey};
use std::net::IpAddr;

/// Where a connection comes from and where it arrived, as far as that is known: `baton explain` need not be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The front-end address it connected to.
    pub frontend: Option<Endpoint>,
}

impl From<FlowKey> for Origin {
    fn from(flow: FlowKey) -> Self {
        Self { client: Some(flow.client.address), frontend: Some(flow.frontend) }
    }
}

/// A client, wherever it connected to.
impl From<Endpoint> for Origin {
    fn from(client: Endpoint) -> Self {
        Self { client: Some(client.address), frontend: None }
    }
}

/// A client, if it is known.
impl From<Option<IpAddr>> for Origin {
    fn from(client: Option<IpAddr>) -> Self {
        Self { client, frontend: None }
    }
}

/// What a rule is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) content: &'a Content<'a>,
    pub(super) origin: Origin,
}

impl<'a> Subject<'a> {
    /// The request, if that is what the client sent.
    pub(super) fn http(&self) -> Option<&'a Request<'a>> {
        self.content.http()
    }

    /// The hello likewise.
    pub(super) fn tls(&self) -> Option<&'a Hello> {
        self.content.tls()
    }
}
