//! Widths, colours and the pager.

use anyhow::{Result, ensure};

use crate::container::Container;

/// Every command that prints something long, with the exit codes that it may have here.
const COMMANDS: &[&[&str]] = &[
    &["plan"],
    &["plan", "-v"],
    &["status"],
    &["status", "-v"],
    &["list"],
    &["list", "-v"],
    &["verify"],
    &["history"],
    &["doctor"],
    &["show", "slow"],
    &["show", "slow", "--evidence"],
    &["refresh", "--dry-run"],
    &["help"],
];

/// Not a line is longer than the terminal is wide, nor ends in blanks.
pub(super) fn fit(machine: &Container) -> Result<()> {
    for columns in ["80", "120"] {
        for command in COMMANDS {
            let setting = format!("COLUMNS={columns}");
            let mut line = vec!["env", &setting, "fastboot"];
            line.extend(*command);
            let output = machine.run(&line)?;
            ensure!(!output.stdout.is_empty(), "{command:?} says nothing: {}", output.stderr);
            let most = columns.parse::<usize>()?;
            for text in output.stdout.lines() {
                ensure!(text.chars().count() <= most, "{command:?} at {columns}:\n{}", output.stdout);
            }
            ensure!(!output.stdout.contains('\x1b'), "{command:?} is coloured:\n{}", output.stdout);
        }
    }
    // Where nobody says how wide it is.
    let output = machine.run(&["fastboot", "plan", "-v"])?.success()?;
    ensure!(output.lines().all(|line| line.chars().count() <= 80), "{output}");
    Ok(())
}

/// On a terminal made by script(1).
pub(super) fn terminal(machine: &Container) -> Result<()> {
    let on_terminal = |settings: &str, rows: u32, command: &str| -> Result<String> {
        let inner = format!("stty cols 80 rows {rows}; {settings} fastboot {command}");
        let script = format!("TERM=xterm script --quiet --return --command '{inner}' /dev/null");
        machine.run(&["sh", "-c", &script])?.success()
    };
    let coloured = on_terminal("SYSTEMD_PAGER=cat", 200, "status")?;
    ensure!(coloured.contains("\x1b["), "no colour: {coloured:?}");
    let plain = on_terminal("NO_COLOR=1 SYSTEMD_PAGER=cat", 200, "status")?;
    ensure!(!plain.contains("\x1b["), "coloured: {plain:?}");
    let paged = on_terminal("SYSTEMD_PAGER=\"sed s/^/paged:/\"", 10, "doctor")?;
    ensure!(paged.contains("paged:"), "no pager: {paged:?}");
    let short = on_terminal("SYSTEMD_PAGER=\"sed s/^/paged:/\"", 200, "doctor")?;
    ensure!(!short.contains("paged:"), "a pager for what fits: {short:?}");
    let without = on_terminal("SYSTEMD_PAGER=no-such-pager", 10, "doctor")?;
    ensure!(without.contains("Everything necessary"), "lost: {without:?}");
    Ok(())
}
