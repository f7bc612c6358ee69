//! Signatures of manifests, as [minisign](https://jedisct1.github.io/minisign/) makes and reads them: Ed25519.

use ed25519_compact::{KeyPair, SecretKey, Seed};
use minisign_verify::{PublicKey, Signature};

/// The trusted comment of a signature: it holds no date, so that signing twice gives the same bytes.
const COMMENT: &str = "manifest of an edgetool bundle";
/// Minisign's mark of plain Ed25519.
const ALGORITHM: &[u8; 2] = b"Ed";
/// Bytes of a secret key: marks of three algorithms, salt and limits of the password's, key number, key, checksum.
const SECRET: usize = 158;
const NUMBER: std::ops::Range<usize> = 54..62;
const KEY: std::ops::Range<usize> = 62..126;

/// What can be wrong with keys and signatures.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The text is no key.
    #[error("not a minisign {what}: {reason}")]
    Key {
        /// `public key`, `secret key` or `signature`.
        what: &'static str,
        /// What was expected and what was found.
        reason: String,
    },
    /// The key needs a password.
    #[error("the secret key is encrypted with a password, expected one without")]
    Encrypted,
    /// The signature is not of these bytes by this key.
    #[error("the signature is not good: {0}")]
    Bad(String),
}

/// Signs `message` with the secret key in minisign's file format; the signature's text comes back.
///
/// # Errors
/// If the key is damaged or encrypted.
pub fn sign(message: &[u8], secret_key: &str) -> Result<String, SignError> {
    let bad = |reason: &str| SignError::Key { what: "secret key", reason: reason.to_owned() };
    let encoded = secret_key.lines().nth(1).ok_or_else(|| bad("it has fewer than two lines"))?;
    let bytes = base64::decode(encoded.trim()).map_err(|e| bad(&e.to_string()))?;
    if bytes.len() != SECRET || &bytes[..2] != ALGORITHM {
        return Err(bad(&format!("expected {SECRET} bytes that begin with `Ed`, got {}", bytes.len())));
    }
    if bytes[2..4] != [0, 0] {
        return Err(SignError::Encrypted);
    }
    let key = SecretKey::from_slice(&bytes[KEY]).map_err(|e| bad(&e.to_string()))?;
    let seed = Seed::from_slice(&bytes[KEY][..32]).map_err(|e| bad(&e.to_string()))?;
    if *KeyPair::from_seed(seed).pk != bytes[KEY][32..] {
        return Err(bad("its halves do not belong together"));
    }
    let own = key.sign(message, None);
    let global = key.sign([&own[..], COMMENT.as_bytes()].concat(), None);
    let own = base64::encode([ALGORITHM, &bytes[NUMBER], &own[..]].concat());
    let global = base64::encode(&global[..]);
    Ok(format!("untrusted comment: signature of manifest.json\n{own}\ntrusted comment: {COMMENT}\n{global}\n"))
}

/// Whether `signature` is of `message`, by the secret half of `public_key`: a file's text, or its second line alone.
///
/// # Errors
/// If it is not, or one of them is damaged.
pub fn verify(message: &[u8], signature: &str, public_key: &str) -> Result<(), SignError> {
    let bad = |what| move |e: minisign_verify::Error| SignError::Key { what, reason: e.to_string().to_lowercase() };
    let text = public_key.trim();
    let key = if text.contains('\n') { PublicKey::decode(text) } else { PublicKey::from_base64(text) };
    let key = key.map_err(bad("public key"))?;
    let signature = Signature::decode(signature).map_err(bad("signature"))?;
    key.verify(message, &signature, true).map_err(|e| SignError::Bad(e.to_string().to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair that minisign 0.11 made, with `minisign -G -W`.
    const PUBLIC: &str = "untrusted comment: minisign public key F00F1C5562169066\n\
        RWRmkBZiVRwP8PO1bGuBZ22vYqV/Yqbqga0zMuNnWnkW7sw0YKhoRqrB\n";
    const SECRET_KEY: &str = "untrusted comment: minisign encrypted secret key\n\
        RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAZpAWYlUcD/CbD+/l4/p2vwfrhihRV80Bx9uvxoMxpAUsV0pSZoU3S/O1bGuBZ22vYqV/Yqbqga0zMuNnWnkW7sw0YKhoRqrBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    /// What minisign 0.11 signed `hello` with, hashed first, as it does by default.
    const BY_MINISIGN: &str = "untrusted comment: c\n\
        RURmkBZiVRwP8BHDzzeVDZlMN8pojR9Gpc+ITyB+O2I17aQPYkiOuD2Fim8axtVS/U0SMul3ywUFLD5BXg2K+8AoacAuxu4N/AE=\n\
        trusted comment: t\n\
        qmnFC88FS15ITmLqKFAcbc12lig3Q/r9JO0jC6G2EeCEV3AL6AKy8HFr+bRkSug2eCd2FhIedTaGNMN9RZg1BA==\n";

    #[test]
    fn signatures_are_good_for_their_message_alone() {
        let signature = sign(b"hello", SECRET_KEY).expect("a signature");
        assert_eq!(sign(b"hello", SECRET_KEY).expect("again"), signature);
        verify(b"hello", &signature, PUBLIC).expect("it is good");
        verify(b"hello", &signature, PUBLIC.lines().nth(1).expect("a key")).expect("by the key alone");
        verify(b"hello", BY_MINISIGN, PUBLIC).expect("minisign's own");
        let error = verify(b"hallo", &signature, PUBLIC).expect_err("another message").to_string();
        assert_eq!(error, "the signature is not good: the signature verification failed");
        let forged = signature.replace("of an edgetool", "of another");
        assert!(verify(b"hello", &forged, PUBLIC).is_err(), "the trusted comment is signed too");
    }

    #[test]
    fn damaged_keys_are_refused() {
        let line = SECRET_KEY.lines().nth(1).expect("a key");
        let broken = |at: usize, value: u8| {
            let mut bytes = base64::decode(line).expect("base64");
            bytes[at] = value;
            sign(b"", &format!("comment\n{}", base64::encode(bytes))).expect_err("a damaged key").to_string()
        };
        assert_eq!(broken(2, b'S'), "the secret key is encrypted with a password, expected one without");
        assert_eq!(broken(70, 1), "not a minisign secret key: its halves do not belong together");
        assert_eq!(
            sign(b"", "x").expect_err("no key").to_string(),
            "not a minisign secret key: it has fewer than two lines"
        );
        assert!(verify(b"", "x", PUBLIC).is_err() && verify(b"", BY_MINISIGN, "x").is_err());
    }
}
