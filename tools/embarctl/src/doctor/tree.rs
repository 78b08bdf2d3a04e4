//! What the kernel says in `/proc` and `/sys`, below a root: `/`, or that of a machine which a test made up.
//!
//! Whatever is not there, cannot be read or is not text is none.

use std::fs;
use std::path::{Path, PathBuf};

use embarcadero::runtime::cpu::parse_cores;

/// A file system that is looked at.
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The one at `root`.
    pub fn new(root: &Path) -> Tree {
        Tree { root: root.into() }
    }

    /// Where it begins.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where something of it lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name.trim_start_matches('/'))
    }

    /// The text of a file, without blanks around it.
    pub fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok().map(|text| text.trim().to_owned())
    }

    /// A file that is one number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// A file that is a list of cores; an empty one is no core.
    pub fn cores(&self, name: &str) -> Option<Vec<usize>> {
        match self.text(name)?.as_str() {
            // What the kernel prints of a list that it never made.
            "" | "(null)" => Some(Vec::new()),
            text => parse_cores(text),
        }
    }

    /// The word of a file that the kernel marks in a list like `always [madvise] never`.
    pub fn chosen(&self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        let (_, behind) = text.split_once('[')?;
        behind.split_once(']').map(|(word, _)| word.to_owned())
    }

    /// What stands behind a name at the beginning of a line, as in `MemTotal: 8 kB`.
    pub fn line(&self, name: &str, key: &str) -> Option<String> {
        let text = self.text(name)?;
        let rest = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'))?;
        Some(rest.trim().to_owned())
    }

    /// A size of `/proc/meminfo`, bytes.
    pub fn memory_bytes(&self, key: &str) -> Option<u64> {
        let line = self.line("proc/meminfo", key)?;
        Some(line.strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    }

    /// Names in a folder, sorted; none if there is no such folder.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The numbers of names in a folder that are a word and a number, such as `cpu12`; sorted.
    pub fn numbers(&self, folder: &str, word: &str) -> Vec<usize> {
        let names = self.names(folder);
        let mut numbers: Vec<usize> = names.iter().filter_map(|name| name.strip_prefix(word)?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Whether something is there.
    pub fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Type of the file system that a path lies in, by the mount that is nearest to it.
    pub fn file_system(&self, path: &Path) -> Option<String> {
        let mounts = self.text("proc/self/mountinfo")?;
        let of_line = |line: &str| {
            let (mount, kind) = line.split_once(" - ")?;
            let point = mount.split(' ').nth(4)?.to_owned();
            path.starts_with(&point).then(|| (point.len(), kind.split(' ').next().unwrap_or_default().to_owned()))
        };
        // Of several at one place the last one is seen.
        mounts.lines().filter_map(of_line).max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
    }

    /// Programs that run, by their short names.
    pub fn runs(&self, programs: &[&str]) -> Option<String> {
        let numbers = self.numbers("proc", "");
        let mut names = numbers.iter().filter_map(|number| self.text(&format!("proc/{number}/comm")));
        names.find(|name| programs.contains(&name.as_str()))
    }
}

/// Cores as the kernel lists them: `0-3,8`.
pub fn list(cores: &[usize]) -> String {
    let mut sorted = cores.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for core in sorted {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => ranges.push((core, core)),
        }
    }
    let words = ranges.iter().map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") });
    words.collect::<Vec<_>>().join(",")
}

/// A size for people, in the largest unit of which there is one at least.
pub fn size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) if bytes.trailing_zeros() >= *shift => format!("{} {unit}", bytes >> shift),
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}
