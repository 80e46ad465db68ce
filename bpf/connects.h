/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What connects.bpf.c and plain.bpf.c share: the maps, and what a change of a socket's state counts as. Each includes this
 * after it has said how a socket's facts are read there (`source_t` and the functions named fact_…) and how the map of sockets is
 * allocated (SOCKETS_FLAGS).
 *
 * The layouts of `key`, `tally` and `losses` are read by src/wire/bpf_records.rs.
 */
#pragma once

// Addresses are IPv6; IPv4 is ::ffff:a.b.c.d, so that a mapped socket and a plain one share an entry.
struct key {
	__u32 source[4];
	__u32 destination[4];
	// When the process started, in nanoseconds since boot: tells a reused id apart. 0 where that is not known.
	__u64 started;
	// As the initial PID namespace numbers it.
	__u32 tgid;
	__u16 port;
	__u16 zero;
};

#define CLASSES 40

// So many opens within so long are a burst.
#define BURST 16
#define BURST_WINDOW 250000000ULL

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
	__u64 syn_retransmits;
	// Of the given up: those whose first packet had been sent again, so that they waited for a second at least.
	__u64 unanswered;
	// Of all established ones that are closed.
	__u64 bytes_sent;
	__u64 bytes_received;
	__u64 bursts;
	__u64 burst_opens;
	__u64 burst_first;
	__u64 burst_last;
	__u64 window_at;
	__u32 window_opens;
	// As the observer's own PID namespace numbers the process; 0 where it is not in there, or that is the initial one.
	__u32 tgid_here;
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
	__u8 retransmits;
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
	__uint(map_flags, SOCKETS_FLAGS);
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

static __always_inline struct tally *make_tally(const struct key *key)
{
	struct tally *tally;
	struct losses *l;

	if (bpf_map_update_elem(&tallies, key, &nothing, BPF_NOEXIST) == 0 && (l = lost()))
		add(l->made, 1);
	tally = bpf_map_lookup_elem(&tallies, key);
	if (tally)
		fact_process(tally);
	return tally;
}

static __always_inline void note_burst(struct tally *tally, __u64 now)
{
	// Two processors may pass here at a time: a burst can be short by those.
	__u32 opens;

	if (now - tally->window_at > BURST_WINDOW) {
		tally->window_at = now;
		tally->window_opens = 0;
	}
	opens = tally->window_opens + 1;
	tally->window_opens = opens;
	if (opens < BURST)
		return;
	if (opens > BURST) {
		add(tally->burst_opens, 1);
		return;
	}
	add(tally->bursts, 1);
	add(tally->burst_opens, BURST);
	if (!tally->burst_first)
		tally->burst_first = tally->window_at;
	tally->burst_last = tally->window_at;
}

static __always_inline void begin(source_t from, __u64 id)
{
	struct opened opened = {};
	struct tally *tally;
	struct losses *l;
	__s64 open;

	fact_addresses(&opened.key, from);
	opened.key.tgid = bpf_get_current_pid_tgid() >> 32;
	opened.key.started = fact_started();
	opened.at = bpf_ktime_get_ns();
	opened.port_before = fact_local_port(from);
	opened.bound = fact_bound(from);

	tally = bpf_map_lookup_elem(&tallies, &opened.key);
	if (!tally)
		tally = make_tally(&opened.key);
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
	note_burst(tally, opened.at);
}

static __always_inline void fail(struct tally *tally, const struct opened *opened, source_t from)
{
	switch (fact_error(from)) {
	case 0:
		if (fact_shut_down(from)) {
			add(tally->given_up, 1);
			if (opened->retransmits)
				add(tally->unanswered, 1);
		} else if (opened->bound) {
			add(tally->tuple_taken, 1);
		} else if (!fact_bound(from) && fact_local_port(from) == opened->port_before) {
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
static __always_inline void end(source_t from, __u64 id, struct opened *opened, int old, int new)
{
	struct tally *tally = bpf_map_lookup_elem(&tallies, &opened->key);
	struct losses *l;

	if (!tally) {
		if ((l = lost()))
			add(l->orphans, 1);
	} else {
		add(tally->open, -1);
		if (!opened->established) {
			fail(tally, opened, from);
		} else {
			__u64 lived = bpf_ktime_get_ns() - opened->at;
			__u32 class = log2_class(lived);

			if (old == TCP_CLOSE_WAIT)
				add(tally->closed_there, 1);
			else if (new == TCP_CLOSE && fact_error(from))
				add(tally->reset_there, 1);
			else
				add(tally->closed_here, 1);
			add(tally->lifetime_ns, lived);
			if (class < CLASSES)
				add(tally->lifetimes[class], 1);
			fact_bytes(tally, from);
		}
	}
	bpf_map_delete_elem(&sockets, &id);
}

// Whether a change of state is of interest. What follows the process's own close is not; neither is the answering side before its
// own close: its states until then are others, so it costs no look-up. A connection that both ends open passes SYN_RECV. That
// the other side has closed is told by the state in which this side does.
static __always_inline int matters(int old, int new)
{
	switch (new) {
	case TCP_SYN_SENT:
	case TCP_FIN_WAIT1:
	case TCP_LAST_ACK:
		return 1;
	case TCP_ESTABLISHED:
	case TCP_SYN_RECV:
		return old == TCP_SYN_SENT;
	case TCP_CLOSE:
		return old == TCP_SYN_SENT || old == TCP_SYN_RECV || old == TCP_ESTABLISHED || old == TCP_CLOSE_WAIT;
	default:
		return 0;
	}
}

static __always_inline void count_change(source_t from, __u64 id, int old, int new)
{
	struct opened *opened;

	if (new == TCP_SYN_SENT) {
		begin(from, id);
		return;
	}
	opened = bpf_map_lookup_elem(&sockets, &id);
	if (!opened)
		return;
	if (new == TCP_ESTABLISHED || new == TCP_SYN_RECV) {
		struct tally *tally = bpf_map_lookup_elem(&tallies, &opened->key);

		opened->established = 1;
		if (tally)
			add(tally->established, 1);
		return;
	}
	end(from, id, opened, old, new);
}
