//! From what was asked for to whom to try: name servers of the system, siblings on Fly.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use tokio::runtime::Builder;

use super::{Aim, datagram};
use crate::observation::path::{Failure, Sibling};
use crate::observation::target::{Method, Target};
use crate::time::Span;
use crate::wire::dns::Kind;
use crate::wire::fly_instances::{self, Instance};
use crate::wire::resolv_conf;

/// The name under which Fly's resolver lists the organisation's machines.
const INSTANCES: &str = "_instances.internal";

/// How long Fly's resolver may take for it.
const PATIENCE: Span = Span::from_secs(3);

/// The system's name servers; `netns` is the name of another network namespace, which may have a resolv.conf of its own
/// (ip-netns(8)).
pub fn name_servers(netns: Option<&str>) -> Vec<SocketAddr> {
    let own = netns
        .filter(|name| !name.contains('/'))
        .map(|name| PathBuf::from(format!("/etc/netns/{name}/resolv.conf")));
    let text = own
        .and_then(|path| std::fs::read_to_string(path).ok())
        .or_else(|| std::fs::read_to_string(Path::new("/etc/resolv.conf")).ok())
        .unwrap_or_default();
    let servers = resolv_conf::name_servers(&text);
    servers.into_iter().map(|ip| SocketAddr::new(ip, 53)).collect()
}

/// The aims for `targets`: a DNS name without a server is asked of each in `servers`.
pub fn aims(targets: Vec<Target>, servers: &[SocketAddr]) -> Vec<Aim> {
    let mut aims = Vec::with_capacity(targets.len());
    for target in targets {
        match target.method {
            Method::Dns(None) => aims.extend(servers.iter().map(|server| Aim {
                system_resolver: true,
                ..Aim::from(Target {
                    method: Method::Dns(Some(*server)),
                    host: target.host.clone(),
                })
            })),
            _ => aims.push(Aim::from(target)),
        }
    }
    aims
}

/// Why Fly's machines could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// No server told.
    #[error(
        "no name server lists {INSTANCES} (asked {asked}): this is no Fly machine, or its resolver (fdaa::3) is not reached"
    )]
    NotListed {
        /// Which, and what each said.
        asked: String,
    },
    /// The runtime.
    #[error("cannot ask for {INSTANCES}: {0}")]
    Runtime(#[from] std::io::Error),
}

/// The started machines of the organisation less `own`, as targets of an ICMP echo; and how many entries of the list could not
/// be read.
pub fn mesh(servers: &[SocketAddr], own: Option<&str>) -> Result<(Vec<Aim>, usize), MeshError> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let mut asked = Vec::new();
    for server in servers {
        let answer = runtime.block_on(async {
            tokio::time::timeout(PATIENCE, datagram::ask(*server, INSTANCES, Kind::Txt))
                .await
                .unwrap_or(Err(Failure::Timeout))
        });
        match answer {
            Ok((answer, _)) if !answer.texts.is_empty() => {
                let (machines, unread) = fly_instances::instances(answer.texts.iter().map(String::as_str));
                let others = machines
                    .into_iter()
                    .filter(|machine| Some(machine.id.as_str()) != own);
                return Ok((others.map(sibling).collect(), unread));
            }
            Ok((answer, _)) => asked.push(format!("{}: {}", server.ip(), answer.code)),
            Err(failure) => asked.push(format!("{}: {failure:?}", server.ip())),
        }
    }
    Err(MeshError::NotListed {
        asked: asked.join("; "),
    })
}

fn sibling(machine: Instance) -> Aim {
    Aim {
        target: Target {
            method: Method::Icmp,
            host: IpAddr::V6(machine.address).to_string(),
        },
        system_resolver: false,
        sibling: Some(Sibling {
            app: machine.app,
            region: machine.region,
            machine: machine.id,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_of_every_server_and_a_named_one_of_itself() {
        let servers = ["10.0.0.1:53".parse().unwrap(), "[fdaa::3]:53".parse().unwrap()];
        let targets = ["dns:a.example", "dns:a.example@192.0.2.1", "192.0.2.9"];
        let aims = aims(targets.map(|t| t.parse().unwrap()).to_vec(), &servers);
        let told: Vec<(String, bool)> = aims
            .iter()
            .map(|a| (a.target.to_string(), a.system_resolver))
            .collect();
        let expected = [
            ("dns:a.example@10.0.0.1", true),
            ("dns:a.example@fdaa::3", true),
            ("dns:a.example@192.0.2.1", false),
            ("192.0.2.9", false),
        ];
        assert_eq!(told, expected.map(|(t, s)| (t.to_owned(), s)));
    }
}
