//! `manuals DIR`: manual pages and shell completions of the `fastboot` command, made from its own
//! arguments.
//!
//! An example and not part of the command: what is shipped does not carry what only the package's
//! build needs.

#[path = "../src/cli/mod.rs"]
#[expect(dead_code, reason = "the commands are described here, not run")]
mod cli;

use clap::{Arg, ArgAction, Command, CommandFactory as _};
use clap_complete::Shell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What every page ends with.
const TAIL: &[u8] = include_bytes!("../../docs/man/common-tail.roff");
/// What is to be said of some commands beside their arguments, a file for each.
const COMMANDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/man/commands");
/// The Android tool has the same name. Fish comes with completions for that one, which ours must
/// not hide from those whose `fastboot` it is.
const FISH_HEAD: &str = "\
if not string match --quiet -- '*/sbin/fastboot' (command --search fastboot)
    test -f $__fish_data_dir/completions/fastboot.fish
    and source $__fish_data_dir/completions/fastboot.fish
    return
end
";

/// Names of units, which only the machine knows: what runs, or what has an image.
const BASH_UNITS: &str = r#"
_fastboot_with_units() {
    _fastboot "$@"
    local cur=${COMP_WORDS[COMP_CWORD]} units
    [[ $COMP_CWORD -gt 1 && $cur != -* && ${COMP_WORDS[COMP_CWORD-1]} != -* ]] || return 0
    case ${COMP_WORDS[1]} in
        snapshot | plan)
            units=$(systemctl list-units --type=service --state=running --plain --no-legend --no-pager 2> /dev/null | cut -d ' ' -f 1) ;;
        show | verify | remove)
            units=$(fastboot list --json 2> /dev/null | grep -o '"unit":"[^"]*"' | cut -d '"' -f 4 | sort -u) ;;
        *) return 0 ;;
    esac
    COMPREPLY=($(compgen -W "$units" -- "$cur"))
}
complete -F _fastboot_with_units -o nosort -o bashdefault -o default fastboot
"#;
const FISH_UNITS: &str = r#"
complete -c fastboot -f -n "__fish_seen_subcommand_from snapshot plan" -a "(systemctl list-units --type=service --state=running --plain --no-legend --no-pager 2>/dev/null | string split -f 1 ' ')"
complete -c fastboot -f -n "__fish_seen_subcommand_from show verify remove" -a "(fastboot list --json 2>/dev/null | string match -a -r -g '\"unit\":\"([^\"]*)\"')"
"#;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("manuals: in which directory?");
        return ExitCode::from(2);
    };
    match write_all(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manuals: {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn write_all(dir: &Path) -> io::Result<()> {
    if dir.exists() {
        // A page of a command that is no more would be shipped.
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)?;
    let mut command = cli::Cli::command();
    command.build();
    write_page(&command, dir)?;
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        write_page(subcommand, dir)?;
    }
    write_completions(&mut cli::Cli::command(), dir)
}

/// Section 8: these are commands of the administrator, and section 1 has the Android tool's page.
fn write_page(command: &Command, dir: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let page = clap_mangen::Man::new(command.clone())
        .title(name.to_uppercase())
        .section("8")
        .source(format!("fastboot {}", env!("CARGO_PKG_VERSION")))
        .manual("System administration");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    text.extend_from_slice(synopsis(command, &name).as_bytes());
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.get_subcommands().next().is_some() {
        page.render_subcommands_section(&mut text)?;
    }
    match fs::read(Path::new(COMMANDS).join(format!("{name}.roff"))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => text.extend_from_slice(&read?),
    }
    text.extend_from_slice(TAIL);
    fs::write(dir.join(format!("{name}.8")), text)
}

/// Every option with its value, and what follows them; clap_mangen leaves the values out.
fn synopsis(command: &Command, name: &str) -> String {
    let escaped = |text: &str| text.replace('-', "\\-");
    let mut parts =
        vec![format!(".SH SYNOPSIS\n.B {}", escaped(&name.replacen("fastboot-", "fastboot ", 1)))];
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let (positional, options): (Vec<&Arg>, Vec<&Arg>) =
        arguments.partition(|argument| argument.is_positional());
    for argument in options.into_iter().chain(positional) {
        let flag = argument.get_long().map(|long| format!("\\fB\\-\\-{}\\fR", escaped(long)));
        let names = argument.get_value_names().filter(|_| argument.get_action().takes_values());
        let value = names.and_then(|names| names.first()).map(|name| format!("\\fI{name}\\fR"));
        let is_list = matches!(argument.get_action(), ArgAction::Append);
        let words: Vec<String> = flag.into_iter().chain(value).collect();
        let words = format!("{}{}", words.join(" "), if is_list { " .\\|.\\|." } else { "" });
        if !matches!(argument.get_long(), Some("help" | "version")) {
            parts.push(if argument.is_required_set() { words } else { format!("[{words}]") });
        }
    }
    if command.has_subcommands() {
        parts.push("\\fICOMMAND\\fR [\\fIARGUMENT\\fR .\\|.\\|.]".to_owned());
    }
    parts.join("\n") + "\n"
}

fn write_completions(command: &mut Command, dir: &Path) -> io::Result<()> {
    for (shell, file) in
        [(Shell::Bash, "fastboot.bash"), (Shell::Zsh, "_fastboot"), (Shell::Fish, "fastboot.fish")]
    {
        let mut text = if shell == Shell::Fish { FISH_HEAD.as_bytes().to_vec() } else { Vec::new() };
        clap_complete::generate(shell, command, "fastboot", &mut text);
        match shell {
            Shell::Bash => text.extend_from_slice(BASH_UNITS.as_bytes()),
            Shell::Fish => text.extend_from_slice(FISH_UNITS.as_bytes()),
            _ => {}
        }
        fs::write(dir.join(file), text)?;
    }
    Ok(())
}
