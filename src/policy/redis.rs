//! Reads the first command of a Redis connection that says where it should go, and its first key.
//!
//! Commands that only prepare a connection (`HELLO`, `AUTH`, `CLIENT`, `SELECT`, ...) are passed over if others follow
//! them in the first flight; the first that does not decides, with its first key, as soon as that is here. Nobody answers
//! a client that waits after its `HELLO` ([`awaits_server`]).
//!
//! Both forms of requests are read: arrays of bulk strings, which every library sends, and inline commands, lines of
//! words. Redis is lenient where lines end; what it might read otherwise is unreadable here.

use super::ambiguity::Ambiguity;
use super::inspect::{Content, Reading};
use crate::limits::cluster_file::REDIS_ARGUMENTS_MAX;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command<'a> {
    /// In capital letters.
    pub(super) name: String,
    /// Its first key, if it has one.
    pub(super) key: Option<&'a [u8]>,
}

/// The longest name of a command that is one; those of modules have a prefix.
const NAME_LEN_MAX: usize = 64;
/// Digits of a number in the protocol: none that is meant needs more.
const DIGITS_MAX: usize = 10;

/// Commands about the connection, which say nothing about what will be asked.
const PASSED_OVER: [&str; 8] = ["ASKING", "AUTH", "CLIENT", "HELLO", "MULTI", "READONLY", "READWRITE", "SELECT"];

/// Commands without keys, among those of Redis 7.
const WITHOUT_KEY: [&str; 44] = [
    "ACL",
    "BGREWRITEAOF",
    "BGSAVE",
    "CLUSTER",
    "COMMAND",
    "CONFIG",
    "DBSIZE",
    "DISCARD",
    "ECHO",
    "EXEC",
    "FAILOVER",
    "FLUSHALL",
    "FLUSHDB",
    "FUNCTION",
    "INFO",
    "KEYS",
    "LASTSAVE",
    "LATENCY",
    "LOLWUT",
    "MODULE",
    "MONITOR",
    "PING",
    "PSUBSCRIBE",
    "PSYNC",
    "PUBLISH",
    "PUBSUB",
    "PUNSUBSCRIBE",
    "QUIT",
    "RANDOMKEY",
    "REPLCONF",
    "REPLICAOF",
    "RESET",
    "ROLE",
    "SAVE",
    "SCAN",
    "SCRIPT",
    "SHUTDOWN",
    "SLAVEOF",
    "SLOWLOG",
    "SUBSCRIBE",
    "SWAPDB",
    "SYNC",
    "TIME",
    "UNSUBSCRIBE",
];

/// Where the first key is.
#[derive(Clone, Copy)]
enum KeyAt {
    Nowhere,
    /// This argument; the command itself is number 0.
    Argument(usize),
    /// Behind this argument, which is the number of keys.
    Counted(usize),
    /// Behind the word STREAMS.
    Streams,
}

/// What is not known (commands of modules, of later versions) has its key where nearly all have it.
fn key_at(name: &str) -> KeyAt {
    match name {
        "BITOP" | "DEBUG" | "MEMORY" | "OBJECT" | "XGROUP" | "XINFO" => KeyAt::Argument(2),
        "MIGRATE" => KeyAt::Argument(3),
        "LMPOP" | "SINTERCARD" | "ZDIFF" | "ZINTER" | "ZINTERCARD" | "ZMPOP" | "ZUNION" => KeyAt::Counted(1),
        "BLMPOP" | "BZMPOP" | "EVAL" | "EVALSHA" | "EVALSHA_RO" | "EVAL_RO" | "FCALL" | "FCALL_RO" => KeyAt::Counted(2),
        "XREAD" | "XREADGROUP" => KeyAt::Streams,
        _ if WITHOUT_KEY.contains(&name) => KeyAt::Nowhere,
        _ => KeyAt::Argument(1),
    }
}

/// Why nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// More is needed; `whole` if commands were passed over and nothing else is begun.
    More {
        is_whole: bool,
    },
    Unreadable,
}

const MORE: Stop = Stop::More { is_whole: false };

/// Reads the command at the beginning of `bytes`, of which at most `bytes_max` are looked at.
pub(super) fn read(bytes: &[u8], bytes_max: usize) -> Reading<'_> {
    let seen = &bytes[..bytes.len().min(bytes_max)];
    match command(seen) {
        Ok(command) => Reading::Clear(Content::Redis(command)),
        Err(Stop::More { .. }) if seen.len() == bytes_max => Reading::Unclear(Ambiguity::TooLong),
        Err(Stop::More { .. }) => Reading::Incomplete,
        Err(Stop::Unreadable) => Reading::Unclear(Ambiguity::RedisUnreadable),
    }
}

/// Whether a client may be waiting for the answer to commands that were passed over.
pub(super) fn awaits_server(bytes: &[u8]) -> bool {
    command(bytes) == Err(Stop::More { is_whole: true })
}

fn command(bytes: &[u8]) -> Result<Command<'_>, Stop> {
    let mut rest = bytes;
    let mut was_passed_over = false;
    loop {
        if rest.is_empty() {
            return Err(Stop::More { is_whole: was_passed_over });
        }
        let read = if rest[0] == b'*' { array(&mut rest)? } else { inline(&mut rest)? };
        match read {
            Some(command) if !PASSED_OVER.contains(&&*command.name) => return Ok(command),
            Some(_) => was_passed_over = true,
            // An empty line or array is none.
            None => {}
        }
    }
}

/// An array of bulk strings. Arguments behind the key are not waited for.
fn array<'a>(rest: &mut &'a [u8]) -> Result<Option<Command<'a>>, Stop> {
    let mut behind = *rest;
    let count = number(&mut behind, b'*')?;
    if count > REDIS_ARGUMENTS_MAX {
        return Err(Stop::Unreadable);
    }
    let mut arguments = Arguments { rest: behind, left: count };
    let Some(name) = arguments.next()? else {
        *rest = arguments.rest;
        return Ok(None);
    };
    let name = command_name(name)?;
    if PASSED_OVER.contains(&&*name) {
        while arguments.next()?.is_some() {}
        *rest = arguments.rest;
        return Ok(Some(Command { name, key: None }));
    }
    let key = first_key(key_at(&name), || arguments.next())?;
    Ok(Some(Command { name, key }))
}

/// The key among arguments that come one by one; `next` is behind the command's name.
fn first_key<'a>(at: KeyAt, mut next: impl FnMut() -> Result<Option<&'a [u8]>, Stop>) -> Result<Option<&'a [u8]>, Stop> {
    let mut nth = |number: usize| {
        for _ in 1..number {
            if next()?.is_none() {
                return Ok(None);
            }
        }
        next()
    };
    match at {
        KeyAt::Nowhere => Ok(None),
        KeyAt::Argument(number) => nth(number),
        KeyAt::Counted(number) => match nth(number)? {
            // None at all: a script without keys. What is no number is an error there.
            Some(count) if count != b"0" && !count.is_empty() && count.iter().all(u8::is_ascii_digit) => nth(1),
            _ => Ok(None),
        },
        KeyAt::Streams => {
            while let Some(argument) = nth(1)? {
                if argument.eq_ignore_ascii_case(b"STREAMS") {
                    return nth(1);
                }
            }
            Ok(None)
        }
    }
}

struct Arguments<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Arguments<'a> {
    /// The next bulk string; none behind the last.
    fn next(&mut self) -> Result<Option<&'a [u8]>, Stop> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut rest = self.rest;
        let length = number(&mut rest, b'$')?;
        let (string, behind) = rest.split_at_checked(length).ok_or(MORE)?;
        self.rest = end_of_line(behind)?;
        self.left -= 1;
        Ok(Some(string))
    }
}

/// A sign, a number without leading zeros, CR LF.
fn number(rest: &mut &[u8], sign: u8) -> Result<usize, Stop> {
    let (first, mut behind) = rest.split_first().ok_or(MORE)?;
    if *first != sign {
        return Err(Stop::Unreadable);
    }
    let mut value = 0_usize;
    for digits in 0..=DIGITS_MAX {
        let (digit, after) = behind.split_first().ok_or(MORE)?;
        let is_number = digits == 1 && value == 0;
        match digit {
            b'0'..=b'9' if digits < DIGITS_MAX && !is_number => value = value * 10 + usize::from(digit - b'0'),
            _ if digits > 0 => {
                *rest = end_of_line(behind)?;
                return Ok(value);
            }
            _ => return Err(Stop::Unreadable),
        }
        behind = after;
    }
    Err(Stop::Unreadable)
}

fn end_of_line(rest: &[u8]) -> Result<&[u8], Stop> {
    match rest {
        [b'\r', b'\n', behind @ ..] => Ok(behind),
        [] | [b'\r'] => Err(MORE),
        _ => Err(Stop::Unreadable),
    }
}

fn command_name(name: &[u8]) -> Result<String, Stop> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.|".contains(byte);
    if name.is_empty() || name.len() > NAME_LEN_MAX || !name.iter().all(is_name) {
        return Err(Stop::Unreadable);
    }
    Ok(String::from_utf8_lossy(name).to_ascii_uppercase())
}

/// A line of words. Quotes are for people who type, and are not read.
fn inline<'a>(rest: &mut &'a [u8]) -> Result<Option<Command<'a>>, Stop> {
    let is_alien =
        |byte: &&u8| !matches!(byte, b'\n' | b'\r' | b'\t' | b' '..=b'~' | 0x80..) || matches!(byte, b'"' | b'\'' | b'\\');
    let end = rest.iter().position(|byte| *byte == b'\n');
    let line = &rest[..end.unwrap_or(rest.len())];
    let text = line.strip_suffix(b"\r").unwrap_or(line);
    // A CR may only be the last of the line, which is not known while that is not complete.
    if line.iter().find(is_alien).is_some() || text.contains(&b'\r') {
        return Err(Stop::Unreadable);
    }
    let Some(end) = end else { return Err(MORE) };
    *rest = &rest[end + 1..];
    let mut words = text.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let Some(name) = words.next() else { return Ok(None) };
    let name = command_name(name)?;
    let key = first_key(key_at(&name), || Ok(words.next()))?;
    Ok(Some(Command { name, key }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BYTES_MAX: usize = 16_384;

    /// As libraries send it.
    fn sent(arguments: &[&str]) -> Vec<u8> {
        let strings = arguments.iter().map(|argument| format!("${}\r\n{argument}\r\n", argument.len()));
        format!("*{}\r\n{}", arguments.len(), strings.collect::<String>()).into_bytes()
    }

    fn words(line: &str) -> Vec<u8> {
        sent(&line.split(' ').collect::<Vec<_>>())
    }

    fn seen(bytes: &[u8]) -> String {
        match read(bytes, BYTES_MAX) {
            Reading::Clear(Content::Redis(command)) => {
                let key = command.key.map_or_else(|| "-".into(), String::from_utf8_lossy);
                format!("{} {key}", command.name)
            }
            Reading::Unclear(why) => why.to_string(),
            Reading::Incomplete if awaits_server(bytes) => "waiting".to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_first_key_is_where_the_command_has_it() {
        for (line, expected) in [
            ("GET user:7", "GET user:7"),
            ("mget a b c", "MGET a"),
            ("set k v", "SET k"),
            ("PING", "PING -"),
            ("dbsize", "DBSIZE -"),
            ("SUBSCRIBE news", "SUBSCRIBE -"),
            ("EVAL return 2 k1 k2 a", "EVAL k1"),
            ("EVAL return 0 a", "EVAL -"),
            ("EVALSHA x y k", "EVALSHA -"),
            ("ZUNION 2 a b", "ZUNION a"),
            ("BLMPOP 0 1 list LEFT", "BLMPOP list"),
            ("OBJECT ENCODING k", "OBJECT k"),
            ("XREAD COUNT 2 BLOCK 0 streams s1 s2 0 0", "XREAD s1"),
            ("XREADGROUP GROUP g c STREAMS s >", "XREADGROUP s"),
            ("XREAD COUNT 2", "XREAD -"),
            ("MIGRATE h 1 k 0 1", "MIGRATE k"),
            ("json.get doc .", "JSON.GET doc"),
            ("GET", "GET -"),
        ] {
            assert_eq!(seen(&words(line)), expected, "{line}");
            assert_eq!(seen(format!("{line}\r\n").as_bytes()), expected, "{line}, inline");
        }
    }

    #[test]
    fn commands_that_prepare_are_passed_over() {
        let prepared = |last: &str| {
            [words("HELLO 3"), words("auth user secret"), words("CLIENT SETINFO LIB-NAME x"), words("SELECT 2"), last.into()]
                .concat()
        };
        assert_eq!(seen(&prepared("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")), "GET k");
        assert_eq!(seen(&prepared("GET k\r\n")), "GET k");
        assert_eq!(seen(&prepared("")), "waiting");
        assert_eq!(seen(&[prepared(""), words("MULTI"), words("INCR n")].concat()), "INCR n");
        assert_eq!(seen(b"AUTH x\r\n\r\nGET k\r\n"), "GET k");
        assert_eq!(seen(b"*0\r\n"), "Incomplete");
    }

    #[test]
    fn a_key_is_enough_whatever_follows() {
        assert_eq!(seen(b"*3\r\n$3\r\nSET\r\n$4\r\nuser\r\n$100000\r\nabc"), "SET user");
        assert_eq!(seen(b"*3\r\n$3\r\nSET\r\n$4\r\nuser\r\nwrong"), "SET user");
        let whole = b"*2\r\n$3\r\nGET\r\n$4\r\nuser\r\n";
        for length in 0..whole.len() {
            assert_eq!(seen(&whole[..length]), "Incomplete", "{length}");
        }
        assert_eq!(seen(b"*2\r\n$3\r\nGET\r\n$4\r\n\0\r\n\xff\r\n"), "GET \0\r\n\u{fffd}");
    }

    #[test]
    fn what_breaks_the_protocol_is_unreadable() {
        for bytes in [
            &b"*x"[..],
            b"*-1\r\n",
            b"*01\r\n",
            b"*+1\r\n",
            b"*\r\n",
            b"*1\n",
            b"*1\rX",
            b"*1\r\n+",
            b"*1\r\n$-1\r\n",
            b"*1\r\n$03",
            b"*1\r\n$3\r\nGETX",
            b"*1\r\n$0\r\n\r\n",
            b"*1\r\n$3\r\nG T\r\n",
            b"*99999999999",
            b"*1048577\r\n",
            b"*1\r\n$99999999999",
            b"\0",
            b"\x16\x03\x01",
            b"GET \"a\"\r\n",
            b"GET 'a'",
            b"GET \\",
            b"GET a\rb",
            b"*1\r\n:1\r\n",
        ] {
            assert_eq!(seen(bytes), "redis_unreadable", "{}", bytes.escape_ascii());
        }
        assert_eq!(seen(&sent(&[&"x".repeat(65), "k"])), "redis_unreadable");
    }

    #[test]
    fn everything_is_bounded() {
        let whole = words("GET user");
        assert!(matches!(read(&whole, whole.len()), Reading::Clear(_)));
        assert_eq!(read(&whole, whole.len() - 1), Reading::Unclear(Ambiguity::TooLong));
        assert_eq!(read(&[b'x'; 300], 256), Reading::Unclear(Ambiguity::TooLong));
    }

    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let good = prop::sample::select(vec![
            "*1\r\n",
            "*2\r\n",
            "*3\r\n",
            "$3\r\nGET\r\n",
            "$4\r\nAUTH\r\n",
            "$5\r\nHELLO\r\n",
            "$1\r\nk\r\n",
            "$4\r\nEVAL\r\n",
            "$1\r\n1\r\n",
            "GET k\r\n",
            "SELECT 1\n",
            "\r\n",
            "*0\r\n",
        ]);
        let bad = prop::sample::select(vec!["\r", "\n", "*", "$", "-1", "0", "\0", "\"", " ", "x"]);
        let piece = prop_oneof![5 => good, 1 => bad].prop_map(|text| text.as_bytes().to_vec());
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_pieces_make_it_panic_or_change_its_mind(bytes in pieces()) {
            let whole = read(&bytes, BYTES_MAX);
            for length in 0..bytes.len() {
                let before = read(&bytes[..length], BYTES_MAX);
                prop_assert!(before == Reading::Incomplete || before == whole, "{} of {}: {:?} and {:?}", length, bytes.len(), before, whole);
            }
        }
    }
}
