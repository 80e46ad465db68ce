// SPDX-License-Identifier: GPL-2.0
//
// Walks the tables of TCP and UDP sockets and counts them in the kernel, by (source, destination, state): what
// src/observe/tally/sockets.rs makes of sock_diag's dump, without carrying each socket to user space. See README.md.

#include "kernel.h"

char LICENSE[] SEC("license") = "GPL";

// The layouts are read and written by src/wire/bpf_tables.rs.

// 13 are used: a power of two, so that the verifier sees the bound of `slot`.
#define STATES 16
#define slot(state) ((state) & (STATES - 1))
#define CLASSES 6
#define INODES 16
#define UIDS 8
#define WORDS 1024

struct place {
	__u32 source[4];
	__u32 destination[4];
	__u16 port;
	__u8 protocol;
	__u8 zero;
};

struct use {
	__u32 states[STATES];
	__u32 ports_in_range;
	// TIME_WAIT by remaining life, in classes of 10 s.
	__u32 left[CLASSES];
	// The greatest inodes, in no order; 0 where there are fewer.
	__u32 inodes[INODES];
	__u32 uids[UIDS];
	__u32 uid_count;
};

struct board {
	// Set before a walk: the ports that the kernel hands out, and the jiffies of 10 s.
	__u64 usable[WORDS];
	__u64 ten_seconds;
	// What the walks fill in.
	__u64 tcp_served[WORDS];
	__u64 tcp_everywhere[WORDS];
	__u64 udp_served[WORDS];
	__u64 udp_everywhere[WORDS];
	__u64 udp_ports[WORDS];
	__u64 jiffies;
	__u64 monotonic;
	// Sockets whose destination or port did not fit.
	__u64 outbound_beyond;
	__u64 inbound_beyond;
	__u32 tcp[STATES];
	__u32 udp;
};

struct end {
	__u32 address[4];
	__u16 port;
	__u16 protocol;
};

struct states {
	__u32 states[STATES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct board);
} board SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct place);
	__type(value, struct use);
} outbound SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct states);
} inbound SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct end);
	__type(value, __u32);
} specific SEC(".maps");

static const struct use nothing;

struct tcp_walk {
	void *meta;
	struct sock_common *sk;
	__u32 uid;
};

struct udp_walk {
	void *meta;
	struct sock *sk;
	__u32 uid;
};

// Read once: what is read again is not known to be checked.
#define once(field) (*(typeof(field) volatile *)&(field))

#define word(port) (((port) >> 6) & (WORDS - 1))
#define bit(port) (1ULL << ((port) & 63))

static __always_inline struct board *get_board(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&board, &zero);
}

static __always_inline void clock(struct board *b)
{
	b->jiffies = bpf_jiffies64();
	b->monotonic = bpf_ktime_get_ns();
}

static __always_inline void local(__u32 *address, const struct sock_common *c, int family)
{
	if (family == AF_INET6) {
		address[0] = c->skc_v6_rcv_saddr.in6_u.u6_addr32[0];
		address[1] = c->skc_v6_rcv_saddr.in6_u.u6_addr32[1];
		address[2] = c->skc_v6_rcv_saddr.in6_u.u6_addr32[2];
		address[3] = c->skc_v6_rcv_saddr.in6_u.u6_addr32[3];
	} else {
		address[0] = 0;
		address[1] = 0;
		address[2] = MAPPED;
		address[3] = c->skc_rcv_saddr;
	}
}

static __always_inline void remote(__u32 *address, const struct sock_common *c, int family)
{
	if (family == AF_INET6) {
		address[0] = c->skc_v6_daddr.in6_u.u6_addr32[0];
		address[1] = c->skc_v6_daddr.in6_u.u6_addr32[1];
		address[2] = c->skc_v6_daddr.in6_u.u6_addr32[2];
		address[3] = c->skc_v6_daddr.in6_u.u6_addr32[3];
	} else {
		address[0] = 0;
		address[1] = 0;
		address[2] = MAPPED;
		address[3] = c->skc_daddr;
	}
}

static __always_inline int unspecified(const __u32 *a)
{
	return !a[0] && !a[1] && (!a[2] || a[2] == MAPPED) && !a[3];
}

// An end is served: a listener's, or an unconnected UDP socket's. Beyond the bound of `specific` it counts at every address.
static __always_inline void serve(__u64 *ports, __u64 *everywhere, const struct end *end)
{
	__u32 one = 1;

	ports[word(end->port)] |= bit(end->port);
	if (unspecified(end->address) || bpf_map_update_elem(&specific, end, &one, BPF_ANY))
		everywhere[word(end->port)] |= bit(end->port);
}

static __always_inline int is_served(const __u64 *ports, const __u64 *everywhere, const struct end *end)
{
	if (!(ports[word(end->port)] & bit(end->port)))
		return 0;
	return everywhere[word(end->port)] & bit(end->port) || bpf_map_lookup_elem(&specific, end);
}

static __always_inline void count_inbound(struct board *b, __u32 port, __u32 state)
{
	struct states *found = bpf_map_lookup_elem(&inbound, &port);

	if (!found) {
		struct states none = {};

		if (bpf_map_update_elem(&inbound, &port, &none, BPF_ANY)) {
			b->inbound_beyond++;
			return;
		}
		found = bpf_map_lookup_elem(&inbound, &port);
	}
	if (found)
		found->states[slot(state)]++;
}

// The greatest are the newest.
static __always_inline void keep_inode(struct use *use, __u32 inode)
{
	__u32 least = 0;

#pragma unroll
	for (__u32 i = 1; i < INODES; i++)
		if (use->inodes[i] < use->inodes[least & (INODES - 1)])
			least = i;
	if (inode > use->inodes[least & (INODES - 1)])
		use->inodes[least & (INODES - 1)] = inode;
}

static __always_inline void keep_uid(struct use *use, __u32 uid)
{
	__u32 count = use->uid_count;

#pragma unroll
	for (__u32 i = 0; i < UIDS; i++)
		if (i < count && use->uids[i] == uid)
			return;
	if (count < UIDS) {
		use->uids[count & (UIDS - 1)] = uid;
		use->uid_count = count + 1;
	}
}

static __always_inline struct use *use_of(struct board *b, const struct place *place)
{
	struct use *use = bpf_map_lookup_elem(&outbound, place);

	if (use)
		return use;
	if (bpf_map_update_elem(&outbound, place, &nothing, BPF_ANY)) {
		b->outbound_beyond++;
		return 0;
	}
	return bpf_map_lookup_elem(&outbound, place);
}

static __always_inline __u32 inode_of(const struct sock *sk)
{
	struct socket *socket = read_kernel(&sk->sk_socket);

	return socket ? (__u32)read_kernel(&((struct socket_alloc *)socket)->vfs_inode.i_ino) : 0;
}

static __always_inline void hold(struct use *use, const struct sock *sk, __u32 uid)
{
	__u32 inode = inode_of(sk);

	if (!inode)
		return;
	keep_inode(use, inode);
	keep_uid(use, uid);
}

static __always_inline void count_time_wait(struct board *b, struct use *use, const struct inet_timewait_sock *tw)
{
	__u64 expires = read_kernel(&tw->tw_timer.expires);
	__u64 now = bpf_jiffies64();
	__u64 left = (__s64)(expires - now) > 0 ? expires - now : 0;
	__u64 class = b->ten_seconds ? left / b->ten_seconds : 0;

	if (class >= CLASSES)
		class = CLASSES - 1;
	use->left[class]++;
}

SEC("iter/tcp")
int tcp(struct tcp_walk *ctx)
{
	const struct sock_common *c = once(ctx->sk);
	struct board *b = get_board();
	struct place place = {};
	struct end end = {};
	struct use *use;
	__u32 state, kind;
	int family;

	if (!b)
		return 0;
	if (!c) {
		clock(b);
		return 0;
	}
	// What sock_diag shows: the state that a small TIME_WAIT socket stands for, and requests as SYN_RECV.
	kind = c->skc_state;
	state = kind;
	if (kind == TCP_TIME_WAIT)
		state = read_kernel(&((const struct inet_timewait_sock *)c)->tw_substate);
	else if (kind == TCP_NEW_SYN_RECV)
		state = TCP_SYN_RECV;
	b->tcp[slot(state)]++;
	family = c->skc_family;
	end.port = c->skc_num;
	end.protocol = IPPROTO_TCP;
	local(end.address, c, family);
	if (state == TCP_LISTEN) {
		serve(b->tcp_served, b->tcp_everywhere, &end);
		return 0;
	}
	if (state == TCP_SYN_RECV || is_served(b->tcp_served, b->tcp_everywhere, &end)) {
		count_inbound(b, end.port, state);
		return 0;
	}
	place.port = bpf_ntohs(c->skc_dport);
	if (!place.port)
		return 0;
	place.protocol = IPPROTO_TCP;
	__builtin_memcpy(place.source, end.address, sizeof(place.source));
	remote(place.destination, c, family);
	use = use_of(b, &place);
	if (!use)
		return 0;
	use->states[slot(state)]++;
	if (b->usable[word(end.port)] & bit(end.port))
		use->ports_in_range++;
	if (kind != TCP_TIME_WAIT)
		hold(use, (const struct sock *)c, ctx->uid);
	else if (state == TCP_TIME_WAIT)
		count_time_wait(b, use, (const struct inet_timewait_sock *)c);
	return 0;
}

// The first walk finds what is served, the second who is connected.
SEC("iter/udp")
int udp_served(struct udp_walk *ctx)
{
	const struct sock *sk = once(ctx->sk);
	struct board *b = get_board();
	struct end end = {};

	if (!b)
		return 0;
	if (!sk) {
		clock(b);
		return 0;
	}
	b->udp++;
	end.port = sk->__sk_common.skc_num;
	end.protocol = IPPROTO_UDP;
	b->udp_ports[word(end.port)] |= bit(end.port);
	if (sk->__sk_common.skc_dport)
		return 0;
	local(end.address, &sk->__sk_common, sk->__sk_common.skc_family);
	serve(b->udp_served, b->udp_everywhere, &end);
	return 0;
}

SEC("iter/udp")
int udp_connected(struct udp_walk *ctx)
{
	const struct sock *sk = once(ctx->sk);
	const struct sock_common *c;
	struct board *b = get_board();
	struct place place = {};
	struct end end = {};
	struct use *use;
	__u32 state;
	int family;

	if (!b || !sk)
		return 0;
	c = &sk->__sk_common;
	place.port = bpf_ntohs(c->skc_dport);
	if (!place.port)
		return 0;
	family = c->skc_family;
	end.port = c->skc_num;
	end.protocol = IPPROTO_UDP;
	local(end.address, c, family);
	if (is_served(b->udp_served, b->udp_everywhere, &end))
		return 0;
	place.protocol = IPPROTO_UDP;
	__builtin_memcpy(place.source, end.address, sizeof(place.source));
	remote(place.destination, c, family);
	use = use_of(b, &place);
	state = c->skc_state;
	if (!use)
		return 0;
	use->states[slot(state)]++;
	if (b->usable[word(end.port)] & bit(end.port))
		use->ports_in_range++;
	hold(use, sk, ctx->uid);
	return 0;
}
