//! What a rule is compared with: where a connection comes from, and what its first bytes say.

use super::inspect::Content;
use super::json::{self, Found, Pointer};
use super::looks::Searches;
use super::request::Request;
use super::tls::Hello;
use super::truth::Unknown;
use crate::flow::{Endpoint, FlowKey};
use std::cell::OnceCell;
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
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) content: &'a Content<'a>,
    pub(super) origin: Origin,
    /// The JSON fields that may be asked for; sorted.
    pointers: &'a [Pointer],
    /// What is there. The body is read when somebody asks, once.
    fields: OnceCell<Result<Vec<Found>, Unknown>>,
    /// Where the searches of raw bytes stand, if there was a look at fewer of them.
    pub(super) searches: Option<&'a Searches>,
}

impl<'a> Subject<'a> {
    /// This content, of whose JSON body these fields may be asked for; they are sorted.
    pub(super) fn new(content: &'a Content<'a>, origin: Origin, pointers: &'a [Pointer]) -> Self {
        Self { content, origin, pointers, fields: OnceCell::new(), searches: None }
    }

    /// The same, of which fewer bytes were looked at before.
    pub(super) fn going_on(self, searches: Option<&'a Searches>) -> Self {
        Self { searches, ..self }
    }

    /// What the body has at a place that was announced. A request without a body has nothing anywhere.
    pub(super) fn json(&self, pointer: &Pointer) -> Result<&Found, Unknown> {
        let Some(request) = self.http() else { return Ok(&Found::Absent) };
        let fields = self.fields.get_or_init(|| match request.body.whole()? {
            body if body.is_empty() => Ok(vec![Found::Absent; self.pointers.len()]),
            body => json::read(&body, self.pointers),
        });
        let index = self.pointers.binary_search(pointer).map_err(|_| Unknown::Forever)?;
        fields.as_ref().map_err(|why| *why)?.get(index).ok_or(Unknown::Forever)
    }

    /// The request, if that is what the client sent.
    pub(super) fn http(&self) -> Option<&'a Request<'a>> {
        self.content.http()
    }

    /// The hello likewise.
    pub(super) fn tls(&self) -> Option<&'a Hello> {
        self.content.tls()
    }
}
