//! What is wrong with a text that is no YAML, said for people who do not know the parser: its own words name what it missed, not
//! what was meant.

use super::report::TOKEN;
use super::yaml::SyntaxError;

/// The problem and what to do about it.
pub(super) fn explain(error: &SyntaxError, text: &str) -> (String, String) {
    let line = text.lines().nth(error.position.line.saturating_sub(1)).unwrap_or_default();
    let here: String = line.chars().skip(error.position.column.saturating_sub(1)).collect();
    let said = |words: &str| error.message.contains(words);
    let own = |message: &str, remedy: &str| (message.to_owned(), remedy.to_owned());
    if line.trim_start_matches(' ').starts_with('\t') && !said("document") {
        return own("the line begins with a tab, which YAML does not allow", "indent it with spaces");
    }
    if said("control characters") {
        let remedy = "is this the cluster file? If it is, save it as UTF-8 text (not as UTF-16)";
        return own("here is a character that no text has", remedy);
    }
    if said("more than one document") {
        let remedy = "remove this line and everything below it";
        return own("a second YAML document begins here; a cluster file is one", remedy);
    }
    if said("!tags") {
        return own(&error.message, &format!("remove it, or put a text that begins with `!` in quotes; here is `{TOKEN}`"));
    }
    if said("recursion limit") {
        return own("lists and mappings are nested too deeply to be a cluster file", "is this the cluster file?");
    }
    if said("repetition limit") {
        return own("aliases (`*NAME`) repeat so much here that the file becomes too large", "write the fields out");
    }
    if said("unknown anchor") || here.starts_with('*') || said("alphabetic or numeric character") {
        let remedy = "put a pattern that begins with `*` in quotes, such as `\"*.png\"`; an alias wants its `&NAME` before it";
        return own("a `*` at the beginning is an alias in YAML, and there is no such anchor", remedy);
    }
    if said("cannot start any token") {
        let first = here.chars().next().unwrap_or(' ');
        return (format!("no text can begin with `{first}` in YAML"), format!("put it in quotes: `\"{TOKEN}\"`"));
    }
    if let Some((_, begun)) = error.within.as_ref().filter(|(what, _)| what == "a quoted scalar") {
        let message = format!("the quotation mark of line {begun} has no other one");
        return (message, format!("close the quotes on line {begun}"));
    }
    if said("mapping values are not allowed") {
        let remedy = "put a text that has `: ` in it in quotes; or indent the line as those it belongs with";
        return own("a `:` stands where no field can be", remedy);
    }
    if said("',' or ']'") || said("',' or '}'") {
        let bracket = if said("']'") { "[" } else { "{" };
        let begun = error.within.as_ref().map_or_else(String::new, |(_, line)| format!(" of line {line}"));
        let message = format!("the `{bracket}`{begun} is not closed, or a comma is missing");
        return (message, "close it, or put a text with brackets in quotes, such as `\"[fd77::1]:80\"`".to_owned());
    }
    if said("expected key") || said("expected '-' indicator") || said("block end") {
        let remedy = "begin it with as many spaces as the line above that it belongs with";
        return own("this line is indented as no line above it", remedy);
    }
    if said("could not find expected ':'") {
        return own("this line has no `:`", "write `NAME: VALUE`, with a space behind the colon");
    }
    own(&error.message, "the file cannot be read as YAML; look at this line and at the one before it")
}
