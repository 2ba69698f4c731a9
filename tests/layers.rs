//! Imports go one way: a module of src/ imports only from the layers below its own.

use std::fs;
use std::path::Path;

/// From top to bottom; modules in one line are of one layer, and import nothing from each other.
const LAYERS: [&str; 14] = [
    "main fuzz",
    "cli",
    "instance",
    "check status completions",
    "firewall",
    "siblings",
    "lock nftables",
    "conntrack ruleset sysctl",
    "rtnetlink sock_diag",
    "config",
    "netlink",
    "capability",
    "process logging netns",
    "uapi",
];

fn layer(module: &str) -> usize {
    let is_in = |layer: &&str| layer.split(' ').any(|name| name == module);
    let layer = LAYERS.iter().position(is_in);
    layer.unwrap_or_else(|| panic!("no layer has the module {module}"))
}

#[test]
fn imports_go_one_way() {
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), None);
}

/// Reads a folder; `module` is the one that it belongs to, unless that is the root.
fn visit(folder: &Path, module: Option<&str>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (
            entry.path(),
            entry.file_name().into_string().expect("UTF-8"),
        );
        let module = module.unwrap_or(name.trim_end_matches(".rs"));
        if path.is_dir() {
            visit(&path, Some(module));
        } else if module != "lib" {
            let text = fs::read_to_string(&path).expect("a file");
            for import in text.split("crate::").skip(1) {
                let imported = import
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next();
                let imported = imported.expect("a name");
                let goes_down = module == imported || layer(module) < layer(imported);
                assert!(goes_down, "{name}: {module} must not import {imported}");
            }
        }
    }
}
