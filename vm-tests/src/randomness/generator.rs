//! What each generator gives when one image is restored twice: measured, and the same table as in
//! docs/randomness.md.

/// How two restores of one image compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Draws {
    /// They differ.
    Fresh,
    /// They are equal.
    Repeated,
}

use crate::fastboot::RESEED;
use Draws::{Fresh, Repeated};

/// A service, and its generators.
#[derive(Debug, Clone, Copy)]
pub(super) struct Service {
    pub name: &'static str,
    pub command: &'static str,
    pub generators: &'static [(&'static str, Draws)],
}

pub(super) const SERVICES: [Service; 7] = [
    Service {
        name: "draw-python",
        command: "/usr/bin/python3 /usr/local/lib/draw/draw.py",
        generators: &[
            ("getrandom", Fresh),
            ("getrandom system call", Fresh),
            ("arc4random", Fresh),
            ("libc random", Repeated),
            ("OpenSSL", Fresh),
            ("OpenSSL private", Fresh),
            ("GnuTLS nonce", Repeated),
            ("GnuTLS random", Repeated),
            ("GnuTLS key", Repeated),
            ("libgcrypt", Fresh),
            ("BoringSSL", Fresh),
            ("Python random", Repeated),
            ("Python secrets", Fresh),
            ("Python ssl", Fresh),
            ("Python uuid4", Fresh),
        ],
    },
    Service {
        name: "draw-hooked",
        command: "/usr/bin/python3 /usr/local/lib/draw/draw.py",
        generators: &[
            ("OpenSSL", Fresh),
            ("OpenSSL private", Fresh),
            ("GnuTLS nonce", Fresh),
            ("GnuTLS random", Fresh),
            ("GnuTLS key", Fresh),
            ("Python random", Fresh),
            ("Python ssl", Fresh),
        ],
    },
    Service {
        name: "draw-preloaded",
        command: "/usr/bin/python3 /usr/local/lib/draw/draw.py",
        generators: &[
            ("OpenSSL", Fresh),
            ("OpenSSL private", Fresh),
            ("libgcrypt", Fresh),
            ("Python ssl", Fresh),
            ("getrandom", Fresh),
        ],
    },
    Service {
        name: "draw-node-preloaded",
        command: "/usr/bin/node /usr/local/lib/draw/draw.js",
        generators: &[("Node randomBytes", Fresh), ("Node getRandomValues", Fresh)],
    },
    Service {
        name: "draw-node",
        command: "/usr/bin/node /usr/local/lib/draw/draw.js",
        generators: &[
            ("Node randomBytes", Fresh),
            ("Node randomUUID", Repeated),
            ("Node getRandomValues", Fresh),
            ("Node Math.random", Repeated),
        ],
    },
    Service {
        name: "draw-java",
        command: "/usr/bin/java -cp /usr/local/lib/draw Draw",
        generators: &[
            ("Java SecureRandom", Fresh),
            ("Java NativePRNGNonBlocking", Fresh),
            ("Java DRBG", Repeated),
            ("Java SHA1PRNG", Repeated),
            ("Java UUID", Fresh),
            ("Java Random", Repeated),
            ("Java ThreadLocalRandom", Repeated),
        ],
    },
    Service {
        name: "draw-go",
        command: "/usr/local/bin/draw-go",
        // Those of math/rand have a state for each of the runtime's threads: what is drawn depends
        // on who runs.
        generators: &[("Go crypto/rand", Fresh)],
    },
];

impl Service {
    /// Name of its test.
    pub(super) fn test(self) -> String {
        format!("randomness/{}", self.name)
    }

    pub(super) fn unit(self) -> String {
        format!("{}.service", self.name)
    }

    pub(super) fn text(self) -> String {
        let hook = if self.name == "draw-hooked" { " --hook" } else { "" };
        let preload =
            if self.is_preloaded() { format!("Environment=LD_PRELOAD={RESEED}\n") } else { String::new() };
        format!(
            "[Service]\n{preload}ExecStart={} {}{hook}\n[Install]\nWantedBy=multi-user.target\n",
            self.command,
            self.out()
        )
    }

    /// With the library in it that has others seed themselves again.
    pub(super) fn is_preloaded(self) -> bool {
        self.name.ends_with("-preloaded")
    }

    /// Where it writes what it drew.
    pub(super) fn out(self) -> String {
        format!("/run/{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_says_of_every_generator_what_is_checked() {
        let page = include_str!("../../../docs/randomness.md");
        for service in
            SERVICES.iter().filter(|service| service.name != "draw-hooked" && !service.is_preloaded())
        {
            for (name, draws) in service.generators {
                let word = if *draws == Fresh { "fresh" } else { "repeats" };
                assert!(
                    page.contains(&format!("| {name} | {word} |")),
                    "{name} is not {word} in docs/randomness.md"
                );
            }
        }
    }
}
