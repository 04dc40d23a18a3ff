/* The sender of the datagram a thread is just receiving. */
#pragma once
#include "common.h"

struct udp_peer {
	u8 ip[16];
	u32 port;
	u32 reserved;
};
/* By task. Set by udp_peer.c, deleted by socket_data.c a moment later. */
BPF_TABLE("lru_hash", u64, struct udp_peer, udp_peers, 16384);
