//! Families of state, each with a section and a version of its own.

/// A family of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// What belongs to the tree as a whole.
    Tree,
    /// Objects of IPC that only ids lead to.
    Ipc,
    /// Processes with their threads, what is left of ended ones, their filters.
    Processes,
    /// Address spaces, in the order of the processes.
    Memory,
    /// Open file descriptions and pipes.
    Files,
    /// Connections to the system bus, in the order of the files.
    Bus,
    /// What files and mappings lead to, and what has to be in volatile directories.
    Objects,
}

impl Family {
    /// All of them, in the order in which they are written and read: what an earlier version had
    /// in one section stands behind that one.
    pub const ALL: [Self; 7] =
        [Self::Tree, Self::Ipc, Self::Processes, Self::Memory, Self::Files, Self::Bus, Self::Objects];

    /// Version of its section. Raised with each change of the layout; 1 to 6 of the tree's were the
    /// whole state in one section.
    pub const fn version(self) -> u16 {
        match self {
            Self::Tree => 8,
            Self::Processes | Self::Files | Self::Objects => 2,
            Self::Ipc | Self::Memory | Self::Bus => 1,
        }
    }
}
