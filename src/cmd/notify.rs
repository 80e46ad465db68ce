//! Tells the service manager how the agent fares (sd_notify(3)), where it wants to be told.
//!
//! In: what happens. Out: datagrams to `$NOTIFY_SOCKET`. A manager that hangs must not make the agent hang, so nothing waits for
//! it: what finds no room is sent with the next word, but for signs of life, of which the next will do.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

use crate::agent::Notify;
use crate::sys::clock;
use crate::time::Span;

/// Words that found no room; the oldest makes room.
const OWED: usize = 8;

/// The service manager.
pub struct ServiceManager {
    to: Option<(UnixDatagram, SocketAddr)>,
    owed: VecDeque<String>,
    watchdog: Option<Span>,
    told: Option<std::time::Instant>,
}

impl ServiceManager {
    /// As this process's environment says.
    pub fn of_this_process() -> Self {
        let to = std::env::var_os("NOTIFY_SOCKET").and_then(|name| match open(&name) {
            Ok(to) => Some(to),
            Err(error) => {
                tracing::warn!("NOTIFY_SOCKET: the service manager cannot be told: {error}");
                None
            }
        });
        Self {
            to,
            owed: VecDeque::new(),
            watchdog: sd_notify::watchdog_enabled(),
            told: None,
        }
    }

    /// Tells what must arrive.
    fn tell(&mut self, states: &[NotifyState<'_>]) {
        if self.owed.len() == OWED {
            self.owed.pop_front();
        }
        self.owed.push_back(text(states));
        self.send_owed();
    }

    /// False where there is no room.
    fn send_owed(&mut self) -> bool {
        while let Some(text) = self.owed.front() {
            if !self.send(text) {
                return false;
            }
            self.owed.pop_front();
        }
        true
    }

    fn send(&self, text: &str) -> bool {
        let Some((socket, address)) = &self.to else {
            return true;
        };
        match socket.send_to_addr(text.as_bytes(), address) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                tracing::debug!("the service manager could not be told: {error}");
                true
            }
        }
    }
}

/// `name` is a path, or a name without one where it begins with `@`.
fn open(name: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

fn text(states: &[NotifyState<'_>]) -> String {
    states.iter().map(|state| format!("{state}\n")).collect()
}

impl Notify for ServiceManager {
    fn ready(&mut self) {
        self.tell(&[NotifyState::Ready]);
    }

    fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!("the service manager could not be told: {error}"),
        }
    }

    fn alive(&mut self) {
        let room = self.send_owed();
        let Some(watchdog) = self.watchdog else { return };
        let now = clock::instant();
        if room && self.told.is_none_or(|told| now - told >= watchdog / 3) {
            self.told = Some(now);
            self.send(&text(&[NotifyState::Watchdog]));
        }
    }

    fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(name: &OsString) -> ServiceManager {
        ServiceManager {
            to: Some(open(name).unwrap()),
            owed: VecDeque::new(),
            watchdog: Some(Span::ZERO),
            told: None,
        }
    }

    #[test]
    fn one_that_does_not_read_holds_nobody_up_and_is_told_when_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut manager = manager(&path.into_os_string());
        // Until there is no room, and on.
        while manager.send("WATCHDOG=1\n") {}
        manager.ready();
        manager.alive();
        manager.stopping();
        assert_eq!(manager.owed, ["READY=1\n", "STOPPING=1\n"]);
        let mut bytes = [0; 64];
        let mut heard = Vec::new();
        while !heard.contains(&"STOPPING=1\n".to_owned()) {
            let length = socket.recv(&mut bytes).unwrap();
            heard.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            manager.alive();
        }
        assert!(heard.contains(&"READY=1\n".to_owned()), "{heard:?}");
    }

    #[test]
    fn a_name_without_a_path_is_found() {
        let name = format!("wgnat-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        manager(&format!("@{name}").into()).ready();
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"READY=1\n");
    }
}
