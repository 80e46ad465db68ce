//! `wgnat analyze` of a large capture against `tshark -Y wg` and `cat`, in one run, as ratios, with its peak memory.
//!
//! The capture is made here, in a temporary directory, and removed afterwards: several tunnels that rekey every two
//! minutes, two thirds full-size data and a third small, a little loss and reordering. `WGNAT_BENCH_MIB` sets its size
//! (1024).
#![allow(clippy::print_stdout)] // its table is its result

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs of each fast command; the fastest counts.
const RUNS: usize = 5;

fn main() -> io::Result<()> {
    // `cargo test` runs benches with this to see that they start.
    if std::env::args().any(|arg| arg == "--test") {
        return Ok(());
    }
    let mib: u64 = std::env::var("WGNAT_BENCH_MIB")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(1024);
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("wireguard.pcap");
    let packets = make(&file, mib << 20)?;
    let bytes = std::fs::metadata(&file)?.len();
    println!("capture: {} MiB, {packets} packets", bytes >> 20);
    // Into the page cache, so that no command pays for the disk.
    run("cat", &[path(&file)])?;

    let cat = best(|| run("cat", &[path(&file)]))?;
    let wgnat = env!("CARGO_BIN_EXE_wgnat");
    let analyze = best(|| run(wgnat, &["analyze", "--quiet", "--fail-on", "never", path(&file)]))?;
    // Two minutes of it: once is enough.
    let tshark = match run(
        "tshark",
        &["-r", path(&file), "-Y", "wg", "-T", "fields", "-e", "wg.type"],
    ) {
        Ok(ran) => Some(ran),
        Err(error) => {
            println!("tshark: not run ({error})");
            None
        }
    };
    println!("{:28} {:>10} {:>12} {:>12}", "", "seconds", "GiB/s", "peak MiB");
    let line = |name: &str, ran: &Ran| {
        let gib = bytes as f64 / f64::from(1u32 << 30) / ran.wall.as_secs_f64();
        println!(
            "{name:28} {:>10.3} {gib:>12.2} {:>12.1}",
            ran.wall.as_secs_f64(),
            ran.peak_kib as f64 / 1024.0
        );
    };
    line("cat FILE >/dev/null", &cat);
    line("wgnat analyze FILE", &analyze);
    if let Some(tshark) = &tshark {
        line("tshark -r FILE -Y wg", tshark);
    }
    let ratio = |a: &Ran, b: &Ran| a.wall.as_secs_f64() / b.wall.as_secs_f64();
    println!("analyze / cat: {:.2} (goal: at most 3)", ratio(&analyze, &cat));
    if let Some(tshark) = &tshark {
        println!(
            "tshark / analyze: {:.0} (goal: at least 50)",
            ratio(tshark, &analyze)
        );
    }
    println!(
        "ns per packet: {:.0}",
        analyze.wall.as_nanos() as f64 / packets as f64
    );
    println!(
        "peak memory of analyze: {:.1} MiB (goal: under 32)",
        analyze.peak_kib as f64 / 1024.0
    );
    Ok(())
}

struct Ran {
    wall: Duration,
    peak_kib: i64,
}

fn path(file: &Path) -> &str {
    file.to_str().unwrap_or_default()
}

fn best(mut run: impl FnMut() -> io::Result<Ran>) -> io::Result<Ran> {
    let mut best = run()?;
    for _ in 1..RUNS {
        let next = run()?;
        if next.wall < best.wall {
            best = next;
        }
    }
    Ok(best)
}

/// Runs a command with its output thrown away. GNU time tells its peak memory, which the kernel keeps for each child.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn run(program: &str, args: &[&str]) -> io::Result<Ran> {
    let started = Instant::now();
    let mut child = Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let peak = peak_of(child.id());
    let status = child.wait()?;
    let wall = started.elapsed();
    if !status.success() {
        return Err(io::Error::other(format!("{program} {args:?}: {status}")));
    }
    Ok(Ran {
        wall,
        peak_kib: peak.join().unwrap_or(0),
    })
}

/// Reads the high-water mark of a process's memory until it is gone.
fn peak_of(pid: u32) -> std::thread::JoinHandle<i64> {
    std::thread::spawn(move || {
        let mut peak = 0;
        while let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/status")) {
            let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
            let Some(kib) = line.and_then(|l| l.trim().split(' ').next()?.parse().ok()) else {
                break;
            };
            peak = peak.max(kib);
            std::thread::sleep(Duration::from_millis(10));
        }
        peak
    })
}

/// Tunnels in the capture.
const TUNNELS: u32 = 8;

/// Writes a pcap of about `size` bytes and says how many packets it holds.
fn make(file: &Path, size: u64) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(file)?);
    out.write_all(&[
        0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0,
    ])?;
    let mut made = Maker {
        out: &mut out,
        random: 1,
        nanos: 1_700_000_000_000_000_000,
        written: 24,
        packets: 0,
    };
    let mut counters = [[0u64; 2]; TUNNELS as usize];
    let mut epoch = 0;
    while made.written < size {
        // Rekeys come every two minutes; at the pace below that is about every 60,000 packets.
        if made.packets / 60_000 >= epoch {
            epoch += 1;
            for tunnel in 0..TUNNELS {
                made.handshake(tunnel, epoch)?;
            }
            counters = [[0; 2]; TUNNELS as usize];
        }
        let tunnel = made.next() % TUNNELS;
        let back = made.next().is_multiple_of(3);
        let inner = if back { 96 } else { 1420 };
        let counter = &mut counters[tunnel as usize][usize::from(back)];
        *counter += 1 + u64::from(made.next().is_multiple_of(1000));
        let late = u64::from(made.next().is_multiple_of(500));
        let counter = counter.saturating_sub(late);
        made.data(tunnel, epoch, back, counter, inner)?;
    }
    let packets = made.packets;
    out.flush()?;
    Ok(packets)
}

struct Maker<'a, W> {
    out: &'a mut W,
    random: u64,
    nanos: u64,
    written: u64,
    packets: u64,
}

impl<W: Write> Maker<'_, W> {
    fn next(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as u32
    }

    fn index(tunnel: u32, epoch: u64, back: bool) -> [u8; 4] {
        let epoch = u32::try_from(epoch).unwrap_or(0);
        (epoch * 0x9e37 + tunnel * 2 + u32::from(back))
            .wrapping_mul(0x85eb_ca6b)
            .to_le_bytes()
    }

    fn filler(&mut self, payload: &mut Vec<u8>, len: usize) {
        while payload.len() < len {
            payload.extend(self.next().to_le_bytes());
        }
        payload.truncate(len);
    }

    fn handshake(&mut self, tunnel: u32, epoch: u64) -> io::Result<()> {
        let (there, back) = (
            Self::index(tunnel, epoch, false),
            Self::index(tunnel, epoch, true),
        );
        let mut first = [&[1, 0, 0, 0][..], &back].concat();
        self.filler(&mut first, 132);
        first[39] &= 0x7f;
        first.resize(148, 0);
        self.packet(tunnel, false, &first)?;
        let mut second = [&[2, 0, 0, 0][..], &there, &back].concat();
        self.filler(&mut second, 76);
        second[43] &= 0x7f;
        second.resize(92, 0);
        self.packet(tunnel, true, &second)
    }

    fn data(&mut self, tunnel: u32, epoch: u64, back: bool, counter: u64, inner: usize) -> io::Result<()> {
        let mut payload = [
            &[4, 0, 0, 0][..],
            &Self::index(tunnel, epoch, back),
            &counter.to_le_bytes(),
        ]
        .concat();
        self.filler(&mut payload, inner + 32);
        self.packet(tunnel, back, &payload)
    }

    fn packet(&mut self, tunnel: u32, back: bool, payload: &[u8]) -> io::Result<()> {
        self.nanos += 2_000_000;
        self.packets += 1;
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(u16::try_from(28 + payload.len()).unwrap_or(0).to_be_bytes());
        frame.extend([0, 7, 0, 0, 64, 17, 0, 0]);
        let client = ([192, 0, 2, tunnel.to_le_bytes()[0] + 1], 40_000u16);
        let server = ([198, 51, 100, 2], 51_820u16);
        let (from, to) = if back { (server, client) } else { (client, server) };
        frame.extend(from.0);
        frame.extend(to.0);
        frame.extend(from.1.to_be_bytes());
        frame.extend(to.1.to_be_bytes());
        frame.extend(u16::try_from(8 + payload.len()).unwrap_or(0).to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(payload);
        let secs = u32::try_from(self.nanos / 1_000_000_000).unwrap_or(0);
        let micros = u32::try_from(self.nanos % 1_000_000_000 / 1000).unwrap_or(0);
        let length = u32::try_from(frame.len()).unwrap_or(0);
        for word in [secs, micros, length, length] {
            self.out.write_all(&word.to_le_bytes())?;
        }
        self.out.write_all(&frame)?;
        self.written += 16 + u64::from(length);
        Ok(())
    }
}
