//! `wg-endpoint-stale-dns`: the endpoint's name leads elsewhere by now.

use std::net::{IpAddr, SocketAddr};

use super::view::{View, views};
use super::words::{quote, time};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::device::ConfiguredPeer;
use crate::rules::{Area, Input, Rule};

const CODE: &str = "wg-endpoint-stale-dns";

/// The rule.
pub const RULE: Rule = Rule {
    code: CODE,
    area: Area::Wireguard,
    severity: "warning, info while the session at the old address is alive",
    holds_when: "the name that is configured as the peer's endpoint resolves to other addresses than the one that the \
                 device sends to",
    meaning: "WireGuard knows addresses only: a name is resolved once, when the tunnel is set up, and never again. When \
              the peer moves (a dynamic address at home, a new machine behind the same name) the device goes on sending \
              to where it was.",
    detection: "The names come from the wg-quick file that is given by `--wg-config` and are resolved by this host's own \
                resolver; the address that is sent to, from the device. As long as the session is alive the peer is \
                there, whatever the name says, and this is an info: it hurts at the next move. With handshakes failing it \
                is `likely` the reason.\n\n\
                A name with several addresses of which one is in use is no finding. Names whose answers change with each \
                question (some CDNs) can look like this.",
    fix: "Set the new address: `wg set DEVICE peer KEY endpoint HOST:PORT` resolves the name once more. For good, let a \
          timer do it (`reresolve-dns.sh` of wireguard-tools), or give the peer an address that stays.",
    // Without a file there is no name that could have moved.
    needs: &[super::DEVICES],
    explained_by: &["wg-endpoint-loop"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    views(input)
        .filter_map(|view| {
            let (configured, now) = moved(&view)?;
            Some(finding(&view, configured, now))
        })
        .collect()
}

/// What the name is now, where that is another host than the one that is sent to.
fn moved<'a>(view: &View<'a>) -> Option<(&'a ConfiguredPeer, SocketAddr)> {
    let configured = view.configured()?;
    let endpoint = view.endpoint()?.ip().to_canonical();
    let (host, _) = configured.endpoint.as_deref()?.rsplit_once(':')?;
    let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let there = configured
        .resolved
        .iter()
        .any(|a| a.ip().to_canonical() == endpoint);
    if is_address || there {
        return None;
    }
    let same_family = |a: &&SocketAddr| a.ip().to_canonical().is_ipv4() == endpoint.is_ipv4();
    let now = configured.resolved.iter().find(same_family);
    Some((configured, *now.or(configured.resolved.first())?))
}

fn finding(view: &View<'_>, configured: &ConfiguredPeer, now: SocketAddr) -> Finding {
    let name = view.name();
    let written = configured.endpoint.as_deref().unwrap_or_default();
    let endpoint = view.endpoint().map_or_else(String::new, |e| e.to_string());
    let alive = view.live() && view.silence.failed == 0;
    let failing = view.silence.failed > 0;
    let severity = if alive { Severity::Info } else { Severity::Warning };
    // That the name leads elsewhere is certain; that this is what hurts is not.
    let mut f = view.finding(CODE, severity, Confidence::Likely);
    f.title = format!("{written} has moved, and {name} still sends to {endpoint}");
    f.summary = format!(
        "The name resolves to {} now. WireGuard resolved it when the tunnel was set up, and never does again.{}",
        list(&configured.resolved),
        match (alive, failing) {
            (true, _) => " The peer still answers at the old address.".to_owned(),
            (false, true) => format!(
                " At the old address {} went without success.",
                super::words::count(view.silence.failed, "handshake attempt")
            ),
            (false, false) => String::new(),
        }
    );
    f.impact = match alive {
        true => "None yet: at the next move, or restart, of either side the tunnel changes its address."
            .to_owned(),
        false => "What is sent goes to where the peer no longer is.".to_owned(),
    };
    f.evidence = Evidence::new()
        .with("configured_endpoint", written)
        .with(
            "resolves_to",
            configured
                .resolved
                .iter()
                .map(|a| a.ip().to_string())
                .collect::<Vec<_>>(),
        )
        .with("device_endpoint", endpoint)
        .with("unanswered_attempts", view.silence.failed)
        .with("origin", configured.origin.clone())
        .maybe(
            "last_handshake_age_seconds",
            view.handshake_age().map(|a| a.as_secs_f64()),
        );
    let age = view.handshake_age().map_or_else(String::new, |age| {
        format!(" (the last handshake is {} old)", time(age))
    });
    f.fixes = vec![Fix {
        title: format!("Send to {now}"),
        why: format!(
            "The session is renewed at once{age}; a wrong address is put right by the next packet of the peer."
        ),
        command: view.wg_set(&format!("endpoint {}", quote(written))),
        expect: Evidence::new().with("device_endpoint", now.to_string()),
        ..Fix::default()
    }];
    f
}

fn list(addresses: &[SocketAddr]) -> String {
    let mut ips: Vec<String> = addresses.iter().map(|a| a.ip().to_string()).collect();
    ips.dedup();
    let more = ips.len().saturating_sub(3);
    ips.truncate(3);
    match more {
        0 => ips.join(", "),
        n => format!("{} and {n} more", ips.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::observation::device::Implementation::Kernel;

    fn configured(endpoint: &str, resolved: &[&str]) -> ConfiguredPeer {
        ConfiguredPeer {
            origin: "wg0.conf".to_owned(),
            device: Some("wg0".to_owned()),
            local_public_key: Some(OURS),
            public_key: KEY,
            has_preshared_key: false,
            endpoint: Some(endpoint.to_owned()),
            resolved: resolved.iter().map(|a| sock(a)).collect(),
            keepalive: None,
            allowed_ips: Vec::new(),
            mtu: None,
        }
    }

    #[test]
    fn a_name_that_moved() {
        let name = "vpn.example.org:51820";
        for (what, endpoint, resolved, expected) in [
            ("moved", name, vec!["203.0.113.9:51820"], Some(Severity::Warning)),
            ("one of several", name, vec!["203.0.113.9:51820", PEER], None),
            ("not resolved", name, vec![], None),
            (
                "an address, and the device was told another",
                "203.0.113.9:51820",
                vec!["203.0.113.9:51820"],
                None,
            ),
            (
                "the same host, mapped",
                name,
                vec!["[::ffff:198.51.100.7]:51820"],
                None,
            ),
        ] {
            let mut host = Host::new(Kernel);
            host.configured(vec![configured(endpoint, &resolved)]);
            host.peer(0.0, peer()).until(1.0);
            assert_eq!(host.find(CODE).map(|f| f.severity), expected, "{what}");
        }
    }

    #[test]
    fn with_a_live_session_it_is_for_information() {
        let mut host = Host::new(Kernel);
        host.configured(vec![configured("vpn.example.org:51820", &["203.0.113.9:51820"])]);
        host.peer(0.0, peer_with(5_000, 5_000, Some(-10.0))).until(1.0);
        assert_eq!(host.find(CODE).unwrap().severity, Severity::Info);
    }

    #[test]
    fn it_explains_the_silence_at_the_old_address() {
        let mut host = Host::new(Kernel);
        host.configured(vec![configured("vpn.example.org:51820", &["203.0.113.9:51820"])]);
        host.peer(0.0, peer()).routed(0.0);
        host.call(1.0, 1).call(6.2, 2).call(11.5, 3).until(18.0);
        let (found, folded) = host.codes();
        assert_eq!((found, folded), (vec![CODE], vec!["wg-handshake-timeout"]));
        assert_eq!(host.find(CODE).unwrap().severity, Severity::Critical);
    }
}
