//! `client`: the client's address.

use super::super::cluster;
use super::super::condition::alternatives;
use super::*;
use ipnet::IpNet;
use std::net::IpAddr;

/// The client's address is in one of these networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Client(Vec<IpNet>);

impl Test for Client {
    const NAME: &'static str = "client";

    fn read(field: &Field<'_>, _: Context<'_>, problems: &mut Problems) -> Option<Vec<Self>> {
        Some(vec![Self(alternatives(field, network, problems)?)])
    }

    fn holds(&self, subject: &Subject<'_>) -> Truth {
        subject.origin.client.is_some_and(|client| self.0.iter().any(|net| net.contains(&client))).into()
    }

    fn seen(&self, subject: &Subject<'_>) -> Option<String> {
        subject.origin.client.map(|client| client.to_string())
    }

    fn reason(&self, subject: &Subject<'_>) -> String {
        match self.seen(subject) {
            Some(client) => format!("client {client} is in none of its networks"),
            None => "no client is given".to_owned(),
        }
    }

    fn values(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    fn spelling(&self) -> String {
        format!("{:?}", self.values())
    }

    fn covers(&self, other: &Self) -> bool {
        each_is_covered(&self.0, &other.0, |this, other| this.contains(other))
    }
}

pub(in crate::policy) fn network(item: &Field<'_>, problems: &mut Problems) -> Option<IpNet> {
    let text = item.text(problems)?;
    match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => cluster::network(item, problems),
    }
}
