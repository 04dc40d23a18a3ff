"""The bundle's tables as data: what one row is, and each column's type, unit and when it is NULL.

The Parquet schemas, the reader's checks and the reference page (docs/bundle.md) are made from this file.
Adding a table or a column is free; a rename or a change of meaning needs a new FORMAT_VERSION.

Conventions: `*_ns` are int64 nanoseconds, `*_bytes` and `*_count` int64, ids end in `_id`. `ts_ns` is the
node's CLOCK_MONOTONIC; the manifest's clock anchors turn it into wall-clock time. Event tables carry
`node` and `ts_ns` and are sorted by them.

Stream positions (`position`): TCP sequence numbers of the kernel, unwrapped to 64 bits so that they never
decrease within a connection and `position & 0xffffffff` is the sequence number on the wire. The same byte
thus has the same low 32 bits at both ends of a connection, through NAT and on any node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FORMAT_NAME = "kubetape-bundle"
FORMAT_VERSION = 1

# What a column's type is in Parquet. "label" is text with few distinct values (dictionary-encoded).
TYPE_NAMES = ("bool", "int8", "int16", "int32", "int64", "float64", "string", "label", "binary", "json")


@dataclass(frozen=True)
class Column:
    """name; type, one of TYPE_NAMES; doc with the unit; null: when it is NULL, "" for never."""

    name: str
    type: str
    doc: str
    null: str = ""


@dataclass(frozen=True)
class Table:
    """name; doc: what one row is; columns; sort_by: columns the rows are sorted by."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    sort_by: tuple[str, ...] = ()

    @property
    def column_names(self) -> list[str]:
        return [c.name for c in self.columns]


def _t(name: str, doc: str, text: str, sort_by: str = "") -> Table:
    """A table from lines `name type doc` with an optional `| when NULL`."""
    columns = []
    for line in filter(None, text.splitlines()):
        left, _, null = line.partition(" | ")
        column, type_name, column_doc = left.strip().split(maxsplit=2)
        columns.append(Column(column, type_name, column_doc.strip(), null.strip()))
    return Table(name, doc, tuple(columns), tuple(sort_by.split()))


_EVENT = """
node label name of the node
ts_ns int64 CLOCK_MONOTONIC of the node, ns
"""

_ALL = [
    # ---- sockets ----------------------------------------------------------------------------------
    _t(
        "connection",
        "one socket's connection seen from one node (both ends on one node: two rows)",
        """
node label name of the node
connection_id int64 unique in the bundle, never reused
transport label 'tcp' or 'udp' or 'unix'
side label 'client', 'server', 'wire' (from packets: local is the client) or 'unknown'
side_basis label how side is known: 'state' (SYN seen), 'listener' (local port listens), 'packet', 'port', 'none'
local_ip string address of this end; of a wire connection the client's
local_port int32 port of this end
remote_ip string address of the other end
remote_port int32 port of the other end
netns_id int64 inode of the socket's network namespace | not known (wire)
cgroup_id int64 cgroup v2 id of the first process seen using it | not known
pid int32 first process seen using it (host pid namespace) | not known
start_ns int64 CLOCK_MONOTONIC when it was made | it existed before the recording
end_ns int64 CLOCK_MONOTONIC when it was closed | still open when the recording ended
existed_before bool listed at the start of the recording
close_reason label 'fin', 'reset_sent', 'reset_received', 'timeout', 'open' | not known
sent_from_position int64 stream position of the first byte sent, whether or not it was captured (wire) | not known
sent_to_position int64 stream position after the last byte sent or acknowledged (wire) | not known
received_from_position int64 stream position of the first byte received (wire) | not known
received_to_position int64 stream position after the last byte received or acknowledged (wire) | not known
encapsulation label outer headers unwrapped by the import, as 'vxlan:42', 'vlan:7' | none
""",
        "node connection_id",
    ),
    _t(
        "socket_data",
        "one completed socket read or write (from captures: one segment in stream order, or one datagram)",
        _EVENT
        + """
connection_id int64 connection.connection_id
direction label 'send' (local to remote) or 'receive'; of a wire connection 'send' is client to server
position int64 stream position of the first byte; 0 for datagrams
size_bytes int64 bytes moved
payload binary the first bytes moved; shorter than size_bytes where the policy or a limit cut it | not recorded
source label 'socket', 'tls' (plaintext at a TLS library; position counts plaintext from the stream's first position on) or 'wire'
call label the system call: 'write', 'sendto', 'recvmsg', 'sendfile', ...; of plaintext the library's: 'SSL_read', 'gnutls_record_send', 'tls.Conn.Read', ...; 'packet' for wire
pid int32 process | wire
tid int32 thread | wire
duration_ns int64 time spent inside the call, ns | not measured
retransmitted_bytes int64 bytes of this row that were sent more than once (wire) | not known
""",
        "node ts_ns",
    ),
    _t(
        "tls_stream",
        "one TLS session seen at a library, and the connection that its plaintext (socket_data with source 'tls') was tied to",
        _EVENT
        + """
end_ns int64 CLOCK_MONOTONIC of its last call seen; ts_ns is that of the first
connection_id int64 connection.connection_id | not tied to one: its plaintext is left out
library label 'openssl' (BoringSSL as well), 'gnutls' or 'go'
pid int32 process
basis label how it was tied: 'fd' (the library names its socket), 'nested' (socket call inside a call of the library), 'thread' (socket calls of the thread right before reads and right after writes), 'none'
tied_count int64 calls that say so
call_count int64 calls seen, handshakes included
sent_bytes int64 plaintext bytes written
received_bytes int64 plaintext bytes read
reason string why it was not tied | tied
""",
        "node ts_ns",
    ),
    _t(
        "tcp_event",
        "one thing that happened to a TCP connection or a packet",
        _EVENT
        + """
connection_id int64 connection.connection_id | the packet belongs to no connection seen
kind label 'state', 'retransmit', 'reset_sent', 'reset_received', 'drop', 'connect', 'listen_overflow', 'zero_window', 'out_of_order', 'duplicate_ack', 'keep_alive', 'lost_segment'
detail label state: 'SYN_SENT>ESTABLISHED'; retransmit: 'syn','synack','fast','timeout','tail_loss','other'; drop: kernel's reason; connect: 'ok','refused','timeout','unreachable','reset' | none
direction label 'send' or 'receive' where the event is about one direction | not directed
position int64 stream position concerned | not known
size_bytes int64 payload bytes concerned | not known
duration_ns int64 connect: from SYN to the result; state: time in the state left, ns | not applicable
local_ip string as in connection | not known
local_port int32 as in connection | not known
remote_ip string as in connection | not known
remote_port int32 as in connection | not known
netns_id int64 inode of the network namespace | not known
pid int32 process on whose behalf, where the kernel knows | in interrupt context
symbol label kernel function where a drop happened | not a drop
""",
        "node ts_ns",
    ),
    _t(
        "tcp_sample",
        "the kernel's own numbers of one TCP connection at one moment (from captures: one RTT measured)",
        _EVENT
        + """
connection_id int64 connection.connection_id
reason label 'periodic', 'close', 'end', 'start', 'wire'
direction label wire: whose data was acknowledged ('send': the client's) | kernel samples
srtt_ns int64 smoothed round-trip time, ns; of wire samples the one measured | none measured yet
rttvar_ns int64 its mean deviation, ns | none measured yet
min_rtt_ns int64 smallest round-trip time, ns | not known
cwnd_segments int32 congestion window | wire
ssthresh_segments int32 slow start threshold | wire or infinite
delivery_rate_bps int64 bytes per second delivered | not known
sent_bytes int64 payload bytes handed to IP since the connection began, retransmissions included | not known
acked_bytes int64 payload bytes acknowledged | not known
received_bytes int64 payload bytes received in order | not known
sent_segments int64 segments sent | not known
received_segments int64 segments received | not known
sent_data_segments int64 segments with payload sent | not known
retransmit_count int64 segments retransmitted since the connection began | not known
lost_segments int32 segments now thought lost | not known
unacked_segments int32 segments in flight | not known
reordering int32 reordering degree | not known
send_queue_bytes int64 written but not acknowledged | not known
receive_queue_bytes int64 received but not read | not known
send_window_bytes int64 window the peer offers | not known
receive_window_bytes int64 window offered to the peer | not known
""",
        "node ts_ns",
    ),
    _t(
        "udp_sample",
        "counters of one UDP socket at close or at the end",
        _EVENT
        + """
connection_id int64 connection.connection_id
reason label 'close' or 'end'
sent_count int64 datagrams sent
received_count int64 datagrams received
sent_bytes int64 payload bytes
received_bytes int64 payload bytes
drop_count int64 datagrams dropped for want of room
""",
        "node ts_ns",
    ),
    _t(
        "listener",
        "one listening socket",
        _EVENT
        + """
netns_id int64 network namespace
transport label 'tcp' or 'udp'
local_ip string address, '0.0.0.0' or '::' for any
local_port int32 port
pid int32 owner | not found
cgroup_id int64 owner's cgroup | not found
backlog_count int32 connections waiting to be accepted | udp
backlog_max int32 limit of the accept queue | udp
""",
        "node ts_ns",
    ),
    # ---- scheduler, processes -------------------------------------------------------------------------
    _t(
        "sched_slice",
        "one interval of one thread in one scheduler state, in which it neither changed state nor CPU; a thread's rows follow each other without gap or overlap from when it is first seen leaving a CPU to its end or the recording's; where the kernel called no program at a switch, the stays around it are one, running time by the thread's own account; a wait is cut at the recording's end. Default: threads of processes that used a socket in the recording",
        _EVENT
        + """
duration_ns int64 length, ns
pid int32 process
tid int32 thread
state label 'running', 'runnable' (waiting for a CPU), 'sleeping' (interruptible), 'blocked' (uninterruptible), 'stopped', 'idle'
cpu int16 CPU it ran on | not running
syscall label system call in which it left the CPU, the same for the sleep and the wait for a CPU after it | running, in no system call or not known
wait_connection_id int64 connection the system call waits on | none or not known
waker_tid int32 thread on whose CPU the waking ran: the waker, or whichever thread an interrupt (timer, network card) borrowed; of a sleep and of the wait after it | running, preempted, or not woken
stack_id int64 stack.stack_id where it went to sleep | not sampled
""",
        "node ts_ns",
    ),
    _t(
        "stack_sample",
        "one CPU sample: what a thread was executing; only samples in which something ran",
        _EVENT
        + """
pid int32 process
tid int32 thread
cpu int16 CPU
stack_id int64 stack.stack_id
weight_ns int64 CPU time one sample stands for, ns
""",
        "node ts_ns",
    ),
    _t(
        "stack",
        "one frame of one stack, frame 0 is the innermost",
        """
node label name of the node
stack_id int64 unique in the bundle
depth int16 0 is the innermost frame
kind label 'user' or 'kernel'
address int64 address, of the first sample with these frames
symbol string function; [module+0xoffset] where the file has no name for it: offset of the function's begin, where the unwinding table tells it
module string file mapped there | in the kernel, compiled at run time or unknown
basis label 'elf' (symbols of the file), 'kallsyms', 'perf-map' (/tmp/perf-PID.map, by the program's compiler), 'offset' (no name), 'unknown' (nothing is mapped there: the frame before it was built without frame pointers)
""",
        "node stack_id depth",
    ),
    _t(
        "process",
        "one process seen",
        """
node label name of the node
pid int32 process, host pid namespace
start_ns int64 CLOCK_MONOTONIC of its start | not known
end_ns int64 CLOCK_MONOTONIC of its exit | alive at the end
existed_before bool listed at the start
parent_pid int32 parent | not known
command string comm
executable string path of the program | not readable
arguments string command line, NUL replaced by blanks | policy or not readable
uid int32 user | not known
cgroup_id int64 cgroup.cgroup_id | not known
netns_id int64 network namespace | not known
exit_code int32 exit status | alive or killed
exit_signal int32 signal that ended it | alive or exited
executable_deleted bool the program's file is gone from disk | not known
namespace_pid int32 pid in its own pid namespace | not known
uses_io_uring bool has an io_uring, whose transfers carry no payload here | not known
""",
        "node pid",
    ),
    _t(
        "process_event",
        "one exec, fork, exit or OOM kill",
        _EVENT
        + """
kind label 'exec', 'fork', 'exit', 'oom_kill'
pid int32 process
tid int32 thread
parent_pid int32 parent | not known
command string comm
executable string program | not an exec
arguments string command line | not an exec or policy
cgroup_id int64 cgroup | not known
exit_code int32 exit status | not an exit
exit_signal int32 signal | not ended by one
""",
        "node ts_ns",
    ),
    _t(
        "thread",
        "one thread seen",
        """
node label name of the node
tid int32 thread
pid int32 process
command string comm of the thread
""",
        "node pid tid",
    ),
    _t(
        "cgroup",
        "one cgroup",
        """
node label name of the node
cgroup_id int64 cgroup v2 id (inode of its folder in the unified tree), or the inode in the v1 hierarchy named
hierarchy label 'v2' or the v1 controller
path string path below the hierarchy's root as the kernel shows it
container_id string container named by the path | not a container
pod_uid string pod named by the path | not a pod
runtime label 'containerd', 'cri-o', 'docker', 'podman' | not told by the path
""",
        "node cgroup_id",
    ),
    _t(
        "container",
        "one container as the node's runtime knows it",
        """
node label name of the node
container_id string id
name string container name, 'POD' for a pod's pause container | not known
pod_uid string pod | not known
pod_name string pod name | not known
namespace string namespace | not known
image string image | not known
pid int32 first process | not running
cgroup_path string cgroup path | not known
netns_id int64 network namespace | not known
source label 'kubernetes', 'kubelet', 'runtime', 'cgroup'
""",
        "node container_id",
    ),
    _t(
        "uprobe_target",
        "one program or library looked at for TLS probes, or one process whose TLS cannot be read",
        """
node label name of the node
path string file as seen from the host
inode int64 inode
library label 'openssl', 'gnutls', 'go', 'boringssl', 'java', 'rustls', 'ktls', 'unknown'
pid int32 a process that uses it
status label 'attached', 'not_readable', 'no_symbols', 'unsupported'
reason string why not | attached
symbol_count int32 probes attached
""",
        "node path",
    ),
    _t(
        "block_io",
        "one block device request",
        _EVENT
        + """
device label device name
operation label 'read', 'write', 'flush', 'discard' or 'other'
size_bytes int64 bytes
queue_ns int64 time before the device got it, ns | not measured
duration_ns int64 time on the device, ns
is_error bool the device failed it
pid int32 process that asked | write-back
command string its comm | write-back
""",
        "node ts_ns",
    ),
    # ---- samplers, every second -----------------------------------------------------------------------
    _t(
        "node_sample",
        "the node at one second; counters count since boot",
        _EVENT
        + """
load1 float64 load average over one minute
running_count int32 threads runnable
blocked_count int32 threads in uninterruptible sleep
memory_total_bytes int64 MemTotal
memory_available_bytes int64 MemAvailable
memory_free_bytes int64 MemFree
cached_bytes int64 Cached
swap_total_bytes int64 SwapTotal
swap_free_bytes int64 SwapFree
dirty_bytes int64 Dirty
page_in_count int64 pgpgin
page_out_count int64 pgpgout
swap_in_count int64 pswpin
swap_out_count int64 pswpout
major_fault_count int64 pgmajfault
oom_kill_count int64 oom_kill
context_switch_count int64 ctxt
fork_count int64 processes
psi_cpu_some_ns int64 PSI cpu some total, ns | kernel without PSI
psi_memory_some_ns int64 PSI memory some total, ns | kernel without PSI
psi_memory_full_ns int64 PSI memory full total, ns | kernel without PSI
psi_io_some_ns int64 PSI io some total, ns | kernel without PSI
psi_io_full_ns int64 PSI io full total, ns | kernel without PSI
file_handle_count int64 open files of the node
file_handle_max int64 their limit
""",
        "node ts_ns",
    ),
    _t(
        "cpu_sample",
        "one CPU at one second; counters since boot, ns",
        _EVENT
        + """
cpu int16 CPU
user_ns int64 user
nice_ns int64 nice
system_ns int64 system
idle_ns int64 idle
iowait_ns int64 iowait
irq_ns int64 irq
softirq_ns int64 softirq
steal_ns int64 steal
softnet_processed_count int64 packets taken from the backlog | no softnet file
softnet_dropped_count int64 packets dropped for want of backlog | no softnet file
softnet_squeezed_count int64 times the budget ran out | no softnet file
""",
        "node ts_ns",
    ),
    _t(
        "disk_sample",
        "one block device at one second; counters since boot",
        _EVENT
        + """
device label device
read_count int64 reads done
read_bytes int64 bytes read
read_time_ns int64 time reading
write_count int64 writes done
write_bytes int64 bytes written
write_time_ns int64 time writing
in_flight_count int32 requests now in flight
busy_ns int64 time with requests in flight
""",
        "node ts_ns",
    ),
    _t(
        "filesystem_sample",
        "one mounted file system at the start and end",
        _EVENT
        + """
mount_point string where it is mounted
device string device
type label file system type
size_bytes int64 size
free_bytes int64 free to unprivileged users
inode_count int64 inodes
inode_free_count int64 free inodes
""",
        "node ts_ns",
    ),
    _t(
        "interface_sample",
        "one network interface of one network namespace at one second; counters since it was made",
        _EVENT
        + """
netns_id int64 network namespace
interface label name
interface_index int32 ifindex | namespace not entered
mac string hardware address | none
mtu_bytes int32 MTU | namespace not entered
addresses string addresses with prefix length, joined by blanks | not read at this second
is_up bool operational state | not read at this second
received_bytes int64 bytes
received_packets int64 packets
received_errors int64 errors
received_drops int64 drops
sent_bytes int64 bytes
sent_packets int64 packets
sent_errors int64 errors
sent_drops int64 drops
queue_drops int64 dropped by the queueing discipline | none, or not read at this second
""",
        "node ts_ns",
    ),
    _t(
        "protocol_counter",
        "one counter of /proc/net/snmp, snmp6 or netstat of one network namespace: at the start and end, and when it changed; zeros have no row",
        _EVENT
        + """
netns_id int64 network namespace
counter label group and name: 'Tcp.RetransSegs', 'TcpExt.ListenOverflows'
value int64 value since the namespace was made
""",
        "node ts_ns",
    ),
    _t(
        "conntrack_sample",
        "connection tracking of one network namespace at one second",
        _EVENT
        + """
netns_id int64 network namespace
entry_count int64 entries
entry_max int64 limit
insert_failed_count int64 insertions refused | no statistics
drop_count int64 packets dropped for want of an entry | no statistics
early_drop_count int64 entries thrown out early | no statistics
""",
        "node ts_ns",
    ),
    _t(
        "conntrack",
        "one tracked connection with its translation, at the start, at the end or when it was seen",
        _EVENT
        + """
netns_id int64 network namespace
transport label 'tcp' or 'udp'
original_source_ip string as the client sent it
original_source_port int32 as the client sent it
original_destination_ip string as the client sent it
original_destination_port int32 as the client sent it
reply_source_ip string who answers
reply_source_port int32 who answers
reply_destination_ip string to whom it answers
reply_destination_port int32 to whom it answers
""",
        "node ts_ns",
    ),
    _t(
        "cgroup_sample",
        "one container's cgroup at one second; counters since it was made",
        _EVENT
        + """
cgroup_id int64 cgroup.cgroup_id
cpu_usage_ns int64 CPU time | controller absent
cpu_user_ns int64 CPU time in user mode | controller absent
cpu_system_ns int64 CPU time in the kernel | controller absent
cpu_quota_ns int64 CPU time allowed in each period | no limit
cpu_period_ns int64 the period | no limit
period_count int64 periods elapsed | no limit
throttled_count int64 periods in which it was throttled | no limit
throttled_ns int64 time throttled | no limit
memory_bytes int64 memory charged | controller absent
memory_limit_bytes int64 limit | no limit
memory_working_set_bytes int64 charged less inactive file pages | controller absent
memory_high_count int64 memory.events high | v1
memory_max_count int64 memory.events max, or v1 failcnt | controller absent
oom_count int64 memory.events oom | controller absent
oom_kill_count int64 processes killed | controller absent
process_count int64 pids.current | controller absent
process_limit int64 pids.max | no limit
io_read_bytes int64 bytes read | controller absent
io_write_bytes int64 bytes written | controller absent
psi_cpu_some_ns int64 PSI | kernel without it or v1
psi_memory_some_ns int64 PSI | kernel without it or v1
psi_io_some_ns int64 PSI | kernel without it or v1
""",
        "node ts_ns",
    ),
    _t(
        "process_sample",
        "one of the busiest processes at one second",
        _EVENT
        + """
pid int32 process
command string comm
cpu_ns int64 CPU time since its start, ns
memory_bytes int64 resident memory
thread_count int32 threads
file_count int32 open files | not readable
""",
        "node ts_ns",
    ),
    _t(
        "neighbour",
        "one entry of a neighbour (ARP, NDP) table",
        _EVENT
        + """
netns_id int64 network namespace
ip string address
mac string hardware address | incomplete
interface label interface
state label 'reachable', 'stale', 'failed', ... | not known
""",
        "node ts_ns",
    ),
    _t(
        "route",
        "one route",
        _EVENT
        + """
netns_id int64 network namespace
destination string prefix
gateway string next hop | on link
interface label interface, empty for none
metric int64 metric | none
""",
        "node ts_ns",
    ),
    # ---- Kubernetes -----------------------------------------------------------------------------------
    _t(
        "k8s_object",
        "one state of one Kubernetes object as JSON, without secrets, environment values and managed fields (events: k8s_event)",
        """
kind label kind
api_version label group and version
namespace string namespace | cluster-scoped
name string name
uid string uid | not given
taken label 'start', 'end', 'watch' or 'file'
observed_ns int64 realtime clock, ns since 1970
deleted bool a watch said it was deleted
object json the object
""",
        "kind namespace name",
    ),
    _t(
        "k8s_pod",
        "one pod (the newest state seen; an address used by several pods in turn has a row for each)",
        """
namespace string namespace
name string name
uid string uid
node string node it runs on | not scheduled
phase label Pending, Running, Succeeded, Failed, Unknown
reason label why, as `kubectl get pods` shows it: CrashLoopBackOff, Evicted, ...
ip string first address | none yet
ips string all addresses, joined by blanks | none yet
host_ip string address of the node | not scheduled
host_network bool shares the node's network
service_account string service account | none
owner_kind label kind of the workload a person knows (Deployment, StatefulSet, CronJob, Rollout, Node for static pods) | bare pod
owner_name string its name | bare pod
controller_kind label kind of the direct owner | bare pod
controller_name string its name | bare pod
version string pod-template-hash, controller-revision-hash or image tag | none
labels json labels
qos_class label Guaranteed, Burstable, BestEffort | not given
ready bool condition Ready | known from the container runtime alone
restart_count int32 sum over containers | known from the container runtime alone
created_ns int64 realtime, ns | not given
started_ns int64 realtime, ns | not started
deleted_ns int64 realtime when the deletion began or was seen, ns | alive
valid_from_ns int64 realtime from which its address is its own | not known
valid_to_ns int64 realtime until which | still
""",
        "namespace name",
    ),
    _t(
        "k8s_container",
        "one container of a pod",
        """
namespace string namespace
pod_name string pod
pod_uid string pod
name string container
kind label 'app', 'init', 'sidecar', 'ephemeral'
container_id string id without the runtime's prefix | not created
runtime label containerd, cri-o, docker | not created
image string image | not given
image_id string digest | not pulled
ready bool ready | known from the container runtime alone
state label 'waiting', 'running', 'terminated' | not known
reason label reason of the state | none
exit_code int32 of the terminated state | not terminated
restart_count int32 restarts | known from the container runtime alone
last_reason label reason of the last termination (OOMKilled, Error) | none
last_exit_code int32 exit code of the last termination | none
last_finished_ns int64 realtime of the last termination | none
started_ns int64 realtime of its start | not running
cpu_request_cores float64 request | none
cpu_limit_cores float64 limit | none
memory_request_bytes int64 request | none
memory_limit_bytes int64 limit | none
ports string containerPort/protocol, joined by blanks | none
""",
        "namespace pod_name name",
    ),
    _t(
        "k8s_service",
        "one port of one service (a service without ports: one row)",
        """
namespace string namespace
name string name
uid string uid
type label ClusterIP, NodePort, LoadBalancer, ExternalName
cluster_ips string virtual addresses, joined by blanks | headless or ExternalName
external_ips string externalIPs and load balancer addresses, joined by blanks | none
external_name string ExternalName target | other types
headless bool clusterIP None
protocol label TCP, UDP, SCTP | no ports
port int32 port | no ports
port_name string name | unnamed
target_port string port number or name of the pod | no ports
node_port int32 NodePort | none
app_protocol label appProtocol | not given
selector json selector | none
""",
        "namespace name port",
    ),
    _t(
        "k8s_endpoint",
        "one address and port behind a service",
        """
namespace string namespace
service string service
slice string EndpointSlice, or Endpoints object
ip string address
port int32 port | none given
port_name string name of the port | unnamed
protocol label TCP, UDP, SCTP | no ports
pod_name string pod | not a pod
node string node | not given
ready bool ready
serving bool serving | not given
terminating bool terminating | not given
zone label zone | not given
""",
        "namespace service ip port",
    ),
    _t(
        "k8s_node",
        "one node",
        """
name string name
uid string uid
ips string addresses, joined by blanks
pod_cidrs string pod address ranges, joined by blanks | not given
zone label topology zone | not given
region label region | not given
instance_type label instance type | not given
provider label provider of spec.providerID | not given
kernel string kernel | not given
os_image string distribution | not given
runtime string container runtime and version | not given
kubelet string kubelet version | not given
ready bool condition Ready is True
ready_reason label reason of the Ready condition | not given
unschedulable bool cordoned
memory_pressure bool condition
disk_pressure bool condition
pid_pressure bool condition
network_unavailable bool condition
conditions json all conditions
taints json taints | none
cpu_cores float64 capacity
memory_bytes int64 capacity
cpu_allocatable_cores float64 allocatable
memory_allocatable_bytes int64 allocatable
pod_capacity int32 pods
""",
        "name",
    ),
    _t(
        "k8s_workload",
        "one workload (Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob, Rollout)",
        """
kind label kind
namespace string namespace
name string name
uid string uid
owner_kind label owner | top of the chain
owner_name string owner | top of the chain
desired_count int32 replicas wished | not applicable
ready_count int32 replicas ready | not applicable
available_count int32 replicas available | not applicable
updated_count int32 replicas of the newest version | not applicable
images string images, joined by blanks | none
selector json selector | none
paused bool rollout paused | not applicable
conditions json conditions | none
created_ns int64 realtime | not given
""",
        "kind namespace name",
    ),
    _t(
        "k8s_event",
        "one Kubernetes event",
        """
namespace string namespace
kind label kind of the object concerned
name string name of the object concerned
type label Normal or Warning
reason label reason
message string message
count int32 times seen
first_ns int64 realtime | not given
last_ns int64 realtime | not given
component label who reports | not given
host string node of the reporter | not given
""",
        "last_ns",
    ),
    # ---- about the recording itself --------------------------------------------------------------------
    _t(
        "heartbeat",
        "one second of the recorder's own life: proof that it was recording",
        _EVENT
        + """
events_count int64 events drained so far
lost_count int64 events lost so far, all probes
spool_bytes int64 bytes in the spool
backlog_bytes int64 bytes waiting in the ring
cpu_ns int64 CPU time the recorder used so far
""",
        "node ts_ns",
    ),
    _t(
        "loss",
        "events a probe lost on one CPU, or thinned on purpose, in one second",
        _EVENT
        + """
probe label probe
cpu int16 CPU | counted for all
reason label 'ring_full', 'map_full', 'thinned', 'spool_budget'
lost_count int64 events
lost_bytes int64 payload bytes of them | not known
""",
        "node ts_ns",
    ),
]

TABLES: dict[str, Table] = {t.name: t for t in sorted(_ALL, key=lambda t: t.name)}


def arrow_schema(table: Table) -> Any:
    """The pyarrow.Schema of a table; column docs travel as field metadata."""
    import pyarrow as pa

    types = {
        "bool": pa.bool_(),
        "int8": pa.int8(),
        "int16": pa.int16(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "string": pa.string(),
        "label": pa.dictionary(pa.int32(), pa.string()),
        # 64-bit offsets: the payload of one recording passes 2 GiB.
        "binary": pa.large_binary(),
        "json": pa.string(),
    }
    return pa.schema(
        [pa.field(c.name, types[c.type], nullable=bool(c.null), metadata={"doc": c.doc}) for c in table.columns]
    )
