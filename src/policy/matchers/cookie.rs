//! `cookie`: a cookie of a request, its name letter by letter.

use super::named::{Kind, Named};
use super::values::{Form, Manner};
use crate::policy::request::Request;
use std::borrow::Cow;

/// A cookie of this name has one of these values, or there is none.
pub(in crate::policy) type Cookie = Named<Cookies>;

/// Cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Cookies;

impl Kind for Cookies {
    const NAME: &'static str = "cookie";
    const WORDS: &'static str = "cookie";
    const MANNER: Manner = Manner { plain: Form::Exact, objection, first: b"" };

    fn objection_to_name(name: &str) -> Option<(String, &'static str)> {
        let message = || format!("\"{name}\" is not the name of a cookie");
        (!super::header::is_token(name)).then(|| (message(), "write it as it stands before the `=`, such as `session`"))
    }

    fn sent<'r>(request: &'r Request<'_>, name: &'r str) -> impl Iterator<Item = Cow<'r, [u8]>> {
        request.cookie(name).map(Cow::Borrowed)
    }
}

fn objection(name: &str, text: &str, form: Form) -> Option<(String, &'static str)> {
    super::values::no_space_around(&format!("cookie `{name}`"), text, form)
}
