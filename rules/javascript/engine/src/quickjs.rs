//! The calls of `quickjs.c`.

use std::ffi::{CString, c_char, c_int};

unsafe extern "C" {
    static mut till_text: *const u8;
    static mut till_length: usize;
    fn till_compile(source: *const c_char, length: usize) -> c_int;
    fn till_load(code: *const u8, length: usize) -> c_int;
    fn till_exports(hook: *const c_char) -> c_int;
    fn till_null() -> u64;
    fn till_string(text: *const u8, length: usize) -> u64;
    fn till_number(number: i64) -> u64;
    fn till_array() -> u64;
    fn till_object() -> u64;
    fn till_json(text: *const c_char, length: usize) -> u64;
    fn till_push(array: u64, index: u32, value: u64);
    fn till_set(object: u64, name: *const u8, length: usize, value: u64);
    fn till_set_known(object: u64, name: *const u8, length: usize, value: u64);
    fn till_ask(hook: *const c_char, question: u64) -> c_int;
}

/// A value of the engine. Nobody frees one: the sandbox ends with the call. Where one cannot be made, the C part remembers it,
/// and asks nothing.
#[derive(Clone, Copy)]
pub struct Value(u64);

/// `null`.
pub fn null() -> Value {
    // SAFETY: it takes nothing and gives a value.
    Value(unsafe { till_null() })
}

/// A text.
pub fn string(text: &str) -> Value {
    // SAFETY: the C part reads so many bytes, and keeps none of them.
    Value(unsafe { till_string(text.as_ptr(), text.len()) })
}

/// A number.
pub fn number(it: i64) -> Value {
    // SAFETY: it takes a number and gives a value.
    Value(unsafe { till_number(it) })
}

/// What a JSON text says; an object without fields where it is none.
pub fn json(text: &str) -> Value {
    match CString::new(text) {
        // SAFETY: the text ends with a zero that its length does not count, as the C part wants it.
        Ok(text) => Value(unsafe { till_json(text.as_ptr(), text.as_bytes().len()) }),
        Err(_) => object([]),
    }
}

/// An array.
pub fn array(elements: impl Iterator<Item = Value>) -> Value {
    // SAFETY: it takes nothing and gives a value.
    let array = unsafe { till_array() };
    for (index, it) in (0..).zip(elements) {
        // SAFETY: both are values of the engine.
        unsafe { till_push(array, index, it.0) };
    }
    Value(array)
}

/// An object of known fields.
pub fn object<const N: usize>(fields: [(&'static str, Value); N]) -> Value {
    // SAFETY: it takes nothing and gives a value.
    let object = unsafe { till_object() };
    for (name, it) in fields {
        // SAFETY: the name stays where it is as long as the program, and both are values of the engine.
        unsafe { till_set_known(object, name.as_ptr(), name.len(), it.0) };
    }
    Value(object)
}

/// An object whose fields have any names.
pub fn attributes<'a>(fields: impl Iterator<Item = (&'a str, Value)>) -> Value {
    // SAFETY: it takes nothing and gives a value.
    let object = unsafe { till_object() };
    for (name, it) in fields {
        // SAFETY: the C part reads so many bytes of the name and keeps none of them; both are values of the engine.
        unsafe { till_set(object, name.as_ptr(), name.len(), it.0) };
    }
    Value(object)
}

/// A line of `console.log`.
#[unsafe(no_mangle)]
extern "C" fn till_log(text: *const u8, length: usize) {
    // SAFETY: the C part hands over a text that it holds, with its length.
    let text = unsafe { std::slice::from_raw_parts(text, length) };
    crate::bindings::tillstream::rules::log::line(&String::from_utf8_lossy(text));
}

/// Compiles a rule; or what is wrong with it.
pub fn compile(source: String) -> Result<Vec<u8>, String> {
    let source = CString::new(source).map_err(|_| "the source has a zero character in it".to_owned())?;
    // SAFETY: the text ends with a zero that its length does not count, as the C part wants it.
    let compiled = unsafe { till_compile(source.as_ptr(), source.as_bytes().len()) };
    if compiled == 0 { Ok(left().to_vec()) } else { Err(said().into_owned()) }
}

/// Takes a compiled rule in; or what is wrong with it.
pub fn load(code: &[u8]) -> Result<(), String> {
    // SAFETY: the C part reads so many bytes, and keeps none of them.
    let loaded = unsafe { till_load(code.as_ptr(), code.len()) };
    if loaded == 0 { Ok(()) } else { Err(said().into_owned()) }
}

/// Whether the rule that was taken in exports such a function.
pub fn exports(hook: &str) -> bool {
    // SAFETY: as for `compile`.
    CString::new(hook).is_ok_and(|hook| unsafe { till_exports(hook.as_ptr()) } != 0)
}

/// The answer as JSON, or what was thrown.
pub fn ask(hook: &str, question: Value) -> Result<std::borrow::Cow<'static, str>, String> {
    let Ok(hook) = CString::new(hook) else { return Err("the hook has a zero character in it".to_owned()) };
    // SAFETY: as for `compile`; the question is a value of the engine.
    let asked = unsafe { till_ask(hook.as_ptr(), question.0) };
    if asked == 0 { Ok(said()) } else { Err(said().into_owned()) }
}

/// What the last call said.
fn said() -> std::borrow::Cow<'static, str> {
    String::from_utf8_lossy(left())
}

/// The bytes that the last call left.
fn left() -> &'static [u8] {
    // SAFETY: the C part leaves bytes there that nobody frees: the sandbox ends with the call.
    unsafe { std::slice::from_raw_parts(till_text, till_length) }
}
