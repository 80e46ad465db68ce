//! What `path` and `--target` are asked to measure: one word a target.
//!
//! In: text such as `1.2.3.4`, `tcp:db.example:5432`, `https://api.example/health`, `dns:name@10.0.0.53`. Out: a
//! [`Target`]. Pure: names are resolved elsewhere.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a target is tried.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// ICMP or ICMPv6 echo.
    Icmp,
    /// A datagram to this port: an answer or a port unreachable ends the round trip.
    Udp(u16),
    /// A TCP connect to this port.
    Tcp(u16),
    /// A TCP connect and a TLS handshake.
    Tls(u16),
    /// A TCP connect (and a TLS handshake), and the first byte of an HTTP answer.
    Http {
        /// Whether with TLS.
        tls: bool,
        /// The port.
        port: u16,
        /// The path, from its slash on.
        path: String,
    },
    /// A DNS question for a name, to this server; `None` asks each of the system's.
    Dns(Option<SocketAddr>),
}

impl Method {
    /// The word for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Icmp => "icmp",
            Self::Udp(_) => "udp",
            Self::Tcp(_) => "tcp",
            Self::Tls(_) => "tls",
            Self::Http { tls: false, .. } => "http",
            Self::Http { tls: true, .. } => "https",
            Self::Dns(_) => "dns",
        }
    }

    /// The port of its destination, where it has one.
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Icmp | Self::Dns(None) => None,
            Self::Udp(port) | Self::Tcp(port) | Self::Tls(port) | Self::Http { port, .. } => Some(*port),
            Self::Dns(Some(server)) => Some(server.port()),
        }
    }
}

/// One target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// How it is tried.
    pub method: Method,
    /// Whom: a host name or an address; for DNS, the name that is asked for.
    pub host: String,
}

/// What is wrong with a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing there.
    #[error(
        "a target is empty; expected a host, or udp:, tcp:, tls:HOST:PORT, http(s)://HOST/…, dns:NAME@SERVER"
    )]
    Empty,
    /// A host that can be none.
    #[error("'{0}' is no host name and no address")]
    Host(String),
    /// The port is missing or none.
    #[error("'{0}' needs a port from 1 to 65535: {1}:HOST:PORT (an IPv6 address in brackets)")]
    Port(String, &'static str),
    /// An unknown kind.
    #[error("'{0}' is no kind of target; there are icmp, udp, tcp, tls, http, https and dns")]
    Kind(String),
    /// A DNS server that is no address.
    #[error("'{0}' is no address of a DNS server; expected dns:NAME@ADDRESS or dns:NAME@ADDRESS:PORT")]
    Server(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TargetError::Empty);
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return url(scheme, rest);
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return named(text, Method::Icmp);
        }
        let Some((kind, rest)) = text.split_once(':') else {
            return named(text, Method::Icmp);
        };
        match kind {
            "icmp" => named(rest, Method::Icmp),
            "udp" => with_port(rest, "udp", Method::Udp),
            "tcp" => with_port(rest, "tcp", Method::Tcp),
            "tls" => with_port(rest, "tls", Method::Tls),
            "dns" => dns(rest),
            _ if kind.starts_with('[') => named(text, Method::Icmp),
            _ => Err(TargetError::Kind(kind.to_owned())),
        }
    }
}

fn named(host: &str, method: Method) -> Result<Target, TargetError> {
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let is_name = !bare.is_empty() && bare.len() <= 253 && bare.chars().all(name) && !bare.starts_with('-');
    if bare.parse::<IpAddr>().is_err() && !is_name {
        return Err(TargetError::Host(host.to_owned()));
    }
    Ok(Target {
        method,
        host: bare.to_owned(),
    })
}

/// `HOST:PORT`, where an IPv6 address stands in brackets.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some(end) = text.find(']') {
        let (host, rest) = text.split_at(end + 1);
        return (host, rest.strip_prefix(':'));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

fn with_port(text: &str, kind: &'static str, method: fn(u16) -> Method) -> Result<Target, TargetError> {
    let (host, number) = split_port(text);
    let number = number
        .and_then(port)
        .ok_or_else(|| TargetError::Port(text.to_owned(), kind))?;
    named(host, method(number))
}

fn url(scheme: &str, rest: &str) -> Result<Target, TargetError> {
    let (tls, kind, default) = match scheme {
        "http" => (false, "http", 80),
        "https" => (true, "https", 443),
        other => return Err(TargetError::Kind(other.to_owned())),
    };
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    // What follows a # is the browser's own, and blanks or controls would end the request line.
    let path: String = path
        .chars()
        .take_while(|c| *c != '#')
        .filter(|c| c.is_ascii_graphic())
        .collect();
    let (host, number) = split_port(authority);
    let port = match number {
        None => default,
        Some(number) => port(number).ok_or_else(|| TargetError::Port(authority.to_owned(), kind))?,
    };
    let path = if path.is_empty() { "/".to_owned() } else { path };
    named(host, Method::Http { tls, port, path })
}

fn dns(text: &str) -> Result<Target, TargetError> {
    let (name, server) = match text.split_once('@') {
        None => (text, None),
        Some((name, server)) => (name, Some(server)),
    };
    let server = match server {
        None => None,
        Some(text) => {
            let (host, number) = split_port(text);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let address: Option<IpAddr> = host.parse().ok();
            let port = number.map_or(Some(53), port);
            match (address, port) {
                (Some(address), Some(port)) => Some(SocketAddr::new(address, port)),
                _ => return Err(TargetError::Server(text.to_owned())),
            }
        }
    };
    named(name.trim_end_matches('.'), Method::Dns(server))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match &self.method {
            Method::Icmp => f.write_str(&self.host),
            Method::Udp(port) | Method::Tcp(port) | Method::Tls(port) => {
                write!(f, "{}:{host}:{port}", self.method.name())
            }
            Method::Http { tls, port, path } => {
                let usual = *port == if *tls { 443 } else { 80 };
                write!(f, "{}://{host}", self.method.name())?;
                if !usual {
                    write!(f, ":{port}")?;
                }
                f.write_str(path)
            }
            Method::Dns(None) => write!(f, "dns:{}", self.host),
            Method::Dns(Some(server)) if server.port() == 53 => {
                write!(f, "dns:{}@{}", self.host, server.ip())
            }
            Method::Dns(Some(server)) => write!(f, "dns:{}@{server}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_reads_and_writes_back() {
        let http = |tls, port, path: &str| Method::Http {
            tls,
            port,
            path: path.to_owned(),
        };
        for (text, host, method) in [
            ("192.0.2.1", "192.0.2.1", Method::Icmp),
            ("2001:db8::1", "2001:db8::1", Method::Icmp),
            ("db.internal", "db.internal", Method::Icmp),
            ("udp:192.0.2.1:3478", "192.0.2.1", Method::Udp(3478)),
            ("tcp:[2001:db8::1]:443", "2001:db8::1", Method::Tcp(443)),
            ("tls:api.example:443", "api.example", Method::Tls(443)),
            (
                "https://api.example/health?x=1",
                "api.example",
                http(true, 443, "/health?x=1"),
            ),
            ("http://192.0.2.1:8080/", "192.0.2.1", http(false, 8080, "/")),
            ("dns:a.example", "a.example", Method::Dns(None)),
            (
                "dns:a.example@192.0.2.53",
                "a.example",
                Method::Dns(Some("192.0.2.53:53".parse().unwrap())),
            ),
            (
                "dns:a.example@[2001:db8::53]:5353",
                "a.example",
                Method::Dns(Some("[2001:db8::53]:5353".parse().unwrap())),
            ),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.host.as_str(), &target.method), (host, &method), "{text}");
            assert_eq!(target.to_string(), text);
        }
        let spelled: Target = "https://x.example".parse().unwrap();
        assert_eq!(spelled.to_string(), "https://x.example/");
        assert_eq!("icmp:[::1]".parse::<Target>().unwrap().to_string(), "::1");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, error) in [
            (" ", "empty"),
            ("tcp:host", "needs a port"),
            ("tcp:host:0", "needs a port"),
            ("udp:2001:db8::1:53", "needs a port"),
            ("ftp://x/", "no kind"),
            ("quic:x:1", "no kind"),
            ("a b", "no host name"),
            ("-c", "no host name"),
            ("https:///x", "no host name"),
            ("dns:x@nameserver", "no address of a DNS server"),
        ] {
            let said = text.parse::<Target>().unwrap_err().to_string();
            assert!(said.contains(error), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_target_that_writes_back_or_an_error(text in "\\PC{0,40}") {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
            }
        }
    }
}
