//! Files of keys: a wg-quick configuration, Wireshark's key log, or a key a line.
//!
//! In: text. Out: key pairs and public keys, and what was passed over. A key alone does not say whether it is private or
//! public, so it is taken as either: what it opens shows. No error and no note ever holds a line's text.

use super::wg_quick::{Config, ConfigError};
use crate::types::{PrivateKey, PublicKey};

/// Keys that are believed in one file: each costs a hash for every initiation.
pub const KEYS: usize = 1024;

/// A file's keys. It holds private keys and so has no `Debug`.
#[derive(Default)]
pub struct KeyFile {
    /// Private keys, each with the peers that its configuration lists (`None` where the file is no configuration).
    pub private: Vec<(PrivateKey, Option<Vec<PublicKey>>)>,
    /// Public keys.
    pub public: Vec<PublicKey>,
    /// Keys whose configuration says on which UDP port they listen.
    pub listening: Vec<(PublicKey, u16)>,
    /// What was passed over, by line.
    pub notes: Vec<String>,
}

/// Why a file holds no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// A wg-quick configuration with a wrong value.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A line that is nothing known.
    #[error("line {line}: expected {expected}")]
    Line {
        /// From 1.
        line: usize,
        /// What should have been there.
        expected: &'static str,
    },
    /// No key at all.
    #[error("no key in it: expected a wg-quick configuration, Wireshark's key log, or lines of base64 keys")]
    Empty,
    /// Too many.
    #[error("expected at most {KEYS} keys")]
    TooMany,
}

impl KeyFile {
    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let text = text.trim_start_matches('\u{feff}');
        let is_config = text
            .lines()
            .any(|line| line.trim().eq_ignore_ascii_case("[interface]"));
        let keys = if is_config {
            Self::of_config(text)?
        } else {
            Self::of_lines(text)?
        };
        match keys.private.len() + keys.public.len() {
            0 => Err(KeyFileError::Empty),
            n if n > 2 * KEYS => Err(KeyFileError::TooMany),
            _ => Ok(keys),
        }
    }

    fn of_config(text: &str) -> Result<Self, KeyFileError> {
        let config = Config::parse(text)?;
        let peers: Vec<PublicKey> = config.peers.iter().map(|p| p.public_key).collect();
        let own = config.interface.private_key.as_ref().map(PrivateKey::public);
        let listening = own.zip(config.interface.listen_port).into_iter().collect();
        let private = config.interface.private_key.map(|key| (key, Some(peers.clone())));
        Ok(Self {
            private: private.into_iter().collect(),
            public: peers,
            listening,
            notes: config.notes,
        })
    }

    fn of_lines(text: &str) -> Result<Self, KeyFileError> {
        let mut keys = Self::default();
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let wrong = |expected| KeyFileError::Line {
                line: number,
                expected,
            };
            // Base64 ends in `=`, so a name is told from it by what follows the first one.
            let named = line.split_once('=').filter(|(_, value)| !value.trim().is_empty());
            let Some((name, value)) = named else {
                const EITHER: &str = "a key in base64, or NAME = KEY";
                let private = PrivateKey::from_base64(line).map_err(|_| wrong(EITHER))?;
                keys.public.push(line.parse().map_err(|_| wrong(EITHER))?);
                keys.private.push((private, None));
                continue;
            };
            match name.trim() {
                "LOCAL_STATIC_PRIVATE_KEY" => {
                    let key = PrivateKey::from_base64(value)
                        .map_err(|_| wrong("a private key of 32 bytes in base64"))?;
                    keys.private.push((key, None));
                }
                "REMOTE_STATIC_PUBLIC_KEY" => {
                    keys.public.push(
                        value
                            .parse()
                            .map_err(|_| wrong("a public key of 32 bytes in base64"))?,
                    );
                }
                "LOCAL_EPHEMERAL_PRIVATE_KEY" | "PRESHARED_KEY" => {
                    keys.notes.push(format!(
                        "line {number}: {} is not needed for handshakes",
                        name.trim()
                    ));
                }
                _ => {
                    return Err(wrong(
                        "LOCAL_STATIC_PRIVATE_KEY or REMOTE_STATIC_PUBLIC_KEY before the `=`",
                    ));
                }
            }
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    const PUBLIC: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

    #[test]
    fn three_kinds_of_file() {
        let config = format!("[Interface]\r\nPrivateKey = {PRIVATE}\r\n[Peer]\r\nPublicKey = {PUBLIC}\r\n");
        let log = format!("# from wg\nLOCAL_STATIC_PRIVATE_KEY = {PRIVATE}\nPRESHARED_KEY={PUBLIC}\n");
        let lines = format!("\n{PRIVATE}  # mine\n");
        for (text, peers, public, notes) in [(config, Some(1), 1, 0), (log, None, 0, 1), (lines, None, 1, 0)]
        {
            let keys = KeyFile::parse(&text).unwrap_or_else(|e| panic!("{e}"));
            let (key, listed) = &keys.private[0];
            assert_eq!(key.public().to_string(), PUBLIC);
            assert_eq!(listed.as_ref().map(Vec::len), peers);
            assert_eq!((keys.public.len(), keys.notes.len()), (public, notes));
        }
    }

    #[test]
    fn errors_name_the_line_and_keep_the_secret() {
        for (text, words) in [
            (
                format!("\nLOCAL_STATIC_PRIVATE_KEY = {}", &PRIVATE[4..]),
                "line 2: expected a private key",
            ),
            (
                format!("{PRIVATE}\nsomething else"),
                "line 2: expected a key in base64",
            ),
            (
                format!("PRIVATE_KEY = {PRIVATE}"),
                "line 1: expected LOCAL_STATIC",
            ),
            (format!("[Interface]\nPrivateKey = {}\n", &PRIVATE[4..]), "line 2"),
            ("# nothing\n".to_owned(), "no key in it"),
        ] {
            let error = KeyFile::parse(&text)
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default();
            assert!(error.contains(words), "{error}");
            assert!(!error.contains(&PRIVATE[8..20]), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text(text in "(?s).{0,200}", named in "[A-Z_]{0,30} ?= ?[A-Za-z0-9+/=]{0,50}") {
            let _ = KeyFile::parse(&text);
            let _ = KeyFile::parse(&named);
        }
    }
}
