//! Every threshold and its reason. Rules take them as arguments; a configuration may change each.

use serde::{Deserialize, Serialize};

use crate::time::{Span, span_secs};

/// How long doctor watches at least: one handshake retry (5 s) falls into it in most cases.
pub const DOCTOR_DURATION: Span = Span::from_secs(5);

/// How long doctor watches at most: the 15 s after which silence is abnormal, and a retry.
pub const DOCTOR_MAX_DURATION: Span = Span::from_secs(20);

/// What reading the conntrack table may cost on average, as a share of a core over a minute: a hundredth is seen by nobody, and
/// reads a table of 100,000 entries twice a minute.
pub const CPU_BUDGET: f64 = 0.01;

/// The numbers that rules compare with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// `ports-low` becomes a warning at this share of a tuple's usable ports. From half on, `connect` searches
    /// odd ports too and slows (kernel `__inet_hash_connect`); at 70 % there is still time to act.
    pub ports_warning: f64,
    /// `ports-low` becomes critical at this share.
    pub ports_critical: f64,
    /// `timewait-pileup` needs TIME_WAIT to hold at least this share of a destination's ports…
    pub time_wait_share: f64,
    /// …and at least this share of the usable range: below it nobody is hurt.
    pub time_wait_range_share: f64,
    /// `connection-churn` needs this many opens per second to one destination: five a second are what a person's
    /// browser does; a program that keeps it up for a minute opens a new connection per request.
    pub churn_per_second: f64,
    /// …and their mean life, as far as it can be told, must be no longer than this: what lives longer is not short,
    /// and reuse would save little.
    #[serde(with = "span_secs")]
    pub churn_max_lifetime: Span,
    /// `connect-refused` and `connect-timeout` need this share of a minute's connects to a destination to fail: a few fail
    /// wherever servers restart.
    pub connect_failed_share: f64,
    /// …and at least so many: one is an accident, and two may be one that was tried again.
    pub connect_failed_least: u64,
    /// `connect-burst` needs so many bursts (16 connects or more within a quarter of a second)…
    pub bursts_least: u64,
    /// …that hold this share of all connects to the destination…
    pub bursts_share: f64,
    /// …and take up no more than this share of the time: else it is a load that is always high.
    pub bursts_time: f64,
    /// `fd-limit` is a warning at this share of a process's soft limit.
    pub fd_warning: f64,
    /// …and critical at this one.
    pub fd_critical: f64,
    /// …and at least this share of the open descriptors must be sockets, or it is not our subject.
    pub fd_socket_share: f64,
    /// `conntrack-low` becomes a warning at this share of `nf_conntrack_max`.
    pub conntrack_warning: f64,
    /// `conntrack-low` becomes critical at this share. The kernel evicts in earnest from 95 % on.
    pub conntrack_critical: f64,
    /// `conntrack-stale`: idle connections that hold this share of the limit leave the live ones too little for a bad day.
    pub conntrack_stale_share: f64,
    /// `conntrack-buckets`: so many entries a bucket make chains of twice as many, four where two are meant.
    pub conntrack_entries_per_bucket: f64,
    /// `conntrack-dns` needs DNS to be this share of the entries…
    pub conntrack_dns_share: f64,
    /// …and at least so many: what a small table holds hurts nobody.
    pub conntrack_dns_min: u64,
    /// `snat-ports-low` is a warning at this share of the range: the allocator's random search begins to fail
    /// at 78 to 95 % (measured for ranges of 40,000 down to 1,000 ports).
    pub snat_warning: f64,
    /// With failing insertions, a destination that holds this share of its range is what they fail for: the lowest
    /// share at which failures were measured (40,000 ports).
    pub snat_onset: f64,
    /// `conntrack-insert-failed` is "sustained", thus critical, from this many failures per second on.
    pub insert_failed_critical_per_second: f64,
    /// `upstream-budget-low` is a warning at this share of the budget of the NAT in front: as with local ports, there is
    /// still time to act.
    pub budget_warning: f64,
    /// `upstream-nat-exhausted` needs new connections to so many addresses to go unanswered: fewer are down by themselves
    /// more often than a NAT is full.
    pub nat_exhausted_addresses: usize,
    /// `nat-mapping-short` is a warning where an idle mapping lives shorter than this: below it a keepalive of 25 s, the
    /// usual one, is too slow.
    #[serde(with = "span_secs")]
    pub mapping_short: Span,
    /// Handshake attempts without an answer before silence is called a time-out: two, so that one lost packet
    /// is not a finding.
    pub unanswered_attempts: u32,
    /// `wg-handshake-storm` needs this many times the initiations that all peers of the device would make if none were
    /// ever answered: reboots of whole sites stay below, floods are far above.
    pub storm_factor: f64,
    /// …and this many in all: fewer hurt nobody.
    pub storm_initiations: u64,
    /// A port that changes after this long without a packet either way is a NAT's doing: Linux's conntrack forgets an
    /// unanswered UDP flow after 30 s, and cheaper NATs after 20 (RFC 4787 asks for two minutes).
    #[serde(with = "span_secs")]
    pub rebinding_after: Span,
    /// So many endpoint changes…
    pub roaming_changes: usize,
    /// …within this time are more than a person who walks from one network to another.
    #[serde(with = "span_secs")]
    pub roaming_window: Span,
    /// A persistent keepalive longer than this may be longer than a NAT remembers a flow: many forget after 30 s.
    #[serde(with = "span_secs")]
    pub keepalive_doubtful: Span,
    /// …and longer than this it is longer than NATs need to remember one (RFC 4787, REQ-5: two minutes).
    #[serde(with = "span_secs")]
    pub keepalive_too_long: Span,
    /// Large messages without an answer before a path is called a black hole for them: TCP repeats one three times within
    /// two seconds.
    pub blackhole_messages: u64,
    /// …and an inner packet shorter than this is not large: every IPv4 path carries datagrams of 576 bytes (RFC 791), less
    /// WireGuard's 60.
    pub blackhole_min_bytes: u32,
    /// Data sent with nothing back for this long is one-way: KEEPALIVE_TIMEOUT (10 s) + REKEY_TIMEOUT (5 s).
    #[serde(with = "span_secs")]
    pub one_way_after: Span,
    /// Bytes of data sent with none received before one-way is called by byte counts alone.
    pub one_way_min_bytes: u64,
    /// `path-loss` needs the share of lost attempts to be above this with 95 % certainty: TCP halves its rate at each loss,
    /// so that 2 % already hurt.
    pub path_loss_share: f64,
    /// `path-latency`: so many times the usual round trip…
    pub path_latency_factor: f64,
    /// …and at least this much more.
    #[serde(with = "span_secs")]
    pub path_latency_least: Span,
    /// `path-jitter`: the mean step between round trips that voice and games begin to feel…
    #[serde(with = "span_secs")]
    pub path_jitter_least: Span,
    /// …and at least this share of the median round trip.
    pub path_jitter_share: f64,
    /// `dns-slow`: a resolver's median answer. A cached answer takes a few milliseconds, and every first connect to a name
    /// waits for one.
    #[serde(with = "span_secs")]
    pub dns_slow: Span,
    /// `fly-toml-check-timing`: a time in fly.toml below this is a number whose unit was forgotten, for Fly takes those for
    /// milliseconds: no health check is meant to be made, or answered, within a tenth of a second.
    #[serde(with = "span_secs")]
    pub fly_check_shortest: Span,
    /// …and an interval above this is long: Fly's own examples have 10 to 30 s.
    #[serde(with = "span_secs")]
    pub fly_check_interval: Span,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            ports_warning: 0.70,
            ports_critical: 0.90,
            time_wait_share: 0.50,
            time_wait_range_share: 0.10,
            churn_per_second: 5.0,
            churn_max_lifetime: Span::from_secs(10),
            connect_failed_share: 0.10,
            connect_failed_least: 3,
            bursts_least: 3,
            bursts_share: 0.80,
            bursts_time: 0.30,
            fd_warning: 0.80,
            fd_critical: 0.95,
            fd_socket_share: 0.5,
            conntrack_warning: 0.75,
            conntrack_critical: 0.90,
            conntrack_stale_share: 0.25,
            conntrack_entries_per_bucket: 2.0,
            conntrack_dns_share: 0.30,
            conntrack_dns_min: 1000,
            snat_warning: 0.70,
            snat_onset: 0.75,
            insert_failed_critical_per_second: 1.0,
            budget_warning: 0.70,
            nat_exhausted_addresses: 3,
            mapping_short: Span::from_secs(30),
            unanswered_attempts: 2,
            storm_factor: 10.0,
            storm_initiations: 50,
            rebinding_after: Span::from_secs(20),
            roaming_changes: 3,
            roaming_window: Span::from_secs(600),
            keepalive_doubtful: Span::from_secs(30),
            keepalive_too_long: Span::from_secs(120),
            blackhole_messages: 3,
            blackhole_min_bytes: 516,
            one_way_after: Span::from_secs(15),
            one_way_min_bytes: 1024,
            path_loss_share: 0.02,
            path_latency_factor: 2.0,
            path_latency_least: Span::from_millis(20),
            path_jitter_least: Span::from_millis(20),
            path_jitter_share: 0.3,
            dns_slow: Span::from_millis(150),
            fly_check_shortest: Span::from_millis(100),
            fly_check_interval: Span::from_secs(60),
        }
    }
}

impl Thresholds {
    /// Refuses values that make no sense, by their key.
    pub fn check(&self) -> Result<(), String> {
        for (key, share) in [
            ("ports_warning", self.ports_warning),
            ("ports_critical", self.ports_critical),
            ("time_wait_share", self.time_wait_share),
            ("time_wait_range_share", self.time_wait_range_share),
            ("connect_failed_share", self.connect_failed_share),
            ("bursts_share", self.bursts_share),
            ("bursts_time", self.bursts_time),
            ("fd_warning", self.fd_warning),
            ("fd_critical", self.fd_critical),
            ("fd_socket_share", self.fd_socket_share),
            ("conntrack_warning", self.conntrack_warning),
            ("conntrack_critical", self.conntrack_critical),
            ("conntrack_stale_share", self.conntrack_stale_share),
            ("conntrack_dns_share", self.conntrack_dns_share),
            ("snat_warning", self.snat_warning),
            ("snat_onset", self.snat_onset),
            ("budget_warning", self.budget_warning),
            ("path_loss_share", self.path_loss_share),
            ("path_jitter_share", self.path_jitter_share),
        ] {
            if !(share > 0.0 && share <= 1.0) {
                return Err(format!("{key} = {share}: expected a share above 0 and up to 1"));
            }
        }
        for (key, rate) in [
            ("churn_per_second", self.churn_per_second),
            ("storm_factor", self.storm_factor),
            ("conntrack_entries_per_bucket", self.conntrack_entries_per_bucket),
            (
                "insert_failed_critical_per_second",
                self.insert_failed_critical_per_second,
            ),
        ] {
            if !(rate.is_finite() && rate > 0.0) {
                return Err(format!("{key} = {rate}: expected a number above 0"));
            }
        }
        for (low, low_value, high, high_value) in [
            (
                "ports_warning",
                self.ports_warning,
                "ports_critical",
                self.ports_critical,
            ),
            ("fd_warning", self.fd_warning, "fd_critical", self.fd_critical),
            (
                "conntrack_warning",
                self.conntrack_warning,
                "conntrack_critical",
                self.conntrack_critical,
            ),
        ] {
            if low_value > high_value {
                return Err(format!(
                    "{low} = {low_value} is above {high} = {high_value}: expected at most that"
                ));
            }
        }
        if !(self.path_latency_factor.is_finite() && self.path_latency_factor >= 1.0) {
            let factor = self.path_latency_factor;
            return Err(format!("path_latency_factor = {factor}: expected at least 1"));
        }
        if self.connect_failed_least == 0 || self.bursts_least == 0 {
            return Err("connect_failed_least and bursts_least: expected at least 1".to_owned());
        }
        if self.roaming_changes == 0 {
            return Err("roaming_changes = 0: expected at least 1".to_owned());
        }
        if self.nat_exhausted_addresses < 2 {
            return Err("nat_exhausted_addresses: expected at least 2".to_owned());
        }
        if self.unanswered_attempts == 0 {
            return Err("unanswered_attempts = 0: expected at least 1".to_owned());
        }
        Ok(())
    }
}
