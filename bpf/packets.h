/* Addresses from a packet's own headers. */
#pragma once
#include "common.h"

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd

/* Fills addresses as seen by its sender (local = source); 0 where it is neither TCP nor UDP over IP. */
static __always_inline int read_packet(struct sk_buff *skb, struct packet_event *event)
{
	u8 *head = READ(skb, head);
	u16 network = READ(skb, network_header), transport = READ(skb, transport_header);
	u16 protocol = bpf_ntohs(READ(skb, protocol));
	u8 *at = head + network;
	u32 total, header_bytes;
	if (network == 0xffff)
		return 0;
	if (protocol == ETH_P_IP) {
		struct iphdr ip = {};
		bpf_probe_read_kernel(&ip, sizeof(ip), at);
		if (ip.version != 4)
			return 0;
		event->protocol = ip.protocol;
		v4_address(event->local_ip, ip.saddr);
		v4_address(event->remote_ip, ip.daddr);
		header_bytes = ip.ihl * 4;
		total = bpf_ntohs(ip.tot_len);
	} else if (protocol == ETH_P_IPV6) {
		struct ipv6hdr ip = {};
		bpf_probe_read_kernel(&ip, sizeof(ip), at);
		if (ip.version != 6)
			return 0;
		event->protocol = ip.nexthdr;
		__builtin_memcpy(event->local_ip, &ip.saddr, 16);
		__builtin_memcpy(event->remote_ip, &ip.daddr, 16);
		header_bytes = 40;
		total = bpf_ntohs(ip.payload_len) + 40;
	} else {
		return 0;
	}
	/* A forwarded or filtered packet may not have had its transport header found yet. */
	at = transport != 0xffff && transport > network ? head + transport : at + header_bytes;
	if (event->protocol == 6) {
		struct tcphdr tcp = {};
		bpf_probe_read_kernel(&tcp, sizeof(tcp), at);
		event->local_port = bpf_ntohs(tcp.source);
		event->remote_port = bpf_ntohs(tcp.dest);
		event->sequence = bpf_ntohl(tcp.seq);
		event->has_sequence = 1;
		header_bytes += tcp.doff * 4;
	} else if (event->protocol == 17) {
		struct udphdr udp = {};
		bpf_probe_read_kernel(&udp, sizeof(udp), at);
		event->local_port = bpf_ntohs(udp.source);
		event->remote_port = bpf_ntohs(udp.dest);
		header_bytes += 8;
	} else {
		return 0;
	}
	event->size_bytes = total > header_bytes ? total - header_bytes : 0;
	return 1;
}

/* The other end's view. */
static __always_inline void swap_ends(struct packet_event *event)
{
	u64 a = *(u64 *)event->local_ip, b = *(u64 *)(event->local_ip + 8);
	u16 port = event->local_port;
	*(u64 *)event->local_ip = *(u64 *)event->remote_ip;
	*(u64 *)(event->local_ip + 8) = *(u64 *)(event->remote_ip + 8);
	*(u64 *)event->remote_ip = a;
	*(u64 *)(event->remote_ip + 8) = b;
	event->local_port = event->remote_port;
	event->remote_port = port;
}

static __always_inline int packet_ports_in_scope(struct packet_event *event)
{
#ifdef KT_PORT_FILTER
	return KT_PORT_FILTER(event->local_port) || KT_PORT_FILTER(event->remote_port);
#else
	return 1;
#endif
}

static __always_inline u32 packet_netns(struct sk_buff *skb, struct sock *sk)
{
	struct net *net = 0;
	if (sk) {
		net = READ(sk, __sk_common.skc_net.net);
	} else {
		struct net_device *device = READ(skb, dev);
		if (device)
			net = READ(device, nd_net.net);
	}
	return net ? READ(net, ns.inum) : 0;
}
