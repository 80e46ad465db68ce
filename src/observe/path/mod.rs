//! Measures paths to named targets: many at once, each attempt on a socket of its own.
//!
//! In: targets and how often to try each. Out: a [`PathSample`] each. It sends packets, so it runs only where targets
//! were named. Needs nothing for UDP, TCP and DNS; echo needs a ping socket (`net.ipv4.ping_group_range`) or CAP_NET_RAW;
//! hops need CAP_NET_RAW. Async on one thread: what it does is wait.

mod datagram;
mod echo;
mod errors;
pub mod fly;
mod hops;
mod mtu;
pub mod observer;
pub mod plan;
mod stream;
mod tally;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::observation::SourceStatus;
use crate::observation::path::{Failure, PathSample, Rtts, Sibling, Stage};
use crate::observation::target::{Method, Target};
use crate::sys::clock;
use crate::time::{Span, Timestamp};
use tally::Tally;
use tls::Tls;
pub use tls::certificate_verdict;

/// Problems that a status names.
const PROBLEMS: usize = 8;

/// One target and what is known of it beforehand.
#[derive(Clone, Debug)]
pub struct Aim {
    /// What was asked for.
    pub target: Target,
    /// It is one of the system's name servers.
    pub system_resolver: bool,
    /// The Fly machine that it is.
    pub sibling: Option<Sibling>,
    /// Search for the largest packet to it, whatever the plan says for all.
    pub mtu: bool,
}

impl From<Target> for Aim {
    fn from(target: Target) -> Self {
        Self {
            target,
            system_resolver: false,
            sibling: None,
            mtu: false,
        }
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom.
    pub aims: Vec<Aim>,
    /// Attempts for each.
    pub count: u32,
    /// From one attempt's start to the next's.
    pub interval: Span,
    /// How long an attempt may take.
    pub timeout: Span,
    /// Whether to search for the largest packet.
    pub mtu: bool,
    /// Whether to trace the routers on the way.
    pub hops: bool,
}

/// One attempt's result.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The round trip, or why there is none.
    pub result: Result<Span, Failure>,
    /// Its parts.
    pub stages: Vec<(Stage, Span)>,
    /// The HTTP status.
    pub status: Option<u16>,
    /// The certificates that a TLS server showed, its own first.
    pub chain: Vec<CertificateDer<'static>>,
}

impl Outcome {
    fn of(result: Result<Span, Failure>) -> Self {
        Self {
            result,
            stages: Vec::new(),
            status: None,
            chain: Vec::new(),
        }
    }
}

/// A measured target: when it was done, how long it took.
pub type Measured = (Timestamp, Span, PathSample);

/// Measures everything in `plan`, all targets at once, and returns when all are done. `interrupted` ends it early: what was
/// measured until then is returned.
pub fn measure(plan: &Plan, interrupted: &dyn Fn() -> bool) -> std::io::Result<Vec<Measured>> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // Name look-ups and traces block; they wait more than they work.
        .max_blocking_threads(16)
        .thread_stack_size(512 * 1024)
        .build()?;
    let local = LocalSet::new();
    let tls = Rc::new(Tls::default());
    let measured = local.block_on(&runtime, async {
        let tasks: Vec<_> = plan
            .aims
            .iter()
            .map(|aim| tokio::task::spawn_local(one(aim.clone(), plan.clone(), Rc::clone(&tls))))
            .collect();
        let mut done = Vec::with_capacity(tasks.len());
        for task in tasks {
            tokio::pin!(task);
            loop {
                tokio::select! {
                    result = &mut task => {
                        done.extend(result.ok());
                        break;
                    }
                    () = tokio::time::sleep(Span::from_millis(50)) => if interrupted() {
                        task.abort();
                        break;
                    }
                }
            }
        }
        done
    });
    // A name look-up in the C library cannot be called off; it must not hold the answer up.
    runtime.shutdown_background();
    Ok(measured)
}

/// How well `samples` could be measured.
pub fn status(samples: &[PathSample]) -> SourceStatus {
    // What is missing is mostly missing for all: a privilege, a kernel's feature.
    let mut problems: Vec<(&str, Vec<String>)> = Vec::new();
    for sample in samples {
        let unsent = sample.failures.iter().filter_map(|(failure, _)| match failure {
            Failure::Local(why) => Some(why),
            _ => None,
        });
        let target = sample.target.to_string();
        for why in sample.problems.iter().chain(unsent) {
            match problems.iter_mut().find(|(known, _)| *known == why.as_str()) {
                Some((_, targets)) if targets.contains(&target) => {}
                Some((_, targets)) => targets.push(target.clone()),
                None => problems.push((why, vec![target.clone()])),
            }
        }
    }
    let told = problems
        .iter()
        .take(PROBLEMS)
        .map(|(why, targets)| match targets.as_slice() {
            [one] => format!("{one}: {why}"),
            all if all.len() == samples.len() => format!("all targets: {why}"),
            [one, others @ ..] => format!("{one} and {} more: {why}", others.len()),
            [] => (*why).to_owned(),
        });
    let problems: Vec<String> = told.collect();
    let any = samples
        .iter()
        .any(|s| !s.rtts.0.is_empty() || s.failures.iter().any(|(f, _)| !matches!(f, Failure::Local(_))));
    match (problems.is_empty(), any) {
        (true, true) => SourceStatus::ok(),
        (false, true) => SourceStatus::degraded(problems.join("; ")),
        (true, false) => SourceStatus::unavailable("nothing could be sent"),
        (false, false) => SourceStatus::unavailable(problems.join("; ")),
    }
}

async fn one(aim: Aim, plan: Plan, tls: Rc<Tls>) -> Measured {
    let begun = clock::instant();
    let plan = Plan {
        mtu: plan.mtu || aim.mtu,
        ..plan
    };
    let mut sample = PathSample {
        system_resolver: aim.system_resolver,
        sibling: aim.sibling,
        ..PathSample::unmeasured(aim.target.clone())
    };
    match resolve(&aim.target).await {
        Ok((address, took)) => {
            sample.address = Some(address.ip());
            if let Some(took) = took {
                sample.stages.push((Stage::NameLookup, Rtts(vec![took])));
            }
            towards(address, &plan, &tls, &mut sample).await;
        }
        Err(problem) => sample.problems.push(problem),
    }
    (clock::now(), begun.elapsed(), sample)
}

async fn towards(address: SocketAddr, plan: &Plan, tls: &Rc<Tls>, sample: &mut PathSample) {
    let tally = Rc::new(std::cell::RefCell::new(Tally::default()));
    let begun = tokio::time::Instant::now();
    let mut attempts = Vec::new();
    for n in 0..plan.count {
        tokio::time::sleep_until(begun + plan.interval * n).await;
        let (target, tally, timeout) = (sample.target.clone(), Rc::clone(&tally), plan.timeout);
        let tls = Rc::clone(tls);
        attempts.push(tokio::task::spawn_local(async move {
            let outcome = attempt(&target, address, n, timeout, &tls).await;
            tally.borrow_mut().add(outcome);
        }));
    }
    for attempt in attempts {
        let _ = attempt.await;
    }
    // A name server is asked small questions.
    if plan.mtu && !matches!(sample.target.method, Method::Dns(_)) {
        match mtu::search(address.ip(), plan.timeout).await {
            Ok(found) => sample.mtu = Some(found),
            Err(why) => sample.problems.push(format!("{}{why}", mtu::PROBLEM)),
        }
    }
    if plan.hops {
        match hops::trace(address, &sample.target.method).await {
            Ok(hops) => sample.hops = hops,
            Err(why) => sample.problems.push(format!("hops: {why}")),
        }
    }
    let chain = tally.borrow_mut().write(sample);
    if let Ok(name) = tls::server_name(&sample.target.host) {
        sample.certificate = tls.judge(&name, &chain);
    }
}

async fn attempt(target: &Target, address: SocketAddr, sequence: u32, timeout: Span, tls: &Tls) -> Outcome {
    let datagrams = async {
        match &target.method {
            Method::Udp(_) => datagram::round_trip(address).await,
            Method::Dns(_) => datagram::question(address, &target.host).await,
            _ => echo::round_trip(address.ip(), sequence).await,
        }
    };
    match target.method {
        Method::Tcp(_) | Method::Tls(_) | Method::Http { .. } => {
            stream::attempt(target, address, timeout, tls).await
        }
        Method::Icmp | Method::Udp(_) | Method::Dns(_) => Outcome::of(
            tokio::time::timeout(timeout, datagrams)
                .await
                .unwrap_or(Err(Failure::Timeout)),
        ),
    }
}

/// The address to try, and how long a name took. Of several addresses the first is taken, as a program would.
async fn resolve(target: &Target) -> Result<(SocketAddr, Option<Span>), String> {
    let port = target.method.port().unwrap_or(0);
    if let Method::Dns(server) = &target.method {
        return server
            .map(|server| (server, None))
            .ok_or_else(|| "no name server to ask is known".to_owned());
    }
    if let Ok(address) = target.host.parse::<IpAddr>() {
        return Ok((SocketAddr::new(address, port), None));
    }
    let begun = clock::instant();
    let found = tokio::net::lookup_host((target.host.as_str(), port)).await;
    let took = begun.elapsed();
    let name = &target.host;
    match found.map(|mut addresses| addresses.next()) {
        Ok(Some(address)) => Ok((address, Some(took))),
        Ok(None) => Err(format!("the name {name} has no address")),
        Err(e) => Err(format!("the name {name} does not resolve: {e}")),
    }
}
