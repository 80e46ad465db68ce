// SPDX-License-Identifier: GPL-2.0
//
// Counts outgoing TCP connections by (process, source, destination): opens, failures by cause, closes and who closed
// first, lifetimes, bytes, concurrency, bursts. See README.md for the hook, the bounds and the cost.

#include "kernel.h"

char LICENSE[] SEC("license") = "GPL";

// The network namespace to count in, by its inode; set at load. 0 counts in all of them.
const volatile __u32 only_netns = 0;

// The observer's PID namespace, by its inode; 0 where it is the initial one. Set at load.
const volatile __u32 own_pidns = 0;

// Whether the kernel gives pointers to tasks and TCP sockets that a program may follow by itself (Linux 5.11). Set at load; what
// is not for this kernel is cut out by its verifier.
const volatile __u32 follows = 0;

typedef const struct sock *source_t;

static __always_inline void fact_addresses(void *to, source_t sk);
struct tally;
static __always_inline void fact_process(struct tally *tally);
static __always_inline void fact_bytes(struct tally *tally, source_t sk);

// The local port as it is in packets. It outlives the port itself, which is put back before the socket is told closed.
static __always_inline __u16 fact_local_port(source_t sk)
{
	return read_kernel(&((const struct inet_sock *)sk)->inet_sport);
}

static __always_inline int fact_bound(source_t sk)
{
	return sk->__sk_common.skc_num != 0;
}

static __always_inline int fact_error(source_t sk)
{
	return sk->sk_err;
}

static __always_inline int fact_shut_down(source_t sk)
{
	return sk->sk_shutdown;
}

static __always_inline struct task_struct *leader(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return read_kernel(&task->group_leader);
}

static __always_inline __u64 fact_started(void)
{
	if (follows)
		return bpf_get_current_task_btf()->group_leader->start_boottime;
	return read_kernel(&leader()->start_boottime);
}

// Entries are allocated when they are needed, off a cache of each processor (Linux 6.1; by kmalloc before): taking them off a list
// that all share costs more.
#define SOCKETS_FLAGS BPF_F_NO_PREALLOC

#include "connects.h"

static __always_inline void fact_addresses(void *to, source_t sk)
{
	const struct sock_common *c = &sk->__sk_common;
	struct key *key = to;

	if (c->skc_family == AF_INET6 &&
	    (c->skc_v6_daddr.in6_u.u6_addr32[0] || c->skc_v6_daddr.in6_u.u6_addr32[1] ||
	     c->skc_v6_daddr.in6_u.u6_addr32[2] != MAPPED)) {
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
		key->source[2] = MAPPED;
		key->source[3] = c->skc_rcv_saddr;
		key->destination[2] = MAPPED;
		key->destination[3] = c->skc_daddr;
	}
	key->port = bpf_ntohs(c->skc_dport);
}

static __always_inline void fact_process(struct tally *tally)
{
	struct task_struct *first = leader();

	bpf_probe_read_kernel(tally->comm, sizeof(tally->comm), &first->comm);
	if (own_pidns)
		tally->tgid_here = id_in(first, own_pidns);
}

static __always_inline void add_bytes(struct tally *tally, __u64 acked, __u64 received, __u32 under_way)
{
	// The SYN is acknowledged as one byte.
	if (acked)
		acked -= 1;
	// What was written and is not acknowledged yet is under way: the process may close at once after it has written.
	add(tally->bytes_sent, acked + under_way);
	add(tally->bytes_received, received);
}

static __always_inline void fact_bytes(struct tally *tally, source_t sk)
{
	if (follows) {
		const struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);

		if (tcp)
			add_bytes(tally, tcp->bytes_acked, tcp->bytes_received, tcp->write_seq - tcp->snd_una);
	} else {
		const struct tcp_sock *tcp = (const struct tcp_sock *)sk;

		add_bytes(tally, read_kernel(&tcp->bytes_acked), read_kernel(&tcp->bytes_received),
			  read_kernel(&tcp->write_seq) - read_kernel(&tcp->snd_una));
	}
}

static __always_inline int elsewhere(const struct sock *sk)
{
	return sk->sk_protocol != IPPROTO_TCP ||
	       (only_netns && sk->__sk_common.skc_net.net->ns.inum != only_netns);
}

SEC("tp_btf/inet_sock_set_state")
int connects(__u64 *ctx)
{
	const struct sock *sk = (const struct sock *)ctx[0];
	int old = (int)ctx[1];
	int new = (int)ctx[2];

	// Of what is not counted nothing is followed: only the first change has to tell what that is.
	if (!matters(old, new) || (new == TCP_SYN_SENT && elsewhere(sk)))
		return 0;
	count_change(sk, (__u64)sk, old, new);
	return 0;
}

// Of interest is only that the first packet of a connection goes out again: nobody has answered it for a second.
SEC("tp_btf/tcp_retransmit_skb")
int retransmits(__u64 *ctx)
{
	const struct sock *sk = (const struct sock *)ctx[0];
	struct opened *opened;
	struct tally *tally;
	__u64 id = (__u64)sk;

	if (sk->__sk_common.skc_state != TCP_SYN_SENT)
		return 0;
	opened = bpf_map_lookup_elem(&sockets, &id);
	if (!opened)
		return 0;
	if (opened->retransmits < 255)
		opened->retransmits++;
	tally = bpf_map_lookup_elem(&tallies, &opened->key);
	if (tally)
		add(tally->syn_retransmits, 1);
	return 0;
}
