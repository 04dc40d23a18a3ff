/* kubetape-probe
name = "program_start"
what = "one program that was started: with its parent and whether its file had been deleted or lies in memory only"
cost = "which programs were started is missing"
ladder = [["tracing:started@sched_process_exec"]]

[columns]
pid = "u32 process"
parent_pid = "u32 process that started it"
uid = "u32 user"
cgroup_id = "u64 cgroup.cgroup_id of its container"
parent_command = "text16 name of the parent"
program = "text64 name of the program's file"
links = "u32 names the file has in its folder; 0: deleted, or never had one (memfd)"
*/
#include "common.h"

/* sched_process_exec(task, old pid, struct linux_binprm *) */
int started(u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	struct linux_binprm *program = (struct linux_binprm *)ctx[2];
	struct program_start row = {};
	if (!wanted_here())
		return 0;
	row.pid = GET(task, tgid);
	struct task_struct *parent = GET(task, real_parent);
	row.parent_pid = GET(parent, tgid);
	bpf_probe_read_kernel(row.parent_command, sizeof(row.parent_command), &parent->comm);
	row.uid = bpf_get_current_uid_gid();
	row.cgroup_id = bpf_get_current_cgroup_id();
	bpf_probe_read_kernel_str(row.program, sizeof(row.program), GET(program, filename));
	struct file *file = GET(program, file);
	struct inode *inode = READ(file, f_inode);
	row.links = READ(inode, i_nlink);
	return submit_program_start(&row);
}
