//! `fastboot remove`.

use super::common::{StoreArgs, unit_names};

/// Remove images; the services start cold from the next boot on
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    /// Services
    #[arg(required_unless_present = "all")]
    units: Vec<String>,
    /// Remove every image
    #[arg(long, conflicts_with = "units")]
    all: bool,
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let store = args.store.open();
    let _lock = store.lock()?;
    let units = match args.all {
        true => store.load()?.units().into_iter().map(str::to_owned).collect(),
        false => unit_names(&args.units),
    };
    let (mut removed, mut missing) = (Vec::new(), Vec::new());
    for unit in units {
        if store.remove(&unit)? { removed.push(unit) } else { missing.push(unit) }
    }
    if args.store.json {
        println!("{}", serde_json::json!({ "removed": removed, "missing": missing }));
    } else {
        for unit in &missing {
            eprintln!("fastboot: there is no image of {unit}");
        }
    }
    Ok(u8::from(!missing.is_empty()))
}
