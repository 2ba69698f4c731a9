//! Links libmnl and libnftnl statically, and a release without what it does not need.

use std::env;

fn main() {
    // A locally installed libmnl.a lives here: Debian 12 ships none (tests/setup.sh brings it).
    println!("cargo::rustc-link-search=native=/usr/local/lib");
    // libnftnl.a needs libmnl.a after it. GNU ld reads archives once and in order, so it is named
    // once more at the end; `-l:` takes the archive even where a shared library stands beside it.
    println!("cargo::rustc-link-arg=-l:libmnl.a");
    if env::var("PROFILE").as_deref() == Ok("release") {
        let directory = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{directory}/.cargo/no-unwind.ld");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=.cargo/no-unwind.ld");
}
