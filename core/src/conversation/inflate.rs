//! DEFLATE (RFC 1951), as far as it takes to see what the first message of a compressed conversation says (RFC 7692).
//!
//! Refused: streams, contexts, and more than a bound of bytes. Invariant: no input makes it panic, and none makes it hold
//! more than its bound.

/// What a compressed message's payload lacks at its end.
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// Bits of a code at most.
const CODE_BITS_MAX: usize = 15;

/// The symbol that ends a block.
const END_OF_BLOCK: usize = 256;

const LENGTHS: [(usize, u32); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];

/// The order in which the lengths of the code of code lengths are written.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// What the payload of a message says that was compressed by itself, if it says `bytes_max` bytes at most.
pub(crate) fn inflate(payload: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let whole = [payload, &TAIL].concat();
    let mut bits = Bits { left: &whole, held: 0, count: 0 };
    let mut out = Vec::new();
    loop {
        let is_last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored(&mut bits, &mut out)?,
            1 => compressed(&mut bits, &Code::of(&fixed_lengths()), &Code::of(&[5; 30]), bytes_max, &mut out)?,
            2 => {
                let (symbols, distances) = codes(&mut bits)?;
                compressed(&mut bits, &symbols, &distances, bytes_max, &mut out)?;
            }
            _ => return None,
        }
        if out.len() > bytes_max {
            return None;
        }
        if is_last || bits.left.is_empty() {
            return Some(out);
        }
    }
}

/// Bits, the lowest of each byte first.
struct Bits<'a> {
    left: &'a [u8],
    held: u32,
    count: u32,
}

impl Bits<'_> {
    /// The next `want` bits, 16 at most.
    fn take(&mut self, want: u32) -> Option<u32> {
        while self.count < want {
            let (&byte, left) = self.left.split_first()?;
            self.held |= u32::from(byte) << self.count;
            self.count += 8;
            self.left = left;
        }
        let value = self.held & ((1 << want) - 1);
        self.held >>= want;
        self.count -= want;
        Some(value)
    }
}

/// A canonical Huffman code: how many codes have each length, and the symbols in the order of their codes.
struct Code {
    counts: [usize; CODE_BITS_MAX + 1],
    symbols: Vec<usize>,
}

impl Code {
    fn of(lengths: &[u8]) -> Self {
        let mut counts = [0; CODE_BITS_MAX + 1];
        lengths.iter().for_each(|&len| counts[usize::from(len)] += 1);
        counts[0] = 0;
        let mut symbols: Vec<usize> = (0..lengths.len()).filter(|&symbol| lengths[symbol] > 0).collect();
        symbols.sort_by_key(|&symbol| (lengths[symbol], symbol));
        Self { counts, symbols }
    }

    fn symbol(&self, bits: &mut Bits<'_>) -> Option<usize> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.counts[1..] {
            code = code << 1 | bits.take(1)? as usize;
            first <<= 1;
            if code < first + count {
                return self.symbols.get(index + code.checked_sub(first)?).copied();
            }
            index += count;
            first += count;
        }
        None
    }
}

fn fixed_lengths() -> [u8; 288] {
    std::array::from_fn(|symbol| match symbol {
        0..144 | 280.. => 8,
        144..256 => 9,
        256..280 => 7,
    })
}

fn stored(bits: &mut Bits<'_>, out: &mut Vec<u8>) -> Option<()> {
    (bits.held, bits.count) = (0, 0);
    let (head, rest) = bits.left.split_first_chunk::<4>()?;
    let len = u16::from_le_bytes([head[0], head[1]]);
    let (bytes, rest) = rest.split_at_checked(usize::from(len))?;
    out.extend_from_slice(bytes);
    bits.left = rest;
    (len == !u16::from_le_bytes([head[2], head[3]])).then_some(())
}

/// The two codes of a block that brings its own.
fn codes(bits: &mut Bits<'_>) -> Option<(Code, Code)> {
    let symbols = bits.take(5)? as usize + 257;
    let distances = bits.take(5)? as usize + 1;
    let written = bits.take(4)? as usize + 4;
    let mut lengths = [0_u8; 19];
    for &place in &ORDER[..written] {
        lengths[place] = bits.take(3)? as u8;
    }
    let code = Code::of(&lengths);
    let mut all: Vec<u8> = Vec::new();
    while all.len() < symbols + distances {
        let (len, times) = match code.symbol(bits)? {
            16 => (*all.last()?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            len => (len as u8, 1),
        };
        all.extend(std::iter::repeat_n(len, times as usize));
    }
    (all.len() == symbols + distances).then(|| (Code::of(&all[..symbols]), Code::of(&all[symbols..])))
}

fn compressed(
    bits: &mut Bits<'_>,
    symbols: &Code,
    distances: &Code,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Option<()> {
    while out.len() <= bytes_max {
        match symbols.symbol(bits)? {
            END_OF_BLOCK => return Some(()),
            byte @ 0..END_OF_BLOCK => out.push(byte as u8),
            symbol => {
                let (base, extra) = *LENGTHS.get(symbol - END_OF_BLOCK - 1)?;
                let len = base + bits.take(extra)? as usize;
                let from = out.len().checked_sub(distance(distances.symbol(bits)?, bits)?)?;
                (from..from + len).for_each(|at| out.push(out[at]));
            }
        }
    }
    None
}

/// How far back a copy begins: two symbols for each number of bits beyond the first.
fn distance(symbol: usize, bits: &mut Bits<'_>) -> Option<usize> {
    let extra = (symbol / 2).saturating_sub(1) as u32;
    let base = if symbol < 4 { symbol + 1 } else { ((2 + symbol % 2) << extra) + 1 };
    (symbol < 30).then_some(())?;
    Some(base + bits.take(extra)? as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    /// A language client's first message with the fixed code, and text with a code of its own, as zlib writes them.
    const FIXED: &str = "aa56ca2acecf2b2a4856b2525032d23350d25150ca4c01720c818cdcd4928c7c104729332fb324333127b32a15a4a020b128 \
             31b718285ead5450949f9c5a5cec095295579a9303942dcacf2f092dca4408242716242665e6004d48056baaadad0500";
    const DYNAMIC: &str = "ec8c4d1282301483af9279eb6e849d57615cb4524a1578d01f0a75bcbbed05f40266954cf2e54592aedd45348d68db56fcdd \
             2f4761d4d8a2bd3fa11ca705031f78c479f5e05d3bd47a92f944cf8604c8afa35d0ef00035c9026d51ba9045417aa3319fd8 \
             39d5dd5acb1255b94b368c18ecaecb49d60b26bb457605319e6e5ff5fe00";

    #[test]
    fn what_zlib_has_compressed_is_read() {
        let fixed = inflate(&bytes(FIXED), 1000).unwrap();
        assert_eq!(
            str::from_utf8(&fixed).unwrap(),
            r#"{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"processId": null, "rootUri": null, "capabilities": {}}}"#
        );
        let text = inflate(&bytes(DYNAMIC), 1000).unwrap();
        let long = format!(
            r#"{{"a":{}"the quick brown fox jumps over the lazy dog", "sphinx of black quartz, judge my vow", "pack my box with five dozen liquor jugs"{}}}"#,
            "[1,22,333,".repeat(30),
            "]".repeat(30)
        );
        assert_eq!(str::from_utf8(&text).unwrap(), long);
        assert_eq!(inflate(&bytes(DYNAMIC), long.len()), Some(text));
        assert_eq!(inflate(&bytes(DYNAMIC), long.len() - 1), None, "beyond the bound");
        assert_eq!(inflate(&bytes("000500faff68656c6c6f00"), 5), Some(b"hello".to_vec()), "a stored block");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_hold_more_than_its_bound(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            bytes_max in 0..300_usize,
        ) {
            prop_assert!(inflate(&payload, bytes_max).is_none_or(|out| out.len() <= bytes_max));
        }
    }
}
