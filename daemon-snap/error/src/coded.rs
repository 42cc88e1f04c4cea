//! How enums of reasons are written: one list with everything that there is to say of each.

/// A family of obstacles or faults. Each entry: its code, whether it `passes` by itself or `stays`,
/// its name and fields, and the sentence, which completes "fd 7 is …" or "pid 812 has …".
macro_rules! coded {
    (
        $(#[$doc:meta])*
        $family:ident {
            $($(#[$entry:meta])*
            $code:literal $lasts:ident $name:ident $({ $($field:ident: $type:ty),* })?:
                $sentence:literal $(, $shown:expr)*;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $family {
            $($(#[$entry])* $name $({ $($field: $type),* })?,)*
        }

        impl $family {
            /// Every code of this family, and whether what it stands for passes.
            pub const ALL: &[(&str, bool)] = &[$(($code, coded!(@$lasts))),*];

            /// The stable name for machines.
            pub fn code(&self) -> &'static str {
                match self {
                    $(Self::$name { .. } => $code,)*
                }
            }

            /// Whether it comes and goes: a moment later, or after a restart, it may not be there.
            pub fn passes(&self) -> bool {
                match self {
                    $(Self::$name { .. } => coded!(@$lasts),)*
                }
            }
        }

        impl std::fmt::Display for $family {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$name $({ $($field),* })? => write!(f, $sentence $(, $shown)*),)*
                }
            }
        }
    };
    (@passes) => { true };
    (@stays) => { false };
}
