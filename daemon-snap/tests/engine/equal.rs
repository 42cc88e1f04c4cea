//! What a second dump, of the restored tree, has to say: the same as the first. Every difference
//! needs a rule that names it.

use image_store::{Image, UncheckedImage};
use serde_json::Value;
use snap_state::{Addr, PAGE_BYTES, TreeV1};
use std::collections::BTreeMap;
use std::path::Path;

/// Where the two may differ, as a path of field names (`*`: every element; at the end: all that is
/// below), how, and why.
#[derive(Clone, Copy)]
struct Rule {
    path: &'static str,
    holds: fn(&Value, &Value) -> bool,
    /// For who reads the table.
    #[allow(dead_code, reason = "read in the source")]
    why: &'static str,
}

const V6_ONLY: (i32, i32) = (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);

fn any(_: &Value, _: &Value) -> bool {
    true
}

fn not_less(first: &Value, second: &Value) -> bool {
    second.as_u64() >= first.as_u64()
}

/// The signal of a timer: SI_TIMER counts overruns, an interval timer's has nothing but its number.
fn signals_of_timers(first: &Value, second: &Value) -> bool {
    let others = |queue: &Value| -> Vec<Value> {
        let is_timer = |info: &&Value| {
            let byte = |at: usize| info.get(at).and_then(Value::as_u64).unwrap_or_default();
            let code = [8, 9, 10, 11].map(|at| byte(at) as u8);
            let code = i32::from_le_bytes(code);
            code == libc::SI_TIMER || (code == libc::SI_KERNEL && [14, 26, 27].contains(&byte(0)))
        };
        queue.as_array().into_iter().flatten().filter(|info| !is_timer(info)).cloned().collect()
    };
    others(first) == others(second)
}

fn timer_goes_on(first: &Value, second: &Value) -> bool {
    let same = |field: &str| first[field] == second[field];
    let can_be_set = [libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_ALARM].map(i64::from);
    let is_real = first["clock_id"].as_i64().is_some_and(|clock| can_be_set.contains(&clock));
    let is_relative_now = !is_real && second["settime_flags"] == 0;
    same("clock_id")
        && same("interval_ns")
        && (same("settime_flags") || is_relative_now)
        && not_less(&first["ticks"], &second["ticks"])
}

const RULES: &[Rule] = &[
    Rule { path: "clocks", holds: any, why: "time passes" },
    Rule { path: "processes.*.mm.runs", holds: any, why: "pages are compared by address and content" },
    Rule { path: "inodes.*.atime_ns", holds: not_less, why: "whoever maps or reads an object changes it" },
    Rule { path: "inodes.*.content", holds: any, why: "subjects look at shared memory themselves" },
    Rule { path: "inodes.*.kind", holds: deleted_alike, why: "deleted: the name after its end is another" },
    Rule { path: "processes.*.threads.*.regs", holds: any, why: "subjects wait in a loop; compared apart" },
    Rule { path: "processes.*.threads.*.xstate", holds: any, why: "the loop uses vector registers" },
    Rule { path: "processes.*.pending", holds: signals_of_timers, why: "timers go on" },
    Rule {
        path: "processes.*.itimers.*.remaining_us",
        holds: any,
        why: "timers go on, from their interval again",
    },
    Rule { path: "processes.*.posix_timers.*.remaining_ns", holds: any, why: "timers go on" },
    Rule { path: "processes.*.posix_timers.*.overrun", holds: not_less, why: "timers go on" },
    Rule {
        path: "files.*.kind.TimerFd",
        holds: timer_goes_on,
        why: "timers go on; an absolute one of a clock that cannot be set is set again by what remained of it (docs/kinds.md)",
    },
    Rule { path: "sysv.queues.*.identity.changed_s", holds: not_less, why: "nobody can set it" },
    Rule { path: "sysv.semaphore_sets.*.identity.changed_s", holds: not_less, why: "nobody can set it" },
    Rule { path: "files.*.kind.Tcp", holds: same_connection, why: "connections go on" },
    Rule {
        path: "files.*.kind.Inet.options",
        holds: became_v6_only,
        why: "connect(2) had chosen the own address; it is bound to it now, and bind(2) sets the option",
    },
];

/// A subject whose runtime works beside it, also between its threads' stacks.
const RUNTIME: &str = "go_runtime";
/// For it alone.
const RULES_OF_RUNTIME: &[Rule] = &[
    Rule {
        path: "pipes.*.data",
        holds: woken,
        why: "the Go runtime wakes its own poller by one byte, which that takes out again",
    },
    Rule {
        path: "processes.*.threads.*.sigmask",
        holds: any,
        why: "the Go runtime holds all signals back while it makes a thread",
    },
];

/// The one byte of a wake-up, or none.
fn woken(first: &Value, second: &Value) -> bool {
    let is_wake = |data: &Value| data.as_array().is_some_and(|data| data.is_empty() || *data == [0]);
    is_wake(first) && is_wake(second)
}

/// A connection of the tree lives while its processes wait: acknowledgements pass, windows open,
/// what was sent arrives.
fn same_connection(first: &Value, second: &Value) -> bool {
    let lasting = |connection: &Value| {
        let mut kept = connection.clone();
        let fields = kept.as_object_mut().expect("a connection has fields");
        for moving in
            ["timestamp", "window", "send_sequence", "send_queue", "receive_sequence", "receive_queue"]
        {
            fields.remove(moving);
        }
        // Set again, a buffer's length counts as set; an address that connect(2) chose is bound to
        // now.
        let implied = [(libc::SOL_SOCKET, libc::SO_SNDBUF), (libc::SOL_SOCKET, libc::SO_RCVBUF), V6_ONLY];
        fields["options"] = without(&fields["options"], &implied);
        kept
    };
    first.is_object() && second.is_object() && lasting(first) == lasting(second)
}

fn deleted_alike(first: &Value, second: &Value) -> bool {
    let is_deleted = |kind: &Value| kind.get("Deleted").is_some();
    let rest = |kind: &Value| {
        let mut kind = kind.clone();
        kind["Deleted"].as_object_mut().and_then(|deleted| deleted.remove("path"));
        kind
    };
    is_deleted(first) && is_deleted(second) && rest(first) == rest(second)
}

fn became_v6_only(first: &Value, second: &Value) -> bool {
    without(first, &[V6_ONLY]) == without(second, &[V6_ONLY])
}

/// Socket options (level, name) but for some.
fn without(options: &Value, left_out: &[(i32, i32)]) -> Value {
    let is_kept = |option: &&Value| {
        !left_out.iter().any(|(level, name)| option["level"] == *level && option["name"] == *name)
    };
    options.as_array().into_iter().flatten().filter(is_kept).cloned().collect()
}

/// Subjects that go on working while they wait: their memory is not compared, only its areas.
const BUSY: &[(&str, &str)] = &[
    (RUNTIME, "the runtime has threads of its own"),
    ("interrupted", "another thread of it calls functions for the first time"),
    ("itimer_fires", "a handler counts"),
];

/// Panics with every difference that no rule explains.
pub fn assert_same_state(program: &str, first: &Path, second: &Path) {
    let (first, second) = (State::read(first), State::read(second));
    let mut differences = Vec::new();
    let value = |state: &State| serde_json::to_value(&state.tree).expect("a tree is plain data");
    let is_busy = BUSY.iter().any(|(busy, _)| *busy == program);
    let has_runtime = program == RUNTIME;
    let rules = if has_runtime { [RULES, RULES_OF_RUNTIME].concat() } else { RULES.to_vec() };
    let [one, two] = [&first, &second].map(|state| in_order(value(state)));
    compare(&rules, &mut Vec::new(), [&one, &two], &mut differences);
    differences.extend(first.compare_registers(&second, has_runtime));
    if !is_busy {
        differences.extend(first.compare_memory(&second));
    }
    differences.truncate(40);
    assert!(differences.is_empty(), "the second dump differs:\n{}", differences.join("\n"));
}

/// Without what has no order or no meaning: the kernel lists the watches of an epoll by the
/// addresses of its own objects and memberships by their age, and has anonymous areas of one kind
/// side by side as one or as two.
fn in_order(mut tree: Value) -> Value {
    for inode in tree["inodes"].as_array_mut().into_iter().flatten() {
        // What has no path, or is made anew on a tmpfs, is as old as the restore.
        let has_path = inode["kind"].get("Path").is_some();
        if !has_path || inode["content"].as_array().is_some_and(|content| !content.is_empty()) {
            inode["mtime_ns"] = Value::Null;
        }
    }
    for process in tree["processes"].as_array_mut().into_iter().flatten() {
        if let Some(vmas) = process["mm"]["vmas"].as_array_mut() {
            merge_neighbours(vmas);
        }
    }
    for file in tree["files"].as_array_mut().into_iter().flatten() {
        for kind in ["Inet", "Packet"] {
            if let Some(memberships) = file["kind"][kind]["memberships"].as_array_mut() {
                memberships.sort_by_key(Value::to_string);
            }
        }
        if let Some(watches) = file["kind"]["Epoll"]["watches"].as_array_mut() {
            watches.sort_by_key(|watch| (watch["fd"].as_i64(), watch["file"].as_u64()));
        }
    }
    tree
}

fn merge_neighbours(vmas: &mut Vec<Value>) {
    vmas.dedup_by(|next, last| {
        let alike = |name: &str| next[name] == last[name];
        let merges = next["backing"] == "Anon"
            && last["end"] == next["start"]
            && ["prot", "shared", "backing", "flags", "name"].into_iter().all(alike);
        if merges {
            last["end"] = next["end"].clone();
        }
        merges
    });
}

fn compare(rules: &[Rule], path: &mut Vec<String>, [first, second]: [&Value; 2], out: &mut Vec<String>) {
    if first == second {
        return;
    }
    if rules.iter().any(|rule| covers(rule.path, path) && (rule.holds)(first, second)) {
        return;
    }
    match (first, second) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            for (key, value) in a {
                path.push(key.clone());
                compare(rules, path, [value, &b[key]], out);
                path.pop();
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                path.push(index.to_string());
                compare(rules, path, [a, b], out);
                path.pop();
            }
        }
        _ => out.push(format!("{}: {} and then {}", path.join("."), shown(first), shown(second))),
    }
}

fn covers(rule: &str, path: &[String]) -> bool {
    let mut words = rule.split('.');
    let all = path.iter().all(|name| words.next().is_some_and(|word| word == "*" || word == name));
    all && words.next().is_none()
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// An image, decoded.
pub struct State {
    pub tree: TreeV1,
    image: Image,
}

impl State {
    pub fn read(path: &Path) -> Self {
        let image = UncheckedImage::open(path).and_then(UncheckedImage::check).expect("open the image");
        let tree = snap_image::read_tree(&image).expect("decode the state").into_inner();
        Self { tree, image }
    }

    /// What does not change in a loop: which thread's area and which stack. A runtime may
    /// change the stack (a goroutine's against that of the thread).
    fn compare_registers(&self, other: &Self, has_runtime: bool) -> Vec<String> {
        let mut out = Vec::new();
        for (a, b) in self.threads().zip(other.threads()) {
            let apart = a.regs.rsp.abs_diff(b.regs.rsp);
            let kept = |t: &snap_state::ThreadV1| (t.regs.fs_base, t.regs.gs_base, t.regs.cs, t.regs.ss);
            if kept(a) != kept(b) || (!has_runtime && apart > 4 * PAGE_BYTES) {
                out.push(format!("registers of thread {}: {:x?} and then {:x?}", a.tid, a.regs, b.regs));
            }
        }
        out
    }

    fn threads(&self) -> impl Iterator<Item = &snap_state::ThreadV1> {
        self.tree.processes.iter().flat_map(|process| &process.threads)
    }

    /// Which pages there are, and their bytes, but for those around the stack pointers: the loop
    /// writes there.
    fn compare_memory(&self, other: &Self) -> Vec<String> {
        let mut out = Vec::new();
        for (a, b) in self.tree.processes.iter().zip(&other.tree.processes) {
            let pages = |runs: &[snap_state::PageRunV1]| -> BTreeMap<u64, u64> {
                let run = |run: &snap_state::PageRunV1| {
                    let (Addr(addr), offset) = (run.addr, run.image_offset);
                    (0..u64::from(run.pages)).map(move |n| (addr + n * PAGE_BYTES, offset + n * PAGE_BYTES))
                };
                runs.iter().flat_map(run).collect()
            };
            let (first, second) = (pages(&a.mm.runs), pages(&b.mm.runs));
            let is_stack = |page: u64| {
                let stacks =
                    a.threads.iter().chain(&b.threads).map(|thread| thread.regs.rsp & !(PAGE_BYTES - 1));
                stacks.into_iter().any(|stack| page.abs_diff(stack) <= 2 * PAGE_BYTES)
            };
            let mut all: Vec<u64> = first.keys().chain(second.keys()).copied().collect();
            all.sort_unstable();
            all.dedup();
            let (mut one, mut two) = ([0; PAGE_BYTES as usize], [0; PAGE_BYTES as usize]);
            for page in all.into_iter().filter(|page| !is_stack(*page)) {
                // A page that is not in an image reads as zeros, or as what the file says.
                let (Some(first), Some(second)) = (first.get(&page), second.get(&page)) else {
                    out.push(format!(
                        "page {page:#x} of process {} is {} the first image and {} the second",
                        a.pid,
                        if first.contains_key(&page) { "in" } else { "not in" },
                        if second.contains_key(&page) { "in" } else { "not in" },
                    ));
                    continue;
                };
                self.image.read_pages(*first, &mut one).expect("read a page");
                other.image.read_pages(*second, &mut two).expect("read a page");
                for thread in &a.threads {
                    // errno: a sleep that was interrupted by the restore says so.
                    for at in (0..one.len()).step_by(4) {
                        let address = page + at as u64;
                        let word = u32::from_ne_bytes([two[at], two[at + 1], two[at + 2], two[at + 3]]);
                        if word == libc::EINTR as u32
                            && (address..address + 256).contains(&thread.regs.fs_base)
                        {
                            two[at] = one[at];
                        }
                    }
                    // The kernel writes there on which CPU the thread runs.
                    let rseq =
                        thread.rseq.map_or(0..0, |rseq| rseq.addr.0..rseq.addr.0 + u64::from(rseq.len_bytes));
                    for at in rseq.filter(|at| at & !(PAGE_BYTES - 1) == page) {
                        let at = (at - page) as usize;
                        (one[at], two[at]) = (0, 0);
                    }
                }
                if let Some(at) = (0..one.len()).find(|&at| one[at] != two[at]) {
                    let address = page + at as u64;
                    let count = (0..one.len()).filter(|&at| one[at] != two[at]).count();
                    let near = |page: &[u8]| format!("{:02x?}", &page[at & !7..(at & !7) + 16]);
                    let vma = a.mm.vmas.iter().find(|vma| (vma.start.0..vma.end.0).contains(&address));
                    out.push(format!(
                        "process {}: {count} bytes from {address:#x} on (in {:?}): {} and then {}",
                        a.pid,
                        vma.map(|vma| (&vma.backing, vma.prot)),
                        near(&one),
                        near(&two)
                    ));
                }
            }
        }
        out
    }
}
