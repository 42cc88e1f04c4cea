//! The tables of "Attributes by call" in docs/kinds.md against the code, the headers of the kernel
//! and the tests.

use crate::socket_options::known_names;
use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::path::Path;

/// One row.
struct Row {
    name: String,
    number: String,
    fate: String,
    how: String,
    test: Option<String>,
}

fn repository(path: &str) -> String {
    let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn rows() -> Vec<Row> {
    let text = repository("docs/kinds.md");
    let section = text.split("## Attributes by call").nth(1).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let row = |line: &str| match cells(line).as_slice() {
        [name, number, fate, how, test]
            if name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || "_*".contains(c)) =>
        {
            let test = (test != "–").then(|| test.clone());
            Some(Row {
                name: name.clone(),
                number: number.clone(),
                fate: fate.clone(),
                how: how.clone(),
                test,
            })
        }
        _ => None,
    };
    let rows: Vec<Row> = section.lines().filter(|line| line.starts_with("| `")).filter_map(row).collect();
    assert_eq!(
        rows.len(),
        section.lines().filter(|line| line.starts_with("| `")).count(),
        "a row is not understood"
    );
    rows
}

#[test]
fn every_attribute_has_one_fate_and_tests_that_exist() {
    let tests =
        repository("daemon-snap/tests/engine/cases.rs") + &repository("daemon-snap/tests/engine/refusals.rs");
    let is_there = |test: &str| {
        tests.contains(&format!("    {test}: ")) || tests.contains(&format!("    (\"{test}\", "))
    };
    let mut names = BTreeSet::new();
    for row in rows() {
        assert!(names.insert(row.name.clone()), "{} stands there twice", row.name);
        assert!(
            ["carried", "refused", "harmless", "lost"].contains(&row.fate.as_str()),
            "{} is {}",
            row.name,
            row.fate
        );
        if let Some(test) = row.test {
            assert!(is_there(&test), "{}: there is no test {test}", row.name);
        }
    }
}

/// Prefixes of the names of a level of setsockopt(2), and the level.
const LEVELS: [(&[&str], i32); 11] = [
    (&["SO_VM_"], libc::AF_VSOCK),
    (&["SO_", "SCM_"], libc::SOL_SOCKET),
    (&["IP_", "MCAST_"], libc::IPPROTO_IP),
    (&["IPV6_"], libc::IPPROTO_IPV6),
    (&["TCP_"], libc::IPPROTO_TCP),
    (&["UDP_"], libc::IPPROTO_UDP),
    (&["UDPLITE_"], libc::IPPROTO_UDPLITE),
    (&["ICMP_"], 255),
    (&["ICMPV6_"], libc::IPPROTO_ICMPV6),
    (&["PACKET_"], libc::SOL_PACKET),
    (&["NETLINK_"], libc::SOL_NETLINK),
];

fn level_of(name: &str) -> Option<i32> {
    let fits = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    LEVELS.iter().find(|(prefixes, _)| fits(prefixes)).map(|(_, level)| *level)
}

#[test]
fn options_that_are_asked_for_are_those_of_the_table() {
    for (names, level) in LEVELS {
        let listed: BTreeSet<i32> = rows()
            .iter()
            .filter(|row| level_of(&row.name) == Some(level) && row.how.starts_with("getsockopt(2)"))
            .filter(|row| row.fate == "carried" || known_names(level).contains(&row.number.parse().unwrap()))
            .map(|row| row.number.parse().expect("a number"))
            .collect();
        assert_eq!(listed, known_names(level).iter().copied().collect(), "{names:?}");
    }
}

/// All that reads, rebuilds or describes state, without this page's own test.
fn sources() -> String {
    fn add(directory: &Path, text: &mut String) {
        for entry in std::fs::read_dir(directory).expect("a directory of sources") {
            let path = entry.expect("an entry").path();
            match path.extension().and_then(|extension| extension.to_str()) {
                _ if path.is_dir() => add(&path, text),
                Some("rs") if !path.ends_with("attribute_table.rs") => {
                    text.push_str(&read_to_string(&path).expect("a source"));
                }
                _ => {}
            }
        }
    }
    let mut text = String::new();
    for part in ["collect", "rebuild", "state", "sys"] {
        add(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(part).join("src"), &mut text);
    }
    text
}

#[test]
fn calls_that_are_carried_stand_in_the_code() {
    let text = sources();
    let words: BTreeSet<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let rows = rows();
    let carried: BTreeSet<&str> =
        rows.iter().filter(|row| row.fate == "carried").map(|row| row.name.as_str()).collect();
    for row in rows.iter().filter(|row| row.fate == "carried" && !row.how.starts_with("getsockopt(2)")) {
        let by = row.how.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        // Its own name, that of the call which tells, or another row that says the same.
        let mut names = std::iter::once(row.name.as_str()).chain(by.filter(|word| word.contains('_')));
        let is_another = |name: &str| name != row.name && carried.contains(name);
        let told_by_proc = [
            "registers",
            "status",
            "stat",
            "VmFlags",
            "fdinfo",
            "smaps",
            "/proc",
            "sock_diag",
            "lock",
            "TCP_REPAIR",
        ]
        .iter()
        .any(|source| row.how.contains(source));
        assert!(
            told_by_proc || names.any(|name| words.contains(name) || is_another(name)),
            "{} is named nowhere",
            row.name
        );
    }
}

/// Names and values of a header of the kernel (linux-libc-dev, which compiling the tests needs
/// anyway).
fn defined(header: &str, wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let path = format!("/usr/include/{header}");
    let text = read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let words = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let define = (words.next()? == "#define").then(|| words.next())??;
        // Macros with arguments make values, those of several lines are other names.
        Some((define.to_owned(), words.next()?.to_owned()))
            .filter(|(name, value)| !name.contains('(') && value != "\\")
    });
    words.filter(|(name, _)| wanted(name)).collect()
}

/// What a header defines that the table is to have: names that begin so, but for those that are
/// values, structures, or parts of other calls.
struct Header {
    path: &'static str,
    begins: &'static [&'static str],
    aside: &'static [&'static str],
}

const HEADERS: &[Header] = &[
    Header {
        path: "linux/prctl.h",
        begins: &["PR_SET_"],
        // Architectures that we do not run on.
        aside: &["PR_SET_MM_", "PR_SET_VMA", "PR_SET_SHADOW_STACK", "PR_SET_FP_MODE_"],
    },
    Header {
        path: "linux/tcp.h",
        begins: &["TCP_"],
        aside: &[
            "TCP_MSS_",
            // The message that comes with TCP_INQ.
            "TCP_CM_INQ",
            "TCP_REPAIR_O",
            "TCP_RECEIVE_",
            "TCP_MD5SIG_MAX",
            "TCP_MD5SIG_FLAG",
            "TCP_AO_",
            "TCP_FLAG_",
        ],
    },
    Header { path: "asm-generic/socket.h", begins: &["SO_"], aside: &[] },
    Header {
        path: "linux/in.h",
        begins: &["IP_", "MCAST_"],
        aside: &["IP_PMTUDISC_", "IP_DEFAULT_", "MCAST_EXCLUDE", "MCAST_INCLUDE"],
    },
    Header {
        path: "linux/in6.h",
        begins: &["IPV6_"],
        aside: &[
            "IPV6_FL_",
            "IPV6_FLOWINFO_FLOWLABEL",
            "IPV6_FLOWINFO_PRIORITY",
            "IPV6_PRIORITY_",
            "IPV6_TLV_",
            "IPV6_PMTUDISC_",
            "IPV6_PREFER_SRC_",
        ],
    },
    Header { path: "linux/udp.h", begins: &["UDP_"], aside: &["UDP_ENCAP_"] },
    Header {
        path: "linux/if_packet.h",
        begins: &["PACKET_"],
        aside: &[
            "PACKET_HOST",
            "PACKET_BROADCAST",
            "PACKET_MULTICAST",
            "PACKET_OTHERHOST",
            "PACKET_OUTGOING",
            "PACKET_LOOPBACK",
            "PACKET_USER",
            "PACKET_KERNEL",
            "PACKET_FASTROUTE",
            "PACKET_FANOUT_",
            "PACKET_MR_",
        ],
    },
    Header {
        path: "linux/netlink.h",
        begins: &[
            "NETLINK_ADD",
            "NETLINK_DROP_M",
            "NETLINK_PKT",
            "NETLINK_BROAD",
            "NETLINK_NO_",
            "NETLINK_RX",
            "NETLINK_TX",
            "NETLINK_LIST",
            "NETLINK_CAP",
            "NETLINK_EXT",
            "NETLINK_GET",
        ],
        aside: &[],
    },
    Header { path: "linux/vm_sockets.h", begins: &["SO_VM_"], aside: &[] },
    Header { path: "linux/tls.h", begins: &["TLS_TX", "TLS_RX"], aside: &[] },
    Header { path: "asm-generic/mman-common.h", begins: &["MADV_"], aside: &[] },
    Header { path: "asm-generic/fcntl.h", begins: &["F_"], aside: FCNTL_VALUES },
    Header { path: "linux/fcntl.h", begins: &["F_"], aside: FCNTL_VALUES },
    Header { path: "asm-generic/ioctls.h", begins: &["TC", "TIOC", "FIO"], aside: &["TIOCPKT_", "TIOCSER_"] },
    Header { path: "asm-generic/sockios.h", begins: &["SIOC", "FIO"], aside: &[] },
    Header { path: "linux/sockios.h", begins: &["SIOC"], aside: &[] },
    Header { path: "linux/fs.h", begins: &["FI", "FS_IOC", "BLK"], aside: &["FILE_DEDUPE"] },
    Header { path: "linux/timerfd.h", begins: &["TFD_IOC"], aside: &[] },
    Header { path: "linux/inotify.h", begins: &["INOTIFY_IOC"], aside: &[] },
    Header { path: "linux/eventpoll.h", begins: &["EPIOC"], aside: &[] },
    Header { path: "linux/nsfs.h", begins: &["NS_"], aside: &[] },
    Header { path: "linux/random.h", begins: &["RND"], aside: &[] },
    Header { path: "linux/watch_queue.h", begins: &["IOC_WATCH_QUEUE"], aside: &[] },
    Header { path: "linux/userfaultfd.h", begins: &["UFFDIO_", "USERFAULTFD_IOC_"], aside: &[] },
];

const FCNTL_VALUES: &[&str] =
    &["F_OWNER_", "F_RDLCK", "F_WRLCK", "F_UNLCK", "F_EXLCK", "F_SHLCK", "F_LINUX_SPECIFIC_BASE", "F_SEAL_"];

#[test]
fn what_the_headers_define_stands_in_the_table() {
    let rows = rows();
    let listed = |name: &str| {
        let whole = |row: &&Row| row.name == name;
        let begins =
            |row: &&Row| row.name.strip_suffix('*').is_some_and(|beginning| name.starts_with(beginning));
        rows.iter().find(whole).or_else(|| rows.iter().find(begins))
    };
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse::<i64>().ok(),
    };
    let mut found = 0;
    for Header { path, begins, aside } in HEADERS {
        let wanted = |name: &str| {
            let starts = |parts: &[&str]| parts.iter().any(|part| name.starts_with(part));
            starts(begins) && !starts(aside)
        };
        for (name, value) in defined(path, wanted) {
            // Another name of what has one.
            if value.starts_with(|c: char| c.is_ascii_uppercase()) || value.starts_with("(sizeof") {
                continue;
            }
            let row = listed(&name).unwrap_or_else(|| panic!("{path}: {name} is not in docs/kinds.md"));
            if let (Some(there), Some(here)) = (number(&value), number(&row.number)) {
                assert_eq!(there, here, "{path}: {name}");
            }
            found += 1;
        }
    }
    assert!(found > 450, "the headers are not understood: {found} names");
}
