//! What is refused is refused by name, and left as it is.

use crate::fastboot::{Answer, Fastboot};
use crate::process::missing_need;
use crate::running::{Running, Subject, all_pass_without_dump, judge};

/// Words of which one has to stand in the line that names the object; without case. The engine's wording leads.
#[rustfmt::skip]
const KINDS: &[(&str, &[&str])] = &[
    ("ring_polling",        &["polling thread"]),
    ("ring_single",         &["single thread"]),
    ("ring_disabled",       &["not enabled"]),
    ("ring_number",         &["registered under number"]),
    ("ring_event",          &["registered event descriptor"]),
    ("ring_files",          &["registered files"]),
    ("ring_buffers",        &["registered buffers"]),
    ("ring_credentials",    &["registered credentials"]),
    ("ring_in_flight",      &["requests in flight"]),
    ("lonely_watch",       &["signalfd"]),
    ("relative_lost",      &["relative path"]),
    ("tcp_established",    &["established tcp"]),
    ("tcp_closing",        &["closing tcp"]),
    ("netlink_queued",     &["netlink"]),
    ("netlink_connector",  &["connector"]),
    ("ebpf_filter",        &["ebpf"]),
    ("foreign_netlink",    &["network namespace"]),
    ("userfaultfd",        &["userfaultfd"]),
    ("sysv_part",          &["sysv"]),
    ("sysv_unattached",    &["sysv"]),
    ("sysv_semaphores",    &["sysv"]),
    ("sysv_queue",         &["sysv"]),
    ("sysv_waited_for",    &["sysv message queue"]),
    ("sysv_unused",        &["sysv message queue"]),
    ("udp_corked",         &["datagram that has not been sent"]),
    ("udp_more",           &["datagram that has not been sent"]),
    ("breakpoint",         &["breakpoint"]),
    ("ldt",                &["modify_ldt"]),
    ("secret_memory",      &["secret"]),
    ("hugetlb",            &["hugetlb"]),
    ("userfault_memory",   &["userfaultfd"]),
    ("pidfd",              &["pidfd"]),
    ("packet_ring",        &["ring"]),
    ("perf_event",         &["perf"]),
    ("lease",              &["lease"]),
    ("hidden_ofd_lock",    &["lock"]),
    ("terminal",           &["terminal", "tty"]),
    ("pty_master",         &["character device"]),
    ("pty_slave",          &["character device"]),
    ("dev_tty",            &["character device"]),
    ("vfork",              &["vfork"]),
    ("core_dump",          &["core dump"]),
    ("zombie_leader",      &["leads a session"]),
    ("untold_stop",        &["stopped by signal"]),
    ("pidfd_in_flight",    &["unread descriptor, a pidfd"]),
    ("unknown_cpu_timer",  &["cpu time of the thread"]),
    ("foreign_cpu_timer",  &["cpu time of another process"]),
    ("aio",                &["aio"]),
    ("traced",             &["tracer", "ptrace"]),
    ("unlinked_fifo",      &["fifo"]),
    ("pipe_outside",       &["pipe"]),
    ("unix_outside",       &["unix"]),
    ("rights_in_flight",   &["unread descriptor, an epoll set"]),
    ("pending_client",     &["pending"]),
    ("pending_outsider",   &["pending"]),
    ("out_of_band",        &["out-of-band"]),
    ("fanotify_asked",     &["fanotify group that is asked for permission"]),
    ("fanotify_queued",    &["fanotify group with unread events"]),
    ("mqueue",             &["message queue", "mqueue"]),
    ("namespace_fd",       &["namespace"]),
    ("fifo_outside",       &["fifo"]),
    ("proc_of_another",    &["/proc"]),
    ("proc_shared",        &["/proc"]),
    ("dnotify",            &["dnotify"]),
    ("pressure_unknown",   &["pressure"]),
    ("lost_name",          &["another name"]),
    ("landlock",           &["has a landlock domain"]),
    ("landlock_thread",    &["has a landlock domain"]),
    ("landlock_user",      &["has a landlock domain"]),
    ("seccomp_listener",   &["seccomp"]),
    ("shared_files",       &["in common"]),
    ("shared_memory",      &["in common"]),
    ("thread_cwd",         &["thread"]),
    ("thread_files",       &["thread"]),
    ("own_network",        &["namespace"]),
];

/// The same for what may be carried instead : program, variant, words.
#[rustfmt::skip]
const EITHER: &[(&str, &str, &[&str])] = &[
    ("carried_or_refused", "zombie",             &["zombie", "exited", "ended"]),
    ("carried_or_refused", "udp_queued",         &["queued", "unread"]),
    ("carried_or_refused", "epoll_orphan",       &["epoll"]),
    ("carried_or_refused", "epoll_reused",       &["epoll"]),
    ("carried_or_refused", "deleted_cwd",        &["deleted", "unlinked", "removed"]),
    ("carried_or_refused", "inotify_queued",     &["inotify"]),
    ("carried_or_refused", "credentials_queued", &["credentials", "unix"]),
    ("carried_or_refused", "replaced_file",      &["deleted", "unlinked", "removed", "replaced"]),
    ("carried_or_refused", "sender_queued",      &["unix"]),
    ("carried_or_refused", "socket_filter",      &["filter"]),
    ("carried_or_refused", "main_thread_gone",   &["thread", "leader", "zombie"]),
];

/// The subjects themselves are right: each passes when nobody dumps it.
#[test]
fn every_refused_subject_passes_without_dump() {
    if missing_need().is_none() {
        let refused = KINDS.iter().map(|(variant, _)| Subject::new("refused", variant));
        let either = EITHER.iter().map(|(program, variant, _)| Subject::new(program, variant));
        all_pass_without_dump(&refused.chain(either).collect::<Vec<_>>());
    }
}

macro_rules! variants {
    ($check:ident; $($name:ident: $($which:literal),*;)*) => {
        $(#[test]
        fn $name() {
            $check($($which),*);
        })*
    };
}

variants! {
    refuses;
    dump_refuses_ring_with_polling_thread: "ring_polling";
    dump_refuses_ring_for_a_single_thread: "ring_single";
    dump_refuses_ring_that_is_not_enabled: "ring_disabled";
    dump_refuses_ring_registered_under_a_number: "ring_number";
    dump_refuses_ring_with_event_descriptor: "ring_event";
    dump_refuses_ring_with_registered_files: "ring_files";
    dump_refuses_ring_with_registered_buffers: "ring_buffers";
    dump_refuses_ring_with_registered_credentials: "ring_credentials";
    dump_refuses_ring_with_request_in_flight: "ring_in_flight";
    dump_refuses_watch_of_signalfd_that_only_a_child_has: "lonely_watch";
    dump_refuses_socket_at_a_relative_path_that_is_not_found: "relative_lost";
    dump_refuses_tcp_connection_to_outside: "tcp_established";
    dump_refuses_tcp_connection_that_both_ends_are_closing: "tcp_closing";
    dump_refuses_netlink_with_unread_messages: "netlink_queued";
    dump_refuses_netlink_listener_of_process_events: "netlink_connector";
    dump_refuses_socket_with_ebpf_filter: "ebpf_filter";
    dump_refuses_socket_of_another_network_namespace: "foreign_netlink";
    dump_refuses_userfaultfd: "userfaultfd";
    dump_refuses_part_of_sysv_segment: "sysv_part";
    dump_refuses_sysv_segment_that_is_not_attached: "sysv_unattached";
    dump_refuses_sysv_semaphores: "sysv_semaphores";
    dump_refuses_sysv_message_queue: "sysv_queue";
    dump_refuses_sysv_message_queue_that_a_thread_waits_for: "sysv_waited_for";
    dump_refuses_sysv_message_queue_that_nobody_has_used: "sysv_unused";
    dump_refuses_datagram_that_is_corked: "udp_corked";
    dump_refuses_datagram_that_more_belongs_to: "udp_more";
    dump_refuses_breakpoint_in_program_text: "breakpoint";
    dump_refuses_local_descriptor_table: "ldt";
    dump_refuses_secret_memory: "secret_memory";
    dump_refuses_huge_tlb_memory: "hugetlb";
    dump_refuses_memory_of_a_userfaultfd: "userfault_memory";
    dump_refuses_pidfd: "pidfd";
    dump_refuses_packet_ring: "packet_ring";
    dump_refuses_perf_event: "perf_event";
    dump_refuses_lease: "lease";
    dump_refuses_lock_of_file_that_is_only_mapped: "hidden_ofd_lock";
    dump_refuses_controlling_terminal: "terminal";
    dump_refuses_pseudoterminal_master: "pty_master";
    dump_refuses_pseudoterminal_slave: "pty_slave";
    dump_refuses_dev_tty: "dev_tty";
    dump_refuses_child_that_stays_in_vfork: "vfork";
    dump_refuses_zombie_that_dumped_core: "core_dump";
    dump_refuses_zombie_that_leads_a_session: "zombie_leader";
    dump_refuses_stop_at_the_terminal_that_the_parent_has_not_been_told_of: "untold_stop";
    dump_refuses_pidfd_in_flight: "pidfd_in_flight";
    dump_refuses_timer_on_cpu_time_of_unknown_thread: "unknown_cpu_timer";
    dump_refuses_timer_on_cpu_time_of_another_process: "foreign_cpu_timer";
    dump_refuses_aio_ring: "aio";
    dump_refuses_traced_child: "traced";
    dump_refuses_unlinked_fifo: "unlinked_fifo";
    dump_refuses_pipe_to_outside: "pipe_outside";
    dump_refuses_socket_to_outside: "unix_outside";
    dump_refuses_epoll_set_in_flight: "rights_in_flight";
    dump_refuses_waiting_client_that_has_sent_something: "pending_client";
    dump_refuses_waiting_client_from_outside: "pending_outsider";
    dump_refuses_out_of_band_data: "out_of_band";
    dump_refuses_fanotify_group_that_is_asked_for_permission: "fanotify_asked";
    dump_refuses_fanotify_group_with_unread_events: "fanotify_queued";
    dump_refuses_message_queue: "mqueue";
    dump_refuses_namespace_descriptor: "namespace_fd";
    dump_refuses_fifo_that_others_have_open: "fifo_outside";
    dump_refuses_proc_file_of_another_process: "proc_of_another";
    dump_refuses_proc_file_that_processes_share: "proc_shared";
    dump_refuses_directory_watched_by_dnotify: "dnotify";
    dump_refuses_pressure_trigger_that_is_not_known: "pressure_unknown";
    dump_refuses_deleted_file_with_a_name_elsewhere: "lost_name";
    dump_refuses_process_that_has_restricted_itself: "landlock";
    dump_refuses_thread_that_has_restricted_itself: "landlock_thread";
    dump_refuses_child_without_rights_that_has_restricted_itself: "landlock_user";
    dump_refuses_seccomp_listener: "seccomp_listener";
    dump_refuses_shared_descriptor_table: "shared_files";
    dump_refuses_shared_address_space: "shared_memory";
    dump_refuses_thread_with_own_directory: "thread_cwd";
    dump_refuses_thread_with_own_descriptors: "thread_files";
    dump_refuses_thread_in_other_network: "own_network";
}

variants! {
    carries_or_refuses;
    dump_does_not_lose_zombie: "carried_or_refused", "zombie";
    dump_does_not_lose_queued_datagram: "carried_or_refused", "udp_queued";
    dump_does_not_lose_epoll_entry_of_closed_descriptor: "carried_or_refused", "epoll_orphan";
    dump_does_not_mix_up_epoll_entries_of_one_number: "carried_or_refused", "epoll_reused";
    dump_does_not_lose_deleted_working_directory: "carried_or_refused", "deleted_cwd";
    dump_does_not_lose_queued_inotify_event: "carried_or_refused", "inotify_queued";
    dump_does_not_lose_queued_credentials: "carried_or_refused", "credentials_queued";
    dump_does_not_take_a_replaced_file_for_the_open_one: "carried_or_refused", "replaced_file";
    dump_does_not_lose_sender_of_queued_datagram: "carried_or_refused", "sender_queued";
    dump_does_not_lose_socket_filter: "carried_or_refused", "socket_filter";
    dump_does_not_lose_threads_without_main: "carried_or_refused", "main_thread_gone";
}

fn refuses(variant: &'static str) {
    if missing_need().is_some() {
        return;
    }
    let subject = Subject::new("refused", variant);
    let mut running = match Running::start(subject) {
        Ok(running) => running,
        Err(verdict) => return judge(subject, &verdict),
    };
    let image = running.file("image");
    let answer = running.run(Fastboot::dump(running.pid, &image).json());
    assert_eq!(answer.code, Some(3), "{answer:?}");
    assert!(!image.exists(), "an image was left: {answer:?}");
    assert_coded(&answer);
    let words = KINDS.iter().find(|row| row.0 == variant).expect("a row in the table").1;
    assert_named(&running, &answer, words);
    judge(subject, &running.finish("untouched"));
}

fn carries_or_refuses(program: &'static str, variant: &'static str) {
    if missing_need().is_some() {
        return;
    }
    let subject = Subject::new(program, variant);
    let mut running = match Running::start(subject) {
        Ok(running) => running,
        Err(verdict) => return judge(subject, &verdict),
    };
    let image = running.file("image");
    let answer = running.run(Fastboot::dump(running.pid, &image));
    if answer.code == Some(3) {
        let row = EITHER.iter().find(|row| (row.0, row.1) == (program, variant));
        assert_named(&running, &answer, row.expect("a row in the table").2);
        return judge(subject, &running.finish("untouched"));
    }
    assert_eq!(answer.code, Some(0), "{answer:?}");
    running.assert_gone("after the dump");
    running.restore(&image);
    judge(subject, &running.finish("restored"));
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
