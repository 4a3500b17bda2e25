//! Where a message ends (RFC 9112 section 6.3). What could be read in two ways is refused.

use http::header::{self, HeaderName};
use http::{Method, StatusCode, Version};
use http_body::SizeHint;

use super::{Fault, MOST_LENGTH};

/// The most of a body, in bytes, that is sent in one buffer with its head: one buffer costs the kernel less than two.
pub(super) const ONE_BUFFER: usize = 4 * 1024;

/// The facts of a head that decide how its body is read and whether its connection is kept.
#[derive(Debug, Default)]
pub(super) struct Facts {
    lengths: u8,
    /// The value of the first Content-Length; `None` if it is not a number of bytes.
    length: Option<u64>,
    /// The first fault that was found in a Content-Length.
    length_fault: Option<Fault>,
    codings: u8,
    is_chunked: bool,
    says_close: bool,
    says_keep_alive: bool,
    pub(super) expects: bool,
    pub(super) accepts_trailers: bool,
}

impl Facts {
    /// Adds a field.
    pub(super) fn add(&mut self, name: &HeaderName, value: &[u8]) {
        if *name == header::CONTENT_LENGTH {
            match number(value) {
                Ok(length) if self.lengths == 0 => self.length = Some(length),
                Ok(length) if self.length == Some(length) => {}
                Ok(_) => self.length_fault = self.length_fault.or(Some(Fault::LengthsDiffer)),
                Err(fault) => self.length_fault = self.length_fault.or(Some(fault)),
            }
            self.lengths = self.lengths.saturating_add(1);
        } else if *name == header::TRANSFER_ENCODING {
            self.is_chunked = value.eq_ignore_ascii_case(b"chunked");
            self.codings = self.codings.saturating_add(1);
        } else if *name == header::CONNECTION {
            for option in value.split(|byte| *byte == b',') {
                let option = option.trim_ascii();
                self.says_close |= option.eq_ignore_ascii_case(b"close");
                self.says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if *name == header::EXPECT {
            self.expects = true;
        } else if *name == header::TE {
            self.accepts_trailers = true;
        }
    }

    /// Whether the message leaves its connection open (RFC 9112 section 9.3).
    pub(super) fn keeps_alive(&self, version: Version) -> bool {
        !self.says_close && (version == Version::HTTP_11 || self.says_keep_alive)
    }

    /// Whether there is a length and a coding. The coding decides, and the connection is not used again (RFC 9112 section
    /// 6.3).
    pub(super) fn has_both_framings(&self) -> bool {
        self.lengths > 0 && self.codings > 0
    }

    fn framing_by_length(&self) -> Result<Option<Framing>, Fault> {
        if let Some(fault) = self.length_fault {
            return Err(fault);
        }
        Ok(self.length.map(|length| match length {
            0 => Framing::None,
            length => Framing::Length(length),
        }))
    }
}

/// How a reader knows where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    /// In bytes; not 0.
    Length(u64),
    Chunked,
    /// The body ends with the connection.
    UntilClose,
}

impl Framing {
    pub(super) fn of_request(version: Version, facts: &Facts) -> Result<Self, Fault> {
        if facts.codings == 0 {
            let by_length = facts.framing_by_length()?;
            if facts.lengths > 1 {
                return Err(Fault::LengthRepeated);
            }
            return Ok(by_length.unwrap_or(Self::None));
        }
        if version == Version::HTTP_11 && facts.has_both_framings() {
            return Err(Fault::LengthAndCoding);
        }
        Self::by_coding(version, facts)
    }

    /// Returns the framing of an answer to a request with `method`.
    pub(super) fn of_response(
        method: &Method,
        status: StatusCode,
        version: Version,
        facts: &Facts,
    ) -> Result<Self, Fault> {
        let by_length = facts.framing_by_length()?;
        if is_bodiless(method == Method::HEAD, status) {
            return Ok(Self::None);
        }
        if facts.codings == 0 {
            return Ok(by_length.unwrap_or(Self::UntilClose));
        }
        Self::by_coding(version, facts)
    }

    fn by_coding(version: Version, facts: &Facts) -> Result<Self, Fault> {
        if version != Version::HTTP_11 {
            return Err(Fault::TransferCodingInOldVersion);
        }
        // Any other coding would have to be passed on with the field that names it, and that field goes one hop only.
        match (facts.codings, facts.is_chunked) {
            (1, true) => Ok(Self::Chunked),
            (1, false) => Err(Fault::TransferCoding),
            _ => Err(Fault::TransferCodingRepeated),
        }
    }
}

/// How a writer shows where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEncoding {
    /// There is no body.
    None,
    /// The bytes that are still to be written.
    Length(u64),
    Chunked,
    UntilClose,
}

impl BodyEncoding {
    /// Returns the length of a body that goes out in one buffer with its head, else 0.
    pub(super) fn room(&self) -> usize {
        match self {
            Self::Length(length) => usize::try_from(*length)
                .ok()
                .filter(|length| *length <= ONE_BUFFER),
            Self::Chunked | Self::None | Self::UntilClose => None,
        }
        .unwrap_or_default()
    }

    /// Chooses the encoding for a body of which `hint` is known. `chunks`: the reader understands chunks.
    pub(super) fn of(hint: &SizeHint, chunks: bool) -> Self {
        match (hint.exact(), chunks) {
            (Some(length), _) => Self::Length(length),
            (None, true) => Self::Chunked,
            (None, false) => Self::UntilClose,
        }
    }
}

/// Whether an answer has no body, even if its fields announce one.
pub(super) fn is_bodiless(is_to_head: bool, status: StatusCode) -> bool {
    is_to_head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Reads a length: digits only, because `u64::from_str` would accept a sign.
fn number(digits: &[u8]) -> Result<u64, Fault> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Fault::LengthNotNumber);
    }
    let length = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    length
        .filter(|length| *length <= MOST_LENGTH)
        .ok_or(Fault::LengthTooLarge)
}
