//! `wgnat agent`: reads what it is told, opens what needs privilege, gives the rest up, and runs.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Arrivals;
use socket2::{Domain, Socket, Type};
use zeroize::Zeroizing;

use super::notify::ServiceManager;
use super::{active, fly_toml, input, observers, print, read_settings};
use crate::agent::access::{self, Access};
use crate::agent::confine::{Confinement, Reach, Role, Wanted, become_user, no_memory_to_others};
use crate::agent::http::Server;
use crate::agent::shared::Shared;
use crate::agent::wire_log::WireLog;
use crate::agent::{self, Change, Plan, Reloaded, Signals};
use crate::cli::{Agent, Cli, Confine};
use crate::config::agent::{AgentFlags, check_budget};
use crate::config::{AgentSettings, Flags, Settings};
use crate::observation::Source;
use crate::observe::dump_plan::Budget as DumpBudget;
use crate::observe::supervisor::Opener;
use crate::store::{self, Limits, Store};
use crate::sys::netns::Netns;
use crate::sys::{caps, clock, memory};
use crate::time::Span;

/// Verdicts come each five seconds, scrapes each fifteen. What happens between two looks is counted by the kernel: connects,
/// handshakes, drops, retransmissions.
const LOOK_EVERY: Span = Span::from_secs(2);

/// Connections that wait in the kernel; net.core.somaxconn, 4,096 by default, cuts it.
const BACKLOG: i32 = 2048;

/// What the command line said.
pub fn flags(args: &Agent) -> AgentFlags {
    AgentFlags {
        listen: args.listen,
        store: args.store.clone(),
        cpu_budget: args.cpu_budget,
        token_file: args.token_file.clone(),
        allow_unauthenticated: args.allow_unauthenticated,
        user: args.user.clone(),
        confine: args.confine,
        no_bpf: args.no_bpf,
        stun: args.stun.clone(),
        nat_profile: args.nat_profile.clone(),
        targets: args.target.clone(),
    }
}

/// Runs the command.
pub fn run(args: &Agent, cli: &Cli, settings: Settings) -> anyhow::Result<u8> {
    memory::give_back();
    let all_flags = super::flags(cli);
    if let Some(percent) = args.cpu_budget {
        check_budget(percent).map_err(|error| anyhow::anyhow!("--cpu-budget {percent}: {error}"))?;
    }
    // What was asked for wrongly is said before anything is started.
    let access = access(&settings.agent)?;
    settings
        .agent
        .active
        .check()
        .map_err(anyhow::Error::msg)
        .context("the command line")?;
    let configured = observers::read_wg_configs(&settings.wg_config)?;
    let fly_toml = of_fly(&settings)?;
    let netns = args.netns.as_deref().map(Netns::open).transpose()?;
    if args.check_config {
        print(b"the configuration is good\n")?;
        return Ok(0);
    }
    let listen = settings.agent.listen;
    let started = clock::now();
    // HTTP and history belong to the namespace that the agent was started in.
    let listener = bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    if let Some(netns) = &netns {
        // Before any observer is started: each thread inherits the namespace of the one that starts it.
        netns.enter()?;
    }
    if let Some(user) = &settings.agent.user {
        become_user(user)?;
    }
    let store = settings.agent.store.as_deref().map(Store::open).transpose()?;
    let open_findings = store.as_ref().map(Store::open_findings).unwrap_or_default();
    let mut all_observers = observers::all(args.netns.clone(), Vec::new());
    let mut reach = BTreeMap::new();
    for change in active::changes(&settings, configured, args.netns.as_deref()) {
        reach.insert(change.source, change.reach);
        all_observers.extend(change.opener.map(|opener| (change.source, opener)));
    }
    observers::set_conntrack(&mut all_observers, DumpBudget::steady(settings.cpu_budget), false);
    all_observers.extend(fly_toml.opener.map(|opener| (fly_toml.source, opener)));
    observers::count_steadily(&mut all_observers);
    observers::unhurried(&mut all_observers, LOOK_EVERY);
    if !settings.agent.bpf {
        all_observers.retain(|(source, _)| *source != Source::Bpf);
    }
    let (config, netns_name) = (cli.global.config.clone(), args.netns.clone());
    let confinement = confine(&settings, config.as_deref(), &all_observers, reach)?;
    let limits = Limits {
        bytes: settings.agent.store_max_bytes,
        age: settings.agent.store_max_age,
    };
    let (writer, reader) = match store {
        Some(store) => {
            let theirs = confinement.clone();
            let first = move || {
                if let Err(error) = theirs.apply(Role::Store) {
                    tracing::error!("history is written unconfined: {error:#}");
                }
            };
            let (writer, reader) = store::start(store, limits, first).context("cannot start a thread")?;
            (Some(writer), Some(reader))
        }
        None => (None, None),
    };
    let shared = Arc::new(Shared::new(
        access,
        reader,
        WireLog::new(started, settings.agent.wire_log_bytes),
    ));
    let server = Server::start(listener, Arc::clone(&shared), confinement.clone())
        .context("cannot start the HTTP server")?;
    tracing::info!("listening on http://{listen}");
    let plan = Plan {
        started,
        observers: all_observers,
        shared,
        server,
        store: writer,
        open_findings,
        confinement,
        reload: Box::new(move || reload(config.as_deref(), &all_flags, netns_name.as_deref())),
        settings,
    };
    agent::run(plan, ProcessSignals, &mut ServiceManager::of_this_process())?;
    Ok(0)
}

/// As the standard library binds, with a longer queue: a thousand scrapes may come at once.
fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Gives up what is not needed, and says what is in force.
fn confine(
    settings: &Settings,
    config: Option<&Path>,
    observers: &[(Source, Opener)],
    reach: BTreeMap<Source, Reach>,
) -> anyhow::Result<Confinement> {
    if let Err(error) = no_memory_to_others() {
        tracing::warn!("core dumps are not off: {error:#}");
    }
    if settings.agent.confine == Confine::Off {
        tracing::info!("not confined: it was told not to be");
        return Ok(Confinement::off());
    }
    let agent = &settings.agent;
    let directory = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let files = settings.wg_config.iter().map(PathBuf::as_path);
    let read = files
        .chain(config)
        .chain(agent.token_file.as_deref())
        .chain(settings.fly_toml.as_deref());
    let confinement = Confinement::begin(Wanted {
        sources: observers.iter().map(|(source, _)| *source).collect(),
        other_user: !nix::unistd::Uid::effective().is_root(),
        read: read.map(directory).collect(),
        write: agent.store.as_deref().map(directory),
        reach,
    });
    tracing::info!("{}", confinement.describe());
    for missing in confinement.missing() {
        tracing::warn!("not in force: {missing}");
    }
    if agent.confine == Confine::Require && !confinement.missing().is_empty() {
        bail!(
            "confine = \"require\", and this could not be had: {}",
            confinement.missing().join("; ")
        );
    }
    Ok(confinement)
}

fn reload(config: Option<&Path>, flags: &Flags, netns: Option<&str>) -> anyhow::Result<Reloaded> {
    let settings = read_settings(config, flags)?;
    let configured = observers::read_wg_configs(&settings.wg_config)?;
    let mut changes = active::changes(&settings, configured, netns);
    changes.push(of_fly(&settings)?);
    Ok(Reloaded {
        access: access(&settings.agent)?,
        changes,
        settings,
    })
}

/// The observer of the fly.toml that is named, which is read now; an error says which line is wrong.
fn of_fly(settings: &Settings) -> anyhow::Result<Change> {
    let read = fly_toml::of_agent(settings.fly_toml.as_ref(), settings.agent.listen)?;
    Ok(Change {
        source: Source::FlyToml,
        opener: read.map(|read| fly_toml::observer(read).1),
        reach: Reach::default(),
    })
}

/// Who may ask; an error where strangers could.
fn access(settings: &AgentSettings) -> anyhow::Result<Access> {
    let token = settings.token_file.as_deref().map(read_token).transpose()?;
    let listen = settings.listen;
    let loopback = listen.ip().to_canonical().is_loopback();
    if !loopback && token.is_none() && !settings.allow_unauthenticated {
        bail!(
            "listening on {listen}, beyond loopback, needs a bearer token: give --token-file FILE (for example \
             of `head -c 32 /dev/urandom | base64`), or --allow-unauthenticated"
        );
    }
    Ok(Access::new(listen, token, &settings.hosts))
}

fn read_token(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let doing = || format!("token file {}", path.display());
    let text = input::text(path, access::TOKEN_MAX + 2).with_context(doing)?;
    let token = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    access::check_token(&token)
        .map_err(anyhow::Error::msg)
        .with_context(doing)?;
    Ok(token)
}

/// The process's own signals.
struct ProcessSignals;

impl Signals for ProcessSignals {
    fn install(
        self,
        stop: impl Fn() + Send + 'static,
        reload: impl Fn() + Send + 'static,
    ) -> anyhow::Result<()> {
        let mut arrivals = Arrivals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot watch for signals")?;
        std::thread::Builder::new()
            .name("signals".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || {
                // It needs nothing but to be told.
                if let Err(error) = caps::keep(&[]) {
                    tracing::debug!("the signals' thread keeps its capabilities: {error}");
                }
                let mut stopping = false;
                for signal in arrivals.forever() {
                    if signal == SIGHUP {
                        reload();
                    } else if stopping {
                        // Whoever asks twice does not want to wait.
                        let _ = signal_hook::low_level::emulate_default_handler(signal);
                    } else {
                        stopping = true;
                        stop();
                    }
                }
            })
            .context("cannot start a thread")?;
        Ok(())
    }
}
