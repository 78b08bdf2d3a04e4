//! Manual pages against what each command says of itself: every option of every `--help` is in its page.

#[test]
fn every_option_of_every_command_is_in_its_page() {
    let found = pages::held::options_in_pages(env!("CARGO_BIN_EXE_loadgen"), "loadgen");
    assert!(found > 60, "{found} options");
}
