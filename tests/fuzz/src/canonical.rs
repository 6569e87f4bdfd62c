//! A second reader of answers: the layouts of `rules/wit` in a module's memory, by the canonical ABI's rules.

use tillstream_schemas::Text;
use tillstream_stage::rule::{Hook, LineAdjustment, Parcel, RuleAnswer, parse_rate};

/// A list or text longer than this is not worth reading; what all of it together costs the host is bounded there.
const READ_MAX: usize = 8_192;

/// A module's memory at its end, as far as it is known.
pub(crate) struct Memory {
    bytes: Vec<u8>,
    end: u32,
}

/// What stands somewhere.
pub(crate) enum Read<T> {
    /// This.
    Value(T),
    /// Nothing that is a value: the call traps.
    Trap,
    /// It is not known, or would take too long.
    Unknown,
}

/// An answer.
pub(crate) struct Said {
    /// In a stage's words; `None` when it names lines that there are not, or twice, or rates that are none.
    pub answer: Option<RuleAnswer>,
    /// Why somebody is to look at it.
    pub review: Option<String>,
    /// How large it is.
    pub bytes: usize,
}

/// Why there is no value. A trap only counts where everything before it is known.
enum Nothing {
    Trap,
    Unknown,
}

type Found<T> = Result<T, Nothing>;

/// A number or the mark of an option.
const FIXED: usize = 8;

impl Memory {
    /// `image` stands at `at`; nothing else before `known`, and nothing at all from `end` on.
    pub fn new(at: u32, image: &[u8], known: u32, end: u32) -> Self {
        let mut bytes = vec![0; known as usize];
        let at = at as usize;
        bytes[at..at + image.len()].copy_from_slice(image);
        Self { bytes, end }
    }

    /// What the host must make of the answer of a hook.
    pub fn answer(&self, hook: Hook, at: u32, lines: usize) -> Read<Said> {
        let mut reader = Reader { memory: self, left: READ_MAX };
        let said = match hook {
            Hook::Price => reader.price(at, lines),
            Hook::Allocate => reader.allocate(at, lines),
            Hook::Risk => reader.risk(at),
            Hook::Ship => reader.ship(at),
            Hook::Measure => reader.measure(at),
        };
        match said {
            Ok(said) => Read::Value(said),
            Err(Nothing::Trap) => Read::Trap,
            Err(Nothing::Unknown) => Read::Unknown,
        }
    }
}

struct Reader<'a> {
    memory: &'a Memory,
    /// Bytes and elements that may still be read.
    left: usize,
}

fn pass() -> Said {
    Said { answer: Some(RuleAnswer::Pass), review: None, bytes: FIXED }
}

impl<'a> Reader<'a> {
    fn bytes(&self, at: u32, len: u32) -> Found<&'a [u8]> {
        let end = u64::from(at) + u64::from(len);
        if end > u64::from(self.memory.end) {
            return Err(Nothing::Trap);
        }
        self.memory.bytes.get(at as usize..end as usize).ok_or(Nothing::Unknown)
    }

    fn u32(&self, at: u32) -> Found<u32> {
        Ok(u32::from_le_bytes(self.bytes(at, 4)?.try_into().expect("four bytes")))
    }

    fn i64(&self, at: u32) -> Found<i64> {
        Ok(i64::from_le_bytes(self.bytes(at, 8)?.try_into().expect("eight bytes")))
    }

    /// Which case of a variant with so many.
    fn case(&self, at: u32, cases: u8) -> Found<u8> {
        let case = self.bytes(at, 1)?[0];
        if case < cases { Ok(case) } else { Err(Nothing::Trap) }
    }

    fn text(&mut self, at: u32) -> Found<String> {
        let (at, len) = (self.u32(at)?, self.u32(at + 4)?);
        let bytes = self.bytes(at, len)?;
        self.left = self.left.checked_sub(bytes.len()).ok_or(Nothing::Unknown)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Nothing::Trap)
    }

    fn option<T>(
        &mut self,
        at: u32,
        value_at: u32,
        read: impl FnOnce(&mut Self, u32) -> Found<T>,
    ) -> Found<Option<T>> {
        match self.case(at, 2)? {
            0 => Ok(None),
            _ => read(self, value_at).map(Some),
        }
    }

    fn list<T>(
        &mut self,
        at: u32,
        (size, align): (u32, u32),
        mut read: impl FnMut(&mut Self, u32) -> Found<T>,
    ) -> Found<Vec<T>> {
        let (at, len) = (self.u32(at)?, self.u32(at + 4)?);
        let size_all = u64::from(len) * u64::from(size);
        if u64::from(at) + size_all > u64::from(self.memory.end) || at % align != 0 {
            return Err(Nothing::Trap);
        }
        self.left = self.left.checked_sub(len as usize * 64).ok_or(Nothing::Unknown)?;
        (0..len).map(|index| read(self, at + index * size)).collect()
    }

    fn refusal(&mut self, at: u32) -> Found<Said> {
        let (code, message) = (self.text(at)?, self.text(at + 8)?);
        let bytes = code.len() + message.len();
        let answer = RuleAnswer::Refuse { code: code.into(), message: message.into() };
        Ok(Said { answer: Some(answer), review: None, bytes })
    }

    fn price(&mut self, at: u32, lines: usize) -> Found<Said> {
        match self.case(at, 3)? {
            0 => return Ok(pass()),
            2 => return self.refusal(at + 4),
            _ => {}
        }
        let adjustments = self.list(at + 4, (32, 8), |it, at| {
            let rate = |it: &mut Self| it.option(at + 16, at + 20, Self::text);
            Ok((it.u32(at)?, it.i64(at + 8)?, rate(it)?))
        })?;
        let bytes = adjustments.iter().map(|it| 3 * FIXED + it.2.as_ref().map_or(0, String::len)).sum();
        let adjusted = adjustments.into_iter().map(|(line, discount_minor, rate)| {
            let tax_rate_bp = match rate {
                Some(rate) => Some(parse_rate(&rate)?),
                None => None,
            };
            Some((line, LineAdjustment { discount_minor, tax_rate_bp }))
        });
        let answer = adjusted.collect::<Option<Vec<_>>>().and_then(|it| by_line(it, lines));
        Ok(Said { answer: answer.map(RuleAnswer::Adjust), review: None, bytes })
    }

    fn allocate(&mut self, at: u32, lines: usize) -> Found<Said> {
        match self.case(at, 3)? {
            0 => return Ok(pass()),
            2 => return self.refusal(at + 4),
            _ => {}
        }
        let placements = self.list(at + 4, (12, 4), |it, at| {
            Ok((it.u32(at)?, it.list(at + 4, (8, 4), |it, at| it.text(at).map(Text::from))?))
        })?;
        let size = |it: &(u32, Vec<Text>)| FIXED + it.1.iter().map(Text::len).sum::<usize>();
        let bytes = placements.iter().map(size).sum();
        let answer = by_line(placements, lines).map(RuleAnswer::Place);
        Ok(Said { answer, review: None, bytes })
    }

    fn risk(&mut self, at: u32) -> Found<Said> {
        let approve =
            |review: Option<String>, bytes| Said { answer: Some(RuleAnswer::Approve), review, bytes };
        match self.case(at, 4)? {
            0 => Ok(pass()),
            1 => Ok(approve(None, FIXED)),
            2 => self.text(at + 4).map(|why| {
                let bytes = why.len();
                approve(Some(why), bytes)
            }),
            _ => self.refusal(at + 4),
        }
    }

    fn ship(&mut self, at: u32) -> Found<Said> {
        match self.case(at, 3)? {
            0 => return Ok(pass()),
            2 => return self.refusal(at + 4),
            _ => {}
        }
        let parcels = self.list(at + 4, (48, 8), |it, at| {
            let location = it.option(at, at + 4, Self::text)?.map(Text::from);
            let carrier = it.option(at + 12, at + 16, Self::text)?.map(Text::from);
            let promised_at_ms = it.option(at + 24, at + 32, |it, at| it.i64(at))?;
            let contents = it.list(at + 40, (16, 8), |it, at| Ok((it.u32(at)?, it.i64(at + 8)?)))?;
            Ok(Parcel { location, carrier, promised_at_ms, contents: contents.into_iter().collect() })
        })?;
        let text = |it: &Option<Text>| FIXED + it.as_ref().map_or(0, Text::len);
        let size =
            |it: &Parcel| text(&it.location) + text(&it.carrier) + FIXED + it.contents.len() * 2 * FIXED;
        let bytes = parcels.iter().map(size).sum();
        Ok(Said { answer: Some(RuleAnswer::Split(parcels)), review: None, bytes })
    }

    fn measure(&mut self, at: u32) -> Found<Said> {
        let pairs =
            self.list(at, (16, 4), |it, at| Ok((Text::from(it.text(at)?), Text::from(it.text(at + 8)?))))?;
        let bytes = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        Ok(Said { answer: Some(RuleAnswer::Dimensions(pairs)), review: None, bytes })
    }
}

/// One for each line; `None` when a line is named twice, or is none.
fn by_line<T: Default + Clone>(named: Vec<(u32, T)>, lines: usize) -> Option<Vec<T>> {
    let mut by_line: Vec<Option<T>> = vec![None; lines];
    for (line, it) in named {
        let place = by_line.get_mut(line as usize)?;
        if place.replace(it).is_some() {
            return None;
        }
    }
    Some(by_line.into_iter().map(Option::unwrap_or_default).collect())
}
