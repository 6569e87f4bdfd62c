//! The calls of `quickjs.c`.

use std::ffi::{CString, c_char, c_int};

unsafe extern "C" {
    static mut till_text: *const u8;
    static mut till_length: usize;
    fn till_load(source: *const c_char, length: usize) -> c_int;
    fn till_exports(hook: *const c_char) -> c_int;
    fn till_ask(hook: *const c_char, question: *const c_char, length: usize) -> c_int;
}

/// A line of `console.log`.
#[unsafe(no_mangle)]
extern "C" fn till_log(text: *const u8, length: usize) {
    // SAFETY: the C part hands over a text that it holds, with its length.
    let text = unsafe { std::slice::from_raw_parts(text, length) };
    crate::bindings::tillstream::rules::log::line(&String::from_utf8_lossy(text));
}

/// Takes the rule in; or what is wrong with it.
pub fn load(source: String) -> Result<(), String> {
    let source = CString::new(source).map_err(|_| "the source has a zero character in it".to_owned())?;
    // SAFETY: the text ends with a zero that its length does not count, as the C part wants it.
    let loaded = unsafe { till_load(source.as_ptr(), source.as_bytes().len()) };
    if loaded == 0 { Ok(()) } else { Err(said().into_owned()) }
}

/// Whether the rule that was taken in exports such a function.
pub fn exports(hook: &str) -> bool {
    // SAFETY: as for `load`.
    CString::new(hook).is_ok_and(|hook| unsafe { till_exports(hook.as_ptr()) } != 0)
}

/// The answer as JSON, or what was thrown.
pub fn ask(hook: &str, question: String) -> Result<std::borrow::Cow<'static, str>, String> {
    let (Ok(hook), Ok(question)) = (CString::new(hook), CString::new(question)) else {
        return Err("the question has a zero character in it".to_owned());
    };
    // SAFETY: as for `load`.
    let asked = unsafe { till_ask(hook.as_ptr(), question.as_ptr(), question.as_bytes().len()) };
    if asked == 0 { Ok(said()) } else { Err(said().into_owned()) }
}

/// What the last call said.
fn said() -> std::borrow::Cow<'static, str> {
    // SAFETY: the C part leaves a text there that nobody frees: the sandbox ends with the call.
    let text = unsafe { std::slice::from_raw_parts(till_text, till_length) };
    String::from_utf8_lossy(text)
}
