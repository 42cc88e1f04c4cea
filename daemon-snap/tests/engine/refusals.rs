//! What is refused is refused by name, and left as it is.

use crate::fastboot::{Answer, Fastboot};
use crate::running::{Outcome, Running, Subject, judge, of_subject, without_dump};
use test_frame::Test;

/// Name of the test, variant of the subject, and words of which one has to stand in the line that
/// names the object; without case. The engine's wording leads.
type Refused = (&'static str, &'static str, &'static [&'static str]);

#[rustfmt::skip]
const REFUSED: &[Refused] = &[
    ("dump_refuses_ring_with_polling_thread", "ring_polling", &["polling thread"]),
    ("dump_refuses_ring_for_a_single_thread", "ring_single", &["single thread"]),
    ("dump_refuses_ring_that_is_not_enabled", "ring_disabled", &["not enabled"]),
    ("dump_refuses_ring_registered_under_a_number", "ring_number", &["registered under number"]),
    ("dump_refuses_ring_with_event_descriptor", "ring_event", &["registered event descriptor"]),
    ("dump_refuses_ring_with_registered_files", "ring_files", &["registered files"]),
    ("dump_refuses_ring_with_registered_buffers", "ring_buffers", &["registered buffers"]),
    ("dump_refuses_ring_with_registered_credentials", "ring_credentials", &["registered credentials"]),
    ("dump_refuses_ring_with_request_in_flight", "ring_in_flight", &["requests in flight"]),
    ("dump_refuses_watch_of_signalfd_that_only_a_child_has", "lonely_watch", &["signalfd"]),
    ("dump_refuses_socket_at_a_relative_path_that_is_not_found", "relative_lost", &["relative path"]),
    ("dump_refuses_socket_connected_to_one_of_two_of_a_name", "shared_name", &["one of several"]),
    ("dump_refuses_socket_whose_directory_was_renamed", "moved_directory", &["another directory"]),
    ("dump_refuses_renamed_socket_whose_old_name_is_taken", "taken_name", &["old name"]),
    ("dump_refuses_tcp_connection_to_outside", "tcp_established", &["established tcp"]),
    ("dump_refuses_tcp_connection_that_both_ends_are_closing", "tcp_closing", &["closing tcp"]),
    ("dump_refuses_netlink_with_unread_messages", "netlink_queued", &["netlink"]),
    ("dump_refuses_netlink_listener_of_process_events", "netlink_connector", &["connector"]),
    ("dump_refuses_socket_with_ebpf_filter", "ebpf_filter", &["ebpf"]),
    ("dump_refuses_socket_of_another_network_namespace", "foreign_netlink", &["network namespace"]),
    ("dump_refuses_userfaultfd", "userfaultfd", &["userfaultfd"]),
    ("dump_refuses_part_of_sysv_segment", "sysv_part", &["sysv"]),
    ("dump_refuses_sysv_segment_that_only_others_have_attached", "sysv_unattached", &["only others have attached"]),
    ("dump_refuses_sysv_semaphores_that_others_use", "sysv_semaphores", &["semaphores that others use too"]),
    ("dump_refuses_undo_of_sysv_semaphores_that_others_use", "sysv_undo", &["operations to undo"]),
    ("dump_refuses_sysv_message_queue_that_others_use", "sysv_queue", &["message queue that others use too"]),
    ("dump_refuses_sysv_message_queue_that_others_may_have_made", "sysv_unclear", &["may have made"]),
    ("dump_refuses_datagram_that_is_corked", "udp_corked", &["datagram that has not been sent"]),
    ("dump_refuses_datagram_that_more_belongs_to", "udp_more", &["datagram that has not been sent"]),
    ("dump_refuses_socket_that_counts_what_it_sends_without_copies", "zerocopy", &["numbers notices"]),
    ("dump_refuses_socket_that_numbers_its_time_stamps", "stamp_numbers", &["numbers notices"]),
    ("dump_refuses_socket_with_a_flow_label", "flow_label", &["flow label"]),
    ("dump_refuses_socket_that_may_have_an_ipsec_policy", "ipsec_policy", &["ipsec policy"]),
    ("dump_refuses_breakpoint_in_program_text", "breakpoint", &["breakpoint"]),
    ("dump_refuses_local_descriptor_table", "ldt", &["modify_ldt"]),
    ("dump_refuses_secret_memory", "secret_memory", &["secret"]),
    ("dump_refuses_huge_tlb_memory", "hugetlb", &["hugetlb"]),
    ("dump_refuses_memory_of_a_userfaultfd", "userfault_memory", &["userfaultfd"]),
    ("dump_refuses_pidfd", "pidfd", &["pidfd"]),
    ("dump_refuses_packet_ring", "packet_ring", &["ring"]),
    ("dump_refuses_perf_event", "perf_event", &["perf"]),
    ("dump_refuses_lease", "lease", &["lease"]),
    ("dump_refuses_lock_of_file_that_is_only_mapped", "hidden_ofd_lock", &["lock"]),
    ("dump_refuses_controlling_terminal", "terminal", &["terminal", "tty"]),
    ("dump_refuses_pseudoterminal_master", "pty_master", &["character device"]),
    ("dump_refuses_pseudoterminal_slave", "pty_slave", &["character device"]),
    ("dump_refuses_dev_tty", "dev_tty", &["character device"]),
    ("dump_refuses_child_that_stays_in_vfork", "vfork", &["vfork"]),
    ("dump_refuses_zombie_that_dumped_core", "core_dump", &["core dump"]),
    ("dump_refuses_zombie_that_leads_a_session", "zombie_leader", &["leads a session"]),
    ("dump_refuses_stop_at_the_terminal_that_the_parent_has_not_been_told_of", "untold_stop", &["stopped by signal"]),
    ("dump_refuses_pidfd_in_flight", "pidfd_in_flight", &["unread descriptor, a pidfd"]),
    ("dump_refuses_timer_on_cpu_time_of_unknown_thread", "unknown_cpu_timer", &["cpu time of the thread"]),
    ("dump_refuses_timer_on_cpu_time_of_another_process", "foreign_cpu_timer", &["cpu time of another process"]),
    ("dump_refuses_aio_ring", "aio", &["aio"]),
    ("dump_refuses_traced_child", "traced", &["tracer", "ptrace"]),
    ("dump_refuses_unlinked_fifo", "unlinked_fifo", &["fifo"]),
    ("dump_refuses_pipe_to_outside", "pipe_outside", &["pipe"]),
    ("dump_refuses_socket_to_outside", "unix_outside", &["unix"]),
    ("dump_refuses_epoll_set_in_flight", "rights_in_flight", &["unread descriptor, an epoll set"]),
    ("dump_refuses_waiting_client_that_has_sent_something", "pending_client", &["pending"]),
    ("dump_refuses_waiting_client_from_outside", "pending_outsider", &["pending"]),
    ("dump_refuses_out_of_band_data", "out_of_band", &["out-of-band"]),
    ("dump_refuses_fanotify_group_that_is_asked_for_permission", "fanotify_asked", &["fanotify group that is asked for permission"]),
    ("dump_refuses_fanotify_group_with_unread_events", "fanotify_queued", &["fanotify group with unread events"]),
    ("dump_refuses_posix_message_queue_that_notifies", "mqueue_notify", &["mq_notify"]),
    ("dump_refuses_posix_message_queue_that_others_have_open", "mqueue_outside", &["has open too"]),
    ("dump_refuses_namespace_descriptor", "namespace_fd", &["namespace"]),
    ("dump_refuses_fifo_that_others_have_open", "fifo_outside", &["fifo"]),
    ("dump_refuses_proc_file_of_another_process", "proc_of_another", &["/proc"]),
    ("dump_refuses_proc_file_that_processes_share", "proc_shared", &["/proc"]),
    ("dump_refuses_directory_watched_by_dnotify", "dnotify", &["dnotify"]),
    ("dump_refuses_pressure_trigger_that_is_not_known", "pressure_unknown", &["pressure"]),
    ("dump_refuses_deleted_file_that_can_only_be_appended_to", "append_only", &["append-only"]),
    ("dump_refuses_deleted_file_with_a_name_elsewhere", "lost_name", &["another name"]),
    ("dump_refuses_process_that_has_restricted_itself", "landlock", &["has a landlock domain"]),
    ("dump_refuses_thread_that_has_restricted_itself", "landlock_thread", &["has a landlock domain"]),
    ("dump_refuses_child_without_rights_that_has_restricted_itself", "landlock_user", &["has a landlock domain"]),
    ("dump_refuses_seccomp_listener", "seccomp_listener", &["seccomp"]),
    ("dump_refuses_shared_descriptor_table", "shared_files", &["in common"]),
    ("dump_refuses_shared_address_space", "shared_memory", &["in common"]),
    ("dump_refuses_thread_with_own_directory", "thread_cwd", &["thread"]),
    ("dump_refuses_thread_with_own_descriptors", "thread_files", &["thread"]),
    ("dump_refuses_thread_in_other_network", "own_network", &["namespace"]),
    ("dump_refuses_thread_in_other_cgroup_namespace", "thread_cgroup", &["cgroup namespace"]),
    ("dump_refuses_pid_namespace_without_processes", "unborn_pid_namespace", &["pid namespace"]),
    ("dump_refuses_thread_with_own_personality", "thread_personality", &["personality"]),
    ("dump_refuses_signal_at_the_end_of_a_thread", "thread_death_signal", &["pr_set_pdeathsig"]),
    ("dump_refuses_unix_socket_with_unread_error", "unix_error", &["unread error"]),
    ("dump_refuses_tcp_socket_with_unread_error", "tcp_error", &["without a connection"]),
    ("dump_refuses_datagram_socket_whose_peer_has_another", "unix_elsewhere", &["formed a pair"]),
];

/// The same for what may be carried instead.
#[rustfmt::skip]
const EITHER: &[Refused] = &[
    ("dump_does_not_lose_zombie", "zombie", &["zombie", "exited", "ended"]),
    ("dump_does_not_lose_queued_datagram", "udp_queued", &["queued", "unread"]),
    ("dump_does_not_lose_epoll_entry_of_closed_descriptor", "epoll_orphan", &["epoll"]),
    ("dump_does_not_mix_up_epoll_entries_of_one_number", "epoll_reused", &["epoll"]),
    ("dump_does_not_lose_deleted_working_directory", "deleted_cwd", &["deleted", "unlinked", "removed"]),
    ("dump_does_not_lose_queued_inotify_event", "inotify_queued", &["inotify"]),
    ("dump_does_not_lose_queued_credentials", "credentials_queued", &["credentials", "unix"]),
    ("dump_does_not_take_a_replaced_file_for_the_open_one", "replaced_file", &["deleted", "unlinked", "removed", "replaced"]),
    ("dump_does_not_lose_sender_of_queued_datagram", "sender_queued", &["unix"]),
    ("dump_does_not_lose_socket_filter", "socket_filter", &["filter"]),
    ("dump_takes_no_more_descriptors_than_can_be_made_again", "many_files", &["more descriptors open"]),
    ("dump_needs_no_more_memory_than_a_limit_leaves", "no_room", &["no room for"]),
    ("dump_does_not_lose_threads_without_main", "main_thread_gone", &["thread", "leader", "zombie"]),
];

pub fn tests() -> Vec<Test> {
    let refused = |variant| Subject::new("refused", variant);
    let either = |variant| Subject::new("carried_or_refused", variant);
    let mut tests = Vec::new();
    for &(test, variant, words) in REFUSED {
        let subject = refused(variant);
        tests.push(of_subject(test, subject, move || refuses(subject, words)));
    }
    for &(test, variant, words) in EITHER {
        let subject = either(variant);
        tests.push(of_subject(test, subject, move || carries_or_refuses(subject, words)));
    }
    let subjects = REFUSED.iter().map(|row| refused(row.1)).chain(EITHER.iter().map(|row| either(row.1)));
    tests.extend(without_dump(subjects));
    tests
}

fn refuses(subject: Subject, words: &[&str]) -> Outcome {
    let mut running = Running::ready(subject)?;
    let image = running.file("image");
    let answer = running.run(Fastboot::dump(running.pid, &image).json());
    assert_eq!(answer.code, Some(3), "{answer:?}");
    assert!(!image.exists(), "an image was left: {answer:?}");
    assert_named(&running, &answer, words);
    assert_coded(&answer);
    judge(subject, &running.finish("untouched"))
}

fn carries_or_refuses(subject: Subject, words: &[&str]) -> Outcome {
    let mut running = Running::ready(subject)?;
    let image = running.file("image");
    let answer = running.run(Fastboot::dump(running.pid, &image));
    if answer.code == Some(3) {
        assert_named(&running, &answer, words);
        return judge(subject, &running.finish("untouched"));
    }
    assert_eq!(answer.code, Some(0), "{answer:?}");
    running.assert_gone("after the dump");
    running.restore(&image);
    judge(subject, &running.finish("restored"))
}

/// One line of stderr names the process, the kind, and each thing that the subject listed.
fn assert_named(running: &Running, answer: &Answer, words: &[&str]) {
    let stderr = answer.stderr.to_lowercase();
    let names = running.names();
    assert!(!names.is_empty(), "the subject lists no names");
    for name in names {
        let named =
            |line: &str| format!("{line} ").contains(&name) && words.iter().any(|word| line.contains(word));
        assert!(
            stderr.lines().any(|line| line.contains("pid ") && named(line)),
            "no line has `{name}` and one of {words:?}:\n{}",
            answer.stderr
        );
    }
}

/// Each sentence stands in the JSON too, beside a code that the page explains.
fn assert_coded(answer: &Answer) {
    const PAGE: &str = include_str!("../../../docs/reasons.md");
    let said: serde_json::Value = serde_json::from_str(&answer.stdout).expect("JSON of a refused dump");
    let obstacles = said["obstacles"].as_array().expect("a list of obstacles");
    assert!(!obstacles.is_empty(), "{answer:?}");
    for obstacle in obstacles {
        let text = |key: &str| obstacle[key].as_str().unwrap_or_else(|| panic!("no {key} in {obstacle}"));
        assert!(answer.stderr.lines().any(|line| line == text("reason")), "{obstacle}: {answer:?}");
        let entry = format!("\n- `{}`", text("code"));
        assert!(PAGE.contains(&entry), "{obstacle} is not explained");
    }
}
