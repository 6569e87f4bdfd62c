//! As much of the CQL native protocol, version 4, as it takes to ask a node whether it is up and to run a statement.

use std::io::{Error, ErrorKind, Read, Result, Write};

const ERROR: u8 = 0x00;
const STARTUP: u8 = 0x01;
const AUTHENTICATE: u8 = 0x03;
const OPTIONS: u8 = 0x05;
const SUPPORTED: u8 = 0x06;
const QUERY: u8 = 0x07;
const AUTH_RESPONSE: u8 = 0x0f;

/// Sends one frame and reads one.
fn call(stream: &mut (impl Read + Write), opcode: u8, body: &[u8]) -> Result<(u8, Vec<u8>)> {
    let length = u32::try_from(body.len()).map_err(Error::other)?;
    let mut frame = vec![0x04, 0, 0, 0, opcode];
    frame.extend(length.to_be_bytes());
    frame.extend(body);
    stream.write_all(&frame)?;
    stream.flush()?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let [version, _, _, _, answer, length @ ..] = head;
    if version != 0x84 {
        return Err(Error::new(ErrorKind::InvalidData, format!("not a CQL answer: {head:02x?}")));
    }
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).map_err(Error::other)?];
    stream.read_exact(&mut body)?;
    if answer == ERROR {
        let text = String::from_utf8_lossy(body.get(6..).unwrap_or_default()).into_owned();
        return Err(Error::other(text));
    }
    Ok((answer, body))
}

/// Asks what the node supports, as any client does first.
pub(crate) fn options(stream: &mut (impl Read + Write)) -> Result<()> {
    match call(stream, OPTIONS, &[])? {
        (SUPPORTED, _) => Ok(()),
        (other, _) => Err(Error::new(ErrorKind::InvalidData, format!("OPTIONS answered by {other}"))),
    }
}

/// Opens a session; `login` is for nodes that ask for one.
pub(crate) fn start_up(stream: &mut (impl Read + Write), login: Option<(&str, &str)>) -> Result<()> {
    let mut body = vec![0, 1];
    for text in ["CQL_VERSION", "3.0.0"] {
        body.extend(u16::try_from(text.len()).map_err(Error::other)?.to_be_bytes());
        body.extend(text.as_bytes());
    }
    let (answer, _) = call(stream, STARTUP, &body)?;
    if answer != AUTHENTICATE {
        return Ok(());
    }
    let (user, password) = login.ok_or_else(|| Error::other("the node asks for a login"))?;
    let token = format!("\0{user}\0{password}");
    let mut body = u32::try_from(token.len()).map_err(Error::other)?.to_be_bytes().to_vec();
    body.extend(token.as_bytes());
    call(stream, AUTH_RESPONSE, &body).map(drop)
}

/// Runs one statement at consistency ONE and returns the body of the result.
pub(crate) fn query(stream: &mut (impl Read + Write), statement: &str) -> Result<Vec<u8>> {
    let mut body = u32::try_from(statement.len()).map_err(Error::other)?.to_be_bytes().to_vec();
    body.extend(statement.as_bytes());
    body.extend([0, 1, 0]);
    call(stream, QUERY, &body).map(|(_, body)| body)
}
