//! The broker's manual page, and its units, against the broker itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use launch::place::build_broker;
use pages::{help, options, plain};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_option_of_the_broker_is_in_its_page_and_its_completions() {
    let program = build_broker(Path::new(env!("CARGO_BIN_EXE_pages")), &workspace()).join("embarlet");
    let share = std::env::temp_dir().join(format!("pages-embarlet-{}", std::process::id()));
    let status = Command::new(env!("CARGO_BIN_EXE_pages")).arg(&program).arg(&share).status().unwrap();
    assert!(status.success());
    let read = |place: &str| fs::read_to_string(share.join(place)).unwrap();
    let (page, bash, zsh, fish) = (
        plain(&read("man/man1/embarlet.1")),
        read("bash-completion/completions/embarlet"),
        read("zsh/site-functions/_embarlet"),
        read("fish/vendor_completions.d/embarlet.fish"),
    );
    fs::remove_dir_all(&share).unwrap();
    let listed = options(&help::help_of(&program).unwrap());
    assert!(listed.len() >= 8 && listed.iter().any(|option| option == "--config"), "{listed:?}");
    for option in &listed {
        assert!(page.contains(option.as_str()), "{option} is not in the page:\n{page}");
        let is_completed = bash.contains(option.as_str()) && zsh.contains(option.as_str());
        assert!(is_completed && fish.contains(&format!("-l {}", option.trim_start_matches("--"))), "{option}");
    }
    assert!(page.contains("Exit status") && page.contains("its pool was lost"), "{page}");
}

/// The two units do the same, one broker or all.
#[test]
fn the_units_differ_in_nothing_but_the_brokers() {
    let settings = |name: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(workspace().join("config/systemd").join(name)).unwrap();
        text.lines().filter(|line| line.contains('=') && !line.starts_with('#')).map(str::to_owned).collect()
    };
    let (one, all) = (settings("embarcadero@.service"), settings("embarcadero.service"));
    let only_one: Vec<&String> = one.difference(&all).collect();
    let only_all: Vec<&String> = all.difference(&one).collect();
    let keys =
        |lines: &[&String]| lines.iter().map(|line| line.split('=').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!((keys(&only_one), keys(&only_all)), (keys(&only_all), vec!["Description".into(), "ExecStart".into()]));
    assert_eq!(only_one[1], &format!("{} --brokers %i", only_all[1]));
    assert!(all.contains("RestartPreventExitStatus=3") && all.contains("Type=notify"));
}
