//! The encoding of an imported text: byte order marks, and a reader that turns UTF-16 into UTF-8.
//!
//! JSON is exchanged as UTF-8 (RFC 8259, section 8.1), but redirecting a command's output on Windows writes UTF-16 or a
//! byte order mark. Does not guess an encoding that has no mark.

use std::io::{self, BufRead, Read};

/// The encoding that a byte order mark names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    Utf16(ByteOrder),
}

/// The order of the two bytes of a UTF-16 unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    BigEndian,
    LittleEndian,
}

const MARKS: [(&[u8], Encoding); 3] = [
    (&[0xef, 0xbb, 0xbf], Encoding::Utf8),
    (&[0xfe, 0xff], Encoding::Utf16(ByteOrder::BigEndian)),
    (&[0xff, 0xfe], Encoding::Utf16(ByteOrder::LittleEndian)),
];

impl Encoding {
    /// The encoding that the first bytes of a text name, if they are a byte order mark.
    pub(super) fn of(start: &[u8]) -> Option<Encoding> {
        MARKS.iter().find(|(mark, _)| start.starts_with(mark)).map(|(_, encoding)| *encoding)
    }

    /// The length of its byte order mark.
    pub(super) const fn mark_bytes(self) -> usize {
        match self {
            Encoding::Utf8 => 3,
            Encoding::Utf16(_) => 2,
        }
    }
}

/// Reads UTF-16 as UTF-8. An unpaired surrogate or half a unit at the end is an error of kind `InvalidData`.
#[derive(Debug)]
pub(super) struct Utf16Reader<R> {
    input: R,
    order: ByteOrder,
    /// The encoded character of which `given` bytes were read.
    character: [u8; 4],
    length: usize,
    given: usize,
}

impl<R: BufRead> Utf16Reader<R> {
    pub(super) fn new(input: R, order: ByteOrder) -> Utf16Reader<R> {
        Utf16Reader { input, order, character: [0; 4], length: 0, given: 0 }
    }

    /// The next unit; `None` at the end of the input.
    fn unit(&mut self) -> io::Result<Option<u16>> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut bytes = [0; 2];
        self.input.read_exact(&mut bytes).map_err(|_| invalid("ends in the middle of a UTF-16 unit"))?;
        Ok(Some(match self.order {
            ByteOrder::BigEndian => u16::from_be_bytes(bytes),
            ByteOrder::LittleEndian => u16::from_le_bytes(bytes),
        }))
    }

    /// Encodes the next character; false at the end of the input.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(first) = self.unit()? else { return Ok(false) };
        let second = if (0xd800..0xdc00).contains(&first) { self.unit()? } else { None };
        let decoded = char::decode_utf16([Some(first), second].into_iter().flatten()).next();
        let Some(Ok(character)) = decoded else { return Err(invalid("not valid UTF-16")) };
        (self.length, self.given) = (character.encode_utf8(&mut self.character).len(), 0);
        Ok(true)
    }
}

impl<R: BufRead> Read for Utf16Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < buffer.len() {
            if self.given == self.length && !self.advance()? {
                break;
            }
            let part = &self.character[self.given..self.length];
            let taken = part.len().min(buffer.len() - written);
            buffer[written..written + taken].copy_from_slice(&part[..taken]);
            (self.given, written) = (self.given + taken, written + taken);
        }
        Ok(written)
    }
}

fn invalid(cause: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(text: &str, order: ByteOrder) -> Vec<u8> {
        let units = text.encode_utf16();
        units
            .flat_map(|unit| match order {
                ByteOrder::BigEndian => unit.to_be_bytes(),
                ByteOrder::LittleEndian => unit.to_le_bytes(),
            })
            .collect()
    }

    fn decode(bytes: &[u8], order: ByteOrder) -> io::Result<String> {
        io::read_to_string(Utf16Reader::new(bytes, order))
    }

    proptest! {
        #[test]
        fn every_text_is_decoded_in_both_orders(text in any::<String>()) {
            for order in [ByteOrder::BigEndian, ByteOrder::LittleEndian] {
                prop_assert_eq!(decode(&encode(&text, order), order).expect("valid"), text.clone());
            }
        }
    }

    #[test]
    fn broken_texts_are_refused() {
        // A high surrogate at the end, a low one alone, a high one before a letter, half a unit.
        for bytes in [&[0xd8, 0][..], &[0xdc, 0, 0, 65], &[0xd8, 0, 0, 65], &[0, 65, 0]] {
            let error = decode(bytes, ByteOrder::BigEndian).expect_err("broken");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }
}
