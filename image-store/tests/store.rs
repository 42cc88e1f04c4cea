//! The store: what is published, kept, carried forward, removed and quarantined.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use common::{entry, make_root, names_in, write_image};
use image_store::{Catalogue, Error, ErrorKind, Generation, ReasonCode, Result, StaleReason, Store, fault};

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        make_root(&dir.path().join("root"));
        let store = Store::open(dir.path().join("store"));
        Fixture { dir, store }
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }

    fn publish(&self, units: &[&str]) -> Result<Generation> {
        let _lock = self.store.lock()?;
        let pending = self.store.begin_generation()?;
        let mut entries = Vec::new();
        for unit in units {
            let info = write_image(&pending.image_path(unit)?, 1);
            entries.push(entry(&self.root(), unit, pending.relative_path(unit)?, &info));
        }
        pending.commit(entries)
    }

    fn ids(&self) -> Vec<u64> {
        self.store.load().unwrap().generations.iter().map(|generation| generation.id).collect()
    }

    /// Every image file as `generation/name`.
    fn files(&self) -> Vec<String> {
        let images = self.store.root().join("images");
        let in_dir =
            |dir: String| names_in(&images.join(&dir)).into_iter().map(move |file| format!("{dir}/{file}"));
        names_in(&images).into_iter().flat_map(in_dir).collect()
    }
}

fn failure() -> StaleReason {
    StaleReason::new(ReasonCode::RestoreFailed, "worker ended with signal 9")
}

#[test]
fn a_store_that_is_not_there_is_empty() {
    let store = Store::open("/nonexistent/fastboot");
    assert_eq!(store.load().unwrap(), Catalogue::default());
}

#[test]
fn publishing_carries_other_units_forward_and_keeps_two_generations() {
    let fixture = Fixture::new();
    fixture.publish(&["a.service", "b.service"]).unwrap();
    let second = fixture.publish(&["a.service"]).unwrap();
    assert_eq!(
        second.images.iter().map(|i| i.file.as_str()).collect::<Vec<_>>(),
        ["images/2/a.service.img", "images/1/b.service.img"]
    );
    assert_eq!(fixture.files(), ["1/a.service.img", "1/b.service.img", "2/a.service.img"]);

    fixture.publish(&["a.service", "c.service"]).unwrap();
    assert_eq!(fixture.ids(), [2, 3]);
    assert_eq!(fixture.files(), ["1/b.service.img", "2/a.service.img", "3/a.service.img", "3/c.service.img"]);
    let catalogue = fixture.store.load().unwrap();
    assert_eq!(catalogue.units().into_iter().collect::<Vec<_>>(), ["a.service", "b.service", "c.service"]);
    for (_, image) in catalogue.newest_images() {
        fixture.store.open_image(image).unwrap();
    }
    assert_eq!(catalogue.newest("a.service").unwrap().1.file, "images/3/a.service.img");
    assert!(catalogue.newest("d.service").is_none());
}

#[test]
fn removing_a_unit_removes_its_images_and_nothing_else() {
    let fixture = Fixture::new();
    fixture.publish(&["a.service", "b.service"]).unwrap();
    fixture.publish(&["a.service"]).unwrap();
    assert!(fixture.store.remove("a.service").unwrap());
    assert!(!fixture.store.remove("a.service").unwrap());
    assert_eq!(fixture.files(), ["1/b.service.img"]);
    // The number of an emptied generation is not used again.
    assert_eq!(fixture.publish(&["a.service"]).unwrap().id, 3);
}

#[test]
fn only_root_can_read_what_is_stored() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.store.root()).unwrap();
    fs::set_permissions(fixture.store.root(), fs::Permissions::from_mode(0o755)).unwrap();
    fixture.publish(&["a.service"]).unwrap();
    let mode =
        |path: &str| fs::metadata(fixture.store.root().join(path)).unwrap().permissions().mode() & 0o777;
    for dir in ["", "images", "images/1"] {
        assert_eq!(mode(dir), 0o700, "{dir}");
    }
    for file in ["catalogue.json", "lock", "images/1/a.service.img"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
}

#[test]
fn a_fault_before_the_rename_leaves_the_old_catalogue_and_no_new_images() {
    for point in ["catalogue.write", "catalogue.sync.file", "catalogue.rename"] {
        let fixture = Fixture::new();
        fixture.publish(&["a.service"]).unwrap();
        let before = fixture.store.load().unwrap();
        let _armed = fault::arm(point);
        assert!(fixture.publish(&["a.service"]).unwrap_err().to_string().contains(point));
        assert_eq!(fixture.store.load().unwrap(), before, "{point}");
        assert_eq!(fixture.files(), ["1/a.service.img"]);
        assert_eq!(names_in(fixture.store.root()), ["catalogue.json", "images", "lock"]);
    }
}

#[test]
fn a_fault_after_the_rename_leaves_a_catalogue_whose_images_exist() {
    let fixture = Fixture::new();
    fixture.publish(&["a.service"]).unwrap();
    {
        let _armed = fault::arm("catalogue.sync.dir");
        fixture.publish(&["a.service"]).unwrap_err();
    }
    assert_eq!(fixture.ids(), [1, 2]);
    let catalogue = fixture.store.load().unwrap();
    fixture.store.open_image(catalogue.newest("a.service").unwrap().1).unwrap();
}

#[test]
fn leftovers_of_a_crash_are_skipped_and_removed_by_the_next_commit() {
    let fixture = Fixture::new();
    fixture.publish(&["a.service"]).unwrap();
    // What a crash between the images and the catalogue's rename leaves.
    let root = fixture.store.root();
    fs::create_dir(root.join("images/2")).unwrap();
    fs::write(root.join("images/2/a.service.img"), "half").unwrap();
    fs::write(root.join("images/2/.fastboot-tmp-01"), "half").unwrap();
    fs::write(root.join(".fastboot-tmp-02"), "half").unwrap();
    assert_eq!(fixture.ids(), [1]);
    assert_eq!(fixture.publish(&["a.service"]).unwrap().id, 3);
    assert_eq!(fixture.files(), ["1/a.service.img", "3/a.service.img"]);
    assert_eq!(names_in(root), ["catalogue.json", "images", "lock"]);
}

#[test]
fn an_abort_at_any_commit_step_leaves_a_usable_store() {
    // The crash happens in a child: this same test, told what to do by its environment.
    if let Some(dir) = std::env::var_os("FASTBOOT_TEST_CRASH_DIR") {
        let store = Store::open(&dir);
        let pending = store.begin_generation().unwrap();
        let info = write_image(&pending.image_path("a.service").unwrap(), 1);
        let relative = pending.relative_path("a.service").unwrap();
        let root = Path::new(&dir).parent().unwrap().join("root");
        pending.commit(vec![entry(&root, "a.service", relative, &info)]).unwrap();
        unreachable!("the fault point aborts");
    }
    for (point, ids) in [
        ("image.rename", vec![1]),
        ("catalogue.write", vec![1]),
        ("catalogue.rename", vec![1]),
        ("catalogue.sync.dir", vec![1, 2]),
    ] {
        let fixture = Fixture::new();
        fixture.publish(&["a.service"]).unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "an_abort_at_any_commit_step_leaves_a_usable_store"])
            .env("FASTBOOT_TEST_CRASH_DIR", fixture.store.root())
            .env(fault::ENV, format!("{point}:abort"))
            .output()
            .unwrap();
        assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{point}");
        assert_eq!(fixture.ids(), ids, "{point}");
        let catalogue = fixture.store.load().unwrap();
        fixture.store.open_image(catalogue.newest("a.service").unwrap().1).unwrap();
        fixture.publish(&["a.service"]).unwrap();
        assert_eq!(fixture.files().len(), 2, "{point}: {:?}", fixture.files());
    }
}

#[test]
fn one_flipped_bit_anywhere_in_the_catalogue_is_detected() {
    let fixture = Fixture::new();
    fixture.publish(&["a.service"]).unwrap();
    let path = fixture.store.catalogue_path();
    let good = fs::read(&path).unwrap();
    for offset in 0..good.len() {
        let mut bytes = good.clone();
        bytes[offset] ^= 1 << (offset % 8);
        let error = Catalogue::decode(&bytes, &path).expect_err(&format!("byte {offset}"));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {offset}");
    }
    for len in 0..good.len() {
        assert!(Catalogue::decode(&good[..len], &path).is_err());
    }
    // It is plain JSON for everybody else.
    let json: serde_json::Value = serde_json::from_slice(&good).unwrap();
    assert_eq!(json["catalogue"]["generations"][0]["images"][0]["unit"], "a.service");
}

#[test]
fn a_damaged_catalogue_stops_a_snapshot_until_it_is_set_aside() {
    let fixture = Fixture::new();
    fixture.publish(&["a.service", "b.service"]).unwrap();
    fs::write(fixture.store.catalogue_path(), "{}").unwrap();
    assert_eq!(fixture.publish(&["a.service"]).unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(fixture.store.set_aside_damaged_catalogue().unwrap().is_some());
    assert!(fixture.files().is_empty(), "nobody can use them");
    assert!(fixture.store.set_aside_damaged_catalogue().unwrap().is_none());
    assert_eq!(fixture.publish(&["a.service"]).unwrap().id, 2);
    assert_eq!(fixture.files(), ["2/a.service.img"]);
}

#[test]
fn two_snapshots_cannot_hold_the_lock() {
    let fixture = Fixture::new();
    let lock = fixture.store.lock().unwrap();
    let refused = fixture.store.lock().unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }));
    assert!(refused.to_string().ends_with(&format!("(PID {})", std::process::id())), "{refused}");
    drop(lock);
    fixture.store.lock().unwrap();
}

#[test]
fn a_commit_refuses_entries_that_are_not_what_they_say() {
    let fixture = Fixture::new();
    let attempt = |change: fn(&mut image_store::CatalogueEntry)| {
        let pending = fixture.store.begin_generation().unwrap();
        let info = write_image(&pending.image_path("a.service").unwrap(), 1);
        let mut entry =
            entry(&fixture.root(), "a.service", pending.relative_path("a.service").unwrap(), &info);
        change(&mut entry);
        pending.commit(vec![entry]).expect_err("entry was wrong")
    };
    attempt(|entry| entry.file = "../../etc/passwd".to_owned());
    attempt(|entry| entry.file = "/etc/passwd".to_owned());
    attempt(|entry| entry.unit = "b.service".to_owned());
    attempt(|entry| entry.len_bytes += 1);
    attempt(|entry| entry.image_id = image_store::ImageId([0; 16]));
    assert_eq!(fixture.files(), [""; 0]);
    let pending = fixture.store.begin_generation().unwrap();
    for name in ["", "..", "../x", "a/b.service", ".hidden", "a b.service", "ü.service"] {
        assert!(pending.image_path(name).is_err(), "{name:?}");
    }
    let long = format!("{}.service", "x".repeat(247));
    write_image(&pending.image_path(&long).unwrap(), 1);
    assert!(pending.image_path(r"dev-disk-by\x2duuid@a:b.service").is_ok());
}

#[test]
fn a_missing_or_exchanged_image_is_named() {
    let fixture = Fixture::new();
    fixture.publish(&["a.service", "b.service"]).unwrap();
    let catalogue = fixture.store.load().unwrap();
    let [a, b] = ["a.service", "b.service"].map(|unit| catalogue.newest(unit).unwrap().1);
    fs::rename(fixture.store.image_file(a), fixture.store.image_file(b)).unwrap();
    let reason = |entry| fixture.store.open_image(entry).unwrap_err().to_stale_reason().code;
    assert_eq!(reason(a), ReasonCode::ImageMissing);
    assert_eq!(reason(b), ReasonCode::ImageCorrupt);
}

#[test]
fn an_image_is_quarantined_after_two_boots_not_after_two_failures() {
    let fixture = Fixture::new();
    let generation = fixture.publish(&["a.service"]).unwrap();
    let (store, image) = (&fixture.store, generation.images[0].image_id);
    assert_eq!(store.is_quarantined(image).unwrap(), None);
    for _ in 0..3 {
        assert_eq!(store.record_failure(image, "boot-1", &failure()).unwrap().count, 1);
    }
    assert_eq!(store.is_quarantined(image).unwrap(), None);
    store.record_failure(image, "boot-2", &failure()).unwrap();
    let record = store.is_quarantined(image).unwrap().expect("failed in two boots");
    assert_eq!(record.to_stale_reason().code, ReasonCode::ImageQuarantined);
    assert_eq!(
        record.to_stale_reason().sentence,
        "image failed in 2 boots, last: worker ended with signal 9"
    );
    // A final record is not forgotten by a good boot, only by a new image or on request.
    store.mark_boot_ok(image).unwrap();
    assert!(store.is_quarantined(image).unwrap().is_some());
    store.forget_failures(image).unwrap();
    assert_eq!(store.is_quarantined(image).unwrap(), None);
}

#[test]
fn a_good_boot_forgets_one_failure_and_a_new_image_starts_clean() {
    let fixture = Fixture::new();
    let image = fixture.publish(&["a.service"]).unwrap().images[0].image_id;
    let store = &fixture.store;
    store.record_failure(image, "boot-1", &failure()).unwrap();
    store.mark_boot_ok(image).unwrap();
    store.record_failure(image, "boot-2", &failure()).unwrap();
    assert_eq!(store.is_quarantined(image).unwrap(), None);
    assert!(store.quarantine(image, "boot-2", &failure()).unwrap().is_final());
    assert!(store.record_failure(image, "boot-3", &failure()).unwrap().outright);
    fixture.publish(&["a.service"]).unwrap();
    assert!(store.is_quarantined(image).unwrap().is_some(), "the previous generation still has it");
    fixture.publish(&["a.service"]).unwrap();
    assert_eq!(names_in(&store.root().join("quarantine")), [""; 0]);
}

#[test]
fn a_damaged_quarantine_record_counts_as_final() {
    let fixture = Fixture::new();
    let image = fixture.publish(&["a.service"]).unwrap().images[0].image_id;
    fixture.store.record_failure(image, "boot-1", &failure()).unwrap();
    fs::write(fixture.store.root().join(format!("quarantine/{image}.json")), "{").unwrap();
    assert!(fixture.store.is_quarantined(image).unwrap().is_some());
}

#[test]
fn an_image_is_opened_without_links_and_only_if_nobody_else_may_write_to_it() {
    let fixture = Fixture::new();
    let entry = fixture.publish(&["a.service"]).unwrap().images.remove(0);
    let path = fixture.store.image_file(&entry);
    let is_refused = |why: &str| {
        let error = fixture.store.open_image(&entry).expect_err(why);
        assert!(matches!(error, Error::Io { .. }), "{why}: {error}");
    };
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    fixture.store.open_image(&entry).unwrap();
    mode(&path, 0o620);
    is_refused("the image may be written by its group");
    mode(&path, 0o600);
    mode(fixture.store.root(), 0o777);
    is_refused("the store may be written by everybody");
    mode(fixture.store.root(), 0o700);
    fixture.store.open_image(&entry).unwrap();
    // The same file behind a link, as itself and as a directory above it.
    let elsewhere = fixture.dir.path().join("elsewhere.img");
    fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    is_refused("the image is a link");
    fs::remove_file(&path).unwrap();
    fs::rename(&elsewhere, &path).unwrap();
    let generation = path.parent().unwrap();
    let moved = fixture.dir.path().join("generation");
    fs::rename(generation, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, generation).unwrap();
    is_refused("the directory of the image is a link");
}

#[test]
fn an_image_that_is_written_to_while_in_use_is_noticed() {
    let fixture = Fixture::new();
    let entry = fixture.publish(&["a.service"]).unwrap().images.remove(0);
    let image = fixture.store.open_image(&entry).unwrap();
    let stamp = image.stamp();
    image.require_unwritten_since(stamp).unwrap();
    // A newer image that takes its name away is no write to it.
    fs::rename(fixture.store.image_file(&entry), fixture.dir.path().join("moved")).unwrap();
    image.require_unwritten_since(stamp).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let file = fs::OpenOptions::new().write(true).open(fixture.dir.path().join("moved")).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"x", 5000).unwrap();
    assert_eq!(image.require_unwritten_since(stamp).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn all_images_can_be_removed_and_numbers_are_not_given_out_again() {
    let fixture = Fixture::new();
    fixture.publish(&["a.service", "b.service"]).unwrap();
    fixture.publish(&["a.service"]).unwrap();
    fixture.store.remove_all().unwrap();
    assert!(fixture.files().is_empty() && fixture.store.load().unwrap().units().is_empty());
    assert!(!fixture.store.catalogue_path().exists());
    fixture.store.remove_all().unwrap();
    assert_eq!(fixture.publish(&["a.service"]).unwrap().id, 3);
}

#[test]
fn what_a_killed_snapshot_has_left_is_counted_and_swept() {
    let fixture = Fixture::new();
    fixture.publish(&["a.service"]).unwrap();
    assert_eq!(fixture.store.leftover_bytes().unwrap(), 0);
    // As after a kill: the generation is neither committed nor dropped.
    let pending = std::mem::ManuallyDrop::new(fixture.store.begin_generation().unwrap());
    let info = write_image(&pending.image_path("b.service").unwrap(), 1);
    assert_eq!(fixture.store.leftover_bytes().unwrap(), info.len_bytes);
    fixture.store.sweep().unwrap();
    assert_eq!(fixture.store.leftover_bytes().unwrap(), 0);
    assert_eq!(fixture.files(), ["1/a.service.img"]);
    assert_eq!(fixture.publish(&["a.service"]).unwrap().id, 3, "a number is not given out again");
}

#[test]
fn a_store_that_others_may_write_to_is_not_used() {
    let fixture = Fixture::new();
    fixture.publish(&["a.service"]).unwrap();
    fs::set_permissions(fixture.store.root(), fs::Permissions::from_mode(0o755)).unwrap();
    fixture.store.require_trust().unwrap();
    fs::set_permissions(fixture.store.root(), fs::Permissions::from_mode(0o775)).unwrap();
    fixture.store.require_trust().unwrap_err();
    let refused = fixture.store.lock().unwrap_err();
    assert!(refused.to_string().contains("mode 775"), "{refused}");
}
