//! Imports go one way: a module of src/ imports only from the layers below its own.

use std::fs;
use std::path::Path;

/// From top to bottom. Modules of one layer import nothing from each other.
const LAYERS: &str =
    "lib main fuzz > cli > instance > check > status completions > firewall > siblings fast_path
    > lock > nftables > conntrack ruleset sysctl > resolver > rtnetlink sock_diag xfrm > config tcp
    > netlink > capability > process logging netns > text > uapi";

fn layer(module: &str) -> Option<usize> {
    let mut layers = LAYERS.split('>');
    layers.position(|layer| layer.split_whitespace().any(|name| name == module))
}

#[test]
fn imports_go_one_way() {
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), None);
}

/// Reads a folder; `module` is the one that it belongs to, unless that is the root.
fn visit(folder: &Path, module: Option<&str>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_str().expect("UTF-8").trim_end_matches(".rs");
        let module = module.unwrap_or(name);
        if path.is_dir() {
            visit(&path, Some(module));
            continue;
        }
        let text = fs::read_to_string(&path).expect("a file");
        assert!(!text.contains("crate as"), "{path:?} renames the root");
        for (start, from_root) in [("crate::", true), ("super::", false)] {
            let imports = text.split(start).skip(1);
            imports.for_each(|import| check(module, import, from_root));
        }
    }
}

/// A path from the root starts with a module; another may do so, or with a list in braces.
fn check(module: &str, import: &str, from_root: bool) {
    let between = |c: char| !c.is_alphanumeric() && c != '_';
    let end = |c| c == ';' || !import.starts_with('{') && between(c);
    let names = import.split(end).take(1);
    for name in names.flat_map(|names| names.split(between)) {
        let goes_down = layer(name).map_or(!from_root, |layer| self::layer(module) < Some(layer));
        assert!(name == module || goes_down, "{module} imports {name}");
    }
}
