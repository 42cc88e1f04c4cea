//! Packet filters: nftables, iptables as it was before, and sets of addresses (ipset(8)).

use crate::Place;
use crate::told::{self, Attributes, text};
use crate::view::{Kind, Thing, View};
use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_sys::netlink::{Answer, attributes, list};
use snap_sys::xtables;
use std::os::fd::{AsFd as _, BorrowedFd};

const NFTABLES: u16 = 10;
const IPSET: u16 = 6;
/// `struct nfgenmsg`: family, version, resource.
const HEADER_BYTES: usize = 4;

pub(crate) fn look(place: &Place, view: &mut View) -> Result<()> {
    let fail = |errno| Error::kernel("open a socket for", "netfilter", errno);
    let modules = Modules::read();
    // Asking a kernel without it would load it.
    if modules.has("nfnetlink") {
        match place.socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER) {
            Err(Errno::EPROTONOSUPPORT) => {}
            socket => {
                let socket = socket.map_err(fail)?;
                if modules.has("nf_tables") {
                    nftables(socket.as_fd(), view)?;
                }
                if modules.has("ip_set") {
                    sets(socket.as_fd(), view)?;
                }
            }
        }
    }
    older_tables(place, view)
}

/// Parts of the kernel that are there.
struct Modules {
    /// `None`: this kernel has no modules, and may have any part.
    loaded: Option<String>,
    /// `None`: a container has no list; there it may be anything.
    built_in: Option<String>,
}

impl Modules {
    fn read() -> Self {
        let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
        let built_in = format!("/lib/modules/{}/modules.builtin", release.unwrap_or_default());
        let read = |path: &str| std::fs::read_to_string(path).ok();
        Self { loaded: read("/proc/modules"), built_in: read(&built_in) }
    }

    fn has(&self, module: &str) -> bool {
        let (Some(loaded), Some(built_in)) = (&self.loaded, &self.built_in) else { return true };
        let file = format!("/{module}.ko");
        loaded.lines().any(|line| line.split(' ').next() == Some(module))
            || built_in.lines().any(|line| line.ends_with(&file))
    }
}

/// What one kind of answer tells: where the name of the table is, and what of it is content.
struct Part {
    /// Of the question; the answer's is one less.
    kind: u16,
    table: u16,
    /// What an object of this kind is told apart by.
    handle: u16,
    content: &'static [u16],
    /// For people.
    what: &'static str,
}

const RULE: u16 = 7;
const EXPRESSIONS: u16 = 4;
const PARTS: [Part; 6] = [
    // Flags.
    Part { kind: 1, table: 1, handle: 4, content: &[2], what: "tables" },
    // Name, hook, policy, type, flags.
    Part { kind: 4, table: 1, handle: 2, content: &[3, 4, 5, 7, 10], what: "chains" },
    // Chain, expressions, comment.
    Part { kind: RULE, table: 1, handle: 3, content: &[2, EXPRESSIONS, 7], what: "rules" },
    // Name, flags, type and length of the key and of what it leads to. Elements come and go.
    Part { kind: 10, table: 1, handle: 16, content: &[2, 3, 4, 5, 6, 7], what: "sets" },
    // Name and type.
    Part { kind: 19, table: 1, handle: 6, content: &[2, 3], what: "objects" },
    // Name and hook.
    Part { kind: 23, table: 1, handle: 5, content: &[2, 3], what: "flow tables" },
];

fn nftables(socket: BorrowedFd<'_>, view: &mut View) -> Result<()> {
    for part in &PARTS {
        let answers = ask(socket, NFTABLES << 8 | part.kind, &[0; HEADER_BYTES])?;
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for answer in answers {
            let told = Attributes::of(&answer, HEADER_BYTES);
            let table = text(told.get(part.table));
            let name = format!("table {} {table}", family(answer.body[0]));
            *counts.entry(name.clone()).or_default() += 1;
            let thing = view.thing(Kind::Nftables, name);
            thing.identity.extend(told.get(part.handle));
            thing.content.extend(part.kind.to_ne_bytes());
            for kind in part.content {
                let value = told.get(*kind);
                match (part.kind, *kind) {
                    (RULE, EXPRESSIONS) => expressions(value, &mut thing.content),
                    _ => thing.content.extend(value),
                }
            }
        }
        for (name, count) in counts.into_iter().filter(|_| part.what != "tables") {
            let thing = view.thing(Kind::Nftables, name);
            let comma = if thing.detail.is_empty() { "" } else { ", " };
            thing.detail += &format!("{comma}{count} {}", part.what);
        }
    }
    Ok(())
}

/// What a rule does, without what it counts and without the numbers of sets that have no name.
fn expressions(list: &[u8], content: &mut Vec<u8>) {
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    const COUNTING: [&str; 5] = ["counter", "quota", "last", "lookup", "dynset"];
    for (_, expression) in attributes(list) {
        let mut is_counting = false;
        for (kind, value) in attributes(expression) {
            match kind {
                NAME => {
                    is_counting = COUNTING.contains(&text(value).as_str());
                    content.extend(value);
                }
                DATA if !is_counting => content.extend(value),
                _ => {}
            }
        }
    }
}

fn family(number: u8) -> String {
    match number {
        1 => "inet".to_owned(),
        2 => "ip".to_owned(),
        3 => "arp".to_owned(),
        5 => "netdev".to_owned(),
        7 => "bridge".to_owned(),
        10 => "ip6".to_owned(),
        other => other.to_string(),
    }
}

fn sets(socket: BorrowedFd<'_>, view: &mut View) -> Result<()> {
    const LIST: u16 = 7;
    const NAME: u16 = 2;
    const TYPE: u16 = 3;
    let mut body = vec![0; HEADER_BYTES];
    // IPSET_ATTR_PROTOCOL, 6 of kernels since 2.6.39; IPSET_ATTR_FLAGS with IPSET_FLAG_LIST_HEADER:
    // without elements. The length and the kind of an attribute stand before it.
    body.extend([5, 0, 1, 0, 6, 0, 0, 0]);
    body.extend([8, 0, 6, 0x40, 0, 0, 0, 4]);
    for answer in ask(socket, IPSET << 8 | LIST, &body)? {
        let told = Attributes::of(&answer, HEADER_BYTES);
        let (name, kind) = (text(told.get(NAME)), told.get(TYPE));
        if name.is_empty() {
            continue;
        }
        view.add(Kind::Ipset, name, Thing { content: kind.to_vec(), detail: text(kind), ..Thing::default() });
    }
    Ok(())
}

/// Tables of iptables-legacy and ip6tables-legacy that have a rule.
fn older_tables(place: &Place, view: &mut View) -> Result<()> {
    for (list, family, is_ipv6) in
        [("ip_tables_names", libc::AF_INET, false), ("ip6_tables_names", libc::AF_INET6, true)]
    {
        let names = std::fs::read_to_string(format!("/proc/{}/net/{list}", place.main())).unwrap_or_default();
        if names.trim().is_empty() {
            continue;
        }
        let fail = |errno| Error::kernel("ask for tables of", list, errno);
        let socket = place.socket(family, libc::SOCK_RAW, libc::IPPROTO_RAW).map_err(fail)?;
        for table in names.lines() {
            let filling = match xtables::filling(socket.as_fd(), is_ipv6, table) {
                Err(Errno::ENOENT) => continue,
                filling => filling.map_err(fail)?,
            };
            if filling.rules > 0 {
                let content = [filling.rules.to_ne_bytes(), filling.size_bytes.to_ne_bytes()].concat();
                let program = if is_ipv6 { "ip6tables" } else { "iptables" };
                let detail = format!("{} rules", filling.rules);
                let name = format!("{program} table {table}");
                view.add(Kind::Iptables, name, Thing { content, detail, ..Thing::default() });
            }
        }
    }
    Ok(())
}

fn ask(socket: BorrowedFd<'_>, kind: u16, body: &[u8]) -> Result<Vec<Answer>> {
    let listed = match list(socket, kind, body) {
        // A request that an older kernel does not know.
        Err(Errno::EINVAL) => Ok(Vec::new()),
        listed => listed,
    };
    told::list_or_none(listed, "rules of packet filters")
}
