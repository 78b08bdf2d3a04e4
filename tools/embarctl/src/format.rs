//! How `consume` prints a message: `%T` topic, `%o` order, `%S` session, `%b` batch, `%t` receipt, `%s` payload.

use std::io::{self, Write};

/// What is known about a message.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Total order in the topic.
    pub order: u64,
    /// Session id.
    pub session: u64,
    /// Number of the batch in its session.
    pub batch_seq: u64,
    /// The broker's clock at receipt, UTC ns.
    pub received_at: u64,
    /// Payload.
    pub payload: &'a [u8],
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Topic,
    Order,
    Session,
    Batch,
    Timestamp,
    Payload,
    Length,
}

/// A parsed format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    parts: Vec<Part>,
}

impl Format {
    /// Payload and newline.
    pub const DEFAULT: &str = r"%s\n";

    /// Parses `%` fields and `\` escapes.
    pub fn parse(text: &str) -> Result<Format, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            match character {
                '%' => match field(rest.next())? {
                    Part::Text(percent) => literal.extend(percent),
                    part => {
                        parts.push(Part::Text(std::mem::take(&mut literal)));
                        parts.push(part);
                    }
                },
                '\\' => literal.push(escape(rest.next())?),
                other => literal.extend(other.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        parts.push(Part::Text(literal));
        parts.retain(|part| *part != Part::Text(Vec::new()));
        Ok(Format { parts })
    }

    /// Prints one message.
    pub fn write(&self, out: &mut impl Write, fields: &Fields<'_>) -> io::Result<()> {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.write_all(text)?,
                Part::Topic => out.write_all(fields.topic.as_bytes())?,
                Part::Order => write!(out, "{}", fields.order)?,
                Part::Session => write!(out, "{:#x}", fields.session)?,
                Part::Batch => write!(out, "{}", fields.batch_seq)?,
                Part::Timestamp => write!(out, "{}", fields.received_at)?,
                Part::Payload => out.write_all(fields.payload)?,
                Part::Length => write!(out, "{}", fields.payload.len())?,
            }
        }
        Ok(())
    }
}

fn field(letter: Option<char>) -> Result<Part, String> {
    match letter {
        Some('T') => Ok(Part::Topic),
        Some('o') => Ok(Part::Order),
        Some('S') => Ok(Part::Session),
        Some('b') => Ok(Part::Batch),
        Some('t') => Ok(Part::Timestamp),
        Some('s') => Ok(Part::Payload),
        Some('l') => Ok(Part::Length),
        Some('%') => Ok(Part::Text(b"%".to_vec())),
        Some(other) => Err(format!(
            "%{other} is none of %T topic, %o order, %S session, %b batch, %t receipt, %s payload, %l length, %%"
        )),
        None => Err("% at the end names no field; write %% for a percent sign".to_owned()),
    }
}

fn escape(letter: Option<char>) -> Result<u8, String> {
    match letter {
        Some('n') => Ok(b'\n'),
        Some('t') => Ok(b'\t'),
        Some('r') => Ok(b'\r'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some(other) => Err(format!(r"\{other} is none of \n, \t, \r, \0, \\")),
        None => Err(r"\ at the end escapes nothing; write \\ for a backslash".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: &str) -> Vec<u8> {
        let fields =
            Fields { topic: "mine", order: 12, session: 0xab, batch_seq: 3, received_at: 99, payload: b"\xffhi" };
        let mut out = Vec::new();
        Format::parse(format).unwrap().write(&mut out, &fields).unwrap();
        out
    }

    #[test]
    fn fields_and_escapes() {
        assert_eq!(printed(Format::DEFAULT), b"\xffhi\n");
        assert_eq!(printed(r"%o %S/%b @%t [%l]\t100%%\\é"), "12 0xab/3 @99 [3]\t100%\\é".as_bytes());
        assert_eq!(printed("%T:%o"), b"mine:12");
        assert_eq!(printed(""), b"");
    }

    #[test]
    fn mistakes_are_named() {
        for bad in ["%x", "%", r"\q", "\\"] {
            assert!(Format::parse(bad).is_err(), "{bad:?}");
        }
    }
}
