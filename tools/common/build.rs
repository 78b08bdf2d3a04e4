//! Tells the tools which commit they were built from, for their reports; nothing if that is not known.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The log of HEAD changes with every commit and checkout; HEAD itself does not.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| std::path::Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
    if let Some(id) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo::rustc-env=EMBARCADERO_GIT_ID={id}");
    }
}
