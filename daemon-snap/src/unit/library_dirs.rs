//! Directories whose libraries go before those of packages (ld.so(8), ldconfig(8)). A program that
//! has read /etc/ld.so.cache was led by it to what it has mapped; a library of the same name that
//! comes into one of these directories would take that one's place at the next start.

use super::gathered::Files;
use super::patterns;
use image_store::Source;
use snap_error::Result;
use std::path::{Path, PathBuf};

pub(super) const CACHE: &str = "/etc/ld.so.cache";
const CONFIGURATION: &str = "/etc/ld.so.conf";
/// Packages bring libraries every day; a file of one that is mapped is compared itself.
const OF_PACKAGES: [&str; 6] = ["/lib", "/lib32", "/lib64", "/libx32", "/usr/lib", "/usr/lib64"];

/// What one file of the configuration says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Configuration {
    dirs: Vec<PathBuf>,
    includes: Vec<String>,
}

/// Adds the names in all of these directories, and the configuration that lists them.
///
/// # Errors
/// When something cannot be read.
pub(super) fn add(files: &mut Files<'_>) -> Result<()> {
    let mut wanted = vec![PathBuf::from(CONFIGURATION)];
    let mut read = Vec::new();
    let mut dirs = Vec::new();
    while let Some(path) = wanted.pop() {
        if read.contains(&path) {
            continue;
        }
        let found = parse(&std::fs::read_to_string(&path).unwrap_or_default());
        read.push(path);
        dirs.extend(found.dirs);
        for pattern in found.includes {
            let (paths, listed) =
                patterns::expand(&pattern).map_err(|e| snap_error::Error::io("list", &pattern, &e))?;
            wanted.extend(paths);
            read.extend(listed);
        }
    }
    dirs.retain(|dir| !OF_PACKAGES.iter().any(|packages| dir.starts_with(packages)));
    for path in read.into_iter().chain(dirs) {
        // As the service sees it, where that is something else than what there is.
        if !files.is_ignored(&path) && files.mounts.remote(&path).is_none() {
            let evidence = files.look(&path)?;
            files.insert(evidence, Source::Derived)?;
        }
    }
    Ok(())
}

fn parse(text: &str) -> Configuration {
    let mut found = Configuration::default();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match line.strip_prefix("include") {
            Some(rest) if rest.starts_with([' ', '\t']) => {
                // A relative one is meant from where the file lies, which is /etc.
                let patterns = rest.split_whitespace();
                found.includes.extend(patterns.map(|pattern| match pattern.starts_with('/') {
                    true => pattern.to_owned(),
                    false => format!("/etc/{pattern}"),
                }));
            }
            _ => {
                let dirs = line.split([' ', '\t', ':', ',']).map(|dir| dir.split('=').next().unwrap_or(dir));
                found.dirs.extend(dirs.filter(|dir| dir.starts_with('/')).map(PathBuf::from));
            }
        }
    }
    found
}

/// Whether a service that has read this was led to its libraries.
pub(super) fn is_cache(path: &Path) -> bool {
    path == Path::new(CACHE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_further_files_are_found_in_the_configuration() {
        let text = "# libc default\n/usr/local/lib\ninclude /etc/ld.so.conf.d/*.conf\ninclude more.conf # here\n\
                    hwcap 1 nosegneg\n/opt/a=libc6:/opt/b\n";
        let expected = Configuration {
            dirs: ["/usr/local/lib", "/opt/a", "/opt/b"].map(PathBuf::from).to_vec(),
            includes: vec!["/etc/ld.so.conf.d/*.conf".to_owned(), "/etc/more.conf".to_owned()],
        };
        assert_eq!(parse(text), expected);
    }
}
