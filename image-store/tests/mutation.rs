//! Random damage: whatever the bytes are, opening and decoding answers, and never panics or
//! allocates without bound.
//!
//! `exercise` is the whole surface that untrusted bytes reach, and the fuzz targets drive the same
//! functions. The number of rounds is bounded for ordinary runs; `FASTBOOT_MUTATIONS` sets another.

mod common;
mod exercise;

use std::fs;

use common::{Random, entry, evidence, make_root, pages, write_image};
use image_store::layout::{HEADER_LEN, checksum};
use image_store::{Catalogue, Durability, EvidenceV2, Generation, ImageWriter, SectionKind};

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        // Most fields are near the start of the header and in the tail; aim there more often than
        // at pages.
        let at = match random.below(3) {
            0 => at % 112.min(bytes.len()),
            1 => bytes.len() - 1 - at % 800.min(bytes.len()),
            _ => at,
        };
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => {
                let interesting = [0, 1, 4095, 4096, u64::from(u32::MAX), 1 << 43, i64::MAX as u64, u64::MAX];
                let value = interesting[random.below(interesting.len())].to_le_bytes();
                let len = 8.min(bytes.len() - at);
                bytes[at..at + len].copy_from_slice(&value[..len]);
            }
            3 => bytes.truncate(at.max(1)),
            4 => bytes.extend_from_slice(&random.next().to_le_bytes()[..1 + random.below(8)]),
            _ => {
                let by = random.below(16) % bytes.len();
                bytes.rotate_left(by);
            }
        }
    }
}

/// Make the checksums right again, so that the rules behind them are reached.
fn repair(bytes: &mut [u8]) {
    if bytes.len() < HEADER_LEN {
        return;
    }
    let (len, table_at) = (bytes.len() as u64, u64::from_le_bytes(bytes[80..88].try_into().unwrap()));
    if (HEADER_LEN as u64..=len).contains(&table_at) {
        let sum = checksum(&bytes[table_at as usize..]);
        bytes[96..104].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = checksum(&bytes[..HEADER_LEN - 8]);
    bytes[HEADER_LEN - 8..HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
}

fn rounds(default: u64) -> u64 {
    std::env::var("FASTBOOT_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_mutated_image_makes_a_reader_panic() {
    let dir = tempfile::tempdir().unwrap();
    make_root(dir.path());
    let path = dir.path().join("a.img");
    let mut writer = ImageWriter::create(&path).unwrap();
    writer.append_pages(&pages(2, 5)).unwrap();
    writer
        .add_section(SectionKind::EVIDENCE, EvidenceV2::VERSION, &evidence(dir.path()).encode(&path).unwrap())
        .unwrap();
    writer.add_section(SectionKind::STATE, 1, &common::STATE.repeat(4)).unwrap();
    writer.finish(Durability::NoSync).unwrap();
    let good = fs::read(&path).unwrap();
    assert!(exercise::image(&good));
    for seed in 1..=rounds(4000) {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bytes = good.clone();
        mutate(&mut bytes, &mut random);
        if random.below(4) > 0 {
            repair(&mut bytes);
        } else if bytes != good {
            assert!(!exercise::image(&bytes), "seed {seed}: damage was not noticed");
        }
        exercise::image(&bytes);
    }
}

#[test]
fn no_mutated_evidence_or_catalogue_makes_a_decoder_panic() {
    let dir = tempfile::tempdir().unwrap();
    make_root(dir.path());
    let path = dir.path().join("a.img");
    let info = write_image(&path, 1);
    let encoded_evidence = evidence(dir.path()).encode(&path).unwrap();
    let images = vec![entry(dir.path(), "a.service", "images/1/a.service.img".to_owned(), &info)];
    let catalogue =
        Catalogue { format: 1, generations: vec![Generation { id: 1, created_unix_s: 1, images }] };
    let encoded_catalogue = catalogue.encode(&path).unwrap();
    assert_eq!(Catalogue::decode(&encoded_catalogue, &path).unwrap(), catalogue);
    assert!(exercise::catalogue(&encoded_catalogue) && exercise::evidence(&encoded_evidence));
    for seed in 1..=rounds(4000) {
        let mut random = Random(seed);
        let mut bytes = encoded_evidence.clone();
        mutate(&mut bytes, &mut random);
        exercise::evidence(&bytes);
        let mut bytes = encoded_catalogue.clone();
        mutate(&mut bytes, &mut random);
        if bytes != encoded_catalogue {
            assert!(!exercise::catalogue(&bytes), "seed {seed}");
        }
    }
}

/// The digest of a catalogue keeps damage away from what it holds; behind it the text is whatever
/// somebody has written.
#[test]
fn no_mutated_text_behind_a_right_digest_makes_the_decoder_of_catalogues_panic() {
    let dir = tempfile::tempdir().unwrap();
    make_root(dir.path());
    let path = dir.path().join("a.img");
    let info = write_image(&path, 1);
    let images = vec![entry(dir.path(), "a.service", "images/1/a.service.img".to_owned(), &info)];
    let catalogue =
        Catalogue { format: 1, generations: vec![Generation { id: 1, created_unix_s: 1, images }] };
    let text = serde_json::to_vec(&catalogue).unwrap();
    let sealed = |text: &[u8]| {
        let digest = image_store::Digest::of(text);
        [format!("{{\"blake3\":\"{digest}\",\"catalogue\":").as_bytes(), text, b"}\n"].concat()
    };
    assert!(exercise::catalogue(&sealed(&text)));
    let mut refused = 0;
    for seed in 1..=rounds(4000) {
        let mut random = Random(seed);
        let mut bytes = text.clone();
        mutate(&mut bytes, &mut random);
        refused += u64::from(!exercise::catalogue(&sealed(&bytes)));
    }
    assert!(refused > rounds(4000) / 2, "{refused}");
}
