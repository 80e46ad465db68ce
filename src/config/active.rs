//! What the agent asks others, where it is told to: STUN servers, and targets whose paths it measures.
//!
//! Nobody is asked unless the configuration or the command line names them.

use serde::{Deserialize, Deserializer};

use crate::observation::nat::Budget;
use crate::observation::target::Target;
use crate::time::Span;

/// Often enough for a share of losses over minutes, seldom enough that ten small packets a target are no load.
pub const PATH_INTERVAL: Span = Span::from_secs(60);
/// A NAT seldom changes, and the servers are somebody's.
pub const NAT_INTERVAL: Span = Span::from_secs(900);

/// Each target takes some twenty samples, and ten attempts a round.
const TARGETS_MAX: usize = 64;
/// Each costs its server some dozens of datagrams a round.
const SERVERS_MAX: usize = 8;
/// Longer searches tell no keepalive more; RFC 4787 asks for mappings of two minutes at least (REQ-5).
const LIFETIME_MAX: Span = Span::from_secs(600);

/// What holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Active {
    /// STUN servers to ask what the NAT in front does.
    pub stun: Vec<String>,
    /// What the NAT in front allows, as the user says.
    pub nat_profile: Option<Budget>,
    /// From one discovery to the next.
    pub nat_interval: Span,
    /// Measure how long an idle mapping lives, up to so long.
    pub nat_lifetime: Option<Span>,
    /// Targets whose paths to measure.
    pub targets: Vec<Target>,
    /// From one measurement to the next.
    pub path_interval: Span,
    /// On a Fly machine: ask the system's name servers for the private network's names, and measure the way to other machines.
    pub fly_checks: bool,
}

impl Default for Active {
    fn default() -> Self {
        Self {
            stun: Vec::new(),
            nat_profile: None,
            nat_interval: NAT_INTERVAL,
            nat_lifetime: None,
            targets: Vec::new(),
            path_interval: PATH_INTERVAL,
            fly_checks: false,
        }
    }
}

impl Active {
    /// Refuses values that make no sense, by their key.
    pub fn check(&self) -> Result<(), String> {
        for (key, n, most) in [
            ("targets", self.targets.len(), TARGETS_MAX),
            ("stun", self.stun.len(), SERVERS_MAX),
        ] {
            if n > most {
                return Err(format!("{key}: {n} are named; expected {most} at most"));
            }
        }
        let hour = Span::from_secs(3600);
        for (key, span, least, most, says) in [
            (
                "path_interval",
                self.path_interval,
                Span::from_secs(10),
                hour,
                "10s to 1h",
            ),
            (
                "nat_interval",
                self.nat_interval,
                Span::from_secs(60),
                hour * 24,
                "1m to 24h",
            ),
        ] {
            if span < least || span > most {
                return Err(format!("{key}: expected {says}"));
            }
        }
        if let Some(longest) = self.nat_lifetime
            && (longest < Span::from_secs(30) || longest > LIFETIME_MAX)
        {
            return Err("nat_lifetime: expected 30s to 10m, or 0s for not at all".to_owned());
        }
        Ok(())
    }
}

/// Targets as `wgnat path` takes them.
pub(super) fn targets<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Target>, D::Error> {
    let texts = Vec::<String>::deserialize(d)?;
    let parsed = texts.iter().map(|text| text.parse::<Target>());
    parsed.collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;
    use crate::config::{Flags, Settings, agent::AgentFlags};
    use std::path::Path;

    fn of(text: &str) -> Result<Active, String> {
        let file =
            file::parse(Path::new("x.toml"), &format!("[agent]\n{text}")).map_err(|e| e.to_string())?;
        Ok(Settings::build(&Flags::default(), file).agent.active)
    }

    #[test]
    fn nobody_is_asked_who_is_not_named() {
        assert_eq!(of(""), Ok(Active::default()));
        // What doctor may ask the agent may not: it would ask for ever.
        let file = file::parse(
            Path::new("x"),
            "[doctor]\nstun = [\"stun.example.org\"]\nfly_checks = true\n",
        )
        .unwrap();
        let settings = Settings::build(&Flags::default(), file);
        assert_eq!(settings.agent.active, Active::default());
    }

    #[test]
    fn what_is_named_is_taken_and_the_command_line_goes_before() {
        let text = "stun = [\"192.0.2.1\"]\ntargets = [\"tcp:db.example:5432\", \"dns:a.example\"]\n\
                    nat_profile = \"fly-static-egress\"\npath_interval = \"30s\"\nnat_interval = \"1h\"\nnat_lifetime = \"3m\"\n";
        let active = of(text).unwrap();
        assert_eq!(active.stun, ["192.0.2.1"]);
        assert_eq!(active.targets.len(), 2);
        assert_eq!(active.nat_profile.as_ref().unwrap().flows, 1024);
        assert_eq!(active.path_interval, Span::from_secs(30));
        assert_eq!(active.nat_interval, Span::from_secs(3600));
        assert_eq!(active.nat_lifetime, Some(Span::from_secs(180)));
        let flags = Flags {
            agent: AgentFlags {
                targets: vec!["192.0.2.9".parse().unwrap()],
                ..AgentFlags::default()
            },
            ..Flags::default()
        };
        let file = file::parse(Path::new("x"), &format!("[agent]\n{text}")).unwrap();
        let active = Settings::build(&flags, file).agent.active;
        assert_eq!(active.targets, ["192.0.2.9".parse().unwrap()]);
        assert_eq!(active.stun, ["192.0.2.1"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_key() {
        let many = format!("targets = [{}]", "\"a.example\",".repeat(65));
        for (text, says) in [
            ("targets = [\"gopher:x:1\"]", "no kind of target"),
            ("stun = [\"http://x/y\"]", "no STUN server"),
            ("nat_profile = \"fly-static-egres\"", "fly-static-egress"),
            ("path_interval = \"1s\"", "path_interval: expected 10s to 1h"),
            ("nat_interval = \"5s\"", "nat_interval: expected 1m to 24h"),
            ("nat_lifetime = \"1h\"", "nat_lifetime: expected 30s to 10m"),
            (&many, "targets: 65 are named; expected 64 at most"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert_eq!(of("nat_lifetime = \"0s\"").unwrap().nat_lifetime, None);
    }
}
