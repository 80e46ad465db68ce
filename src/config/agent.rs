//! `[agent]`: what `wgnat agent` is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use super::active::{Active, NAT_INTERVAL, PATH_INTERVAL, targets};
use super::file::{budget, optional_span, servers};
use crate::cli::Confine;
use crate::observation::nat::Budget;
use crate::observation::target::Target;
use crate::time::Span;

/// On loopback, so that nobody else can ask.
pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9986);
/// Percent of one core.
pub const CPU_BUDGET: f64 = 1.0;
/// A handshake that fails shows after 5 s; to judge more often tells nothing sooner.
pub const EVALUATE_EVERY: Span = Span::from_secs(5);
/// Each takes four samples; a machine has few busy destinations.
pub const TOP_DESTINATIONS: usize = 50;
/// Each takes eight samples.
pub const TOP_PEERS: usize = 100;
/// MiB of history on disk.
pub const STORE_MIB: u64 = 64;
/// A month.
pub const STORE_AGE: Span = Span::from_secs(31 * 86_400);

/// KiB of the last messages on the wire: some two thousand, hours of handshakes and keepalives, or the last seconds of a busy
/// tunnel's samples.
pub const WIRE_LOG_KIB: usize = 1024;
/// What happens seldom is judged by a quarter to half an hour.
pub const LONG_WINDOW: Span = Span::from_secs(900);
/// It is kept in memory.
const WIRE_LOG_KIB_MAX: usize = 65_536;

/// A report holds no more, and more samples nobody's Prometheus wants of one target.
const TOP_MAX: usize = 200;

/// `[agent]` of the file; `None` is "not said".
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentSection {
    /// `listen`.
    pub listen: Option<SocketAddr>,
    /// `store`.
    pub store: Option<PathBuf>,
    /// `store_max_mib`.
    pub store_max_mib: Option<u64>,
    /// `store_max_age`.
    #[serde(deserialize_with = "optional_span")]
    pub store_max_age: Option<Span>,
    /// `wire_log_kib`.
    pub wire_log_kib: Option<usize>,
    /// `long_window`.
    #[serde(deserialize_with = "optional_span")]
    pub long_window: Option<Span>,
    /// `cpu_budget`.
    pub cpu_budget: Option<f64>,
    /// `evaluate_every`.
    #[serde(deserialize_with = "optional_span")]
    pub evaluate_every: Option<Span>,
    /// `top_destinations`.
    pub top_destinations: Option<usize>,
    /// `top_peers`.
    pub top_peers: Option<usize>,
    /// `token_file`.
    pub token_file: Option<PathBuf>,
    /// `allow_unauthenticated`.
    pub allow_unauthenticated: bool,
    /// `hosts`.
    pub hosts: Vec<String>,
    /// `user`.
    pub user: Option<String>,
    /// `confine`.
    pub confine: Option<Confine>,
    /// `bpf`.
    pub bpf: Option<bool>,
    /// `stun`.
    #[serde(deserialize_with = "servers")]
    pub stun: Vec<String>,
    /// `nat_profile`; empty for not known.
    #[serde(deserialize_with = "budget")]
    pub nat_profile: Option<Budget>,
    /// `nat_interval`.
    #[serde(deserialize_with = "optional_span")]
    pub nat_interval: Option<Span>,
    /// `nat_lifetime`; zero for not measured.
    #[serde(deserialize_with = "optional_span")]
    pub nat_lifetime: Option<Span>,
    /// `targets`.
    #[serde(deserialize_with = "targets")]
    pub targets: Vec<Target>,
    /// `path_interval`.
    #[serde(deserialize_with = "optional_span")]
    pub path_interval: Option<Span>,
    /// `fly_checks`: on a Fly machine, look at its private network.
    pub fly_checks: bool,
}

impl AgentSection {
    /// Refuses values that make no sense, by their key.
    pub fn check(&self) -> Result<(), String> {
        if let Some(percent) = self.cpu_budget {
            check_budget(percent).map_err(|error| format!("cpu_budget = {percent}: {error}"))?;
        }
        for (key, n) in [
            ("top_destinations", self.top_destinations),
            ("top_peers", self.top_peers),
        ] {
            if n.is_some_and(|n| n > TOP_MAX) {
                let n = n.unwrap_or_default();
                return Err(format!("{key} = {n}: expected {TOP_MAX} at most"));
            }
        }
        if self.store_max_mib.is_some_and(|mib| mib == 0 || mib > 1_048_576) {
            return Err("store_max_mib: expected 1 to 1048576".to_owned());
        }
        if self.wire_log_kib.is_some_and(|kib| kib > WIRE_LOG_KIB_MAX) {
            return Err(format!("wire_log_kib: expected 0 to {WIRE_LOG_KIB_MAX}"));
        }
        let second = Span::from_secs(1);
        let minute = Span::from_secs(60);
        if self
            .evaluate_every
            .is_some_and(|every| every < second || every > minute)
        {
            return Err("evaluate_every: expected 1s to 1m".to_owned());
        }
        if self
            .long_window
            .is_some_and(|long| long < minute || long > Span::from_secs(86_400))
        {
            return Err("long_window: expected 1m to 24h".to_owned());
        }
        if self.store_max_age.is_some_and(|age| age < Span::from_secs(3600)) {
            return Err("store_max_age: expected at least 1h".to_owned());
        }
        self.active(&AgentFlags::default()).check()
    }

    fn active(&self, flags: &AgentFlags) -> Active {
        fn first<T: Clone>(said: &[T], file: &[T]) -> Vec<T> {
            if said.is_empty() { file } else { said }.to_vec()
        }
        Active {
            stun: first(&flags.stun, &self.stun),
            nat_profile: flags.nat_profile.clone().or_else(|| self.nat_profile.clone()),
            nat_interval: self.nat_interval.unwrap_or(NAT_INTERVAL),
            nat_lifetime: self.nat_lifetime.filter(|longest| !longest.is_zero()),
            targets: first(&flags.targets, &self.targets),
            path_interval: self.path_interval.unwrap_or(PATH_INTERVAL),
            fly_checks: self.fly_checks,
        }
    }
}

/// Whether a budget makes sense.
pub fn check_budget(percent: f64) -> Result<(), &'static str> {
    if (0.05..=100.0).contains(&percent) {
        Ok(())
    } else {
        Err("expected percent of one core, 0.05 to 100")
    }
}

/// What the command line and the environment said.
#[derive(Clone, Debug, Default)]
pub struct AgentFlags {
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--store`.
    pub store: Option<PathBuf>,
    /// `--cpu-budget`.
    pub cpu_budget: Option<f64>,
    /// `--token-file`.
    pub token_file: Option<PathBuf>,
    /// `--allow-unauthenticated`.
    pub allow_unauthenticated: bool,
    /// `--user`.
    pub user: Option<String>,
    /// `--confine`.
    pub confine: Option<Confine>,
    /// `--no-bpf`.
    pub no_bpf: bool,
    /// `--stun`.
    pub stun: Vec<String>,
    /// `--nat-profile`.
    pub nat_profile: Option<Budget>,
    /// `--target`.
    pub targets: Vec<Target>,
}

/// What holds.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentSettings {
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// The history's file.
    pub store: Option<PathBuf>,
    /// Bytes of history on disk.
    pub store_max_bytes: u64,
    /// Nothing in history is older.
    pub store_max_age: Span,
    /// Bytes of the last messages on the wire, in memory; 0 for none.
    pub wire_log_bytes: usize,
    /// For how long at least what happens seldom is kept in memory.
    pub long_window: Span,
    /// Percent of one core.
    pub cpu_budget: f64,
    /// Time between two verdicts.
    pub evaluate_every: Span,
    /// Destinations with metrics of their own.
    pub top_destinations: usize,
    /// Peers with metrics of their own.
    pub top_peers: usize,
    /// The token's file.
    pub token_file: Option<PathBuf>,
    /// Serve beyond loopback without a token.
    pub allow_unauthenticated: bool,
    /// Names that may stand in `Host`.
    pub hosts: Vec<String>,
    /// The user to become.
    pub user: Option<String>,
    /// Whether to confine itself.
    pub confine: Confine,
    /// Whether connects are counted in the kernel.
    pub bpf: bool,
    /// Whom the agent asks.
    pub active: Active,
}

impl AgentSettings {
    /// First said wins: flags, then file, then default.
    pub fn build(flags: &AgentFlags, file: AgentSection) -> Self {
        let active = file.active(flags);
        Self {
            active,
            listen: flags.listen.or(file.listen).unwrap_or(LISTEN),
            store: flags.store.clone().or(file.store),
            store_max_bytes: file.store_max_mib.unwrap_or(STORE_MIB) * 1024 * 1024,
            store_max_age: file.store_max_age.unwrap_or(STORE_AGE),
            wire_log_bytes: file.wire_log_kib.unwrap_or(WIRE_LOG_KIB) * 1024,
            long_window: file.long_window.unwrap_or(LONG_WINDOW),
            cpu_budget: flags.cpu_budget.or(file.cpu_budget).unwrap_or(CPU_BUDGET),
            evaluate_every: file.evaluate_every.unwrap_or(EVALUATE_EVERY),
            top_destinations: file.top_destinations.unwrap_or(TOP_DESTINATIONS),
            top_peers: file.top_peers.unwrap_or(TOP_PEERS),
            token_file: flags.token_file.clone().or(file.token_file),
            allow_unauthenticated: flags.allow_unauthenticated || file.allow_unauthenticated,
            hosts: file.hosts,
            user: flags.user.clone().or(file.user),
            confine: flags.confine.or(file.confine).unwrap_or_default(),
            bpf: !flags.no_bpf && file.bpf.unwrap_or(true),
        }
    }

    /// Keys that differ from those `running` and that a reload cannot change.
    pub fn needs_restart(&self, running: &Self) -> Vec<&'static str> {
        let mut keys = Vec::new();
        for (key, differs) in [
            ("listen", self.listen != running.listen),
            ("store", self.store != running.store),
            ("store_max_mib", self.store_max_bytes != running.store_max_bytes),
            ("store_max_age", self.store_max_age != running.store_max_age),
            ("wire_log_kib", self.wire_log_bytes != running.wire_log_bytes),
            ("user", self.user != running.user),
            ("confine", self.confine != running.confine),
            ("bpf", self.bpf != running.bpf),
        ] {
            if differs {
                keys.push(key);
            }
        }
        keys
    }
}
