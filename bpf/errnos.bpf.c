// SPDX-License-Identifier: GPL-2.0
//
// Counts system calls that failed for want of a local port where no tracepoint of sockets tells it: bind with EADDRINUSE, and
// connect and send of UDP sockets with EAGAIN. See README.md for the hook and its cost.

#include "kernel.h"

char LICENSE[] SEC("license") = "GPL";

// Set at load, as in connects.bpf.c.
const volatile __u32 only_netns = 0;
const volatile __u32 own_pidns = 0;

// System calls by number, and where `struct pt_regs` has the number and the first arguments: both are this machine's. Set at
// load.
const volatile __u32 nr_bind = 0;
const volatile __u32 nr_connect = 0;
const volatile __u32 nr_sendto = 0;
const volatile __u32 nr_sendmsg = 0;
const volatile __u32 at_number = 0;
const volatile __u32 at_fd = 0;
const volatile __u32 at_second = 0;
const volatile __u32 at_fifth = 0;

enum { BIND = 1, CONNECT, SEND };

// The layouts are read by src/wire/bpf_records.rs.
struct want {
	// As the socket is bound, or for bind: as it should be.
	__u32 source[4];
	__u32 destination[4];
	__u64 started;
	__u32 tgid;
	// The local port that was asked for; 0: any.
	__u16 source_port;
	__u16 destination_port;
	__u16 protocol;
	__u8 call;
	__u8 error;
	__u32 zero;
};

struct denied {
	char comm[16];
	__u64 count;
	// CLOCK_MONOTONIC.
	__u64 first;
	__u64 last;
	__u32 tgid_here;
	__u32 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct want);
	__type(value, struct denied);
} wants SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} wants_made SEC(".maps");

static __always_inline __u64 at(const void *regs, __u32 offset)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), regs + offset);
	return value;
}

static __always_inline const struct sock *socket_of(__u32 fd)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct fdtable *table = read_kernel(&read_kernel(&task->files)->fdt);
	struct file **files;
	struct file *file = 0;
	struct socket *socket;

	if (fd >= read_kernel(&table->max_fds))
		return 0;
	files = read_kernel(&table->fd);
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	if (!file)
		return 0;
	// None of these errors is one that a file of another kind gives to these calls (that would be ENOTSOCK).
	socket = read_kernel(&file->private_data);
	return socket ? read_kernel(&socket->sk) : 0;
}

static __always_inline void from_user(__u32 *address, __u16 *port, const void *user)
{
	// struct sockaddr_in6 and struct sockaddr_in alike have the family and the port in front.
	struct {
		__u16 family;
		__u16 port;
		__u32 words[5];
	} a = {};

	if (!user)
		return;
	if (bpf_probe_read_user(&a, 8, user))
		return;
	*port = bpf_ntohs(a.port);
	if (a.family == AF_INET) {
		address[2] = MAPPED;
		address[3] = a.words[0];
	} else if (a.family == AF_INET6 && !bpf_probe_read_user(&a, 24, user)) {
		address[0] = a.words[1];
		address[1] = a.words[2];
		address[2] = a.words[3];
		address[3] = a.words[4];
	}
}

static __always_inline void fill_source(struct want *want, const struct sock_common *c)
{
	if (read_kernel(&c->skc_family) == AF_INET6) {
		bpf_probe_read_kernel(want->source, sizeof(want->source), &c->skc_v6_rcv_saddr);
	} else {
		want->source[2] = MAPPED;
		want->source[3] = read_kernel(&c->skc_rcv_saddr);
	}
}

static __always_inline void count(struct want *want)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct task_struct *leader = read_kernel(&task->group_leader);
	__u64 now = bpf_ktime_get_ns();
	struct denied *denied;

	want->tgid = bpf_get_current_pid_tgid() >> 32;
	want->started = read_kernel(&leader->start_boottime);
	denied = bpf_map_lookup_elem(&wants, want);
	if (!denied) {
		struct denied none = {};
		__u32 zero = 0;
		__u64 *made = bpf_map_lookup_elem(&wants_made, &zero);

		none.first = now;
		bpf_probe_read_kernel(none.comm, sizeof(none.comm), &leader->comm);
		if (own_pidns)
			none.tgid_here = id_in(leader, own_pidns);
		if (bpf_map_update_elem(&wants, want, &none, BPF_NOEXIST) == 0 && made)
			__sync_fetch_and_add(made, 1);
		denied = bpf_map_lookup_elem(&wants, want);
		if (!denied)
			return;
	}
	__sync_fetch_and_add(&denied->count, 1);
	denied->last = now;
}

SEC("raw_tp/sys_exit")
int errnos(__u64 *ctx)
{
	const void *regs = (const void *)ctx[0];
	long error = (long)ctx[1];
	struct want want = {};
	const struct sock *sk;
	__u16 family;
	__u32 call;

	// Every system call passes here: nothing before this line may cost.
	if (error != -EAGAIN && error != -EADDRINUSE)
		return 0;
	call = (__u32)at(regs, at_number);
	if (error == -EADDRINUSE) {
		if (call != nr_bind)
			return 0;
		want.call = BIND;
	} else if (call == nr_connect) {
		want.call = CONNECT;
	} else if (call == nr_sendto || call == nr_sendmsg) {
		want.call = SEND;
	} else {
		return 0;
	}
	sk = socket_of((__u32)at(regs, at_fd));
	if (!sk)
		return 0;
	family = read_kernel(&sk->__sk_common.skc_family);
	want.protocol = read_kernel(&sk->sk_protocol);
	if ((family != AF_INET && family != AF_INET6) ||
	    (want.protocol != IPPROTO_TCP && want.protocol != IPPROTO_UDP))
		return 0;
	if (only_netns) {
		struct net *net = read_kernel(&sk->__sk_common.skc_net.net);

		if (read_kernel(&net->ns.inum) != only_netns)
			return 0;
	}
	want.error = -error;
	if (want.call == BIND) {
		from_user(want.source, &want.source_port, (const void *)at(regs, at_second));
	} else {
		const void *to;

		// A full buffer is EAGAIN too; a socket without a port had none to be given.
		if (want.protocol != IPPROTO_UDP || read_kernel(&sk->__sk_common.skc_num))
			return 0;
		fill_source(&want, &sk->__sk_common);
		if (call == nr_connect) {
			to = (const void *)at(regs, at_second);
		} else if (call == nr_sendto) {
			to = (const void *)at(regs, at_fifth);
		} else {
			// struct msghdr begins with the address.
			to = 0;
			bpf_probe_read_user(&to, sizeof(to), (const void *)at(regs, at_second));
		}
		from_user(want.destination, &want.destination_port, to);
	}
	count(&want);
	return 0;
}
