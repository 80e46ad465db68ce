//! A long way: packets that leave a namespace towards one address take their time, whatever they are. This kernel has no
//! netem, so they go through a tun device and a thread that holds them back.

use super::Namespace;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// `TUNSETIFF` (linux/if_tun.h), and its flags for packets without a header of the device's own.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TUN: i16 = 1;
const IFF_NO_PI: i16 = 0x1000;
/// The table with the way that packets take afterwards.
const TABLE: &str = "77";
const DEVICE: &str = "slow0";

/// Holds packets back until it is dropped with the lab.
#[derive(Debug)]
pub struct Delay {
    stop: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Delay {
    /// Every packet from `ns` (whose link is eth0) to `to` leaves `delay` later.
    #[track_caller]
    pub fn start(ns: &Namespace, to: IpAddr, delay: Duration) -> Self {
        let tun = ns.run(open).expect("a tun device can be made");
        // What comes out of the device has a source of this host's own, and is to be sent on.
        ns.sysctl("net.ipv4.ip_forward", 1);
        for (key, value) in [("accept_local", 1), ("rp_filter", 0)] {
            ns.sysctl(&format!("net.ipv4.conf.{DEVICE}.{key}"), value);
        }
        ns.sysctl("net.ipv4.conf.all.rp_filter", 0);
        ns.ip(&[
            &format!("link set {DEVICE} up"),
            &format!("route add {to} dev eth0 table {TABLE}"),
            &format!("rule add iif {DEVICE} lookup {TABLE}"),
            &format!("route add {to} dev {DEVICE}"),
        ]);
        let (stopped, stop) = io::pipe().expect("a pipe can be made");
        let thread = std::thread::spawn(move || hold_back(tun, delay, &stopped));
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A tun device of the calling thread's namespace.
fn open() -> io::Result<File> {
    let tun = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: ifreq is plain data, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(DEVICE.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = IFF_TUN | IFF_NO_PI;
    // SAFETY: the descriptor is open and the request outlives the call.
    let made = unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF as _, &raw const request) };
    if made < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(tun)
    }
}

fn hold_back(tun: File, delay: Duration, stopped: &io::PipeReader) {
    let tun = Arc::new(tun);
    let (waiting, due) = std::sync::mpsc::channel::<(Instant, Vec<u8>)>();
    let out = Arc::clone(&tun);
    // They have the same delay, so they leave in the order in which they came.
    let sender = std::thread::spawn(move || {
        for (at, packet) in due {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            let _ = (&*out).write(&packet);
        }
    });
    let mut packet = vec![0; 65_536];
    loop {
        let mut fds = [
            PollFd::new(tun.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        let polled = poll(&mut fds, PollTimeout::NONE);
        let ended = fds[1].any().unwrap_or(true);
        if polled.is_err() || ended {
            break;
        }
        if let Ok(length) = (&*tun).read(&mut packet) {
            let _ = waiting.send((Instant::now() + delay, packet[..length].to_vec()));
        }
    }
    drop(waiting);
    let _ = sender.join();
}
