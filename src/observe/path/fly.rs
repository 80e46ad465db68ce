//! A Fly machine's private network: which of the system's name servers know it, and the machines that are in it.
//!
//! In: name servers. Out: what each says of `_instances.internal`, and the machines, as aims. Asks the system's own name
//! servers only.

use std::net::{IpAddr, SocketAddr};

use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::{Aim, datagram};
use crate::observation::fly::{FlyNet, Internal, ResolverAnswer};
use crate::observation::host::FlyMachine;
use crate::observation::path::{Failure, Sibling};
use crate::observation::target::{Method, Target};
use crate::time::Span;
use crate::wire::dns::Kind;
use crate::wire::fly_instances::{self, Instance};

/// The name under which Fly's resolver lists the organisation's machines.
pub(super) const INSTANCES: &str = "_instances.internal";

/// How long a resolver may take for it.
const PATIENCE: Span = Span::from_secs(3);

/// Machines that are measured beside the other observers: enough to tell one machine's fault from the network's.
const MAX_SIBLINGS: usize = 16;

/// The list as the first server gives that has it.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// What each server says.
    pub answers: Vec<ResolverAnswer>,
    /// The started machines.
    pub machines: Vec<Instance>,
    /// Entries that could not be read.
    pub unread: usize,
}

/// Asks every server at once.
pub(super) fn list(servers: &[SocketAddr]) -> std::io::Result<Listed> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let mut told = runtime.block_on(async {
        let mut asked = JoinSet::new();
        for (order, server) in servers.iter().copied().enumerate() {
            asked.spawn(async move {
                let answer = tokio::time::timeout(PATIENCE, datagram::ask(server, INSTANCES, Kind::Txt));
                (order, server, answer.await.unwrap_or(Err(Failure::Timeout)))
            });
        }
        asked.join_all().await
    });
    told.sort_by_key(|(order, _, _)| *order);
    let mut listed = Listed::default();
    for (_, server, answer) in told {
        let says = match answer {
            Ok((answer, _)) if !answer.texts.is_empty() => {
                if listed.machines.is_empty() {
                    let texts = answer.texts.iter().map(String::as_str);
                    (listed.machines, listed.unread) = fly_instances::instances(texts);
                }
                Internal::Listed
            }
            // Cut short, and not to be had over TCP either: it has records.
            Ok((answer, _)) if answer.truncated => Internal::Listed,
            Ok((answer, _)) if answer.useful => Internal::Unknown(answer.code),
            Ok((answer, _)) => Internal::Failed(answer.code),
            Err(failure) => Internal::Failed(failure.words()),
        };
        listed.answers.push(ResolverAnswer { server, says });
    }
    Ok(listed)
}

/// A machine, as the target of an ICMP echo.
pub(super) fn sibling(machine: Instance) -> Aim {
    Aim {
        sibling: Some(Sibling {
            app: machine.app,
            region: machine.region,
            machine: machine.id,
        }),
        ..Aim::from(Target {
            method: Method::Icmp,
            host: IpAddr::V6(machine.address).to_string(),
        })
    }
}

/// What a machine looks at of its private network.
#[derive(Clone, Debug)]
pub struct Checks {
    /// The system's name servers.
    pub servers: Vec<SocketAddr>,
    /// The machine itself.
    pub own: FlyMachine,
}

impl Checks {
    /// Whom to measure, and what the name servers say: each server with the machine's own name, and other machines with
    /// the largest packet that reaches them.
    pub fn look(&self) -> std::io::Result<(Vec<Aim>, FlyNet)> {
        let listed = list(&self.servers)?;
        let own = format!("{}.vm.{}.internal", self.own.machine, self.own.app);
        let mut aims: Vec<Aim> = self
            .servers
            .iter()
            .map(|server| Aim {
                system_resolver: true,
                ..Aim::from(Target {
                    method: Method::Dns(Some(*server)),
                    host: own.clone(),
                })
            })
            .collect();
        let others: Vec<Instance> = listed
            .machines
            .into_iter()
            .filter(|machine| machine.id != self.own.machine && Some(machine.address) != self.own.private)
            .collect();
        let machines = others.len();
        let chosen = spread(others);
        let measured = chosen.len();
        aims.extend(chosen.into_iter().map(|machine| Aim {
            mtu: true,
            ..sibling(machine)
        }));
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let facts = FlyNet {
            answers: listed.answers,
            machines: count(machines),
            measured: count(measured),
            unread: count(listed.unread),
        };
        Ok((aims, facts))
    }
}

/// At most [`MAX_SIBLINGS`], of as many regions as there are.
fn spread(machines: Vec<Instance>) -> Vec<Instance> {
    let mut seen: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    let mut ranked: Vec<(usize, Instance)> = machines
        .into_iter()
        .map(|machine| {
            let before = seen.entry(machine.region.clone()).or_default();
            *before += 1;
            (*before, machine)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked
        .into_iter()
        .take(MAX_SIBLINGS)
        .map(|(_, machine)| machine)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_region_has_its_turn() {
        let machine = |n: usize, region: &str| Instance {
            id: format!("m{n}"),
            app: "web".to_owned(),
            address: std::net::Ipv6Addr::LOCALHOST,
            region: region.to_owned(),
        };
        let mut all: Vec<Instance> = (0..40).map(|n| machine(n, "ams")).collect();
        all.push(machine(40, "gru"));
        all.push(machine(41, "nrt"));
        let chosen = spread(all);
        assert_eq!(chosen.len(), MAX_SIBLINGS);
        for region in ["gru", "nrt"] {
            assert!(chosen.iter().any(|m| m.region == region), "{region}");
        }
    }
}
