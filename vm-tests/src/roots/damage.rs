//! Damage done to files on purpose.

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};

/// Flip one bit of the byte in the middle of a file.
///
/// # Errors
/// The file is not there or empty.
pub fn flip_middle_byte(path: &Path) -> Result<()> {
    let flip = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let middle = SeekFrom::Start(file.metadata()?.len() / 2);
        let mut byte = [0];
        file.seek(middle)?;
        file.read_exact(&mut byte)?;
        file.seek(middle)?;
        file.write_all(&[byte[0] ^ 0x10])
    };
    flip().with_context(|| format!("changing one byte of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_in_the_middle_is_flipped_and_the_length_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0; 9]).unwrap();
        flip_middle_byte(file.path()).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), [0, 0, 0, 0, 0x10, 0, 0, 0, 0]);
    }
}
