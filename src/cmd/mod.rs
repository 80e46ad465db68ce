//! The commands: each reads its settings, starts what it needs, and writes its result.

mod active;
pub mod agent;
pub mod analyze;
pub mod doctor;
pub mod explain;
pub mod fly_toml;
pub mod input;
pub mod namespaces;
pub mod nat;
mod notify;
pub mod observers;
pub mod path;
pub mod probe;
pub mod progress;
pub mod record;
pub mod reflect;
pub mod report;
pub mod top;
pub mod watch;

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::cli::{Cli, ColorWhen, Command, Global};
use crate::config::agent::AgentFlags;
use crate::config::{Flags, ReportFlags, Settings, file};
use crate::logging;
use crate::output::{self, Format, Options};
use crate::report::{Report, exit};

/// No configuration file is larger: it has some thirty keys.
const CONFIG_LIMIT: usize = 1024 * 1024;

/// Runs the command and says the exit code.
pub fn run(cli: Cli) -> anyhow::Result<u8> {
    let settings = settings(&cli)?;
    let level = match &cli.command {
        // Whoever runs for good says what it does.
        Command::Agent(_) => logging::INFO,
        _ => logging::WARN,
    };
    // What is logged onto a screen that is drawn on would spoil it.
    if !(matches!(cli.command, Command::Top(_)) && io::stderr().is_terminal()) {
        logging::init(
            &cli.global,
            level,
            settings.log_format,
            colour(settings.color, &io::stderr()),
        );
    }
    match &cli.command {
        Command::Doctor(args) => doctor::run(args, &cli.global, &settings),
        Command::Agent(args) => agent::run(args, &cli, settings),
        Command::Report(args) => report::run(args, &cli.global, &settings),
        Command::Top(args) => top::run(args, &settings),
        Command::Analyze(args) => analyze::run(args, &cli.global, &settings),
        Command::Nat(args) => nat::run(args, &cli.global, &settings),
        Command::Reflect(args) => reflect::run(args),
        Command::Path(args) => path::run(args, &cli.global, &settings),
        Command::Probe(args) => probe::run(args, &cli.global, &settings),
        Command::Explain(args) => explain::run(args, &settings),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "wgnat", &mut script);
            io::stdout().write_all(&script)?;
            Ok(0)
        }
        Command::Man => {
            man(&mut io::stdout().lock())?;
            Ok(0)
        }
    }
}

/// The manual: the main page and one section a command, in one stream that `man -l -` reads.
pub fn man(out: &mut dyn Write) -> io::Result<()> {
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(out)?;
    for sub in command
        .get_subcommands()
        .filter(|c| !c.is_hide_set() && c.get_name() != "help")
    {
        clap_mangen::Man::new(sub.clone()).title("WGNAT").render(out)?;
    }
    Ok(())
}

fn settings(cli: &Cli) -> anyhow::Result<Settings> {
    read_settings(cli.global.config.as_deref(), &flags(cli))
}

/// Reads the configuration file, where there is one; the command line goes before it.
fn read_settings(config: Option<&Path>, flags: &Flags) -> anyhow::Result<Settings> {
    let file = match config {
        None => file::File::default(),
        Some(path) => {
            let text = input::text(path, CONFIG_LIMIT).map_err(|source| file::FileError::Read {
                path: path.to_owned(),
                source,
            })?;
            file::parse(path, &text)?
        }
    };
    Ok(Settings::build(flags, file))
}

fn flags(cli: &Cli) -> Flags {
    let Global {
        format,
        json,
        color,
        log_format,
        ..
    } = &cli.global;
    let common = Flags {
        format: if *json { Some(Format::Json) } else { *format },
        color: *color,
        log_format: *log_format,
        ..Flags::default()
    };
    match &cli.command {
        Command::Doctor(args) => Flags {
            cpu_budget: args.cpu_budget,
            duration: args.duration,
            max_duration: args.max_duration,
            fail_on: args.fail_on,
            wg_config: args.wg_config.clone(),
            stun: args.stun.clone(),
            nat_profile: args.nat_profile.clone(),
            fly_toml: args.fly_toml.clone(),
            fly_checks: args.fly_checks,
            ..common
        },
        Command::Agent(args) => Flags {
            wg_config: args.wg_config.clone(),
            fly_toml: args.fly_toml.clone(),
            agent: agent::flags(args),
            ..common
        },
        Command::Report(args) => Flags {
            duration: args.duration,
            max_duration: args.max_duration,
            fail_on: args.fail_on,
            wg_config: args.wg_config.clone(),
            stun: args.stun.clone(),
            agent: AgentFlags {
                store: args.store.clone(),
                ..AgentFlags::default()
            },
            report: ReportFlags {
                since: args.since,
                state: args.state.clone(),
                webhook: args.webhook.clone(),
                webhook_secret_file: args.webhook_secret_file.clone(),
                webhook_ca_file: args.webhook_ca_file.clone(),
            },
            ..common
        },
        Command::Top(args) => Flags {
            wg_config: args.wg_config.clone(),
            ..common
        },
        Command::Path(args) => Flags {
            fail_on: args.fail_on,
            ..common
        },
        Command::Analyze(args) => Flags {
            fail_on: args.fail_on,
            ..common
        },
        Command::Probe(args) => Flags {
            fail_on: args.fail_on,
            ..common
        },
        Command::Nat(args) => Flags {
            fail_on: args.fail_on,
            ..common
        },
        _ => common,
    }
}

/// Whether to colour `stream`.
fn colour(when: ColorWhen, stream: &impl IsTerminal) -> bool {
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        // no-color.org: set and not empty.
        ColorWhen::Auto => stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
    }
}

/// How standard output wants its text.
fn text_options(settings: &Settings) -> Options {
    let stdout = io::stdout();
    let width = terminal_size::terminal_size_of(&stdout).map_or(80, |(w, _)| usize::from(w.0));
    Options {
        color: colour(settings.color, &stdout),
        width: width.clamp(40, 80),
        unicode: utf8_locale(),
    }
}

/// Whether the locale's character set is UTF-8 (POSIX: LC_ALL, then LC_CTYPE, then LANG). With none set, a file or
/// a pipe is taken to be read by something modern.
fn utf8_locale() -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
        .is_none_or(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        })
}

/// Writes `report` as the settings ask for it, and says the exit code.
fn tell(report: &Report, settings: &Settings) -> anyhow::Result<u8> {
    let mut text = Vec::new();
    output::render(report, settings.format, &text_options(settings), &mut text)?;
    print(&text)?;
    Ok(exit::code(report.status, settings.fail_on))
}

/// Writes `bytes` to standard output as a whole.
fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .context("writing to standard output")
}
