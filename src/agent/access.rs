//! Who may ask for what: a bearer token beyond loopback, compared in constant time, and a `Host` that is ours.
//!
//! In: a request's path, its `Authorization` and `Host`. Out: allowed, or why not. Why the Host: a page on the web whose name
//! is made to point at 127.0.0.1 could else read what listens there with the reader's browser (DNS rebinding). Such a
//! page has a name; an address as Host cannot be rebound.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// A token shorter than this could be guessed over the network.
pub const TOKEN_MIN: usize = 16;
/// A token longer than this is a file that was meant for something else.
pub const TOKEN_MAX: usize = 1024;

/// What is required.
pub struct Access {
    /// The token, where one is set; required from everybody then.
    token: Option<Zeroizing<String>>,
    loopback: bool,
    /// Names that may be asked for, lower case.
    hosts: Vec<String>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No token, or another one.
    Token,
    /// A Host that is not ours.
    Host,
}

impl Access {
    /// For one who listens at `listen`.
    pub fn new(listen: SocketAddr, token: Option<Zeroizing<String>>, hosts: &[String]) -> Self {
        Self {
            token,
            loopback: listen.ip().to_canonical().is_loopback(),
            hosts: hosts.iter().map(|h| h.to_ascii_lowercase()).collect(),
        }
    }

    /// Whether a token is asked for.
    pub const fn wants_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether `path` may be had. `open` paths (metrics, health) need no token, whatever is set.
    pub fn check(&self, open: bool, authorization: Option<&[u8]>, host: Option<&str>) -> Result<(), Refusal> {
        // A scraper beyond loopback knows us by names that we do not know.
        if open && !self.loopback {
            return Ok(());
        }
        if let Some(token) = &self.token
            && !open
        {
            // The token is proof enough of who asks; its Host may be any.
            return if presented(authorization).is_some_and(|given| same(token.as_bytes(), &given)) {
                Ok(())
            } else {
                Err(Refusal::Token)
            };
        }
        if host.is_some_and(|host| self.is_ours(host)) {
            Ok(())
        } else {
            Err(Refusal::Host)
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = without_port(host);
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(name))
    }
}

/// RFC 6750 2.1: `Bearer` in any case, one space, the token. Or RFC 7617 2: `Basic`, and in base64 a name, a colon, and
/// the token as password: the only way in which a browser presents anything by itself.
fn presented(authorization: Option<&[u8]>) -> Option<Zeroizing<Vec<u8>>> {
    let given = authorization?;
    if let Some((scheme, token)) = given.split_at_checked(7)
        && scheme.eq_ignore_ascii_case(b"bearer ")
    {
        return Some(Zeroizing::new(token.to_vec()));
    }
    let (scheme, coded) = given.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = Zeroizing::new(STANDARD.decode(coded).ok()?);
    let colon = pair.iter().position(|b| *b == b':')?;
    Some(Zeroizing::new(pair.get(colon + 1..)?.to_vec()))
}

/// Takes as long wherever the two differ; only their length shows.
fn same(ours: &[u8], given: &[u8]) -> bool {
    ours.ct_eq(given).into()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // A bare IPv6 address has colons and no brackets: then there is no port.
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.contains(':') => name,
        Some((name, _)) if name.ends_with(']') => name,
        _ => host,
    }
}

/// What is wrong with a token, by its length and characters (RFC 6750's `b64token`).
pub fn check_token(token: &str) -> Result<(), String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if token.len() < TOKEN_MIN || token.len() > TOKEN_MAX {
        let length = token.len();
        Err(format!(
            "it has {length} characters: expected {TOKEN_MIN} to {TOKEN_MAX} in one line"
        ))
    } else if !token.bytes().all(fits) {
        Err("expected letters, digits and -._~+/= only".to_owned())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(listen: &str, token: Option<&str>) -> Access {
        let token = token.map(|t| Zeroizing::new(t.to_owned()));
        Access::new(listen.parse().unwrap(), token, &["Box.Internal".to_owned()])
    }

    #[test]
    fn on_loopback_a_name_that_is_not_ours_is_refused_everywhere() {
        let access = access("127.0.0.1:9986", None);
        for (host, expected) in [
            (Some("127.0.0.1:9986"), Ok(())),
            (Some("localhost"), Ok(())),
            (Some("LOCALHOST:1"), Ok(())),
            (Some("[::1]:9986"), Ok(())),
            (Some("::1"), Ok(())),
            (Some("box.internal:9986"), Ok(())),
            (Some("evil.example"), Err(Refusal::Host)),
            (Some("127.0.0.1.evil.example:9986"), Err(Refusal::Host)),
            (Some("localhost.evil.example"), Err(Refusal::Host)),
            (Some(""), Err(Refusal::Host)),
            (None, Err(Refusal::Host)),
        ] {
            for open in [false, true] {
                assert_eq!(access.check(open, None, host), expected, "{host:?}");
            }
        }
    }

    #[test]
    fn a_token_is_asked_for_but_not_for_what_is_open() {
        let token = "0123456789abcdef";
        let access = access("0.0.0.0:9986", Some(token));
        let host = Some("any.example");
        for (given, expected) in [
            (None, Err(Refusal::Token)),
            (Some("Bearer 0123456789abcdef"), Ok(())),
            (Some("bearer 0123456789abcdef"), Ok(())),
            (Some("Bearer 0123456789abcdeg"), Err(Refusal::Token)),
            (Some("Bearer 0123456789abcde"), Err(Refusal::Token)),
            (Some("Bearer "), Err(Refusal::Token)),
            (Some("Basic 0123456789abcdef"), Err(Refusal::Token)),
            // "any:0123456789abcdef", ":0123456789abcdef", "any:0123456789abcdeg", and a name alone that is the token.
            (Some("Basic YW55OjAxMjM0NTY3ODlhYmNkZWY="), Ok(())),
            (Some("basic OjAxMjM0NTY3ODlhYmNkZWY="), Ok(())),
            (Some("Basic YW55OjAxMjM0NTY3ODlhYmNkZWc="), Err(Refusal::Token)),
            (Some("Basic MDEyMzQ1Njc4OWFiY2RlZg=="), Err(Refusal::Token)),
            (Some("Basic ="), Err(Refusal::Token)),
            (Some("Basic "), Err(Refusal::Token)),
            (Some("é"), Err(Refusal::Token)),
        ] {
            let got = access.check(false, given.map(str::as_bytes), host);
            assert_eq!(got, expected, "{given:?}");
        }
        assert_eq!(access.check(true, None, host), Ok(()));
    }

    #[test]
    fn tokens_that_could_be_guessed_or_are_no_tokens_are_refused() {
        assert!(check_token("short").is_err());
        assert!(check_token(&"x".repeat(TOKEN_MAX + 1)).is_err());
        assert!(check_token("0123456789 abcdef").is_err());
        assert!(check_token("0123456789abcdef").is_ok());
    }
}
