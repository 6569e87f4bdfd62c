//! zstd frames (RFC 8878), decoded block by block: what one step puts out is bounded by the format, not by the sender.
//!
//! The decoder is in safe Rust; here it is only fed. It must never get more than one block at a time: a block of four
//! bytes may hold 128 KiB.

use bytes::{Buf, BytesMut};
use ruzstd::decoding::FrameDecoder;
use std::io::{self, Read};

/// What a frame may refer back to: the 8 MiB that RFC 9659 asks for.
const WINDOW_BYTES_MAX: u64 = 8 << 20;
/// The most a block holds, encoded or decoded.
const BLOCK_BYTES_MAX: usize = 128 << 10;
const MAGIC: u32 = 0xFD2F_B528;

/// What comes next.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Header,
    Block { checksum: bool },
    Checksum,
}

/// A body of frames on its way out of its encoding.
pub(super) struct Frames {
    decoder: FrameDecoder,
    at: At,
    /// Came in, and is not whole enough to be decoded.
    input: BytesMut,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn failed(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { decoder: FrameDecoder::new(), at: At::Header, input: BytesMut::new() }
    }

    /// More input.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Whether nothing is left over.
    pub(super) fn is_whole(&self) -> bool {
        self.at == At::Header && self.input.is_empty()
    }

    /// Decodes the next part of a frame, handing on what comes out of it; `false` when more input is needed.
    pub(super) fn step(&mut self, out: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
        match self.at {
            At::Header => self.header(),
            At::Block { checksum } => self.block(checksum, out),
            At::Checksum => self.checksum(),
        }
    }

    fn header(&mut self) -> io::Result<bool> {
        let Some(header) = Header::read(&self.input)? else { return Ok(false) };
        if header.window_bytes > WINDOW_BYTES_MAX {
            return Err(broken("a frame refers back further than 8 MiB"));
        }
        let bytes = self.input.split_to(header.len);
        self.decoder = FrameDecoder::new();
        self.decoder.init(&mut &bytes[..]).map_err(failed)?;
        self.at = At::Block { checksum: header.checksum };
        Ok(true)
    }

    fn block(&mut self, checksum: bool, out: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
        let [first, second, third, ..] = self.input[..] else { return Ok(false) };
        let head = u32::from_le_bytes([first, second, third, 0]);
        let (last, kind, size) = (head & 1 == 1, head >> 1 & 3, (head >> 3) as usize);
        if size > BLOCK_BYTES_MAX || kind == 3 {
            return Err(broken("a block is none"));
        }
        // Of a run of one byte, that byte is there once.
        let len = 3 + if kind == 1 { 1 } else { size };
        if self.input.len() < len {
            return Ok(false);
        }
        let block = self.input.split_to(len);
        let mut room = vec![0; BLOCK_BYTES_MAX];
        let (_, mut got) = self.decoder.decode_from_to(&block, &mut room).map_err(failed)?;
        while got > 0 {
            out(&room[..got])?;
            got = self.decoder.read(&mut room)?;
        }
        if last {
            self.at = if checksum { At::Checksum } else { At::Header };
        }
        Ok(true)
    }

    fn checksum(&mut self) -> io::Result<bool> {
        if self.input.len() < 4 {
            return Ok(false);
        }
        let told = self.input.get_u32_le();
        if self.decoder.get_calculated_checksum() != Some(told) {
            return Err(broken("a frame does not match its checksum"));
        }
        self.at = At::Header;
        Ok(true)
    }
}

/// The head of a frame.
struct Header {
    len: usize,
    window_bytes: u64,
    checksum: bool,
}

impl Header {
    /// `None` when more input is needed.
    fn read(input: &[u8]) -> io::Result<Option<Self>> {
        let [a, b, c, d, descriptor, ..] = *input else { return Ok(None) };
        if u32::from_le_bytes([a, b, c, d]) != MAGIC {
            return Err(broken("no frame begins here"));
        }
        let single_segment = descriptor & 0x20 != 0;
        let size_len = match descriptor >> 6 {
            0 => usize::from(single_segment),
            1 => 2,
            2 => 4,
            _ => 8,
        };
        let dictionary_len = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let window_len = usize::from(!single_segment);
        let len = 5 + window_len + dictionary_len + size_len;
        if input.len() < len {
            return Ok(None);
        }
        let window_bytes = if single_segment {
            let mut size = [0; 8];
            size[..size_len].copy_from_slice(&input[len - size_len..len]);
            // Two bytes count from 256 on.
            u64::from_le_bytes(size) + if size_len == 2 { 256 } else { 0 }
        } else {
            let base = 1_u64 << (10 + (input[5] >> 3));
            base + base / 8 * u64::from(input[5] & 7)
        };
        Ok(Some(Self { len, window_bytes, checksum: descriptor & 4 != 0 }))
    }
}
