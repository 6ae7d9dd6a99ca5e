//! The bytes that clients and applications write: any octet tells whose it is, of which request, and where.

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Errand, and which of its requests.
    pub id: (usize, usize),
    pub target: Target,
    /// Octets of the answer's body.
    pub answer_bytes: usize,
    /// Octets of the request's body.
    pub upload_bytes: usize,
    /// Octets by which the head is longer than need be.
    pub padding: usize,
    /// Answered before its body is complete.
    pub is_answered_early: bool,
    /// The server closes after it.
    pub is_last: bool,
}

/// Who shall answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Local,
    Node(usize),
    /// The first of some that will.
    Any,
}

pub const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

impl Request {
    pub fn octets(&self) -> Vec<u8> {
        let (errand, index) = self.id;
        let path = match self.target {
            Target::Local => "/here".to_owned(),
            Target::Node(node) => format!("/to/{}/x", NAMES[node]),
            Target::Any => "/any/x".to_owned(),
        };
        let method = if self.upload_bytes > 0 { "POST" } else { "GET" };
        let mut octets = format!("{method} {path} HTTP/1.1\r\nHost: shop\r\nX-Request: {errand}.{index}\r\n").into_bytes();
        octets.extend(format!("X-Answer: {}\r\n", self.answer_bytes).into_bytes());
        if self.upload_bytes > 0 {
            octets.extend(format!("Content-Length: {}\r\n", self.upload_bytes).into_bytes());
        }
        if self.is_answered_early {
            octets.extend(b"X-Early: 1\r\n");
        }
        if self.is_last {
            octets.extend(b"X-Last: 1\r\n");
        }
        if self.padding > 0 {
            octets.extend(format!("X-Padding: {}\r\n", "p".repeat(self.padding)).into_bytes());
        }
        octets.extend(b"\r\n");
        octets.extend(body(b'^', self.id, self.upload_bytes));
        octets
    }
}

/// The answer of this server.
pub fn answer(server: usize, id: (usize, usize), bytes: usize) -> Vec<u8> {
    let (name, (errand, index)) = (NAMES[server], id);
    let head = format!("HTTP/1.1 200 OK\r\nX-Server: {name}\r\nX-Request: {errand}.{index}\r\nContent-Length: {bytes}\r\n\r\n");
    let mut octets = head.into_bytes();
    octets.extend(body(name.as_bytes()[0], id, bytes));
    octets
}

fn body(salt: u8, id: (usize, usize), bytes: usize) -> impl Iterator<Item = u8> {
    let salt = u32::from(salt) ^ (id.0 as u32) << 8 ^ (id.1 as u32) << 20;
    (0..bytes as u32).map(move |at| ((at ^ salt).wrapping_mul(2_654_435_761) >> 13) as u8)
}

/// What an application reads of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub id: (usize, usize),
    /// Octets of the head itself.
    pub head_bytes: usize,
    pub answer_bytes: usize,
    pub upload_bytes: usize,
    pub is_answered_early: bool,
    pub is_last: bool,
}

/// The head at the start of `octets`; None while it is incomplete.
pub fn head(octets: &[u8]) -> Option<Result<Head, ()>> {
    let end = octets.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&octets[..end]).map_err(|_| ());
    Some(text.and_then(|text| {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let number = |name: &str| field(name).map_or(Ok(0), |text| text.parse().map_err(|_| ()));
        let (errand, index) = field("X-Request: ").and_then(|id| id.split_once('.')).ok_or(())?;
        Ok(Head {
            id: (errand.parse().map_err(|_| ())?, index.parse().map_err(|_| ())?),
            head_bytes: end,
            answer_bytes: number("X-Answer: ")?,
            upload_bytes: number("Content-Length: ")?,
            is_answered_early: field("X-Early: ").is_some(),
            is_last: field("X-Last: ").is_some(),
        })
    }))
}

/// Head and body of the answer at the start of `octets`, in octets; None while its head is incomplete.
pub fn answer_length(octets: &[u8]) -> Option<usize> {
    let end = octets.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&octets[..end]).ok()?;
    let body: usize = text.lines().find_map(|line| line.strip_prefix("Content-Length: "))?.parse().ok()?;
    Some(end + body)
}
