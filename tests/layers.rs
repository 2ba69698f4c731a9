//! Imports go one way: a module of src/ imports only from the layers below its own.

use std::{fs, path::Path};

/// From top to bottom; modules in one line are of one layer, and import nothing from each other.
const LAYERS: [&str; 12] = [
    "main fuzz",
    "cli",
    "instance",
    "check status completions",
    "firewall",
    "siblings",
    "lock nftables",
    "conntrack ruleset sysctl",
    "rtnetlink config",
    "netlink",
    "capability process logging",
    "uapi",
];

fn layer(module: &str) -> usize {
    let mut layers = LAYERS.iter();
    let layer = layers.position(|layer| layer.split(' ').any(|name| name == module));
    layer.unwrap_or_else(|| panic!("no layer has the module {module}"))
}

#[test]
fn imports_go_one_way() {
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), None);
}

/// Reads a folder; `module` is the one that it belongs to, unless that is the root.
fn visit(folder: &Path, module: Option<&str>) {
    let entries = fs::read_dir(folder).expect("a folder");
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        let name = path.file_stem().expect("a name").to_str().expect("UTF-8");
        let module = module.unwrap_or(name);
        if path.is_dir() {
            visit(&path, Some(module));
        } else if module != "lib" {
            let text = fs::read_to_string(&path).expect("a text");
            for import in text.split("crate::").skip(1) {
                let end = import.find(|c: char| !c.is_alphanumeric() && c != '_');
                let imported = &import[..end.unwrap_or(import.len())];
                let goes_down = module == imported || layer(module) < layer(imported);
                assert!(goes_down, "{name}.rs: {module} must not import {imported}");
            }
        }
    }
}
