//! What concerns Fly: the machine, and the fly.toml that was read.

use schemars::JsonSchema;
use serde::Serialize;

use crate::observation::fly as net;
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

/// A Fly machine's private network (6PN), as it was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FlyNet {
    /// The system's name servers, in their order.
    pub resolvers: Vec<FlyResolver>,
    /// Other started machines of the organisation that were listed.
    pub machines: u32,
    /// Those of them that were measured.
    pub measured: u32,
    /// Entries of the list that could not be read.
    pub unread: u32,
}

/// What a name server says of `.internal`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FlyResolver {
    /// Its address.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// `listed`: it knows the organisation's machines; `unknown`: it says that there is no such name; `failed`.
    pub internal: String,
    /// The response code, or why there is none; null where it is `listed`.
    pub says: Option<String>,
}

pub(super) fn fly_net(facts: &net::FlyNet) -> FlyNet {
    let resolver = |answer: &net::ResolverAnswer| FlyResolver {
        address: answer.server.ip().to_string(),
        port: answer.server.port(),
        internal: answer.says.name().to_owned(),
        says: match &answer.says {
            net::Internal::Listed => None,
            net::Internal::Unknown(says) | net::Internal::Failed(says) => Some(says.clone()),
        },
    };
    FlyNet {
        resolvers: facts.answers.iter().map(resolver).collect(),
        machines: facts.machines,
        measured: facts.measured,
        unread: facts.unread,
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
