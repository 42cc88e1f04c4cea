//! Interfaces, addresses, routes and what belongs to them (rtnetlink(7)).

use crate::Place;
use crate::told::{self, Attributes, text};
use crate::view::{Kind, Thing, View};
use snap_error::{Error, Result};
use snap_sys::netlink::{Answer, attributes, list, u32_at};
use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd};

const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;
const RTM_GETRULE: u16 = 34;
const RTM_GETQDISC: u16 = 38;

/// Names of interfaces by their number.
type Links = HashMap<u32, String>;

/// Everything about the network of a place that somebody may have set.
pub(crate) fn look(place: &Place, view: &mut View) -> Result<()> {
    let fail = |errno| Error::kernel("open a socket for", "rtnetlink", errno);
    let socket = place.socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE).map_err(fail)?;
    let socket = socket.as_fd();
    let links = ask(socket, RTM_GETLINK, 16)?;
    let names: Links = links
        .iter()
        .map(|answer| (u32_at(&answer.body, 4), text(Attributes::of(answer, 16).get(3))))
        .collect();
    links.iter().for_each(|answer| link(answer, &names, view));
    for answer in ask(socket, RTM_GETADDR, 8)? {
        address(&answer, &names, view);
    }
    for answer in ask(socket, RTM_GETROUTE, 12)? {
        route(&answer, &names, view);
    }
    for answer in ask(socket, RTM_GETRULE, 12)? {
        routing_rule(&answer, view);
    }
    for answer in ask(socket, RTM_GETNEIGH, 12)? {
        neighbour(&answer, &names, view);
    }
    for answer in ask(socket, RTM_GETQDISC, 20)? {
        queue(&answer, &names, view);
    }
    Ok(())
}

fn ask(socket: BorrowedFd<'_>, kind: u16, header_bytes: usize) -> Result<Vec<Answer>> {
    told::list_or_none(list(socket, kind, &vec![0; header_bytes]), "state of the network")
}

fn link(answer: &Answer, names: &Links, view: &mut View) {
    const MTU: u16 = 4;
    const MASTER: u16 = 10;
    const INFO: u16 = 18;
    const INFO_KIND: u16 = 1;
    const UP: u32 = 1;
    let (index, flags) = (u32_at(&answer.body, 4), u32_at(&answer.body, 8));
    let told = Attributes::of(answer, 16);
    let kind = attributes(told.get(INFO)).find(|(kind, _)| *kind == INFO_KIND);
    let kind = kind.map_or_else(String::new, |(_, value)| text(value));
    let is_up = flags & UP != 0;
    let name = names.get(&index).cloned().unwrap_or_default();
    // Every network namespace is made with it, and systemd sets it up.
    if name == "lo" {
        return;
    }
    let master = told.number(MASTER).and_then(|index| names.get(&index)).map_or("", String::as_str);
    let content = format!("{kind} {is_up} {} {master}", told.number(MTU).unwrap_or(0)).into_bytes();
    let state = if is_up { "up" } else { "down" };
    let detail = if kind.is_empty() { state.to_owned() } else { format!("{kind}, {state}") };
    view.add(Kind::Link, name, Thing { content, identity: index.to_ne_bytes().to_vec(), detail });
}

fn address(answer: &Answer, names: &Links, view: &mut View) {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    const CACHE: u16 = 6;
    const PROTOCOL: u16 = 11;
    /// Loopback, router advertisement, link-local: the kernel's own (since Linux 5.18).
    const OF_KERNEL: std::ops::RangeInclusive<u32> = 1..=3;
    const TEMPORARY: u8 = 1;
    let told = Attributes::of(answer, 8);
    let is_temporary = answer.body[0] == libc::AF_INET6 as u8 && answer.body[2] & TEMPORARY != 0;
    if told.number(PROTOCOL).is_some_and(|protocol| OF_KERNEL.contains(&protocol)) || is_temporary {
        return;
    }
    let Some(ip) = told.ip(LOCAL).or_else(|| told.ip(ADDRESS)) else { return };
    // The loopback interface brings its own along.
    if ip.is_loopback() {
        return;
    }
    let device = names.get(&u32_at(&answer.body, 4)).map_or("?", String::as_str);
    let name = format!("{ip}/{} on {device}", answer.body[1]);
    // struct ifa_cacheinfo: preferred and valid for how long, when it was made, when it was set
    // last. Both times are in hundredths of a second since the boot.
    let identity = told.get(CACHE).get(8..16).unwrap_or_default().to_vec();
    view.add(Kind::Address, name, Thing { content: vec![answer.body[3]], identity, detail: String::new() });
}

fn route(answer: &Answer, names: &Links, view: &mut View) {
    const DESTINATION: u16 = 1;
    const DEVICE: u16 = 4;
    const GATEWAY: u16 = 5;
    const PRIORITY: u16 = 6;
    const TABLE: u16 = 15;
    const UNICAST: u8 = 1;
    /// Local and broadcast and the like follow from addresses; those behind multicast are set.
    const FOLLOWS: [u8; 4] = [2, 3, 4, 5];
    /// By redirects of ICMP, by the kernel with an address, by a router's advertisement.
    const OF_KERNEL: [u8; 3] = [1, 2, 9];
    const CLONED: u32 = 0x200;
    const MAIN_TABLE: u32 = 254;
    let body = &answer.body;
    let (family, len, protocol, kind) = (body[0], body[1], body[5], body[7]);
    let is_ip = [libc::AF_INET as u8, libc::AF_INET6 as u8].contains(&family);
    if !is_ip || FOLLOWS.contains(&kind) || OF_KERNEL.contains(&protocol) || u32_at(body, 8) & CLONED != 0 {
        return;
    }
    let told = Attributes::of(answer, 12);
    let mut name = match told.ip(DESTINATION) {
        Some(ip) => format!("{ip}/{len}"),
        None if family == libc::AF_INET as u8 => "default".to_owned(),
        None => "default of IPv6".to_owned(),
    };
    if let Some(gateway) = told.ip(GATEWAY) {
        name += &format!(" via {gateway}");
    }
    if let Some(device) = told.number(DEVICE).and_then(|index| names.get(&index)) {
        name += &format!(" on {device}");
    }
    if kind != UNICAST {
        name += &format!(" of type {kind}");
    }
    match told.number(TABLE).unwrap_or(u32::from(body[4])) {
        MAIN_TABLE => {}
        table => name += &format!(" in table {table}"),
    }
    if let Some(priority) = told.number(PRIORITY) {
        name += &format!(" metric {priority}");
    }
    view.add(Kind::Route, name, Thing { content: vec![protocol], ..Thing::default() });
}

fn routing_rule(answer: &Answer, view: &mut View) {
    const PRIORITY: u16 = 6;
    const TABLE: u16 = 15;
    const PROTOCOL: u16 = 21;
    const OF_KERNEL: u32 = 2;
    let told = Attributes::of(answer, 12);
    if told.number(PROTOCOL) == Some(OF_KERNEL) {
        return;
    }
    let family = if answer.body[0] == libc::AF_INET6 as u8 { "IPv6" } else { "IPv4" };
    let table = told.number(TABLE).unwrap_or(u32::from(answer.body[4]));
    let name = format!("{} of {family} to table {table}", told.number(PRIORITY).unwrap_or(0));
    let content = answer.body.clone();
    // There may be several of one priority.
    view.thing(Kind::RoutingRule, name).content.extend(content);
}

fn neighbour(answer: &Answer, names: &Links, view: &mut View) {
    const DESTINATION: u16 = 1;
    const PERMANENT: u8 = 0x80;
    const UNICAST: u8 = 1;
    let body = &answer.body;
    let is_ip = [libc::AF_INET as u8, libc::AF_INET6 as u8].contains(&body[0]);
    if !is_ip || body[8] & PERMANENT == 0 || body[11] != UNICAST {
        return;
    }
    let told = Attributes::of(answer, 12);
    let device = names.get(&u32_at(body, 4)).map_or("?", String::as_str);
    let Some(ip) = told.ip(DESTINATION) else { return };
    let content = told.get(2).to_vec();
    view.add(Kind::Neighbour, format!("{ip} on {device}"), Thing { content, ..Thing::default() });
}

fn queue(answer: &Answer, names: &Links, view: &mut View) {
    const NAME: u16 = 1;
    let (handle, parent) = (u32_at(&answer.body, 8), u32_at(&answer.body, 12));
    // Those that an interface is made with have no number.
    if handle == 0 {
        return;
    }
    let device = names.get(&u32_at(&answer.body, 4)).map_or("?", String::as_str);
    let kind = text(Attributes::of(answer, 20).get(NAME));
    let name = format!("{kind} on {device}, parent {parent:x}");
    view.add(Kind::Queue, name, Thing { identity: handle.to_ne_bytes().to_vec(), ..Thing::default() });
}
