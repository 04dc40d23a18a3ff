/* kubetape-probe
name = "open_failed"
what = "one file that a program wanted to open and could not"
cost = "which files could not be opened is missing"
ladder = [["tracing:left_call@sys_exit"]]

[columns]
pid = "u32 process"
tid = "u32 thread"
command = "text16 name of the thread"
error = "u16 errno: 2 no such file, 13 permission denied, 24 too many open files"
path = "text128 the path as the program wrote it, cut at 127 bytes"
*/
#include "calls.h"

#define NR_OPENAT (sizeof(long) == 8 && NR_READ == 63 ? 56 : 257)	/* arm64, x86-64 */

/* sys_exit(struct pt_regs *, long result): at every system call's end; the first test leaves at once. */
int left_call(u64 *ctx)
{
	long result = ctx[1];
	if (result >= 0 || result < -4095)
		return 0;
	struct registers registers = {};
	read_registers(current_task(), &registers);
	if (registers.number != NR_OPENAT || !wanted_here())
		return 0;
	struct open_failed row = {};
	u64 pid_tgid = bpf_get_current_pid_tgid();
	row.pid = pid_tgid >> 32;
	row.tid = pid_tgid;
	row.error = -result;
	bpf_get_current_comm(row.command, sizeof(row.command));
	bpf_probe_read_user_str(row.path, sizeof(row.path), (void *)registers.arg[1]);
	return submit_open_failed(&row);
}
