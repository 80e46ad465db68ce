//! Lets the linker keep one of functions that came out the same (generics, mostly): a twentieth of the release program.
//!
//! `safe`: not of those whose address is taken, so that no two that differ in name become equal.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let var = |name| std::env::var(name).unwrap_or_default();
    let is_release = var("PROFILE") == "release";
    // There rustc links with an lld of its own, which knows the option. Another linker that somebody asked for may not.
    let is_lld = var("TARGET") == "x86_64-unknown-linux-gnu"
        && std::env::var_os("RUSTC_LINKER").is_none()
        && !["link-arg", "linker"]
            .iter()
            .any(|flag| var("CARGO_ENCODED_RUSTFLAGS").contains(flag));
    if is_release && is_lld {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=safe");
    }
}
