//! What a crate may depend on.

use super::tree::Tree;

/// Each crate of the workspace and those that it may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("edge-ir", &[]),
    ("edge-spec", &[]),
    ("edge-lcm", &[]),
    ("edge-import", &["edge-ir"]),
    ("edge-passes", &["edge-ir", "edge-lcm", "edge-spec"]),
    ("edge-run", &["edge-ir", "edge-lcm"]),
    ("edge-onnxruntime", &["edge-ir"]),
    ("edge-quant", &["edge-ir", "edge-spec"]),
    ("edge-verify", &["edge-ir", "edge-spec"]),
    ("edge-package", &["edge-ir", "edge-spec"]),
    (
        "edgetool",
        &[
            "edge-ir",
            "edge-spec",
            "edge-lcm",
            "edge-import",
            "edge-passes",
            "edge-run",
            "edge-onnxruntime",
            "edge-quant",
            "edge-verify",
            "edge-package",
        ],
    ),
    ("xtask", &[]),
];

/// Outside crates, by the start of their names, and who may depend on them, tests aside. A start ends in `-` if it is no whole name.
const OWNERS: &[(&str, &[&str])] = &[
    ("anyhow", &["edgetool", "xtask"]),
    ("base64", &["edge-spec", "edge-verify"]),
    ("clap", &["edgetool"]),
    ("crc32fast", &["edge-spec"]),
    ("ed25519-compact", &["edge-spec"]),
    ("indicatif", &["edgetool"]),
    ("minijinja", &["edge-verify"]),
    ("minisign-verify", &["edge-spec"]),
    ("ort", &["edge-onnxruntime"]),
    ("png", &["edge-run"]),
    ("prost", &["edge-ir"]),
    ("prost-", &["xtask"]),
    ("protox", &["xtask"]),
    ("safetensors", &["edge-import", "edge-run", "edgetool"]),
    ("serde_yaml", &["edge-spec"]),
    ("ssimulacra2", &["edge-verify"]),
    ("tokenizers", &["edge-run"]),
    ("tract-", &["edge-run"]),
];

/// Packages that open connections, or that only such packages need.
const NETWORK: &[&str] = &[
    "attohttpc",
    "curl",
    "h2",
    "h3",
    "hf-hub",
    "hyper",
    "isahc",
    "minreq",
    "native-tls",
    "openssl",
    "quinn",
    "reqwest",
    "rustls",
    "socket2",
    "surf",
    "tokio",
    "tungstenite",
    "ureq",
];

/// Stages do not know one another; their tests may.
pub(super) fn directions(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, name, text) in manifests(tree) {
        let Some((_, allowed)) = CRATES.iter().find(|(known, _)| *known == name) else {
            problems.push(format!("{path}: `{name}` has no row in CRATES of xtask/src/tidy/layers.rs"));
            continue;
        };
        let ours =
            dependencies(text).into_iter().filter(|d| !d.in_tests && CRATES.iter().any(|(known, _)| *known == d.name));
        for Dependency { line, name: dependency, .. } in ours.filter(|d| !allowed.contains(&d.name.as_str())) {
            problems.push(format!("{path}:{line}: `{name}` must not depend on `{dependency}`"));
        }
    }
    problems
}

/// What one crate knows, the others do not.
pub(super) fn owners(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, name, text) in manifests(tree) {
        for Dependency { line, name: dependency, .. } in dependencies(text).into_iter().filter(|d| !d.in_tests) {
            let fits = |start: &str| dependency == start || (start.ends_with('-') && dependency.starts_with(start));
            let Some((_, allowed)) = OWNERS.iter().find(|(start, _)| fits(start)) else { continue };
            if !allowed.contains(&name) {
                let owners = allowed.join(", ");
                problems.push(format!("{path}:{line}: `{name}` must not depend on `{dependency}`, only {owners} may"));
            }
        }
    }
    problems
}

/// Nothing can open a connection.
pub(super) fn network(tree: &Tree) -> Vec<String> {
    let lock = tree.text("Cargo.lock").unwrap_or_default();
    let names = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    names.filter(|name| NETWORK.contains(name)).map(|name| format!("Cargo.lock: `{name}` opens connections")).collect()
}

/// A reader finds each crate.
pub(super) fn described(tree: &Tree) -> Vec<String> {
    let text = tree.text("ARCHITECTURE.md").unwrap_or_default();
    let missing = manifests(tree).into_iter().filter(|(_, name, _)| !text.contains(&format!("`{name}`")));
    missing.map(|(_, name, _)| format!("ARCHITECTURE.md: says nothing of `{name}`")).collect()
}

/// Path, package name and content of each crate's manifest.
fn manifests(tree: &Tree) -> Vec<(&str, &str, &str)> {
    let package = |(path, text)| {
        let folder = str::strip_suffix(path, "/Cargo.toml")?;
        Some((path, folder.rsplit('/').next().unwrap_or(folder), text))
    };
    tree.texts("Cargo.toml").filter_map(package).collect()
}

/// A dependency of the program, of its tests or of its build, on any target.
struct Dependency {
    line: usize,
    name: String,
    in_tests: bool,
}

fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut found = Vec::new();
    let mut inside = false;
    let mut in_tests = false;
    for (index, line) in manifest.lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if let Some(section) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            let (kind, last) = section.split_once("dependencies").unwrap_or((section, "-"));
            inside = last.is_empty();
            in_tests = kind.ends_with("dev-");
            if let Some(name) = last.strip_prefix('.') {
                found.push(Dependency { line: number, name: name.to_owned(), in_tests });
            }
        } else if inside && let Some((key, value)) = line.split_once('=') {
            let renamed = value.split_once("package = \"").and_then(|(_, rest)| rest.split_once('"'));
            let key = key.trim().split('.').next().unwrap_or_default();
            let name = renamed.map_or(key, |(name, _)| name).to_owned();
            found.push(Dependency { line: number, name, in_tests });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_found_in_every_form() {
        let text = "[dependencies]\na.workspace = true\nb = \"1\"\nc = { package = \"d\", version = \"1\" }\n\n[lints]\nx = 1\n[dev-dependencies.e]\npath = \"e\"\n[target.'cfg(unix)'.dependencies]\nf = \"1\"\n";
        let names: Vec<_> =
            dependencies(text).iter().map(|d| format!("{} {} {}", d.line, d.name, d.in_tests)).collect();
        assert_eq!(names, ["2 a false", "3 b false", "4 d false", "8 e true", "11 f false"]);
    }

    #[test]
    fn a_dependency_upwards_is_named() {
        let tree = Tree::of(&[
            ("crates/edge-ir/Cargo.toml", "[dependencies]\nedge-run.workspace = true\n"),
            ("crates/edge-run/Cargo.toml", "[dependencies]\nedge-ir.workspace = true\n"),
            ("crates/edge-new/Cargo.toml", ""),
        ]);
        assert_eq!(
            directions(&tree),
            [
                "crates/edge-ir/Cargo.toml:2: `edge-ir` must not depend on `edge-run`",
                "crates/edge-new/Cargo.toml: `edge-new` has no row in CRATES of xtask/src/tidy/layers.rs",
            ]
        );
    }

    #[test]
    fn a_stolen_dependency_is_named() {
        let tree = Tree::of(&[
            (
                "crates/edge-ir/Cargo.toml",
                "[dependencies]\nprost = \"1\"\ntract-onnx = \"1\"\n[dev-dependencies]\npng = \"1\"\n",
            ),
            ("crates/edge-run/Cargo.toml", "[dependencies]\ntract-onnx = \"1\"\n"),
            ("xtask/Cargo.toml", "[dependencies]\nprost-build = \"1\"\n"),
        ]);
        assert_eq!(
            owners(&tree),
            ["crates/edge-ir/Cargo.toml:3: `edge-ir` must not depend on `tract-onnx`, only edge-run may"]
        );
    }

    #[test]
    fn a_network_client_is_named() {
        let tree = Tree::of(&[("Cargo.lock", "name = \"serde\"\nname = \"ureq\"\n")]);
        assert_eq!(network(&tree), ["Cargo.lock: `ureq` opens connections"]);
    }

    #[test]
    fn a_crate_without_description_is_named() {
        let tree = Tree::of(&[
            ("ARCHITECTURE.md", "`edge-ir` is the graph"),
            ("crates/edge-ir/Cargo.toml", ""),
            ("crates/edge-run/Cargo.toml", ""),
        ]);
        assert_eq!(described(&tree), ["ARCHITECTURE.md: says nothing of `edge-run`"]);
    }
}
