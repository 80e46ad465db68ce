//! Bytes and text ↔ types: one file a format, no I/O, no clock, no panic; each constant cites its source.

#[cfg(test)]
pub(crate) mod boring;
pub mod bpf_records;
pub mod bpf_tables;
pub mod btf;
pub mod dialect;
pub mod dns;
pub mod echo;
pub mod elf;
pub mod fly_instances;
pub mod flyctl;
pub mod frame;
pub mod icmp;
pub mod ip;
pub mod key_file;
pub mod key_ring;
pub mod kmsg;
pub mod mac;
pub mod natpmp;
pub mod netlink;
pub mod nf_conntrack_stat;
pub mod noise;
pub mod pcap;
pub mod proc_net;
pub mod procfs;
pub mod resolv_conf;
pub mod runtime_name;
pub mod shape;
pub mod stun;
pub mod tai64n;
pub mod uapi;
pub mod upnp;
pub mod wg_quick;
pub mod wireguard;
