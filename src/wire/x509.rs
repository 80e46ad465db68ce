//! Whom a certificate names and who signed it (RFC 5280, section 4.1; DER as X.690 has it).
//!
//! In: a certificate. Out: two names for people, such as `CN=*.fly.dev, O=Fly`, and when it ends. Nothing is verified: it is
//! shown so that somebody sees who answered in a server's place.

use crate::time::Timestamp;

/// Attributes that are shown, by the last byte of their identifier 2.5.4.x.
const ATTRIBUTES: [(u8, &str); 3] = [(3, "CN"), (10, "O"), (11, "OU")];
/// A name is cut to this.
const LONGEST: usize = 120;

/// Tags (X.690, section 8).
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The names of the subject and of the issuer; `None` where it is no certificate.
pub fn names(certificate: &[u8]) -> Option<(String, String)> {
    let (issuer, rest) = element(issuer_on(certificate)?, SEQUENCE)?;
    // The validity stands between.
    let (subject, _) = element(skip(rest)?, SEQUENCE)?;
    Some((name(subject), name(issuer)))
}

/// Until when it is good (RFC 5280, section 4.1.2.5); `None` where it is no certificate or has no such time.
pub fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (validity, _) = element(skip(issuer_on(certificate)?)?, SEQUENCE)?;
    let (tag, digits, _) = read(skip(validity)?)?;
    let text = std::str::from_utf8(digits).ok()?;
    let (year, rest) = match tag {
        // Two digits: 50 and above are of the last century.
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: u16 = year.parse().ok()?;
            (if year >= 50 { 1900 + year } else { 2000 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let pair = |at: usize| rest.get(at..at + 2);
    let text = format!(
        "{year:04}-{}-{}T{}:{}:{}Z",
        pair(0)?,
        pair(2)?,
        pair(4)?,
        pair(6)?,
        pair(8)?
    );
    text.parse().ok()
}

/// A certificate's fields from the issuer on; the version, the serial number and the algorithm come first.
fn issuer_on(certificate: &[u8]) -> Option<&[u8]> {
    let (body, _) = element(certificate, SEQUENCE)?;
    let (mut to_be_signed, _) = element(body, SEQUENCE)?;
    if to_be_signed.first() == Some(&VERSION) {
        to_be_signed = skip(to_be_signed)?;
    }
    skip(skip(to_be_signed)?)
}

/// The parts of a name that are shown.
fn name(mut sets: &[u8]) -> String {
    let mut parts = Vec::new();
    while let Some((set, rest)) = element(sets, SET) {
        sets = rest;
        let part = element(set, SEQUENCE).and_then(|(pair, _)| {
            let (identifier, value) = element(pair, OID)?;
            let [0x55, 0x04, which] = *identifier else {
                return None;
            };
            let (_, label) = ATTRIBUTES.iter().find(|(id, _)| *id == which)?;
            let (_, text, _) = read(value)?;
            Some(format!("{label}={}", String::from_utf8_lossy(text)))
        });
        parts.extend(part);
    }
    let text: String = parts
        .join(", ")
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect();
    if text.is_empty() {
        "(no name)".to_owned()
    } else {
        text
    }
}

/// The content of an element of `tag`, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = read(bytes)?;
    (found == tag).then_some((content, rest))
}

fn skip(bytes: &[u8]) -> Option<&[u8]> {
    read(bytes).map(|(_, _, rest)| rest)
}

/// Any element: its tag, its content, and what follows it.
fn read(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let len = digits.iter().fold(0_usize, |n, d| n << 8 | usize::from(*d));
            (len, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let mut out = vec![tag];
        match u8::try_from(content.len()) {
            Ok(len @ 0..=127) => out.push(len),
            _ => {
                out.push(0x82);
                out.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
            }
        }
        out.extend(content);
        out
    }

    fn rdn(which: u8, text: &str) -> Vec<u8> {
        let identifier = der(OID, &[&[0x55, 0x04, which]]);
        der(
            SET,
            &[&der(SEQUENCE, &[&identifier, &der(0x0c, &[text.as_bytes()])])],
        )
    }

    #[test]
    fn the_end_is_read_in_both_forms() {
        let ending = |tag: u8, text: &str| {
            let time = der(tag, &[text.as_bytes()]);
            let validity = der(SEQUENCE, &[&der(UTC_TIME, &[b"200101000000Z"]), &time]);
            let name = der(SEQUENCE, &[&rdn(3, "a")]);
            let tbs = der(
                SEQUENCE,
                &[&[2, 1, 9], &der(SEQUENCE, &[]), &name, &validity, &name],
            );
            not_after(&der(SEQUENCE, &[&tbs])).map(|at| at.to_string())
        };
        let told = |text: &str| Some(text.parse::<Timestamp>().unwrap().to_string());
        assert_eq!(ending(UTC_TIME, "200301120500Z"), told("2020-03-01T12:05:00Z"));
        assert_eq!(ending(UTC_TIME, "991231235959Z"), told("1999-12-31T23:59:59Z"));
        assert_eq!(
            ending(GENERALIZED_TIME, "20511231235959Z"),
            told("2051-12-31T23:59:59Z")
        );
        for (tag, text) in [
            (UTC_TIME, "201301000000Z"),
            (UTC_TIME, "2001"),
            (UTC_TIME, "é0301120500Z"),
            (GENERALIZED_TIME, ""),
            (0x0c, "200301120500Z"),
        ] {
            assert_eq!(ending(tag, text), None, "{text}");
        }
    }

    #[test]
    fn subject_and_issuer() {
        let issuer = der(
            SEQUENCE,
            &[
                &rdn(6, "NL"),
                &rdn(10, "Office Proxy"),
                &rdn(3, "Inspection\u{7} CA"),
            ],
        );
        let subject = der(SEQUENCE, &[&rdn(3, "ams1.gateway.6pn.dev")]);
        let version = der(VERSION, &[&[2, 1, 2]]);
        let tbs = der(
            SEQUENCE,
            &[
                &version,
                &[2, 1, 9],
                &der(SEQUENCE, &[]),
                &issuer,
                &der(SEQUENCE, &[]),
                &subject,
                &[0; 200],
            ],
        );
        let certificate = der(SEQUENCE, &[&tbs, &der(SEQUENCE, &[])]);
        let (subject, issuer) = names(&certificate).unwrap();
        assert_eq!(subject, "CN=ams1.gateway.6pn.dev");
        assert_eq!(issuer, "O=Office Proxy, CN=Inspection CA");
        assert_eq!(names(&certificate[..40]), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = names(&bytes);
        }
    }
}
