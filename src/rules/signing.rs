//! Keys that sign modules, signatures, and whose the tenant trusts.

use super::RulesError;
use super::remote::client;
use crate::cli::SigningCommand;
use crate::client::segment;
use crate::output::line;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tillstream_rule_host::digest;
use tillstream_rule_lifecycle::{signed_text, signing_key_id, to_hex};

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// Characters of a line of base64 in PEM.
const PEM_LINE: usize = 64;
/// Only its owner reads a key.
const OWNER_ALONE: u32 = 0o600;

/// What stands in the file beside a signed module.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Signature {
    /// The id of the key.
    pub key_id: String,
    /// SHA-256 of the module, in hex.
    pub digest: String,
    /// In hex.
    pub signature: String,
}

/// Makes a key in a new file; one that is there stays.
pub(super) fn keygen(path: &Path) -> Result<(), RulesError> {
    let failed = |why: &str| RulesError::SigningKey { path: path.to_path_buf(), why: why.to_owned() };
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
    let document = document.map_err(|_| failed("the system gives no random bytes"))?;
    let mut pem = format!("{BEGIN}\n");
    let base64 = BASE64_STANDARD.encode(document.as_ref());
    for at in (0..base64.len()).step_by(PEM_LINE) {
        pem.push_str(&base64[at..base64.len().min(at + PEM_LINE)]);
        pem.push('\n');
    }
    pem.push_str(&format!("{END}\n"));
    let file = |error| RulesError::File { path: path.to_path_buf(), error };
    let mut new =
        OpenOptions::new().write(true).create_new(true).mode(OWNER_ALONE).open(path).map_err(file)?;
    new.write_all(pem.as_bytes()).and_then(|()| new.sync_all()).map_err(file)?;
    let pair = read_key(path)?;
    let (public_key, id) = public_half(&pair, path)?;
    line(format_args!("{id}"));
    line(format_args!("{public_key}"));
    Ok(())
}

/// The key of a file: PKCS#8 in PEM.
fn read_key(path: &Path) -> Result<Ed25519KeyPair, RulesError> {
    let failed = || RulesError::SigningKey {
        path: path.to_path_buf(),
        why: "it is no Ed25519 key in PKCS#8 (PEM); `tillstream rules keygen` makes one".to_owned(),
    };
    let text = String::from_utf8(super::read(path)?).map_err(|_| failed())?;
    let inside = text.trim().strip_prefix(BEGIN).and_then(|it| it.strip_suffix(END)).ok_or_else(failed)?;
    let base64: String = inside.split_whitespace().collect();
    let document = BASE64_STANDARD.decode(base64).map_err(|_| failed())?;
    // Other tools leave the public half out.
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&document).map_err(|_| failed())
}

/// The public half in hex, and its id.
fn public_half(pair: &Ed25519KeyPair, path: &Path) -> Result<(String, String), RulesError> {
    let public_key = to_hex(pair.public_key().as_ref());
    let failed = |why: String| RulesError::SigningKey { path: path.to_path_buf(), why };
    let id = signing_key_id(&public_key).map_err(|error| failed(error.to_string()))?;
    Ok((public_key, id.to_string()))
}

/// Where the signature of a module stands.
fn beside(module: &Path) -> PathBuf {
    let mut name = OsString::from(module);
    name.push(".sig");
    name.into()
}

/// Signs a module, as it would be uploaded.
pub(super) fn sign(module: &Path, key: &Path, settings_schema: Option<&Path>) -> Result<(), RulesError> {
    let pair = read_key(key)?;
    let (_, key_id) = public_half(&pair, key)?;
    let digest = digest(&super::module(module, settings_schema)?);
    let signature = to_hex(pair.sign(signed_text(&digest).as_bytes()).as_ref());
    let path = beside(module);
    let signed = Signature { key_id, digest, signature };
    let text = serde_json::to_string_pretty(&signed)
        .map_err(|error| RulesError::Json { what: path.display().to_string(), error })?;
    std::fs::write(&path, text + "\n").map_err(|error| RulesError::File { path: path.clone(), error })?;
    line(format_args!("{} signed by {}: {}", signed.digest, signed.key_id, path.display()));
    Ok(())
}

/// The signature of a module: from the file that is named, or the one beside it, where there is one.
pub(super) fn signature_of(module: &Path, named: Option<&Path>) -> Result<Option<Signature>, RulesError> {
    let found = beside(module);
    let path = match named {
        Some(path) => path,
        None if found.exists() => found.as_path(),
        None => return Ok(None),
    };
    let text = super::read(path)?;
    let read = serde_json::from_slice(&text);
    read.map(Some).map_err(|error| RulesError::Json { what: path.display().to_string(), error })
}

/// `rules signing …`
pub(super) async fn signing(command: SigningCommand) -> Result<(), RulesError> {
    const PATH: &str = "/v1/rule-signing";
    let answer = match command {
        SigningCommand::List { target } => client(&target)?.get(PATH).await?,
        SigningCommand::Require { off, target } => {
            client(&target)?.put(PATH, &json!({ "required": !off })).await?
        }
        SigningCommand::Add { public_key, name, target } => {
            let body = json!({ "name": name, "public_key": public_key });
            client(&target)?.post(&format!("{PATH}/keys"), None, &body).await?
        }
        SigningCommand::Revoke { id, target } => {
            client(&target)?.delete(&format!("{PATH}/keys/{}", segment(&id))).await?
        }
    };
    show(&answer);
    Ok(())
}

fn show(signing: &Value) {
    let needed = if signing["required"] == true { "needed" } else { "not needed" };
    line(format_args!("a signature is {needed}"));
    for key in signing["keys"].as_array().into_iter().flatten() {
        let word = |field: &str| key[field].as_str().unwrap_or("-");
        let state = if key["revoked_at"].is_null() { "" } else { "  revoked" };
        line(format_args!("{}  {}  {}{state}", word("id"), word("public_key"), word("name")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_signs_and_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (key, module) = (dir.path().join("key.pem"), dir.path().join("rule.wasm"));
        keygen(&key).unwrap();
        let kept = std::fs::read(&key).unwrap();
        assert!(matches!(keygen(&key), Err(RulesError::File { .. })));
        assert_eq!(std::fs::read(&key).unwrap(), kept);
        std::fs::write(&module, b"\0asm").unwrap();
        assert!(signature_of(&module, None).unwrap().is_none());
        sign(&module, &key, None).unwrap();
        let signed = signature_of(&module, None).unwrap().unwrap();
        assert_eq!(signed.digest, digest(b"\0asm"));
        let pair = read_key(&key).unwrap();
        assert_eq!(signed.signature, to_hex(pair.sign(signed_text(&signed.digest).as_bytes()).as_ref()));
    }

    #[test]
    fn a_source_is_signed_as_it_is_uploaded_with_its_first_line_and_its_schema() {
        let dir = tempfile::tempdir().unwrap();
        let (key, source, schema) =
            (dir.path().join("key.pem"), dir.path().join("rule.js"), dir.path().join("schema.json"));
        keygen(&key).unwrap();
        std::fs::write(&source, "export const price = () => 'pass';\n").unwrap();
        std::fs::write(&schema, "{\"type\": \"object\"}\n").unwrap();
        sign(&source, &key, Some(&schema)).unwrap();
        let uploaded = "// tillstream:rule javascript-1\n// tillstream:settings-schema {\"type\": \"object\"}\n\
                        export const price = () => 'pass';\n";
        let signed = signature_of(&source, None).unwrap().unwrap();
        assert_eq!(signed.digest, digest(uploaded.as_bytes()));
        let pair = read_key(&key).unwrap();
        assert_eq!(signed.signature, to_hex(pair.sign(signed_text(&signed.digest).as_bytes()).as_ref()));
    }

    #[test]
    fn a_key_of_another_tool_is_read_and_what_is_no_key_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        // RFC 8410, section 10.3: without the public half.
        let rfc = "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC";
        std::fs::write(&path, format!("{BEGIN}\n{rfc}\n{END}\n")).unwrap();
        let pair = read_key(&path).unwrap();
        let (public_key, _) = public_half(&pair, &path).unwrap();
        assert_eq!(public_key, "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1");
        for text in ["", "key", &format!("{BEGIN}\nAAAA\n{END}\n")] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(read_key(&path), Err(RulesError::SigningKey { .. })), "{text}");
        }
    }
}
