//! Which servers a user means: `HOST`, `HOST:PORT`, an address, `[IPv6]:PORT`.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use crate::observation::nat::Family;

/// STUN's port (RFC 8489, section 18.6).
pub const PORT: u16 = 3478;

/// A server at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// As it was named.
    pub name: String,
    /// Where it is.
    pub address: SocketAddr,
}

/// Why a server is not one.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Not of the form.
    #[error("{0:?} is no STUN server: expected HOST, HOST:PORT, an address or [IPv6]:PORT")]
    Form(String),
    /// The name is not known.
    #[error("the name {name:?} cannot be resolved: {source}")]
    Unknown {
        /// Which.
        name: String,
        /// The resolver's answer.
        source: std::io::Error,
    },
    /// The name has no address.
    #[error("the name {0:?} resolves to no address")]
    Nothing(String),
}

/// The host and the port that `text` names.
fn split(text: &str) -> Option<(&str, u16)> {
    let text = text.strip_prefix("stun:").unwrap_or(text);
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            match after.strip_prefix(':') {
                Some(port) => (host, port.parse().ok()?),
                None if after.is_empty() => (host, PORT),
                None => return None,
            }
        }
        None if text.parse::<IpAddr>().is_ok() => (text, PORT),
        None => match text.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (text, PORT),
        },
    };
    let sound =
        !host.is_empty() && host.len() <= 253 && !host.contains(|c: char| c.is_whitespace() || c == '/');
    (sound && port != 0).then_some((host, port))
}

/// The port of the server that `text` names.
pub fn port(text: &str) -> Option<u16> {
    split(text).map(|(_, port)| port)
}

/// Whether `text` names an address, so that nothing has to be resolved.
pub fn is_address(text: &str) -> bool {
    split(text).is_some_and(|(host, _)| host.parse::<IpAddr>().is_ok())
}

/// Whether `text` has the form of a server.
pub fn check(text: &str) -> Result<String, String> {
    match split(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(ResolveError::Form(text.to_owned()).to_string()),
    }
}

/// The server's addresses: the first of each family.
pub fn resolve(text: &str) -> Result<Vec<Server>, ResolveError> {
    let (host, port) = split(text).ok_or_else(|| ResolveError::Form(text.to_owned()))?;
    let found = (host, port)
        .to_socket_addrs()
        .map_err(|source| ResolveError::Unknown {
            name: host.to_owned(),
            source,
        })?;
    let mut servers: Vec<Server> = Vec::new();
    for address in found {
        let family = Family::of(address.ip());
        if servers.iter().all(|s| Family::of(s.address.ip()) != family) {
            servers.push(Server {
                name: text.to_owned(),
                address,
            });
        }
    }
    if servers.is_empty() {
        return Err(ResolveError::Nothing(host.to_owned()));
    }
    servers.sort_by_key(|s| s.address.is_ipv6());
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, expected) in [
            ("192.0.2.1", Some(("192.0.2.1", 3478))),
            ("192.0.2.1:99", Some(("192.0.2.1", 99))),
            ("2001:db8::1", Some(("2001:db8::1", 3478))),
            ("[2001:db8::1]", Some(("2001:db8::1", 3478))),
            ("[2001:db8::1]:99", Some(("2001:db8::1", 99))),
            ("stun.example.org", Some(("stun.example.org", 3478))),
            ("stun:stun.example.org:3479", Some(("stun.example.org", 3479))),
            ("stun.example.org:", None),
            ("stun.example.org:0", None),
            ("stun.example.org:70000", None),
            ("[stun.example.org]:1", None),
            ("[2001:db8::1]x", None),
            ("http://x/y", None),
            ("", None),
            (":3478", None),
            ("a b", None),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
        assert_eq!(resolve("127.0.0.1").unwrap().len(), 1);
        assert!(resolve("nothing.invalid").is_err());
    }
}
