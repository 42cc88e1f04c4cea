//! Ports that need a privilege (ip(7), `ip_unprivileged_port_start`). The worker has it; whether
//! the unit may have it too is asked before it binds in the unit's name.

use super::desk::Desk;
use super::inet::show;
use crate::context::UnitContext;
use image_store::ReasonCode;
use snap_error::{Error, Result};
use snap_state::InetSocketV1;
use snap_sys::proc::Status;

/// Of the network namespace of whoever asks.
const SETTING: &str = "sys/net/ipv4/ip_unprivileged_port_start";
/// capabilities(7).
const CAP_NET_BIND_SERVICE: u32 = 10;

/// Looks at every socket that is bound to a port. Called in the unit's network namespace.
///
/// # Errors
/// `Stale`: the unit may not bind to one of them today, whatever it executes.
pub fn check_low_ports<'a>(
    desk: &Desk,
    sockets: impl Iterator<Item = &'a InetSocketV1>,
    unit: &UnitContext,
) -> Result<()> {
    let Some((port, local)) = sockets.filter_map(bound_port).min() else { return Ok(()) };
    let read = |path: &str| desk.proc.read(path).map_err(|e| Error::kernel("read", path, e));
    let setting = read(SETTING)?;
    let start = std::str::from_utf8(&setting).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let start = start.ok_or_else(|| Error::Unreadable { step: "read", object: SETTING.to_owned() })?;
    if u32::from(port) >= start {
        return Ok(());
    }
    let path = format!("{}/status", unit.shim_pid);
    let status = Status::parse(&read(&path)?);
    let status = status.ok_or(Error::Unreadable { step: "read", object: path })?;
    if can_never_bind(&status) {
        let local = show(local);
        let sentence = format!(
            "the unit may not bind to {local}: ports below {start} need a privilege that it cannot have"
        );
        return Err(Error::stale(ReasonCode::HostUnsupported, sentence));
    }
    Ok(())
}

/// Port and address where a port of that protocol can be a privileged one.
fn bound_port(socket: &InetSocketV1) -> Option<(u16, &[u8])> {
    let has_ports = [libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_UDPLITE].contains(&socket.protocol);
    let local = socket.local.as_deref().filter(|_| has_ports)?;
    let port = u16::from_be_bytes(local.get(2..4)?.try_into().ok()?);
    (port != 0).then_some((port, local))
}

/// What systemd starts does not have the privilege and cannot get it from a program with file
/// capabilities or set-user-id.
fn can_never_bind(shim: &Status) -> bool {
    let has = |set: u64| set & (1 << CAP_NET_BIND_SERVICE) != 0;
    !has(shim.cap_effective) && (shim.no_new_privs || !has(shim.cap_bounding))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_file_capabilities_may_still_bind() {
        let with = |cap_effective, cap_bounding, no_new_privs| Status {
            cap_effective,
            cap_bounding,
            no_new_privs,
            ..Status::default()
        };
        let cap = 1 << CAP_NET_BIND_SERVICE;
        assert!(!can_never_bind(&with(cap, cap, true)));
        assert!(!can_never_bind(&with(0, cap, false)));
        assert!(can_never_bind(&with(0, cap, true)));
        assert!(can_never_bind(&with(0, 0, false)));
    }
}
