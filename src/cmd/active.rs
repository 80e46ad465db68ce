//! The agent's observers that ask others, as its configuration names them, and what each must be able to reach.

use std::sync::Arc;

use super::observers::{self, ATTEMPTS};
use crate::agent::Change;
use crate::agent::confine::Reach;
use crate::config::Settings;
use crate::observation::Source;
use crate::observation::device::ConfiguredPeer;
use crate::observation::target::Method;
use crate::observe::nat::{NatObserver, resolve};
use crate::observe::path::observer::PathObserver;
use crate::observe::path::{Plan, plan};
use crate::observe::supervisor::Opener;
use crate::time::Span;

/// The largest packet is searched for once in so many rounds.
const MTU_EVERY: u32 = 15;

/// An attempt takes so long at most.
const PATIENCE: Span = Span::from_secs(1);

/// Every observer that depends on the configuration; `None` for one that is not to run.
pub fn changes(settings: &Settings, configured: Vec<ConfiguredPeer>, netns: Option<&str>) -> Vec<Change> {
    let profile = settings.agent.active.nat_profile.clone();
    let config = (!configured.is_empty() || profile.is_some()).then(|| {
        let resolve = !configured.is_empty();
        let opener = observers::named_with(configured, profile);
        let ports = Vec::new();
        (opener, Reach { ports, resolve })
    });
    [
        (Source::Config, config),
        (Source::Nat, nat(settings)),
        (Source::Paths, paths(settings, netns)),
    ]
    .map(|(source, wanted)| {
        let (opener, reach) = match wanted {
            Some((opener, reach)) => (Some(opener), reach),
            None => (None, Reach::default()),
        };
        Change {
            source,
            opener,
            reach,
        }
    })
    .into()
}

fn nat(settings: &Settings) -> Option<(Opener, Reach)> {
    let active = &settings.agent.active;
    if active.stun.is_empty() {
        return None;
    }
    let (names, every, lifetime) = (active.stun.clone(), active.nat_interval, active.nat_lifetime);
    let reach = Reach {
        ports: names.iter().filter_map(|name| resolve::port(name)).collect(),
        resolve: names.iter().any(|name| !resolve::is_address(name)),
    };
    let opener: Opener = Arc::new(move || Ok(Box::new(NatObserver::steady(&names, every, lifetime))));
    Some((opener, reach))
}

fn paths(settings: &Settings, netns: Option<&str>) -> Option<(Opener, Reach)> {
    let active = &settings.agent.active;
    if active.targets.is_empty() {
        return None;
    }
    let (targets, every) = (active.targets.clone(), active.path_interval);
    let by_tcp = |method: &Method| matches!(method, Method::Tcp(_) | Method::Tls(_) | Method::Http { .. });
    let reach = Reach {
        ports: targets
            .iter()
            .filter(|target| by_tcp(&target.method))
            .filter_map(|target| target.method.port())
            .collect(),
        resolve: targets.iter().any(|target| {
            !matches!(target.method, Method::Dns(_)) && target.host.parse::<std::net::IpAddr>().is_err()
        }),
    };
    let plan = Plan {
        aims: plan::aims(targets, &plan::name_servers(netns)),
        count: ATTEMPTS,
        interval: Span::from_millis(200),
        timeout: PATIENCE,
        mtu: false,
        hops: false,
    };
    let opener: Opener = Arc::new(move || {
        let observer = PathObserver::new(plan.clone()).steady(every, MTU_EVERY);
        Ok(Box::new(observer))
    });
    Some((opener, reach))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, file};
    use std::path::Path;

    fn reaches(text: &str) -> Vec<(Source, bool, Reach)> {
        let file = file::parse(Path::new("x"), &format!("[agent]\n{text}")).unwrap();
        let settings = Settings::build(&Flags::default(), file);
        let changes = changes(&settings, Vec::new(), None);
        changes
            .into_iter()
            .map(|c| (c.source, c.opener.is_some(), c.reach))
            .collect()
    }

    #[test]
    fn each_may_reach_what_was_named_and_no_more() {
        let none = |source| (source, false, Reach::default());
        let reach = |ports: &[u16], resolve| Reach {
            ports: ports.to_vec(),
            resolve,
        };
        assert_eq!(
            reaches(""),
            [none(Source::Config), none(Source::Nat), none(Source::Paths)]
        );
        assert_eq!(
            reaches("nat_profile = \"64\"")[0],
            (Source::Config, true, Reach::default())
        );
        let found = reaches(
            "stun = [\"192.0.2.1\", \"stun.example.org:99\"]\ntargets = [\"192.0.2.1\", \"udp:192.0.2.1:7\"]",
        );
        assert_eq!(found[1], (Source::Nat, true, reach(&[3478, 99], true)));
        assert_eq!(found[2], (Source::Paths, true, Reach::default()));
        let found = reaches("targets = [\"https://a.example/\", \"tcp:192.0.2.1:5432\", \"dns:b.example\"]");
        assert_eq!(found[2], (Source::Paths, true, reach(&[443, 5432], true)));
        let found = reaches("targets = [\"dns:b.example\", \"tls:192.0.2.1:8443\"]");
        assert_eq!(found[2].2, reach(&[8443], false));
    }
}
