//! From what was asked for to whom to try: name servers of the system, siblings on Fly.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Aim;
use super::fly::{self, INSTANCES};
use crate::observation::fly::Internal;
use crate::observation::target::{Method, Target};
use crate::wire::resolv_conf;

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
    let listed = fly::list(servers)?;
    if !listed
        .answers
        .iter()
        .any(|answer| answer.says == Internal::Listed)
    {
        let said = listed.answers.iter().map(|answer| match &answer.says {
            Internal::Listed => answer.server.ip().to_string(),
            Internal::Unknown(what) | Internal::Failed(what) => format!("{}: {what}", answer.server.ip()),
        });
        return Err(MeshError::NotListed {
            asked: said.collect::<Vec<_>>().join("; "),
        });
    }
    let others = listed
        .machines
        .into_iter()
        .filter(|machine| Some(machine.id.as_str()) != own);
    Ok((others.map(fly::sibling).collect(), listed.unread))
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
