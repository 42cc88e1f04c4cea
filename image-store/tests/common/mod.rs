//! Small images with known content. Not every test file uses all of it.
#![allow(dead_code)]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use image_store::{
    CatalogueEntry, CheckDepth, Digest, Durability, EvidenceV2, FileEvidence, FileItem, ImageInfo,
    ImageWriter, MachineEvidence, Observation, PAGE_SIZE, SectionKind, ServiceRecord, Source,
    SystemdEvidence, UnitEvidence,
};

/// Pages that differ from each other and do not compress.
pub fn pages(count: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed | 1);
    let words = count * PAGE_SIZE / 8;
    (0..words).flat_map(|_| random.next().to_le_bytes()).collect()
}

pub const STATE: &[u8] = b"state state state state state state state state state state state state state state state state state state state";
pub const UNIT: &[u8] = b"short";

/// `page_count` pages, a compressed state section, an incompressible unit section.
pub fn write_image(path: &Path, page_count: usize) -> ImageInfo {
    let mut writer = ImageWriter::create(path).unwrap();
    writer.append_pages(&pages(page_count, 1)).unwrap();
    writer.add_section(SectionKind::STATE, 3, &STATE.repeat(80)).unwrap();
    writer.add_section(SectionKind::UNIT, 1, UNIT).unwrap();
    writer.finish(Durability::NoSync).unwrap()
}

/// xorshift64*: the same numbers in every run, so that a failure can be repeated.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Changes one bit.
pub fn flip(file: &File, offset: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    byte[0] ^= 1 << (offset % 8);
    file.write_all_at(&byte, offset).unwrap();
}

pub fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A root file system with just enough in it for evidence.
pub fn make_root(root: &Path) {
    let put = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    put("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nredis:x:105:110::/var/lib/redis:/usr/sbin/nologin\n");
    put("etc/group", "root:x:0:\nredis:x:110:\n");
    put("proc/sys/kernel/osrelease", "6.18.0\n");
    put("proc/sys/kernel/version", "#1 SMP Debian 6.18.0-1\n");
    put("proc/1/exe", "\0systemd 257.9-1~deb13u1 running in %ssystem mode (%s)\0");
    put(
        "proc/cpuinfo",
        "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: X\nflags\t\t: fpu sse avx2\n",
    );
    put("lib/systemd/system/redis.service", "[Service]\nExecStart=/usr/bin/redis-server\n");
    put("etc/systemd/system/redis.service.d/10-limits.conf", "[Service]\nLimitNOFILE=65535\n");
    put("etc/redis/redis.conf", "port 6379\n");
}

pub const FRAGMENT: &str = "/lib/systemd/system/redis.service";
pub const DROP_IN: &str = "/etc/systemd/system/redis.service.d/10-limits.conf";

pub fn drop_ins() -> Vec<PathBuf> {
    vec![PathBuf::from(DROP_IN)]
}

pub fn unit_evidence(root: &Path) -> UnitEvidence {
    UnitEvidence::collect(root, Path::new(FRAGMENT), &drop_ins()).unwrap()
}

pub fn evidence(root: &Path) -> EvidenceV2 {
    let conf = Path::new("/etc/redis/redis.conf");
    EvidenceV2 {
        machine: MachineEvidence::collect(root).unwrap(),
        unit: unit_evidence(root),
        observation: Observation::Recorded { not_observed: Vec::new() },
        files: vec![FileItem::new(FileEvidence::collect(root, conf, true).unwrap(), Source::Observed)],
        accounts: Vec::new(),
        values: Vec::new(),
        left_out: Vec::new(),
        environment_files: vec![FileEvidence::collect(root, Path::new("/etc/default/redis"), true).unwrap()],
        users: vec![("redis".to_owned(), 105)],
        groups: vec![("redis".to_owned(), 110)],
    }
}

pub fn entry(root: &Path, unit: &str, file: String, info: &ImageInfo) -> CatalogueEntry {
    CatalogueEntry {
        unit: unit.to_owned(),
        file,
        len_bytes: info.len_bytes,
        image_id: info.id,
        unit_evidence: unit_evidence(root),
        machine: MachineEvidence::collect(root).unwrap(),
        systemd: SystemdEvidence::collect(root),
        start: None,
        held_groups: Vec::new(),
        taken_unix_s: None,
        service: ServiceRecord {
            service_type: "notify".to_owned(),
            exec_start_raw: "-@/usr/bin/redis-server redis-server /etc/redis/redis.conf".to_owned(),
            pid_file: Some("/run/redis/redis-server.pid".to_owned()),
            bus_name: None,
            notify_access: "main".to_owned(),
            main_pid: 3_000_001,
            pids: vec![3_000_001, 3_000_002],
            page_bytes: info.page_bytes,
            timeout_start_ms: None,
            cold_start_ms: Some(123.456_789),
            cold_cpu_ms: None,
            dump_ms: Some(0.1),
            restore_ms: None,
            max_age_s: None,
            status_text: String::new(),
            after_restore: Vec::new(),
            hook_channels: Vec::new(),
        },
    }
}

pub const DEPTH: CheckDepth = CheckDepth::ContentIfStatDiffers;

pub fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}
