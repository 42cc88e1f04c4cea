//! Credentials of one thread. Raw system calls: libc's wrappers would signal all threads.

use super::area::{Area, Region};
use super::env::TapeEnv;
use super::op::{Op, Step, Want};
use super::sequence::Sequence;
use snap_error::Result;
use snap_state::ThreadV1;
use snap_sys::label::{LSM_ATTR_CURRENT, SYS_LSM_SET_SELF_ATTR, change_profile_context};

const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const SECBIT_NO_SETUID_FIXUP: u64 = 1 << 2;
const PR_CAP_AMBIENT: u64 = 47;
const PR_CAP_AMBIENT_RAISE: u64 = 2;
const PR_CAP_AMBIENT_CLEAR_ALL: u64 = 4;

/// Order, forced by the kernel:
///  1. inheritable set: may only hold what the bounding set still holds
///  2. bounding set: needs CAP_SETPCAP
///  3. groups and gids: need CAP_SETGID
///  4. securebits NO_SETUID_FIXUP: otherwise 5 would take the capabilities away
///  5. uids
///  6. ambient set: needs permitted and inheritable, forbidden by final securebits
///  7. no_new_privs
///  8. final securebits: need CAP_SETPCAP
///  9. final permitted and effective sets
/// 10. AppArmor profile: may forbid any of these
pub fn ops(env: &TapeEnv<'_>, area: &mut Area, thread: &ThreadV1, profile: Option<&str>) -> Result<Sequence> {
    let creds = &thread.creds;
    let mut seq = Sequence::default();
    let ok = Want::Exactly(0);

    let step = capset(area, env.now.caps, env.now.caps, creds.cap_inheritable)?;
    seq.push(step);
    for cap in 0..64u64 {
        if env.now.bounding & (1 << cap) != 0 && creds.cap_bounding & (1 << cap) == 0 {
            seq.push(Op::syscall(
                Step::BoundingSet,
                libc::SYS_prctl,
                &[libc::PR_CAPBSET_DROP as u64, cap],
                ok,
            ));
        }
    }

    let gids = map_all(creds.gids, &|gid| env.objects.map_gid(gid))?;
    if env.duties.sets_groups {
        seq.push(set_groups(env, area, &creds.groups)?);
    }
    seq.push(Op::syscall(Step::Gid, libc::SYS_setresgid, &[gids[0], gids[1], gids[2]], ok));
    // setfsgid(2) and setfsuid(2) return the previous value, which the call before made the
    // effective id.
    seq.push(Op::syscall(Step::Gid, libc::SYS_setfsgid, &[gids[3]], Want::Exactly(gids[1] as i64)));

    let securebits = |bits: u64| {
        Op::syscall(Step::Securebits, libc::SYS_prctl, &[libc::PR_SET_SECUREBITS as u64, bits], ok)
    };
    seq.push(securebits(SECBIT_NO_SETUID_FIXUP));
    let uids = map_all(creds.uids, &|uid| env.objects.map_uid(uid))?;
    seq.push(Op::syscall(Step::Uid, libc::SYS_setresuid, &[uids[0], uids[1], uids[2]], ok));
    seq.push(Op::syscall(Step::Uid, libc::SYS_setfsuid, &[uids[3]], Want::Exactly(uids[1] as i64)));

    let ambient = |args: &[u64]| Op::syscall(Step::Ambient, libc::SYS_prctl, args, ok);
    seq.push(ambient(&[PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0]));
    for cap in (0..64u64).filter(|cap| creds.cap_ambient & (1 << cap) != 0) {
        seq.push(ambient(&[PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0]));
    }
    if thread.no_new_privs {
        let args = [libc::PR_SET_NO_NEW_PRIVS as u64, 1, 0, 0, 0];
        seq.push(Op::syscall(Step::NoNewPrivs, libc::SYS_prctl, &args, ok));
    }
    seq.push(securebits(u64::from(creds.securebits)));
    let step = capset(area, creds.cap_permitted, creds.cap_effective, creds.cap_inheritable)?;
    seq.push(step);
    if let Some(profile) = profile {
        seq.push(change_profile(area, profile)?);
    }
    Ok(seq)
}

fn change_profile(area: &mut Area, profile: &str) -> Result<Op> {
    let context = change_profile_context(profile);
    let len = context.len() as u64;
    let context = area.put(Region::Drop, &context, 8)?;
    let args = [LSM_ATTR_CURRENT, context, len, 0];
    Ok(Op::syscall(Step::Profile, SYS_LSM_SET_SELF_ATTR, &args, Want::Exactly(0)))
}

fn set_groups(env: &TapeEnv<'_>, area: &mut Area, groups: &[u32]) -> Result<Op> {
    let groups = groups.iter().map(|gid| env.objects.map_gid(*gid)).collect::<Result<Vec<_>>>()?;
    let bytes: Vec<u8> = groups.iter().flat_map(|gid| gid.to_ne_bytes()).collect();
    let list = area.put(Region::Drop, &bytes, 8)?;
    Ok(Op::syscall(Step::Groups, libc::SYS_setgroups, &[groups.len() as u64, list], Want::Exactly(0)))
}

fn map_all(ids: [u32; 4], map: &dyn Fn(u32) -> Result<u32>) -> Result<[u64; 4]> {
    let mut out = [0; 4];
    for (to, from) in out.iter_mut().zip(ids) {
        *to = u64::from(map(from)?);
    }
    Ok(out)
}

fn capset(area: &mut Area, permitted: u64, effective: u64, inheritable: u64) -> Result<Op> {
    let mut header = LINUX_CAPABILITY_VERSION_3.to_ne_bytes().to_vec();
    header.extend_from_slice(&0i32.to_ne_bytes());
    let header = area.put(Region::Drop, &header, 8)?;
    let mut data = Vec::with_capacity(24);
    for half in [0, 32] {
        for set in [effective, permitted, inheritable] {
            data.extend_from_slice(&((set >> half) as u32).to_ne_bytes());
        }
    }
    let data = area.put(Region::Drop, &data, 8)?;
    Ok(Op::syscall(Step::Capabilities, libc::SYS_capset, &[header, data], Want::Exactly(0)))
}
