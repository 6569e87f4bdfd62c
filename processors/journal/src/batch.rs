//! One batch of fjall's journal (format 3), all numbers little-endian:
//!
//! ```text
//! 1 u8 · items u32 · seqno u64
//! items × ( 2 u8 · value type u8 · compression u8 · keyspace u64 · key length u16 · value length u32
//!           · stored length u32 · key · stored value
//!         | 4 u8 · keyspace u64 )
//! 3 u8 · xxh3 of the items u64 · "FJL" 3
//! ```

use xxhash_rust::xxh3::xxh3_64;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8] = b"FJL\x03";
const VALUE_TYPES: [u8; 4] = [0, 1, 2, 4];
const COMPRESSIONS: [u8; 2] = [0, 1];

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.number::<1>().map(|[byte]| byte)
    }

    fn item(&mut self) -> Option<()> {
        match self.byte()? {
            ITEM => {
                let whole = VALUE_TYPES.contains(&self.byte()?) && COMPRESSIONS.contains(&self.byte()?);
                whole.then_some(())?;
                let _keyspace: [u8; 8] = self.number()?;
                let key = u16::from_le_bytes(self.number()?);
                let _value: [u8; 4] = self.number()?;
                let stored = u32::from_le_bytes(self.number()?);
                self.take(usize::from(key))?;
                self.take(usize::try_from(stored).ok()?)?;
            }
            CLEAR => drop(self.take(8)?),
            _ => return None,
        }
        Some(())
    }
}

/// The length of the batch that `bytes` begin with; `None` when they begin with no whole batch.
pub fn length(bytes: &[u8]) -> Option<usize> {
    let mut reader = Reader { rest: bytes };
    (reader.byte()? == START).then_some(())?;
    let items = u32::from_le_bytes(reader.number()?);
    let _seqno: [u8; 8] = reader.number()?;
    let from = bytes.len() - reader.rest.len();
    for _ in 0..items {
        reader.item()?;
    }
    let to = bytes.len() - reader.rest.len();
    (reader.byte()? == END).then_some(())?;
    let checksum = u64::from_le_bytes(reader.number()?);
    (reader.take(TRAILER.len())? == TRAILER && xxh3_64(&bytes[from..to]) == checksum).then_some(())?;
    Some(bytes.len() - reader.rest.len())
}
