//! The dynamic section of a shared object (elf(5)): through which words of its own it calls a
//! function of another object. Only what the dynamic linker reads is read here, and no file is
//! trusted: it may be of the service's own making.

/// Reads a range of a file; `None` where there is no such range.
pub type Read<'a> = &'a dyn Fn(u64, usize) -> Option<Vec<u8>>;

/// A word that the dynamic linker has filled with the address of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word {
    /// From the first byte of the object in memory.
    pub distance: u64,
    /// Where the file has it.
    pub file_offset: u64,
}

/// What there is to know of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dynamic {
    /// Sorted.
    pub words: Vec<Word>,
    /// Bytes from its first to its last in memory.
    pub len_bytes: u64,
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_PLTRELSZ: u64 = 2;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const DT_STRSZ: u64 = 10;
const DT_JMPREL: u64 = 23;
const DT_RELACOUNT: u64 = 0x6fff_fff9;
const R_X86_64_64: u32 = 1;
const R_X86_64_GLOB_DAT: u32 = 6;
const R_X86_64_JUMP_SLOT: u32 = 7;
/// ELF, 64 bits, little-endian, version 1.
const IDENT: [u8; 7] = [0x7f, b'E', b'L', b'F', 2, 1, 1];
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
const ENTRY_BYTES: usize = 16;
const RELOCATION_BYTES: usize = 24;
const SYMBOL_BYTES: usize = 24;
/// No table of a library that is known comes near to this.
const TABLE_LIMIT_BYTES: u64 = 16 << 20;
const PAGE_MASK: u64 = snap_state::PAGE_BYTES - 1;

/// Part of a file that is mapped.
struct Segment {
    file_offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
}

/// The words for `function` in a shared object for x86-64. `None`: it is none, or has something
/// that is not understood.
pub fn inspect(read: Read<'_>, function: &[u8]) -> Option<Dynamic> {
    let header = read(0, HEADER_BYTES)?;
    let is_one = header.starts_with(&IDENT)
        && half(&header, 16)? == ET_DYN
        && half(&header, 18)? == EM_X86_64
        && usize::from(half(&header, 54)?) == SEGMENT_BYTES;
    if !is_one {
        return None;
    }
    let table = read(long(&header, 32)?, usize::from(half(&header, 56)?) * SEGMENT_BYTES)?;
    let (mut segments, mut dynamic) = (Vec::new(), None);
    for row in table.chunks_exact(SEGMENT_BYTES) {
        let segment = Segment {
            file_offset: long(row, 8)?,
            address: long(row, 16)?,
            file_bytes: long(row, 32)?,
            memory_bytes: long(row, 40)?,
        };
        match word(row, 0)? {
            PT_LOAD => segments.push(segment),
            PT_DYNAMIC => dynamic = Some(segment),
            _ => {}
        }
    }
    let image = Image { read, segments };
    let (dynamic, first, last) = (dynamic?, image.segments.first()?, image.segments.last()?);
    if first.file_offset != 0 || first.address & PAGE_MASK != 0 {
        return None;
    }
    let base = first.address;
    let len_bytes = last.address.checked_add(last.memory_bytes)?.checked_sub(base)?;
    let entries = read(dynamic.file_offset, limited(dynamic.file_bytes)?)?;
    let tables = Tables::read(&image, &entries)?;
    let mut words = Vec::new();
    for relocation in tables.relocations.chunks_exact(RELOCATION_BYTES) {
        let info = long(relocation, 8)?;
        let kind = info as u32;
        if ![R_X86_64_64, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT].contains(&kind)
            || !tables.is_foreign((info >> 32) as usize, function)
        {
            continue;
        }
        let address = long(relocation, 0)?;
        // The sum of the two may be of another function.
        if address % 8 != 0 || long(relocation, 16)? != 0 {
            return None;
        }
        words.push(Word { distance: address.checked_sub(base)?, file_offset: image.offset_of(address, 8)? });
    }
    words.sort_unstable();
    words.dedup();
    Some(Dynamic { words, len_bytes })
}

struct Image<'a> {
    read: Read<'a>,
    segments: Vec<Segment>,
}

impl Image<'_> {
    /// Where the file has what lies at an address.
    fn offset_of(&self, address: u64, len: u64) -> Option<u64> {
        let inside = |segment: &&Segment| {
            let from = address.checked_sub(segment.address);
            from.and_then(|from| from.checked_add(len)).is_some_and(|end| end <= segment.file_bytes)
        };
        let segment = self.segments.iter().find(inside)?;
        segment.file_offset.checked_add(address - segment.address)
    }

    fn at(&self, address: u64, len_bytes: u64) -> Option<Vec<u8>> {
        let len = limited(len_bytes)?;
        if len == 0 {
            return Some(Vec::new());
        }
        (self.read)(self.offset_of(address, len_bytes)?, len)
    }
}

struct Tables {
    relocations: Vec<u8>,
    symbols: Vec<u8>,
    names: Vec<u8>,
}

impl Tables {
    fn read(image: &Image<'_>, entries: &[u8]) -> Option<Self> {
        let value = |tag: u64| {
            let mut rows = entries.chunks_exact(ENTRY_BYTES);
            rows.find(|row| long(row, 0) == Some(tag)).and_then(|row| long(row, 8))
        };
        // Words of the object itself come first; they are counted.
        let relative = value(DT_RELACOUNT).unwrap_or(0).checked_mul(RELOCATION_BYTES as u64)?;
        let mut relocations = match (value(DT_RELA), value(DT_RELASZ)) {
            (Some(at), Some(len)) => image.at(at.checked_add(relative)?, len.checked_sub(relative)?)?,
            (None, None) => Vec::new(),
            _ => return None,
        };
        match (value(DT_JMPREL), value(DT_PLTRELSZ)) {
            (Some(at), Some(len)) => relocations.extend(image.at(at, len)?),
            (None, None) => {}
            _ => return None,
        }
        if relocations.len() % RELOCATION_BYTES != 0 {
            return None;
        }
        // How many symbols there are no entry tells; as many are needed as are referred to.
        let symbol = |row: &[u8]| long(row, 8).map_or(0, |info| info >> 32);
        let last = relocations.chunks_exact(RELOCATION_BYTES).map(symbol).max().unwrap_or(0);
        let symbols = image.at(value(DT_SYMTAB)?, (last + 1) * SYMBOL_BYTES as u64)?;
        let names = image.at(value(DT_STRTAB)?, value(DT_STRSZ)?)?;
        Some(Self { relocations, symbols, names })
    }

    /// Whether a symbol has this name and is defined elsewhere.
    fn is_foreign(&self, index: usize, name: &[u8]) -> bool {
        let Some(row) = self.symbols.chunks_exact(SYMBOL_BYTES).nth(index) else { return false };
        let at = word(row, 0).map(|at| at as usize);
        let named = at.and_then(|at| self.names.get(at..)?.strip_prefix(name)?.first().copied());
        named == Some(0) && half(row, 6) == Some(0)
    }
}

fn limited(len_bytes: u64) -> Option<usize> {
    (len_bytes <= TABLE_LIMIT_BYTES).then_some(len_bytes as usize)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Reads from bytes.
    pub fn from(bytes: &[u8]) -> impl Fn(u64, usize) -> Option<Vec<u8>> + '_ {
        move |offset, len| {
            let from = usize::try_from(offset).ok()?;
            bytes.get(from..from.checked_add(len)?).map(<[u8]>::to_vec)
        }
    }

    /// An object with one page of tables, and one, a page further on in memory than in the file,
    /// with words: of `getpid` by the table of jumps at 0x2010 and by the other at 0x2020, and of
    /// `getpid2` at 0x2018.
    pub fn object() -> Vec<u8> {
        let mut file = vec![0; 0x2000];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &IDENT);
        put(16, &ET_DYN.to_le_bytes());
        put(18, &EM_X86_64.to_le_bytes());
        put(32, &64u64.to_le_bytes());
        put(54, &(SEGMENT_BYTES as u16).to_le_bytes());
        put(56, &3u16.to_le_bytes());
        let segments: [(u32, u64, u64, u64); 3] = [
            (PT_LOAD, 0, 0, 0x1000),
            (PT_LOAD, 0x1000, 0x2000, 0x1000),
            (PT_DYNAMIC, 0x1100, 0x2100, 10 * ENTRY_BYTES as u64),
        ];
        for (n, (kind, offset, address, len)) in segments.into_iter().enumerate() {
            let at = 64 + n * SEGMENT_BYTES;
            put(at, &kind.to_le_bytes());
            for (field, value) in [(8, offset), (16, address), (32, len), (40, len)] {
                put(at + field, &value.to_le_bytes());
            }
        }
        let entries: [(u64, u64); 8] = [
            (DT_STRTAB, 0x200),
            (DT_STRSZ, 0x20),
            (DT_SYMTAB, 0x300),
            (DT_RELA, 0x400),
            (DT_RELASZ, 48),
            (DT_RELACOUNT, 1),
            (DT_JMPREL, 0x500),
            (DT_PLTRELSZ, 48),
        ];
        for (n, (tag, value)) in entries.into_iter().enumerate() {
            put(0x1100 + n * ENTRY_BYTES, &tag.to_le_bytes());
            put(0x1108 + n * ENTRY_BYTES, &value.to_le_bytes());
        }
        put(0x200, b"\0getpid\0getpid2\0");
        put(0x300 + SYMBOL_BYTES, &1u32.to_le_bytes());
        put(0x300 + 2 * SYMBOL_BYTES, &8u32.to_le_bytes());
        let relocations: [(usize, u64, u64, u32); 4] = [
            (0x400, 0x2000, 0, 8),
            (0x418, 0x2020, 1, R_X86_64_GLOB_DAT),
            (0x500, 0x2010, 1, R_X86_64_JUMP_SLOT),
            (0x518, 0x2018, 2, R_X86_64_JUMP_SLOT),
        ];
        for (at, address, symbol, kind) in relocations {
            put(at, &address.to_le_bytes());
            put(at + 8, &(symbol << 32 | u64::from(kind)).to_le_bytes());
        }
        file
    }

    #[test]
    fn words_of_a_function_are_found_in_both_tables() {
        let file = object();
        let found = inspect(&from(&file), b"getpid").expect("an object");
        let word = |distance| Word { distance, file_offset: distance - 0x1000 };
        assert_eq!(found.words, [word(0x2010), word(0x2020)]);
        assert_eq!(found.len_bytes, 0x3000);
        assert_eq!(inspect(&from(&file), b"getpid2").unwrap().words, [word(0x2018)]);
        assert_eq!(inspect(&from(&file), b"getppid").unwrap().words, []);
    }

    #[test]
    fn a_function_of_its_own_and_a_sum_are_no_such_words() {
        let mut file = object();
        file[0x300 + SYMBOL_BYTES + 6] = 12;
        assert_eq!(inspect(&from(&file), b"getpid").unwrap().words, []);
        let mut file = object();
        file[0x418 + 16] = 4;
        assert_eq!(inspect(&from(&file), b"getpid"), None);
    }

    #[test]
    fn whatever_is_cut_or_changed_is_refused_or_read_and_nothing_worse() {
        let file = object();
        for len in 0..file.len() {
            let _ = inspect(&from(&file[..len]), b"getpid");
        }
        for (at, value) in (0..0x700).chain(0x1000..0x1200).flat_map(|at| [(at, 0xff), (at, 0x80)]) {
            let mut file = file.clone();
            file[at] = value;
            let _ = inspect(&from(&file), b"getpid");
        }
        assert_eq!(inspect(&from(&file[..0x1100]), b"getpid"), None);
    }
}
