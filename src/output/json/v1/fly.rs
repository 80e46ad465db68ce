//! What concerns Fly: the machine, and the fly.toml that was read.

use schemars::JsonSchema;
use serde::Serialize;

use crate::observation::fly_toml as model;
use crate::observation::host;

/// A Fly machine.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FlyMachine {
    /// Its app.
    pub app: String,
    /// Its region.
    pub region: String,
    /// Its id.
    pub machine: String,
    /// Its process group, where the environment says it.
    pub process_group: Option<String>,
    /// Its address in the organisation's private network (6PN).
    pub private_ip: Option<String>,
    /// The address that it leaves by, as the environment says it; `nat.external` has what STUN servers saw.
    pub public_ip: Option<String>,
    /// The system's name servers.
    pub name_servers: Vec<String>,
}

pub(super) fn machine(f: &host::FlyMachine) -> FlyMachine {
    FlyMachine {
        app: f.app.clone(),
        region: f.region.clone(),
        machine: f.machine.clone(),
        process_group: f.group.clone(),
        private_ip: f.private.map(|ip| ip.to_string()),
        public_ip: f.public.map(|ip| ip.to_string()),
        name_servers: f.name_servers.iter().map(ToString::to_string).collect(),
    }
}

/// A fly.toml, as far as it concerns the network.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FlyToml {
    /// Its path.
    pub path: String,
    /// It was named, and not merely found in the working directory.
    pub named: bool,
    /// The app.
    pub app: Option<String>,
    /// The process groups; `app` where none is named.
    pub process_groups: Vec<String>,
    /// The services.
    pub services: Vec<FlyService>,
    /// Services, checks and the like that were too many to be read.
    pub left_out: u64,
}

/// A service of a fly.toml.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FlyService {
    /// The line of its section.
    pub line: u32,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The port inside the machine.
    pub internal_port: u16,
    /// `soft_limit`, where it is set.
    pub soft_limit: Option<u32>,
    /// `hard_limit`, where it is set.
    pub hard_limit: Option<u32>,
    /// Its own health checks.
    pub checks: u32,
}

pub(super) fn fly_toml(facts: &model::FlyTomlFacts) -> FlyToml {
    let names = facts.file.group_names();
    FlyToml {
        path: facts.path.clone(),
        named: facts.named,
        app: facts.file.app.clone(),
        process_groups: names.into_iter().map(str::to_owned).collect(),
        services: facts.file.services.iter().map(service).collect(),
        left_out: facts.file.left_out,
    }
}

fn service(service: &model::Service) -> FlyService {
    let limits = service.concurrency.as_ref();
    FlyService {
        line: service.line,
        protocol: if service.udp { "udp" } else { "tcp" }.to_owned(),
        internal_port: service.port(),
        soft_limit: limits.and_then(|c| c.soft).map(|told| told.value),
        hard_limit: limits.and_then(|c| c.hard).map(|told| told.value),
        checks: u32::try_from(service.checks.len()).unwrap_or(u32::MAX),
    }
}
