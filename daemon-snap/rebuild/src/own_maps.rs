//! The address space of the worker: what is in the way of a tape, and where the vDSO lies.

use super::desk::Desk;
use crate::tape::{VdsoPart, VdsoPlace};
use image_store::ReasonCode;
use snap_error::{Error, Result};
use snap_state::{BackingV1, ProcessV1, VdsoV1};
use snap_sys as sys;
use std::ops::Range;

/// Mappings of this process, ascending.
#[derive(Debug)]
pub struct OwnMaps(Vec<OwnMap>);

#[derive(Debug, PartialEq, Eq)]
struct OwnMap {
    range: Range<u64>,
    vdso: Option<VdsoPart>,
}

impl OwnMaps {
    /// Reads `/proc/self/maps`.
    ///
    /// # Errors
    /// It cannot be read, or is not as proc_pid_maps(5) says.
    pub fn read(desk: &Desk) -> Result<Self> {
        let text = desk.proc.read("self/maps").map_err(|e| Error::kernel("reading", "self/maps", e))?;
        let text = String::from_utf8_lossy(&text);
        parse(&text)
            .map(Self)
            .ok_or_else(|| Error::Unreadable { step: "parsing", object: "self/maps".to_owned() })
    }

    /// Address ranges that are taken.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        self.0.iter().map(|map| map.range.clone()).collect()
    }

    /// Where this process has its vDSO, and whether it is the recorded one.
    ///
    /// # Errors
    /// `Stale`: another kernel's vDSO.
    pub fn vdso_of(&self, recorded: &VdsoV1, processes: &[ProcessV1]) -> Result<Vec<VdsoPlace>> {
        let mut places = Vec::new();
        for map in &self.0 {
            let Some(backing) = map.vdso else { continue };
            let Range { start, end } = map.range;
            if backing == VdsoPart::Code {
                let bytes = sys::own::read_mapped(start..end);
                if *blake3::hash(&bytes).as_bytes() != recorded.digest {
                    return Err(Error::stale(ReasonCode::KernelChanged, "the kernel's vDSO is another one"));
                }
            }
            places.push(VdsoPlace { backing, start, end });
        }
        let is_mapped = processes.iter().flat_map(|p| &p.mm.vmas).any(|v| v.backing == BackingV1::Vdso);
        if is_mapped && !places.iter().any(|p| p.backing == VdsoPart::Code) {
            return Err(Error::stale(ReasonCode::HostUnsupported, "this kernel maps no vDSO"));
        }
        Ok(places)
    }
}

fn parse(text: &str) -> Option<Vec<OwnMap>> {
    let mut data = 0;
    let mut map = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let address = |digits| u64::from_str_radix(digits, 16).ok();
        let range = address(start)?..address(end)?;
        // Protection, offset, device, inode; what follows may be missing.
        let vdso = match words.nth(4) {
            Some("[vdso]") => Some(VdsoPart::Code),
            Some(name) if name.starts_with("[vvar") => {
                data += 1;
                Some(VdsoPart::Data(data - 1))
            }
            _ => None,
        };
        Some(OwnMap { range, vdso })
    };
    text.lines().map(&mut map).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_vdso_are_known_by_name_and_data_is_counted() {
        let text = "00400000-00401000 r--p 00000000 fe:00 77                 /usr/bin/with space\n\
                    7ffe0000-7ffe4000 r--p 00000000 00:00 0                  [vvar]\n\
                    7ffe4000-7ffe6000 r--p 00000000 00:00 0                  [vvar_vclock]\n\
                    7ffe6000-7ffe8000 r-xp 00000000 00:00 0                  [vdso]\n\
                    ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\n\
                    7fff0000-7fff1000 rw-p 00000000 00:00 0 \n";
        let maps = parse(text).unwrap();
        let parts: Vec<_> = maps.iter().map(|map| map.vdso).collect();
        assert_eq!(
            parts,
            [None, Some(VdsoPart::Data(0)), Some(VdsoPart::Data(1)), Some(VdsoPart::Code), None, None]
        );
        assert_eq!(maps[0].range, 0x40_0000..0x40_1000);
        assert_eq!(parse("no line of maps\n"), None);
    }
}
