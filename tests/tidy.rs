//! The order of the house, held by a test: what imports what, where unsafe code and clocks are, how long a function is, where tests stand,
//! and that documents name only what is there.
//!
//! Where something does not hold yet it is on a list here. Lists shrink: an entry that is not needed any more fails too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Longest function of the code, lines; and of tests.
const FUNCTION_LINES_MAX: usize = 70;
const TEST_FUNCTION_LINES_MAX: usize = 80;

/// Functions that are longer than [`FUNCTION_LINES_MAX`]: a match over all kinds of something, or one thing after another that a reader wants to see in
/// one piece. With the lines they may have.
const LONG_FUNCTIONS: [(&str, &str, usize); 3] = [
    ("src/log/entry.rs", "to_entry", 81),
    ("src/log/checkpoint.rs", "replay_event", 80),
    ("src/roles/sequence/active.rs", "take_over", 77),
];

/// Files with unsafe code. Each numbers its invariants. Those of tests count what a process does from outside of it: an allocator, limits.
const UNSAFE_FILES: [&str; 12] = [
    "src/crc/kernels.rs",
    "src/net/peer.rs",
    "src/net/readiness.rs",
    "src/net/ring.rs",
    "src/net/socket_options.rs",
    "src/pool/coherence.rs",
    "src/pool/os.rs",
    "src/pool/stream.rs",
    "src/processor.rs",
    "src/runtime/os.rs",
    "tests/no_allocation.rs",
    "tests/role_contract/main.rs",
];

/// Where the system's clock that never goes back is read: the clock of runners, edges that wait for something outside of any duty cycle (start, end,
/// logging), the measurements by which checksums, copies and pages are chosen, and the blocking edge of the client library, which has no runner. Everything else is
/// given the time.
const MONOTONIC_FILES: [&str; 26] = [
    "src/processor.rs",
    "src/runtime/clock.rs",
    "src/runtime/logging.rs",
    "src/runtime/os.rs",
    "src/runtime/runner.rs",
    "src/embarlet.rs",
    "src/monitor/server.rs",
    "src/monitor/snapshot.rs",
    "src/log/namesake.rs",
    "src/pool/format.rs",
    "src/pool/huge.rs",
    "src/pool/locks.rs",
    "src/sim/kernel.rs",
    "src/client/admin.rs",
    "src/client/background.rs",
    "src/client/batch.rs",
    "src/client/deadline.rs",
    "src/client/dial.rs",
    "src/client/engine.rs",
    "src/client/socket.rs",
    "src/client/tcp_publisher.rs",
    "src/client/tcp_subscriber.rs",
    "src/client/attached/mod.rs",
    "src/client/attached/place.rs",
    "src/client/attached/publisher.rs",
    "src/client/attached/subscriber.rs",
];

/// Where the time of day is read: in one place.
const TIME_OF_DAY_FILES: [&str; 1] = ["src/utc.rs"];

/// Files of test code that are neither `tests.rs` nor `…_tests.rs`: what several tests use, or a test that is a program of its own.
const TEST_HELPERS: [&str; 7] = [
    "src/client/fake.rs",
    "src/log/views.rs",
    "src/net/conformance.rs",
    "src/order/exhaustive.rs",
    "src/order/model.rs",
    "src/testing/explore.rs",
    "src/testing/litmus.rs",
];

/// Files that are still in circles.
const CIRCLES: [&str; 2] = ["src/runtime/fault.rs", "src/runtime/os.rs"];

struct Source {
    /// From the root of the repository.
    name: String,
    /// Without the tests at its end and without comments.
    code: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("it").path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "run"].contains(&name.as_str()) {
                files_below(&path, extension, found);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

fn name_of(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned()
}

/// All sources below some directories.
fn sources(directories: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    directories.iter().for_each(|directory| files_below(&root().join(directory), "rs", &mut paths));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source is text");
        let before_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let before_tests = before_tests.split("#[cfg(test)]\npub(crate) mod tests {").next().unwrap_or_default();
        let code = before_tests.lines().map(without_comment).collect::<Vec<_>>().join("\n");
        Source { name: name_of(&path), code, text }
    };
    paths.into_iter().map(read).collect()
}

fn without_comment(line: &str) -> &str {
    // A `//` inside a string is part of an address: nothing of what is looked for comes after one.
    line.split("//").next().unwrap_or_default()
}

/// Whether a file is compiled for tests only, by its name or by the list.
fn is_of_tests(name: &str) -> bool {
    let is_part_of = |helper: &&str| {
        name.strip_prefix(helper.trim_end_matches(".rs")).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    };
    name.ends_with("/tests.rs") || name.ends_with("_tests.rs") || TEST_HELPERS.iter().any(is_part_of)
}

/// Fails with all of them.
fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// Holds what was found against a list of what is allowed; both must be the same.
fn same(what: &str, found: BTreeSet<String>, allowed: &[&str]) {
    let allowed: BTreeSet<String> = allowed.iter().map(|name| name.to_string()).collect();
    let new: Vec<_> = found.difference(&allowed).collect();
    let gone: Vec<_> = allowed.difference(&found).collect();
    assert!(new.is_empty() && gone.is_empty(), "{what}: not on the list: {new:?}; on it and not needed: {gone:?}");
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Imports.

/// Paths that a source imports, or names in its code, as parts: `crate::a::b`, `super::c`.
fn imported(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let is_whole = !code[..at]
                .ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':' || before == '$');
            if is_whole {
                expand(&code[at..], Vec::new(), &mut paths);
            }
        }
    }
    paths
}

/// Expands `a::{b, c::{d}}` from its beginning; gives what is left behind it.
fn expand<'a>(text: &'a str, mut path: Vec<String>, paths: &mut Vec<Vec<String>>) -> &'a str {
    let mut rest = text.trim_start();
    loop {
        let word = rest.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).next().unwrap_or_default();
        if word.is_empty() {
            break;
        }
        path.push(word.to_string());
        rest = &rest[word.len()..];
        let Some(behind) = rest.strip_prefix("::") else { break };
        rest = behind;
        if let Some(mut inner) = rest.strip_prefix('{') {
            loop {
                inner = expand(inner, path.clone(), paths).trim_start();
                match inner.strip_prefix(',') {
                    Some(next) => inner = next.trim_start(),
                    None => break,
                }
                if inner.starts_with('}') {
                    break;
                }
            }
            return inner.strip_prefix('}').unwrap_or(inner);
        }
    }
    paths.push(path);
    // An alias changes nothing.
    match rest.trim_start().strip_prefix("as ") {
        Some(alias) => alias.trim_start().trim_start_matches(|letter: char| letter.is_alphanumeric() || letter == '_'),
        None => rest,
    }
}

/// The room of a file of the library: the first part of its path.
fn room(name: &str) -> &str {
    let inside = name.strip_prefix("src/").expect("of the library");
    inside.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// The floors of the map in `src/lib.rs`: room to number.
fn floors(sources: &[Source]) -> BTreeMap<String, usize> {
    let map = &sources.iter().find(|source| source.name == "src/lib.rs").expect("the library").text;
    let mut floors = BTreeMap::new();
    for line in map.lines().filter_map(|line| line.strip_prefix("// ")) {
        let Some((number, rooms)) = line.split_once(" │ ") else { continue };
        let Ok(number) = number.trim().parse::<usize>() else { continue };
        let rooms = rooms.split(" │ ").next().unwrap_or_default();
        floors.extend(rooms.split('·').map(|room| (room.trim().to_string(), number)));
    }
    floors
}

/// Sources of the library that are part of what is shipped.
fn library() -> Vec<Source> {
    let mut sources = sources(&["src"]);
    sources.retain(|source| !is_of_tests(&source.name));
    sources
}

#[test]
fn imports_follow_the_map_of_the_library() {
    let sources = library();
    let floors = floors(&sources);
    let (mut against, mut rooms) = (Vec::new(), BTreeSet::new());
    for source in sources.iter().filter(|source| !["src/lib.rs", "src/main.rs"].contains(&source.name.as_str())) {
        let here = room(&source.name);
        rooms.insert(here.to_string());
        for path in imported(&source.code) {
            let (Some("crate"), Some(there)) = (path.first().map(String::as_str), path.get(1)) else { continue };
            let (Some(from), Some(to)) = (floors.get(here), floors.get(there.as_str())) else { continue };
            if here != there && from <= to {
                against.push(format!("{} imports {}", source.name, path.join("::")));
            }
        }
    }
    none("imports that do not go down", &against);
    assert_eq!(rooms, floors.into_keys().collect(), "the rooms on the left, those of the map on the right");
}

/// The file of the library that a path of a source names: the longest part of it that is a file.
fn file_of(path: &[String], from: &str, names: &BTreeSet<String>) -> Option<String> {
    let mut module: Vec<&str> = from.strip_prefix("src/")?.trim_end_matches(".rs").split('/').collect();
    if module.last() == Some(&"mod") {
        module.pop();
    }
    let mut parts = path.iter().map(String::as_str).peekable();
    match parts.next()? {
        "crate" => module.clear(),
        "super" => {
            module.pop();
            while parts.next_if_eq(&"super").is_some() {
                module.pop();
            }
        }
        _ => {}
    }
    let mut found = None;
    let mut at = module.join("/");
    for part in parts {
        at = if at.is_empty() { part.to_string() } else { format!("{at}/{part}") };
        let file = [format!("src/{at}.rs"), format!("src/{at}/mod.rs")].into_iter().find(|file| names.contains(file));
        match file {
            Some(file) => found = Some(file),
            None => break,
        }
    }
    // `super::name`, of the module itself.
    found.or_else(|| {
        let own = module.join("/");
        [format!("src/{own}.rs"), format!("src/{own}/mod.rs")].into_iter().find(|file| names.contains(file))
    })
}

/// All files that a file imports, and those that they import.
fn reached(from: &str, imports: &BTreeMap<&str, BTreeSet<String>>) -> BTreeSet<String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_string()]);
    while let Some(name) = open.pop() {
        for file in imports.get(name.as_str()).into_iter().flatten() {
            if seen.insert(file.clone()) {
                open.push(file.clone());
            }
        }
    }
    seen
}

#[test]
fn files_import_each_other_in_no_circle() {
    let sources = library();
    let names: BTreeSet<String> = sources.iter().map(|source| source.name.clone()).collect();
    let mut imports: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for source in &sources {
        let files = imported(&source.code).into_iter().filter_map(|path| file_of(&path, &source.name, &names));
        imports.insert(&source.name, files.filter(|file| *file != source.name && file != "src/lib.rs").collect());
    }
    let of_circles: BTreeSet<String> =
        imports.keys().filter(|name| reached(name, &imports).contains(**name)).map(|name| name.to_string()).collect();
    for name in &of_circles {
        let back = imports[name.as_str()].iter().filter(|file| reached(file, &imports).contains(name));
        println!("{name} imports {}", back.cloned().collect::<Vec<_>>().join(", "));
    }
    same("files in circles of imports", of_circles, &CIRCLES);
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Unsafe code, clocks, lengths.

#[test]
fn unsafe_code_is_only_where_it_is_allowed() {
    let is_unsafe = |source: &Source| {
        let mut lines = source.text.lines().map(without_comment);
        lines.any(|line| {
            ["unsafe {", "unsafe impl", "unsafe fn", "allow(unsafe_code)"].iter().any(|word| line.contains(word))
        })
    };
    let all = sources(&["src", "tests", "tools", "perf"]);
    let found = all
        .iter()
        .filter(|source| source.name != "tests/tidy.rs" && is_unsafe(source))
        .map(|source| source.name.clone());
    same("files with unsafe code", found.collect(), &UNSAFE_FILES);
    let map = fs::read_to_string(root().join("src/lib.rs")).expect("the library");
    let unnamed = UNSAFE_FILES
        .iter()
        .filter_map(|file| file.strip_prefix("src/"))
        .filter(|file| !map.contains(&format!("`{file}`")));
    none(
        "files that src/lib.rs does not name among those with unsafe code",
        &unnamed.map(str::to_string).collect::<Vec<_>>(),
    );
}

#[test]
fn clocks_are_read_in_named_places() {
    let library = library();
    let reads = |clocks: &[String]| -> BTreeSet<String> {
        let reads = |code: &str| clocks.iter().any(|clock| code.contains(clock));
        library.iter().filter(|source| reads(&source.code)).map(|source| source.name.clone()).collect()
    };
    let monotonic = [["Instant::", "now"].concat(), ["clock_", "gettime"].concat(), ["since_boot", "_ns()"].concat()];
    let of_day = [["SystemTime::", "now"].concat()];
    same("files that read the clock that never goes back", reads(&monotonic), &MONOTONIC_FILES);
    same("files that read the time of day", reads(&of_day), &TIME_OF_DAY_FILES);
}

/// Functions with their lengths: from the line of `fn` to the brace that closes it in the same column, which is where rustfmt puts it.
fn functions(text: &str) -> Vec<(String, usize)> {
    let (lines, mut found): (Vec<&str>, _) = (text.lines().collect(), Vec::new());
    for (begin, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some((before, after)) = code.split_once("fn ") else { continue };
        let is_item = before.split_whitespace().all(|word| {
            word.starts_with("pub")
                || ["const", "unsafe", "extern", "\"C\"", "async"].contains(&word)
                || word.ends_with(')')
        });
        if !is_item || line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        let indent = line.len() - code.len();
        let closing = format!("{}}}", " ".repeat(indent));
        let end = lines[begin..].iter().position(|line| {
            *line == closing || (line.ends_with(';') && line.starts_with(&format!("{})", " ".repeat(indent))))
        });
        let name: String = after.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
        found.extend(end.map(|lines| (name, lines + 1)));
    }
    found
}

#[test]
fn functions_are_a_screen_long() {
    let (mut too_long, mut used) = (Vec::new(), BTreeSet::new());
    for source in sources(&["src", "tests", "tools", "perf"]) {
        let is_test = is_of_tests(&source.name) || source.name.contains("tests/");
        let of_code = functions(&source.code).len();
        for (number, (function, lines)) in functions(&source.text).into_iter().enumerate() {
            let most = if is_test || number >= of_code { TEST_FUNCTION_LINES_MAX } else { FUNCTION_LINES_MAX };
            let listed = LONG_FUNCTIONS
                .iter()
                .find(|(file, name, _)| (*file, *name) == (source.name.as_str(), function.as_str()));
            if listed.is_some_and(|(_, _, allowed)| lines > most && lines == *allowed) {
                used.insert(function);
            } else if lines > most {
                too_long.push(format!("{} {function}: {lines} lines", source.name));
            }
        }
    }
    none("functions that are too long, or shorter than their entry in LONG_FUNCTIONS", &too_long);
    let unused =
        LONG_FUNCTIONS.iter().filter(|(_, name, _)| !used.contains(*name)).map(|(_, name, _)| name.to_string());
    none("entries of LONG_FUNCTIONS that are not needed as they are", &unused.collect::<Vec<_>>());
}

// ---------------------------------------------------------------------------------------------------------------------------------
// Tests, documents.

/// Tests of one file stand at its end, in `mod tests`. Where they are many they have a file of their own in the same room: `tests.rs` for a room as a whole (or
/// `x/tests.rs` for a file `x.rs` with a directory of its own), `<subject>_tests.rs` for one subject of it. Nothing else is compiled for
/// tests only but what is on the list.
#[test]
fn tests_stand_where_they_are_looked_for() {
    let all = sources(&["src", "tools", "perf"]);
    let (mut wrong, mut helpers) = (Vec::new(), BTreeSet::new());
    for source in &all {
        let directory = source.name.rsplit_once('/').map_or("", |(directory, _)| directory);
        let inside = match source.name.rsplit('/').next() {
            Some("mod.rs" | "lib.rs" | "main.rs") => directory.to_string(),
            _ => source.name.trim_end_matches(".rs").to_string(),
        };
        let lines: Vec<&str> = source.text.lines().collect();
        for number in (0..lines.len()).filter(|number| lines[*number] == "#[cfg(test)]") {
            let next = lines.get(number + 1).copied().unwrap_or_default();
            let Some((_, declared)) = next.split_once("mod ") else { continue };
            match declared.strip_suffix(';') {
                Some(module) if module == "tests" || module.ends_with("_tests") => {}
                Some(module) => _ = helpers.insert(format!("{inside}/{module}.rs")),
                None if declared == "tests {" && lines.last() == Some(&"}") => {
                    let closed = lines[number..].iter().position(|line| *line == "}").map(|end| number + end + 1);
                    if closed != Some(lines.len()) {
                        wrong.push(format!("{}: `mod tests` is not the last of it", source.name));
                    }
                }
                None => wrong.push(format!("{}: `{next}`", source.name)),
            }
        }
        if (source.name.ends_with("/tests.rs") || source.name.ends_with("_tests.rs"))
            && !source.name.contains("/tests/")
        {
            let module = source.name.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
            let ways =
                [format!("mod {module};"), format!("pub(crate) mod {module};"), format!("#[path = \"{module}.rs\"]")];
            let declares = |other: &Source| ways.iter().any(|way| other.text.contains(&format!("#[cfg(test)]\n{way}")));
            if !all.iter().any(declares) {
                wrong.push(format!("{}: nobody declares it for tests only", source.name));
            }
        }
    }
    none("tests that stand elsewhere", &wrong);
    same("files for tests only", helpers, &TEST_HELPERS);
}

/// Words of documents that lie elsewhere, and would be nothing to a reader of this repository.
const ELSEWHERE: [&str; 4] = ["DESIGN", "HOUSE.md", "CONVENTIONS", "FINDINGS"];

#[test]
fn nothing_is_said_of_documents_that_are_not_here() {
    let mut paths = Vec::new();
    ["rs", "md", "yaml", "sh", "py", "toml"].iter().for_each(|extension| files_below(&root(), extension, &mut paths));
    let mut found = Vec::new();
    for path in paths.iter().filter(|path| !path.ends_with("tests/tidy.rs")) {
        let text = fs::read_to_string(path).expect("text");
        let lines = (1..).zip(text.lines()).filter(|(_, line)| ELSEWHERE.iter().any(|word| line.contains(word)));
        found.extend(lines.map(|(number, line)| format!("{}:{number}: {}", name_of(path), line.trim())));
    }
    none("references to what is not in the repository", &found);
}

/// Links between documents, and files that they name in `code`.
#[test]
fn what_documents_name_is_there() {
    let mut paths = Vec::new();
    files_below(&root(), "md", &mut paths);
    paths.extend(
        fs::read_dir(root().join(".github")).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())),
    );
    let mut missing = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(path).expect("text");
        let beside = path.parent().expect("a directory");
        let links = text.split("](").skip(1).filter_map(|behind| behind.split(')').next());
        let links = links.filter(|link| !link.starts_with('#') && !link.contains("://"));
        for link in links.map(|link| link.split('#').next().unwrap_or_default()) {
            if !beside.join(link).exists() {
                missing.push(format!("{}: link to {link}", name_of(path)));
            }
        }
        let is_history = path.ends_with("CHANGELOG.md");
        let files = text.split('`').skip(1).step_by(2).filter(|code| {
            code.ends_with(".rs")
                && !code.contains(char::is_whitespace)
                && !code.contains(['*', '<', '…', '{'])
                && *code != "tests.rs"
        });
        for file in files.filter(|_| !is_history) {
            let places = [root(), root().join("src"), beside.to_path_buf()];
            if !places.iter().any(|place| place.join(file).exists()) {
                missing.push(format!("{}: `{file}`", name_of(path)));
            }
        }
    }
    none("documents name what is not there", &missing);
}

/// Commands of the operators' page: its indented lines without their comments, but for lines of settings.
fn commands_of_the_page(page: &str) -> BTreeSet<String> {
    let indented = page.lines().filter_map(|line| line.strip_prefix("    ")).map(str::trim);
    let is_setting = |line: &str| line.split(' ').next().is_some_and(|word| word.contains('='));
    let without_comment = |line: &str| line.split("  #").next().unwrap_or_default().trim().to_owned();
    indented.filter(|line| !line.is_empty() && !is_setting(line)).map(without_comment).collect()
}

/// What is typed on emulated hosts, or is said not to be: the last argument of these calls.
fn commands_typed(script: &str) -> BTreeSet<String> {
    let is_call = |line: &&str| {
        let name = line.split(' ').next().unwrap_or_default();
        ["typed", "started", "told", "not_here"].contains(&name) && line.ends_with('\'')
    };
    let calls = script.lines().flat_map(|line| line.split("do ")).map(|part| part.trim().trim_end_matches("; done"));
    calls.filter(is_call).filter_map(|call| call.split('\'').nth_back(1).map(str::to_owned)).collect()
}

#[test]
fn each_command_of_the_operators_page_is_typed_on_emulated_hosts() {
    let read = |name: &str| fs::read_to_string(root().join(name)).expect("a text");
    let (page, typed) =
        (commands_of_the_page(&read("config/OPERATING.md")), commands_typed(&read("tests/cxl/page.sh")));
    assert!(page.len() > 20, "commands are found: {page:?}");
    let only =
        |these: &BTreeSet<String>, those: &BTreeSet<String>| these.difference(those).cloned().collect::<Vec<_>>();
    none("on the page, and not in tests/cxl/page.sh", &only(&page, &typed));
    none("in tests/cxl/page.sh, and not on the page", &only(&typed, &page));
}

/// What the rest of this file is read with.
#[test]
fn sources_are_read_as_they_are_written() {
    let code = "use crate::a::{b, c::{D, e as f}, self};\nlet x = super::super::g::h(); other_crate::i();";
    let paths: Vec<String> = imported(code).iter().map(|path| path.join("::")).collect();
    assert_eq!(paths, ["crate::a::b", "crate::a::c::D", "crate::a::c::e", "crate::a::self", "super::super::g::h"]);
    let names = ["src/a/mod.rs", "src/a/b.rs", "src/c.rs"].map(str::to_string).into();
    let file = |path: &str, from| file_of(&path.split("::").map(str::to_string).collect::<Vec<_>>(), from, &names);
    assert_eq!(file("crate::a::b::D", "src/c.rs").as_deref(), Some("src/a/b.rs"));
    assert_eq!(file("super::D", "src/a/b.rs").as_deref(), Some("src/a/mod.rs"));
    assert_eq!(file("crate::a::E", "src/c.rs").as_deref(), Some("src/a/mod.rs"));
    let text = "impl A {\n    pub(crate) fn b() -> u8 {\n        1\n    }\n}\nfn c() {}\nfn d(\n    e: u8,\n) -> u8 {\n    e\n}\n";
    assert_eq!(functions(text), [("b".to_string(), 3), ("d".to_string(), 5)]);
}
