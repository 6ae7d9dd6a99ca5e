//! `query`: a parameter of a request's query. Names and values are compared decoded.

use super::named::{Kind, Named};
use super::values::{Form, Manner};
use crate::policy::request::Request;
use std::borrow::Cow;

/// A parameter of this name has one of these values, or there is none.
pub(in crate::policy) type Query = Named<Parameters>;

/// Parameters of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Parameters;

impl Kind for Parameters {
    const NAME: &'static str = "query";
    const WORDS: &'static str = "query parameter";
    /// A value can be anything.
    const MANNER: Manner = Manner { plain: Form::Exact, objection: |_, _, _| None, first: b"" };

    fn objection_to_name(name: &str) -> Option<(String, &'static str)> {
        name.is_empty().then(|| ("a query parameter has a name".to_owned(), "write what stands before the `=`, decoded"))
    }

    fn sent<'r>(request: &'r Request<'_>, name: &'r str) -> impl Iterator<Item = Cow<'r, [u8]>> {
        request.query(name)
    }
}
