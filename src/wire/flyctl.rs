//! flyctl's WireGuard state, as it stands in `~/.fly/config.yml`.
//!
//! In: the file's text. Out: the gateways that it names with this side's keys, and notes on what is missing or was passed
//! over; what is incomplete costs no more than itself. Read is the YAML that flyctl writes (nested maps of scalars, in block
//! style), not YAML as a whole. Field names are those of flyctl's internal/wireguard and internal/config. No note and no
//! error holds a value that could be a secret: the file is full of tokens.

use std::net::IpAddr;

use super::wg_quick::Endpoint;
use crate::types::{PrivateKey, PublicKey};

/// flyctl hard-codes the gateways' port (wg/state.go).
pub const PORT: u16 = 51_820;
/// The user-mode tunnel's MTU (wireguard-go's default).
pub const MTU: u32 = 1420;
/// Organisations that are read.
pub const MAX_PEERS: usize = 1024;
/// Notes that are kept.
const MAX_NOTES: usize = 32;
/// The deepest level is 4: state, organisation, peer, field.
const MAX_DEPTH: usize = 16;

/// The state. It holds private keys and so has no `Debug`.
pub struct FlyState {
    /// Whether flyctl would use WebSockets; `None` where the file does not say, which flyctl takes for yes.
    pub websockets: Option<bool>,
    /// The peers that are whole.
    pub peers: Vec<FlyPeer>,
    /// What is missing, by line.
    pub notes: Vec<String>,
}

/// A peer at a gateway. It holds a private key and so has no `Debug`.
pub struct FlyPeer {
    /// The line of its organisation.
    pub line: usize,
    /// The organisation's slug, or `slug-network`.
    pub org: String,
    /// The gateway's region.
    pub region: Option<String>,
    /// This side's private key.
    pub private_key: PrivateKey,
    /// The gateway's public key.
    pub gateway_key: PublicKey,
    /// The gateway.
    pub endpoint: Endpoint,
    /// This side's address in the private network.
    pub address: Option<IpAddr>,
}

/// Why there is nothing to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlyError {
    /// No state at all.
    #[error(
        "no wire_guard_state in it: flyctl has made no WireGuard peer yet (`fly proxy` or `fly ssh console` makes one)"
    )]
    NoState,
    /// No organisation below it.
    #[error("line {line}: wire_guard_state: expected an organisation below it, got none")]
    Empty {
        /// Its line.
        line: usize,
    },
    /// Indented by tabs: no YAML.
    #[error("line {line}: expected spaces for indentation, got a tab")]
    Tab {
        /// Its line.
        line: usize,
    },
}

/// What an organisation's map says so far.
#[derive(Default)]
struct Draft {
    line: usize,
    org: String,
    region: Option<String>,
    private: Option<Key>,
    public: Option<Key>,
    endpoint: Option<String>,
    gateway: Option<Key>,
    address: Option<String>,
}

/// A key field: read, or wrong.
type Key = Result<PrivateKey, usize>;

impl FlyState {
    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self, FlyError> {
        let mut reader = Reader {
            state: Self {
                websockets: None,
                peers: Vec::new(),
                notes: Vec::new(),
            },
            state_line: None,
            draft: None,
        };
        // The keys above the current line, each with its indentation.
        let mut path: Vec<(usize, &str)> = Vec::new();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let number = number + 1;
            let body = line.trim_start_matches(' ');
            let indent = line.len() - body.len();
            let body = body.trim_end();
            if body.is_empty() || body.starts_with('#') || body == "---" {
                continue;
            }
            if body.starts_with('\t') {
                return Err(FlyError::Tab { line: number });
            }
            while path.last().is_some_and(|(at, _)| *at >= indent) {
                path.pop();
            }
            let Some((key, value)) = split(body) else { continue };
            if path.len() < MAX_DEPTH {
                path.push((indent, key));
                let names: Vec<&str> = path.iter().map(|(_, name)| *name).collect();
                reader.entry(number, &names, value);
            }
        }
        reader.finish()
    }
}

/// `key: value` or `key:`; the value without quotes and comment.
fn split(body: &str) -> Option<(&str, &str)> {
    let (key, value) = body.split_once(':')?;
    if !(value.is_empty() || value.starts_with(' ')) {
        return None;
    }
    let value = value.trim();
    let value = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value.get(1..)?.split(quote).next().unwrap_or_default(),
        _ => value.split(" #").next().unwrap_or_default().trim(),
    };
    Some((key.trim().trim_matches(['"', '\'']), value))
}

struct Reader {
    state: FlyState,
    state_line: Option<usize>,
    draft: Option<Draft>,
}

impl Reader {
    fn entry(&mut self, line: usize, path: &[&str], value: &str) {
        match path {
            ["wire_guard_websockets"] => match value.to_ascii_lowercase().as_str() {
                "true" => self.state.websockets = Some(true),
                "false" => self.state.websockets = Some(false),
                _ => self.note(format!(
                    "line {line}: wire_guard_websockets: expected true or false"
                )),
            },
            ["wire_guard_state"] => self.state_line = Some(line),
            ["wire_guard_state", org] => {
                self.end_draft();
                self.draft = Some(Draft {
                    line,
                    org: (*org).to_owned(),
                    ..Draft::default()
                });
            }
            ["wire_guard_state", _, rest @ ..] => self.field(line, rest, value),
            _ => {}
        }
    }

    fn field(&mut self, line: usize, path: &[&str], value: &str) {
        let Some(draft) = &mut self.draft else { return };
        let key = || PrivateKey::from_base64(value).map_err(|_| line);
        let text = || Some(value.to_owned()).filter(|v| !v.is_empty());
        // viper matches names without regard to case.
        let names: Vec<String> = path.iter().map(|n| n.to_ascii_lowercase()).collect();
        match names.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["region"] => draft.region = text(),
            ["localprivate"] => draft.private = Some(key()),
            ["localpublic"] => draft.public = Some(key()),
            ["peer", "peerip"] => draft.address = text(),
            ["peer", "endpointip"] => draft.endpoint = text(),
            ["peer", "pubkey"] => draft.gateway = Some(key()),
            _ => {}
        }
    }

    fn end_draft(&mut self) {
        let Some(draft) = self.draft.take() else { return };
        let place = format!("line {}: wire_guard_state.{}", draft.line, shown(&draft.org));
        if self.state.peers.len() >= MAX_PEERS {
            self.note(format!("{place}: passed over, beyond the first {MAX_PEERS}"));
            return;
        }
        match draft.peer() {
            Ok((peer, doubt)) => {
                if let Some(doubt) = doubt {
                    self.note(format!("{place}: {doubt}"));
                }
                self.state.peers.push(peer);
            }
            Err(lacks) => self.note(format!("{place}: passed over: {lacks}")),
        }
    }

    fn note(&mut self, note: String) {
        if self.state.notes.len() < MAX_NOTES {
            self.state.notes.push(note);
        }
    }

    fn finish(mut self) -> Result<FlyState, FlyError> {
        self.end_draft();
        let line = self.state_line.ok_or(FlyError::NoState)?;
        if self.state.peers.is_empty() && self.state.notes.is_empty() {
            return Err(FlyError::Empty { line });
        }
        Ok(self.state)
    }
}

impl Draft {
    /// The peer and what is doubtful about it; or what it lacks.
    fn peer(self) -> Result<(FlyPeer, Option<String>), String> {
        let key = |key: Option<Key>, name: &str| match key {
            None => Err(format!("{name} is missing")),
            Some(Err(line)) => Err(format!(
                "line {line}: {name}: expected 44 characters of base64 that hold 32 bytes"
            )),
            Some(Ok(key)) => Ok(key),
        };
        let mut private = key(self.private, "localprivate")?;
        let gateway = key(self.gateway, "peer.pubkey")?;
        let host = self.endpoint.ok_or("peer.endpointip is missing")?;
        let literal = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
        let written = if literal {
            format!("[{host}]:{PORT}")
        } else {
            format!("{host}:{PORT}")
        };
        let endpoint: Endpoint = written
            .parse()
            .map_err(|()| "peer.endpointip: expected a host name or an address".to_owned())?;
        let mut doubts = Vec::new();
        match self.public {
            Some(Ok(public)) if private.public().0 == *public.expose() => {}
            // Its JSON tags are swapped, so a file written from JSON has the two the other way round.
            Some(Ok(public)) if public.public().0 == *private.expose() => {
                doubts.push("localprivate and localpublic are swapped".to_owned());
                private = public;
            }
            Some(Ok(_)) => doubts.push("localpublic is not the public key of localprivate".to_owned()),
            Some(Err(line)) => doubts.push(format!("line {line}: localpublic: expected a key")),
            None => {}
        }
        let address = self.address.as_deref().map(str::parse);
        if matches!(address, None | Some(Err(_))) {
            doubts.push("no usable peer.peerip: nothing can be asked through the tunnel".to_owned());
        }
        let peer = FlyPeer {
            line: self.line,
            org: self.org,
            region: self.region,
            private_key: private,
            gateway_key: PublicKey(*gateway.expose()),
            endpoint,
            address: address.and_then(Result::ok),
        };
        Ok((peer, (!doubts.is_empty()).then(|| doubts.join("; "))))
    }
}

/// A name from the file; what is long may be something else.
fn shown(name: &str) -> &str {
    if name.len() <= 40 { name } else { "…" }
}

impl FlyPeer {
    /// The organisation's network: the first 48 bits of [`FlyPeer::address`].
    pub fn resolver(&self) -> Option<IpAddr> {
        match self.address? {
            IpAddr::V6(v6) => {
                let [a, b, c, ..] = v6.segments();
                Some(IpAddr::from([a, b, c, 0, 0, 0, 0, 3]))
            }
            IpAddr::V4(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;

    use super::*;

    fn base64(bytes: [u8; 32]) -> String {
        base64::engine::general_purpose::STANDARD.encode(bytes)
    }

    fn file(private: &str, public: &str) -> String {
        let gateway = base64([9; 32]);
        format!(
            "access_token: fm2_secret,fm2_other\nlast_login: 2026-01-01T00:00:00Z\napp_secrets_minvers: {{}}\n\
             wire_guard_websockets: false\nwire_guard_state:\n    personal:\n        org: personal\n        \
             name: interactive-host-me-example-com-01H\n        region: ams\n        localpublic: {public}\n        \
             localprivate: {private}\n        dns: \"\"\n        peer:\n            peerip: fdaa:0:18:a7b:d6b:0:a:102\n            \
             endpointip: ams1.gateway.6pn.dev\n            pubkey: {gateway}\n"
        )
    }

    fn parse(text: &str) -> FlyState {
        FlyState::parse(text).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn the_state_as_flyctl_writes_it() {
        let key = PrivateKey::from_bytes([7; 32]);
        let state = parse(&file(&base64([7; 32]), &base64(key.public().0)));
        assert_eq!(state.notes, Vec::<String>::new());
        assert_eq!(state.websockets, Some(false));
        let [peer] = state.peers.as_slice() else {
            panic!("one peer")
        };
        assert_eq!(peer.private_key.public(), key.public());
        assert_eq!(peer.gateway_key, PublicKey([9; 32]));
        assert_eq!(peer.endpoint.to_string(), "ams1.gateway.6pn.dev:51820");
        assert_eq!(peer.resolver(), "fdaa:0:18::3".parse().ok());
        assert_eq!((peer.line, peer.org.as_str()), (6, "personal"));
    }

    #[test]
    fn what_is_missing_is_named_and_the_rest_is_read() {
        let whole = file(
            &base64([7; 32]),
            &base64(PrivateKey::from_bytes([7; 32]).public().0),
        );
        for (gone, note) in [
            (
                "localprivate",
                "line 6: wire_guard_state.personal: passed over: localprivate is missing",
            ),
            (
                "endpointip",
                "line 6: wire_guard_state.personal: passed over: peer.endpointip is missing",
            ),
            (
                "pubkey",
                "line 6: wire_guard_state.personal: passed over: peer.pubkey is missing",
            ),
            (
                "peerip",
                "line 6: wire_guard_state.personal: no usable peer.peerip: nothing can be asked through the tunnel",
            ),
        ] {
            let mut text: Vec<&str> = whole.lines().filter(|l| !l.contains(gone)).collect();
            let other = whole.replace("personal", "company");
            let other: Vec<&str> = other.lines().skip(5).collect();
            text.extend(other);
            let state = parse(&text.join("\r\n"));
            assert_eq!(state.notes, [note], "{gone}");
            assert!(state.peers.iter().any(|p| p.org == "company"));
        }
        assert!(matches!(
            FlyState::parse("access_token: x"),
            Err(FlyError::NoState)
        ));
        assert!(matches!(
            FlyState::parse("wire_guard_state: {}"),
            Err(FlyError::Empty { line: 1 })
        ));
        assert!(matches!(
            FlyState::parse("wire_guard_state:\n\tpersonal:"),
            Err(FlyError::Tab { line: 2 })
        ));
    }

    #[test]
    fn swapped_and_wrong_keys() {
        let public = base64(PrivateKey::from_bytes([7; 32]).public().0);
        let state = parse(&file(&public, &base64([7; 32])));
        assert!(state.notes[0].ends_with("localprivate and localpublic are swapped"));
        assert_eq!(state.peers[0].private_key.expose(), &[7; 32]);
        let state = parse(&file("tooshort", &public));
        assert!(state.peers.is_empty());
        assert_eq!(
            state.notes,
            [
                "line 6: wire_guard_state.personal: passed over: line 11: localprivate: expected 44 characters of base64 that hold \
              32 bytes"
            ]
        );
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_note_tells_a_secret(text in "([ ]{0,8}(wire_guard_state|personal|peer|localprivate|pubkey|x)?:?[ ]?[A-Za-z0-9+/=\"':#]{0,50}\n){0,30}") {
            if let Ok(state) = FlyState::parse(&text) {
                for note in &state.notes {
                    prop_assert!(note.len() < 300);
                }
            }
        }
    }
}
