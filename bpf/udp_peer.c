/* Question: who sent the datagram that an unconnected socket receives?
 *
 * No tracepoint has it: where the receiving call ends, the packet is gone and the user's memory does not hold the
 * address yet. The cgroup hook UDP4/UDP6_RECVMSG (kernel 5.2+) runs just when the kernel fills in the address, only
 * for calls that ask for it. It changes nothing: always answers 1.
 */
#include "peers.h"

/* struct bpf_sock_addr as 32-bit words: family, ip4, ip6[4], port */
static __always_inline int remember(u32 *context, int six)
{
	u64 task = bpf_get_current_task();
	struct udp_peer peer = {};
	if (six) {
		*(u32 *)(peer.ip) = context[2];
		*(u32 *)(peer.ip + 4) = context[3];
		*(u32 *)(peer.ip + 8) = context[4];
		*(u32 *)(peer.ip + 12) = context[5];
	} else {
		v4_address(peer.ip, context[1]);
	}
	peer.port = bpf_ntohs((u16)context[6]);
	udp_peers.update(&task, &peer);
	return 1;
}

int udp4_peer(u32 *context)
{
	return remember(context, 0);
}

int udp6_peer(u32 *context)
{
	return remember(context, 1);
}
