//! Doctors at all three hosts of a lab that look at the same time, and what each said.

use super::{Look, Repeat, Running, Scenario, Verdict};
use crate::lab::tunnel::{self, SERVER_IN};
use crate::lab::wait::holds_for;
use crate::lab::{Lab, Namespace, Nat, SOON, Tunnel, WgDevice, wait_until};
use std::time::Duration;

/// client — masquerading router — server.
#[track_caller]
pub fn masqueraded() -> Option<Lab> {
    Lab::nat(Nat::Masquerade)
}

/// The tunnel's client wants something, again and again.
pub fn wants(tunnel: &Tunnel) -> Repeat {
    let ns = tunnel.client.namespace().clone();
    Repeat::every(Duration::from_secs(1), move || tunnel::knock(&ns, SERVER_IN))
}

/// Waits until a device, which sends nothing else, has sent so many initiations since it was started.
#[track_caller]
pub fn await_initiations(device: &WgDevice, count: u64) {
    wait_until(SOON, "initiations", || device.dump().peer().tx >= count * 148);
}

/// Doctors that look already.
#[derive(Debug)]
pub struct Everywhere {
    client: Running,
    server: Running,
    router: Running,
}

impl Everywhere {
    /// Starts them; `case` names the records that are kept where the environment asks for it.
    #[track_caller]
    pub fn start(lab: &Lab, case: &str) -> Self {
        let at = |ns: &Namespace, place: &str| {
            Look::at(lab, ns)
                .until_told()
                .case(&format!("{case}-{place}"))
                .start()
        };
        let (client, server, router) = (
            at(lab.client(), "initiator"),
            at(lab.server(), "responder"),
            at(lab.router(), "router"),
        );
        Self {
            client: client.await_watching(),
            server: server.await_watching(),
            router: router.await_watching(),
        }
    }

    /// Ends them now and reads their reports.
    #[track_caller]
    pub fn enough(self) -> Seen {
        for running in [&self.client, &self.server, &self.router] {
            running.interrupt();
        }
        Seen {
            client: self.client.finish(),
            server: self.server.finish(),
            router: self.router.finish(),
        }
    }

    /// Ends them when the initiator, which never had an answer, has sent its third initiation: the time of the
    /// second is over then, about eleven seconds after the first.
    #[track_caller]
    pub fn after_three_tries(self, initiator: &WgDevice) -> Seen {
        await_initiations(initiator, 3);
        // Each observer looks a last time, and what comes in while they do is seen by some and not by others.
        holds_for(
            Duration::from_secs(1),
            "the third initiation to be the last",
            || initiator.dump().peer().tx < 4 * 148,
        );
        self.enough()
    }
}

/// What each said.
#[derive(Debug)]
pub struct Seen {
    /// At the lab's client.
    pub client: Verdict,
    /// At its server.
    pub server: Verdict,
    /// At the router.
    pub router: Verdict,
}

impl Seen {
    /// Compares it with what is published of a fault in which the client calls the server.
    #[track_caller]
    pub fn hold(&self, name: &str, fault: &str) {
        Scenario::of(name, fault)
            .initiator(&self.client)
            .responder(&self.server)
            .router(&self.router)
            .holds();
    }

    /// The same, where the server calls the client.
    #[track_caller]
    pub fn hold_reversed(&self, name: &str, fault: &str) {
        Scenario::of(name, fault)
            .initiator(&self.server)
            .responder(&self.client)
            .router(&self.router)
            .holds();
    }
}
