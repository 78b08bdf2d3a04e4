//! Command lines that are understood, and those that are refused.

use super::*;
use clap::CommandFactory;

fn publish(line: &str) -> PublishArgs {
    match Cli::try_parse_from(line.split(' ')).expect("a good command line").command {
        Command::Publish(args) => args,
        _ => unreachable!("the line says publish"),
    }
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn messages_are_split_without_loss() {
    let args = publish("loadgen publish --total-bytes 10000 --message-size 10 --sessions 3");
    assert_eq!(args.load.split(10, 3).unwrap(), [334, 333, 333]);
    let few = publish("loadgen publish --messages 2 --sessions 3");
    assert!(few.load.split(10, 3).is_err());
    let empty = publish("loadgen publish --message-size 0");
    assert!(empty.load.split(0, 1).is_err());
}

#[test]
fn impossible_combinations_are_refused() {
    for line in
        ["loadgen publish --message-size 1GiB", "loadgen publish --ack 0", "loadgen publish --message-size 16777215TiB"]
    {
        let parsed = Cli::try_parse_from(line.split(' '));
        assert!(
            matches!(parsed.map(|cli| cli.command), Ok(Command::Publish(args)) if args.topic.check().is_err()),
            "{line}"
        );
    }
    assert!(Cli::try_parse_from(["loadgen", "subscribe"]).is_err(), "neither count nor until-caught-up");
    assert!(Cli::try_parse_from(["loadgen", "publish", "--order", "3"]).is_err());
}

#[test]
fn topics_say_their_levels() {
    let args = publish("loadgen publish --order 4 --ack 0");
    assert_eq!(args.topic.name("-1"), "loadgen-o4-a0-1");
    assert_eq!(publish("loadgen publish --topic mine").topic.name("-1"), "mine");
}
