//! One finding of a report.

use super::Verdict;
use super::verdict::list;
use crate::lab::WgDevice;
use serde_json::Value;

/// A finding, with the report that it is from. Assertions return it, so that they chain.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The finding.
    pub value: &'a Value,
    /// Where it is from.
    pub verdict: &'a Verdict,
}

impl<'a> Found<'a> {
    /// Its code.
    pub fn code(self) -> &'a str {
        self.value["code"].as_str().unwrap_or_default()
    }

    /// Its severity.
    pub fn severity(self) -> &'a str {
        self.value["severity"].as_str().unwrap_or_default()
    }

    /// Asserts its severity and its confidence.
    #[track_caller]
    pub fn is(self, severity: &str, confidence: &str) -> Self {
        self.field("/severity", severity).field("/confidence", confidence)
    }

    /// Asserts a field, by its JSON pointer.
    #[track_caller]
    pub fn field(self, pointer: &str, expected: impl Into<Value>) -> Self {
        let (expected, found) = (expected.into(), self.at(pointer));
        assert!(
            found == &expected,
            "{pointer} is {found}, expected {expected}.{}",
            self.shown()
        );
        self
    }

    /// Asserts that it is about the only peer of a device.
    #[track_caller]
    pub fn about_peer_of(self, device: &WgDevice) -> Self {
        let key = device.peers[0].public_key.as_str();
        self.field("/subject/kind", "peer")
            .field("/subject/device", device.name())
            .field("/subject/public_key", key)
    }

    /// Asserts that it is about connections to this destination.
    #[track_caller]
    pub fn about_destination(self, proto: &str, to: std::net::SocketAddr) -> Self {
        self.field("/subject/kind", "destination")
            .field("/subject/proto", proto)
            .field("/subject/address", to.ip().to_string())
            .field("/subject/port", to.port())
    }

    /// A number in its evidence.
    #[track_caller]
    pub fn number(self, name: &str) -> f64 {
        let value = self.at(&format!("/evidence/{name}"));
        value
            .as_f64()
            .unwrap_or_else(|| panic!("evidence {name} is no number: {value}.{}", self.shown()))
    }

    /// Asserts that a number in its evidence lies in a range.
    #[track_caller]
    pub fn measures(self, name: &str, range: impl std::ops::RangeBounds<f64> + std::fmt::Debug) -> Self {
        let number = self.number(name);
        assert!(
            range.contains(&number),
            "evidence {name} is {number}, expected {range:?}.{}",
            self.shown()
        );
        self
    }

    /// Asserts a value in its evidence.
    #[track_caller]
    pub fn evidence(self, name: &str, expected: impl Into<Value>) -> Self {
        self.field(&format!("/evidence/{name}"), expected)
    }

    /// Asserts that the text of this part of it contains each of the words, whatever their case.
    #[track_caller]
    pub fn tells(self, pointer: &str, words: &[&str]) -> Self {
        let text = self.at(pointer).to_string().to_lowercase();
        for word in words {
            assert!(
                text.contains(&word.to_lowercase()),
                "{pointer} does not tell {word:?}.{}",
                self.shown()
            );
        }
        self
    }

    /// Asserts that the text of this part of it contains none of the words.
    #[track_caller]
    pub fn tells_not(self, pointer: &str, words: &[&str]) -> Self {
        let text = self.at(pointer).to_string().to_lowercase();
        for word in words {
            assert!(
                !text.contains(&word.to_lowercase()),
                "{pointer} must not tell {word:?}.{}",
                self.shown()
            );
        }
        self
    }

    /// Asserts that a fix says, in its command, its snippet or its words, each of these.
    #[track_caller]
    pub fn fix(self, words: &[&str]) -> Self {
        let fits = |fix: &Value| {
            let text = fix.to_string().to_lowercase();
            words.iter().all(|w| text.contains(&w.to_lowercase()))
        };
        assert!(
            list(&self.value["fixes"]).iter().any(fits),
            "no fix tells {words:?}.{}",
            self.shown()
        );
        self
    }

    /// Asserts that these causes, by words that stand in the phrase or in the code, are candidates.
    #[track_caller]
    pub fn candidates(self, causes: &[&str]) -> Self {
        for cause in causes {
            let fits = |c: &Value| {
                format!("{} {}", c["cause"], c["code"])
                    .to_lowercase()
                    .contains(cause)
            };
            assert!(
                list(&self.value["candidates"]).iter().any(fits),
                "no candidate is {cause:?}.{}",
                self.shown()
            );
        }
        self
    }

    /// Asserts that none of these is a candidate: the evidence rules them out.
    #[track_caller]
    pub fn ruled_out(self, causes: &[&str]) -> Self {
        for cause in causes {
            let fits = |c: &Value| {
                format!("{} {}", c["cause"], c["code"])
                    .to_lowercase()
                    .contains(cause)
            };
            assert!(
                !list(&self.value["candidates"]).iter().any(fits),
                "{cause:?} is ruled out.{}",
                self.shown()
            );
        }
        self
    }

    #[track_caller]
    fn at(self, pointer: &str) -> &'a Value {
        let missing = || panic!("`{}` has no {pointer}.{}", self.code(), self.shown());
        self.value.pointer(pointer).unwrap_or_else(missing)
    }

    /// What holds of every finding.
    #[track_caller]
    pub fn is_sound(self) {
        let text = |pointer: &str| {
            self.value
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        for pointer in [
            "/code",
            "/title",
            "/summary",
            "/impact",
            "/confidence",
            "/subject/kind",
        ] {
            assert!(
                !text(pointer).trim().is_empty(),
                "{pointer} is empty.{}",
                self.shown()
            );
        }
        assert!(
            !text("/title").ends_with('.'),
            "a title has no full stop.{}",
            self.shown()
        );
        assert!(
            text("/summary").ends_with('.'),
            "a summary is sentences.{}",
            self.shown()
        );
        let evidence = self.value["evidence"].as_object();
        assert!(
            evidence.is_some_and(|e| !e.is_empty()),
            "there is no evidence.{}",
            self.shown()
        );
        let possible = text("/confidence") == "possible";
        assert!(
            !(possible && self.severity() == "critical"),
            "a hint is never critical.{}",
            self.shown()
        );
        let fixes = list(&self.value["fixes"]);
        assert!(
            self.severity() == "info" || !fixes.is_empty(),
            "there is no fix.{}",
            self.shown()
        );
        for fix in fixes {
            for part in ["title", "why"] {
                let filled = fix[part].as_str().is_some_and(|t| !t.trim().is_empty());
                assert!(filled, "a fix has no {part}.{}", self.shown());
            }
        }
        for candidate in list(&self.value["candidates"]) {
            for part in ["cause", "settle"] {
                let filled = candidate[part].as_str().is_some_and(|t| !t.trim().is_empty());
                assert!(filled, "a candidate has no {part}.{}", self.shown());
            }
        }
        for text in texts(self.value) {
            // A public key's base64 may spell anything.
            let is_word = |c: char| !c.is_ascii_alphanumeric() && !"+/=".contains(c);
            let not_a_number = text.split(is_word).any(|word| word == "NaN");
            for leak in ["Some(", "None)", "Timestamp", "{}", "NaN", "  "] {
                assert!(
                    !(if leak == "NaN" {
                        not_a_number
                    } else {
                        text.contains(leak)
                    }),
                    "{leak:?} is a programmer's word: {text:?}.{}",
                    self.shown()
                );
            }
        }
    }

    fn shown(self) -> String {
        format!("\nthe finding: {:#}\n{}", self.value, self.verdict.everything())
    }
}

/// All texts of a value, but for commands and snippets, which may be laid out.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => {
            let prose = fields
                .iter()
                .filter(|(name, _)| !["command", "snippet"].contains(&name.as_str()));
            prose.flat_map(|(_, value)| texts(value)).collect()
        }
        _ => Vec::new(),
    }
}
