//! Room in the machine's conntrack tables for as long as a bench runs.

/// `nf_conntrack_max`, as it is to be again.
pub struct Limit(Option<String>);

impl Limit {
    const PATH: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

    /// Room for `entries`, where there is too little.
    pub fn raise(entries: u32) -> Self {
        let before = std::fs::read_to_string(Self::PATH)
            .expect("conntrack is there")
            .trim()
            .to_owned();
        let wanted = entries + entries / 20;
        if before.parse().is_ok_and(|now: u32| now == 0 || now >= wanted) {
            return Self(None);
        }
        // First the signals, so that there is no moment in which one would leave it raised.
        let mut signals = signal_hook::iterator::Signals::new([
            signal_hook::consts::SIGINT,
            signal_hook::consts::SIGTERM,
            signal_hook::consts::SIGHUP,
        ])
        .unwrap();
        let restored = before.clone();
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let _ = std::fs::write(Self::PATH, restored);
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        });
        std::fs::write(Self::PATH, wanted.to_string())
            .expect("root in the initial namespace may raise the limit");
        println!("nf_conntrack_max is {wanted} for this run, and {before} again after it\n");
        Self(Some(before))
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = std::fs::write(Self::PATH, before);
        }
    }
}
