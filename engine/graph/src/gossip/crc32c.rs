//! CRC32C (Castagnoli; RFC 3720, appendix B.4): what BOLT 7 compares updates by, and what guards the store's records.
//!
//! Does not guard against intent, only against accident. Budget: 0.7 ns a byte, eight bytes a step over eight tables.

/// The checksum of `bytes`.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    finish(update(START, bytes))
}

/// The checksum of two stretches of bytes, one behind the other.
pub(super) fn crc32c_of_two(first: &[u8], second: &[u8]) -> u32 {
    finish(update(update(START, first), second))
}

const START: u32 = !0;

const fn finish(state: u32) -> u32 {
    !state
}

fn update(mut state: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word) ^ u64::from(state);
        state =
            (0..8).fold(0, |state, index| state ^ TABLES[7 - index][(word >> (8 * index)) as usize & 0xff]);
    }
    rest.iter().fold(state, |state, byte| TABLES[0][(state as u8 ^ byte) as usize] ^ state >> 8)
}

/// `TABLES[n][byte]` is what a byte does to the checksum when `n` more bytes follow it.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    /// Castagnoli's polynomial, its bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut state = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            state = if state & 1 == 0 { state >> 1 } else { state >> 1 ^ POLYNOMIAL };
            bit += 1;
        }
        tables[0][byte] = state;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        byte = 0;
        while byte < 256 {
            let state: u32 = tables[table - 1][byte];
            tables[table][byte] = tables[0][(state & 0xff) as usize] ^ state >> 8;
            byte += 1;
        }
        table += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4.
    #[test]
    fn published_examples() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&std::array::from_fn::<u8, 32, _>(|index| index as u8)), 0x46dd_794e);
        assert_eq!(crc32c(&std::array::from_fn::<u8, 32, _>(|index| 31 - index as u8)), 0x113f_db5c);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn parts_make_the_whole() {
        let bytes: Vec<u8> = (0..100).collect();
        for cut in 0..100 {
            assert_eq!(crc32c_of_two(&bytes[..cut], &bytes[cut..]), crc32c(&bytes));
        }
    }
}
