//! `fastboot remove`.

use super::common::{StoreArgs, service_name};

/// Remove images; the services start cold from the next boot on
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    /// Services
    #[arg(value_name = "UNIT", value_parser = service_name, required_unless_present = "all")]
    units: Vec<String>,
    /// Every image; a damaged catalogue is set aside
    #[arg(long, conflicts_with = "units")]
    all: bool,
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let store = args.store.open();
    // Where there is nothing, nothing is made either.
    let _lock = if store.root().exists() { Some(store.lock()?) } else { None };
    let mut set_aside = None;
    let (mut removed, mut missing) = (Vec::new(), Vec::new());
    if args.all {
        set_aside = store.set_aside_damaged_catalogue()?;
        removed.extend(store.load()?.units().into_iter().map(str::to_owned));
        store.remove_all()?;
    } else {
        for unit in args.units.iter().cloned() {
            if store.remove(&unit)? { removed.push(unit) } else { missing.push(unit) }
        }
        // Of a snapshot that was killed.
        store.sweep()?;
    }
    if args.store.json {
        say!("{}", serde_json::json!({ "removed": removed, "missing": missing, "set_aside": set_aside }));
    } else {
        removed.iter().for_each(|unit| say!("{unit}: images removed; it starts cold from the next boot on"));
        missing.iter().for_each(|unit| eprintln!("fastboot: there is no image of {unit}"));
        if removed.is_empty() && missing.is_empty() && set_aside.is_none() {
            args.store.say_empty();
        }
        if let Some(path) = set_aside {
            say!("damaged catalogue set aside as {}, and its images removed", path.display());
        }
    }
    Ok(u8::from(!missing.is_empty()))
}
