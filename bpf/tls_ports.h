/* With --port: was the last socket call of a thread on a connection in scope? tls.c asks before it copies plaintext,
 * whose port it does not know. Made by socket_data.c; leaves by age. */
#pragma once
#include "common.h"

#if KT_TLS && defined(KT_PORT_FILTER)
BPF_TABLE("lru_hash", u64, u8, tls_threads, 16384);
#endif

static __always_inline void tls_port_seen(u64 thread, u8 wanted)
{
#if KT_TLS && defined(KT_PORT_FILTER)
	tls_threads.update(&thread, &wanted);
#endif
}

static __always_inline int tls_port_in_scope(u64 thread)
{
#if KT_TLS && defined(KT_PORT_FILTER)
	u8 *wanted = tls_threads.lookup(&thread);
	return wanted && *wanted;
#else
	return 1;
#endif
}
