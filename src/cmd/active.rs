//! The agent's observers that ask others, as its configuration names them, and what each must be able to reach.

use std::net::SocketAddr;
use std::sync::Arc;

use super::observers::{self, ATTEMPTS};
use crate::agent::Change;
use crate::agent::confine::Reach;
use crate::config::Settings;
use crate::observation::Source;
use crate::observation::device::ConfiguredPeer;
use crate::observation::host::FlyMachine;
use crate::observation::target::Method;
use crate::observe::host;
use crate::observe::nat::{NatObserver, resolve};
use crate::observe::path::fly::Checks;
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
        (Source::Paths, paths(settings, fly(settings), netns)),
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

/// The machine whose private network is to be looked at.
fn fly(settings: &Settings) -> Option<FlyMachine> {
    if !settings.agent.active.fly_checks {
        return None;
    }
    let machine = host::this_machine();
    if machine.is_none() {
        tracing::info!("fly_checks: passed over, since this is no Fly machine");
    }
    machine
}

fn paths(settings: &Settings, fly: Option<FlyMachine>, netns: Option<&str>) -> Option<(Opener, Reach)> {
    let active = &settings.agent.active;
    if active.targets.is_empty() && fly.is_none() {
        return None;
    }
    let servers = plan::name_servers(netns);
    let (targets, every) = (active.targets.clone(), active.path_interval);
    let by_tcp = |method: &Method| matches!(method, Method::Tcp(_) | Method::Tls(_) | Method::Http { .. });
    let mut ports: Vec<u16> = targets
        .iter()
        .filter(|target| by_tcp(&target.method))
        .filter_map(|target| target.method.port())
        .collect();
    if fly.is_some() {
        // A long list of machines fits no datagram.
        ports.extend(servers.iter().map(SocketAddr::port));
        ports.sort_unstable();
        ports.dedup();
    }
    let reach = Reach {
        ports,
        resolve: targets.iter().any(|target| {
            !matches!(target.method, Method::Dns(_)) && target.host.parse::<std::net::IpAddr>().is_err()
        }),
    };
    let plan = Plan {
        aims: plan::aims(targets, &servers),
        count: ATTEMPTS,
        interval: Span::from_millis(200),
        timeout: PATIENCE,
        mtu: false,
        hops: false,
    };
    let checks = fly.map(|own| Checks { servers, own });
    let opener: Opener = Arc::new(move || {
        let observer = PathObserver::new(plan.clone())
            .steady(every, MTU_EVERY)
            .with_fly(checks.clone());
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

    #[test]
    fn fly_s_checks_reach_name_servers_by_tcp_and_other_hosts_pass_them_over() {
        let of = |text: &str| {
            let file = file::parse(Path::new("x"), &format!("[agent]\n{text}")).unwrap();
            Settings::build(&Flags::default(), file)
        };
        let settings = of("fly_checks = true\ntargets = [\"tcp:192.0.2.1:443\"]");
        let machine = FlyMachine {
            app: "web".to_owned(),
            region: "ams".to_owned(),
            machine: "148e21".to_owned(),
            group: None,
            private: None,
            public: None,
            name_servers: Vec::new(),
        };
        let (_, reach) = paths(&settings, Some(machine.clone()), None).unwrap();
        let mut ports = vec![443];
        if !plan::name_servers(None).is_empty() {
            ports.insert(0, 53);
        }
        assert_eq!(
            reach,
            Reach {
                ports,
                resolve: false
            }
        );
        let (_, reach) = paths(&settings, None, None).unwrap();
        assert_eq!(reach.ports, [443]);
        assert!(paths(&of("fly_checks = true"), None, None).is_none());
        assert!(paths(&of(""), Some(machine), None).is_some());
        assert_eq!(fly(&of("")), None);
    }
}
