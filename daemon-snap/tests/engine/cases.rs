//! What comes back as it was: one subject, one test. The control test runs all of them without dump
//! and restore.

use crate::compile::Toolchain;
use crate::fastboot::Fastboot;
use crate::running::{
    Outcome, Running, Subject, dump_and_restore, judge, of_subject, without_dump, without_dump_holding,
};
use std::fs;
use test_frame::{Need, Test};

/// A subject that is dumped and restored.
struct Kept {
    test: &'static str,
    subject: Subject,
    between: fn(&Running),
}

/// `name: program, variant;` with an optional `, what happens between dump and restore`.
macro_rules! subjects {
    ($($name:ident: $program:literal, $variant:literal $(, between $between:expr)? $(, with $toolchain:ident)?;)*) => {
        const KEPT: &[Kept] = &[$(Kept {
            test: stringify!($name),
            subject: subject!($program, $variant $(, $toolchain)?),
            between: between!($($between)?),
        }),*];
    };
}

macro_rules! subject {
    ($program:literal, $variant:literal) => {
        Subject::new($program, $variant)
    };
    ($program:literal, $variant:literal, $toolchain:ident) => {
        Subject { program: $program, variant: $variant, toolchain: Toolchain::$toolchain }
    };
}

macro_rules! between {
    () => {
        |_| {}
    };
    ($between:expr) => {
        $between
    };
}

subjects! {
    // registers and threads
    restore_keeps_general_registers: "registers_general", "";
    restore_keeps_sse_and_x87_registers: "registers_vector", "sse";
    restore_keeps_avx_registers: "registers_vector", "avx";
    restore_keeps_avx512_registers: "registers_vector", "avx512";
    restore_keeps_flags_register: "eflags", "";
    restore_keeps_thread_local_storage: "thread_local", "";
    restore_keeps_64_threads: "threads_64", "";
    restore_keeps_signal_mask_of_each_thread: "thread_signal_masks", "";
    restore_keeps_alternate_signal_stacks: "sigaltstack", "";
    restore_keeps_pending_signals_in_order: "pending_signals", "";
    restore_keeps_signal_handlers: "signal_handlers", "";
    restore_inside_a_signal_handler_returns_from_it: "in_signal_handler", "";
    restore_keeps_rseq_registered: "rseq_registered", "";
    restore_keeps_robust_mutexes: "robust_mutex", "";
    dump_leaves_robust_mutexes_in_files_to_their_owner: "robust_mutex", "file";
    restore_keeps_threads_joinable: "thread_join", "";
    restore_keeps_thread_names: "thread_names", "";

    // memory
    restore_keeps_private_memory_of_every_protection: "anon_memory", "";
    restore_keeps_reservation_of_1_tib: "reservation_1tib", "";
    restore_keeps_own_pages_of_private_file: "private_file", "";
    restore_keeps_shared_memory_shared_across_fork: "shared_anon_fork", "";
    restore_keeps_memfd: "memfd", "";
    restore_keeps_shared_file_mapping: "shared_file", "disk";
    restore_keeps_shared_file_mapping_on_tmpfs: "shared_file", "tmpfs";
    restore_makes_file_on_tmpfs_again_after_reboot: "shared_file", "tmpfs", between empty_tmpfs;
    restore_keeps_read_only_shared_mapping_read_only: "read_only_shared_file", "";
    restore_keeps_deleted_file: "deleted_file", "disk";
    restore_keeps_deleted_file_on_tmpfs: "deleted_file", "tmpfs";
    restore_empties_wipe_on_fork_memory: "wiped_areas", "wipeonfork";
    restore_empties_droppable_memory: "wiped_areas", "droppable";
    restore_keeps_vdso_working_and_clocks_going: "vdso_clock", "";
    restore_keeps_heap_growing: "heap_growth", "";
    restore_keeps_stack_growing: "stack_growth", "";
    restore_keeps_arguments_and_environment: "cmdline_environ", "";
    restore_keeps_executable_link: "exe_link", "";
    restore_keeps_auxiliary_vector: "auxv", "";
    restore_keeps_memory_advice_and_locks: "madvise_flags", "";
    restore_keeps_pages_shared_by_fork_shared: "prefork", "data";
    restore_keeps_pages_shared_among_generations: "prefork", "generations";
    restore_keeps_pages_that_fork_copied_apart: "fork_divides", "";
    restore_keeps_sysv_shared_memory: "sysv_shm", "attached";
    restore_keeps_removed_sysv_shared_memory: "sysv_shm", "removed";
    restore_keeps_locking_of_future_memory: "lock_future", "at_once";
    restore_keeps_locking_of_all_memory: "lock_future", "current";
    restore_keeps_locking_of_future_memory_on_fault: "lock_future", "on_fault";
    restore_keeps_guard_pages: "guard_pages", "";
    restore_keeps_sealed_memory_sealed: "sealed_memory", "";
    restore_keeps_memfd_mapped_twice: "memfd_twice", "";
    restore_keeps_programs_in_memfds_executable: "memfd_executed", "";
    restore_keeps_attributes_of_deleted_file: "deleted_attributes", "disk";
    restore_keeps_attributes_of_deleted_file_on_tmpfs: "deleted_attributes", "tmpfs";
    restore_keeps_attributes_of_memfd: "deleted_attributes", "memfd";
    restore_keeps_sysv_segment_with_the_first_id: "sysv_first", "";
    restore_keeps_sysv_segment_that_is_not_attached: "sysv_loose", "";
    restore_keeps_sysv_message_queue: "sysv_queue", "messages";
    restore_keeps_sysv_message_queue_that_nobody_has_used: "sysv_queue", "unused";
    restore_keeps_sysv_message_queue_that_a_thread_waits_for: "sysv_queue", "waiting";
    restore_keeps_full_sysv_message_queue_that_threads_wait_for: "sysv_queue", "full";
    restore_keeps_sysv_semaphores: "sysv_semaphores", "values";
    restore_keeps_what_processes_undo_of_sysv_semaphores: "sysv_semaphores", "undo";
    restore_keeps_posix_message_queues: "mqueue", "";
    restore_goes_on_waiting_for_sysv_semaphores_without_eintr: "sysv_semaphores", "waiting";
    restore_keeps_memfd_closed_to_later_writers: "memfd_twice", "future_write";
    restore_keeps_merging_of_all_memory: "merge_all", "";
    restore_keeps_area_growing_down: "grows_down", "";
    restore_keeps_30000_mappings: "vmas_30000", "";
    restore_keeps_2000_mappings: "vmas_2000", "";
    restore_keeps_256_mib: "memory_256mib", "";
    restore_leaves_at_most_one_page: "left_behind", "one";
    restore_leaves_at_most_one_page_and_a_frame_per_thread: "left_behind", "many";

    // timers
    restore_keeps_interval_timers: "itimers", "";
    restore_keeps_interval_timer_firing: "itimer_fires", "";
    restore_keeps_posix_timers: "posix_timers", "";
    restore_keeps_timers_that_call_a_thread: "timer_thread", "";
    restore_keeps_timer_of_a_thread_that_has_ended: "timer_of_ended_thread", "";
    restore_keeps_timer_with_blocked_signal: "timer_overrun", "";
    restore_keeps_timers_on_cpu_time_of_threads: "cpu_timers", "threads";
    restore_keeps_timer_on_cpu_time_of_the_only_thread: "cpu_timers", "single";
    restore_keeps_relative_timerfd: "timerfd", "relative";
    restore_keeps_absolute_timerfd: "timerfd", "absolute";
    restore_keeps_realtime_timerfd: "timerfd", "realtime";
    restore_keeps_timerfd_that_setting_the_clock_cancels: "timerfd", "cancelled";
    restore_keeps_unread_expirations_of_timerfd: "timerfd", "pending";
    restore_keeps_disarmed_timerfd_disarmed: "timerfd", "disarmed";

    // io_uring
    restore_keeps_ring_of_epoll_registrations: "io_uring", "epoll";
    restore_keeps_ring_without_index_array: "io_uring", "no_array";
    restore_keeps_prepared_requests_and_unread_completions: "io_uring", "half_way";
    restore_keeps_rings_with_a_worker: "io_uring", "worker";
    restore_keeps_ring_shared_over_fork: "io_uring", "shared";
    restore_keeps_rings_registered_under_numbers: "io_uring", "number";

    // files
    restore_keeps_file_offsets_and_modes: "file_offset", "";
    restore_keeps_path_only_descriptors: "o_path", "";
    restore_keeps_position_in_directory: "directory_offset", "";
    restore_keeps_duplicates_sharing_one_offset: "dup_shares_offset", "";
    restore_keeps_offset_shared_across_fork: "fork_shares_offset", "";
    restore_keeps_sparse_descriptor_numbers: "sparse_fds", "";
    restore_keeps_owner_of_sigio: "fd_owner", "";
    restore_keeps_device_nodes: "device_nodes", "";
    restore_keeps_named_fifo: "named_fifo", "";
    restore_keeps_named_fifos_in_every_state: "fifo_states", "disk";
    restore_keeps_named_fifos_on_tmpfs: "fifo_states", "tmpfs";
    restore_makes_named_fifos_again_after_reboot: "fifo_states", "tmpfs", between empty_tmpfs;
    restore_keeps_packets_of_pipe: "pipe_packets", "";
    restore_keeps_ways_of_opening_and_nameless_files: "open_flags", "";
    restore_keeps_files_of_proc_sys_and_namespaces: "kernel_files", "";
    restore_keeps_pressure_trigger: "pressure_trigger", "";
    restore_keeps_posix_locks_with_their_owners: "file_locks", "posix";
    restore_keeps_posix_locks_of_mapped_file: "file_locks", "mapped";
    restore_keeps_flock_of_description_shared_over_fork: "file_locks", "flock";
    restore_keeps_flock_that_a_mapping_keeps: "file_locks", "kept_by_mapping";
    restore_keeps_flock_that_a_private_mapping_keeps: "file_locks", "kept_by_private_mapping";
    restore_keeps_locks_of_open_file_descriptions: "file_locks", "ofd";

    // pipes and events
    restore_keeps_pipe_content_and_size: "pipe_content", "";
    restore_keeps_pipes_between_processes: "pipe_between", "";
    restore_keeps_eventfd_counter: "eventfd", "counter";
    restore_keeps_eventfd_semaphore: "eventfd", "semaphore";
    restore_keeps_empty_eventfd: "eventfd", "zero";
    restore_keeps_full_eventfd: "eventfd", "full";
    restore_keeps_epoll_entries_and_data: "epoll_plain", "";
    restore_keeps_epoll_edge_triggered: "epoll_edge", "";
    restore_keeps_epoll_exclusive: "epoll_exclusive", "";
    restore_keeps_epoll_woken_by_signals: "epoll_signalfd", "";
    restore_keeps_epoll_shared_over_fork: "epoll_shared", "";
    restore_keeps_nested_epoll_sets: "epoll_nested", "levels";
    restore_keeps_nested_epoll_sets_ready: "epoll_nested", "ready";
    restore_keeps_spent_watches_of_epoll_sets: "epoll_nested", "spent";
    restore_keeps_nested_epoll_sets_shared_over_fork: "epoll_nested", "shared";
    restore_keeps_watches_of_closed_numbers: "epoll_nested", "closed";
    restore_keeps_watches_of_what_only_a_child_has: "epoll_nested", "closed_by_parent";
    restore_keeps_watch_of_proc_file_under_a_closed_number: "epoll_nested", "proc_closed";
    restore_keeps_watch_of_signalfd_under_a_closed_number: "epoll_nested", "signalfd_closed";
    restore_keeps_signalfd: "signalfd", "";
    restore_keeps_inotify_watches: "inotify", "";
    watches_see_nothing_of_dump_and_restore: "watched", "";
    restore_keeps_pidfds_of_the_tree: "pidfd", "tree";
    restore_keeps_pidfds_of_threads: "pidfd", "threads";
    restore_keeps_pidfds_in_epoll: "pidfd", "epoll";
    restore_keeps_fanotify_groups: "fanotify", "";

    // sockets
    restore_keeps_stream_pair_with_data: "unix_pair", "stream";
    restore_keeps_datagram_pair_with_data: "unix_pair", "dgram";
    restore_keeps_seqpacket_pair_with_data: "unix_pair", "seqpacket";
    restore_keeps_socket_pair_between_processes: "unix_pair_fork", "";
    restore_keeps_unix_listener: "unix_listener", "path";
    restore_makes_path_of_unix_listener_again: "unix_listener", "path", between empty_tmpfs;
    restore_keeps_abstract_unix_listener: "unix_listener", "abstract";
    restore_keeps_seqpacket_listener: "unix_listener", "seqpacket";
    restore_keeps_removed_path_of_listener_removed: "unix_listener", "removed";
    regression_listener_is_found_under_the_name_that_it_was_renamed_to: "unix_listener", "renamed";
    regression_renamed_listener_is_found_after_reboot: "unix_listener", "renamed", between empty_tmpfs;
    restore_keeps_second_name_of_listener: "unix_listener", "linked";
    restore_keeps_sockets_whose_names_were_unlinked: "unix_nameless", "plain";
    restore_keeps_sockets_whose_names_are_fifos_now: "unix_nameless", "fifo";
    restore_keeps_sockets_whose_names_others_have_now: "unix_nameless", "socket";
    restore_keeps_sockets_whose_directory_is_gone: "unix_nameless", "gone";
    restore_keeps_sockets_of_a_working_directory_that_is_gone: "unix_nameless", "relative";
    restore_keeps_unix_sockets_at_relative_paths: "unix_relative", "disk";
    restore_makes_relative_paths_of_unix_sockets_again: "unix_relative", "tmpfs", between empty_tmpfs;
    restore_keeps_relative_path_of_renamed_socket: "unix_relative", "renamed";
    restore_finds_relative_path_where_nobody_works: "unix_relative", "nobody";
    restore_finds_relative_path_from_another_process: "unix_relative", "child";
    restore_keeps_bound_datagram_sockets: "unix_dgram_bound", "";
    restore_keeps_chain_of_datagram_sockets: "unix_dgram_chain", "";
    restore_keeps_bound_datagram_sockets_after_reboot: "unix_dgram_bound", "", between empty_tmpfs;
    restore_connects_datagram_socket_to_outside_again: "unix_dgram_outside", "";
    restore_keeps_tcp_listener_v4: "tcp_listener", "v4";
    restore_keeps_tcp_listener_v6: "tcp_listener", "v6";
    restore_keeps_tcp_listener_for_both: "tcp_listener", "dual";
    restore_keeps_listeners_that_share_a_port: "tcp_reuseport", "";
    restore_keeps_listeners_that_share_a_port_by_a_former_option: "tcp_reuseport", "off";
    restore_keeps_addresses_that_the_machine_does_not_have: "freebind", "";
    restore_keeps_sockets_at_addresses_of_one_link: "link_local", "";
    restore_keeps_tcp_socket_that_was_taken_back: "tcp_taken_back", "";
    restore_keeps_unread_bytes_of_closed_tcp_connection: "tcp_over", "closed";
    restore_keeps_closed_tcp_connection_that_was_read: "tcp_over", "drained";
    restore_keeps_reset_of_tcp_connection: "tcp_over", "reset";
    restore_keeps_unread_bytes_before_reset_of_tcp_connection: "tcp_over", "reset_unread";
    restore_keeps_keys_of_tcp_listener_v4: "tcp_signed", "v4";
    restore_keeps_keys_of_tcp_listener_v6: "tcp_signed", "v6";
    restore_keeps_keys_for_both_families: "tcp_signed", "mapped";
    restore_keeps_owners_of_pipes_and_sockets: "owners", "";
    restore_keeps_udp_v4: "udp", "v4";
    restore_keeps_udp_v6: "udp", "v6";

    restore_keeps_descriptors_in_flight_in_stream: "unix_rights", "stream";
    restore_keeps_descriptors_in_flight_in_datagrams: "unix_rights", "dgram";
    restore_keeps_descriptors_in_flight_in_packets: "unix_rights", "seqpacket";
    restore_keeps_who_made_the_other_end: "unix_peer", "";
    restore_keeps_who_made_the_other_end_after_reboot: "unix_peer", "", between empty_tmpfs;
    restore_keeps_clients_that_wait_for_accept: "unix_waiting", "stream";
    restore_keeps_seqpacket_clients_that_wait_for_accept: "unix_waiting", "seqpacket";
    restore_keeps_senders_of_queued_datagrams: "unix_senders", "path";
    restore_keeps_abstract_senders_of_queued_datagrams: "unix_senders", "abstract";
    restore_keeps_half_closed_connections: "unix_half_closed", "";
    restore_keeps_tcp_connection_v4: "tcp_connection", "v4";
    restore_keeps_tcp_connection_v6: "tcp_connection", "v6";
    restore_keeps_tcp_connection_between_families: "tcp_connection", "mapped";
    restore_keeps_tcp_connection_that_is_full: "tcp_connection", "full";
    restore_keeps_tcp_connection_between_processes: "tcp_connection", "fork";
    restore_keeps_half_closed_tcp_connection: "tcp_half_closed", "v4";
    restore_keeps_half_closed_tcp_connection_v6: "tcp_half_closed", "v6";
    restore_keeps_tcp_connection_closed_behind_data: "tcp_half_closed", "full";
    restore_keeps_tcp_connection_that_is_not_read_from: "tcp_half_closed", "reading";
    restore_keeps_netlink_sockets_of_rtnetlink: "netlink", "route";
    restore_keeps_netlink_sockets_of_every_protocol: "netlink", "protocols";
    restore_keeps_netlink_filter: "netlink", "filter";
    restore_keeps_netlink_socket_connected: "netlink", "connected";
    restore_keeps_multicast_groups_v4: "multicast", "v4";
    restore_keeps_multicast_groups_v6: "multicast", "v6";
    restore_keeps_multicast_groups_of_both_families: "multicast", "both";
    restore_keeps_options_of_tcp_v4: "socket_options", "tcp4";
    restore_keeps_options_of_tcp_v6: "socket_options", "tcp6";
    restore_keeps_options_of_udp_v4: "socket_options", "udp4";
    restore_keeps_options_of_udp_v6: "socket_options", "udp6";
    restore_keeps_options_of_raw_socket_v4: "socket_options", "raw4";
    restore_keeps_options_of_raw_socket_v6: "socket_options", "raw6";
    restore_keeps_options_of_unix_socket: "socket_options", "unix";
    restore_keeps_options_of_packet_socket: "socket_options", "packet";
    restore_keeps_every_option_that_can_be_read: "option_walk", "";
    restore_keeps_size_of_fragments: "udp_fragments", "";
    restore_keeps_raw_socket: "raw_socket", "raw";
    restore_keeps_ping_socket: "raw_socket", "ping";
    restore_keeps_packet_sockets: "packet_socket", "";
    restore_keeps_vsock_listener: "vsock_listener", "";

    // attributes of processes and threads
    restore_keeps_umask_and_working_directory: "umask_cwd", "";
    restore_keeps_changed_root: "changed_root", "";
    restore_keeps_resource_limits: "resource_limits", "";
    restore_keeps_as_many_signals_as_are_allowed: "limits_reached", "signals";
    restore_keeps_more_signals_than_are_allowed_now: "limits_reached", "signals_below";
    restore_keeps_as_much_memory_as_is_allowed: "limits_reached", "memory";
    restore_keeps_more_memory_than_is_allowed_now: "limits_reached", "memory_below";
    restore_keeps_as_much_locked_memory_as_is_allowed: "limits_reached", "locked";
    restore_keeps_more_locked_memory_than_is_allowed_now: "limits_reached", "locked_below";
    restore_keeps_as_many_processes_as_are_allowed: "limits_reached", "processes";
    restore_keeps_more_processes_than_are_allowed_now: "limits_reached", "processes_below";
    restore_keeps_as_large_message_queues_as_are_allowed: "limits_reached", "queues";
    restore_keeps_larger_message_queues_than_are_allowed_now: "limits_reached", "queues_below";
    restore_keeps_priorities_that_are_not_allowed_now: "limits_reached", "priorities";
    restore_keeps_files_that_are_longer_than_is_allowed_now: "limits_reached", "file_size";
    restore_keeps_scheduling_of_each_thread: "scheduling", "";
    restore_keeps_deadline_scheduling: "scheduling_deadline", "";
    restore_keeps_time_stamp_counter_forbidden: "thread_control", "tsc";
    restore_keeps_cpuid_forbidden: "thread_control", "cpuid";
    restore_keeps_policy_of_memory_failures: "thread_control", "memory_failure";
    restore_keeps_io_flusher: "thread_control", "io_flusher";
    restore_keeps_speculation_forbidden: "thread_control", "speculation";
    restore_keeps_oom_score: "oom_score", "";
    restore_keeps_dropped_user: "user_ids", "all";
    restore_keeps_user_ids_of_each_thread: "user_ids", "mixed";
    restore_keeps_capabilities_of_root: "capabilities", "root";
    restore_keeps_capabilities_of_user: "capabilities", "user";
    restore_keeps_locked_securebits: "securebits", "locked";
    restore_keeps_keepcaps: "securebits", "keepcaps";
    restore_keeps_undumpable: "process_flags", "dumpable";
    restore_keeps_no_new_privs: "process_flags", "no_new_privs";
    restore_keeps_write_or_execute: "process_flags", "mdwe";
    restore_keeps_parent_death_signal: "process_flags", "pdeathsig";
    restore_keeps_parent_death_signal_of_child: "pdeathsig_child", "";
    restore_keeps_child_subreaper: "process_flags", "subreaper";
    restore_keeps_timer_slack: "process_flags", "timer_slack";
    restore_keeps_personality: "process_flags", "personality";
    restore_keeps_huge_pages_disabled: "process_flags", "thp_disable";
    restore_keeps_one_seccomp_filter: "seccomp_filters", "one";
    restore_keeps_30_seccomp_filters: "seccomp_filters", "stack";
    restore_keeps_30_seccomp_filters_without_no_new_privs: "seccomp_filters", "privileged";
    restore_gets_past_seccomp_filter_of_a_service: "seccomp_daemon", "";

    // trees
    restore_keeps_process_tree: "process_tree", "";
    restore_keeps_process_groups: "process_groups", "groups";
    restore_keeps_session_of_child: "process_groups", "session";
    restore_keeps_group_without_leader: "process_groups", "dead_group";
    restore_keeps_session_without_leader: "process_groups", "dead_session";
    restore_keeps_sessions_and_groups_across_parents: "sessions_crossed", "";
    restore_keeps_children_waited_for: "child_ends", "";
    restore_keeps_zombies: "zombies", "";
    restore_keeps_zombies_whose_signal_is_pending: "zombies", "pending";
    restore_keeps_zombies_of_who_ignores_their_end: "zombies", "ignored";
    restore_keeps_zombies_of_a_child: "zombies", "of_child";
    restore_keeps_stopped_process: "stopped", "";
    restore_keeps_stopped_process_that_was_waited_for: "stopped", "waited";
    restore_keeps_stopped_process_that_was_looked_at: "stopped", "looked";
    restore_keeps_stopped_process_whose_signal_is_pending: "stopped", "pending";
    restore_keeps_process_stopped_at_the_terminal: "stopped", "tstp";

    // interrupted system calls
    restore_goes_on_sleeping: "interrupted", "nanosleep";
    restore_goes_on_sleeping_until: "interrupted", "nanosleep_until";
    restore_goes_on_waiting_on_futex: "interrupted", "futex";
    restore_goes_on_waiting_on_futex_with_timeout: "interrupted", "futex_timed";
    restore_goes_on_sleeping_without_eintr: "interrupted", "nanosleep_alone";
    restore_goes_on_waiting_on_futex_until: "interrupted", "futex_until";
    restore_goes_on_waiting_on_futex_without_eintr: "interrupted", "futex_alone";
    restore_goes_on_reading_pipe: "interrupted", "read_pipe";
    restore_goes_on_reading_eventfd: "interrupted", "read_eventfd";
    restore_goes_on_receiving: "interrupted", "recv";
    restore_goes_on_polling: "interrupted", "poll";
    restore_goes_on_polling_with_mask: "interrupted", "ppoll_mask";
    restore_goes_on_selecting: "interrupted", "select";
    restore_goes_on_waiting_on_epoll: "interrupted", "epoll_wait";
    restore_goes_on_suspended_for_signal: "interrupted", "sigsuspend";
    restore_goes_on_waiting_for_signal: "interrupted", "sigtimedwait";
    restore_goes_on_waiting_for_signal_without_eintr: "interrupted", "sigwaitinfo";
    restore_goes_on_receiving_with_time_limit: "interrupted", "recv_limited";
    restore_goes_on_reading_with_time_limit: "interrupted", "read_limited";
    restore_goes_on_accepting_with_time_limit: "interrupted", "accept_limited";
    restore_goes_on_accepting: "interrupted", "accept";
    restore_goes_on_writing_full_pipe: "interrupted", "write_pipe";
    restore_interrupts_pause_by_signal_of_the_process: "stopped_in_call", "pause";
    restore_interrupts_read_by_handler_without_restart: "stopped_in_call", "read";
    restore_repeats_read_after_handler_with_restart: "stopped_in_call", "read_again";
    restore_goes_on_pausing_with_blocked_signal: "stopped_in_call", "blocked";
    restore_goes_on_pausing: "interrupted", "pause";
    restore_goes_on_waiting_for_child: "interrupted", "waitpid";

    // executables
    restore_keeps_static_program: "static_c", "", with Static;
    restore_keeps_static_musl_program: "static_c", "", with Musl;
    restore_keeps_go_program: "go_runtime", "", with Go;
}

/// As after a reboot: what was on the tmpfs is gone.
fn empty_tmpfs(running: &Running) {
    for entry in fs::read_dir(running.shm()).expect("tmpfs directory").flatten() {
        let path = entry.path();
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.expect("remove from the tmpfs");
    }
}

/// A whole tree below a directory that the dump is told of.
fn restore_makes_volatile_directory_again_after_reboot() -> Outcome {
    let subject = Subject::new("volatile_tree", "");
    let mut running = Running::ready(subject)?;
    let image = running.file("image");
    let dump = Fastboot::dump(running.pid, &image).volatile(running.shm());
    let answer = running.run(dump);
    assert_eq!(answer.code, Some(0), "dump: {answer:?}");
    running.assert_gone("after the dump");
    fs::remove_dir_all(running.shm().join("tree")).expect("remove what a reboot removes");
    running.restore(&image);
    judge(subject, &running.finish("restored"))
}

/// Subjects that go through process numbers so fast that nobody else can have theirs meanwhile;
/// what they hold is never twice the same.
const RESTLESS: [(&str, Subject); 4] = [
    ("restore_keeps_process_that_makes_threads_all_the_time", Subject::new("churn", "threads")),
    ("restore_keeps_process_that_forks_all_the_time", Subject::new("churn", "fork")),
    ("dump_waits_until_a_child_of_vfork_has_ended", Subject::new("churn", "vfork")),
    ("restore_keeps_process_that_starts_programs_all_the_time", Subject::new("churn", "spawn")),
];

fn keeps_restless(subject: Subject) -> Outcome {
    let _alone = crate::process::NUMBERS.write();
    let mut running = Running::ready(subject)?;
    let image = running.file("image");
    for _ in 0..5 {
        let answer = running.run(Fastboot::dump(running.pid, &image).leave_running());
        assert_eq!(answer.code, Some(0), "dump: {answer:?}");
        fs::remove_file(&image).expect("remove the image");
    }
    running.dump(&image);
    running.restore(&image);
    judge(subject, &running.finish("restored"))
}

fn restore_keeps_3000_threads() -> Outcome {
    let _alone = crate::process::NUMBERS.write();
    let subject = Subject::new("threads_3000", "");
    let mut running = Running::ready(subject)?;
    let (first, second) = (running.file("first.image"), running.file("second.image"));
    running.dump(&first);
    running.restore(&first);
    let answer = running.run(Fastboot::dump(running.pid, &second).leave_running());
    assert_eq!(answer.code, Some(0), "second dump: {answer:?}");
    crate::equal::assert_same_state(subject.program, &first, &second);
    judge(subject, &running.finish("restored"))
}

/// The root of a tree may be stopped too; a dump leaves it so.
fn restore_keeps_stopped_root_and_dump_leaves_it_stopped() -> Outcome {
    use nix::sys::signal::{Signal, kill};
    let _numbers_stay = crate::process::NUMBERS.read();
    let subject = Subject::new("threads_64", "");
    let mut running = Running::ready(subject)?;
    let root = nix::unistd::Pid::from_raw(running.pid);
    let is_stopped = |when: &str| {
        let threads = crate::process::threads(root.as_raw());
        assert!(threads.len() > 60, "{when}: {} threads", threads.len());
        for tid in threads {
            let stat = fs::read_to_string(format!("/proc/{root}/task/{tid}/stat")).expect("a thread");
            let state = stat.rsplit_once(')').expect("a name").1.trim_start().chars().next();
            assert_eq!(state, Some('T'), "{when}: thread {tid}");
        }
    };
    let wait = || std::thread::sleep(std::time::Duration::from_millis(50));
    kill(root, Signal::SIGSTOP).expect("stop the root");
    wait();
    is_stopped("at first");
    let image = running.file("image");
    let answer = running.run(Fastboot::dump(running.pid, &image).leave_running());
    assert_eq!(answer.code, Some(0), "{answer:?}");
    wait();
    is_stopped("after a dump");
    fs::remove_file(&image).expect("remove the image");
    running.dump(&image);
    running.restore(&image);
    wait();
    is_stopped("restored");
    kill(root, Signal::SIGCONT).expect("let the root go on");
    judge(subject, &running.finish("restored"))
}

/// Where that is asked for, who was connected to others finds them gone.
const LOST: [(&str, Subject); 4] = [
    (
        "restore_ends_connections_to_others_where_that_is_asked_for_accepted",
        Subject::new("lost_peer", "accepted"),
    ),
    (
        "restore_ends_connections_to_others_where_that_is_asked_for_outgoing",
        Subject::new("lost_peer", "outgoing"),
    ),
    (
        "restore_ends_connections_to_others_where_that_is_asked_for_connecting",
        Subject::new("lost_peer", "connecting"),
    ),
    ("restore_ends_connections_to_others_where_that_is_asked_for_unix", Subject::new("lost_peer", "unix")),
];

fn ends_connections(subject: Subject) -> Outcome {
    let mut running = Running::ready(subject)?;
    let image = running.file("image");
    let answer = running.run(Fastboot::dump(running.pid, &image).close_lost_peers());
    assert_eq!(answer.code, Some(0), "dump: {answer:?}");
    running.assert_gone("after the dump");
    running.restore(&image);
    judge(subject, &running.finish("restored"))
}

/// What is kept, and of each subject that it passes when nobody dumps it.
pub fn tests() -> Vec<Test> {
    let kept = KEPT.iter().map(|kept| {
        let &Kept { test, subject, between } = kept;
        of_subject(test, subject, move || dump_and_restore(subject, between))
    });
    let restless = RESTLESS.map(|(test, subject)| of_subject(test, subject, move || keeps_restless(subject)));
    let lost = LOST.map(|(test, subject)| of_subject(test, subject, move || ends_connections(subject)));
    let mut tests: Vec<Test> = kept.chain(restless).chain(lost).collect();
    tests.extend(test_frame::tests![
        [Need::Root, Toolchain::Shared.need()];
        restore_makes_volatile_directory_again_after_reboot,
        restore_keeps_3000_threads,
        restore_keeps_stopped_root_and_dump_leaves_it_stopped,
    ]);
    let quiet = KEPT.iter().map(|kept| kept.subject).chain(LOST.map(|(_, subject)| subject));
    tests.extend(without_dump(quiet));
    let alone = RESTLESS.map(|(_, subject)| subject);
    tests.extend(without_dump_holding(alone, || crate::process::NUMBERS.write()));
    tests
}
