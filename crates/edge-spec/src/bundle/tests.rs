//! Bundles that are whole, damaged, and made to do harm.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::zip::{Entry, Layout};
use super::*;
use crate::SpecError;

fn run(component: &str) -> GoldenRun {
    GoldenRun { component: component.into(), inputs: Vec::new(), outputs: Vec::new(), min_sqnr_db: 40.0 }
}

fn manifest() -> BundleManifest {
    BundleManifest {
        schema: BUNDLE_SCHEMA.into(),
        producer: "edgetool".into(),
        target: BundleTarget { name: "qnn".into(), file: "target.yaml".into(), device: Some("sm8650".into()) },
        verified: Verified::Source,
        report: "report.json".into(),
        licence: Vec::new(),
        tokenizer: "model/tokenizer".into(),
        pipeline: Pipeline {
            height: 64,
            width: 64,
            batch: 1,
            latent_channels: 4,
            vae_scale_factor: 8,
            vae_scaling_factor: 1.0,
            taesd_scaling_factor: None,
            guidance_embedding: None,
        },
        fold: None,
        sampler: BundleSampler {
            steps: Vec::new(),
            guidance: 1.0,
            noise: NoiseContract { generator: "torch".into(), draws: vec!["latent".into()], shape: vec![1, 4, 8, 8] },
        },
        components: Vec::new(),
        compiled: None,
        golden: Golden {
            prompt: "a cat".into(),
            seed: 0,
            picture: "golden/picture.png".into(),
            runs: vec![run("unet")],
            pipeline: run("pipeline"),
        },
        files: Vec::new(),
    }
}

fn contents() -> Contents {
    let large: Vec<u8> = (0..70_000_u32).map(|i| i.to_le_bytes()[i as usize % 3]).collect();
    let files: [(&str, &[u8]); 5] = [
        ("model/unet/model.onnx", b"graph"),
        ("model/unet/model.onnx_data", &large),
        ("qnn/compile.sh", b"#!/bin/sh\n"),
        ("readme", b""),
        ("zzzzzz", b"last"),
    ];
    files.into_iter().map(|(name, bytes)| (name.to_owned(), Content::Bytes(bytes.to_vec()))).collect()
}

struct Made {
    dir: TempDir,
    bytes: Vec<u8>,
}

impl Made {
    fn new(edit: impl FnOnce(&mut BundleManifest)) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut manifest, contents) = (manifest(), contents());
        let measures = list(&mut manifest, &contents, &std::collections::BTreeMap::new()).expect("listed");
        edit(&mut manifest);
        let path = dir.path().join("b.zip");
        write(&path, &manifest, Some("signature"), &contents, &measures).expect("written");
        Self { bytes: std::fs::read(&path).expect("read"), dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("b.zip")
    }

    fn open(&self, bytes: &[u8]) -> Result<Bundle, SpecError> {
        std::fs::write(self.path(), bytes).expect("written");
        Bundle::open(&self.path())
    }

    /// What is said of the bundle with other bytes.
    #[track_caller]
    fn refuses(&self, bytes: &[u8], expect: &str) {
        let error = self.open(bytes).expect_err("a bad bundle").to_string();
        let (_, reason) = error.split_once("` is not a bundle: ").expect("its kind");
        assert_eq!(reason, expect);
    }

    /// Replaces a name in both its headers by one of the same length.
    fn renamed(&self, from: &str, to: &str) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        // The manifest, which also has the name, is left alone: the quotes around it are not there in headers.
        let mut bytes = self.bytes.clone();
        for at in 1..bytes.len() - from.len() {
            if bytes[at..].starts_with(from.as_bytes()) && bytes[at - 1] != b'"' {
                bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            }
        }
        bytes
    }

    /// Where the directory's entry of a file starts.
    fn entry(&self, name: &str) -> usize {
        let starts = |at: &usize| {
            self.bytes[*at..].starts_with(b"PK\x01\x02") && self.bytes[at + 46..].starts_with(name.as_bytes())
        };
        (0..self.bytes.len() - 46).find(starts).expect("an entry")
    }
}

#[test]
fn a_bundle_is_read_as_it_was_written() {
    let made = Made::new(|_| {});
    assert_eq!(Made::new(|_| {}).bytes, made.bytes);
    let bundle = Bundle::open(&made.path()).expect("a bundle");
    assert_eq!(bundle.check().expect("readable"), []);
    assert_eq!(bundle.signature().expect("readable").as_deref(), Some("signature"));
    assert_eq!(bundle.manifest_bytes(), bundle.manifest().text().as_bytes());
    let names: Vec<&str> = bundle.names().collect();
    assert_eq!(names[..2], ["manifest.json", "manifest.json.minisig"]);
    let out = made.dir.path().join("out");
    std::fs::create_dir(&out).expect("a folder");
    bundle.extract(&out, &|name| name.starts_with("model/")).expect("extracted");
    for (name, content) in contents() {
        let Content::Bytes(expected) = content else { panic!("in memory") };
        assert_eq!(std::fs::read(out.join(&name)).ok(), name.starts_with("model/").then_some(expected), "{name}");
    }
}

#[test]
fn files_lie_where_they_can_be_mapped() {
    let made = Made::new(|_| {});
    let find = |bytes: &[u8]| made.bytes.windows(bytes.len()).position(|w| w == bytes).expect("its content");
    let Content::Bytes(large) = &contents()["model/unet/model.onnx_data"] else { panic!("in memory") };
    assert_eq!(find(large) % (1 << 14), 0);
    assert_eq!(find(b"#!/bin/sh\n") % 64, 0);
}

/// Each byte of a bundle is changed, and every change is found; in a file's content, the file is named.
#[test]
fn a_flipped_byte_is_found_and_named() {
    let made = Made::new(|_| {});
    let bundle = Bundle::open(&made.path()).expect("a bundle");
    let entries: Vec<Entry> = measures(&bundle);
    let layout = Layout::new(&entries);
    let owner = |at: usize| {
        let inside = |(place, entry): &(&super::zip::Place, &Entry)| {
            (place.content()..place.content() + entry.size).contains(&(at as u64))
        };
        layout.places.iter().zip(&entries).find(inside).map(|(_, entry)| entry.name.clone())
    };
    let mut named = 0;
    // The large file's inside is tried at some places, all else at each.
    let mapped = layout.places[3].content();
    let skip = |at: &usize| (mapped + 99..mapped + 69_900).contains(&(*at as u64)) && !at.is_multiple_of(997);
    let file = File::options().write(true).open(made.path()).expect("the bundle");
    for at in (0..made.bytes.len()).filter(|at| !skip(at)) {
        let put = |byte: u8| file.write_all_at(&[byte], at as u64).expect("written");
        put(made.bytes[at] ^ 1 << (at % 8));
        let said = match Bundle::open(&made.path()) {
            Err(error) => error.to_string(),
            Ok(bundle) => {
                let damage = bundle.check().expect("readable");
                assert_eq!(damage.len(), 1, "byte {at}: {damage:?}");
                format!("`{}` {}", damage[0].name, damage[0].reason)
            }
        };
        put(made.bytes[at]);
        if let Some(name) = owner(at) {
            assert!(said.contains(&format!("`{name}` has the ")), "byte {at} of `{name}`: {said}");
            named += 1;
        }
    }
    assert!(named > 2_000, "{named}");
}

fn measures(bundle: &Bundle) -> Vec<Entry> {
    let mut contents = contents();
    contents.insert(BUNDLE_MANIFEST.into(), Content::Bytes(bundle.manifest_bytes().to_vec()));
    contents.insert(SIGNATURE.into(), Content::Bytes(b"signature".to_vec()));
    let entry = |(name, content): (&String, &Content)| {
        let Measure { size, crc32, .. } = content.measure().expect("in memory");
        Entry { name: name.clone(), size, crc32 }
    };
    contents.iter().map(entry).collect()
}

#[test]
fn every_cut_is_refused() {
    let made = Made::new(|_| {});
    let end = made.bytes.len();
    for len in (0..400).chain(end - 900..end) {
        assert!(made.open(&made.bytes[..len]).is_err(), "{len} of {end} bytes");
    }
    made.refuses(
        &made.bytes[..end - 1],
        "it does not end as a zip file without a comment does: cut off, or something else",
    );
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let made = Made::new(|_| {});
    for (to, expect) in [
        ("/zzzzz", "the name `/zzzzz` is absolute"),
        ("../zzz", "the name `../zzz` has the part `..`, which leads elsewhere"),
        ("z/../z", "the name `z/../z` has the part `..`, which leads elsewhere"),
        (
            "z\\..\\z",
            "the name `z\\\\..\\\\z` has the character '\\\\', expected letters, digits, and any of `._-+=@/`",
        ),
        ("zzzzz/", "the name `zzzzz/` is a folder's, expected files alone"),
        ("readme", "`readme` is there twice"),
        ("README", "`README` and `readme` are one file"),
        ("aaaaaa", "`aaaaaa` stands after `readme`, expected names in order"),
        ("zzzzzy", "`manifest.json` lists `zzzzzz`, which is not there"),
    ] {
        made.refuses(&made.renamed("zzzzzz", to), expect);
    }
}

#[test]
fn links_and_compressed_files_are_refused() {
    let made = Made::new(|_| {});
    let at = made.entry("zzzzzz");
    let with = |field: usize, value: &[u8]| {
        let mut bytes = made.bytes.clone();
        bytes[at + field..at + field + value.len()].copy_from_slice(value);
        bytes
    };
    made.refuses(&with(40, &0o120_777_u16.to_le_bytes()), "`zzzzzz` is a link, expected files alone");
    made.refuses(&with(40, &0o060_644_u16.to_le_bytes()), "`zzzzzz` has the Unix mode 60644, expected a file's");
    made.refuses(
        &with(40, &0o100_755_u16.to_le_bytes()),
        "the directory's entry of `zzzzzz` is not as a bundle has it",
    );
    made.refuses(&with(8, &[1]), "`zzzzzz` is encrypted");
    made.refuses(&with(10, &[8]), "`zzzzzz` is compressed by method 8, expected stored files alone");
    let bomb = "`zzzzzz` has 4 bytes that are to become 4294967294, expected the same";
    made.refuses(&with(24, &0xffff_fffe_u32.to_le_bytes()), bomb);
}

#[test]
fn lying_sizes_are_refused() {
    let made = Made::new(|_| {});
    let mut bytes = made.bytes.clone();
    let at = made.entry("zzzzzz");
    bytes[at + 20] = 5;
    bytes[at + 24] = 5;
    let (whole, one) = (bytes.len(), bytes.len() + 1);
    made.refuses(
        &bytes,
        &format!("sizes do not add up: its files and their headers would make it {one} bytes, and it has {whole}"),
    );
    let count = whole - 12;
    let mut bytes = made.bytes.clone();
    bytes[count] += 1;
    made.refuses(&bytes, "byte 10 of the records at its end is wrong");
    let shifted = [b"MZ".as_slice(), &made.bytes].concat();
    assert!(made.open(&shifted).is_err());
    // A directory that the end record puts at the very start of a large file is not read into memory.
    let mut file = File::create(made.path()).expect("a file");
    file.set_len(1 << 33).expect("a sparse file");
    let mut end = made.bytes[whole - 22..].to_vec();
    end[16..20].fill(0);
    file.seek(SeekFrom::End(-22)).expect("its end");
    file.write_all(&end).expect("written");
    let error = Bundle::open(&made.path()).expect_err("a bad bundle").to_string();
    assert!(error.ends_with("its directory has 8589934592 bytes, at most 3000000"), "{error}");
}

#[test]
fn too_many_files_are_refused() {
    let entry = |i: usize| Entry { name: format!("{i:05}"), size: 0, crc32: 0 };
    let layout = Layout::new(&(0..=ENTRIES).map(entry).collect::<Vec<_>>());
    let made = Made::new(|_| {});
    sparse(&made.path(), &layout);
    let error = Bundle::open(&made.path()).expect_err("a bad bundle").to_string();
    assert!(error.ends_with("it has more than 10000 files"), "{error}");
}

#[test]
fn the_manifest_lists_what_is_there() {
    let check = |edit: fn(&mut BundleManifest), expect: &str| {
        let made = Made::new(edit);
        made.refuses(&made.bytes, expect);
    };
    check(|m| drop(m.files.pop()), "`zzzzzz` is there, and `manifest.json` does not list it");
    check(|m| m.files[0].size += 1, "`model/unet/model.onnx` has 5 bytes, `manifest.json` says 6");
    check(|m| m.files.swap(0, 1), "`manifest.json` does not list its files in order, each once");
    check(|m| m.files[4].path = "zzzzzz2".into(), "`manifest.json` lists `zzzzzz2`, which is not there");
    check(
        |m| m.schema = "edgetool-bundle/v2".into(),
        "`manifest.json`: field `schema` is `edgetool-bundle/v2`, supported: edgetool-bundle/v1",
    );
    let made = Made::new(|m| m.files[0].sha256 = "0".repeat(64));
    let damage = Bundle::open(&made.path()).expect("a bundle").check().expect("readable");
    assert_eq!(damage.len(), 1);
    assert!(damage[0].reason.ends_with(&format!(", expected {}", "0".repeat(64))), "{damage:?}");
}

#[test]
fn what_cannot_be_in_a_bundle_is_not_packed() {
    let pack = |names: &[&str]| {
        let contents = names.iter().map(|n| ((*n).to_owned(), Content::Bytes(Vec::new()))).collect();
        list(&mut manifest(), &contents, &std::collections::BTreeMap::new()).expect_err("bad names").to_string()
    };
    assert_eq!(pack(&["../x"]), "`../x` cannot be in a bundle: the name has the part `..`, which leads elsewhere");
    assert_eq!(pack(&["a", "A"]), "the files cannot be in one bundle: `A` and `a` are one file");
    assert_eq!(pack(&["manifest.json"]), "the files cannot be in one bundle: `manifest.json` is there twice");
}

/// Headers and directory of `layout` in a file whose contents are all holes.
fn sparse(path: &Path, layout: &Layout) {
    let mut file = File::create(path).expect("a file");
    for place in &layout.places {
        file.seek(SeekFrom::Start(place.offset)).expect("its place");
        file.write_all(&place.header).expect("written");
    }
    file.seek(SeekFrom::Start(layout.directory)).expect("its place");
    file.write_all(&layout.end).expect("written");
}

/// Sizes and offsets around 4 GiB are written and read in the fields that hold them.
#[test]
fn four_gibibytes_are_no_border() {
    let made = Made::new(|_| {});
    let limit = u64::from(u32::MAX);
    for (size, records) in [(limit - 1, 22), (limit, 98), (limit + 1, 98), (3 * limit, 98)] {
        let mut manifest = manifest();
        let file = |path: &str, size| BundleFile { path: path.into(), size, sha256: "0".repeat(64) };
        manifest.files = vec![file("a", 10), file("b", size), file("n", size), file("z", 3)];
        let text = manifest.text().into_bytes();
        let entry = |name: &str, size, crc32| Entry { name: name.into(), size, crc32 };
        let crc32 = crc32fast::hash(&text);
        let entries = [
            entry("a", 10, 0),
            entry("b", size, 0),
            entry("manifest.json", text.len() as u64, crc32),
            entry("n", size, 0),
            entry("z", 3, 0),
        ];
        let layout = Layout::new(&entries);
        assert_eq!(layout.end.len() - layout.directory_size, if size == limit - 1 { 98 } else { records });
        sparse(&made.path(), &layout);
        let mut out = File::options().write(true).open(made.path()).expect("a file");
        out.seek(SeekFrom::Start(layout.places[2].content())).expect("its place");
        out.write_all(&text).expect("written");
        let bundle = Bundle::open(&made.path()).expect("a bundle");
        assert_eq!(bundle.manifest().files, manifest.files);
        // The same with the directory's offset off by one.
        out.seek(SeekFrom::Start(layout.directory + layout.directory_size as u64 + 48)).expect("its place");
        out.write_all(&(layout.directory + 1).to_le_bytes()).expect("written");
        assert!(Bundle::open(&made.path()).is_err());
    }
}
