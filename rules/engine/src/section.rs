//! The custom section by which a component brings the JSON schema of its settings; a source has a line for it.
//!
//! It stands at the top level of the component, where every tool that passes sections on keeps it.

use crate::inspect::Refusal;
use crate::source::{Source, with_engine};

/// The section's name.
const NAME: &str = "tillstream:settings-schema";
/// The magic number and the version.
const HEADER_BYTES: usize = 8;
const CUSTOM: u8 = 0;

/// The schema that a module brings, as text.
///
/// # Errors
/// [`Refusal::SettingsSchema`] when there are two of it, or it is no text; [`Refusal::Invalid`] when a component's sections
/// cannot be told apart; what is wrong with a source's first lines.
pub fn settings_schema(module: &[u8]) -> Result<Option<&str>, Refusal> {
    match Source::read(module)? {
        Some(source) => Ok(source.settings_schema()),
        None => of_component(module),
    }
}

fn of_component(component: &[u8]) -> Result<Option<&str>, Refusal> {
    let torn = || Refusal::Invalid("a section ends outside the module".to_owned());
    let mut rest = component.get(HEADER_BYTES..).ok_or_else(torn)?;
    let mut found = None;
    while let Some((&id, after)) = rest.split_first() {
        let (body, after) = sized(after).ok_or_else(torn)?;
        rest = after;
        let named = if id == CUSTOM { sized(body) } else { None };
        let Some((_, schema)) = named.filter(|it| it.0 == NAME.as_bytes()) else { continue };
        let text = std::str::from_utf8(schema);
        let text = text.map_err(|_| Refusal::SettingsSchema("it is no UTF-8".to_owned()))?;
        if found.replace(text).is_some() {
            return Err(Refusal::SettingsSchema("the module brings two".to_owned()));
        }
    }
    Ok(found)
}

/// The module with a schema for its settings. One that it brings already is the caller's to look for.
#[must_use]
pub fn with_settings_schema(module: &[u8], schema: &str) -> Vec<u8> {
    match (Source::read(module), std::str::from_utf8(module)) {
        (Ok(Some(_)), Ok(source)) => with_engine(source, Some(schema)).into_bytes(),
        _ => with_section(module, schema),
    }
}

fn with_section(component: &[u8], schema: &str) -> Vec<u8> {
    let mut name = Vec::new();
    put_length(NAME.len(), &mut name);
    name.extend_from_slice(NAME.as_bytes());
    let mut out = component.to_vec();
    out.push(CUSTOM);
    put_length(name.len() + schema.len(), &mut out);
    out.extend(name);
    out.extend_from_slice(schema.as_bytes());
    out
}

/// What a length announces, and what comes after it.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return bytes.get(index + 1..)?.split_at_checked(length);
        }
    }
    None
}

fn put_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    #[test]
    fn a_schema_that_is_put_in_is_found_again_whatever_its_length() {
        assert_eq!(settings_schema(EMPTY), Ok(None));
        for length in [0, 1, 98, 99, 100, 127, 128, 16_383, 16_384] {
            let schema = "x".repeat(length);
            let module = with_settings_schema(EMPTY, &schema);
            assert_eq!(settings_schema(&module), Ok(Some(schema.as_str())));
            let more = [&module[..], &[CUSTOM, 2, 1, b'y']].concat();
            assert_eq!(settings_schema(&more), Ok(Some(schema.as_str())), "another section does not matter");
        }
    }

    #[test]
    fn what_is_torn_or_there_twice_is_refused() {
        let module = with_settings_schema(EMPTY, "{}");
        for end in EMPTY.len() + 1..module.len() {
            assert!(matches!(settings_schema(&module[..end]), Err(Refusal::Invalid(_))), "cut at {end}");
        }
        let refused = |bytes: &[u8]| matches!(settings_schema(bytes), Err(Refusal::SettingsSchema(_)));
        assert!(refused(&with_settings_schema(&module, "{}")));
        let mut text = with_settings_schema(EMPTY, "{}");
        *text.last_mut().unwrap() = 0xff;
        assert!(refused(&text));
    }
}
