//! A module's answer in a stage's words. What does not fit its question is no answer.

use crate::bindings::exports::tillstream::rules as hooks;
use crate::bindings::tillstream::rules::types;
use tillstream_stage::rule::{LineAdjustment, Misfit, Parcel, RuleAnswer, parse_rate};

/// Bytes a number or a mark of an option takes in the size of an output.
const FIXED: usize = 8;

/// What a module said, and how large that was.
pub(crate) struct Said {
    pub answer: Result<RuleAnswer, Misfit>,
    /// Somebody is to look at the order: why.
    pub review: Option<String>,
    pub bytes: usize,
}

impl Said {
    fn new(answer: RuleAnswer, bytes: usize) -> Self {
        Self { answer: Ok(answer), review: None, bytes }
    }

    fn refused(it: types::Refusal) -> Self {
        let bytes = it.code.len() + it.message.len();
        Self::new(RuleAnswer::Refuse { code: it.code.into(), message: it.message.into() }, bytes)
    }
}

pub(crate) fn price(answer: hooks::price::Answer, lines: usize) -> Said {
    match answer {
        hooks::price::Answer::Pass => Said::new(RuleAnswer::Pass, FIXED),
        hooks::price::Answer::Refuse(it) => Said::refused(it),
        hooks::price::Answer::Adjust(it) => {
            let bytes = it.iter().map(|it| 3 * FIXED + it.tax_rate.as_ref().map_or(0, String::len)).sum();
            Said { answer: adjust(&it, lines), review: None, bytes }
        }
    }
}

fn adjust(adjustments: &[hooks::price::Adjustment], lines: usize) -> Result<RuleAnswer, Misfit> {
    let mut adjusted = vec![None; lines];
    for it in adjustments {
        let place = once("adjust.line", &mut adjusted, it.line)?;
        let tax_rate_bp = it.tax_rate.as_deref().map(|it| {
            parse_rate(it).ok_or(Misfit::Value {
                what: "adjust.tax-rate",
                why: "it must be a decimal from \"0\" to \"10\" with at most four places",
            })
        });
        *place = Some(LineAdjustment { discount_minor: it.discount, tax_rate_bp: tax_rate_bp.transpose()? });
    }
    Ok(RuleAnswer::Adjust(adjusted.into_iter().map(Option::unwrap_or_default).collect()))
}

pub(crate) fn allocate(answer: hooks::allocate::Answer, lines: usize) -> Said {
    match answer {
        hooks::allocate::Answer::Pass => Said::new(RuleAnswer::Pass, FIXED),
        hooks::allocate::Answer::Refuse(it) => Said::refused(it),
        hooks::allocate::Answer::Place(it) => {
            let size =
                |it: &hooks::allocate::Placement| FIXED + it.locations.iter().map(String::len).sum::<usize>();
            let bytes = it.iter().map(size).sum();
            Said { answer: place(it, lines), review: None, bytes }
        }
    }
}

fn place(placements: Vec<hooks::allocate::Placement>, lines: usize) -> Result<RuleAnswer, Misfit> {
    let mut placed = vec![None; lines];
    for it in placements {
        let locations = it.locations.into_iter().map(Into::into).collect::<Vec<_>>();
        *once("place.line", &mut placed, it.line)? = Some(locations);
    }
    Ok(RuleAnswer::Place(placed.into_iter().map(Option::unwrap_or_default).collect()))
}

pub(crate) fn risk(answer: hooks::risk::Answer) -> Said {
    match answer {
        hooks::risk::Answer::Pass => Said::new(RuleAnswer::Pass, FIXED),
        hooks::risk::Answer::Approve => Said::new(RuleAnswer::Approve, FIXED),
        hooks::risk::Answer::Decline(it) => Said::refused(it),
        hooks::risk::Answer::Review(why) => {
            Said { bytes: why.len(), review: Some(why), answer: Ok(RuleAnswer::Approve) }
        }
    }
}

pub(crate) fn ship(answer: hooks::ship::Answer) -> Said {
    match answer {
        hooks::ship::Answer::Pass => Said::new(RuleAnswer::Pass, FIXED),
        hooks::ship::Answer::Refuse(it) => Said::refused(it),
        hooks::ship::Answer::Split(it) => {
            let text = |it: &Option<String>| FIXED + it.as_ref().map_or(0, String::len);
            let size = |it: &hooks::ship::Parcel| {
                text(&it.location) + text(&it.carrier) + FIXED + it.contents.len() * 2 * FIXED
            };
            let bytes = it.iter().map(size).sum();
            Said::new(RuleAnswer::Split(it.into_iter().map(parcel).collect()), bytes)
        }
    }
}

fn parcel(it: hooks::ship::Parcel) -> Parcel {
    Parcel {
        location: it.location.map(Into::into),
        carrier: it.carrier.map(Into::into),
        promised_at_ms: it.promised_at,
        contents: it.contents.into_iter().map(|it| (it.line, it.quantity)).collect(),
    }
}

pub(crate) fn measure(pairs: Vec<types::AttributeResult>) -> Said {
    let bytes = pairs.iter().map(|it| it.name.len() + it.value.len()).sum();
    let pairs = pairs.into_iter().map(|it| (it.name.into(), it.value.into())).collect();
    Said::new(RuleAnswer::Dimensions(pairs), bytes)
}

/// The place of a line that was not named before.
fn once<'a, T>(
    what: &'static str,
    lines: &'a mut [Option<T>],
    line: u32,
) -> Result<&'a mut Option<T>, Misfit> {
    match lines.get_mut(line as usize) {
        Some(place @ None) => Ok(place),
        Some(Some(_)) => Err(Misfit::Value { what, why: "a line is named twice" }),
        None => Err(Misfit::Value { what, why: "there is no such line; lines count from 0" }),
    }
}
