// SPDX-License-Identifier: GPL-2.0
//
// Counts outgoing TCP connections by (process, source, destination): opens, failures by cause, closes and who closed
// first, lifetimes, concurrency. See README.md for the hook, the bounds and the cost.

#include "kernel.h"

char LICENSE[] SEC("license") = "GPL";

// The network namespace to count in, by its inode; set at load. 0 counts in all of them.
const volatile __u32 only_netns = 0;

// The layouts of `key`, `tally` and `losses` are read by src/wire/bpf_records.rs.

// Addresses are IPv6; IPv4 is ::ffff:a.b.c.d, so that a mapped socket and a plain one share an entry.
struct key {
	__u32 source[4];
	__u32 destination[4];
	// When the process started, in nanoseconds since boot: tells a reused id apart.
	__u64 started;
	__u32 tgid;
	__u16 port;
	__u16 zero;
};

#define CLASSES 40

struct tally {
	char comm[16];
	__u64 attempts;
	__u64 established;
	__u64 no_port;
	__u64 tuple_taken;
	__u64 refused;
	__u64 timed_out;
	__u64 unreachable;
	__u64 given_up;
	__u64 failed_otherwise;
	__u64 closed_here;
	__u64 closed_there;
	__u64 reset_there;
	// Of all established ones that are closed.
	__u64 lifetime_ns;
	// CLOCK_MONOTONIC.
	__u64 no_port_first;
	__u64 no_port_last;
	__s64 open;
	__s64 peak;
	// Lifetimes: class i holds 2^i to 2^(i+1) microseconds, the first also what is shorter.
	__u32 lifetimes[CLASSES];
};

struct losses {
	// Entries made in `tallies`; what is not there any more was evicted.
	__u64 made;
	// Connections not followed because `sockets` was full or busy.
	__u64 not_followed;
	// Events whose entry had been evicted.
	__u64 orphans;
};

// A connection that a process has opened and not let go.
struct opened {
	struct key key;
	__u64 at;
	__u16 port_before;
	__u8 bound;
	__u8 established;
	__u8 closed_there;
	__u8 zero[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct key);
	__type(value, struct tally);
} tallies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct opened);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct losses);
} losses SEC(".maps");

// What a new entry begins as: too large for the stack beside the rest.
static const struct tally nothing;

#define add(field, n) __sync_fetch_and_add(&(field), (n))

static __always_inline struct losses *lost(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&losses, &zero);
}

static __always_inline void fill_key(struct key *key, const struct sock *sk)
{
	const struct sock_common *c = &sk->__sk_common;
	const __u32 mapped = bpf_htonl(0xffff);

	if (c->skc_family == AF_INET6 &&
	    (c->skc_v6_daddr.in6_u.u6_addr32[0] || c->skc_v6_daddr.in6_u.u6_addr32[1] ||
	     c->skc_v6_daddr.in6_u.u6_addr32[2] != mapped)) {
		key->source[0] = c->skc_v6_rcv_saddr.in6_u.u6_addr32[0];
		key->source[1] = c->skc_v6_rcv_saddr.in6_u.u6_addr32[1];
		key->source[2] = c->skc_v6_rcv_saddr.in6_u.u6_addr32[2];
		key->source[3] = c->skc_v6_rcv_saddr.in6_u.u6_addr32[3];
		key->destination[0] = c->skc_v6_daddr.in6_u.u6_addr32[0];
		key->destination[1] = c->skc_v6_daddr.in6_u.u6_addr32[1];
		key->destination[2] = c->skc_v6_daddr.in6_u.u6_addr32[2];
		key->destination[3] = c->skc_v6_daddr.in6_u.u6_addr32[3];
	} else {
		// A mapped socket's IPv4 fields are filled in too, and its IPv6 source may not be.
		key->source[2] = mapped;
		key->source[3] = c->skc_rcv_saddr;
		key->destination[2] = mapped;
		key->destination[3] = c->skc_daddr;
	}
	key->port = bpf_ntohs(c->skc_dport);
}

// The local port as it is in packets. It outlives the port itself, which is put back before the socket is told closed.
static __always_inline __u16 local_port(const struct sock *sk)
{
	const struct inet_sock *inet = (const struct inet_sock *)sk;
	__u16 port = 0;

	bpf_probe_read_kernel(&port, sizeof(port), &inet->inet_sport);
	return port;
}

static __always_inline struct tally *make_tally(const struct key *key, struct task_struct *leader)
{
	struct tally *tally;
	struct losses *l;

	if (bpf_map_update_elem(&tallies, key, &nothing, BPF_NOEXIST) == 0 && (l = lost()))
		add(l->made, 1);
	tally = bpf_map_lookup_elem(&tallies, key);
	if (tally)
		bpf_probe_read_kernel(tally->comm, sizeof(tally->comm), &leader->comm);
	return tally;
}

static __always_inline void begin(const struct sock *sk, __u64 id)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct task_struct *leader = 0;
	struct opened opened = {};
	struct tally *tally;
	struct losses *l;
	__s64 open;

	fill_key(&opened.key, sk);
	opened.key.tgid = bpf_get_current_pid_tgid() >> 32;
	bpf_probe_read_kernel(&leader, sizeof(leader), &task->group_leader);
	bpf_probe_read_kernel(&opened.key.started, sizeof(opened.key.started), &leader->start_boottime);
	opened.at = bpf_ktime_get_ns();
	opened.port_before = local_port(sk);
	opened.bound = sk->__sk_common.skc_num != 0;

	tally = bpf_map_lookup_elem(&tallies, &opened.key);
	if (!tally)
		tally = make_tally(&opened.key, leader);
	if (!tally || bpf_map_update_elem(&sockets, &id, &opened, BPF_ANY)) {
		if ((l = lost()))
			add(l->not_followed, 1);
		return;
	}
	add(tally->attempts, 1);
	add(tally->open, 1);
	// Two processors may pass here at a time: the peak can be short by those.
	open = tally->open;
	if (open > tally->peak)
		tally->peak = open;
}

static __always_inline void fail(struct tally *tally, const struct opened *opened, const struct sock *sk)
{
	switch (sk->sk_err) {
	case 0:
		if (sk->sk_shutdown) {
			add(tally->given_up, 1);
		} else if (opened->bound) {
			add(tally->tuple_taken, 1);
		} else if (sk->__sk_common.skc_num == 0 && local_port(sk) == opened->port_before) {
			__u64 now = bpf_ktime_get_ns();

			add(tally->no_port, 1);
			if (!tally->no_port_first)
				tally->no_port_first = now;
			tally->no_port_last = now;
		} else {
			add(tally->failed_otherwise, 1);
		}
		break;
	case ECONNREFUSED:
		add(tally->refused, 1);
		break;
	case ETIMEDOUT:
		add(tally->timed_out, 1);
		break;
	case EHOSTUNREACH:
	case ENETUNREACH:
		add(tally->unreachable, 1);
		break;
	default:
		add(tally->failed_otherwise, 1);
	}
}

static __always_inline __u32 log2_class(__u64 ns)
{
	__u64 us = ns / 1000;
	__u32 class = 0;

	if (us >> 32) { class += 32; us >>= 32; }
	if (us >> 16) { class += 16; us >>= 16; }
	if (us >> 8) { class += 8; us >>= 8; }
	if (us >> 4) { class += 4; us >>= 4; }
	if (us >> 2) { class += 2; us >>= 2; }
	if (us >> 1) class += 1;
	return class < CLASSES ? class : CLASSES - 1;
}

// The process lets the connection go, or it ended under it.
static __always_inline void end(const struct sock *sk, __u64 id, struct opened *opened, int new)
{
	struct tally *tally = bpf_map_lookup_elem(&tallies, &opened->key);
	struct losses *l;

	if (!tally) {
		if ((l = lost()))
			add(l->orphans, 1);
	} else {
		add(tally->open, -1);
		if (!opened->established) {
			fail(tally, opened, sk);
		} else {
			__u64 lived = bpf_ktime_get_ns() - opened->at;
			__u32 class = log2_class(lived);

			if (opened->closed_there)
				add(tally->closed_there, 1);
			else if (new == TCP_CLOSE && sk->sk_err)
				add(tally->reset_there, 1);
			else
				add(tally->closed_here, 1);
			add(tally->lifetime_ns, lived);
			if (class < CLASSES)
				add(tally->lifetimes[class], 1);
		}
	}
	bpf_map_delete_elem(&sockets, &id);
}

SEC("tp_btf/inet_sock_set_state")
int connects(__u64 *ctx)
{
	const struct sock *sk = (const struct sock *)ctx[0];
	int old = (int)ctx[1];
	int new = (int)ctx[2];
	struct opened *opened;
	__u64 id = (__u64)sk;

	// What follows the process's own close is of no interest, nor is the answering side before its own.
	switch (new) {
	case TCP_SYN_SENT:
	case TCP_ESTABLISHED:
	case TCP_FIN_WAIT1:
	case TCP_CLOSE_WAIT:
	case TCP_LAST_ACK:
		break;
	case TCP_CLOSE:
		if (old != TCP_SYN_SENT && old != TCP_ESTABLISHED && old != TCP_CLOSE_WAIT)
			return 0;
		break;
	default:
		return 0;
	}
	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (only_netns && sk->__sk_common.skc_net.net->ns.inum != only_netns)
		return 0;
	if (new == TCP_SYN_SENT) {
		begin(sk, id);
		return 0;
	}
	opened = bpf_map_lookup_elem(&sockets, &id);
	if (!opened)
		return 0;
	switch (new) {
	case TCP_ESTABLISHED: {
		struct tally *tally = bpf_map_lookup_elem(&tallies, &opened->key);

		opened->established = 1;
		if (tally)
			add(tally->established, 1);
		break;
	}
	case TCP_CLOSE_WAIT:
		opened->closed_there = 1;
		break;
	default:
		end(sk, id, opened, new);
	}
	return 0;
}
