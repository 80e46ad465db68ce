// SPDX-License-Identifier: GPL-2.0
//
// As connects.bpf.c, for kernels that do not describe their types (no BTF): on the plain tracepoint, whose fields are part of
// its interface. What it cannot tell is in README.md.

#include "kernel.h"

char LICENSE[] SEC("license") = "GPL";

// sock:inet_sock_set_state as its `format` in tracefs has it since Linux 4.16; checked at load.
struct plain {
	__u64 common;
	__u64 skaddr;
	int oldstate;
	int newstate;
	__u16 sport;
	__u16 dport;
	__u16 family;
	// 16 bits since Linux 5.6; the low byte is the same.
	__u8 protocol;
	__u8 pad;
	__u32 saddr;
	__u32 daddr;
	__u32 saddr_v6[4];
	__u32 daddr_v6[4];
};

typedef const struct plain *source_t;

struct tally;
static __always_inline void fact_addresses(void *to, source_t at);
static __always_inline void fact_process(struct tally *tally);
static __always_inline void fact_bytes(struct tally *tally, source_t at) {}

static __always_inline __u16 fact_local_port(source_t at)
{
	return at->sport;
}

// A port that stayed from an attempt before counts as bound: those failures are told as failed otherwise.
static __always_inline int fact_bound(source_t at)
{
	return at->sport != 0;
}

// Errors are not among the fields. A connect that has no port is told from all others by its port; -1: the others.
static __always_inline int fact_error(source_t at)
{
	return at->oldstate == TCP_SYN_SENT && at->sport == 0 ? 0 : -1;
}

static __always_inline int fact_shut_down(source_t at)
{
	return 0;
}

static __always_inline __u64 fact_started(void)
{
	return 0;
}

// Kernels before 6.1 warn of programs of this kind that allocate.
#define SOCKETS_FLAGS 0

#include "connects.h"

static __always_inline void fact_addresses(void *to, source_t at)
{
	struct key *key = to;

	// The IPv6 fields hold IPv4 addresses too, mapped.
	key->source[0] = at->saddr_v6[0];
	key->source[1] = at->saddr_v6[1];
	key->source[2] = at->saddr_v6[2];
	key->source[3] = at->saddr_v6[3];
	key->destination[0] = at->daddr_v6[0];
	key->destination[1] = at->daddr_v6[1];
	key->destination[2] = at->daddr_v6[2];
	key->destination[3] = at->daddr_v6[3];
	key->port = at->dport;
}

static __always_inline void fact_process(struct tally *tally)
{
	bpf_get_current_comm(tally->comm, sizeof(tally->comm));
}

SEC("tracepoint/sock/inet_sock_set_state")
int connects(const struct plain *at)
{
	if (!matters(at->oldstate, at->newstate) || at->protocol != IPPROTO_TCP)
		return 0;
	count_change(at, at->skaddr, at->oldstate, at->newstate);
	return 0;
}
