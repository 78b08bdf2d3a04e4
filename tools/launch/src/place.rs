//! Where processes run: addresses, a folder, and the broker's program.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

/// An address that no other process and no other call of this one has: 127.0.0.0/8 is this host's. So ports never collide.
///
/// # Panics
/// After 254 calls.
pub fn own_address() -> String {
    static GIVEN: AtomicU8 = AtomicU8::new(0);
    let (process, given) = (std::process::id(), GIVEN.fetch_add(1, Ordering::Relaxed));
    assert!(given < 254, "more calls than addresses");
    format!("127.{}.{}.{}", 1 + (process >> 8) % 254, process & 0xff, 1 + given)
}

/// Ports that were free a moment ago. Whoever finds one taken meanwhile says so and ends.
///
/// # Errors
/// If there are none.
pub fn free_addresses(count: u32) -> io::Result<Vec<SocketAddr>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
    listeners.iter().map(TcpListener::local_addr).collect()
}

/// A folder, removed with everything in it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new one.
    ///
    /// # Errors
    /// If it is there already, or cannot be made.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Folder> {
        let path = path.into();
        fs::create_dir(&path)?;
        Ok(Folder(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
    }
}

/// Builds the broker with the profile of this program, into the folder beside it: cargo builds a package's own programs for its
/// tests, not another's. Gives that folder. `workspace` is a folder of the workspace.
///
/// # Panics
/// If it does not build.
pub fn build_broker(program: &Path, workspace: &Path) -> PathBuf {
    let folder = program.parent().expect("a program is in a folder");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    build.current_dir(workspace).args(["build", "--quiet", "--package", "embarcadero", "--bin", "embarlet"]);
    build.arg("--target-dir").arg(folder.parent().expect("the target folder"));
    if folder.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo runs").success(), "the broker builds");
    folder.to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_given_twice() {
        assert_ne!(own_address(), own_address());
        let ports = free_addresses(2).unwrap();
        assert_ne!(ports[0], ports[1]);
    }

    #[test]
    fn a_folder_is_gone_with_what_is_in_it() {
        let path = std::env::temp_dir().join(format!("launch-folder-{}", std::process::id()));
        let folder = Folder::create(&path).unwrap();
        fs::write(folder.path().join("a"), "b").unwrap();
        assert!(Folder::create(&path).is_err(), "it is there");
        drop(folder);
        assert!(!path.exists());
    }
}
