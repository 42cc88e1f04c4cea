//! What a process is shut into: namespaces, control groups, seccomp, labels, Landlock.

use nix::errno::Errno;
use snap_state::RawPath;

coded! {
    /// Confinement that cannot be read, or not be given again.
    SandboxObstacle {
        "own-namespace" stays OwnNamespace { name: &'static str }: "a {name} namespace of its own";
        "own-pid-namespace" stays OwnPidNamespace: "a PID namespace of its own";
        "ids-renumbered" stays IdsRenumbered: "a user namespace that renumbers users or groups";
        "own-cgroup" stays OwnCgroup { group: String }: "a control group of its own ({group})";
        "too-many-cgroups" stays TooManyCgroups { most: usize }: "more than {most} control groups";
        "cgroup-type" stays CgroupType { kind: String, path: RawPath }:
            "a control group that is {kind} ({path})";
        "cgroup-frozen" stays CgroupFrozen { path: RawPath }: "a frozen control group ({path})";
        "cgroup-setting" stays CgroupSetting { name: String, value: String, path: RawPath }:
            "a control group with {name} set to {value:?} ({path})";
        "seccomp-strict" stays SeccompStrict: "strict seccomp mode";
        "seccomp-not-classic" stays SeccompNotClassic: "a seccomp filter that is not classic BPF";
        "seccomp-differs" stays SeccompDiffers: "seccomp filters that other threads of its process do not have";
        "seccomp-unreadable" stays SeccompUnreadable { filters: usize, own: usize }:
            "{filters} seccomp filters, which cannot be read from inside a sandbox that has {own}";
        "fastboot-sandboxed" stays FastbootSandboxed:
            "descriptors that cannot be read: the seccomp filter that fastboot itself runs under forbids \
             pidfd_getfd(2)";
        "label-differs" stays LabelDiffers: "a security label that not all of its threads have";
        "label-foreign" stays LabelForeign { label: String }: "a security label of its own ({label})";
        "apparmor-not-one-profile" stays NotOneProfile { label: String }:
            "an AppArmor label that is not one profile ({label})";
        "apparmor-not-from-inside" stays ProfileNotFromInside { label: String }:
            "the AppArmor profile {label}, which a kernel before 6.8 gives to nobody from inside";
        "landlock-domain" stays LandlockDomain: "a Landlock domain (landlock_restrict_self)";
        "landlock-hidden" stays LandlockHidden { profile: String }:
            "a Landlock domain, or {profile} (AppArmor) hides that it has none";
        "landlock-unknown" stays LandlockUnknown { errno: Errno }:
            "no way to tell whether it is in a Landlock domain ({errno})";
    }
}
