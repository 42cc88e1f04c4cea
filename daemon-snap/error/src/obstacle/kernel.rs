//! What stands against a service outside of its processes: state of the kernel that it has made and
//! that no image carries.

coded! {
    /// State of the kernel that a service has made. `objects` names them.
    KernelObstacle {
        "kernel-nftables" stays Nftables { objects: String }:
            "has made rules of nftables ({objects}), and nobody would make them again after a restore";
        "kernel-iptables" stays Iptables { objects: String }:
            "has made rules of iptables ({objects}), and nobody would make them again after a restore";
        "kernel-ipset" stays Ipset { objects: String }:
            "has made sets of addresses ({objects}), and nobody would make them again after a restore";
        "kernel-link" stays Link { objects: String }:
            "has made or changed network interfaces ({objects}), and nobody would do that again after a restore";
        "kernel-address" stays Address { objects: String }:
            "has set network addresses ({objects}), and nobody would set them again after a restore";
        "kernel-route" stays Route { objects: String }:
            "has set routes ({objects}), and nobody would set them again after a restore";
        "kernel-routing-rule" stays RoutingRule { objects: String }:
            "has set rules for routing ({objects}), and nobody would set them again after a restore";
        "kernel-neighbour" stays Neighbour { objects: String }:
            "has set neighbours on a network ({objects}), and nobody would set them again after a restore";
        "kernel-queue" stays Queue { objects: String }:
            "has set queueing disciplines ({objects}), and nobody would set them again after a restore";
        "kernel-mount" stays Mount { objects: String }:
            "has mounted file systems ({objects}), and nobody would mount them again after a restore";
        "kernel-block-device" stays BlockDevice { objects: String }:
            "has set up block devices ({objects}), and nobody would do that again after a restore";
        "kernel-bpf-pin" stays BpfPin { objects: String }:
            "has pinned eBPF objects ({objects}), and nobody would do that again after a restore";
        /// `objects`: what somebody has made that this service may make.
        "kernel-state-unseen" stays Unseen { sockets: String, objects: String }:
            "may have made state of the kernel ({objects}): it may do so, has a socket for it ({sockets}), and its start was not looked at (take it with a restart)";
        "kernel-state-untried" stays Untried { objects: String }:
            "has made state of the kernel ({objects}) of which [X-Fastboot] KernelState=reload says that it is made again, and only a trial could tell";
        "kernel-state-lost" stays Lost { objects: String }:
            "was without state of the kernel after its trial restore that it had before ({objects})";
    }
}
