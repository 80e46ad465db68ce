/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The few kernel types and helpers that the programs use. Every field is relocated at load to where the running kernel
 * has it (CO-RE), so only names and types count here, not the order or what lies between.
 */
#pragma once

typedef signed int __s32;
typedef signed long long __s64;
typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define bpf_htonl(x) __builtin_bswap32(x)
#define bpf_ntohs(x) __builtin_bswap16(x)
#else
#define bpf_htonl(x) (x)
#define bpf_ntohs(x) (x)
#endif

/* include/uapi/linux/bpf.h */
enum { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_LRU_HASH = 9 };
enum { BPF_ANY = 0, BPF_NOEXIST = 1 };
enum { BPF_F_NO_PREALLOC = 1 };

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static __u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*bpf_get_current_comm)(void *to, __u32 size) = (void *)16;
static __u64 (*bpf_get_current_task)(void) = (void *)35;
/* Linux 5.9 and 5.11: what they give is read without a helper. */
static struct tcp_sock *(*bpf_skc_to_tcp_sock)(const void *sk) = (void *)137;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;
static __u64 (*bpf_jiffies64)(void) = (void *)118;
static long (*bpf_probe_read_user)(void *to, __u32 size, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)113;

/* The third word of an IPv4 address that is mapped to IPv6. */
#define MAPPED bpf_htonl(0xffff)

/* A field of a kernel object by its address; 0 where it cannot be read. */
#define read_kernel(field)                                         \
	({                                                             \
		typeof(({ *(field); })) value_;                            \
		bpf_probe_read_kernel(&value_, sizeof(value_), (field));   \
		value_;                                                    \
	})

/* include/net/tcp_states.h */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT1,
	TCP_FIN_WAIT2,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_CLOSING,
	TCP_NEW_SYN_RECV,
};

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define EAGAIN 11
#define EADDRINUSE 98
#define ENETUNREACH 101
#define ETIMEDOUT 110
#define ECONNREFUSED 111
#define EHOSTUNREACH 113

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__u32 u6_addr32[4];
	} in6_u;
};

struct sock_common {
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	__u16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

struct socket {
	struct sock *sk;
};

struct sock {
	struct sock_common __sk_common;
	struct socket *sk_socket;
	int sk_err;
	__u8 sk_shutdown;
	__u16 sk_protocol;
};

struct inet_sock {
	struct sock sk;
	__u16 inet_sport;
};

struct tcp_sock {
	__u64 bytes_acked;
	__u64 bytes_received;
	__u32 write_seq;
	__u32 snd_una;
};

struct inode {
	unsigned long i_ino;
};

struct socket_alloc {
	struct inode vfs_inode;
};

struct timer_list {
	unsigned long expires;
};

struct inet_timewait_sock {
	unsigned char tw_substate;
	struct timer_list tw_timer;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct file {
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct task_struct {
	struct task_struct *group_leader;
	struct files_struct *files;
	struct pid *thread_pid;
	__u64 start_boottime;
	char comm[16];
};

#pragma clang attribute pop

/* A task's id as the PID namespace of this inode numbers it; 0 where it is not in there. */
static __always_inline __u32 id_in(struct task_struct *task, __u32 inode)
{
	struct pid *pid = read_kernel(&task->thread_pid);
	unsigned int level = read_kernel(&pid->level);
	__u32 id = 0;

	/* MAX_PID_NS_LEVEL is 32; containers in containers are 3 deep at most. */
#pragma unroll
	for (unsigned int i = 0; i < 8; i++) {
		/* struct upid: the number, and at 8 the namespace. */
		const void *at = (const void *)&pid->numbers[0] + i * 16;
		struct pid_namespace *ns;

		if (i > level)
			break;
		ns = 0;
		bpf_probe_read_kernel(&ns, sizeof(ns), at + 8);
		if (read_kernel(&ns->ns.inum) == inode)
			bpf_probe_read_kernel(&id, sizeof(id), at);
	}
	return id;
}
