//! What a Fly machine found of its private network (6PN) when it was asked to look.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlyNet {
    /// What each of the system's name servers says of the organisation's machines, in resolv.conf's order.
    pub answers: Vec<ResolverAnswer>,
    /// Other started machines that were listed.
    pub machines: u32,
    /// Those of them that were measured.
    pub measured: u32,
    /// Entries of the list that could not be read.
    pub unread: u32,
}

/// One name server's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverAnswer {
    /// The server.
    pub server: SocketAddr,
    /// What it says.
    pub says: Internal,
}

/// What a name server says of a name that Fly's own always knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Internal {
    /// It knows `.internal`.
    Listed,
    /// It answers, and knows no such name: NXDOMAIN, or NOERROR without a record.
    Unknown(String),
    /// It gives no answer of use; `path-…` and `dns-…` findings say why.
    Failed(String),
}

impl Internal {
    /// The word in reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Unknown(_) => "unknown",
            Self::Failed(_) => "failed",
        }
    }
}
