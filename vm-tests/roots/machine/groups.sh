#!/bin/sh
# A service with groups below its own (Delegate=) that have controllers and limits, and a process in one of them.
set -eu
own=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
# systemd may have made the one of the main process (DelegateSubgroup=).
own=${own%/main}
mkdir -p "$own/main"
mkdir "$own/limited" "$own/limited/leaf"
# Nobody may be in a group that enables controllers.
echo $$ > "$own/main/cgroup.procs"
echo +cpu +cpuset +memory +pids > "$own/cgroup.subtree_control"
cd "$own/limited"
echo 9 > cgroup.max.depth
echo 64M > memory.max
echo 48M > memory.high
echo 50 > cpu.weight
echo 20000 100000 > cpu.max
echo 10000 > cpu.max.burst
echo 0 > cpuset.cpus
echo +memory +pids > cgroup.subtree_control
echo 16M > leaf/memory.low
echo 1 > leaf/memory.oom.group
echo 7 > leaf/pids.max
chown www-data leaf leaf/cgroup.procs leaf/memory.max
test $# -eq 0 || echo "$2" > "$1"
# A directory of a control group is nothing to be in: another boot's is another one.
cd /
sleep infinity &
echo $! > "$own/limited/leaf/cgroup.procs"
exec sleep infinity
