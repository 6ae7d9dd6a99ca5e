//! Why a connection was not compared with the rules.

use std::fmt;

/// Why the first bytes of a connection are nothing that every server would read alike. The default decides.
///
/// The labels are stable: they are values of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ambiguity {
    /// The bytes cannot begin a request of HTTP/1.
    NotHttp,
    /// Another version of HTTP, such as the preface of HTTP/2.
    Version,
    /// The head or hello is not complete within `inspect_bytes_max`.
    TooLong,
    /// It comes in so many pieces that looking at all of them again and again would cost too much.
    TooManyPieces,
    /// More header fields than any common server takes.
    TooManyHeaders,
    /// CR without LF (RFC 9112 2.2).
    BareCarriageReturn,
    /// NUL within the head (RFC 9110 5.5).
    Nul,
    /// A header field continued on the next line (RFC 9112 5.2).
    FoldedHeader,
    /// A method with characters other than capital letters, `-` and `_`.
    MethodUnreadable,
    /// HTTP/1.1 without Host (RFC 9112 3.2).
    HostMissing,
    /// More than one Host (RFC 9112 3.2).
    HostRepeated,
    /// A Host that is no name or address with an optional port, or is empty.
    HostUnreadable,
    /// The request target names another host than Host does.
    HostContradicted,
    /// A Content-Length that is no number.
    LengthUnreadable,
    /// Two Content-Lengths that differ (RFC 9112 6.3).
    LengthContradicted,
    /// Content-Length together with Transfer-Encoding (RFC 9112 6.1).
    LengthAndEncoding,
    /// A Transfer-Encoding other than one `chunked`, or one in HTTP/1.0 (RFC 9112 6.1).
    EncodingUnreadable,
    /// A request target that is neither a path, an absolute URI of http or https, nor `*`.
    TargetUnreadable,
    /// A path with an escape that is none, a control character or a fragment.
    PathUnreadable,
    /// A path with an encoded slash or with a backslash.
    PathSeparator,
    /// A path with a segment `.` or `..`.
    PathDots,
    /// A path with an empty segment, when the rules decide otherwise without it.
    PathSlashes,
    /// A name of a JSON body, on the way to a field that rules ask for, is there twice or in other letter case.
    JsonName,
    /// The bytes cannot begin a TLS connection.
    NotTls,
    /// A ClientHello that contradicts itself or RFC 8446.
    HelloMalformed,
    /// A ClientHello of before TLS 1.2, or that insists on compression.
    HelloObsolete,
    /// A server name that no name of a host can be (RFC 6066, section 3), or more than one.
    SniUnreadable,
    /// Frames that break RFC 9113, sections 3.4, 4 and 6.
    Http2Frames,
    /// A header block that breaks RFC 7541.
    Http2HeaderBlock,
    /// Pseudo-header fields that are missing, repeated, unknown or behind other fields (RFC 9113 8.3).
    Http2PseudoFields,
    /// A field name with capital letters or other characters than names have (RFC 9113 8.2.1).
    Http2FieldName,
    /// A field value with control characters, or white space around it (RFC 9113 8.2.1).
    Http2FieldValue,
    /// A field about the connection, which HTTP/2 has none of (RFC 9113 8.2.2).
    Http2ConnectionField,
    /// No PROXY header where there must be one, or one that says nothing clear.
    ProxyHeader,
    /// Bytes that break the protocol of Redis.
    RedisUnreadable,
    /// With `inspect: auto`: bytes that begin none of its protocols.
    UnknownProtocol,
}

impl Ambiguity {
    /// Every kind, for tables of counters.
    pub const ALL: [Self; 36] = [
        Self::NotHttp,
        Self::Version,
        Self::TooLong,
        Self::TooManyPieces,
        Self::TooManyHeaders,
        Self::BareCarriageReturn,
        Self::Nul,
        Self::FoldedHeader,
        Self::MethodUnreadable,
        Self::HostMissing,
        Self::HostRepeated,
        Self::HostUnreadable,
        Self::HostContradicted,
        Self::LengthUnreadable,
        Self::LengthContradicted,
        Self::LengthAndEncoding,
        Self::EncodingUnreadable,
        Self::TargetUnreadable,
        Self::PathUnreadable,
        Self::PathSeparator,
        Self::PathDots,
        Self::PathSlashes,
        Self::JsonName,
        Self::NotTls,
        Self::HelloMalformed,
        Self::HelloObsolete,
        Self::SniUnreadable,
        Self::Http2Frames,
        Self::Http2HeaderBlock,
        Self::Http2PseudoFields,
        Self::Http2FieldName,
        Self::Http2FieldValue,
        Self::Http2ConnectionField,
        Self::ProxyHeader,
        Self::RedisUnreadable,
        Self::UnknownProtocol,
    ];

    /// The name in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotHttp => "not_http",
            Self::Version => "version",
            Self::TooLong => "too_long",
            Self::TooManyPieces => "too_many_pieces",
            Self::TooManyHeaders => "too_many_headers",
            Self::BareCarriageReturn => "bare_carriage_return",
            Self::Nul => "nul",
            Self::FoldedHeader => "folded_header",
            Self::MethodUnreadable => "method_unreadable",
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::HostUnreadable => "host_unreadable",
            Self::HostContradicted => "host_contradicted",
            Self::LengthUnreadable => "length_unreadable",
            Self::LengthContradicted => "length_contradicted",
            Self::LengthAndEncoding => "length_and_encoding",
            Self::EncodingUnreadable => "encoding_unreadable",
            Self::TargetUnreadable => "target_unreadable",
            Self::PathUnreadable => "path_unreadable",
            Self::PathSeparator => "path_separator",
            Self::PathDots => "path_dots",
            Self::PathSlashes => "path_slashes",
            Self::JsonName => "json_name",
            Self::NotTls => "not_tls",
            Self::HelloMalformed => "hello_malformed",
            Self::HelloObsolete => "hello_obsolete",
            Self::SniUnreadable => "sni_unreadable",
            Self::Http2Frames => "http2_frames",
            Self::Http2HeaderBlock => "http2_header_block",
            Self::Http2PseudoFields => "http2_pseudo_fields",
            Self::Http2FieldName => "http2_field_name",
            Self::Http2FieldValue => "http2_field_value",
            Self::Http2ConnectionField => "http2_connection_field",
            Self::ProxyHeader => "proxy_header",
            Self::RedisUnreadable => "redis_unreadable",
            Self::UnknownProtocol => "unknown_protocol",
        }
    }
}

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_is_listed_once_and_has_a_label_of_its_own() {
        let labels: BTreeSet<&str> = Ambiguity::ALL.iter().map(|kind| kind.label()).collect();
        assert_eq!(labels.len(), Ambiguity::ALL.len());
        for (index, kind) in Ambiguity::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index);
        }
    }
}
